"""The mechanism "landlock": the kernel's own limits on files, network and signals, by the library sandlock.

It needs no program of the system and no right: pip brings all of it. A runner can read the system's programs and
libraries, and its own Python and packages; it can write to its scratch folder, which is bounded; it has no network and
sees its own processes only. Landlock holds neither modes nor times of files. An ordinary user's runner can't change
them anywhere: such calls seem to succeed. There is no /dev/shm, which all sandboxes would share, so ``multiprocessing``
has no locks.
Each file that is opened costs some 0.3 ms, because a process outside looks at the call.

Linux with Landlock's ABI 6 (6.12 or later): before, tasks could send signals to the lender's processes.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec

from p2p_ipython.sandbox import seccomp
from p2p_ipython.sandbox.launch import LaunchOptions, Missing, runner_arguments
from p2p_ipython.sandbox.mechanisms.accounts import Mortality
from p2p_ipython.sandbox.mechanisms.environment import runner_environment
from p2p_ipython.sandbox.mechanisms.ids import as_stranger, root_lacks, stranger
from p2p_ipython.sandbox.mechanisms.process import ProcessLaunch
from p2p_ipython.sandbox.mechanisms.python_files import SYSTEM, out_of_reach, python_files
from p2p_ipython.sandbox.scratch import Scratch

LEAVES = (
    "Tasks can learn that a path is there, and how large. Modes of files seem to change and don't. There is no shared"
    " memory, so multiprocessing has no locks."
)

LEAST_ABI = 6

_BESIDE = 64 << 20
"""Bytes for the warden and what a runner itself has, which sandlock counts, too."""

_SHOWN = (
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/fonts",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/proc",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
)
"""Besides ``SYSTEM``: libraries and how they are found, the time zone, fonts, names, whom TLS trusts, randomness."""


class LandlockLaunch(ProcessLaunch):
    """See ``launch.Launch``. A guard, outside the wall, takes the warden's part."""

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
        except BaseException:
            self._scratch.remove()
            raise
        cards = options.graphics
        arguments = runner_arguments(options, str(scratch), walled=other is not None, landlocked=True)
        given = {
            "scratch": str(scratch),
            "home": str(self.folder),
            "written": [
                *(str(self.folder), str(temporary)),
                *(each.path for each in options.mounts if each.writable),
                *(str(node) for node, _ in (cards.nodes() if cards is not None else ())),
            ],
            "shown": [
                *(each for each in (str(SYSTEM), *_SHOWN, *map(str, files.shown)) if os.path.exists(each)),
                *(each.path for each in options.mounts),
                *(str(file) for file, _ in (cards.files() if cards is not None else ())),
            ],
            "hidden": [path for each in options.mounts for path in each.hidden],
            # Those that say why come first: the runner's own limit, and the slot, which looks at ``usage``.
            "memory": options.memory and options.memory * 5 // 4 + _BESIDE,
            "processes": options.processes,
            "disk": options.disk,
            "command": [sys.executable, *arguments],
        }
        guard = [sys.executable, "-P", "-m", "p2p_ipython.sandbox.mechanisms.landlock_guard", json.dumps(given)]
        self.command = [*as_stranger(other, options), *guard]
        self.env = runner_environment(options, self.folder, temporary, modules)
        self._mortality = Mortality()


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if sys.platform != "linux":
        return Missing("Landlock is a part of Linux")
    if not seccomp.supported():
        return Missing("there is no filter of system calls for this machine's processor")
    if find_spec("sandlock") is None:
        return Missing("the package sandlock is not installed", "Install it: python3 -m pip install sandlock")
    import sandlock  # heavy

    abi = sandlock.landlock_abi_version()
    if abi < LEAST_ABI:
        hint = "A kernel from 6.12 on has it; until then bubblewrap is the one to install."
        return Missing(f"this kernel's Landlock (ABI {abi}) doesn't hold signals", hint)
    return root_lacks() or out_of_reach()


def prepare(options: LaunchOptions) -> LandlockLaunch:
    """Make a scratch folder and what starts a runner. Raises ``OSError``, ``ConfigError`` as ``python_files`` does."""
    return LandlockLaunch(options)
