"""The mechanism "qemu": a virtual machine for each runner, with a kernel of its own and no network.

Its disk is read-only, and holds Python and what that needs; ``p2p sandbox build qemu`` makes it. A machine is started
from a state that was saved before any task was in it. What is Python's, and the system's, is as it was when the disk
was made. As root, QEMU is a user that nobody else is.

Linux on x86-64, with QEMU 7.2 or later; see qemu(1). With KVM a machine is as fast as this one; without, QEMU computes
each instruction itself.
"""

from __future__ import annotations

import contextlib
import os
import platform
import select
import socket
import subprocess
import sys

from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.launch import Death, LaunchOptions, Missing, runner_arguments
from p2p_ipython.sandbox.mechanisms import machine_disk
from p2p_ipython.sandbox.mechanisms.accounts import Mortality
from p2p_ipython.sandbox.mechanisms.environment import guard_environment, runner_environment
from p2p_ipython.sandbox.mechanisms.install import lacks_program
from p2p_ipython.sandbox.mechanisms.machine_command import OLDEST, PROGRAM, guard_command, has_kvm, shape, task_memory
from p2p_ipython.sandbox.mechanisms.machine_guard import FULL, MEMORY_FULL
from p2p_ipython.sandbox.mechanisms.process import kill_tree
from p2p_ipython.sandbox.mechanisms.shown import NAME, SCRATCH, SHARED_MEMORY
from p2p_ipython.sandbox.scratch import OVER, Scratch

LEAVES = "Tasks find Python with its packages as they were when the disk was built, and of the system's programs a few."

_BUILD = "Build it: p2p sandbox build qemu"
_OWN_PROCESSES = 8
_BOOT = 240.0
"""Seconds that a machine may take to boot; a slot waits a little longer, see ``START_DEADLINES``."""

_ANSWER = 1.0
"""Seconds that a machine may take to say how much memory its task occupies."""


class QemuLaunch:
    """See ``launch.Launch``. A guard takes the warden's part, outside the machine."""

    def __init__(self, options: LaunchOptions) -> None:
        disk = machine_disk.known()
        if disk is None:
            raise ConfigError("there is no disk of this environment for virtual machines", hint=_BUILD)
        self._options = options
        self._used = 0
        self._shape = shape(options, fast=has_kvm() and not disk.without_kvm.exists())
        arguments = runner_arguments(options, str(SCRATCH), walled=True, filtered=True, held=True)
        order = {
            "command": [sys.executable, *arguments],
            "env": runner_environment(options, SCRATCH / "home", SCRATCH / "tmp") | {"USER": NAME, "LOGNAME": NAME},
            "memory": task_memory(options.memory, options) if options.memory else 0,
            "disk": options.disk,
            "shared": SHARED_MEMORY,
            "processes": options.processes + _OWN_PROCESSES,
        }
        with contextlib.ExitStack() as made:
            scratch = Scratch()  # the task's own is in the machine
            made.callback(scratch.remove)
            self.folder = scratch.path
            self._accounts, theirs = map(made.enter_context, socket.socketpair())
            self._accounts.setblocking(False)
            accounts = theirs.fileno()
            self.command, told = guard_command(
                disk.folder, self._shape, self.folder, order, accounts=accounts, patience=_BOOT
            )
            made.callback(os.close, told)
            self.descriptors = (accounts, told)
            self._made = made.pop_all()
        self.env = guard_environment()
        self._mortality = Mortality()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the guard, which kills the machine."""
        process.terminate()  # does nothing when it has been reaped

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the guard and the machine."""
        kill_tree(process)

    def usage(self, process: subprocess.Popen[bytes], *, shared_once: bool = False) -> int:
        """Ask the machine; the answer to the last question is returned, unless ``shared_once`` asks for a new one."""
        with contextlib.suppress(OSError, ValueError):
            self._hear()
            self._accounts.send(b"?")
            if shared_once and select.select([self._accounts], [], [], _ANSWER)[0]:
                self._hear()
        return self._used

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if said := self._accounts.recv(4096).split():
                self._used = min(int(said[-1]), 1 << 60)

    def excess(self, process: subprocess.Popen[bytes]) -> None:
        """Return None: the machine holds disk and processes."""

    def death(self, code: int, words: str) -> Death:
        """Tell a task that ran out of its machine's memory by what the guard says."""
        if code == MEMORY_FULL and words.endswith(FULL):
            limit = task_memory(self._options.memory, self._options) if self._options.memory else self._shape.memory
            detail = f"It used up the {limit / (1 << 30):.2f} GiB of its virtual machine, files included."
            return Death("memory", 0, f"{OVER} {detail}")
        return self._mortality.death(code, words)

    def clean(self) -> None:
        """Close what was inherited, and remove the scratch folder."""
        self._made.close()


def available() -> Missing | None:
    """Return what this system lacks for the mechanism, None if nothing is known to."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return Missing("virtual machines need Linux on x86-64")
    missing = lacks_program(PROGRAM, "qemu-system-x86", OLDEST)
    if missing is not None:
        return missing
    try:
        if machine_disk.find() is None:
            return Missing("there is no disk of this environment as it is now", _BUILD)
    except (ConfigError, OSError) as error:
        return Missing(error.message if isinstance(error, ConfigError) else str(error))
    return None


def prepare(options: LaunchOptions) -> QemuLaunch:
    """Make what starts a runner in a machine. Raises ``OSError``, ``ConfigError`` if there is no disk for it."""
    return QemuLaunch(options)
