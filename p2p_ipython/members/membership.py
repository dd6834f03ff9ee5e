"""This process among the members of its cluster: what it says on the board, whom it hears, which sessions it admits.

``Membership`` performs the actions of ``MembershipMachine`` on a board. A ``Speaker`` (the client's bridge, a worker's
agent, the owner's host) says hello through it and hears the other members. ``Membership`` moves to another topic when
the owner has changed the key, and asks on the lobby when it hears nobody.

All belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from p2p_ipython.board.base import Board, BoardReport, BoardState
from p2p_ipython.errors import NoKey, NotAdmitted, P2PError
from p2p_ipython.jobs import Alarm, Jobs
from p2p_ipython.members.voice import OpenBoard, Voice, leave
from p2p_ipython.protocol.clocks import Clocks
from p2p_ipython.protocol.identity import Certificate, ClusterSecret, Session
from p2p_ipython.protocol.membership_machine import (
    FRESH,
    Action,
    Expelled,
    Installed,
    MembershipMachine,
    Move,
    Say,
    SayHello,
    VisitLobby,
)
from p2p_ipython.protocol.messages import Accept, Answer, Ask, Grant, Hello, Message, Reply
from p2p_ipython.protocol.roster import Roster, lobby_secret, parse_title
from p2p_ipython.protocol.tracing import traced
from p2p_ipython.protocol.wire import Heard
from p2p_ipython.tracing import trace_file

log = logging.getLogger(__name__)

LOBBY_VISIT = 10.0
"""Seconds to listen on the lobby for an answer."""

MOVE_AGAIN = 5.0
"""Seconds between two tries to reach a topic."""

RENEW_AGAIN = 300.0
"""Seconds between two tries to have the SSH key sign a new certificate: an agent may ask its user each time."""

ANSWER_WITHIN = 10.0
"""Seconds on a topic without an answer of a member before that is reported."""

LOOK_EVERY = 2.0
"""Seconds at most between two looks at whether the roster has ended and whether there is trouble to report."""

LASTS = 5.0
"""Seconds that a trouble lasts before it is logged: most are over in moments."""


@dataclass(frozen=True)
class Standing:
    """Our place in a cluster. ``me`` is our member's fingerprint, ``name`` what others see.

    ``shared``: several people, listed in ``roster`` (None while it has not come); otherwise one person's processes.
    ``trusted``: fingerprints of members whose results may be pickles.
    """

    secret: ClusterSecret
    me: str
    name: str
    shared: bool = False
    roster: Roster | None = None
    title: str = ""
    trusted: frozenset[str] = frozenset()


class Speaker(Protocol):
    """The part of a process that talks with the members. Called on the event loop; must not block."""

    def hello(self) -> Hello:
        """Return what to say of ourselves now."""

    def heard(self, certificate: Certificate, message: Message) -> None:
        """Handle a member's message."""

    def board_changed(self, report: BoardReport) -> None:
        """Handle a change of the board's state."""

    def members_changed(self) -> None:
        """Handle a change of the members: links to others must end."""

    def expelled(self, why: str) -> None:
        """Handle the end of our membership, which the owner has revoked."""


Keep = Callable[[Roster | None, ClusterSecret], None]
"""Keeps the roster and the secret for our next process; called in a thread."""


