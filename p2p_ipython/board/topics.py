"""The topics of a board, purely: who is on which one, who may be, and who reads what.

Sessions join topics, publish chunks of bytes and leave; the answers are values that say what to do
(``Deliver``, ``Ready``, ``Cut``). ``server/`` does it over SSH, ``rehearsal/board.py`` within a process. The rules are
those of pico's ``pipe`` service, with one wanted difference: an access list is enforced.

* A topic belongs to a user: ``x`` and ``alice/x`` are one topic for alice, ``alice/x/x`` for nobody.
* Somebody else's ``alice/x`` is alice's topic if alice's access list has the asker's name or key, and otherwise a
  private *shadow* topic, ``bob/alice/x``: the asker is told nothing, and hears nothing.
* An access list is stored by the first session that names a topic, even an empty list, and ends with that session.
* ``public/x`` (a wish with ``public``) is one topic for everybody, and nobody can close it to newcomers while somebody
  is on it.
* Once a session has left a topic that has no publisher and at most one pipe, the sessions that are left there are cut.

``*`` in one's own topic reads (and writes) all of one's own topics that match it, segment by segment. It does not
work for the user ``public``, whose topics are as secret as their names.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

PUBLIC = "public"
MAX_TOPIC = 256
"""Longest topic, characters, with its user."""


class Direction(enum.Enum):
    """The use that a session makes of its topic; the value is its heading in a listing."""

    PUB = "Pubs"
    SUB = "Subs"
    PIPE = "Pipes"


class Dispatch(enum.Enum):
    """The readers that get a chunk: all, or one of them in turn. The first session of a topic decides."""

    MULTICAST = "multicast"
    ROUND_ROBIN = "round_robin"


class Denied(Exception):
    """The session may not join; the text is what it is told."""


@dataclass(frozen=True)
class Join:
    """A session's wish to join a topic.

    ``session`` is unique, ``label`` is what a listing shows of it. ``fresh`` is a topic nobody knows, for a public
    topic that is not open to the asker.
    """

    session: str
    label: str
    user: str
    fingerprint: str
    direction: Direction
    topic: str
    access: tuple[str, ...] = ()
    public: bool = False
    replay: bool = False
    keep: bool = False
    dispatch: Dispatch = Dispatch.MULTICAST
    fresh: str = ""


@dataclass(frozen=True)
class Deliver:
    """Write ``data``, which came on ``topic``, to each session in ``to`` except ``but``."""

    topic: str
    to: tuple[str, ...]
    data: bytes
    but: str | None


@dataclass(frozen=True)
class Ready:
    """These waiting publishers have a reader now."""

    sessions: tuple[str, ...]


@dataclass(frozen=True)
class Cut:
    """End these sessions, without an exit status."""

    sessions: tuple[str, ...]


Action = Deliver | Ready | Cut


@dataclass(frozen=True)
class Listed:
    """A topic in a listing: the labels of its sessions by heading, in the order of the headings."""

    topic: str
    access: tuple[str, ...]
    sessions: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass
class _Topic:
    dispatch: Dispatch
    sessions: dict[str, Join] = field(default_factory=dict)
    readers: tuple[str, ...] = ()
    turn: int = 0

    def changed(self) -> None:
        self.readers = tuple(s for s, j in self.sessions.items() if j.direction is not Direction.PUB)


@dataclass(frozen=True)
class _Access:
    allowed: tuple[str, ...]
    creator: str


class Topics:
    """All topics of a board. Not thread-safe; raises ``KeyError`` for a session it doesn't know."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}
        self._access: dict[str, _Access] = {}
        self._where: dict[str, str] = {}
        self._waiting: dict[str, tuple[str, Join]] = {}
        self._stored: dict[str, str] = {}
        self._patterns: set[str] = set()

    def resolve(self, join: Join) -> str:
        """Find the topic that a session gets, and store its access list. ``leave`` undoes this, too.

        Raises ``Denied`` where the session may not even have a topic of its own.
        """
        if len(join.topic) + len(join.user) >= MAX_TOPIC:
            raise Denied("topic too long")
        own = _scoped(PUBLIC if join.public else join.user, join.topic)
        if own not in self._access:
            # Anybody may know a lobby's name. A session that comes late must not decide who else may join.
            void = join.public and own in self._topics and not self._may_close_public
            self._access[own] = _Access(() if void else join.access, join.session)
            self._stored[join.session] = own
        asked = own if join.public else join.topic
        entry = self._access.get(asked)
        if entry is None or not entry.allowed:
            return own
        listed = join.user in entry.allowed or join.fingerprint in entry.allowed
        if listed or self._admits_unlisted(join, own, entry.creator):
            return asked
        if not join.public:
            return own
        if join.direction is Direction.SUB:
            self._forget_access(join.session)
            raise Denied("access denied")
        return _scoped(PUBLIC, join.fresh)

    def has_readers(self, name: str) -> bool:
        """Return whether somebody would read what is published on ``name``."""
        return any(self._topics[other].readers for other in self._connected(name))

    def wait(self, join: Join, name: str) -> None:
        """Let a publisher wait for a reader; ``Ready`` names it when one joins."""
        self._waiting[join.session] = (name, join)

    def join(self, join: Join, name: str) -> list[Action]:
        """Put a session on the topic that ``resolve`` found for it."""
        self._waiting.pop(join.session, None)
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = _Topic(join.dispatch)
            if "*" in name and name.startswith(f"{join.user}/") and join.user != PUBLIC:
                self._patterns.add(name)
        topic.sessions[join.session] = join
        topic.changed()
        self._where[join.session] = name
        if join.direction is Direction.PUB:
            return []
        ready = tuple(s for s, (wanted, _) in self._waiting.items() if name in self._connected(wanted))
        return [Ready(ready)] if ready else []

    def publish(self, session: str, data: bytes) -> list[Action]:
        """Say who reads a chunk. A session that isn't on a topic publishes to nobody."""
        name = self._where.get(session)
        if name is None:
            return []
        origin = self._topics[name].sessions[session]
        but = None if origin.replay else session
        actions: list[Action] = []
        for other in self._connected(name):
            topic = self._topics[other]
            to = topic.readers
            if topic.dispatch is Dispatch.ROUND_ROBIN:
                to = tuple(s for s in to if s != but)
                if to:
                    to = (to[topic.turn % len(to)],)
                    topic.turn += 1
            if to:
                actions.append(Deliver(name, to, data, but))
        return actions

    def leave(self, session: str) -> list[Action]:
        """Take a session off its topic, if it is on one, and its access list with it."""
        self._waiting.pop(session, None)
        self._forget_access(session)
        name = self._where.pop(session, None)
        if name is None:
            return []
        topic = self._topics[name]
        del topic.sessions[session]
        topic.changed()
        if not topic.sessions:
            del self._topics[name]
            self._patterns.discard(name)
            return []
        directions = [j.direction for j in topic.sessions.values()]
        if directions.count(Direction.PUB) == 0 and directions.count(Direction.PIPE) <= 1:
            left = tuple(s for s, j in topic.sessions.items() if not j.keep)
            return [Cut(left)] if left else []
        return []

    def listing(self, user: str) -> list[Listed]:
        """List a user's own topics, with those that only have waiting publishers at the end."""
        own = f"{user}/"
        listed = []
        for name, topic in self._topics.items():
            if name.startswith(own):
                sessions = topic.sessions.values()
                groups = ((d.value, tuple(j.label for j in sessions if j.direction is d)) for d in Direction)
                listed.append(Listed(name, self._allowed(name), tuple((head, who) for head, who in groups if who)))
        waiting: dict[str, list[str]] = {}
        for name, join in self._waiting.values():
            if name.startswith(own):
                waiting.setdefault(name, []).append(join.label)
        listed += [Listed(n, self._allowed(n), (("Waiting Pubs", tuple(labels)),)) for n, labels in waiting.items()]
        return listed

    _may_close_public = False
    """Whether an access list holds that comes when others are on the public topic already."""

    def _admits_unlisted(self, join: Join, own: str, creator: str) -> bool:
        """Return whether a session is admitted that is not on the list of the session ``creator``."""
        return creator == join.session

    def _allowed(self, name: str) -> tuple[str, ...]:
        access = self._access.get(name)
        return access.allowed if access else ()

    def _forget_access(self, session: str) -> None:
        own = self._stored.pop(session, None)
        if own is not None:
            del self._access[own]

    def _connected(self, name: str) -> list[str]:
        """Return the topics that hear what is said on ``name``: itself, and by pattern, in either direction."""
        if name in self._patterns:
            return [other for other in self._topics if other == name or _matches(name, other)]
        found = [name] if name in self._topics else []
        if self._patterns:
            found += [pattern for pattern in self._patterns if _matches(pattern, name)]
        return found


def _scoped(user: str, topic: str) -> str:
    return topic if topic.startswith(f"{user}/") else f"{user}/{topic}"


def _matches(pattern: str, name: str) -> bool:
    patterns, names = pattern.split("/"), name.split("/")
    return len(patterns) == len(names) and all(fnmatchcase(n, p) for n, p in zip(names, patterns, strict=True))
