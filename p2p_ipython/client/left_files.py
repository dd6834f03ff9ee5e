"""Files that a task has left in its folder, as they came with its result, and how they are saved here.

A name is a worker's words: it is checked before anything is written, and nothing is ever written over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path

from p2p_ipython.client.arrived import Arrived
from p2p_ipython.errors import NotKept, UsageError
from p2p_ipython.protocol.plain import plain

FOLDER = "p2p-files"
"""Where files are saved, by the label of their task."""

_LOADED = re.compile(r"(?i)(^|/)\.|\.(py[a-z]?|pth|so|pyd|dll|dylib|ipynb|sh|bash|zsh|fish|bat|cmd|ps1|cfg|toml|mk)$")
"""Names that Python, Jupyter, a shell or a build tool would load by themselves."""

_NO_NAME = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


class TaskFile(bytes):
    """The bytes of a file, with its ``name``; ``save()`` writes it here."""

    name: str
    _folder: str
    _trusted: bool

    def save(self, path: str | PathLike[str] | None = None) -> Path:
        """Write the file, to ``p2p-files/LABEL/NAME`` if no ``path`` is given; return where. Never over something.

        Raises ``UsageError`` for a name that can't be used unasked, and ``FileExistsError``.
        """
        if path is None:
            if _unusable(self.name) or (not self._trusted and _LOADED.search(self.name)):
                raise UsageError(
                    f"{plain(self.name, 100)!r} is not saved unasked: Python, Jupyter or a shell may run such a file",
                    hint="Say where it is to be: .save('PATH').",
                )
            target = Path(FOLDER, _folder_name(self._folder), self.name)
        else:
            target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:  # which follows no link at its end
            file.write(self)
        return target

    def __repr__(self) -> str:
        return f"<TaskFile {plain(self.name, 100)}, {size_words(len(self))}>"


class TaskFiles(Mapping[str, TaskFile]):
    """The files that a task has left, by name."""

    def __init__(
        self,
        attached: Mapping[tuple[str, str], Arrived],
        label: str,
        *,
        trusted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._found = {name: arrived for (kind, name), arrived in attached.items() if kind == "file"}
        self._label = label
        self._trusted = trusted

    def __getitem__(self, name: str) -> TaskFile:
        arrived = self._found.get(name)
        if arrived is None:
            raise NotKept(
                f"the task has left no file {plain(str(name), 100)!r}",
                hint=f"It has left {self._listed()}." if self._found else "It has left none.",
            )
        if arrived.result.codec != "bytes":
            raise NotKept(
                f"{plain(name, 100)!r} stayed behind, and is gone: a task may leave 100 files, of 256 MB in all",
                hint="Have the task write less, or return what you need.",
            )
        ((_, ref),) = arrived.result.segments
        made = TaskFile(bytes(arrived.inline if ref is None else arrived.large[ref]))
        made.name, made._folder, made._trusted = name, self._label, self._trusted()
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def save(self) -> list[Path]:
        """Write all of them, as ``TaskFile.save`` does; return where. Raises at the first that can't be."""
        return [self[name].save() for name in self]

    def words(self) -> str:
        """Say which there are, with their sizes: "figure.png, 12.0 kB"; "" for none."""
        shown = [f"{plain(name, 60)}, {size_words(_size(arrived))}" for name, arrived in list(self._found.items())[:3]]
        more = len(self._found) - len(shown)
        return "; ".join(shown) + (f" and {more} more" if more else "")

    def _listed(self) -> str:
        return ", ".join(plain(name, 60) for name in list(self._found)[:20])

    def __repr__(self) -> str:
        return f"<TaskFiles: {self.words() or 'none'}>"


def size_words(size: int) -> str:
    """Say a size: 12 bytes, 12.0 kB, 3.4 MB."""
    if size < 1000:
        return f"{size} bytes" if size != 1 else "1 byte"
    return f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"


def _size(arrived: Arrived) -> int:
    if arrived.result.codec == "bytes":
        return sum(size for size, _ in arrived.result.segments)
    return int(arrived.result.at) if arrived.result.at.isascii() and arrived.result.at.isdigit() else 0


def _unusable(name: str) -> bool:
    parts = name.split("/")
    return bool(_NO_NAME.search(name)) or any(part in ("", ".", "..") or part != part.strip(" .") for part in parts)


def _folder_name(label: str) -> str:
    return re.sub(r"[^\w.-]+", "_", label).strip("._")[:80] or "task"
