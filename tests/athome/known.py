"""The list of known differences, ``differences.txt``: a line each, ``cell | kind | what would be needed``.

Lines that begin with ``#`` say what the list was made with. ``make athome ATHOME=--rewrite`` makes it anew: a cell that
is the same now loses its line, a new one gets a line without a reason, which people then write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.athome.home import Verdict

PATH = Path(__file__).parent / "differences.txt"
FLOOR = 0.975
"""The least part of the cells that has to be the same."""


def read(path: Path = PATH) -> dict[str, tuple[str, str]]:
    """Return the known differences: cell → (kind, what would be needed)."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return {cell: (kind, needed) for cell, kind, needed in rows}


def made_with(path: Path = PATH) -> str:
    """Return the versions that the list was made with. Others draw other examples, and print other words."""
    return (
        path.read_text(encoding="utf-8").partition("--rewrite` with ")[2].partition(".\n")[0] if path.exists() else ""
    )


def kind_of(verdict: Verdict) -> str:
    """Return the aspects in which a cell differs, in words."""
    return ", ".join(verdict.found)


def write(verdicts: Iterable[Verdict], versions: str, path: Path = PATH) -> None:
    """Write the list anew; reasons of those that still differ stay."""
    known = read(path)
    lines = [
        f"{verdict.id} | {kind_of(verdict)} | {known.get(verdict.id, ('', 'unknown yet'))[1]}"
        for verdict in sorted(verdicts, key=lambda one: one.id)
        if verdict.found
    ]
    head = [
        "# Cells that do something else under %%p2p: cell | what differs | what would be needed.",
        f"# Made by `make athome ATHOME=--rewrite` with {versions}.",
    ]
    path.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")


def rate(verdicts: Iterable[Verdict]) -> tuple[int, int, int]:
    """Return how many are the same, differ, and say nothing."""
    counts = Counter("out" if one.left_out else "same" if one.same else "differ" for one in verdicts)
    return counts["same"], counts["differ"], counts["out"]


def in_words(name: str, verdicts: list[Verdict]) -> str:
    """Return a line on a group of cells."""
    same, differ, out = rate(verdicts)
    part = f"{100 * same / (same + differ):5.1f} %" if same + differ else "    –  "
    copies = sum(bool(one.changed) and not one.left_out for one in verdicts)
    return f"{name:12} {part}  {same} of {same + differ} the same; {out} left out; {copies} change something in place"
