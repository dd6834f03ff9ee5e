"""The parts that an adapter around a machine needs besides it: work in the background, and one alarm.

Both belong to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

SOONEST = 0.001
"""Seconds: an alarm rings no sooner than this after it was set, so that a machine whose deadline has passed
doesn't keep the loop from everything else."""


class Jobs:
    """Work in the background that its owner awaits in the end; errors in it are logged."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin ``work``."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    async def end(self) -> None:
        """Cancel the work that isn't over, and wait for it."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("%s", task.exception())


class Alarm:
    """Rings at the earliest time that it was set to; then it has to be set again.

    It isn't put off when a later time is set: ringing in vain costs less than a new timer for each event.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, due: float) -> None:
        """Ring at ``due``, in the loop's time, or at an earlier time that was set."""
        if self._timer is None or due < self._timer.when() - SOONEST:
            self.stop()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(due, loop.time() + SOONEST), self._rings)

    def stop(self) -> None:
        """Cancel the alarm."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()
