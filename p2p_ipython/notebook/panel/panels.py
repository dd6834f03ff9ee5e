"""The panels of one notebook: sidebars and widgets, the pump of each cluster that they show, and their actions.

The sidebar and the widget of ``%p2p_panel`` show the notebook's cluster, whichever that is at the time; the widget of
``cluster.panel()`` shows that cluster only. Each cluster that is shown has a pump.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from p2p_ipython.loop import background
from p2p_ipython.notebook.panel import actions, static
from p2p_ipython.notebook.panel.asked import Do, Hello, read
from p2p_ipython.notebook.panel.channel import Channel
from p2p_ipython.notebook.panel.contract import Did
from p2p_ipython.notebook.panel.display import Display
from p2p_ipython.notebook.panel.pump import Pump, packed
from p2p_ipython.notebook.panel.surroundings import Surroundings

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.notebook.output import CellOutput

log = logging.getLogger(__name__)

MOST_SIDEBARS = 8
"""Raw comms that are kept, at most: a page that is closed doesn't say so."""

ENDING = 5.0
"""Seconds that closing the panels may take."""


class Notebook(actions.Notebook, Protocol):
    """The part of ``P2PMagics`` that panels use."""

    def output(self) -> CellOutput:
        """Return the output area of the cell that runs now."""


_open: weakref.WeakSet[Panels] = weakref.WeakSet()


def _last_chance() -> None:
    for panels in list(_open):
        try:
            panels.close()
        except Exception:
            log.exception("could not close the panels")


# Not atexit: then the kernel can no longer send. The last to register is called first, so panels are closed before the
# clusters and lent workers, whose modules (imported above, by way of ``Surroundings``) have registered before.
threading._register_atexit(_last_chance)  # type: ignore[attr-defined]


