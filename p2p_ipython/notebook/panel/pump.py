"""The pump of a cluster's panels: at most ten messages a second, and none at all while no panel is open.

A ``Pump`` has one hub, and any number of panels that show the same cluster. It reads, compares and packs changes once
for all of them. The cluster, the lender and the reception wake it. While panels are open it also reads, every ten
seconds, what changes without notice, such as round trips.

In the long run it takes at most a hundredth of a core: after a message that was costly to make, the next one comes
later, and holds more changes.

Belongs to the event loop's thread.
"""

from __future__ import annotations

import json
import logging
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from p2p_ipython.notebook.panel import watch
from p2p_ipython.notebook.panel.hub import Hub, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.notebook.panel.watch import Usage

log = logging.getLogger(__name__)

EVERY = 0.1
"""Seconds between two messages, at least."""

SLOWEST = 1.0
"""Seconds between two messages, at most, while there are changes."""

SOON = 0.01
"""Seconds from the first change after a rest to its message, which also holds the changes that follow closely."""

SHARE = 0.01
"""The share of a core that making messages may take."""

REFRESH = 10.0
"""Seconds between two looks at what changes without notice."""

REST = 2.0
"""Seconds without news after which a cluster without unfinished tasks is at rest."""


class Panel(Protocol):
    """One panel, somewhere."""

    def send(self, message: bytes) -> None:
        """Send the panel a message; must not block, nor raise."""

    def rested(self) -> None:
        """Notice that the cluster has come to rest."""


class Outside(Protocol):
    """The rest that a panel shows beside the cluster."""

    def follow(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` on the loop's thread after each change; the result ends that."""

    def visitors(self) -> Sequence[tuple[str, Row]]:
        """Return the ids and rows of guests, who wait for a yes or no."""

    def lending(self, cluster: Cluster | None) -> Sequence[tuple[str, Row]]:
        """Return the ids and rows of workers that were started here; ``cluster`` knows names of members."""

    def questions(self) -> Sequence[tuple[str, Row]]:
        """Return the ids and rows of what the lender is asked."""

    def used(self) -> Usage:
        """Return what this machine has run for each member."""

    def means(self, cluster: Cluster | None) -> Row:
        """Return what may be done now."""


class Pump:
    """See the module. ``which`` gives the cluster that its panels show now."""

    def __init__(self, loop: AbstractEventLoop, which: Callable[[], Cluster | None], outside: Outside) -> None:
        self.hub = Hub()
        self._loop = loop
        self._which = which
        self._outside = outside
        self._told: list[Panel] = []  # those that know the last revision
        self._new: list[Panel] = []  # those that need a snapshot
        self._watch: watch.ClusterWatch | None = None
        self._unfollow: Callable[[], None] | None = None
        self._outside_changed = False
        self._stale = True  # whether everything has to be read again
        self._timer: TimerHandle | None = None
        self._refresh: TimerHandle | None = None
        self._rest: TimerHandle | None = None
        self._not_before = 0.0

    # -- panels --

    @property
    def is_open(self) -> bool:
        """Whether there is a panel."""
        return bool(self._told or self._new)

    @property
    def cluster(self) -> Cluster | None:
        """The cluster that its panels show."""
        return self._which()

    def hello(self, panel: Panel) -> None:
        """Send a snapshot, soon, to a panel that is new or has missed a message."""
        first = not self.is_open
        if panel in self._told:
            self._told.remove(panel)
        if panel not in self._new:
            self._new.append(panel)
        if first:
            self._begin()
        self._schedule(0.0)

    def leave(self, panel: Panel) -> None:
        """Remove a panel, if it is there."""
        for panels in (self._told, self._new):
            if panel in panels:
                panels.remove(panel)
        if not self.is_open:
            self._end()

    def close(self) -> None:
        """Send nothing any more."""
        self._told.clear()
        self._new.clear()
        self._end()

    # -- news --

    def woken(self) -> None:
        """Send changes, soon: the cluster has some, or is another one."""
        if self.is_open:
            self._schedule(SOON)

    def outside(self) -> None:
        """Read again, soon, what there is beside the cluster."""
        self._outside_changed = True
        self.woken()

    def state(self, now: float) -> dict[str, Any]:
        """Return everything as it is now, in the shape of a snapshot; also while no panel is open."""
        if self.is_open:
            self._read()
        else:
            self._read_all()
            self._forget()
            self.hub.settle()  # otherwise each row would be kept as it was sent last, until a panel comes
        return self.hub.picture(now)

    # -- inside --

    def _begin(self) -> None:
        self._stale = True
        self._unfollow = self._outside.follow(self.outside)
        self._refresh = self._loop.call_later(REFRESH, self._refreshed)

    def _end(self) -> None:
        for timer in (self._timer, self._refresh, self._rest):
            if timer is not None:
                timer.cancel()
        self._timer = self._refresh = self._rest = None
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None
        self._forget()

    def _forget(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _schedule(self, within: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(max(self._loop.time() + within, self._not_before), self._push)

    def _push(self) -> None:
        self._timer = None
        began = time.thread_time()
        try:
            self._read()
            now = time.time()
            delta = self.hub.delta(now)
            if delta is not None and self._told:
                _send(self._told, delta)
            if self._new:
                new, self._new = self._new, []
                _send(new, self.hub.snapshot(now))
                self._told += new
            if delta is not None:
                self._wait_for_rest(delta)
        except Exception:  # a panel that stands still is bad enough
            log.exception("could not send to the panels")
            self._stale = True  # the changes are no longer known
        spent = time.thread_time() - began
        self._not_before = self._loop.time() + min(max(EVERY, spent / SHARE), SLOWEST)

    def _read(self) -> None:
        cluster = self._which()
        if self._stale or cluster is not (self._watch.cluster if self._watch is not None else None):
            self._read_all()
            return
        if self._watch is not None:
            self._watch.look()
        if self._outside_changed:
            self._look_outside(cluster)

    def _read_all(self) -> None:
        self._forget()
        cluster = self._which()
        if cluster is None:
            watch.forget(self.hub)
        else:
            self._watch = watch.ClusterWatch(self.hub, cluster, self.woken, self._outside.used)
            self._watch.fill()
        self._look_outside(cluster)
        self._stale = False

    def _look_outside(self, cluster: Cluster | None) -> None:
        self._outside_changed = False
        self.hub.fill("visitors", self._outside.visitors())
        self.hub.fill("lending", self._outside.lending(cluster))
        self.hub.fill("questions", self._outside.questions())
        self.hub.set("means", self._outside.means(cluster))

    def _refreshed(self) -> None:
        self._refresh = self._loop.call_later(REFRESH, self._refreshed)
        if self._watch is not None:
            self._watch.refresh()
        self.outside()

    def _wait_for_rest(self, delta: dict[str, Any]) -> None:
        if "cluster" in delta.get("set", ()) or "tasks" in delta.get("put", ()) or "tasks" in delta.get("del", ()):
            if self._rest is not None:
                self._rest.cancel()
            self._rest = self._loop.call_later(REST, self._rested)

    def _rested(self) -> None:
        self._rest = None
        if all(row["state"] in watch.OVER for row in self.hub.rows("tasks").values()):
            for panel in list(self._told):
                panel.rested()


def packed(message: Mapping[str, Any]) -> bytes:
    """Pack a message into the JSON that is sent."""
    return json.dumps(message, separators=(",", ":")).encode()


def _send(panels: Sequence[Panel], message: Mapping[str, Any]) -> None:
    data = packed(message)
    for panel in list(panels):
        panel.send(data)
