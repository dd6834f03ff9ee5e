"""The surroundings of a cluster, for a panel: guests, lent workers, known clusters, and what may be done now.

``Surroundings`` reads the reception, the lender and the files of this user's clusters, as ``pump.Outside`` has it.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import sys
import time
from collections.abc import Callable, Sequence

from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.connect import cores
from p2p_ipython.client.lending import SANDBOXES, lender
from p2p_ipython.errors import P2PError
from p2p_ipython.loop import background
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.notebook.panel import rows
from p2p_ipython.notebook.panel.actions import Friends
from p2p_ipython.notebook.panel.contract import Means
from p2p_ipython.notebook.panel.hub import Row
from p2p_ipython.notebook.panel.people import names_in
from p2p_ipython.notebook.panel.watch import Usage

log = logging.getLogger(__name__)

MOST_CLUSTERS = 200
"""Clusters of friends that a panel lists, at most."""

CLUSTERS_EVERY = 10.0
"""Seconds between two looks at the files of this user's clusters."""


class Surroundings:
    """See the module. Belongs to the loop's thread."""

    def __init__(self, friends: Friends) -> None:
        self._friends = friends
        self._followers: list[Callable[[], None]] = []
        self._known: tuple[tuple[str, bool], ...] = ()  # titles, and whether they are this user's own
        self._looked = 0.0
        self._looking = False

    def follow(self, wake: Callable[[], None]) -> Callable[[], None]:
        def received() -> None:  # a visitor has come, or this kernel hosts another cluster
            self.look_again()
            wake()

        unfollow = [self._friends.reception.follow(received), lender().follow(wake)]
        self._followers.append(wake)

        def end() -> None:
            self._followers.remove(wake)
            for one in unfollow:
                one()

        return end

    def visitors(self) -> Sequence[tuple[str, Row]]:
        return [rows.visitor(one) for one in self._friends.reception.visitors()]

    def lending(self, cluster: Cluster | None) -> Sequence[tuple[str, Row]]:
        states = lender().states()
        names = names_in(cluster) if states and cluster is not None else {}
        title = cluster.target if cluster is not None else None
        return [rows.lending(state, names if state.title == title else {}) for state in states]

    def questions(self) -> Sequence[tuple[str, Row]]:
        return [rows.question(state, state.question) for state in lender().states() if state.question is not None]

    def used(self) -> Usage:
        used: dict[str, tuple[int, float]] = {}
        for state in lender().states():
            for key, (tasks, seconds) in state.usage.items():
                before = used.get(key, (0, 0.0))
                used[key] = before[0] + tasks, before[1] + seconds
        return used

    def look_again(self) -> None:
        """Read the files of this user's clusters again soon: they may have changed."""
        self._looked = 0.0

    def means(self, cluster: Cluster | None) -> Row:
        if time.monotonic() > self._looked + CLUSTERS_EVERY and not self._looking:
            self._looking = True
            background().start(self._look())
        means = Means(
            can=self._can(cluster),
            clusters=[title for title, _ in self._known],
            hosted=self._friends.reception.hosted(),
            machine=platform.node()[: rows.NAME],
            cores=cores(),
            python=platform.python_version(),
            sandboxes=list(SANDBOXES),
        )
        return rows.row(means)

    def _can(self, cluster: Cluster | None) -> list[str]:
        """Return the actions that work now."""
        there = cluster if cluster is not None and cluster._core.joined and not cluster.closed else None
        shared = there is not None and there.shared
        elsewhere = there is not None and there.target is not None
        owned = [title for title, own in self._known if own]
        can = ["connect"]
        if cluster is not None:
            can.append("show")
        if there is not None:
            can += ["cancel", "halt", "again", "disconnect"]
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
        if states := lender().states():
            can += ["pause", "resume", "stop", "log", "welcome"]
        if any(state.question is not None for state in states):
            can.append("answer")
        return can

    async def _look(self) -> None:
        """Read the files of this user's clusters."""
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
    """Return the titles of the clusters of friends that this user knows, and which are their own. Blocks."""
    try:
        profiles = Profiles().all()
    except (P2PError, OSError):
        log.debug("the files of clusters can't be read", exc_info=True)
        return ()
    return tuple((profile.title, profile.hosting is not None) for profile in profiles[:MOST_CLUSTERS])
