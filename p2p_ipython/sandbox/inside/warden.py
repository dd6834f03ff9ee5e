"""The warden: a runner's parent, which outlives it just long enough to clear up.

The agent starts the warden, the warden forks the runner and then only waits. Whatever ends first, the agent
(also by SIGKILL), the runner, or the agent's patience (SIGTERM), the warden kills everything that the tasks
have started, removes the scratch folder, and ends the way the runner did. It has to be a process of its own:
a task that never gives up the interpreter's lock keeps the runner from noticing anything.

Standard library only; nothing of the warden's runs while a task does, so that it costs no time.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import stat
from typing import NoReturn

from p2p_ipython.sandbox import processes
from p2p_ipython.sandbox.scratch import full, lock

_LOOK = 2.0
"""Seconds between two looks at who our parent is."""

_LOOK_AT_DISK = 0.1
"""The same where each is also one at the scratch folder's size."""


def fork_under_watch(scratch: str, disk: int = 0) -> None:
    """Return in a new process, the runner; the calling process becomes its warden and never returns.

    Call it before any thread is started. The agent's death is seen at file descriptor 0, a pipe that only the
    agent writes to and that the warden never reads; and, should somebody else hold that pipe open or the system
    not tell, by another process being our parent, within ``_LOOK`` seconds. ``scratch`` is the folder to remove
    at the end. When it holds more than ``disk`` bytes, the runner ends; 0 sets no limit.
    """
    processes.become_subreaper()
    agent, warden = os.getppid(), os.getpid()
    runner = os.fork()
    if runner:
        try:
            _watch(runner, agent, scratch, disk)
        finally:
            os._exit(1)
    processes.die_with_parent(warden)
    processes.become_subreaper()


def _watch(runner: int, agent: int, scratch: str, disk: int) -> NoReturn:
    """Wait for the first of four ends, clear up, and end as the runner did."""
    with open(os.devnull, "r+b") as null:
        os.dup2(null.fileno(), 1)  # the agent must see the end of the runner's frames
        if not disk:
            os.dup2(null.fileno(), 2)
    with contextlib.suppress(OSError):
        lock(scratch)  # until we end
    alarm, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    poll = select.poll()
    # The port of a virtual machine is a device: to look at it takes what has come in from its driver's queue, and then
    # no interrupt wakes the runner that waits for it. The machine itself ends with its guard.
    if not stat.S_ISCHR(os.fstat(0).st_mode):
        # The hang-up is reported anyway, but macOS looks at nothing without an event; what may be read is the runner's.
        poll.register(0, select.POLLHUP)
    poll.register(alarm, select.POLLIN)
    status, code = _ended(runner), None
    while status is None:
        ends = dict(poll.poll((_LOOK_AT_DISK if disk else _LOOK) * 1000))
        rung = os.read(alarm, 64) if alarm in ends else b""
        status = _ended(runner)
        code = full(scratch, disk) if disk and status is None else None
        if status is None and (code or 0 in ends or signal.SIGTERM in rung or os.getppid() != agent):
            os.kill(runner, signal.SIGKILL)
            _, status = os.waitpid(runner, 0)
    processes.end_descendants()
    shutil.rmtree(scratch, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status) if code is None else code
    if code < 0:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)  # SIGKILL's can't be set and needn't be
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


def _ended(runner: int) -> int | None:
    """Return the runner's wait status, None while it runs."""
    pid, status = os.waitpid(runner, os.WNOHANG)
    return status if pid else None
