"""The mechanism "landlock": the kernel's own limits on files, network and signals, and a filter of system calls.

It needs no program of the system and no right. A runner can read the system's programs and libraries, and its own
Python and packages; it can write to its scratch folder, which is bounded. It builds its wall itself, in the first
moment: see ``inside/wall.py``. Its warden stays outside, ends all that it has started, and looks at its scratch folder.

There are no sockets, but connected pairs. Of /proc a runner can read about itself and the machine, and its children
nothing about themselves: other processes' command lines stay closed, and rules know no files that aren't there yet.
Modes, owners and times of files seem to change and don't. /dev/shm, which all of the user's programs share, is closed:
``inside/shared.py`` stands in for it.

Linux with Landlock's ABI 6 (6.12 or later): before, tasks could send signals to the lender's processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from p2p_ipython.sandbox import landlock, seccomp
from p2p_ipython.sandbox.launch import LaunchOptions, Missing, runner_arguments
from p2p_ipython.sandbox.mechanisms.accounts import Mortality
from p2p_ipython.sandbox.mechanisms.environment import runner_environment
from p2p_ipython.sandbox.mechanisms.ids import stranger
from p2p_ipython.sandbox.mechanisms.process import ProcessLaunch
from p2p_ipython.sandbox.mechanisms.python_files import SYSTEM, closed_folders, python_files
from p2p_ipython.sandbox.mechanisms.shown import ETC, NAME, roots
from p2p_ipython.sandbox.scratch import Scratch

LEAVES = (
    "Tasks can learn that a path is there, and how large. Modes of files seem to change and don't. There are no"
    " sockets, so no multiprocessing.Manager; its other parts work by the start method fork, and joblib runs in one"
    " process. Processes that a task starts can't look into /proc."
)

_NAMES = ("passwd", "group", "hosts")
"""Of /etc, besides what other sandboxes show: there they are others."""

_DEVICES = ("/dev/urandom", "/dev/random", "/dev/zero")

_OF_MACHINE = ("cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "sys", "uptime", "version", "vmstat")
_OF_ITSELF = (
    *("auxv", "cmdline", "comm", "environ", "fd", "fdinfo", "io", "limits", "maps", "smaps", "smaps_rollup"),
    *("stat", "statm", "status"),
)
"""Of /proc, and of /proc/self: neither what tells of the network nor of mounts."""


class LandlockLaunch(ProcessLaunch):
    """See ``launch.Launch``."""

    def __init__(self, options: LaunchOptions) -> None:
        self._scratch = Scratch(options.scratch)
        self.descriptors: tuple[int, ...] = ()
        scratch = self._scratch.path
        self.folder = scratch / "home"
        temporary, modules = scratch / "tmp", scratch / "modules"
        other = stranger()
        try:
            for folder in (self.folder, temporary):
                folder.mkdir()
            if other is not None:
                for folder in (self.folder, temporary, scratch):
                    os.chown(folder, other, other)
            files = python_files(options)
            files.link_package(modules)
            own = [str(scratch), *map(str, files.shown), *(each.path for each in options.mounts)]
            written = [str(self.folder), str(temporary), *(each.path for each in options.mounts if each.writable)]
            self.wall = wall_of(other, own, written)
        except BaseException:
            self._scratch.remove()
            raise
        arguments = runner_arguments(options, str(scratch), walled=True, wall=self.wall)
        self.command = [sys.executable, *arguments]
        self.env = runner_environment(options, self.folder, temporary, modules)
        self.env["JOBLIB_MULTIPROCESSING"] = "0"  # it needs named semaphores; without, it says so in each task
        if other is not None:
            self.env |= {"USER": NAME, "LOGNAME": NAME}  # nobody has that id, so it has no name
        self._mortality = Mortality()


def wall_of(user: int | None, own: Iterable[str], written: Iterable[str]) -> dict[str, Any]:
    """Return what a runner builds its wall of: the user to become, None for none; paths to read, to write and to use.

    ``closed``: folders over ``own`` that only root can enter.
    """
    own = list(own)
    system = [str(SYSTEM), *(str(place) for place, _ in roots()), *(f"/etc/{name}" for name in (*ETC, *_NAMES))]
    facts = [f"/proc/{name}" for name in _OF_MACHINE] + [f"/proc/self/{name}" for name in _OF_ITSELF]
    return {
        "user": user,
        "closed": [] if user is None else [str(each) for each in closed_folders(map(Path, own))],
        "read": [*system, *_DEVICES, *facts, *own],
        "write": list(written),
        "use": [os.devnull],
    }


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if sys.platform != "linux":
        return Missing("Landlock is a part of Linux")
    if not seccomp.supported():
        return Missing("there is no filter of system calls for this machine's processor")
    if (abi := landlock.abi()) < landlock.LEAST_ABI:
        hint = "A kernel from 6.12 on has it; until then bubblewrap is the one to install."
        return Missing(f"this kernel's Landlock (ABI {abi}) doesn't hold signals", hint)
    return None


def prepare(options: LaunchOptions) -> LandlockLaunch:
    """Make a scratch folder and what starts a runner. Raises ``OSError``, ``ConfigError`` as ``python_files`` does."""
    return LandlockLaunch(options)
