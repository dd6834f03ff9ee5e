"""How far a task is, as it says itself: reports go to the agent while it runs, ten a second at most.

They come from ``p2p_ipython.progress`` and from tqdm's bars, which stay as they are (text_bars.py). The last report of
a task is sent in any case, at its end if it came too soon after the one before.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import Any

from p2p_ipython.protocol.task_frames import MAX_AMOUNT, MAX_SECONDS, MAX_WORD, Progress, Task
from p2p_ipython.sandbox.inside.channel import Channel
from p2p_ipython.sandbox.inside.interrupts import Interrupts
from p2p_ipython.task import progress

EVERY = 0.1
"""Seconds between two frames, at least, also of several bars."""


class Reporter:
    """Sends the reports of the task that runs; those of others, and of forked children, are dropped. Any thread."""

    def __init__(self, channel: Channel, interrupts: Interrupts) -> None:
        self._channel = channel
        self._lock = interrupts.guard(threading.RLock())
        self._task: Task | None = None
        self._due = 0.0
        self._held: Progress | None = None
        progress.runner.report = self

    def begin(self, task: Task) -> None:
        """Take reports for those of ``task`` from now on."""
        self._task, self._due, self._held = task, 0.0, None
        progress.runner.report = self  # it is the task's to change

    def end(self) -> None:
        """Send the last report, if it was held back, and no more."""
        with self._lock:
            if self._held is not None:
                self._channel.send(self._held)
            self._task = self._held = None

    def __call__(self, done: Any, total: Any, label: Any, seconds: float) -> None:
        """Report how far it is; values that make no sense are left out, or the report is."""
        with self._lock:
            task = self._task
            if task is None or (amount := _amount(done)) is None:
                return
            words = str(label)[:MAX_WORD].encode("utf-8", "replace").decode()
            spent = min(max(0.0, seconds), MAX_SECONDS)
            frame = Progress(task.id, task.attempt, amount, _amount(total) or 0.0, round(spent, 3), words)
            now = time.monotonic()
            if now < self._due:
                self._held = frame
                return
            self._due, self._held = now + EVERY, None
            self._channel.send(frame)

    def bar(self, bar: Any) -> None:
        """Report how far a bar of tqdm is, if it is the outermost one."""
        with contextlib.suppress(Exception):  # it is of a class that the task may have changed
            if not bar.pos:
                self(bar.n, bar.total, bar.desc or "", bar.format_dict["elapsed"])


def _amount(value: Any) -> float | None:
    """Return a number as one that a frame takes; None for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and 0 <= number <= MAX_AMOUNT else None
