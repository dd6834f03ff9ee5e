"""What a runner's processes use, and how the last of them ended, as this machine's own counters say.

For mechanisms whose runners are processes of this machine. POSIX only.
"""

from __future__ import annotations

import contextlib
import os
import signal

import psutil

from p2p_ipython.sandbox.launch import Death
from p2p_ipython.sandbox.scratch import DISK_FULL, OVER


def memory_below(pid: int, *, shared_once: bool = False) -> int:
    """Return the bytes that the processes below ``pid`` occupy now; 0 if it has ended.

    Memory that several share, as after a fork, counts in each of them, unless ``shared_once`` is set: that takes
    milliseconds a gigabyte.
    """
    return memory_of(_below(pid), shared_once=shared_once)


def memory_of(pids: list[int], *, shared_once: bool = False) -> int:
    """Return the bytes that processes occupy now, as ``memory_below`` does."""
    total = 0
    for child in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(child)
            if not shared_once:
                total += process.memory_info().rss
                continue
            full = process.memory_full_info()
            total += getattr(full, "pss", 0) or full.uss  # only Linux counts what is shared in parts
    return total


def spent_below(pid: int) -> float:
    """Return the seconds of processors that ``pid`` and all below it have spent, ended ones too."""
    total = 0.0
    for child in [pid, *_below(pid)]:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(child).cpu_times()
            total += times.user + times.system
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def count_below(pid: int) -> int:
    """Return how many processes and threads there are below ``pid``."""
    count = 0
    for child in _below(pid):
        with contextlib.suppress(psutil.Error):
            count += psutil.Process(child).num_threads()
    return count


def _below(pid: int) -> list[int]:
    """Return the processes below ``pid``. Linux tells each process's children: no need to look at all there are."""
    found, level = [], [pid]
    try:
        while level:
            level = [child for parent in level for child in _children_of(parent)]
            found += level
    except FileNotFoundError:  # the kernel was built without it, or this is no Linux
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return found


def _children_of(pid: int) -> list[int]:
    """Return a process's children; none if it has ended. Raises ``FileNotFoundError`` if the system doesn't tell."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    except FileNotFoundError:
        if os.path.exists(f"/proc/{pid}/task/{pid}") or not os.path.exists("/proc/self/task"):
            raise
    return found


class Mortality:
    """Tells what a runner has died of. Make it before the runner starts: it counts the system's kills from then on."""

    def __init__(self) -> None:
        self._oom_kills = _oom_kills()

    def death(self, code: int, words: str) -> Death:
        """Describe an end by exit code (negative: a signal's number); ``words`` are the last ones on stderr."""
        place = f"\n{words}" if words else ""
        if OVER in words and code == DISK_FULL:
            return Death("disk", code, words[words.rindex(OVER) :])
        if code >= 0:
            return Death("exit", code, f"The task ended its Python process with exit code {code}.{place}")
        if -code == signal.SIGKILL and _oom_kills() > self._oom_kills:
            return Death("memory", -code, "The system killed the task's process: the machine was out of memory.")
        name = signal.strsignal(-code) or "an unknown signal"
        return Death("signal", -code, f"The task's process was ended by signal {-code} ({name}).{place}")


def _oom_kills() -> int:
    """Return how many processes the system has killed for want of memory since it started; 0 if it doesn't say."""
    with contextlib.suppress(OSError), open("/proc/vmstat", "rb") as file:
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0
