"""Status lines of unfinished tasks: what they say, and when they are updated.

``text`` is pure. ``StatusLines`` updates all lines of a notebook from one timer on the loop's thread; it runs
only while a task is unfinished, and slower the more there are, so that a thousand tasks don't flood the front
end. A finished task's line is updated at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2p_ipython.loop import background
from p2p_ipython.notebook.output import Status

if TYPE_CHECKING:
    from p2p_ipython.client.future import Future

_INTERVAL = 0.3
"""Seconds between two looks at what is unfinished, where it is few."""

_LINES_PER_S = 40
"""Most lines that are looked at in a second, on the average."""


def text(label: str, state: str, seconds: float, *, over: bool) -> str:
    """A status line: ``seconds`` since the task was submitted; ``over`` when it won't change any more."""
    if over:
        return f"{label}: {state} {'after' if state == 'cancelled' else 'in'} {_exact(seconds)}"
    return f"{label}: {state}{_coarse(seconds)}"


def _exact(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _coarse(seconds: float) -> str:
    """Time that goes by, in steps that grow: each is a message to the front end."""
    if seconds < 2:
        return ""
    if seconds < 10:
        return f", {int(seconds)} s"
    if seconds < 60:
        return f", {int(seconds) // 5 * 5} s"
    return f", {int(seconds) // 60} min" + (" 30 s" if int(seconds) % 60 >= 30 else "")


class _Line:
    def __init__(self, future: Future[Any], status: Status, now: float) -> None:
        self.future = future
        self.status = status
        self.since = now
        self.over = threading.Event()

    def update(self, now: float) -> None:
        over = self.future.done()
        self.status.show(text(self.future.label, self.future.state_text, now - self.since, over=over))


class StatusLines:
    """All status lines of a notebook. ``add`` from any thread; the rest happens on the loop's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: dict[int, _Line] = {}
        self._timer: Any = None

    def add(self, future: Future[Any], status: Status) -> threading.Event:
        """Keep the line of a task that is submitted now true until the task is over.

        The event is set when the line says how it ended.
        """
        line = _Line(future, status, self._clock())
        loop = background().loop
        loop.call_soon_threadsafe(self._begin, line)
        future.add_done_callback(lambda _future: loop.call_soon_threadsafe(self._end, line))
        return line.over

    def _begin(self, line: _Line) -> None:
        if not line.future.done():
            self._lines[id(line)] = line
            line.update(self._clock())
            self._arm()

    def _end(self, line: _Line) -> None:
        self._lines.pop(id(line), None)
        line.update(self._clock())
        line.over.set()
        if not self._lines and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is None and self._lines:
            interval = max(_INTERVAL, len(self._lines) / _LINES_PER_S)
            self._timer = background().loop.call_later(interval, self._look)

    def _look(self) -> None:
        self._timer = None
        for line in list(self._lines.values()):
            line.update(self._clock())
        self._arm()
