"""What a runner's processes use, and how the last of them ended, as this machine's own counters say.

For mechanisms whose runners are processes of this machine. POSIX only.
"""

from __future__ import annotations

import contextlib
import signal

import psutil

from p2p_ipython.sandbox.launch import Death


def memory_below(pid: int) -> int:
    """Return the bytes that the processes below ``pid`` occupy now; 0 if it has ended. Takes milliseconds."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += child.memory_info().rss
    return total


class Mortality:
    """Tells what a runner has died of. Make it before the runner starts: it counts the system's kills from then on."""

    def __init__(self) -> None:
        self._oom_kills = _oom_kills()

    def death(self, code: int, words: str) -> Death:
        """Describe an end by exit code (negative: a signal's number); ``words`` are the last ones on stderr."""
        place = f"\n{words}" if words else ""
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
