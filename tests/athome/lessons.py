"""Lessons: small notebooks as text. ``# %%`` opens a cell; what follows it on that line is the cell's title."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "lessons"


@dataclass(frozen=True)
class Piece:
    """What a kernel is given at a time. ``asked`` is what the suite asks of the kernel itself, before ``source``.

    A ``quiet`` one only makes the state for others.
    """

    id: str
    source: str = ""
    quiet: bool = False
    asked: str = ""


@dataclass(frozen=True)
class Lesson:
    """A notebook: its pieces in order."""

    name: str
    pieces: tuple[Piece, ...]
    group: str

    @property
    def cells(self) -> list[Piece]:
        """Those that are compared."""
        return [piece for piece in self.pieces if not piece.quiet]


def read(path: Path) -> Lesson:
    """Read a lesson. A cell's name is the lesson's and its number, from 1."""
    bodies = re.split(r"^# %%.*\n", path.read_text(encoding="utf-8"), flags=re.M)[1:]
    pieces = [Piece(f"{path.stem}/{number}", body.strip("\n")) for number, body in enumerate(bodies, 1)]
    return Lesson(path.stem, tuple(pieces), "lessons")


def lessons() -> list[Lesson]:
    """Return all lessons, by name."""
    return [read(path) for path in sorted(FOLDER.glob("*.ipy"))]
