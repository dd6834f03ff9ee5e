"""Status lines of unfinished tasks: what they say, and when they are updated.

``text`` and ``face`` decide what a line says. ``StatusLines`` updates all lines of a notebook from one timer on the
loop's thread. It runs only while a task is unfinished, and slower the more there are: a thousand tasks must not flood
the front end. A finished task's line is updated at once.

If the front end keeps cells apart, a card (card.py) replaces the line of a task that takes a while.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2p_ipython.client.lazy import WORDS
from p2p_ipython.loop import background
from p2p_ipython.notebook.card import Card, Cards, Face, line_html
from p2p_ipython.notebook.output import Status
from p2p_ipython.protocol.plain import plain

if TYPE_CHECKING:
    from p2p_ipython.client.future import Future
    from p2p_ipython.client.journal import Entry

Record = Callable[[], "Entry | None"]
"""Returns the record of a task; called on the loop's thread."""

More = Callable[["Future[Any]"], str]
"""Returns what there is to say besides of a task that is over, in plain words; called on the loop's thread."""

_INTERVAL = 0.3
"""Seconds between two looks at unfinished tasks, if they are few."""

_LINES_PER_S = 40
"""Lines that are looked at in a second, at most, on average."""

_CARD_AFTER = 0.5
"""Seconds after which an unfinished task gets a card."""

_CALM = 1.0
"""Seconds from the last time that a task cleared its output until its card comes back."""

_DRAWN_WITHIN = 1.0
"""Seconds that a front end gets to draw the card of a task that has ended."""

_CARDS_AT_ONCE = 5
"""Cards that are made in one look, at most: each takes the loop about a millisecond."""


UNWATCHED = "; what isn't waited for is lost when the notebook ends (%%p2p --wait, or its result())"
"""Ends the line of an unfinished task where a notebook may be executed by a program, which saves what it says then."""


def first_text(label: str, *, watched: bool, waits: bool, lazy: bool = False) -> str:
    """Return the line of a task that is submitted now. A front end that can't update outputs keeps it.

    ``waits``: the cell does, so nothing is lost, and no other cell can run meanwhile. ``lazy``: it runs later.
    """
    if lazy:
        return f"{label}: {WORDS}"
    more = "" if waits else " (%p2p_status says what becomes of it)" if watched else UNWATCHED
    return f"{label}: submitted{more}"


def text(label: str, state: str, seconds: float, *, over: bool, error: str = "", stable: bool = False) -> str:
    """Return a status line: ``seconds`` since the task was submitted; ``over`` if it has ended.

    A ``stable`` one is the same in each run: it has no times, and of a task that is over no worker.
    """
    if stable:
        return f"{label}: {state.partition(' on ')[0] if over else state}{f' – {error}' if error else ''}"
    if over:
        took = f"{label}: {state} {'after' if state == 'cancelled' else 'in'} {_exact(seconds)}"
        return f"{took} – {error}" if error else took
    return f"{label}: {state}{_coarse(seconds)}"


def face(future: Future[Any], entry: Entry | None, submitted: float, ended: float) -> Face:
    """Return the state of a task for people, from its future and its record. Times are Unix seconds."""
    part = -1.0
    if future.done():
        # The future knows first. The record of a task that is cancelled while its result comes doesn't change at all.
        words = future.state_text
        state = words.partition(" ")[0]
        worker = future.worker
    else:
        words, ended = future.state_text, 0.0
        if (progress := future.progress) is not None:
            words = f"{words}; {progress.words}"
            part = -1.0 if progress.part is None else progress.part
        state = entry.state.value if entry is not None else "running" if future.running() else "waiting"
        worker = entry.worker if entry is not None else ""
    return Face(
        label=plain(future.label, 80),
        state=state,
        words=plain(words, 300),
        worker=plain(worker, 80),
        submitted=submitted,
        started=entry.started if entry is not None else 0.0,
        ended=ended,
        error=plain(entry.error, 200) if entry is not None and state == "failed" else "",
        part=part,
    )


