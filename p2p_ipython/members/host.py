"""The owner's host: it admits guests, and hands the newest roster to every member.

The host is a member with the role ``host``. On the working topic it says hello and hands the roster on. On the lobby
it hears guests who knock, and members who were away when the key was changed. On a topic that the cluster has left it
waits for members who haven't yet heard of the new one. Members don't need the host in order to work together.

The cluster's state is the owner's profile on disk. The owner's other processes (``p2p invite``, ``p2p revoke``) may
change it; the host polls it.

All belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

from p2p_ipython.board.base import Board, BoardReport
from p2p_ipython.errors import NoKey, P2PError
from p2p_ipython.jobs import Jobs
from p2p_ipython.members.access import Access
from p2p_ipython.members.membership import RENEW_AGAIN, Membership
from p2p_ipython.members.owner import admit, free_name, roster_of
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.members.roll_call import RollCall
from p2p_ipython.members.voice import Voice, leave
from p2p_ipython.protocol.host_machine import Action, HostMachine, Knock, Outdated, Say, Tell
from p2p_ipython.protocol.identity import Certificate, ClusterSecret, Session
from p2p_ipython.protocol.messages import Ask, Bye, Hello, Message
from p2p_ipython.protocol.roster import Member, lobby_secret, parts_of
from p2p_ipython.protocol.tracing import traced
from p2p_ipython.protocol.wire import Heard
from p2p_ipython.tracing import trace_file

log = logging.getLogger(__name__)

LOOK_EVERY = 0.5
"""Seconds between two looks at the profile."""

LINGER = 600.0
"""Seconds that a host stays on a topic that the cluster has left. Members who come later ask on the lobby."""

STAY_AGAIN = 5.0
"""Seconds between two tries to stay on such a topic, while the board is away."""


class Host:
    """A cluster's host, on the board after ``open``.

    ``on_knock`` is called once for each guest who asks to be admitted; ``on_members`` with the names of the members
    who have come in, and of those who are out.
    """

    def __init__(
        self,
        access: Access,
        profile: Profile,
        profiles: Profiles,
        *,
        on_knock: Callable[[Knock], None] = lambda _knock: None,
        on_members: Callable[[frozenset[str], frozenset[str]], None] = lambda _come, _gone: None,
    ) -> None:
        self.profile = profile
        self.roll_call = RollCall(3 * access.settings.presence)
        self._access = access
        self._profiles = profiles
        self._on_knock = on_knock
        self._on_members = on_members
        self._loop = asyncio.get_running_loop()
        self._jobs = Jobs(log)
        self.machine = HostMachine(roster=roster_of(profile), secret=_secret(profile))
        if (trace := trace_file()) is not None:
            traced(self.machine, "host", b"", trace.write)
        self._membership: Membership | None = None
        self._voices: dict[str, Voice] = {}  # of the lobby, and of topics that we linger on
        # The profile was read a while ago; the first look finds what has changed since.
        self._seen: tuple[int, ...] | None = ()
        self._refreshing = asyncio.Lock()
        self._lobby_session: Session
        self._hello_at = 0.0
        self._closed = False

    async def open(self) -> None:
        """Go to the working topic and to the lobby. Raises a ``BoardError`` or ``NoKey``."""
        self._membership = membership = self._access.membership(await asyncio.to_thread(self._access.session, "host"))
        membership.speaker = self
        self._lobby_session = await asyncio.to_thread(self._new_lobby_session)
        title = self.profile.title
        lobby = Voice(
            self._lobby_session,
            lobby_secret(title),
            admit=lambda certificate: certificate.role != "host",
            heard=self._heard_on_lobby,
            clusters=frozenset({title, self.profile.cluster}),
        )
        self._voices[lobby.secret.topic] = lobby
        await asyncio.gather(membership.join(), lobby.open(self._access.open_board))
        membership.begin()
        self._publish(membership.machine.secret.topic)
        self._jobs.start(self._look())

    async def close(self) -> None:
        """Leave all topics. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._jobs.end()
        if self._membership is not None:
            await self._membership.close(Bye())
        await leave(*self._voices.values())

    # -- what the owner decides; each blocks on the disk and the key, so in a thread --

    def approve(self, knock: Knock, name: str | None = None) -> Member:
        """Admit a guest who knocks, as ``name`` (default: the guest's own name, if no member has it).

        Raises ``ConfigError`` and ``NoKey``. The host notifies the guest by itself.
        """

        def edit(profile: Profile) -> Profile:
            return admit(profile, self._access.key, name or free_name(profile, knock.name), knock.fingerprint)

        member = roster_of(self._profiles.revise(self.profile.title, edit)).member(knock.fingerprint)
        assert member is not None
        return member

    def refuse(self, knock: Knock) -> None:
        """Refuse a guest as long as this host runs. On the loop."""
        self._act(self.machine.refuse(knock.fingerprint))

    async def refresh(self) -> None:
        """Read the profile now, and act on what has changed."""
        async with self._refreshing:  # or the older of two readings might be adopted last
            stamp = await asyncio.to_thread(self._profiles.stamp, self.profile.title)
            if stamp == self._seen:
                return
            profile = await asyncio.to_thread(self._profiles.load, self.profile.title)
            self._seen = stamp
            if profile == self.profile:
                return
            old, self.profile = self.profile, profile
            roster, secret = roster_of(profile), _secret(profile)
            if roster.epoch <= self.machine.roster.epoch:
                return
            before = frozenset(member.name for member in self.machine.roster.members)
            self._member().adopt(roster, secret)
            self._act(self.machine.changed(roster, secret))
        now = frozenset(member.name for member in roster.members)
        if now != before:
            self._on_members(now - before, before - now)
        if secret != _secret(old):
            try:
                await self._stay_behind(_secret(old))
            except P2PError as error:  # the board may be away just now; members ask on the lobby, too
                log.warning("members on the cluster's old topic will hear later of the new one: %s", error.message)
                if not self._closed:
                    self._jobs.start(self._stay_behind_later(_secret(old)))
        self._publish(old.topic)

    @property
    def board(self) -> Board:
        """The session with the board; after ``open``."""
        board = self._member().board
        assert board is not None
        return board

    async def listen(self, seconds: float) -> None:
        """Listen for members: workers answer a hello at once, clients say hello once in each period."""
        await asyncio.sleep(seconds)

    async def settled(self, seconds: float) -> tuple[int, int]:
        """Wait, ``seconds`` at most, until the members' sessions have followed to a new topic.

        Returns how many have, and how many of those that were heard on the old one have not.
        """
        return await self.roll_call.settled(
            self.profile.topic, lambda signer: self.machine.roster.member(signer) is not None, seconds
        )

    # -- Speaker --

    def hello(self) -> Hello:
        """Return what the host says of itself."""
        return Hello(name=self._access.standing.name, time=int(time.time()))

    def heard(self, certificate: Certificate, message: Message) -> None:
        """Handle a member's message on the working topic."""
        now = self._loop.time()
        match message:
            case Hello(name=name):
                member = self._member().machine.name_of(certificate.signer)
                topic = self._member().machine.secret.topic
                if self.roll_call.hello(certificate, name, member, topic, now):  # a newcomer waits to hear a member
                    self._hello_at = now
            case Bye():
                self.roll_call.bye(certificate)
            case Ask():
                topic = self._member().machine.secret.topic
                self._act(self.machine.asked(certificate, message, topic, now))
            case _:
                pass
        self.roll_call.forget(now)

    def board_changed(self, report: BoardReport) -> None:
        """Do nothing: the host waits until the board is back."""

    def members_changed(self) -> None:
        """Do nothing: the host has no links to cut."""

    def expelled(self, why: str) -> None:
        """Do nothing: an owner can't be revoked."""

    # -- inside --

    def _member(self) -> Membership:
        assert self._membership is not None, "open() comes first"
        return self._membership

    def _new_lobby_session(self) -> Session:
        """Sign a certificate for the cluster's title: a guest who knocks knows only that."""
        key = self._access.key.key
        return Session(key, cluster=self.profile.title, role="host", now=time.time(), random=os.urandom)

    def _heard_on_lobby(self, heard: Heard) -> None:
        if isinstance(heard.message, Ask) and heard.certificate.role != "host":
            lobby = lobby_secret(self.profile.title).topic
            self._act(self.machine.asked(heard.certificate, heard.message, lobby, self._loop.time()))

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Say(topic=topic, message=message):
                    self._say(topic, message)
                case Tell(knock=knock):
                    self._on_knock(knock)
                case Outdated(epoch=epoch):
                    self._jobs.start(self._catch_up(epoch))

    async def _catch_up(self, epoch: int) -> None:
        """Look for the roster of ``epoch``, which a member has: the owner may have made it a moment ago."""
        await self.refresh()
        if self.machine.roster.epoch < epoch:
            log.warning(
                "a member has epoch %d of the roster of %s, and this host only epoch %d: is it hosted elsewhere, too?",
                epoch,
                self.profile.title,
                self.machine.roster.epoch,
            )

    def _say(self, topic: str, message: Message) -> None:
        voice = self._voices.get(topic)
        if voice is not None:
            voice.say(message)
        else:
            self._member().say(message)

    def _publish(self, topic: str) -> None:
        """Say the roster on a topic where we are or linger."""
        for part in parts_of(self.machine.roster):
            self._say(topic, part)

    async def _stay_behind(self, secret: ClusterSecret) -> None:
        """Linger on a topic that the cluster leaves, for members who ask for the new one."""
        membership = self._member()

        def heard(heard: Heard) -> None:
            now = self._loop.time()
            match heard.message:
                case Ask() as ask if heard.admitted:
                    self._act(self.machine.asked(heard.certificate, ask, secret.topic, now))
                case Hello() as hello:
                    self._act(self.machine.greeted(hello, secret.topic, now))
                case _:
                    pass

        voice = Voice(membership.session, secret, admit=membership.admits, heard=heard)
        await voice.open(self._access.open_board)
        if self._closed:
            await voice.close()
            return
        self._voices[secret.topic] = voice
        self._jobs.start(self._leave_later(secret.topic))

    async def _stay_behind_later(self, secret: ClusterSecret) -> None:
        """Linger as ``_stay_behind`` does, once the board is there again."""
        end = self._loop.time() + LINGER
        while self._loop.time() < end:
            await asyncio.sleep(STAY_AGAIN)
            try:
                await self._stay_behind(secret)
            except P2PError:
                continue
            self._publish(secret.topic)
            return

    async def _leave_later(self, topic: str) -> None:
        await asyncio.sleep(LINGER)
        await leave(self._voices.pop(topic, None))

    async def _look(self) -> None:
        """Re-read the profile, say hello, and renew the lobby's certificate, each in its own period."""
        presence, renew_at = self._access.settings.presence, self._loop.time()
        self._hello_at = self._loop.time() + presence
        said = ""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.refresh()
                said = ""
            except Exception as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("the profile of %s can't be used just now: %s", self.profile.title, said)
            now = self._loop.time()
            if now >= self._hello_at:
                self._hello_at = now + presence
                self._member().say_hello()
            if now >= renew_at and self._lobby_session.is_due(time.time()):
                try:
                    await asyncio.to_thread(self._lobby_session.renew, time.time())
                except NoKey as error:
                    renew_at = self._loop.time() + RENEW_AGAIN
                    log.warning("%s, so guests who knock will get no answer; trying again", error.message)


def _secret(profile: Profile) -> ClusterSecret:
    return ClusterSecret(profile.cluster, profile.topic, profile.key)
