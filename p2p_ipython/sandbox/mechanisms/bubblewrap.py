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
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from p2p_ipython.sandbox import seccomp
from p2p_ipython.sandbox.graphics import Graphics
from p2p_ipython.sandbox.launch import Death, LaunchOptions, Missing, runner_arguments
from p2p_ipython.sandbox.mechanisms import internet
from p2p_ipython.sandbox.mechanisms.accounts import Mortality, memory_below
from p2p_ipython.sandbox.mechanisms.bubblewrap_ways import Plugged, Unplugged
from p2p_ipython.sandbox.mechanisms.environment import runner_environment
from p2p_ipython.sandbox.mechanisms.ids import as_stranger, root_lacks, stranger
from p2p_ipython.sandbox.mechanisms.install import lacks_program
from p2p_ipython.sandbox.mechanisms.python_files import SYSTEM, python_files
from p2p_ipython.sandbox.mechanisms.shown import ETC, NAME, SCRATCH, SHARED_MEMORY, name_files, roots
from p2p_ipython.sandbox.scratch import Scratch

LEAVES = ""

OLDEST = (0, 8)
"""The version of bwrap that can forbid further user namespaces and bound a folder in memory."""


class BubblewrapLaunch:
    """See ``launch.Launch``."""

    def __init__(self, options: LaunchOptions) -> None:
        self._scratch = Scratch(options.scratch)
        self.folder = self._scratch.path
        self._way = Plugged(self.folder) if options.network else Unplugged()
        try:
            home, temporary = SCRATCH / "home", SCRATCH / "tmp"
            other = stranger()
            user, group = (os.getuid(), os.getgid()) if other is None else (other, other)
            etc = name_files(self._scratch.path, user, group, home) | self._way.etc()
            filters = self._way.keep("filter", seccomp.walls())
            words = [*walls(other is not None), *self._way.words, "--seccomp", str(filters)]
            words += [*files(options, etc), "--chdir", str(home)]
            # In the arguments' file they are in no list of processes: they name the lender's folders.
            arguments = self._way.keep("arguments", b"".join(os.fsencode(word) + b"\0" for word in words))
            command = [shutil.which("bwrap") or "bwrap", "--args", str(arguments), "--", *as_stranger(other, options)]
            command += [sys.executable, *runner_arguments(options, str(SCRATCH), walled=True)]
            self.command = self._way.command(command)
        except BaseException:
            self.clean()
            raise
        self.env = runner_environment(options, home, temporary)
        self.env |= {"USER": NAME, "LOGNAME": NAME}
        self._mortality = Mortality()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """See ``launch.Launch``."""
        return self._way.descriptors

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the first process of the sandbox: it ends when all others there have, and bwrap after it."""
        if process.poll() is None and (first := self._way.first_process()):
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

    def excess(self, process: subprocess.Popen[bytes]) -> None:
        """Return None: the kernel holds disk and processes."""

    def death(self, code: int, words: str) -> Death:
        """Describe an end; bwrap tells a signal's number by 128 more, as a shell does."""
        known = {number.value for number in signal.Signals}
        return self._mortality.death(128 - code if code - 128 in known else code, internet.without_noise(words))

    def clean(self) -> None:
        """Wait for the end of the last process, close what was inherited, and remove the scratch folder."""
        # bwrap hears of an end, and may end itself, before the kernel has ended all others.
        first, until = self._way.first_process(), time.monotonic() + _ENDING
        while first and _lives(first) and time.monotonic() < until:
            time.sleep(0.001)
        self._way.close()
        self._scratch.remove()


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


def walls(root: bool) -> list[str]:
    """Return the arguments that part a runner from the rest, but for the network."""
    walls = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    walls += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if root:
        # What setpriv needs to give up the rest.
        return [*walls, *(w for name in ("SETUID", "SETGID", "SETPCAP") for w in ("--cap-add", f"CAP_{name}"))]
    return [*walls, "--unshare-user", "--disable-userns", "--uid", str(os.getuid()), "--gid", str(os.getgid())]


def files(options: LaunchOptions, etc: dict[str, Path], *, late: Iterable[str] = ()) -> list[str]:
    """Return the arguments that make the root of a runner; ``late``: arguments that show more."""
    words = ["--ro-bind", str(SYSTEM), str(SYSTEM)]
    for place, target in roots():
        words += ["--ro-bind" if target is None else "--symlink", str(target or place), str(place)]
    words += ["--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/etc/ssl"]
    for name in ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name, file in etc.items():
        words += ["--ro-bind", str(file), f"/etc/{name}"]
    words += ["--proc", "/proc", "--dev", "/dev"]
    if options.graphics is not None:
        words += _cards(options.graphics)
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
        words += _folders_above(place, made)
        words += [binding, str(place), str(place)]
        for each in hidden:
            is_folder = os.path.isdir(each)
            words += ["--perms", "0000", "--size", "4096", "--tmpfs"] if is_folder else ["--ro-bind", os.devnull]
            words.append(each)
    return [*words, *late, "--ro-bind", "/proc/sys", "/proc/sys", "--remount-ro", "/dev", "--remount-ro", "/"]


def _cards(graphics: Graphics) -> list[str]:
    """Return the arguments that show graphics cards, and what is needed to use them."""
    words: list[str] = []
    made: set[Path] = set()
    for node, seen in graphics.nodes():
        words += [*_folders_above(seen, made), "--dev-bind", str(node), str(seen)]
    for file, seen in graphics.files():
        words += [*_folders_above(seen, made), "--ro-bind", str(file), str(seen)]
    for link, target in graphics.links():
        words += [*_folders_above(link, made), "--symlink", target, str(link)]
    return words


def _folders_above(place: Path, made: set[Path]) -> list[str]:
    """Return the arguments that make the folders above a place, but for those ``made`` already.

    Otherwise bwrap makes them such that only their owner, root, could go through them.
    """
    words = []
    for folder in reversed(place.parents):
        if folder not in made and folder != Path("/"):
            words += ["--perms", "0755", "--dir", str(folder)]
            made.add(folder)
    return words
