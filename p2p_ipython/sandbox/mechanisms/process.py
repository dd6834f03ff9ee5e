"""The mechanism "process": a plain child process, with limits and a clean environment but no walls.

For a personal cluster, where tasks are the user's own. It protects against accidents, not against malice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from p2p_ipython.sandbox.launch import Death, LaunchOptions, Missing, runner_arguments
from p2p_ipython.sandbox.mechanisms.accounts import Mortality, count_below, memory_below
from p2p_ipython.sandbox.mechanisms.environment import runner_environment
from p2p_ipython.sandbox.processes import descendants, end_those_in
from p2p_ipython.sandbox.scratch import OVER, Scratch, over, wrote_too_much

LEAVES = "Tasks run as you, with your files, keys and network in reach."


class ProcessLaunch:
    """See ``launch.Launch``."""

    watched: LaunchOptions | None = None
    """Whose disk and processes nothing else holds."""

    def __init__(self, options: LaunchOptions) -> None:
        self.watched = options
        self._scratch = Scratch(options.scratch)
        self.folder = self._scratch.path / "home"
        temporary = self._scratch.path / "tmp"
        try:
            for folder in (self.folder, temporary):
                folder.mkdir()
        except BaseException:
            self._scratch.remove()
            raise
        self.command = [sys.executable, *runner_arguments(options, str(self._scratch.path), walled=False)]
        self.env = runner_environment(options, self.folder, temporary)
        self.descriptors: tuple[int, ...] = ()
        self._mortality = Mortality()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the warden, which kills all that is below it."""
        process.send_signal(signal.SIGTERM)  # does nothing when it has been reaped

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the warden and, as nobody does it then, all that was below it."""
        kill_tree(process)

    def usage(self, process: subprocess.Popen[bytes], *, shared_once: bool = False) -> int:
        """Add up what the processes below the warden occupy."""
        return memory_below(process.pid, shared_once=shared_once)

    def excess(self, process: subprocess.Popen[bytes]) -> Death | None:
        """Look at files and processes, unless something else holds them."""
        if self.watched is None:
            return None
        if (most := self.watched.processes) and (count := count_below(process.pid)) > most:
            words = f"It had {count} of the {most} processes and threads that it may have."
            return Death("processes", 0, f"{OVER} {words}")
        if (most := self.watched.disk) and over(str(self._scratch.path), most):
            return Death("disk", 0, f"{OVER} {wrote_too_much(most)}")
        return None

    def death(self, code: int, words: str) -> Death:
        """Tell a task that ran out of the machine's memory from others by the system's own count."""
        return self._mortality.death(code, words)

    def clean(self) -> None:
        """End what even the warden has missed, and remove the scratch folder."""
        try:
            end_those_in(str(self._scratch.path))
        finally:
            self._scratch.remove()


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its group, and all that was below it."""
    below = descendants(process.pid) if process.poll() is None else []
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
    for pid in below:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def available() -> Missing | None:
    """Return None: this mechanism is always there."""
    return None


def prepare(options: LaunchOptions) -> ProcessLaunch:
    """Make a scratch folder and what starts a runner in it. Raises ``OSError``."""
    return ProcessLaunch(options)
