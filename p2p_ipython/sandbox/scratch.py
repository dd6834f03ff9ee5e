"""Scratch folders: one a runner, in use while its agent or its warden lives, removed by a later agent otherwise.

Each of the two holds a shared lock on the folder, which the kernel lets go of however they end. Process ids would
not do: an agent in a container that shares the temporary folder has ids of its own.

POSIX only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

STRANGERS = range(0x7000_0000, 0x7FFC_0000)
"""User ids that no system gives to anybody (systemd's UIDS-GIDS.md has the ranges that are in use). Root's runners get
them, and may own their scratch folder."""

DISK_FULL = 99
"""The exit code that says that a runner's scratch folder held too much."""

OVER = "The task was ended."
"""How the words begin that go with it, and those about any other limit."""

_FOLDERS = 1 << 20
"""Bytes that folders may take beside a file that is as large as one may be."""

_YOUNG = 60.0
"""A folder whose entries have changed this recently, seconds, isn't swept: it may be about to be locked."""


class Scratch:
    """A folder for one runner, mode 0700, in ``parent`` (default: the system's temporary folder).

    Named by the process that made it, for people who look. Raises ``OSError`` when there is no room for it.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"p2p-{os.getpid()}-", dir=parent))
        self._lock = lock(self.path)

    def remove(self) -> None:
        """Remove it; what can't be removed is left to ``sweep``. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def in_memory(name: str, data: bytes) -> int:
    """Return a descriptor at the beginning of a file without a place, which holds ``data`` (Linux)."""
    descriptor = os.memfd_create(name)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def lock(folder: str | Path) -> int:
    """Mark a folder as in use until the descriptor that is returned is closed; it isn't inherited.

    Where the file system has no locks, nobody sweeps. Raises ``OSError`` when there is no such folder.
    """
    fd = _opened(folder)
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return fd


def sweep(parent: Path | None = None) -> list[Path]:
    """Remove this user's scratch folders that nobody uses any more; return which. Call it at an agent's start."""
    swept = []
    for folder in Path(parent or tempfile.gettempdir()).glob("p2p-*-*"):
        if folder.name.split("-")[1].isdigit():
            with contextlib.suppress(OSError):
                if _swept(folder):
                    swept.append(folder)
    return swept


def _swept(folder: Path) -> bool:
    """Remove a folder if nobody uses it. Raises ``OSError`` when that can't be known."""
    fd = _opened(folder)
    try:
        found = os.fstat(fd)
        ours = found.st_uid == os.getuid() or (os.getuid() == 0 and found.st_uid in STRANGERS)
        if not ours or time.time() - found.st_mtime < _YOUNG:
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(fd)


def _opened(folder: str | Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def full(scratch: str, disk: int) -> int | None:
    """Say so, and return the code to end with, when the scratch folder holds too much."""
    if not over(scratch, disk):
        return None
    os.write(2, f"{OVER} {wrote_too_much(disk)}\n".encode())
    return DISK_FULL


def over(scratch: str, disk: int) -> bool:
    """Return whether a scratch folder holds more than a file of ``disk`` bytes, and folders beside it."""
    return occupied(scratch, disk + _FOLDERS) > disk + _FOLDERS


def wrote_too_much(disk: int) -> str:
    """Return the sentence about a task whose scratch folder is ``over``."""
    return f"It wrote more than the {disk >> 20} MiB that it may write to its scratch folder."


def occupied(folder: str, enough: int) -> int:
    """Return the bytes that a folder's files occupy; it stops counting beyond ``enough``."""
    total, waiting = 0, [folder]
    while waiting and total <= enough:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
