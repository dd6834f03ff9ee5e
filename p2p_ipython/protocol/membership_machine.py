"""One process keeps up with the members of its cluster, and with the topic and the key that go with them. No I/O.

In a **personal** cluster there is one member, the holder of the key, and nothing to keep up with. In a **shared** one::

    hears a hello of a lower epoch ──a moment, unless another member does─► says its roster
    hears a hello of a higher epoch ─a moment, unless its roster comes────► says hello, so that the roster comes
    hears a newer roster of the owner's ──► installs it: cuts links to members who are out, may meet those who are in
                                        ──► its key isn't the roster's: asks for the new one, again and again
                                        ──► it isn't in it: revoked, for good
    hears the owner's grant ──────────────► moves to the new topic
    hears nobody, or its roster has ended ► asks on the lobby, where the owner's host listens, too
    hears others, but not the host ───────► asks there at long intervals: all of them may have been revoked

So nobody needs to be there all the time: every member who knows the newest roster hands it on. Only the owner's host
grants. A revoked member still has the old roster and the old key, and may keep members company on the old topic who
were away. Only the host's own word, said lately, shows that a topic is the right one.

Pure: ``now`` is any clock that doesn't go back, ``wall`` Unix time, both in seconds. ``random`` gives numbers from 0
to 1, so that not all members say the same thing at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from p2p_ipython.protocol.identity import CLOCK_SLACK, BadIdentity, Certificate, ClusterSecret
from p2p_ipython.protocol.messages import Ask, BadMessage, Grant, Hello, Message, RosterPart, decode_admission
from p2p_ipython.protocol.roster import Parts, Roster, commitment, owner_of, parts_of

PAUSE = (0.1, 0.04, 2.0)
"""Longest pause before a word that others may say as well, so that only a few say it: the first number, and the second
for each member, and never more than the third; seconds."""

SERVE_EVERY = (3.0, 0.1)
"""Seconds after a roster was handed on before this process hands it on again: the first number, and the second for each
of its parts."""

HELLO_EVERY = (1.0, 60.0)
"""Seconds between two hellos because others know more: the first pause, and the longest, to which it doubles."""

ASK_WITHIN = 0.3
ASK_EVERY = (3.0, 60.0)
"""Seconds between two asks for the key: the first pause, and the longest, to which it doubles."""

ALONE_AFTER = 5.0
"""Seconds without hearing a member after which the lobby is asked; up to twice that."""

LOBBY_EVERY = (60.0, 480.0)
"""Seconds between two decisions whether to visit the lobby: the first pause, and the longest; up to twice that. It
doubles with each visit of a process that is just alone. A visit is a log-in at the board, with a signature."""

HOST_WITHIN = 45.0
"""Seconds on a topic without a word of the host after which the lobby is asked, even if others are there."""

HOST_SILENCE = 600.0
"""The same, after a word of the host's or a visit; up to twice that after a visit."""

FRESH = 2 * CLOCK_SLACK
"""Seconds that a host's hello may be old, or ahead, by our clock: anybody on the topic can repeat older ones."""


@dataclass(frozen=True)
class Say:
    """Post a message on the cluster's topic."""

    message: Message


@dataclass(frozen=True)
class SayHello:
    """Say hello on the cluster's topic."""


@dataclass(frozen=True)
class Installed:
    """The roster is another one: keep it, and check whom it admits."""

    roster: Roster


@dataclass(frozen=True)
class Move:
    """The lines are on another topic, under another key."""

    secret: ClusterSecret


@dataclass(frozen=True)
class VisitLobby:
    """Ask on the lobby: nobody is heard where we are."""

    ask: Ask


@dataclass(frozen=True)
class Expelled:
    """The owner has revoked our membership."""

    why: str


Action = Say | SayHello | Installed | Move | VisitLobby | Expelled


