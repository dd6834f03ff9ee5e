"""The guard of a runner in the sandbox "landlock": it starts the runner behind sandlock's wall, and clears up after it.

Started by landlock.py as ``python -m p2p_ipython.sandbox.mechanisms.landlock_guard OPTIONS``, with a runner's pipes. It
is outside the wall, where no task can reach it: each process that a task starts stays below it, and ends with the
runner, with the agent, or when the scratch folder holds more than it may.

Standard library and sandlock only; it does nothing while a task runs but look at the scratch folder's size.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import threading
from typing import Any, NoReturn

import sandlock

from p2p_ipython.sandbox import processes

LOOK = 0.1
"""Seconds between two looks at the scratch folder, and at who our parent is."""

DISK_FULL = 99
"""The exit code that says that the scratch folder held too much."""

_OF_ANY_FILE = ("chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat")
"""Calls that Landlock doesn't hold: they would change the lender's files, wherever they are."""


def main(options: dict[str, Any]) -> NoReturn:
    """Guard a runner until its end. ``options`` are those of ``landlock.LandlockLaunch``."""
    processes.become_subreaper()
    agent, scratch = os.getppid(), options["scratch"]
    box = sandlock.Sandbox(
        fs_readable=[*options["shown"], scratch],
        fs_writable=[*options["written"], os.devnull],
        extra_deny_syscalls=list(_OF_ANY_FILE),
        max_memory=options["memory"] or None,
        max_processes=options["processes"],
        no_coredump=True,
        cwd=options["home"],
    )
    code = 1
    try:
        runner = box.popen(options["command"])
        code = _watch(runner, agent, scratch, options["disk"])
    except RuntimeError as error:
        os.write(2, f"p2p: the runner can't be started: {error}\n".encode())
    finally:
        processes.end_descendants()
        shutil.rmtree(scratch, ignore_errors=True)
        if code < 0:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(-code, signal.SIG_DFL)  # SIGKILL's can't be set and needn't be
            os.kill(os.getpid(), -code)
        os._exit(code & 0xFF)


def _watch(runner: Any, agent: int, scratch: str, disk: int) -> int:
    """Wait for the first of the ends; return how the runner ended, negative for a signal."""
    with open(os.devnull, "r+b") as null:
        os.dup2(null.fileno(), 1)  # the agent must see the end of the runner's frames
    alarm, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ended: list[Any] = []

    def wait() -> None:
        ended.append(runner.wait())
        os.write(ring, b"\0")

    threading.Thread(target=wait, name="p2p-wait", daemon=True).start()
    poll = select.poll()
    poll.register(0, select.POLLHUP)
    poll.register(alarm, select.POLLIN)
    while not ended:
        ends = dict(poll.poll(LOOK * 1000))
        rung = os.read(alarm, 64) if alarm in ends else b""
        if not ended and (0 in ends or signal.SIGTERM in rung or os.getppid() != agent):
            return -signal.SIGKILL
        if not ended and _occupied(scratch, disk) > disk:
            os.write(2, f"p2p: the scratch folder held more than {disk >> 20} MiB\n".encode())
            return DISK_FULL
    result = ended[0]
    return -int(result.signal) if result.signal is not None and result.signal > 0 else int(result.exit_code)


def _occupied(folder: str, enough: int) -> int:
    """Return the bytes that a folder's files occupy; it stops counting beyond ``enough``."""
    total, waiting = 0, [folder]
    while waiting and total <= enough:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
