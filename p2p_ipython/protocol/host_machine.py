"""The answers of the owner's host to sessions that ask to be admitted. No I/O.

::

    ask of a member ────────────────────────► grant: topic and key, sealed to the member's session
    ask of a guest who was refused ─────────► answer "no"
    ask of another guest, on the lobby ─────► answer "waiting"; the owner is asked once, and decides:
                                                approve: the guest is in the next roster, and gets a grant
                                                refuse:  answer "no"
    ask of a member with a newer roster ────► the owner is warned: the cluster was changed elsewhere; no grant
    hello of an older roster, on a topic ───► the roster: for members who missed it
      that the cluster has left

The answers in a second are bounded, to all guests together and to one member. The roster itself is changed elsewhere
(it is a file of the owner's that several of the owner's processes may change); ``changed`` tells the machine.
Pure: ``now`` is any clock that doesn't go back, seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from p2p_ipython.protocol.identity import Certificate, ClusterSecret, seal
from p2p_ipython.protocol.membership_machine import SERVE_EVERY
from p2p_ipython.protocol.messages import Admission, Answer, Ask, Grant, Hello, Message, Reply, encode_admission
from p2p_ipython.protocol.roster import Roster, is_name, lobby_secret, parts_of

MAX_KNOCKS = 50
"""Guests who may wait for the owner's answer; others are not remembered, and may knock again later."""

MAX_SESSIONS = 8
"""Sessions of one guest that get the answer."""

ANSWER_EVERY = 1.0
"""Seconds between two answers to one session."""

MOST_ANSWERS = 20
"""Answers in a second to one member, and to all guests together. A session that gets none asks again."""

KNOCK_LIFE = 1800.0
"""Seconds after the last ask for which a guest counts as waiting: more than the longest pause between two asks."""


@dataclass(frozen=True)
class Knock:
    """A guest who asks to be a member: the guest's own name, and the fingerprint of the key."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Say:
    """Post a message on a topic."""

    topic: str
    message: Message


@dataclass(frozen=True)
class Tell:
    """Ask the owner about a guest who knocks."""

    knock: Knock


@dataclass(frozen=True)
class Outdated:
    """Warn the owner: a member claims the roster of a higher ``epoch``, so this host may have an old profile.

    Said once. Nothing proves it: a member can claim any epoch.
    """

    epoch: int


Action = Say | Tell | Outdated


@dataclass
class _Waiting:
    knock: Knock
    last: float
    sessions: dict[bytes, tuple[Certificate, str]]


class HostMachine:
    """The answers of one host, in the order of events."""

    def __init__(
        self, *, roster: Roster, secret: ClusterSecret, seal: Callable[[Certificate, bytes], bytes] = seal
    ) -> None:
        self.roster = roster
        self.secret = secret
        self._seal = seal
        self._lobby = lobby_secret(roster.title).topic
        self._waiting: dict[str, _Waiting] = {}
        self._refused: set[str] = set()
        self._answered: dict[bytes, float] = {}  # in the order of time
        self._second = (0, Counter[str]())  # the second, and the answers in it by member
        self._told_outdated = False
        self._published: dict[str, float] = {}

    @property
    def knocks(self) -> tuple[Knock, ...]:
        """The guests who wait for the owner, the first first."""
        return tuple(waiting.knock for waiting in self._waiting.values())

    def asked(self, certificate: Certificate, ask: Ask, topic: str, now: float) -> list[Action]:
        """Answer a session that asks to be admitted."""
        sid, signer = certificate.sid, certificate.signer
        if sid in self._answered and now < self._answered[sid] + ANSWER_EVERY:
            return []
        is_member = self._is_member(certificate)
        if not self._take(signer if is_member else "", now):
            return []
        while self._answered and now >= self._answered[oldest := next(iter(self._answered))] + ANSWER_EVERY:
            del self._answered[oldest]
        self._answered[sid] = now
        if is_member and ask.epoch > self.roster.epoch:
            first, self._told_outdated = not self._told_outdated, True
            return [Outdated(ask.epoch)] if first else []
        if is_member:
            return [self._grant(certificate, topic)]
        if signer in self._refused:
            return [Say(topic, Answer(sid, Reply.NO))]
        if topic != self._lobby or not is_name(ask.name):
            # A revoked member, who still has the old key. Or a name that would pass for something else, as
            # "bob (expected)" does: the owner reads it, and may copy it into a command.
            return []
        self._waiting = {key: one for key, one in self._waiting.items() if now < one.last + KNOCK_LIFE}
        waiting = self._waiting.get(signer)
        actions: list[Action] = []
        if waiting is None:
            if len(self._waiting) >= MAX_KNOCKS:
                return []
            waiting = self._waiting[signer] = _Waiting(Knock(ask.name, signer), now, {})
            actions.append(Tell(waiting.knock))
        waiting.last = now
        if sid in waiting.sessions or len(waiting.sessions) < MAX_SESSIONS:
            waiting.sessions[sid] = (certificate, topic)
        return [*actions, Say(topic, Answer(sid, Reply.WAITING))]

    def greeted(self, hello: Hello, topic: str, now: float) -> list[Action]:
        """Answer a hello on a ``topic`` that the cluster has left: say the roster, if the sender has an older one."""
        parts = parts_of(self.roster)
        every = SERVE_EVERY[0] + SERVE_EVERY[1] * len(parts)
        if hello.epoch >= self.roster.epoch or now < self._published.get(topic, float("-inf")) + every:
            return []
        self._published[topic] = now
        return [Say(topic, part) for part in parts]

    def changed(self, roster: Roster, secret: ClusterSecret) -> list[Action]:
        """Take another roster, perhaps with another topic and key; grant them to guests who waited and are in it."""
        self.roster, self.secret = roster, secret
        self._told_outdated = False
        actions: list[Action] = []
        for signer in list(self._waiting):
            if roster.member(signer) is not None:
                sessions = self._waiting.pop(signer).sessions
                actions += [self._grant(certificate, topic) for certificate, topic in sessions.values()]
        self._refused = {signer for signer in self._refused if roster.member(signer) is None}
        return actions

    def refuse(self, signer: str) -> list[Action]:
        """Refuse the guest with the key ``signer``, as long as this host runs."""
        self._refused.add(signer)
        waiting = self._waiting.pop(signer, None)
        if waiting is None:
            return []
        return [Say(topic, Answer(sid, Reply.NO)) for sid, (_, topic) in waiting.sessions.items()]

    def _take(self, who: str, now: float) -> bool:
        """Return whether ``who`` ("": all guests) gets one more answer in this second."""
        second, taken = self._second
        if int(now) != second:
            taken = Counter[str]()
            self._second = (int(now), taken)
        taken[who] += 1
        return taken[who] <= MOST_ANSWERS

    def _is_member(self, certificate: Certificate) -> bool:
        return self.roster.member(certificate.signer) is not None

    def _grant(self, certificate: Certificate, topic: str) -> Say:
        admission = Admission(self.secret.cluster, self.secret.topic, self.secret.key)
        box = self._seal(certificate, encode_admission(admission))
        return Say(topic, Grant(certificate.sid, self.roster.epoch, box))