class MembershipMachine:
    """A process's membership: gets what is heard, decides who is a member, returns what to do."""

    def __init__(
        self,
        *,
        secret: ClusterSecret,
        me: str,
        name: str,
        shared: bool,
        host: bool = False,
        roster: Roster | None = None,
        unseal: Callable[[bytes], bytes],
        random: Callable[[], float],
    ) -> None:
        """``me`` is our member's fingerprint, ``name`` our name for others; ``unseal`` opens a sealed box.

        ``host``: we are the owner's host, which has nobody to ask for a key, on the topic or on the lobby.
        """
        self.secret = secret
        self.roster = roster
        self.owner = owner_of(secret.cluster)
        self.shared = shared
        self.expelled = ""
        self._hosts = host
        self._me = me
        self._name = name
        self._unseal = unseal
        self._random = random
        self._parts = Parts()
        self._joined_at: float | None = None
        self._heard_somebody = False
        self._heard_another = False
        self._looked = False
        self._host_due = float("inf")
        self._granted_epoch = 0
        self._granted_secret = secret
        self._pieces = parts_of(roster) if roster is not None else []
        self._serve_at: float | None = None
        self._served = float("-inf")
        self._hello_at: float | None = None
        self._hello_pause = HELLO_EVERY[0]
        self._said_hello = float("-inf")
        self._ask_at: float | None = None
        self._ask_pause = ASK_EVERY[0]
        self._lobby_at: float | None = None
        self._lobby_pause = LOBBY_EVERY[0]

    # -- questions --

    @property
    def epoch(self) -> int:
        """The epoch of the roster that we have; 0: none."""
        return self.roster.epoch if self.roster is not None else 0

    def admits(self, certificate: Certificate, wall: float) -> bool:
        """Return whether a session is a member's, and has a role that the member may have."""
        if not self.shared:
            return certificate.signer == self.owner and certificate.role != "host"
        if certificate.signer == self.owner and certificate.role == "host":
            return True
        return self.roster is not None and self.roster.admits(certificate, wall)

    def name_of(self, signer: str) -> str:
        """Return the roster's name of a member; "" in personal clusters, and for others than members."""
        member = self.roster.member(signer) if self.roster is not None else None
        return member.name if member is not None else ""

    def lacks_key(self) -> bool:
        """Return whether the topic that we are on is neither our roster's nor that of a newer one."""
        return self.roster is not None and self._granted_epoch <= self.epoch and not self._is_rosters(self.secret)

    def trouble(self, wall: float) -> str:
        """Say what keeps us from the cluster; "" for nothing."""
        owner = self.roster.members[0].name if self.roster is not None else "the owner"
        if self.expelled:
            return self.expelled
        if not self.shared:
            return ""
        if self.roster is None:
            return "waiting for somebody who has the list of members"
        if self.roster.member(self._me) is None:
            return f"no longer in {self.roster.title}, by the list of members of this machine; asking {owner}"
        if wall > self.roster.until:
            return f"the list of members has ended; waiting for {owner} to host it again"
        if self.lacks_key():
            return f"waiting for {owner}'s host to give the new key"
        return ""

    # -- events --

    def joined(self, now: float) -> list[Action]:
        """Begin on the topic, for the first time or again."""
        self._said_hello = now
        if not self.shared or self.expelled:
            return [SayHello()]
        if self._joined_at is None:
            self._arrive(now)
        if self.lacks_key():
            self._ask_soon(now)
        return [SayHello()]

    def heard(
        self, certificate: Certificate, message: Message, now: float, wall: float, *, admitted: bool
    ) -> list[Action]:
        """Take an authentic message of a session of this cluster, ``admitted`` or not."""
        if not self.shared or self.expelled:
            return []
        if admitted:
            self._heard_somebody = True
            self._heard_another = self._heard_another or certificate.signer != self._me
        match message:
            case Hello(epoch=epoch) if epoch < self.epoch:
                if self._serve_at is None:
                    every = SERVE_EVERY[0] + SERVE_EVERY[1] * len(self._pieces)
                    self._serve_at = max(now + self._pause(), self._served + every)
            case Hello(epoch=epoch) if epoch > self.epoch:
                if self._hello_at is None:
                    self._hello_at = max(now + self._pause(), self._said_hello + self._hello_pause)
            case Hello(time=time) if self._is_host(certificate) and abs(time - wall) <= FRESH:
                self._host_due = now + HOST_SILENCE
            case RosterPart(epoch=epoch, part=part) if epoch == self.epoch:
                # Another member was quicker. Only a member's word counts for that, and only with parts of our roster.
                if admitted and part < len(self._pieces) and message == self._pieces[part]:
                    self._serve_at, self._served = None, now
            case RosterPart(epoch=epoch) if epoch > self.epoch:
                if self._is_host(certificate):
                    self._hello_at = None  # the roster is on its way; others may only claim that
                wire = self._parts.add(certificate.sid, message, admitted=admitted)
                if wire is not None:
                    return self._read(wire, now)
            case Grant():
                return self._granted(certificate, message)
            case _:
                pass
        return self.tick(now, wall)

    def granted(self, certificate: Certificate, grant: Grant) -> list[Action]:
        """Take a grant to us that was heard on the lobby."""
        return self._granted(certificate, grant)

    def install(self, roster: Roster, now: float) -> list[Action]:
        """Install a roster that came by another way: an invitation, or the owner's own files."""
        return self._install(roster, now) if roster.epoch > self.epoch and not self.expelled else []

    def moved(self, secret: ClusterSecret, now: float) -> list[Action]:
        """Begin on another topic, under another key."""
        self.secret = secret
        self._ask_at, self._hello_at = None, None
        self._arrive(now)
        self._said_hello = now
        if self._granted_epoch > self.epoch and self._granted_secret != secret and not self._is_rosters(secret):
            return [Move(self._granted_secret)]  # granted while we were on the way
        if self.lacks_key():
            self._ask_soon(now)
        return [SayHello()]

    def deadline(self) -> float | None:
        """Return when ``tick`` is due."""
        times = [t for t in (self._serve_at, self._hello_at, self._ask_at, self._lobby_at) if t is not None]
        return min(times, default=None)

    def tick(self, now: float, wall: float) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        if self._serve_at is not None and now >= self._serve_at:
            self._serve_at, self._served = None, now
            if self.roster is not None:
                actions += [Say(part) for part in self._pieces]
        if self._hello_at is not None and now >= self._hello_at:
            self._hello_at, self._said_hello = None, now
            self._hello_pause = min(2 * self._hello_pause, HELLO_EVERY[1])
            actions.append(SayHello())
        if self._ask_at is not None and now >= self._ask_at:
            self._ask_at = now + self._ask_pause
            self._ask_pause = min(2 * self._ask_pause, ASK_EVERY[1])
            actions.append(Say(Ask(self._name, self.epoch)))
        if self._lobby_at is not None and now >= self._lobby_at:
            # Alone, without a roster that counts, or on a topic that the others have left: the owner's host may know.
            self._lobby_at = now + self._lobby_pause * (1 + self._random())
            # Other processes of ours may have been away as long as we have: at first they are no company.
            alone = not self._heard_somebody or not (self._looked or self._heard_another)
            troubled = bool(self.trouble(wall))
            if alone or troubled or now >= self._host_due:
                self._host_due = now + HOST_SILENCE * (1 + self._random())
                self._lobby_pause = LOBBY_EVERY[0] if troubled else min(2 * self._lobby_pause, LOBBY_EVERY[1])
                actions.append(VisitLobby(Ask(self._name, self.epoch)))
            self._lobby_at = min(self._lobby_at, self._host_due)
            self._heard_somebody, self._looked = False, True
        return actions

    # -- inside --

    def _read(self, wire: bytes, now: float) -> list[Action]:
        try:
            roster = Roster.parse(wire, self.secret.cluster)
        except BadIdentity:
            return []
        if self.roster is None and roster.member(self._me) is None:
            return []  # older than our admission: the sender was away then, and will get the newer roster, too
        return self._install(roster, now) if roster.epoch > self.epoch else []

    def _install(self, roster: Roster, now: float) -> list[Action]:
        self.roster = roster
        self._pieces = parts_of(roster)
        self._serve_at = None
        self._hello_at, self._hello_pause = None, HELLO_EVERY[0]
        if roster.member(self._me) is None:
            self.expelled = f"{roster.members[0].name} has revoked your membership of {roster.title}"
            self._hello_at = self._ask_at = self._lobby_at = None
            return [Installed(roster), Expelled(self.expelled)]
        if self.lacks_key():
            self._ask_soon(now)  # and say hello where the others will be
        else:
            self._ask_at = None
            # A new member has to hear us; a crowd takes its time.
            self._hello_at = now + self._pause()
        return [Installed(roster)]

    def _granted(self, certificate: Certificate, grant: Grant) -> list[Action]:
        """Take the owner's word for the topic and the key; if we lack the newest roster, it follows there."""
        if not self._is_host(certificate) or self.expelled:
            return []
        if grant.epoch < max(self.epoch, self._granted_epoch):
            return []  # from before the key was changed; somebody repeats it to have us back there
        try:
            admission = decode_admission(self._unseal(grant.box))
        except (BadIdentity, BadMessage):
            return []  # for somebody else, or nonsense
        secret = ClusterSecret(admission.cluster, admission.topic, admission.key)
        if secret.cluster != self.secret.cluster or (self.epoch == grant.epoch and not self._is_rosters(secret)):
            return []
        self._granted_epoch, self._granted_secret = grant.epoch, secret
        if secret == self.secret:
            self._ask_at = None
            return []
        return [Move(secret)]

    def _is_host(self, certificate: Certificate) -> bool:
        return certificate.role == "host" and certificate.signer == self.owner

    def _is_rosters(self, secret: ClusterSecret) -> bool:
        return self.roster is not None and commitment(secret) == self.roster.secret

    def _arrive(self, now: float) -> None:
        self._joined_at, self._heard_somebody = now, False
        self._heard_another = self._looked = False
        self._lobby_at = None if self._hosts else now + ALONE_AFTER * (1 + self._random())
        self._lobby_pause = LOBBY_EVERY[0]
        self._host_due = now + HOST_WITHIN

    def _pause(self) -> float:
        least, each, most = PAUSE
        members = len(self.roster.members) if self.roster is not None else 0
        return self._random() * min(most, least + each * members)

    def _ask_soon(self, now: float) -> None:
        if not self._hosts:
            self._ask_at = now + self._random() * ASK_WITHIN
            self._ask_pause = ASK_EVERY[0]