def _exact(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _coarse(seconds: float) -> str:
    """Return the time in steps that grow, since each step is a message to the front end."""
    if seconds < 2:
        return ""
    if seconds < 10:
        return f", {int(seconds)} s"
    if seconds < 60:
        return f", {int(seconds) // 5 * 5} s"
    return f", {int(seconds) // 60} min" + (" 30 s" if int(seconds) % 60 >= 30 else "")


class Line:
    """A line that ``StatusLines`` keeps up to date: that of a task, or of a group of tasks."""

    def __init__(self, status: Status, now: float, *, stable: bool, waits: bool) -> None:
        self.stable = stable
        self.waits = waits
        self.status = status
        self.since = now
        self.submitted = time.time()
        self.ended: float | None = None
        self.card: Card | None = None
        self.awaited = False
        """Whether the front end has yet to draw the card."""
        self.patience: asyncio.TimerHandle | None = None
        self.said = threading.Event()
        """Set when the line, or the card in its place, says how the task ended."""
        self.over = threading.Event()
        """Set when it is the line that says so."""

    def face(self, now: float) -> Face:
        """Return the state as people read it."""
        raise NotImplementedError

    def cancel(self) -> object:
        """Cancel what isn't over."""
        raise NotImplementedError

    def is_over(self) -> bool:
        """Return whether all is over."""
        raise NotImplementedError

    def words(self, seen: Face, seconds: float) -> str:
        """Return the line, of something that was submitted ``seconds`` ago."""
        return text(seen.label, seen.words, seconds, over=seen.over, error=seen.error, stable=self.stable)

    def html(self, seen: Face, line: str) -> str:
        """Return the line as HTML."""
        return line_html(seen.state, line, seen.part)

    def update(self, now: float) -> None:
        """Say where the task is, in the card or in the line."""
        seen = self.face(now)
        if self.card is not None:
            self.card.show(seen)
        if self.card is None or seen.over or not self.card.ready or now - self.status.cleared < _CALM:
            self._show(seen, (now if self.ended is None else self.ended) - self.since)
        elif self.status.model != self.card.model_id:
            # Once: with each time a front end would begin the card anew. The text is for those without widgets.
            self._show(seen, 0.0, model=self.card.model_id)
            self.awaited = True

    def _show(self, seen: Face, seconds: float, model: str = "") -> None:
        line = self.words(seen, seconds)
        if not (seen.over or self.waits or self.status.watched):
            line += UNWATCHED
        self.status.show(line, html=self.html(seen, line), model=model)


class _TaskLine(Line):
    def __init__(
        self, future: Future[Any], status: Status, record: Record, now: float, more: More, *, stable: bool, waits: bool
    ) -> None:
        super().__init__(status, now, stable=stable, waits=waits)
        self.future = future
        self.more = more
        self.record = record

    def face(self, now: float) -> Face:
        ended = now if self.ended is None else self.ended
        return face(self.future, self.record(), self.submitted, self.submitted + ended - self.since)

    def cancel(self) -> object:
        return self.future.cancel()

    def is_over(self) -> bool:
        return self.future.done()

    def words(self, seen: Face, seconds: float) -> str:
        line = super().words(seen, seconds)
        more = self.more(self.future) if seen.over else ""
        return f"{line}; {more}" if more else line


class StatusLines:
    """All status lines of a notebook. ``add`` from any thread; the rest happens on the loop's."""

    def __init__(
        self,
        cards: Cards | None = None,
        clock: Callable[[], float] = time.monotonic,
        stable: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cards = cards
        self._stable = stable
        self._clock = clock
        self._lines: dict[int, Line] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(
        self,
        future: Future[Any],
        status: Status,
        record: Record = lambda: None,
        more: More = lambda _future: "",
        *,
        waits: bool = False,
        submitted: float = 0.0,
    ) -> threading.Event:
        """Keep the line of a task up to date until the task ends; ``waits``: its cell does.

        It is submitted now, or was at the Unix time ``submitted``.

        The event is set when the line says how it ended.
        """
        line = _TaskLine(future, status, record, self._clock(), more, stable=self._stable(), waits=waits)
        if submitted:
            line.since -= line.submitted - submitted
            line.submitted = submitted
        future._promise.ends_with(line.said)
        ended = self.follow(line)
        future._promise.when_done(lambda _future: ended())
        return line.over

    def follow(self, line: Line) -> Callable[[], None]:
        """Keep a line up to date, until what this returns is called: from any thread, when all is over."""
        loop = background().loop
        loop.call_soon_threadsafe(self._begin, line)

        def ended() -> None:
            loop.call_soon_threadsafe(self._end, line)

        return ended

    @property
    def now(self) -> float:
        """The time, by the clock of the lines."""
        return self._clock()

    @property
    def stable(self) -> bool:
        """Whether lines have no times."""
        return self._stable()

    def _begin(self, line: Line) -> None:
        if not line.is_over():
            self._lines[id(line)] = line
            line.update(self._clock())
            self._arm()

    def _end(self, line: Line) -> None:
        self._lines.pop(id(line), None)
        if not self._lines and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        line.ended = self._clock()
        if line.card is not None and line.awaited and line.status.model:
            # Front ends stumble over a view that is removed while they draw it. The card shows the outcome, too.
            line.card.show(line.face(line.ended))
            line.said.set()
            line.patience = background().loop.call_later(_DRAWN_WITHIN, self._finish, line)
        else:
            self._finish(line)

    def _finish(self, line: Line) -> None:
        if line.over.is_set():
            return
        if line.patience is not None:
            line.patience.cancel()
        line.update(self._clock())
        line.said.set()
        line.over.set()
        if self._cards is not None and line.card is not None:
            # After the line has been restored: otherwise a front end would look for a closed widget.
            self._cards.end(line.card)
            line.card = None

    def _arm(self) -> None:
        if self._timer is None and self._lines:
            interval = max(_INTERVAL, len(self._lines) / _LINES_PER_S)
            self._timer = background().loop.call_later(interval, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock()
        made = 0
        for line in list(self._lines.values()):
            if made < _CARDS_AT_ONCE:
                made += self._give_card(line, now)
            line.update(now)
        self._arm()

    def _give_card(self, line: Line, now: float) -> bool:
        if self._cards is None or not line.status.interactive:
            return False
        if line.card is not None or now - line.since < _CARD_AFTER:
            return False
        line.card = self._cards.make(line.face(now), line.cancel, lambda what: self._heard(line, what))
        return line.card is not None

    def _heard(self, line: Line, what: str) -> None:
        if what == "shown":
            line.awaited = False
            if line.ended is not None:
                self._finish(line)
        elif line.ended is None:
            line.update(self._clock())
