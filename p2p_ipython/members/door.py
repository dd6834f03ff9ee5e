"""The ways into a cluster, at both ends: inviting and joining by a code, knocking, and the key that a guest needs.

The command line and the magics call these; they ask their user by callbacks and show what comes back. What goes over
the wormhole is in invite.py, what goes over the lobby in knock.py; here is what both sides know and keep of it.

All coroutines belong to a loop that Twisted shares (``loop.adopt``).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from p2p_ipython import private_files
from p2p_ipython.board.base import Board, BoardListener, Deaf
from p2p_ipython.board.client.address import PICO_BOARD, SSHFiles
from p2p_ipython.board.client.keys import KeyChoice, choose_among
from p2p_ipython.board.client.login import choose_login, join_topic
from p2p_ipython.board.client.new_key import new_ed25519
from p2p_ipython.board.client.passphrase import user_prompt
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError, LinkTimeout, MailboxUnreachable
from p2p_ipython.link.base import Secret
from p2p_ipython.link.rendezvous import PUBLIC_MAILBOX
from p2p_ipython.members import invite as invitations
from p2p_ipython.members.access import Access, personal_access, rendezvous_of
from p2p_ipython.members.host import Host
from p2p_ipython.members.invite import Guest, Welcome
from p2p_ipython.members.knock import Granted, Knocking, Refused
from p2p_ipython.members.operations import Way, my_name, path_text
from p2p_ipython.members.owner import admit, free_name, roster_of
from p2p_ipython.members.profiles import Profile, Profiles
from p2p_ipython.protocol.identity import vouch
from p2p_ipython.protocol.roster import check_name, parse_title

CODE_LIFE = 600.0
"""How long an invitation waits for its guest, seconds."""


@dataclass(frozen=True)
class Question:
    """Whether a guest is to be let into a cluster, who has proved to have his key; ``called``: under which name.

    ``own``: as a machine of the owner's. ``another_key``: somebody called so is in, by another key, which will count
    as much as this one. As text it is what a person is asked.
    """

    title: str
    called: str
    guest: Guest
    own: bool
    another_key: bool = False

    @property
    def also(self) -> str:
        """What else is to be known before one says yes; "" for nothing."""
        return f"{self.called} is in already, by another key: both will count as his." if self.another_key else ""

    def __str__(self) -> str:
        as_whom = "as a machine of your own" if self.own else f"as {self.called}"
        says = f", who calls himself {self.guest.name}," if self.guest.name != self.called else ""
        about = f" ({self.guest.about})" if self.guest.about else ""
        here = f"{self.called}{says} is here{about}, with the key {self.guest.fingerprint}."
        also = f"\n{self.also}" if self.also else ""
        return f"{here}{also}\nLet him into {self.title} {as_whom}?"


Ask = Callable[[Question], Awaitable[str | None]]
"""Asks the user; returns what the guest is to be called (a machine of one's own: anything), None for no."""


@dataclass(frozen=True)
class LetIn:
    """What knocking has brought: we are let in by whoever has the key ``owner``, a fingerprint."""

    title: str
    owner: str
    _granted: Granted
    _key: KeyChoice
    _way: Way
    _host_key: str

    def keep(self, profiles: Profiles) -> Profile:
        """Believe that it is the right owner, and keep the cluster. Blocks. Raises ``ConfigError``."""
        secret, way = self._granted.secret, self._way
        where = way.board or PICO_BOARD
        # There is no roster yet: the members have it, and hand it to us on the board.
        welcome = Welcome(
            self.title, secret.cluster, where, self._host_key, way.mailbox, way.relay, secret.topic, secret.key
        )
        return _keep(profiles, welcome, self._key, way.identity)


async def invite(
    host: Host,
    access: Access,
    profiles: Profiles,
    *,
    name: str | None,
    show_code: Callable[[str, str], None],
    ask: Ask,
    deadline: float = CODE_LIFE,
    own: bool = False,
) -> Guest | None:
    """Invite one guest into a cluster that we own; returns who has come, None if the answer was no.

    ``show_code(code, mailbox)``: what to tell the guest; ``mailbox`` is "" where it is the usual one. ``host`` is open:
    it tells the members. ``name`` is what the guest will be called (default: what he calls himself). ``own``: a machine
    of the owner's. Raises ``WrongPeer`` (a wrong code), ``LinkTimeout``, ``MailboxUnreachable``, ``ConfigError``.
    """
    profile = host.profile
    if name is not None:
        check_name(name)  # now, and not when a guest has used the code up
    mailbox, relay = await rendezvous_of(access, host.board)

    async def let_in(guest: Guest) -> Welcome | None:
        known_as, another_key = await asyncio.to_thread(_called, profiles, profile.title, name, guest)
        question = Question(profile.title, known_as, guest, own, another_key and not own)
        called = await ask(question)
        if called is None:
            return None
        word = b""
        if own:
            word = await _word_for(guest, access)
        else:
            await asyncio.to_thread(
                profiles.revise, profile.title, lambda old: _admit_asked(old, access.key, question, called)
            )
            await host.refresh()
        return _welcome(host.profile, mailbox, relay, word)

    return await invitations.invite(
        mailbox=mailbox,
        signer=access.key.key,
        title=profile.title,
        cluster=profile.cluster,
        show_code=_without_the_usual(mailbox, show_code),
        admit=let_in,
        deadline=deadline,
        own=own,
    )


async def invite_own(
    name: str,
    *,
    way: Way,
    settings: Settings,
    show_code: Callable[[str, str], None],
    ask: Ask,
    deadline: float = CODE_LIFE,
) -> Guest | None:
    """Invite a machine of one's own, with a key of its own, into a personal cluster. Raises as ``invite`` does."""
    if not way.board:
        raise ConfigError(
            f"the personal cluster {name} is on a board, and none was named",
            hint="Give its address: --board HOST[:PORT].",
        )
    check_name(name)
    access = await personal_access(
        way.board,
        name,
        me=my_name(),
        settings=settings,
        identity=way.identity,
        pin=way.pin,
        mailbox=way.mailbox,
        relay=way.relay,
        ssh_options=way.ssh_options,
    )
    secret = access.standing.secret
    board = await access.open_board(f"p2p-{secrets.token_hex(16)}", Deaf())
    try:
        mailbox, relay = await rendezvous_of(access, board)
        host_key = board.host_key if isinstance(board, SSHBoard) else ""
    finally:
        await board.close()
    title = f"{my_name()}/{name}"

    async def let_in(guest: Guest) -> Welcome | None:
        if await ask(Question(title, guest.name, guest, own=True)) is None:
            return None
        word = await _word_for(guest, access)
        return Welcome(title, secret.cluster, way.board, host_key, mailbox, relay, secret.topic, secret.key, b"", word)

    return await invitations.invite(
        mailbox=mailbox,
        signer=access.key.key,
        title=title,
        cluster=secret.cluster,
        show_code=_without_the_usual(mailbox, show_code),
        admit=let_in,
        deadline=deadline,
        own=True,
    )


async def join(
    code: str,
    *,
    key: KeyChoice,
    identity: Path | None,
    name: str,
    mailbox: str,
    profiles: Profiles,
    told: Callable[[invitations.Host], None] = lambda _host: None,
    deadline: float = CODE_LIFE,
    own: bool = False,
) -> Profile:
    """Come in by a spoken code; the profile is kept. Raises as ``invitations.accept`` does, and ``ConfigError``."""
    secret = Secret(invitations.read_code(code))
    kept: list[Profile] = []

    async def keep(welcome: Welcome) -> None:
        kept.append(await asyncio.to_thread(_keep, profiles, welcome, key, identity))

    try:
        await invitations.accept(
            secret,
            mailbox=mailbox or PUBLIC_MAILBOX,
            signer=key.key,
            name=check_name(name),
            told=told,
            keep=keep,
            deadline=deadline,
            own=own,
        )
    except (MailboxUnreachable, LinkTimeout) as error:
        if not mailbox and not kept:
            error.hint = f"If what you were told has a --mailbox, give that, too. {error.hint}"
        raise
    return kept[0]


async def knock(
    title: str,
    *,
    way: Way,
    name: str,
    owner: str,
    settings: Settings,
    told: Callable[[str], None],
) -> LetIn:
    """Ask the owner of a cluster to let us in, for as long as it takes. Raises ``ConfigError`` when he says no.

    ``owner`` is the fingerprint of his key, "" for whoever answers: show ``LetIn.owner`` before ``keep``.
    """
    if not way.board and (near := await asyncio.to_thread(Profiles().similar, title)):
        raise ConfigError(
            f"you are not in {title}; is it {near}, which you are in?",
            hint=f"To knock at {title} all the same, name its board: --board HOST[:PORT].",
        )
    where = way.board or PICO_BOARD
    address, key = await choose_login(where, way.identity, ssh_options=way.ssh_options)
    host_key = ""

    async def open_board(topic: str, listener: BoardListener) -> Board:
        nonlocal host_key
        board = await join_topic(
            address, topic, listener, key=key, settings=settings, pin=way.pin, ssh_options=way.ssh_options
        )
        host_key = board.host_key
        return board

    told(f"knocking at {title} as {name}, with the key {key.fingerprint}")
    answer = await Knocking(title, key, open_board, name=check_name(name), owner=owner, told=told).run()
    if isinstance(answer, Refused):
        raise ConfigError(
            f"{parse_title(title)[0]} does not want you in {title}",
            hint=f"The host that said so has the key {answer.owner}. Ask for an invitation instead.",
        )
    return LetIn(title, answer.owner, answer, key, way, host_key)


def key_of_guest(identity: Path | None, stop: threading.Event | None = None) -> KeyChoice:
    """The key by which to join; its passphrase is asked for where it has one. Blocks. Raises ``NoKey``.

    ``stop`` ends the question.
    """
    return choose_among(SSHFiles.default(), identity=identity, passphrase=user_prompt(stop or threading.Event()))


def place_for_key(identity: Path | None) -> Path | None:
    """Where a key would be made: the file that was named, or the usual one; None where there is something already."""
    path = identity or SSHFiles.default().folder / "id_ed25519"
    return None if any(os.path.lexists(file) for file in (path, path.with_name(path.name + ".pub"))) else path


def make_key(path: Path) -> KeyChoice:
    """Make an ed25519 key without a passphrase, mode 0600, with its ``.pub``. Raises ``ConfigError``."""
    private, public = new_ed25519()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_files.create(path, private.encode())
        private_files.create(path.with_name(path.name + ".pub"), f"{public} {my_name()}\n".encode(), mode=0o644)
    except OSError as error:
        raise ConfigError(
            f"{path} can't be made: {error.strerror}", hint="Make a key by hand: ssh-keygen -t ed25519"
        ) from None
    return choose_among(SSHFiles.default(), identity=path)


def _without_the_usual(mailbox: str, show_code: Callable[[str, str], None]) -> Callable[[str], None]:
    """What shows a code with the mailbox, where the guest has to be told of that, too."""
    return lambda code: show_code(code, "" if mailbox == PUBLIC_MAILBOX else mailbox)


async def _word_for(guest: Guest, access: Access) -> bytes:
    """Our word that a guest's key is on a machine of our own."""
    cluster = access.standing.secret.cluster
    return await asyncio.to_thread(vouch, access.key.key, cluster=cluster, key=guest.fingerprint, now=time.time())


def _called(profiles: Profiles, title: str, name: str | None, guest: Guest) -> tuple[str, bool]:
    """What a guest will be called: as the owner has said, else as he says, if nobody else is called so.

    And whether somebody is called so, by another key.
    """
    profile = profiles.load(title)
    roster = roster_of(profile)
    there = roster.member(guest.fingerprint)
    if there is not None and name not in (None, there.name):
        raise ConfigError(
            f"the guest's key, {guest.fingerprint}, is in {title} already, as {there.name}",
            hint=f"So he needs no invitation; to call him {name}, take {there.name} out first (p2p revoke).",
        )
    if there is not None:
        return there.name, False
    called = name or free_name(profile, guest.name)
    return called, roster.named(called) is not None


def _admit_asked(profile: Profile, key: KeyChoice, question: Question, called: str) -> Profile:
    """The next epoch, with a guest about whom ``question`` was asked; the answer was that he is ``called`` so.

    Raises ``ConfigError`` as ``admit`` does, and where somebody else has got the name since: then it wasn't said that
    both keys would count as his.
    """
    there = roster_of(profile).named(called)
    other = there is not None and question.guest.fingerprint not in there.keys
    if other and called == question.called and not question.another_key:
        raise ConfigError(
            f"somebody else is called {called} in {profile.title} by now, so the guest was not let in",
            hint="Invite him again, by another name.",
        )
    return admit(profile, key, called, question.guest.fingerprint)


def _welcome(profile: Profile, mailbox: str, relay: str, word: bytes) -> Welcome:
    own = mailbox != PUBLIC_MAILBOX and profile.mailbox == ""
    return Welcome(
        title=profile.title,
        cluster=profile.cluster,
        board=profile.board,
        host_key=profile.host_key,
        mailbox="" if own else profile.mailbox,
        relay="" if own else profile.relay or (relay if profile.mailbox else ""),
        topic=profile.topic,
        key=profile.key,
        roster=profile.roster,
        vouch=word,
    )


def _keep(profiles: Profiles, welcome: Welcome, key: KeyChoice, identity: Path | None) -> Profile:
    def edit(old: Profile | None) -> Profile:
        if old is None:
            return made
        if old.cluster != welcome.cluster:
            raise ConfigError(
                f"you are in another cluster called {welcome.title}, whose owner has another key",
                hint=f"If you don't need that one any more, forget it: p2p leave {welcome.title}",
            )
        if old.hosting is not None:
            raise ConfigError(
                f"you host {welcome.title} on this machine, so there is nothing to join",
                hint="Give the code to somebody else, on a machine or under a user of his own.",
            )
        # Who is let in by knocking gets no list of members; the one that we have keeps older ones from counting.
        return replace(made, trusted=old.trusted, roster=made.roster or old.roster)

    made = Profile(
        title=welcome.title,
        cluster=welcome.cluster,
        board=welcome.board,
        host_key=welcome.host_key,
        mailbox=welcome.mailbox,
        relay=welcome.relay,
        identity=path_text(identity),
        signer=key.fingerprint,
        topic=welcome.topic,
        key=welcome.key,
        roster=welcome.roster,
        vouch=welcome.vouch,
    )
    return profiles.put(welcome.title, edit)
