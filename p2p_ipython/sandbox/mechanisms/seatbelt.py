"""The mechanism "seatbelt": macOS's own sandbox, by the program sandbox-exec and a profile for each runner.

Nothing is allowed that the profile doesn't name: reading the system, the runner's Python and packages; writing to the
scratch folder; signals within the sandbox. It names no network, no service of the system and no shared memory, so
``multiprocessing`` has no locks.

**Nobody has seen this on a Mac.** Its profile and its command are tested as text. Besides, macOS can't keep a process
that detaches itself from outliving its runner, and bounds neither disk nor memory as a whole. So ``auto`` never chooses
it. A worker that asks for it by name gets it where its self-test passes.

macOS; see sandbox-exec(1). Apple calls it deprecated, and runs its own programs in it.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from p2p_ipython.sandbox.launch import LaunchOptions, Missing, runner_arguments
from p2p_ipython.sandbox.mechanisms.accounts import Mortality
from p2p_ipython.sandbox.mechanisms.environment import runner_environment
from p2p_ipython.sandbox.mechanisms.process import ProcessLaunch
from p2p_ipython.sandbox.mechanisms.python_files import SYSTEM, python_files
from p2p_ipython.sandbox.scratch import Scratch

PROGRAM = "/usr/bin/sandbox-exec"

_SHOWN = (
    "/bin",
    "/sbin",
    "/System/Library",
    "/System/Volumes/Preboot/Cryptexes",
    "/Library/Apple",
    "/Library/Frameworks/Python.framework",
    "/opt/homebrew/Cellar",
    "/opt/homebrew/lib",
    "/opt/homebrew/opt",
    "/private/etc/localtime",
    "/private/etc/ssl",
    "/private/var/db/timezone",
)
"""Besides ``SYSTEM``: libraries, Pythons that people install, the time zone, and whom TLS trusts."""

_DEVICES = ("/dev/random", "/dev/urandom", "/dev/zero")

LEAVES = "Nobody has seen it on a Mac yet: it is taken by name only."


class SeatbeltLaunch(ProcessLaunch):
    """See ``launch.Launch``."""

    def __init__(self, options: LaunchOptions) -> None:
        self.watched = options
        self.descriptors: tuple[int, ...] = ()
        self._scratch = Scratch(options.scratch)
        scratch = self._scratch.path.resolve()  # the sandbox compares real paths, and /tmp is a link
        self.folder = scratch / "home"
        temporary, modules = scratch / "tmp", scratch / "modules"
        try:
            for folder in (self.folder, temporary):
                folder.mkdir()
            files = python_files(options)
            files.link_package(modules)
            shown = [str(SYSTEM), *_SHOWN, *map(str, files.shown), str(scratch)]
            shown += [each.path for each in options.mounts]
            written = [str(self.folder), str(temporary), *(each.path for each in options.mounts if each.writable)]
            told = scratch / "profile.sb"
            told.write_text(profile(shown, written))
        except BaseException:
            self._scratch.remove()
            raise
        self.command = command(told, [sys.executable, *runner_arguments(options, str(scratch), walled=False)])
        self.env = runner_environment(options, self.folder, temporary, modules)
        self._mortality = Mortality()


def profile(shown: Iterable[str], written: Iterable[str]) -> str:
    """Return the profile that lets a runner read and run what is below ``shown``, and write below ``written``."""
    lines = [
        "(version 1)",
        "(deny default)",
        "(allow process-fork)",
        "(allow signal process-info* (target same-sandbox))",
        "(allow sysctl-read)",
        "(allow file-read-metadata)",
        '(allow file-read* (literal "/"))',
        *(f"(allow file-read* (literal {_quoted(each)}))" for each in _DEVICES),
        '(allow file-read* file-write-data (literal "/dev/null"))',
        *(f"(allow file-read* file-map-executable process-exec* (subpath {_quoted(each)}))" for each in shown),
        *(f"(allow file-read* file-write* (subpath {_quoted(each)}))" for each in written),
    ]
    return "\n".join(lines) + "\n"


def command(profile_file: Path, runner: list[str]) -> list[str]:
    """Return the command that becomes ``runner`` behind a profile."""
    return [PROGRAM, "-f", str(profile_file), *runner]


def _quoted(path: str) -> str:
    """Return a real path as the profile's language writes a string."""
    real = os.path.realpath(path)
    return '"' + real.replace("\\", "\\\\").replace('"', '\\"') + '"'


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if platform.system() != "Darwin":
        return Missing("seatbelt is for macOS")
    if not os.access(PROGRAM, os.X_OK):
        return Missing(f"{PROGRAM} is not there")
    if os.geteuid() == 0:
        return Missing("as root it would hold nothing", "Run the worker as another user.")
    return None


def prepare(options: LaunchOptions) -> SeatbeltLaunch:
    """Make a scratch folder and what starts a runner. Raises ``OSError``, ``ConfigError`` as ``python_files`` does."""
    return SeatbeltLaunch(options)
