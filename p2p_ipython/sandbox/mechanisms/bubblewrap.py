"""The mechanism "bubblewrap": namespaces of its own for each runner, and a root that shows what Python needs.

A runner sees the system's programs and libraries, its own Python and packages, all read-only, and one scratch folder
in memory, which is bounded. It has no network, no other process, no System V memory and no socket of the lender's in
reach. An ordinary user's runner is in a user namespace. Root's runner has a user id that nobody else has, and no
capability: the user id 0 would keep rights over the whole machine, inside a user namespace, too.

Linux, with bwrap 0.8 or later; see bwrap(1). For root setpriv (util-linux) as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from p2p_ipython.sandbox import seccomp
from p2p_ipython.sandbox.launch import Death, LaunchOptions, Missing, runner_arguments
from p2p_ipython.sandbox.mechanisms.accounts import Mortality, memory_below
from p2p_ipython.sandbox.mechanisms.environment import runner_environment
from p2p_ipython.sandbox.mechanisms.ids import as_stranger, root_lacks, stranger
from p2p_ipython.sandbox.mechanisms.install import install_with
from p2p_ipython.sandbox.mechanisms.python_files import SYSTEM, python_files
from p2p_ipython.sandbox.mechanisms.shown import ETC, NAME, SCRATCH, SHARED_MEMORY, name_files, roots
from p2p_ipython.sandbox.scratch import Scratch

OLDEST = (0, 8)
"""The version of bwrap that can forbid further user namespaces and bound a folder in memory."""


class BubblewrapLaunch:
    """See ``launch.Launch``."""

    def __init__(self, options: LaunchOptions) -> None:
        self._scratch = Scratch(options.scratch)
        self.folder = self._scratch.path
        self.descriptors: tuple[int, ...] = ()
        try:
            home, temporary = SCRATCH / "home", SCRATCH / "tmp"
            other = stranger()
            user, group = (os.getuid(), os.getgid()) if other is None else (other, other)
            filters = _in_memory("p2p-seccomp", seccomp.walls())
            self.descriptors = (filters,)
            etc = name_files(self._scratch.path, user, group, home)
            words = [*_walls(other is not None), "--seccomp", str(filters), *_files(options, etc), "--chdir", str(home)]
            arguments = _in_memory("p2p-bwrap", b"".join(os.fsencode(word) + b"\0" for word in words))
            self.descriptors = (filters, arguments)
        except BaseException:
            self.clean()
            raise
        # In the arguments' file they are in no list of processes: they name the lender's folders.
        self.command = [shutil.which("bwrap") or "bwrap", "--args", str(arguments), "--", *as_stranger(other)]
        self.command += [sys.executable, *runner_arguments(options, str(SCRATCH), walled=True)]
        self.env = runner_environment(options, home, temporary)
        self.env |= {"USER": NAME, "LOGNAME": NAME}
        self._mortality = Mortality()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill bwrap, and with it the first process of the sandbox, whose end is that of all others there."""
        process.kill()  # does nothing when it has been reaped

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill bwrap once more: the kernel ends the rest."""
        process.kill()

    def usage(self, process: subprocess.Popen[bytes], *, shared_once: bool = False) -> int:
        """Add up what the processes in the sandbox occupy."""
        return memory_below(process.pid, shared_once=shared_once)

    def death(self, code: int, words: str) -> Death:
        """Describe an end; bwrap tells a signal's number by 128 more, as a shell does."""
        known = {number.value for number in signal.Signals}
        return self._mortality.death(128 - code if code - 128 in known else code, words)

    def clean(self) -> None:
        """Close what was inherited, and remove the scratch folder."""
        descriptors, self.descriptors = self.descriptors, ()
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._scratch.remove()


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if sys.platform != "linux":
        return Missing("bubblewrap is for Linux")
    if not seccomp.supported():
        return Missing("there is no filter of system calls for this machine's processor")
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return Missing("bwrap is not installed", install_with("bubblewrap"))
    said = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = tuple(map(int, re.findall(r"\d+", said)[:2]))
    if found < OLDEST:
        return Missing(f"{said.strip() or bwrap} is too old", "Version 0.8 or later is needed.")
    return root_lacks()


def prepare(options: LaunchOptions) -> BubblewrapLaunch:
    """Make what starts a runner in a sandbox. Raises ``OSError``, and ``ConfigError`` as ``python_files`` does."""
    return BubblewrapLaunch(options)


def _walls(root: bool) -> list[str]:
    walls = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--unshare-net"]
    walls += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if root:
        # What setpriv needs to give up the rest.
        return [*walls, *(w for name in ("SETUID", "SETGID", "SETPCAP") for w in ("--cap-add", f"CAP_{name}"))]
    return [*walls, "--unshare-user", "--disable-userns"]


def _files(options: LaunchOptions, etc: dict[str, Path]) -> list[str]:
    """Return the arguments that make the runner's root."""
    words = ["--ro-bind", str(SYSTEM), str(SYSTEM)]
    for place, target in roots():
        words += ["--ro-bind" if target is None else "--symlink", str(target or place), str(place)]
    words += ["--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/etc/ssl"]
    for name in ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name, file in etc.items():
        words += ["--ro-bind", str(file), f"/etc/{name}"]
    words += ["--proc", "/proc", "--dev", "/dev"]
    words += ["--perms", "1777", "--size", str(SHARED_MEMORY), "--tmpfs", "/dev/shm"]  # noqa: S108 - in the sandbox
    words += ["--perms", "1777", "--size", str(options.disk), "--tmpfs", str(SCRATCH)]
    for name in ("home", "tmp"):
        words += ["--perms", "1777", "--dir", str(SCRATCH / name)]
    words += ["--symlink", f"{SCRATCH.name}/tmp", "/tmp"]  # noqa: S108 - in the sandbox
    made: set[Path] = set()
    for place in python_files(options.path).shown:
        for folder in reversed(place.parents):
            if folder not in made and folder != Path("/"):  # else only their owner, root, could go through them
                words += ["--perms", "0755", "--dir", str(folder)]
                made.add(folder)
        words += ["--ro-bind", str(place), str(place)]
    return [*words, "--ro-bind", "/proc/sys", "/proc/sys", "--remount-ro", "/dev", "--remount-ro", "/"]


def _in_memory(name: str, data: bytes) -> int:
    """Return a descriptor at the beginning of a file without a place, which holds ``data``."""
    descriptor = os.memfd_create(name)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
