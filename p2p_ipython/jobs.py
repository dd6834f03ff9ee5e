"""The parts that an adapter around a machine needs besides it: work in the background, one alarm, and complaints.

Each belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

SOONEST = 0.001
"""Seconds: an alarm rings no sooner than this after it was set, so that a machine whose deadline has passed
doesn't keep the loop from everything else."""

COMPLAIN_EVERY = 60.0
"""Seconds between two warnings about one peer."""

MAX_PEERS = 256
"""Peers whose last warning is remembered; beyond that, the one longest ago is forgotten."""


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


class Complaints:
    """Logs the faults of peers: one a peer and ``COMPLAIN_EVERY`` seconds, so that no peer fills a log."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}  # when, and how many were left out since, by peer

    def about(
        self, peer: str, words: str, *args: object, level: int = logging.WARNING, error: BaseException | None = None
    ) -> None:
        """Log a fault of ``peer``; ``error`` is a bug of ours that it has provoked."""
        now = self._clock()
        when, left_out = self._last.pop(peer, (float("-inf"), 0))
        if now < when + COMPLAIN_EVERY:
            self._last[peer] = when, left_out + 1
            return
        self._last[peer] = now, 0
        if len(self._last) > MAX_PEERS:
            del self._last[next(iter(self._last))]
        more = f" ({left_out} more like this in the meantime)" if left_out else ""
        self._log.log(level if error is None else logging.ERROR, words + more, *args, exc_info=error)
