"""How a guard waits for its runner's end: outside the wall, where no task can reach it.

Standard library only. POSIX only.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from p2p_ipython.sandbox import processes

LOOK = 0.1
"""Seconds between two looks: at who our parent is, and at what the mechanism wants to be looked at."""


class Watch:
    """Notes each end that a runner may have. Make it before the runner starts, in the main thread.

    Descriptor 0 is a pipe that only the agent writes to, and that the guard never reads. It hangs up at the agent's
    end.
    """

    def __init__(self) -> None:
        self._agent = os.getppid()
        self._alarm, self._ring = os.pipe()
        os.set_blocking(self._ring, False)
        signal.set_wakeup_fd(self._ring, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # only the first one ends it
            signal.signal(number, lambda *_: None)

    def until_ended(self, wait: Callable[[], int], look: Callable[[], int | None] = lambda: None) -> int:
        """Return the runner's exit code from ``wait``, negative for a signal; SIGKILL's if it is to be ended.

        ``look`` may end it, too, by returning a code. Descriptor 1 is closed here: its end is that of the runner's
        frames.
        """
        with open(os.devnull, "r+b") as null:
            os.dup2(null.fileno(), 1)
        ended: list[int] = []

        def run() -> None:
            code = 1
            try:
                code = wait()
            except BaseException:  # a guard that stayed would hold the runner's pipe open, and its task would never end
                sys.excepthook(*sys.exc_info())
            finally:
                ended.append(code)
                os.write(self._ring, b"\0")

        threading.Thread(target=run, name="p2p-wait", daemon=True).start()
        poll = select.poll()
        poll.register(0, select.POLLHUP)
        poll.register(self._alarm, select.POLLIN)
        while not ended:
            ends = dict(poll.poll(LOOK * 1000))
            rung = os.read(self._alarm, 64) if self._alarm in ends else b""
            if not ended and (0 in ends or signal.SIGTERM in rung or os.getppid() != self._agent):
                return -signal.SIGKILL
            if not ended and (code := look()) is not None:
                return code
        return ended[0]


def clear_up(scratch: str, code: int) -> NoReturn:
    """End all that is below this process, remove the scratch folder, and end as the runner did."""
    processes.end_descendants()
    shutil.rmtree(scratch, ignore_errors=True)
    _end_as(code)


def _end_as(code: int) -> NoReturn:
    """End this process with an exit code, or by a signal if it is negative."""
    if code < 0:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)  # SIGKILL's can't be set and needn't be
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)
