"""Semaphores and shared memory for ``multiprocessing`` where /dev/shm is closed, which all of a user's programs share.

Semaphores are in memory that a process shares with those it forks; named ones, which other start methods need, can't
be. Shared memory is in files of the task's own temporary folder. Linux only. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import threading
import time
from types import TracebackType
from typing import Any, ClassVar

_SIZE = 64
"""Bytes that hold a ``sem_t`` of any C library."""

_RECURSIVE = 0
"""The kind of semaphore that its owner may take again."""


class _Time(ctypes.Structure):
    _fields_: ClassVar = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class SemLock:
    """A semaphore as ``_multiprocessing`` has it (its semaphore.c); see there for the methods."""

    SEM_VALUE_MAX = 2**31 - 1

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
        if not unlink:
            words = "this sandbox has no named semaphores: use threads, or multiprocessing's start method 'fork'"
            raise PermissionError(errno.EACCES, words)
        self.kind, self.maxvalue, self.name = kind, maxvalue, None
        self._memory = mmap.mmap(-1, _SIZE)
        self._place = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.handle = self._place
        self._held, self._owner = 0, 0
        self._library = ctypes.CDLL(None, use_errno=True)
        self._do("sem_init", 1, value)

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        if self.kind == _RECURSIVE and self._is_mine():
            self._held += 1
            return True
        until = _Time()
        if block and timeout is not None:
            until.seconds, until.nanoseconds = divmod(time.time_ns() + int(max(0.0, timeout) * 1e9), 10**9)
        while not self._taken(block, timeout, until):
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.ETIMEDOUT):
                return False
            if number != errno.EINTR:  # Python has handled the signal by now
                raise OSError(number, os.strerror(number))
        self._held += 1
        self._owner = threading.get_ident()
        return True

    def release(self) -> None:
        if self.kind == _RECURSIVE:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._held > 1:
                self._held -= 1
                return
        elif self._get_value() >= self.maxvalue:
            raise ValueError("semaphore or lock released too many times")
        self._do("sem_post")
        self._held -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _count(self) -> int:
        return self._held

    def _is_mine(self) -> bool:
        return self._held > 0 and self._owner == threading.get_ident()

    def _get_value(self) -> int:
        value = ctypes.c_int()
        self._do("sem_getvalue", ctypes.byref(value))
        return max(0, value.value)

    def _is_zero(self) -> bool:
        return self._get_value() == 0

    def _after_fork(self) -> None:
        self._held = 0

    def _taken(self, block: bool, timeout: float | None, until: _Time) -> bool:
        place = ctypes.c_void_p(self._place)
        if not block:
            return bool(self._library.sem_trywait(place) == 0)
        if timeout is None:
            return bool(self._library.sem_wait(place) == 0)
        return bool(self._library.sem_timedwait(place, ctypes.byref(until)) == 0)

    def _do(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, name)(ctypes.c_void_p(self._place), *arguments):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def provide(folder: str) -> None:
    """Have ``multiprocessing`` use these semaphores, and files in ``folder``, in this process and those that it forks.

    A process that is started otherwise has neither.
    """
    with contextlib.suppress(ImportError):  # a Python without them has no such calls to replace
        _replace(folder)


def _replace(folder: str) -> None:
    import _multiprocessing
    import _posixshmem
    from multiprocessing import heap

    def shm_open(path: str, flags: int, mode: int = 0o777) -> int:
        return os.open(_file(folder, path), flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)

    def shm_unlink(path: str) -> None:
        os.unlink(_file(folder, path))

    _posixshmem.shm_open, _posixshmem.shm_unlink = shm_open, shm_unlink
    _multiprocessing.SemLock = SemLock
    heap.Arena._dir_candidates = []  # type: ignore[attr-defined]


def _file(folder: str, path: str) -> str:
    return os.path.join(folder, f"shm-{path.lstrip('/')}")
