"""Changes, for those who watch: collected from the moment they look until they look again.

``Feed`` is told of each change; a ``Follower`` keeps the names of what changed, each once however often it did, so
that what is kept is bounded by what there is. It is woken once, by the first change since it looked last; how soon it
looks is its own business. Without followers a change costs next to nothing.

All belongs to the thread of the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """The things to look at again.

    ``tasks`` are ids in ``Journal.entries``, those that aren't there any more included; ``sessions`` are sids: of
    workers (links, offers, what they do) and of others who came or went. ``facts``: what holds of the cluster as a
    whole (``Cluster.facts()``, ``Cluster.reasons()``, its members, the journal's counts). ``groups`` are ids of
    ``Groups``, those that aren't shown any more included.
    """

    tasks: frozenset[str]
    sessions: frozenset[bytes]
    facts: bool
    groups: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.tasks or self.sessions or self.facts or self.groups)


class Follower:
    """Somebody who wants to know. ``wake`` is called on the loop's thread at the first change since ``take``."""

    def __init__(self, feed: Feed, wake: Callable[[], None]) -> None:
        self._feed = feed
        self._wake = wake
        self._awake = False
        self.tasks: set[str] = set()
        self.sessions: set[bytes] = set()
        self.groups: set[str] = set()
        self.facts = False

    def take(self) -> Changes:
        """Return what has changed since the last time. The next change wakes again."""
        changes = Changes(frozenset(self.tasks), frozenset(self.sessions), self.facts, frozenset(self.groups))
        self.tasks, self.sessions, self.facts, self._awake = set(), set(), False, False
        self.groups = set()
        return changes

    def close(self) -> None:
        """Follow no more. Idempotent."""
        self._feed.leave(self)

    def woken(self) -> None:
        """For the feed: there is something to take."""
        if self._awake:
            return
        self._awake = True
        try:
            self._wake()
        except Exception:  # who watches must not decide over what is watched
            log.exception("could not tell a follower")


class Feed:
    """Tells followers what changes."""

    def __init__(self) -> None:
        self.followers: tuple[Follower, ...] = ()

    def follow(self, wake: Callable[[], None]) -> Follower:
        """Begin to collect changes for somebody. ``wake`` must be cheap and must not block."""
        follower = Follower(self, wake)
        self.followers = (*self.followers, follower)
        return follower

    def leave(self, follower: Follower) -> None:
        """For ``Follower.close``."""
        self.followers = tuple(one for one in self.followers if one is not follower)

    def task(self, task_id: str) -> None:
        """Note that a task has changed."""
        for follower in self.followers:
            follower.tasks.add(task_id)
            if not follower._awake:
                follower.woken()

    def session(self, sid: bytes) -> None:
        """Note that a worker, or another session, has changed."""
        for follower in self.followers:
            follower.sessions.add(sid)
            if not follower._awake:
                follower.woken()

    def group(self, id: str) -> None:
        """Note that a group of tasks has changed."""
        for follower in self.followers:
            follower.groups.add(id)
            if not follower._awake:
                follower.woken()

    def facts(self) -> None:
        """Note that the cluster as a whole has changed."""
        for follower in self.followers:
            follower.facts = True
            if not follower._awake:
                follower.woken()
