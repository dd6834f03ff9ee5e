"""The mechanism "process": a plain child process, with limits and a clean environment but no walls.

For a personal cluster, where tasks are the user's own. It protects against accidents, not against malice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import psutil

from p2p_ipython.sandbox.launch import Death, LaunchOptions, runner_arguments
from p2p_ipython.sandbox.mechanisms.environment import runner_environment
from p2p_ipython.sandbox.processes import descendants, end_those_in
from p2p_ipython.sandbox.scratch import Scratch


class ProcessLaunch:
    """See ``launch.Launch``."""

    def __init__(self, options: LaunchOptions) -> None:
        self._scratch = Scratch(options.scratch)
        self.folder = self._scratch.path / "home"
        temporary = self._scratch.path / "tmp"
        try:
            for folder in (self.folder, temporary):
                folder.mkdir()
        except BaseException:
            self._scratch.remove()
            raise
        self.command = [sys.executable, *runner_arguments(options, str(self._scratch.path))]
        self.env = runner_environment(options, self.folder, temporary)
        self._oom_kills = _oom_kills()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the warden, which kills all that is below it."""
        process.send_signal(signal.SIGTERM)  # does nothing when it has been reaped

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the warden and, as nobody does it then, all that was below it."""
        below = descendants(process.pid) if process.poll() is None else []
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def usage(self, process: subprocess.Popen[bytes]) -> int:
        """Add up what the processes below the warden occupy."""
        total = 0
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
        return total

    def death(self, code: int, words: str) -> Death:
        """Tell a task that ran out of the machine's memory from others by the system's own count."""
        place = f"\n{words}" if words else ""
        if code >= 0:
            return Death("exit", code, f"The task ended its Python process with exit code {code}.{place}")
        if -code == signal.SIGKILL and _oom_kills() > self._oom_kills:
            return Death("memory", -code, "The system killed the task's process: the machine was out of memory.")
        name = signal.strsignal(-code) or "an unknown signal"
        return Death("signal", -code, f"The task's process was ended by signal {-code} ({name}).{place}")

    def clean(self) -> None:
        """End what even the warden has missed, and remove the scratch folder."""
        try:
            end_those_in(str(self._scratch.path))
        finally:
            self._scratch.remove()


def prepare(options: LaunchOptions) -> ProcessLaunch:
    """Make a scratch folder and what starts a runner in it. Raises ``OSError``."""
    return ProcessLaunch(options)


def _oom_kills() -> int:
    """Return how many processes the system has killed for want of memory since it started; 0 if it doesn't say."""
    with contextlib.suppress(OSError), open("/proc/vmstat", "rb") as file:
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0
