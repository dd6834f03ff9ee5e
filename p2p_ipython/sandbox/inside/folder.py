"""The task's folder: what a task leaves in it goes with the result, and the next task finds it empty.

A notebook's own folder, in which the tasks of a personal cluster work, is left alone. Names that begin with a dot are
of no interest: libraries keep their settings and caches there.

The runner imports this module inside the sandbox: standard library only.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from p2p_ipython.protocol.frames import INLINE
from p2p_ipython.protocol.task_frames import MAX_REF, Attached
from p2p_ipython.sandbox.inside.attach import EMPTY, Attachment
from p2p_ipython.task.files import MAX_FILE_BYTES, MAX_FILES
from p2p_ipython.task.payload import Packed, Segment

_LOOKED_AT = 10_000
"""Entries of a task's folder that are looked at."""

_SMALL = 4 << 10
"""Bytes of a file that goes in the frame of the result."""

_Mark = tuple[int, int, int]


class TaskFolder:
    """The folder in which a runner's tasks work, if it is theirs alone."""

    def __init__(self, folder: str | None) -> None:
        """``folder``: the scratch folder; None if tasks work in one that isn't."""
        self._folder = folder
        self._brought: dict[str, _Mark] = {}
        self._changed = self._dated_back()

    def begin(self) -> None:
        """Note what is there when a task begins: what it has brought along."""
        if self._folder is None or self._changed_at() == self._changed:
            return
        for name, _ in _files(self._folder):
            _date_back(os.path.join(self._folder, name))
        self._brought = dict(_files(self._folder))

    def left(self) -> list[Attachment]:
        """Return what the task has left: new files, and those that it has changed."""
        if self._folder is None or (not self._brought and self._changed_at() == self._changed):
            return []
        made: list[Attachment] = []
        room, inline = MAX_FILE_BYTES, INLINE // 4
        for name, mark in _files(self._folder):
            if self._brought.get(name) == mark:
                continue
            size = mark[0]
            entry = Attached("file", name, "left", (), at=str(size))
            packed = EMPTY
            if len(made) < MAX_FILES and size <= room:
                with contextlib.suppress(OSError, ValueError):
                    small = size <= min(_SMALL, inline)
                    packed = _read(os.path.join(self._folder, name), f"f{len(made)}", size, inline=small)
                    entry = Attached("file", name, "bytes", packed.segments)
                    room -= size
                    inline -= len(packed.inline)
            made.append(Attachment(entry, packed))
            if len(made) > MAX_FILES:  # that there are more is enough to know
                break
        return made

    def clear(self) -> None:
        """Remove what is there."""
        self._brought = {}
        if self._folder is None or self._changed_at() == self._changed:
            return
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        os.unlink(entry.path)
        self._changed = self._dated_back()

    def _dated_back(self) -> int:
        """Return what ``_changed_at`` will say until an entry is made or removed."""
        if self._folder is not None:
            _date_back(self._folder)
        return self._changed_at()

    def _changed_at(self) -> int:
        """Return when entries of the folder were last made or removed, so that nothing more is done if none were."""
        try:
            return os.stat(self._folder).st_mtime_ns if self._folder is not None else 0
        except OSError:  # the task has removed the folder itself
            return -1


def _date_back(path: str) -> None:
    """Give what is at ``path`` an older time of change, so that the next change gives it another one.

    The system's clock of changes ticks every few milliseconds, and some file systems keep whole seconds. A task may be
    quicker than that.
    """
    then = time.time_ns() - 10 * 10**9
    with contextlib.suppress(OSError):
        os.utime(path, ns=(then, then), follow_symlinks=False)


def _files(folder: str) -> Iterator[tuple[str, _Mark]]:
    """Yield the names of the regular files below a folder, with what tells whether one has changed."""
    looked = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        for name in sorted(names):
            looked += 1
            if looked > _LOOKED_AT:
                return
            path = os.path.join(place, name)
            try:
                found = os.lstat(path)
            except FileNotFoundError:  # a process that the task has left still works here
                continue
            relative = Path(path).relative_to(folder).as_posix()
            if stat.S_ISREG(found.st_mode) and not name.startswith(".") and len(relative) <= MAX_REF:
                yield relative, (found.st_size, found.st_mtime_ns, found.st_ino)


def _read(path: str, ref: str, size: int, *, inline: bool) -> Packed:
    """Read a file, which may be large: then its bytes stay where they are until they are sent. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if inline:
            content = os.read(descriptor, size)
            return Packed((Segment(len(content), None),), content, {}, False)
        view = memoryview(mmap.mmap(descriptor, size, prot=mmap.PROT_READ))
        return Packed((Segment(size, ref),), b"", {ref: view}, False)
    finally:
        os.close(descriptor)
