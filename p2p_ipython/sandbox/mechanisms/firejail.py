"""The mechanism "firejail": a setuid program that hides what it is told to hide from a runner, in namespaces.

All folders at the root are hidden but those of the system's programs, and in those that hold the runner's Python or its
scratch folder, everything else is. It has no network, no other process, and no folder in memory to fill. Modes and
times of files seem to change, and don't, as behind Landlock; a guard outside watches the size of the scratch folder.
Memory that a task's processes share counts in each of them, so a task that forks reaches its limit earlier.

Linux, with firejail 0.9.72 or later; see firejail(1) and firejail-profile(5). Not as root: it can't make a task
another user's.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.launch import Death, LaunchOptions, Missing, runner_arguments
from p2p_ipython.sandbox.mechanisms.accounts import Mortality, memory_below
from p2p_ipython.sandbox.mechanisms.environment import runner_environment
from p2p_ipython.sandbox.mechanisms.install import lacks_program
from p2p_ipython.sandbox.mechanisms.process import ProcessLaunch
from p2p_ipython.sandbox.mechanisms.python_files import SYSTEM, python_files
from p2p_ipython.sandbox.scratch import Scratch

LEAVES = (
    "Modes of files seem to change and don't. Memory that a task's processes share counts in each of them. There is no"
    " shared memory, so multiprocessing has no locks."
)

OLDEST = (0, 9, 72)

_KEPT = re.compile(r"/(usr|bin|sbin|lib|lib32|lib64|libx32|proc|dev|etc|run)")
"""Of the root: programs, and what ``_WALLS`` deals with. Of /run firejail shows what is named, and there is no such."""

_PLAIN = re.compile(r"[\w./+@ -]+")
"""Paths that mean themselves in a profile."""

_BEGIN = 'echo >&9; exec "$@" 9>&-'
"""Say to the guard that firejail has come so far; see its ``BEGUN``."""

_WALLS = """
blacklist /dev/shm
blacklist /sys
caps.drop all
disable-mnt
ipc-namespace
net none
nogroups
nonewprivs
noroot
no3d
nodvd
noinput
nosound
notv
nou2f
novideo
private-dev
private-etc alternatives,fonts,group,hosts,ld.so.cache,localtime,passwd,ssl
protocol unix,inet,inet6,netlink
restrict-namespaces
whitelist /run/nothing
seccomp bpf,io_uring_enter,io_uring_register,io_uring_setup,kcmp,pidfd_getfd,ptrace,userfaultfd
"""


class FirejailLaunch(ProcessLaunch):
    """See ``launch.Launch``."""

    def __init__(self, options: LaunchOptions) -> None:
        self.descriptors: tuple[int, ...] = ()
        self._scratch = Scratch(options.scratch)
        scratch = self._scratch.path
        self.folder = scratch / "home"
        temporary, modules, told = scratch / "tmp", scratch / "modules", scratch / "runner.profile"
        try:
            for folder in (self.folder, temporary):
                folder.mkdir()
            files = python_files(options)
            files.link_package(modules)
            for each in options.mounts:
                if each.writable and os.stat(each.path).st_uid != os.getuid():
                    raise ConfigError(f"firejail can't share {each.path} to write to: it isn't yours")
            written = [str(self.folder), str(temporary), *(each.path for each in options.mounts if each.writable)]
            shown = [str(modules), *map(str, files.shown), *(each.path for each in options.mounts if not each.writable)]
            told.write_text(profile(shown, written, _homes(), os.listdir("/")))
        except BaseException:
            self._scratch.remove()
            raise
        arguments = runner_arguments(options, str(scratch), walled=False, modeless=True)
        firejail = [shutil.which("firejail") or "firejail", "--quiet", f"--profile={told}"]
        firejail += ["--deterministic-exit-code", "--deterministic-shutdown", "--"]
        firejail += ["/bin/sh", "-c", _BEGIN, "sh", sys.executable, *arguments]
        given = {"scratch": str(scratch), "disk": options.disk, "processes": options.processes, "command": firejail}
        self.command = [sys.executable, "-P", "-m", f"{__package__}.firejail_guard", json.dumps(given)]
        self.env = runner_environment(options, self.folder, temporary, modules)
        self._mortality = Mortality()

    def usage(self, process: subprocess.Popen[bytes], *, shared_once: bool = False) -> int:
        """Add up what the processes in the sandbox occupy; nobody outside may see which of it they share."""
        return memory_below(process.pid)

    def death(self, code: int, words: str) -> Death:
        """Describe an end by the guard's exit code; firejail tells a signal's number by 128 more, as a shell does."""
        return self._mortality.death(128 - code if code - 128 in tuple(signal.Signals) else code, words)


def _homes() -> list[str]:
    """Return the home folders that firejail may take for this user's, which it shows unless it is told not to."""
    homes = [os.path.expanduser("~")]
    with contextlib.suppress(KeyError):
        homes.append(pwd.getpwuid(os.getuid()).pw_dir)
    return [home for home in dict.fromkeys(map(os.path.realpath, homes)) if os.path.isdir(home) and home != "/"]


def profile(shown: Sequence[str], written: Sequence[str], homes: Sequence[str], root: Sequence[str]) -> str:
    """Return the profile that shows ``shown`` and ``written`` besides the system; ``root`` is what is in /, by name.

    Raises ``ConfigError`` for a path that a profile can't name.
    """
    places = [each for each in (*shown, *written) if Path(each) != SYSTEM and SYSTEM not in Path(each).parents]
    tops = {f"/{Path(each).parts[1]}" for each in places}
    hidden = [home for home in homes if not any(Path(home) in Path(each).parents for each in places)]
    hidden += [f"/{name}" for name in root if f"/{name}" not in tops and not _KEPT.fullmatch(f"/{name}")]
    lines = [f"whitelist {each}" for each in places] + [f"read-only {top}" for top in sorted(tops)]
    lines += [f"read-write {each}" for each in written] + [f"blacklist {each}" for each in hidden]
    for line in lines:
        if not _PLAIN.fullmatch(line.partition(" ")[2]):
            raise ConfigError(f"firejail can't show or hide {line.partition(' ')[2]!r}", hint="Use another sandbox.")
    return "\n".join(lines) + _WALLS


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if sys.platform != "linux":
        return Missing("firejail is for Linux")
    if os.geteuid() == 0:
        return Missing("firejail can't run root's tasks as another user", "Run the worker as another user.")
    return lacks_program("firejail", "firejail", OLDEST)


def prepare(options: LaunchOptions) -> FirejailLaunch:
    """Make a scratch folder and what starts a runner. Raises ``OSError``, ``ConfigError`` as ``profile`` does."""
    return FirejailLaunch(options)
