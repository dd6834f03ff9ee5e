"""Say of an error that a task has met which of its limits is used up: the system's own words name none.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from p2p_ipython.sandbox import processes
from p2p_ipython.sandbox.inside.limits import data_now

_DEEP = 10
"""Errors in a chain that are looked at."""

_NO_THREAD = "can't start new thread"

_FULL = 0.9
"""The part of a folder in memory from which on it is full."""

_SLACK = 2
"""A scratch folder's own file system has at most so many times the bytes that a task may write there."""

_SHARED = "/dev/shm"  # noqa: S108 - looked at, not written


@dataclass(frozen=True)
class Limits:
    """A runner's limits; 0 for none. ``before``: bytes that were used before there was a task.

    ``place``: the worker's name. ``scratch``: the folder that ``disk`` is of.
    """

    memory: int = 0
    before: int = 0
    disk: int = 0
    processes: int = 0
    scratch: str = ""
    place: str = ""

    def words(self, error: BaseException) -> str:
        """Return a sentence about the limit that an error, or one that has led to it, comes from; "" for none."""
        for each in _chain(error):
            if words := self._of(each):
                return words
        return ""

    def _of(self, error: BaseException) -> str:
        number = error.errno if isinstance(error, OSError) else None
        on = f" on {self.place}" if self.place else ""
        if isinstance(error, MemoryError) or number == errno.ENOMEM:
            return self._of_memory(on)
        if number in (errno.ENOSPC, errno.EDQUOT):
            if self.disk and _is_full(self.scratch, self.disk):
                return f"disk: {_size(self.disk)} of scratch{on} are used up"
            return f"shared memory: all of {_SHARED}{on} is used up" if _is_full(_SHARED) else ""
        if number == errno.EFBIG and self.disk:
            return f"disk: this task may write {_size(self.disk)}{on}, and has written a file of that size"
        no_thread = isinstance(error, RuntimeError) and str(error) == _NO_THREAD
        if no_thread or number == errno.EAGAIN:
            most = f"{self.processes} that this task may have{on}, threads included"
            if self.processes and _is_crowded():
                return f"processes: all {most}, are used"
            if no_thread:
                return self._of_memory(on)  # each has a stack
            # Landlock's library counts processes alone. The error may be a pipe's, too.
            return f"processes: perhaps all {most}, are used" if self.processes and processes.has_children() else ""
        return ""

    def _of_memory(self, on: str) -> str:
        used = max(0, data_now() - self.before)
        return f"memory: {_size(used)} of {_size(self.memory)}{on} are used, and more was wanted" if self.memory else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    for _ in range(_DEEP):
        if each is None:
            return
        yield each
        each = each.__cause__ or each.__context__


def _size(number: int) -> str:
    return f"{number / (1 << 30):.3g} GiB" if number >= 1 << 30 else f"{number / (1 << 20):.3g} MiB"


def _is_full(folder: str, most: int = 0) -> bool:
    """Return whether there is hardly room in a folder. A file system of over ``most`` bytes is the lender's: false."""
    with contextlib.suppress(OSError):
        room = os.statvfs(folder)
        if most and room.f_blocks * room.f_frsize > _SLACK * most:
            return False
        return room.f_bavail * room.f_frsize < (1 - _FULL) * room.f_blocks * room.f_frsize
    return False


def _is_crowded() -> bool:
    """Return whether no thread can be started now, with some memory to spare."""
    try:
        _thread.start_new_thread(int, ())
    except RuntimeError:
        return True
    return False
