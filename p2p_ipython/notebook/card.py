"""The card under a cell whose task takes a while: state, worker, time that ticks in the browser, a button to cancel.

A card shows a ``Face``. ``line_html`` is the line that stands there without a widget: before the card, after it, and
in front ends without widgets. The card itself is an anywidget. It replaces the line only once the front end has said
that it can show the card (``ready``): otherwise the user would see an error instead of a line. At the end the line
replaces the card, and the widget is closed: nothing of it is in the saved notebook.

A page that is reloaded finds the card again, but no longer accepts the line that would replace it. For such a page the
widget stays, with the final words, until the extension is unloaded. For a page that is just being reloaded, it stays
for a moment.

The browser sends {"t": "ready", "page": …}, repeatedly because the first may have to wait; {"t": "shown"} when it has
drawn a view; and {"t": "cancel"}.

All belongs to the loop's thread; messages from the browser are handed over to it.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from p2p_ipython.loop import background
from p2p_ipython.notebook.comms import answering_nobody, take_messages

if TYPE_CHECKING:
    from p2p_ipython.notebook.card_widget import CardWidget

log = logging.getLogger(__name__)

MOST = 100
"""Cards at a time, at most; further tasks keep their line."""

KEPT = 30
"""Cards of ended tasks that are kept for pages that were, or are being, reloaded."""

LATE = 5.0
"""Seconds that an ended task's card stays, for a page that has found it and hasn't said so yet."""

UNANSWERED = 3
"""Unanswered cards after which no more are made, unless a front end has ever answered one."""

ANSWERS_WITHIN = 10.0
"""Seconds that a front end may take to answer: with the first card it loads its code for widgets. A card that was
closed earlier says nothing about the front end."""

OVER = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Face:
    """The state of a task for people: plain text. ``state`` is one of ``protocol.client_machine.TaskState``'s values.

    ``words`` say where the task is or how it ended; ``error`` is the first line of its error. Times are Unix seconds,
    0.0 for not yet. ``part`` is the part that is done, from 0 to 1, for a bar; -1.0 for none.
    """

    label: str
    state: str
    words: str
    submitted: float
    started: float = 0.0
    ended: float = 0.0
    worker: str = ""
    error: str = ""
    part: float = -1.0

    @property
    def over(self) -> bool:
        """Whether the task has ended."""
        return self.state in OVER


_RING = "M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11"

_SHAPES = {  # strokes, 16 by 16, and their colour; the card and the panel have the same
    "waiting": (_RING, "currentColor"),
    "sent": (f"{_RING}M5.5 8h5M8.3 5.8 10.5 8l-2.2 2.2", "currentColor"),
    "running": (f"{_RING}M8 7a1 1 0 1 1 0 2a1 1 0 1 1 0-2", "var(--jp-brand-color1, #1976d2)"),
    "stopping": (f"{_RING}M6 6h4v4H6z", "currentColor"),
    "done": ("m3 8.5 3.2 3.2L13 4.8", "var(--jp-success-color1, #388e3c)"),
    "failed": ("M2.5 2.5h11v11h-11zm3.2 3.2 4.6 4.6m0-4.6-4.6 4.6", "var(--jp-error-color1, #d32f2f)"),
    "cancelled": (f"{_RING}m-3.8 9.3 7.6-7.6", "currentColor"),
}


def line_html(state: str, line: str, part: float = -1.0) -> str:
    """Return a line of text with a shape for the state, as HTML that needs no style sheet.

    The line is as high as a card, so that nothing jumps. ``part``, if it is 0 to 1, is shown by a bar.
    """
    bar = (
        '<span aria-hidden="true" style="flex: none; width: 8em; height: 6px; border-radius: 3px;'
        ' background: var(--jp-border-color2, #bdbdbd)"><span style="display: block; height: 100%; border-radius: 3px;'
        f' width: {100 * part:.1f}%; background: {_SHAPES.get(state, _SHAPES["waiting"])[1]}"></span></span>'
        if part >= 0
        else ""
    )
    path, colour = _SHAPES.get(state, _SHAPES["waiting"])
    dashes = ' stroke-dasharray="2.2 2.12"' if state == "waiting" else ""
    return (
        '<div style="margin: 0; display: flex; gap: 0.5em; min-height: 28px; align-items: center; padding: 0 1px;'
        ' font-family: var(--jp-ui-font-family, sans-serif); font-size: var(--jp-ui-font-size1, 13px)">'
        '<svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" fill="none" stroke="currentColor"'
        f' stroke-width="1.5"{dashes} style="flex: none; color: {colour}"><path d="{path}"/></svg>'
        f"{bar}<span>{escape(line)}</span></div>"
    )


class Card:
    """One task's card.

    The browser's messages call ``cancel``, or ``heard`` with "ready" or "shown"; both on the loop's thread.
    """

    def __init__(
        self, widget: CardWidget, face: Face, cancel: Callable[[], object], heard: Callable[[str], object]
    ) -> None:
        self._widget = widget
        self._face = face
        self._cancel = cancel
        self._told = heard
        self._pages: set[str] = set()
        self.since = 0.0
        """When the card was made, by the clock of ``Cards``."""
        self.model_id = str(widget.model_id)
        take_messages(widget.comm, self._handle)

    @property
    def ready(self) -> bool:
        """Whether a front end can show the card."""
        return bool(self._pages)

    @property
    def reloaded(self) -> bool:
        """Whether a page shows the card that was not there when it was made."""
        return len(self._pages) > 1

    def show(self, face: Face) -> None:
        """Send the browser what has changed, if anything has."""
        if face == self._face:
            return
        before, self._face = dataclasses.asdict(self._face), face
        changed = {name: value for name, value in dataclasses.asdict(face).items() if value != before[name]}
        answering_nobody(self._widget.update, changed)

    def close(self) -> None:
        """Remove the card from all front ends."""
        answering_nobody(self._widget.end)

    def _handle(self, message: Mapping[str, Any]) -> None:
        background().loop.call_soon_threadsafe(self._heard, message)

    def _heard(self, message: Mapping[str, Any]) -> None:
        # The browser's other method, "update", is ignored on purpose: only the kernel writes the state.
        match message["content"].get("data"):
            case {"method": "request_state"}:
                answering_nobody(self._widget.send_state)
            case {"method": "custom", "content": {"t": "ready", "page": str(page)}}:
                if len(self._pages) < 2 and page not in self._pages and 0 < len(page) <= 64:
                    self._pages.add(page)
                    self._told("ready")
            case {"method": "custom", "content": {"t": "shown"}}:
                self._told("shown")
            case {"method": "custom", "content": {"t": "cancel"}}:
                self._cancel()


class Cards:
    """The cards of a notebook."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._class: type[CardWidget] | None = None
        self._loading: threading.Thread | None = None
        self._alive: set[Card] = set()
        self._kept: deque[Card] = deque()
        self._answered = False
        self._unanswered = 0

    def make(self, face: Face, cancel: Callable[[], object], heard: Callable[[str], object]) -> Card | None:
        """Make a task's card, not shown yet. Returns None if there can't be one, or not yet: then ask again."""
        if len(self._alive) >= MOST or (self._unanswered >= UNANSWERED and not self._answered):
            return None
        if self._class is None:
            if self._loading is None:  # importing takes long, and the loop serves links
                self._loading = threading.Thread(target=self._load, name="p2p-card", daemon=True)
                self._loading.start()
            return None
        try:
            widget = answering_nobody(self._class, **dataclasses.asdict(face))
            card = Card(widget, face, cancel, heard)
        except Exception:  # the line is enough
            log.debug("there can be no card", exc_info=True)
            self._unanswered += 1
            return None
        card.since = self._clock()
        self._alive.add(card)
        return card

    def end(self, card: Card) -> None:
        """Dispose of the card of an ended task, whose line is shown again."""
        self._alive.discard(card)
        if not card.ready:
            if self._clock() - card.since >= ANSWERS_WITHIN:
                self._unanswered += 1
            self._close_one(card)
            return
        self._answered = True
        self._kept.append(card)
        if len(self._kept) > KEPT:
            self._close_one(self._kept.popleft())
        if not card.reloaded:
            background().loop.call_later(LATE, self._let_go, card)

    def _let_go(self, card: Card) -> None:
        if card in self._kept and not card.reloaded:
            self._kept.remove(card)
            self._close_one(card)

    def close(self) -> None:
        """Remove all cards, also those of ended tasks. Any thread."""
        if self._class is not None:  # otherwise there never was a card
            background().loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        cards = [*self._alive, *self._kept]
        self._alive.clear()
        self._kept.clear()
        for card in cards:
            self._close_one(card)

    def _close_one(self, card: Card) -> None:
        try:
            card.close()
        except Exception:
            log.debug("a card could not be closed", exc_info=True)

    def _load(self) -> None:
        try:
            from p2p_ipython.notebook.card_widget import CardWidget  # heavy, and optional
        except Exception:  # no anywidget, or the front end was never built: then lines are all there is
            log.debug("there are no cards here", exc_info=True)
            return
        self._class = CardWidget