class Panels:
    """See the module. ``close`` when the extension is unloaded; the end of the kernel closes it, too."""

    def __init__(
        self, kernel: Any, opened: Sequence[weakref.ref[Cluster]], notebook: Notebook, friends: actions.Friends
    ) -> None:
        self._pid = os.getpid()
        self._kernel = kernel
        self._notebook = notebook
        self._friends = friends
        self._actions = actions.Actions(notebook, friends)
        self._opened = opened
        self._last: Cluster | None = None
        self._current: Pump | None = None
        self._pinned: weakref.WeakKeyDictionary[Cluster, Pump] = weakref.WeakKeyDictionary()
        self._sidebars: list[Channel] = []
        self._displays: list[Display] = []
        self._surroundings = Surroundings(friends)
        _open.add(self)

    def close(self) -> None:
        """Close the panels. Idempotent."""
        if self not in _open or self._pid != os.getpid():
            return
        _open.discard(self)
        self._last = None
        self._actions.close()
        if self._displays or self._sidebars:
            background().run(self._end(), ENDING)

    async def _end(self) -> None:
        displays, self._displays = self._displays, []
        for display in displays:
            display.end()
        for pump in self._pumps():
            pump.close()
        sidebars, self._sidebars = self._sidebars, []
        for channel in sidebars:
            channel.close()

    # -- which cluster --

    def current(self) -> Cluster | None:
        """Return the magics' cluster; else the one that was opened last; else the one that was shown last.

        The last one stays, though closed: its user wants to see how the tasks ended.
        """
        mine = self._notebook.cluster
        if mine is None or mine.closed:
            others = [one for ref in list(self._opened) if (one := ref()) is not None and not one.closed]
            mine = others[-1] if others else self._last
        if mine is None or mine._core.joined:  # one that is connecting may fail
            self._last = mine
        return mine

    def another(self) -> None:
        """Look again which cluster the notebook has. Any thread."""
        if self._current is not None or self._pinned:
            background().loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        """Show the cluster that the notebook has now."""
        self._news()
        for display in self._displays:
            display.save()

    def _news(self) -> None:
        for pump in self._pumps():
            pump.outside()

    def _pumps(self) -> list[Pump]:
        return [*([self._current] if self._current is not None else []), *self._pinned.values()]

    def pump(self, cluster: Cluster | None = None) -> Pump:
        """Return the pump of a cluster; None stands for the notebook's. On the loop's thread."""
        if cluster is None:
            if self._current is None:
                self._current = Pump(background().loop, self.current, self._surroundings)
            return self._current
        pump = self._pinned.get(cluster)
        if pump is None:
            pump = self._pinned[cluster] = Pump(background().loop, weakref.ref(cluster), self._surroundings)
        return pump

    # -- in cells --

    def place(self, output: CellOutput, cluster: Cluster | None = None) -> None:
        """Show the panel of a cluster under the cell that runs; None stands for the notebook's."""
        display, snapshot = self._display(cluster)
        if output.has_status:
            display.place(output, snapshot)
        else:
            output.progress(static.text(snapshot) + ".")

    def output(self) -> CellOutput:
        """Return the output area of the cell that runs now."""
        return self._notebook.output()

    def panel(self, cluster: Cluster) -> PlacedPanel:
        """Return the view that ``Cluster.panel()`` gives."""
        return PlacedPanel(self, cluster)

    def mimebundle(self, cluster: Cluster) -> dict[str, Any] | None:
        """Return what a cell shows whose value is the cluster."""
        if self._kernel is None or background().is_current():
            return None
        display, snapshot = self._display(cluster)
        return display.bundle(snapshot, live=self.output().interactive)

    def _display(self, cluster: Cluster | None) -> tuple[Display, dict[str, Any]]:
        """Return the display of a cluster's pump, and a snapshot."""

        async def look() -> tuple[Display, dict[str, Any]]:
            pump = self.pump(cluster)
            for gone in [one for one in self._displays if one.pump not in self._pumps()]:
                self._displays.remove(gone)
                gone.end()
            found = [one for one in self._displays if one.pump is pump]
            if not found:
                found = [Display(self._kernel, pump, self.answer, pinned=cluster is not None)]
                self._displays += found
            return found[0], pump.state(time.time())

        return background().run(look(), ENDING)

    # -- panels --

    def opened_by_browser(self, comm: Any, message: Any) -> None:
        """Make a channel for a comm that a sidebar opens; on a thread of the kernel's."""
        channel = Channel(comm, self._kernel, received=self._received, closed=self._closed)
        background().loop.call_soon_threadsafe(self._add, channel)
        asked = read(message["content"].get("data"))
        if isinstance(asked, Hello | Do):
            background().loop.call_soon_threadsafe(self._received, channel, asked)

    def _add(self, channel: Channel) -> None:
        self._sidebars.append(channel)
        while len(self._sidebars) > MOST_SIDEBARS:
            oldest = self._sidebars.pop(0)
            self._closed(oldest)
            oldest.close()

    def _closed(self, channel: Channel) -> None:
        if channel in self._sidebars:
            self._sidebars.remove(channel)
        if self._current is not None:
            self._current.leave(channel)

    def _received(self, channel: Channel, asked: Hello | Do) -> None:
        self.answer(channel, asked, self.pump())

    def answer(self, channel: Channel, asked: Hello | Do, pump: Pump) -> None:
        """Answer a panel of ``pump``. On the loop's thread."""
        if not channel.is_open:
            return
        if isinstance(asked, Hello):
            pump.hello(channel)
            return
        loop = background().loop
        did = _Did(channel, asked)

        def answered(ok: bool, say: str, data: Any) -> None:
            loop.call_soon_threadsafe(self._did, did, ok, say, data)

        deadline = self._actions.perform(asked, pump.cluster, answered)
        did.timer = loop.call_later(deadline, did.late, deadline)

    def _did(self, did: _Did, ok: bool, say: str, data: Any) -> None:
        did.answer(ok, say, data)
        self._surroundings.look_again()
        self._news()


class PlacedPanel:
    """The value of ``Cluster.panel()``; a cell that ends with it, or ``display``, shows it."""

    def __init__(self, panels: Panels, cluster: Cluster) -> None:
        self._panels = panels
        self._cluster = cluster

    def _ipython_display_(self) -> None:
        self._panels.place(self._panels.output(), self._cluster)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any] | None:
        return self._panels.mimebundle(self._cluster)

    def __repr__(self) -> str:
        return f"<Panel of {self._cluster!r}>"


class _Did:
    """The answer to an action, given once."""

    def __init__(self, channel: Channel, asked: Do) -> None:
        self._channel = channel
        self._asked = asked
        self._given = False
        self.timer: Any = None

    def answer(self, ok: bool, say: str, data: Any) -> None:
        """Send the outcome, if no answer has been sent yet."""
        if self.timer is not None:
            self.timer.cancel()
        if self._given:
            return
        self._given = True
        message = Did(t="did", id=self._asked.id, ok=ok, say=say)
        if data is not None:
            message["data"] = data
        self._channel.send(packed(message))

    def late(self, seconds: float) -> None:
        """Answer at the deadline, unless an answer has been sent."""
        self.answer(False, f"No answer within {seconds:g} s. The action may still succeed.", None)