class Membership:
    """This process's place among the members. Set ``speaker``, then ``join``, then ``begin``, which starts all talk."""

    speaker: Speaker

    def __init__(
        self,
        session: Session,
        standing: Standing,
        open_board: OpenBoard,
        *,
        keep: Keep | None = None,
    ) -> None:
        self.session = session
        self.standing = standing
        self.trusted = standing.trusted
        self.machine = MembershipMachine(
            secret=standing.secret,
            me=standing.me,
            name=standing.name,
            shared=standing.shared,
            host=session.certificate.role == "host",
            roster=standing.roster,
            unseal=session.unseal,
            random=random.SystemRandom().random,  # the process's own generator is the notebook's
        )
        if (trace := trace_file()) is not None:
            traced(self.machine, "member", session.sid, trace.write)
        self._open_board = open_board
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._jobs = Jobs(log)
        self._alarm = Alarm(self._tick)
        self._voice: Voice | None = None
        self._lobby: Voice | None = None
        self._renewing = False
        self._renew_at = 0.0
        self._unsigned = ""  # why the SSH key has not signed a new certificate
        self._target = standing.secret  # where we are, or are going
        self._moving = False
        self._since = self._loop.time()  # when we came to the topic
        self._ended = False  # whether the roster has
        self._words = self._logged = ""  # what keeps us from the others, and what of that was logged
        self._words_since = 0.0
        self._clocks = Clocks()
        self._answered = False  # as it was reported last
        self._kept_now = (self.machine.epoch, standing.secret)
        self._keeping = asyncio.Lock()
        self._begun = False
        self._gone = False  # the board, as it was reported last
        self._closed = False
        self.refused = ""
        """The answer of the owner's host to our ask on the lobby, in words."""
        self.answered = False
        """Whether a member has certainly spoken since we came to the topic: only then have we joined."""
        self.stands: Callable[[], None] = lambda: None
        """Called when ``trouble``, ``silence`` or ``answered`` have changed, some seconds later at most."""

    # -- the beginning and the end --

    async def join(self) -> None:
        """Join the board. Raises a ``BoardError``, and ``NotAdmitted`` in a role that we don't have."""
        self._check_role()
        self._voice = await self._new_voice(self.machine.secret)

    def begin(self, *, hello: bool = True) -> None:
        """Hear the members, and say hello to them (unless the speaker does)."""
        self._begun, self._since = True, self._loop.time()
        actions = self.machine.joined(self._loop.time())
        self._act([action for action in actions if hello or not isinstance(action, SayHello)])

    async def close(self, last: Message | None = None) -> None:
        """Leave, with the word ``last`` if there is one. Idempotent."""
        if self._closed:
            return
        if last is not None:
            self.say(last)
        self._closed = True
        self._alarm.stop()
        await self._jobs.end()
        try:
            await self._kept()
        except Exception as error:
            log.warning("the newest roster and key of this cluster can't be kept for the next process: %s", error)
        await leave(self._voice, self._lobby)

    # -- questions --

    @property
    def board(self) -> Board | None:
        """The session with the board, once it is joined."""
        return self._voice.board if self._voice is not None else None

    @property
    def trouble(self) -> str:
        """Say what keeps us from the others; "" for nothing. From any thread."""
        wall = time.time()
        if self._unsigned and wall > self.session.certificate.until:
            return f"nobody hears us any longer: {self._unsigned}"
        return self.machine.trouble(wall) or self.refused

    @property
    def silence(self) -> str:
        """Say that nobody has answered, once that takes too long; "" otherwise. From any thread."""
        if self.answered or not self._begun or self._loop.time() < self._since + ANSWER_WITHIN:
            return ""
        return self.clock or "no member has answered on the board yet"

    @property
    def clock(self) -> str:
        """Say that our clock and a member's are too far apart, as heard last; "" if they aren't. From any thread."""
        apart = self._clocks.apart
        if apart is None:
            return ""
        signer, ahead = apart
        whose = self.machine.name_of(signer)
        theirs = f"that of {whose}" if whose and signer != self.standing.me else "that of another machine of yours"
        minutes, way = round(abs(ahead) / 60), "behind" if ahead > 0 else "ahead of"
        return f"this machine's clock is {minutes} minutes {way} {theirs}: set the wrong one (p2p doctor says which)"

    def admits(self, certificate: Certificate) -> bool:
        """Return whether a session is a member's."""
        return self.machine.admits(certificate, time.time())

    def trusts(self, signer: str) -> bool:
        """Return whether a member's results may be pickles."""
        return signer == self.standing.me or signer in self.trusted

    def is_own(self, signer: str) -> bool:
        """Return whether a key is one of our own member's, this one or another."""
        roster = self.machine.roster
        me = roster.member(self.standing.me) if roster is not None else None
        return signer == self.standing.me or (me is not None and signer in me.keys)

    def called(self, certificate: Certificate, name: str) -> str:
        """Return a session's name for people: the roster's name of its member, and the one that it gives itself."""
        member = self.machine.name_of(certificate.signer)
        if not member or name == member:
            return name or member
        return f"{member} ({name})" if name else member

    # -- saying --

    def say(self, message: Message) -> None:
        """Post a message for the members."""
        if self._closed or self._voice is None:
            return
        if not self._renewing and self._loop.time() >= self._renew_at and self.session.is_due(time.time()):
            self._renewing = True
            self._jobs.start(self._renew())
        self._voice.say(message)

    def say_hello(self) -> None:
        """Say the speaker's hello, with our epoch."""
        hello = self.speaker.hello()
        self.say(Hello(hello.name, hello.time, hello.offer, self.machine.epoch))

    def adopt(self, roster: Roster, secret: ClusterSecret) -> None:
        """Adopt a roster and a secret that come from the owner's own files."""
        actions = self.machine.install(roster, self._loop.time())
        if secret != self.machine.secret:
            actions.append(Move(secret))
        self._act(actions)

    # -- hearing --

    def _hears(self, heard: Heard) -> None:
        if not self._begun:
            return
        certificate, message = heard.certificate, heard.message
        now = self._loop.time()
        if heard.admitted and isinstance(message, Hello):
            self._clocks.said(certificate, message.time, time.time())
        if heard.admitted and not self.answered:
            self.answered = self._is_answer(message)
        self._act(self.machine.heard(certificate, message, now, time.time(), admitted=heard.admitted))
        if not heard.admitted or self._closed:
            return
        if isinstance(message, Hello) and message.offer is not None and message.epoch < self.machine.epoch:
            # A worker without the newest roster may not know us yet, and would not hear us accept. The roster is on
            # its way to it; then it says hello again.
            return
        self.speaker.heard(certificate, message)

    def _is_answer(self, message: Message) -> bool:
        """Return whether it was said now: any reader of the topic can repeat what was said earlier in the day."""
        match message:
            case Hello(time=said):
                return abs(said - time.time()) <= FRESH
            case Accept(to=to):
                return to == self.session.sid
            case _:
                return False

    def _board_changed(self, report: BoardReport) -> None:
        gone = report.state in (BoardState.RECONNECTING, BoardState.FAILED)
        # A log that says that the board was gone also says that it is back.
        level = logging.WARNING if gone or self._gone else logging.INFO
        log.log(level, "board: %s %s", report.state.value, report.detail)
        self._gone = gone
        if self._begun:
            if report.state is BoardState.CONNECTED:  # those who came meanwhile have not heard us
                self._act(self.machine.joined(self._loop.time()))
            self.speaker.board_changed(report)

    def _tick(self) -> None:
        self._act(self.machine.tick(self._loop.time(), time.time()))

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            if self._closed:
                return
            match action:
                case Say(message=message):
                    self.say(message)
                case SayHello():
                    self.say_hello()
                case Installed(roster=roster):
                    log.info("the roster is now of epoch %d", roster.epoch)
                    if roster.member(self.standing.me) is not None:
                        self.refused = ""
                    self._jobs.start(self._kept())
                    self.speaker.members_changed()
                case Move(secret=secret):
                    self._target = secret
                    if not self._moving:
                        self._moving = True
                        self._jobs.start(self._move())
                case VisitLobby(ask=ask):
                    if self._lobby is None:
                        self._jobs.start(self._visit_lobby(ask))
                case Expelled(why=why):
                    log.warning("%s", why)
                    self.speaker.expelled(why)
        if not self._closed:
            self._look()
            times = [deadline] if (deadline := self.machine.deadline()) is not None else []
            if self.standing.shared or not self.answered:
                times.append(self._loop.time() + LOOK_EVERY)
            if times:
                self._alarm.set(min(times))

    def _look(self) -> None:
        """End links when the roster ends. Log what keeps us from the others, once, and when that is over."""
        now, roster = self._loop.time(), self.machine.roster
        before, self._ended = self._ended, roster is not None and time.time() > roster.until
        if self._ended and not before:
            self.speaker.members_changed()
        trouble = self.trouble
        words = trouble or self.silence
        if (words, self.answered) != (self._words, self._answered):
            self._answered = self.answered
            self.stands()
        if words != self._words:
            self._words, self._words_since = words, now
        if words == self._logged or (trouble and now < self._words_since + LASTS):
            return
        # Being the first one here is no trouble. But somebody who lends to friends has only the log to read it in.
        lends = self.standing.shared and self.session.certificate.role == "worker"
        level = logging.WARNING if lends or trouble else logging.INFO
        log.log(level, "%s", words or f"that is over: {self._logged}")
        self._logged = words

    # -- work --

    def _check_role(self) -> None:
        """Refuse now a role that we don't have. The others check it, too, but would only be silent."""
        roster, role = self.machine.roster, self.session.certificate.role
        member = roster.member(self.standing.me) if roster is not None else None
        if roster is None or member is None or role == "host" or role in member.roles:
            return
        owner, title = roster.members[0].name, roster.title
        allowed = (
            f"lend to {title}, not send tasks there" if role == "client" else f"send tasks to {title}, not lend to it"
        )
        raise NotAdmitted(f"{owner} lets you {allowed}", hint=f"Ask {owner} for more.")

    async def _new_voice(self, secret: ClusterSecret) -> Voice:
        voice = Voice(self.session, secret, admit=self.admits, heard=self._hears, changed=self._board_changed)
        voice.reader.from_the_future = lambda certificate: self._clocks.shown(certificate, time.time())
        await voice.open(self._open_board)
        if self._closed:  # meanwhile: close() did not know of this voice yet
            await voice.close()
        return voice

    async def _renew(self) -> None:
        was_unheard = time.time() > self.session.certificate.until
        try:
            await asyncio.to_thread(self.session.renew, time.time())
        except NoKey as error:
            self._renew_at = self._loop.time() + RENEW_AGAIN
            if error.message != self._unsigned:
                log.warning("%s, so the others will no longer hear us; trying again", error.message)
            self._unsigned = error.message
        else:
            self._unsigned = ""
            if was_unheard:
                self.say_hello()
        finally:
            self._renewing = False

    async def _kept(self) -> None:
        """Keep roster, topic and key if they have changed since they were kept last."""
        if self._keep is None:
            return
        async with self._keeping:
            now = (self.machine.epoch, self._target)
            if now != self._kept_now:
                await asyncio.to_thread(self._keep, self.machine.roster, self._target)
                self._kept_now = now

    async def _move(self) -> None:
        """Go to another topic. Links stay as they are: they don't need the board."""
        said = ""
        try:
            while True:
                secret = self._target
                try:
                    voice = await self._new_voice(secret)
                except P2PError as error:
                    if error.message != said:
                        said = error.message
                        log.warning("can't go to the cluster's new topic: %s; trying again", said)
                    await asyncio.sleep(MOVE_AGAIN)
                    continue
                if secret == self._target:
                    break
                await leave(voice)  # the topic has changed again meanwhile
            old, self._voice = self._voice, voice
        finally:
            self._moving = False
        self.answered, self._since = False, self._loop.time()
        self._act(self.machine.moved(secret, self._loop.time()))
        await self._kept()
        await leave(old)

    async def _visit_lobby(self, ask: Ask) -> None:
        """Ask the owner's host where the others are."""
        answered = asyncio.Event()
        roster = self.machine.roster
        who = roster.members[0].name if roster is not None else parse_title(self.standing.title)[0]

        def heard(heard: Heard) -> None:
            match heard.message:
                case Grant(to=to) as grant if to == self.session.sid:
                    self.refused = ""
                    self._act(self.machine.granted(heard.certificate, grant))
                    answered.set()
                case Answer(to=to, reply=reply) if to == self.session.sid:
                    waiting = f"waiting for {who}'s approval"
                    self.refused = waiting if reply is Reply.WAITING else f"{who} does not want us in this cluster"
                case _:
                    pass

        title = self.standing.title
        self._lobby = lobby = Voice(
            self.session,
            lobby_secret(title),
            admit=lambda c: c.role == "host" and c.signer == self.machine.owner,
            heard=heard,
            clusters=frozenset({title, self.machine.secret.cluster}),
        )
        try:
            await lobby.open(self._open_board)
            lobby.say(ask)
            await asyncio.wait_for(answered.wait(), LOBBY_VISIT)
        except TimeoutError:
            log.info("nobody has answered on the lobby of %s", title)
        except P2PError as error:
            log.info("the lobby of %s can't be visited: %s", title, error.message)
        finally:
            self._lobby = None
            await leave(lobby)
