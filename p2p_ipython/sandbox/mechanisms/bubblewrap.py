"""The mechanism "bubblewrap": namespaces of its own for each runner, and a root that shows what Python needs.

A runner sees the system's programs and libraries, its own Python and packages, all read-only, and one scratch folder
in memory, which is bounded. It has no network, no other process, no System V memory and no socket of the lender's in
reach. An ordinary user's runner is in a user namespace. Root's runner has a user id that nobody else has, and no
capability: the user id 0 would keep rights over the whole machine, inside a user namespace, too.

Linux, with bwrap 0.8 or later; see bwrap(1). For root setpriv (util-linux) as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from p2p_ipython.sandbox import seccomp
from p2p_ipython.sandbox.launch import Death, LaunchOptions, Missing, runner_arguments
from p2p_ipython.sandbox.mechanisms import internet
from p2p_ipython.sandbox.mechanisms.accounts import Mortality, memory_below
from p2p_ipython.sandbox.mechanisms.environment import runner_environment
from p2p_ipython.sandbox.mechanisms.ids import as_stranger, root_lacks, stranger
from p2p_ipython.sandbox.mechanisms.install import lacks_program
from p2p_ipython.sandbox.mechanisms.python_files import SYSTEM, python_files
from p2p_ipython.sandbox.mechanisms.shown import ETC, NAME, SCRATCH, SHARED_MEMORY, name_files, roots, write_files
from p2p_ipython.sandbox.scratch import Scratch, in_memory

LEAVES = ""

OLDEST = (0, 8)
"""The version of bwrap that can forbid further user namespaces and bound a folder in memory."""


_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"


class BubblewrapLaunch:
    """See ``launch.Launch``."""

    def __init__(self, options: LaunchOptions) -> None:
        self._scratch = Scratch(options.scratch)
        self.folder = self._scratch.path
        self._info, info = os.pipe()  # bwrap says there which process is the first one of the sandbox
        os.set_blocking(self._info, False)
        self._first = 0
        self.descriptors: tuple[int, ...] = (info,)
        try:
            home, temporary = SCRATCH / "home", SCRATCH / "tmp"
            other = stranger()
            user, group = (os.getuid(), os.getgid()) if other is None else (other, other)
            etc = name_files(self._scratch.path, user, group, home)
            if options.network:
                texts = {"resolv.conf": f"nameserver {internet.resolver()}\n", "nsswitch.conf": _NSSWITCH}
                etc |= write_files(self.folder, texts)
            filters = internet.FILTER if options.network else self._in_memory("p2p-seccomp", seccomp.walls())
            walls = _walls(other is not None, network=options.network)
            words = [*walls, "--seccomp", str(filters), *_files(options, etc), "--chdir", str(home)]
            if not options.network:  # else the process is in a namespace of pasta's, where its number is another one
                words += ["--info-fd", str(info)]
            told = b"".join(os.fsencode(word) + b"\0" for word in words)
            if options.network:
                (self.folder / "filter").write_bytes(seccomp.walls())
                (self.folder / "arguments").write_bytes(told)
            arguments = internet.ARGUMENTS if options.network else self._in_memory("p2p-bwrap", told)
        except BaseException:
            self.clean()
            raise
        # In the arguments' file they are in no list of processes: they name the lender's folders.
        self.command = [shutil.which("bwrap") or "bwrap", "--args", str(arguments), "--", *as_stranger(other)]
        self.command += [sys.executable, *runner_arguments(options, str(SCRATCH), walled=True)]
        if options.network:
            self.command = internet.behind(self.folder, self.command)
        self.env = runner_environment(options, home, temporary)
        self.env |= {"USER": NAME, "LOGNAME": NAME}
        self._mortality = Mortality()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the first process of the sandbox: it ends when all others there have, and bwrap after it."""
        if process.poll() is None and (first := self._first_process()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(first, signal.SIGKILL)
        else:
            process.kill()  # does nothing when it has been reaped

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill bwrap itself: the kernel ends the rest."""
        process.kill()

    def usage(self, process: subprocess.Popen[bytes], *, shared_once: bool = False) -> int:
        """Add up what the processes in the sandbox occupy."""
        return memory_below(process.pid, shared_once=shared_once)

    def death(self, code: int, words: str) -> Death:
        """Describe an end; bwrap tells a signal's number by 128 more, as a shell does."""
        known = {number.value for number in signal.Signals}
        return self._mortality.death(128 - code if code - 128 in known else code, internet.without_noise(words))

    def clean(self) -> None:
        """Wait for the end of the last process, close what was inherited, and remove the scratch folder."""
        # bwrap hears of an end, and may end itself, before the kernel has ended all others.
        first, until = self._first_process(), time.monotonic() + _ENDING
        while first and _lives(first) and time.monotonic() < until:
            time.sleep(0.001)
        descriptors, self.descriptors, self._info = (*self.descriptors, self._info), (), -1
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._scratch.remove()

    def _first_process(self) -> int:
        """Return the id of the sandbox's first process, as this system sees it; 0 if there was none yet."""
        if not self._first:
            with contextlib.suppress(OSError, ValueError, KeyError):
                self._first = int(json.loads(os.read(self._info, 4096))["child-pid"])
        return self._first

    def _in_memory(self, name: str, data: bytes) -> int:
        """Return a descriptor of ours at the beginning of a file without a place, which holds ``data``."""
        descriptor = in_memory(name, data)
        self.descriptors += (descriptor,)
        return descriptor


_ENDING = 5.0
"""Seconds that the kernel may take to end what is left in a sandbox."""


def _lives(pid: int) -> bool:
    """Return whether a process is there, and not only its exit status."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if sys.platform != "linux":
        return Missing("bubblewrap is for Linux")
    if not seccomp.supported():
        return Missing("there is no filter of system calls for this machine's processor")
    return lacks_program("bwrap", "bubblewrap", OLDEST) or root_lacks()


def prepare(options: LaunchOptions) -> BubblewrapLaunch:
    """Make what starts a runner in a sandbox. Raises ``OSError``, and ``ConfigError`` as ``python_files`` does."""
    return BubblewrapLaunch(options)


def _walls(root: bool, *, network: bool) -> list[str]:
    """Return the arguments that part a runner from the rest; with ``network`` it is in a namespace for that already."""
    walls = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    walls += [] if network else ["--unshare-net"]
    walls += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if root:
        # What setpriv needs to give up the rest.
        return [*walls, *(w for name in ("SETUID", "SETGID", "SETPCAP") for w in ("--cap-add", f"CAP_{name}"))]
    return [*walls, "--unshare-user", "--disable-userns", "--uid", str(os.getuid()), "--gid", str(os.getgid())]


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
    shown = [(Path(each.path), "--bind" if each.writable else "--ro-bind", each.hidden) for each in options.mounts]
    # Python's own files come last: in a folder that tasks may write to they stay as they are.
    shown += [(each, "--ro-bind", ()) for each in python_files(options).shown]
    for place, binding, hidden in shown:
        for folder in reversed(place.parents):
            if folder not in made and folder != Path("/"):  # else only their owner, root, could go through them
                words += ["--perms", "0755", "--dir", str(folder)]
                made.add(folder)
        words += [binding, str(place), str(place)]
        for each in hidden:
            is_folder = os.path.isdir(each)
            words += ["--perms", "0000", "--size", "4096", "--tmpfs"] if is_folder else ["--ro-bind", os.devnull]
            words.append(each)
    return [*words, "--ro-bind", "/proc/sys", "/proc/sys", "--remount-ro", "/dev", "--remount-ro", "/"]
