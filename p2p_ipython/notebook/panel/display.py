"""The panel in a cell: a widget for front ends that show widgets, and its last state as HTML for all others.

A ``Display`` belongs to one pump. However many cells show it, there is one widget, with one channel. A cell that can be
found again (``CellOutput``) is a *place* with two outputs: the widget, and below it HTML. The HTML is refreshed when
the cluster comes to rest, when it is left, and when the kernel ends: the saved notebook then shows the last state.
While the widget is visible, its style hides the HTML. They aren't one output: JupyterLab makes a view anew when its
output is updated, and the user may be typing in it.
"""

from __future__ import annotations

import logging
import time
from asyncio import TimerHandle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2p_ipython.loop import background
from p2p_ipython.notebook.comms import answering_nobody
from p2p_ipython.notebook.panel import static
from p2p_ipython.notebook.panel.asked import Do, Hello
from p2p_ipython.notebook.panel.channel import Channel

if TYPE_CHECKING:
    from p2p_ipython.notebook.output import CellOutput
    from p2p_ipython.notebook.panel.pump import Pump
    from p2p_ipython.notebook.panel.widget import PanelWidget

log = logging.getLogger(__name__)

SAVE_EVERY = 10.0
"""Seconds between two refreshes of the saved HTML, at least."""

MOST_PLACES = 8
"""Cells whose HTML is refreshed, at most: those that showed the panel last."""

NO_WIDGET = (
    "The live panel needs anywidget (pip install anywidget) and the built front end: "
    "run make front in the sources, or install a wheel."
)

Received = Callable[[Channel, "Hello | Do", "Pump"], None]


class Display:
    """See the module. Made and shown on the kernel's main thread; the rest happens on the loop's.

    ``pinned``: whether it shows one cluster only. When that has been forgotten, the saved HTML stays as it is.
    """

    def __init__(self, kernel: Any, pump: Pump, received: Received, *, pinned: bool) -> None:
        self.pump = pump
        self._kernel = kernel
        self._received = received
        self._pinned = pinned
        self._widget: PanelWidget | None = None
        self._channel: Channel | None = None
        self._places: list[tuple[CellOutput, CellOutput]] = []
        self._saved = 0.0
        self._later: TimerHandle | None = None

    # -- the kernel's main thread --

    def model(self) -> str:
        """Return the id of the widget, which is made on first use; "" if there can be none."""
        if self._channel is not None:
            if self._channel.is_open and self._widget is not None and self._widget.comm is not None:
                return str(self._widget.model_id)
            # A front end has closed it, or the user has closed all widgets.
            self._channel.forget()
            background().loop.call_soon_threadsafe(self.pump.leave, self._channel)
        try:
            from p2p_ipython.notebook.panel.widget import MORE, PanelWidget  # heavy, and optional

            widget = self._widget = answering_nobody(PanelWidget)
        except Exception:
            log.info("there can be no live panel", exc_info=True)
            return ""
        self._channel = Channel(
            widget.comm,
            self._kernel,
            received=lambda channel, asked: self._received(channel, asked, self.pump),
            closed=self.pump.leave,
            rested=self.rested,
            otherwise=widget._handle_msg,
            code=MORE,
        )
        return str(widget.model_id)

    def bundle(self, snapshot: dict[str, Any], *, live: bool) -> dict[str, Any]:
        """Return the output of a cell that can't be found again. ``live``: whether its front end may show a widget."""
        model = self.model() if live else ""
        note = "" if model or not live else NO_WIDGET
        data: dict[str, Any] = {"text/plain": static.text(snapshot), "text/html": static.page(snapshot, note)}
        if model:
            view = {"version_major": 2, "version_minor": 0, "model_id": model}
            data["application/vnd.jupyter.widget-view+json"] = view
        return data

    def place(self, output: CellOutput, snapshot: dict[str, Any]) -> None:
        """Show the panel under the cell that runs."""
        model = self.model() if output.interactive else ""
        note = "" if model or not output.interactive else NO_WIDGET
        html = output.another()
        if model:
            output.view(model)
        html.show(static.text(snapshot), html=static.page(snapshot, note))
        if output.interactive:
            others = [place for place in self._places if not output.cell or place[0].cell != output.cell]
            self._places = [*others, (output, html)][-MOST_PLACES:]

    # -- the loop's thread --

    def rested(self) -> None:
        """Refresh the saved HTML when the cluster comes to rest; not more often than ``SAVE_EVERY``."""
        wait = self._saved + SAVE_EVERY - time.monotonic()
        if wait <= 0:
            self.save()
        elif self._later is None:
            self._later = background().loop.call_later(wait, self.save)

    def save(self, *, last: bool = False) -> None:
        """Refresh the saved HTML. ``last``: remove the widget, so that only the HTML is left."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not self._places:
            return
        self._saved = time.monotonic()
        if not self._pinned or self.pump.cluster is not None:
            snapshot = self.pump.state(time.time())
            text, page = static.text(snapshot), static.page(snapshot)
            for _, html in self._places:
                html.show(text, html=page)
        if last:
            for output, _ in self._places:
                output.view("")

    def end(self) -> None:
        """Close the widget; only the saved HTML stays."""
        try:
            self.save(last=True)
        finally:
            self._places = []
            if self._channel is not None:
                self.pump.leave(self._channel)
                self._channel.forget()
                self._channel = None
            widget, self._widget = self._widget, None
            if widget is not None and widget.comm is not None:
                answering_nobody(widget.end)
