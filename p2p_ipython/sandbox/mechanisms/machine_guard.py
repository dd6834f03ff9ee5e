"""The guard of a runner in a virtual machine: it starts QEMU, tells the machine what to run, and ends both.

Started by qemu.py as ``python -m p2p_ipython.sandbox.mechanisms.machine_guard DESCRIPTOR``, with the pipes of a runner,
which QEMU inherits. It is outside the machine. The descriptor is of a file without a place, because everybody may read
a command line. It holds, as JSON::

    folder    of the machine's disk
    shape     of the machine
    scratch   the folder to remove at the end
    user      the user and group that QEMU is to have (None: ours)
    accounts  descriptor of the machine's port for accounts
    order     what is said to the machine, but for the time and randomness; None: only save a state
    patience  seconds that a machine may take to boot

It does nothing while a task runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, NoReturn

from p2p_ipython.sandbox import processes
from p2p_ipython.sandbox.mechanisms.guarding import Watch, clear_up
from p2p_ipython.sandbox.mechanisms.machine_command import Shape
from p2p_ipython.sandbox.mechanisms.machine_process import DoesNotStart, Machine, Plan, save, share_kvm
from p2p_ipython.sandbox.scratch import lock

MEMORY_FULL = 98
"""The exit code that says that the memory of a machine was full; ``FULL`` are the words that go with it."""

FULL = "p2p: the memory of the task's machine was full"

_NICE = 10
_LAST_WORDS = 4096
_READ = 5.0
"""Seconds that the agent may take to read a runner's last frames."""


def main(options: dict[str, Any]) -> NoReturn:
    """Guard a machine until its end."""
    processes.become_subreaper()
    watch, code = Watch(), 1
    lock(options["scratch"])
    try:
        os.nice(_NICE)
        plan = Plan(Path(options["folder"]), Shape(**options["shape"]), options["user"])
        if plan.user is not None and plan.shape.fast:
            share_kvm(Path(options["scratch"], "kvm"), plan.user)
        frames = (os.dup(0), os.dup(1))
        # In a thread of its own: the kernel ends QEMU with it.
        code = watch.until_ended(lambda: _run(plan, frames, options))
    except OSError as error:
        _complain(error)
    finally:
        clear_up(options["scratch"], code)


def _run(plan: Plan, frames: tuple[int, int], options: dict[str, Any]) -> int:
    """Start the machine and see it to its end; return the runner's exit code, negative for a signal."""
    order, accounts, patience = options["order"], options["accounts"], options["patience"]
    try:
        state = plan.state()
        with state.opened(lambda target: save(plan, target, patience)) as saved, contextlib.ExitStack() as stack:
            if order is None:
                return int(saved is None)
            machine = stack.enter_context(Machine(plan, frames, accounts, saved))
            begins = saved is not None and machine.takes(order)
            if saved is not None and not begins:
                machine.end()
                state.remove()  # it is of no use here: the next start makes a new one
                machine = stack.enter_context(Machine(plan, frames, accounts))
            if not begins and not (machine.says("up", patience) and machine.takes(order)):
                raise DoesNotStart(machine.last_words())
            os.close(accounts)
            return _told(machine.said(None), machine, frames[1])
    except (OSError, ValueError, subprocess.SubprocessError, DoesNotStart) as error:
        _complain(error)
        return 1


def _complain(error: Exception) -> None:
    os.write(2, f"p2p: the machine can't be started: {error}\n".encode())


def _told(end: dict[str, Any] | None, machine: Machine, frames: int) -> int:
    """Return the exit code for how the machine says that its runner has ended; None: it has ended by itself."""
    if end is None:
        ended = machine.end()
        os.write(2, f"p2p: the machine has ended. {machine.last_words()}\n".encode())
        return ended if ended < 0 else 1
    _wait_until_read(frames)
    code = end.get("code")
    if end.get("memory") is True and code != 0:
        os.write(2, FULL.encode())
        return MEMORY_FULL
    os.write(2, str(end.get("words", "")).encode()[-_LAST_WORDS:])
    return code if isinstance(code, int) and -64 <= code <= 255 else 1


def _wait_until_read(frames: int) -> None:
    """Wait until the agent has read what the runner has written: QEMU may still hold a part of it."""
    until, empty = time.monotonic() + _READ, 0
    while empty < 2 and time.monotonic() < until:
        time.sleep(0.005)
        waiting = int.from_bytes(fcntl.ioctl(frames, termios.FIONREAD, b"\0" * 4), sys.byteorder)
        empty = 0 if waiting else empty + 1


if __name__ == "__main__":
    with open(int(sys.argv[1]), "rb") as told:
        main(json.load(told))
