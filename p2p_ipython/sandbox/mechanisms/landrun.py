"""The mechanism "landrun": a program that starts another one behind Landlock, around a wall of Landlock's own.

Landrun holds files and TCP. Of older kernels' Landlock it takes what there is, and it leaves signals, other sockets and
what a task leaves running. So the runner and its warden are behind landrun, and the runner builds the wall of
"landlock" inside. That wall is the stricter one: landrun is for lenders who want a program that they know around it.

**Nobody has seen this run.** Its command is tested as text, so ``auto`` never chooses it. A worker that asks for it by
name gets it where its self-test passes.

Linux 6.12 or later, with landrun. Not as root, whose runners need a file system of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence

from p2p_ipython.sandbox.launch import LaunchOptions, Missing
from p2p_ipython.sandbox.mechanisms import landlock

LEAVES = f"Nobody has seen it run yet: it is taken by name only. {landlock.LEAVES}"

_HINT = "Install it: go install github.com/zouuup/landrun/cmd/landrun@latest"


class LandrunLaunch(landlock.LandlockLaunch):
    """See ``launch.Launch``."""

    def __init__(self, options: LaunchOptions) -> None:
        super().__init__(options)
        scratch = str(self._scratch.path)
        self.command = command(self.wall["read"], [scratch, *self.wall["write"]], self.env, self.command)


def command(
    shown: Sequence[str], written: Sequence[str], environment: Iterable[str], runner: Sequence[str]
) -> list[str]:
    """Return the command that becomes ``runner`` behind landrun, with the variables that ``environment`` names.

    The warden clears up the scratch folder, and looks for processes in /proc.
    """
    words = [shutil.which("landrun") or "landrun", "--log-level", "error", "--best-effort", "--ro", "/proc"]
    for flag, places in (("--rox", shown), ("--rwx", written), ("--rw", [os.devnull])):
        for place in places:
            if os.path.exists(place) and not place.startswith("/proc/"):
                words += [flag, place]
    for name in environment:  # their values stay out of the list of processes
        words += ["--env", name]
    return [*words, "--", *runner]


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if (missing := landlock.available()) is not None:
        return missing
    if os.geteuid() == 0:
        return Missing("landrun keeps root's runners from a file system of their own", "landlock needs no program.")
    return None if shutil.which("landrun") else Missing("landrun is not installed", _HINT)


def prepare(options: LaunchOptions) -> LandrunLaunch:
    """Make a scratch folder and what starts a runner. Raises as ``landlock.prepare`` does."""
    return LandrunLaunch(options)
