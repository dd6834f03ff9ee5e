"""Resource limits of a runner, set by itself before its first task.

Memory is bounded by ``RLIMIT_DATA`` rather than ``RLIMIT_AS``: programs map far more than they use, and what
is mapped from files or shared isn't theirs. A task that goes over it gets a ``MemoryError``. The number of
processes is bounded only where the runner has a user id, or a user namespace, of its own: that limit counts
everything of one user, and doesn't hold for root.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import sys

OPEN_FILES = 1024
"""What a task may hold open; well above what libraries need, well below what a machine has."""


def limit_basics() -> None:
    """No core dumps (they would hold the owner's data), and at most ``OPEN_FILES`` descriptors."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES)


def be_polite() -> None:
    """Let the machine's owner go first, at the processor and at the disk."""
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    number = _IOPRIO_SET.get(platform.machine())
    if sys.platform == "linux" and number is not None:
        # ioprio_set(2): of this process, to the class that is served when nobody else asks.
        ctypes.CDLL(None).syscall(number, 1, 0, 3 << 13)


_NICE = 10
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}


def stay_on(cores: list[int]) -> None:
    """Let this process and its children run on these cores only, where the system has a way to say so."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # one may have been taken offline, or belong to others by now
            os.sched_setaffinity(0, cores)


def limit_memory(memory: int) -> None:
    """Let this process use ``memory`` bytes more than it does now; 0 sets no limit."""
    if memory:
        most = memory + data_now()
        _lower(resource.RLIMIT_DATA, most, most + _SPARE)


_SPARE = 64 << 20
"""Bytes over the limit that are there to say that it is reached."""


class Spare:
    """A block in which a little more memory is there than tasks may use: a task that has none left can't even fail."""

    def __enter__(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_DATA)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (self._limits[1], self._limits[1]))

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, self._limits)


def limit_processes(processes: int) -> None:
    """Let this process's user have so many processes and threads; 0 sets no limit."""
    if processes:
        _lower(resource.RLIMIT_NPROC, processes)


def limit_files(size: int) -> None:
    """Let no file grow over ``size`` bytes; 0 sets no limit. Writing then fails with an error."""
    if size:
        _lower(resource.RLIMIT_FSIZE, size)


def _lower(which: int, value: int, highest: int = 0) -> None:
    """Set a limit, which the process may raise to ``highest``."""
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value, highest = min(value, hard), min(highest, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some of them
        resource.setrlimit(which, (value, max(value, highest)))


def data_now() -> int:
    """Return the bytes that count towards ``RLIMIT_DATA`` already; 0 if the system doesn't say."""
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"VmData:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
