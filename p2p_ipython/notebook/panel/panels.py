"""All that one notebook has of panels: who looks at what, what can be done, and where it is asked for.

The sidebar, and the widget of ``%p2p_panel``, look at the notebook's cluster, whichever that is at the time; the widget
of ``cluster.panel()`` looks at that cluster and no other. Each cluster that is looked at has a pump.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from p2p_ipython.client.connect import cores  # also: at the end of the process clusters are closed after panels
from p2p_ipython.loop import background
from p2p_ipython.notebook.panel import actions, rows, static, watch
from p2p_ipython.notebook.panel.asked import Do, Hello, read
from p2p_ipython.notebook.panel.channel import Channel
from p2p_ipython.notebook.panel.display import Display
from p2p_ipython.notebook.panel.hub import Row
from p2p_ipython.notebook.panel.pump import Pump, packed

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.notebook.output import CellOutput
    from p2p_ipython.notebook.panel.registration import Door
    from p2p_ipython.notebook.panel.watch import Usage

log = logging.getLogger(__name__)

MOST_SIDEBARS = 8
"""Raw comms that are kept: a page that was closed doesn't say so."""

MOST_CLUSTERS = 200
"""Clusters of friends that are told."""

CLUSTERS_EVERY = 10.0
"""Seconds between two looks at the files of this user's clusters."""

ENDING = 5.0
"""Seconds that closing the panels may take."""


class Notebook(actions.Notebook, Protocol):
    """The magics."""

    def output(self) -> CellOutput:
        """The output area of the cell that runs now."""


_desks: weakref.WeakSet[Desk] = weakref.WeakSet()


def _last_chance() -> None:
    for desk in list(_desks):
        try:
            desk.close()
        except Exception:
            log.exception("could not close the panels")


# Not atexit, when the kernel can send nothing any more. Last come, first served: this is before clusters are closed.
threading._register_atexit(_last_chance)  # type: ignore[attr-defined]


class Desk:
    """See the module. Made when first asked for; ``close`` when the extension is unloaded, or when the kernel ends."""

    def __init__(self, door: Door, notebook: Notebook, friends: actions.Friends) -> None:
        self._pid = os.getpid()
        self._kernel = door.kernel
        self._notebook = notebook
        self._friends = friends
        self._actions = actions.Actions(notebook, friends)
        self._opened = door.opened
        self._last: Cluster | None = None
        self._current: Pump | None = None
        self._pinned: weakref.WeakKeyDictionary[Cluster, Pump] = weakref.WeakKeyDictionary()
        self._sidebars: list[Channel] = []
        self._displays: list[Display] = []
        self._surroundings = Surroundings(friends)
        _desks.add(self)

    def close(self) -> None:
        """Close the panels, and do nothing more for them. Idempotent."""
        if self not in _desks or self._pid != os.getpid():
            return
        _desks.discard(self)
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
        """The magics' cluster; else the one that was opened last; else the one that was looked at last.

        That one is kept, though closed: when all is over one wants to look at what came of it.
        """
        mine = self._notebook.cluster
        if mine is None or mine.closed:
            others = [one for ref in list(self._opened) if (one := ref()) is not None and not one.closed]
            mine = others[-1] if others else self._last
        if mine is None or mine._core.joined:  # not one that may fail to
            self._last = mine
        return mine

    def another(self) -> None:
        """Which cluster is the notebook's has changed; any thread."""
        if self._current is not None or self._pinned:
            background().loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        """Another cluster is connected, or none."""
        self._news()
        for display in self._displays:
            display.save()

    def _news(self) -> None:
        for pump in self._pumps():
            pump.outside()

    def _pumps(self) -> list[Pump]:
        return [*([self._current] if self._current is not None else []), *self._pinned.values()]

    def pump(self, cluster: Cluster | None = None) -> Pump:
        """The pump for a cluster, or for whichever is the notebook's. On the loop's thread."""
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
        """Show the panel under the cell that runs: of the notebook's cluster, or of another one."""
        display, snapshot = self._display(cluster)
        if output.has_status:
            display.place(output, snapshot)
        else:
            output.progress(static.text(snapshot) + ".")

    def output(self) -> CellOutput:
        """The output area of the cell that runs now."""
        return self._notebook.output()

    def panel(self, cluster: Cluster) -> PlacedPanel:
        """For ``Cluster.panel()``."""
        return PlacedPanel(self, cluster)

    def mimebundle(self, cluster: Cluster) -> dict[str, Any] | None:
        """For the value of a cell that is a cluster."""
        if self._kernel is None or background().is_current():
            return None
        display, snapshot = self._display(cluster)
        return display.bundle(snapshot, live=self.output().interactive)

    def _display(self, cluster: Cluster | None) -> tuple[Display, dict[str, Any]]:
        """The display of a cluster's pump, and what there is to see."""

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
        """A sidebar opens a comm; on a thread of the kernel's."""
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
        """What a panel has said, which looks at what ``pump`` tells. On the loop's thread."""
        if not channel.is_open:  # not any more
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
    """What ``Cluster.panel()`` returns: shown by a cell whose value it is, or by ``display``."""

    def __init__(self, desk: Desk, cluster: Cluster) -> None:
        self._desk = desk
        self._cluster = cluster

    def _ipython_display_(self) -> None:
        self._desk.place(self._desk.output(), self._cluster)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any] | None:
        return self._desk.mimebundle(self._cluster)

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
        """Say what came of it, if nothing has been said yet."""
        if self.timer is not None:
            self.timer.cancel()
        if self._given:
            return
        self._given = True
        message: dict[str, Any] = {"t": "did", "id": self._asked.id, "ok": ok, "say": say}
        if data is not None:
            message["data"] = data
        self._channel.send(packed(message))

    def late(self, seconds: float) -> None:
        """Its time is up."""
        self.answer(False, f"No answer within {seconds:g} s. It may still come true.", None)


