"""``p2p sandbox build qemu``: make a disk, start a machine from it, and keep its state for the first tasks.

With KVM if this user may use it. That no machine comes up by it is noted beside the disk: some rented machines have a
KVM that starts no kernel of Debian's. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable

from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.launch import LaunchOptions
from p2p_ipython.sandbox.mechanisms import machine_disk
from p2p_ipython.sandbox.mechanisms.environment import guard_environment
from p2p_ipython.sandbox.mechanisms.install import lacks_program
from p2p_ipython.sandbox.mechanisms.machine_command import OLDEST, PROGRAM, Shape, guard_command, has_kvm, shape
from p2p_ipython.sandbox.mechanisms.machine_disk import Disk
from p2p_ipython.sandbox.scratch import Scratch

_FAST, _SLOW = 30.0, 300.0
"""Seconds that a machine may take to boot, with KVM and without."""


def build(options: LaunchOptions, say: Callable[[str], None]) -> Disk:
    """Make the disk of this environment as it is now, and try it out. Raises ``ConfigError``, ``OSError``.

    ``options``: those of the tasks that are to start from the state that is saved.
    """
    missing = lacks_program(PROGRAM, "qemu-system-x86", OLDEST)
    if missing is not None:
        raise ConfigError(missing.why, hint=missing.hint)
    return machine_disk.build(say, lambda disk: try_out(disk, options, say))


def try_out(disk: Disk, options: LaunchOptions, say: Callable[[str], None]) -> None:
    """Save the state of a machine for ``options``. Raises ``ConfigError`` if none comes up, ``OSError``."""
    disk.without_kvm.unlink(missing_ok=True)
    if has_kvm():
        say("starting a machine, by KVM")
        if not (why := _save(disk, shape(options, fast=True))):
            return
        say(f"no machine starts by KVM here, so QEMU computes each instruction itself, which is slow ({why})")
        disk.without_kvm.touch()
    say("starting a machine, without KVM")
    if why := _save(disk, shape(options, fast=False)):
        raise ConfigError(f"no virtual machine starts here: {why}")


def _save(disk: Disk, machine: Shape) -> str:
    """Save a state, if there is none; return why that doesn't work, "" if it does."""
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as made:
        scratch = Scratch()
        made.callback(scratch.remove)
        patience = _FAST if machine.fast else _SLOW
        command, told = guard_command(disk.folder, machine, scratch.path, None, accounts=-1, patience=patience)
        made.callback(os.close, told)
        guard = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=guard_environment(), pass_fds=[told]
        )
        with guard:
            assert guard.stdin is not None
            assert guard.stderr is not None
            said = guard.stderr.read().decode("utf-8", "replace")  # to its end: stdin stays open until then
            code = guard.wait()
    return "" if code == 0 else " ".join(said.split())[-500:] or f"the guard ends with {code}"
