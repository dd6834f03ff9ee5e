"""How long a client waits for a worker to end a task: one that is being stopped, and one whose time is up.

A worker that is well answers a ``recall`` within its ``cancel_grace``, and ends a task whose timeout has passed. So
these waits are for workers of an earlier version, for those that are stuck, and for those that mean harm. While a link
reconnects, its worker can't answer: the wait goes on then, by ``lease`` seconds at most, however often the link goes.

Pure: ``now`` is any clock that doesn't go back, seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2p_ipython.config import Settings

ANSWERS_WITHIN = 8.0
"""Seconds, beyond ``cancel_grace``, within which a worker says that a task which it was to stop has ended."""

LATE = 90.0
"""Seconds by which a worker may be late with a task that has a timeout: it may have to start a runner first."""

SLOWEST = 64 << 10
"""Bytes a second, at least, that a task's values travel at: while they do, its timeout doesn't count."""


@dataclass
class _Wait:
    until: float
    latest: float  # however often the link was away


class Patience:
    """The waits of a client for its workers, by task."""

    def __init__(self, settings: Settings) -> None:
        self.answer = settings.cancel_grace + ANSWERS_WITHIN
        """Seconds within which a worker says that a task has ended."""
        self._lease = settings.lease
        self._waits: dict[str, _Wait] = {}

    def stops(self, task: str, now: float) -> None:
        """Note that a worker was asked to stop a task."""
        self._wait(task, now + self.answer)

    def begins(self, task: str, timeout: float, size: int, now: float) -> None:
        """Note that a task of ``size`` bytes was sent, which its worker ends ``timeout`` seconds from its start."""
        self._wait(task, now + timeout + LATE + size / SLOWEST)

    def _wait(self, task: str, until: float) -> None:
        self._waits[task] = _Wait(until, until + self._lease)

    def ends(self, task: str) -> None:
        """Note that nothing more is expected of the task's worker."""
        self._waits.pop(task, None)

    def is_back(self, tasks: Iterable[str], now: float) -> None:
        """Note that the link to the worker of these tasks is back: it gets the time for an answer."""
        for task in tasks:
            if (wait := self._waits.get(task)) is not None:
                wait.until = min(wait.latest, max(wait.until, now + self.answer))

    def deadline(self, is_away: Callable[[str], bool]) -> float | None:
        """Return when the first wait ends; ``is_away`` says whether the link to a task's worker reconnects."""
        if not self._waits:  # it is asked for at each event
            return None
        times = (wait.latest if is_away(task) else wait.until for task, wait in self._waits.items())
        return min(times)

    def due(self, now: float, is_away: Callable[[str], bool]) -> list[str]:
        """Return the tasks whose worker has kept their client waiting for too long."""
        waits = self._waits.items()
        return [task for task, wait in waits if now >= (wait.latest if is_away(task) else wait.until)]