class Surroundings:
    """What there is beside the cluster, as ``pump.Outside`` has it."""

    def __init__(self, friends: actions.Friends) -> None:
        self._friends = friends
        self._followers: list[Callable[[], None]] = []
        self._known: tuple[tuple[str, bool], ...] = ()  # titles, and whether they are this user's own
        self._looked = 0.0
        self._looking = False

    def follow(self, wake: Callable[[], None]) -> Callable[[], None]:
        def received() -> None:  # somebody has come, or a cluster has: it is hosted from now on
            self.look_again()
            wake()

        unfollow = [self._friends.reception.follow(received), _lender().follow(wake)]
        self._followers.append(wake)

        def end() -> None:
            self._followers.remove(wake)
            for one in unfollow:
                one()

        return end

    def visitors(self) -> Sequence[tuple[str, Row]]:
        return [rows.visitor(one) for one in self._friends.reception.visitors()]

    def lending(self, cluster: Cluster | None) -> Sequence[tuple[str, Row]]:
        states = _lender().states()
        names = watch.names_in(cluster) if states and cluster is not None else {}
        title = cluster.target if cluster is not None else None
        return [rows.lending(state, names if state.title == title else {}) for state in states]

    def used(self) -> Usage:
        used: dict[str, tuple[int, float]] = {}
        for state in _lender().states():
            for key, (tasks, seconds) in state.usage.items():
                before = used.get(key, (0, 0.0))
                used[key] = before[0] + tasks, before[1] + seconds
        return used

    def look_again(self) -> None:
        """The files of this user's clusters may have changed."""
        self._looked = 0.0

    def means(self, cluster: Cluster | None) -> Row:
        if time.monotonic() > self._looked + CLUSTERS_EVERY and not self._looking:
            self._looking = True
            background().start(self._look())
        return rows.row(
            can=self._can(cluster),
            clusters=[title for title, _ in self._known],
            hosted=self._friends.reception.hosted(),
            machine=platform.node()[: rows.NAME],
            cores=cores(),
            python=platform.python_version(),
        )

    def _can(self, cluster: Cluster | None) -> list[str]:
        """The actions that work now."""
        there = cluster if cluster is not None and cluster._core.joined and not cluster.closed else None
        shared = there is not None and there.shared
        elsewhere = there is not None and there.target is not None
        owned = [title for title, own in self._known if own]
        can = ["connect"]
        if cluster is not None:
            can.append("show")
        if there is not None:
            can += ["cancel", "disconnect"]
        if owned or (elsewhere and not shared):
            can.append("invite")
        if self._friends.reception.visitors():
            can += ["approve", "refuse"]
        if owned:
            can.append("revoke")
        if shared:
            can += ["trust", "distrust"]
        if sys.platform != "win32" and (elsewhere or self._known):
            can.append("lend")
        if _lender().states():
            can += ["pause", "resume", "stop"]
        return can

    async def _look(self) -> None:
        """Read the files of this user's clusters."""
        import asyncio

        try:
            found = await asyncio.to_thread(_clusters)
        finally:
            self._looking = False
            self._looked = time.monotonic()
        if found != self._known:
            self._known = found
            for wake in list(self._followers):
                wake()


def _clusters() -> tuple[tuple[str, bool], ...]:
    """Titles of the clusters of friends that this user knows, and which are his own. Blocks."""
    from p2p_ipython.errors import P2PError
    from p2p_ipython.members.profiles import Profiles

    try:
        profiles = Profiles().all()
    except (P2PError, OSError):
        log.debug("the files of clusters can't be read", exc_info=True)
        return ()
    return tuple((profile.title, profile.hosting is not None) for profile in profiles[:MOST_CLUSTERS])


def _lender() -> Any:
    from p2p_ipython.client.lending import lender

    return lender()
