"""What people do with clusters of friends, step by step: host, invite, join, revoke, trust.

The command line and the magics call these; they ask their user by callbacks and show what comes back. What is decided
about rosters is in owner.py; what goes over the board in host.py, over a wormhole in invite.py.

All coroutines belong to a loop that Twisted shares (``loop.adopt``).
"""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from p2p_ipython.board.address import SSHFiles
from p2p_ipython.board.base import Board, BoardListener, BoardReport
from p2p_ipython.board.keys import KeyChoice, choose_among
from p2p_ipython.board.login import choose_login, remember_accepted
from p2p_ipython.board.passphrase import user_prompt
from p2p_ipython.board.ssh import SSHBoard
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError, LinkTimeout, MailboxUnreachable
from p2p_ipython.link.base import Secret
from p2p_ipython.link.rendezvous import PUBLIC_MAILBOX
from p2p_ipython.members import invite as invitations
from p2p_ipython.members.entry import Entry, personal_entry, profile_entry, rendezvous_of
from p2p_ipython.members.host import Host
from p2p_ipython.members.invite import Guest, Welcome
from p2p_ipython.members.knock import Granted, Knocking, Refused
from p2p_ipython.members.owner import admit, expect, extend, found, free_name, revoke, roster_of
from p2p_ipython.members.profiles import Profile, Profiles
from p2p_ipython.protocol.identity import vouch
from p2p_ipython.protocol.messages import plain
from p2p_ipython.protocol.roster import Roster, check_name, is_fingerprint, is_title, parse_title

PICO_BOARD = "pipe.pico.sh"
"""The board where none is named."""

DURATION = 14 * 24 * 3600.0
"""How long a cluster is hosted where nothing else is said, seconds."""

CODE_LIFE = 600.0
"""How long an invitation waits for its guest, seconds."""

SETTLE = 3.0
"""How long a command waits for members who are here to take a new key, seconds."""


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

    def __str__(self) -> str:
        as_whom = "as a machine of your own" if self.own else f"as {self.called}"
        says = f", who calls himself {self.guest.name}," if self.guest.name != self.called else ""
        about = f" ({self.guest.about})" if self.guest.about else ""
        here = f"{self.called}{says} is here{about}, with the key {self.guest.fingerprint}."
        also = f"\n{self.called} is in already, by another key: both will count as his." if self.another_key else ""
        return f"{here}{also}\nLet him into {self.title} {as_whom}?"


ROLL_CALL = 0.2
"""How long a command hears who answers its hello, before it takes somebody out, seconds."""

Ask = Callable[[Question], Awaitable[str | None]]
"""Asks the user; returns what the guest is to be called (a machine of one's own: anything), None for no."""


@dataclass(frozen=True)
class Way:
    """How to get to the board, as far as the user has said; "" and None: what is usual."""

    board: str = ""
    identity: Path | None = None
    pin: str | None = None
    mailbox: str = ""
    relay: str = ""
    ssh_options: tuple[str, ...] = ()


# --- names of clusters ------------------------------------------------------------------------------


def find_title(profiles: Profiles, text: str, *, hosted: bool = False) -> str:
    """The title that somebody means by a title, or by a cluster's name alone where only one has it.

    "" is the only one that there is. ``hosted``: among those that are this user's own. Raises ``ConfigError``.
    """
    if "/" in text:
        parse_title(text)
        return text
    if text:
        check_name(text)
    known = [profile for profile in profiles.all() if not hosted or profile.hosting is not None]
    found = [profile.title for profile in known if text in ("", parse_title(profile.title)[1])]
    if len(found) == 1:
        return found[0]
    if found:
        what = f"there are several clusters called {text}" if text else "you host several clusters"
        raise ConfigError(what, hint=f"Say which: {', '.join(found)}.")
    names = ", ".join(profile.title for profile in known)
    raise ConfigError(
        f"you {'host' if hosted else 'are in'} no cluster{f' called {text}' if text else ' yet'}",
        hint=f"Known here: {names}."
        if names
        else f"Host one: p2p host {text or 'NAME'}"
        if hosted
        else "Join one: p2p join CODE",
    )


def parse_users(text: str) -> dict[str, str]:
    """Read ``bob,carol=SHA256:…`` as names with fingerprints, "" where there is none. Raises ``ConfigError``."""
    users: dict[str, str] = {}
    for entry in text.split(","):
        name, _, fingerprint = entry.strip().partition("=")
        if not name and not fingerprint:
            continue
        check_name(name)
        if fingerprint and not is_fingerprint(fingerprint):
            raise ConfigError(
                f"{plain(fingerprint, 80)!r} is no fingerprint of {name}'s key",
                hint=f"It is the line 'key' that `p2p whoami` prints on {name}'s machine: SHA256:…",
            )
        users[name] = fingerprint
    return users


def my_name() -> str:
    """What this user is called where nothing else is said: the login name, as a title may have it."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = ""
    return "".join(c for c in name.lower() if c.isascii() and c.isalnum())[:50] or "me"


# --- hosting ----------------------------------------------------------------------------------------


async def host(
    name: str,
    *,
    way: Way,
    profiles: Profiles,
    settings: Settings,
    users: Mapping[str, str] | None = None,
    duration: float = DURATION,
    owner: str | None = None,
    resume: bool = False,
    progress: Callable[[str], None] = lambda _words: None,
) -> tuple[Entry, Profile, bool]:
    """Found the cluster ``name``, or go on with it; return what a ``Host`` needs, and whether it is a new one.

    ``owner`` is what the owner is called (default: the board's name for his key, else his login name). ``duration``
    is in seconds. With ``resume`` it must be there already. Raises ``ConfigError``, ``NoKey`` or a ``BoardError``.
    """
    until = int(time.time() + duration)
    title = await asyncio.to_thread(_hosted_title, profiles, name, owner)
    known = await asyncio.to_thread(profiles.find, title) if title is not None else None
    if known is not None and known.hosting is None:
        raise ConfigError(
            f"you are in {known.title} already, and it is not hosted from here",
            hint="Host it on its owner's machine; or give this one another name.",
        )
    if known is None and resume:
        raise ConfigError(f"there is no cluster {name} to go on with", hint=f"Begin it: p2p host {name}")
    if known is not None:
        return *await _go_on(known, way, profiles, settings, users=users or {}, until=until), False
    where = way.board or PICO_BOARD
    address, key = await choose_login(where, way.identity, ssh_options=way.ssh_options)
    progress(f"going to the board {where}")
    board = SSHBoard(
        address,
        secrets.token_hex(16),
        _Deaf(),
        key=key,
        settings=settings,
        pin=way.pin,
        public=True,
        ssh_options=way.ssh_options,
    )
    await board.open()
    try:
        await asyncio.to_thread(remember_accepted, board, way.pin)
        user = board.user if board.user != "public" else ""
        host_key = board.host_key
    finally:
        await board.close()
    if title is None:
        title = f"{owner or user or my_name()}/{check_name(name)}"
    profile = await asyncio.to_thread(
        found,
        title,
        key,
        board=where,
        host_key=host_key,
        mailbox=way.mailbox,
        relay=way.relay,
        identity=_path(way.identity),
        until=until,
        expected=users,
    )
    founded = profile

    def new(old: Profile | None) -> Profile:
        if old is not None:
            raise ConfigError(
                f"you are in {old.title} already, and it is not hosted from here",
                hint="Host it on its owner's machine; or give this one another name, or yourself: --owner NAME.",
            )
        return founded

    await asyncio.to_thread(profiles.put, title, new)
    entry = profile_entry(
        profile,
        address,
        key,
        me=parse_title(title)[0],
        settings=settings,
        profiles=profiles,
        ssh_options=way.ssh_options,
    )
    return entry, profile, True


async def owners_entry(title: str, *, way: Way, profiles: Profiles, settings: Settings) -> tuple[Entry, Profile]:
    """What a process of the owner's needs to change a cluster that is there. Raises ``ConfigError``, ``NoKey``."""
    profile = await asyncio.to_thread(profiles.load, title)
    roster_of(profile)  # raises where somebody else owns it
    if profile.hosting is None:
        raise ConfigError(
            f"{title} is not hosted from this machine",
            hint=f"Do it where `p2p host {title}` was run: its files are there.",
        )
    return await _owners(profile, way, profiles, settings)


async def _owners(profile: Profile, way: Way, profiles: Profiles, settings: Settings) -> tuple[Entry, Profile]:
    identity = way.identity or (Path(profile.identity) if profile.identity else None)
    address, key = await choose_login(profile.board, identity, ssh_options=way.ssh_options)
    owner = parse_title(profile.title)[0]
    entry = profile_entry(
        profile, address, key, me=owner, settings=settings, profiles=profiles, ssh_options=way.ssh_options
    )
    return entry, profile


async def _go_on(
    profile: Profile, way: Way, profiles: Profiles, settings: Settings, *, users: Mapping[str, str], until: int
) -> tuple[Entry, Profile]:
    if way.board and way.board != profile.board:
        raise ConfigError(
            f"{profile.title} is on the board {profile.board}", hint="Give a cluster on another board another name."
        )
    entry, _ = await _owners(profile, way, profiles, settings)

    def edit(old: Profile) -> Profile:
        return expect(extend(old, entry.key, until), entry.key, users)

    return await _owners(await asyncio.to_thread(profiles.revise, profile.title, edit), way, profiles, settings)


def _hosted_title(profiles: Profiles, name: str, owner: str | None) -> str | None:
    """The title of a cluster that is hosted here already, or that the user has said in full; None: a new one's."""
    if is_title(name):
        return name
    check_name(name)
    if owner is not None:
        return f"{owner}/{name}"
    hosted = [p.title for p in profiles.all() if p.hosting is not None and parse_title(p.title)[1] == name]
    return hosted[0] if len(hosted) == 1 else None


# --- inviting and joining ---------------------------------------------------------------------------


async def invite(
    host: Host,
    entry: Entry,
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
    mailbox, relay = await rendezvous_of(entry, host.board)

    async def let_in(guest: Guest) -> Welcome | None:
        known_as, another_key = await asyncio.to_thread(_called, profiles, profile.title, name, guest)
        called = await ask(Question(profile.title, known_as, guest, own, another_key and not own))
        if called is None:
            return None
        word = b""
        if own:
            word = await asyncio.to_thread(
                vouch, entry.key.key, cluster=profile.cluster, key=guest.fingerprint, now=time.time()
            )
        else:
            await asyncio.to_thread(
                profiles.revise, profile.title, lambda old: admit(old, entry.key, called, guest.fingerprint)
            )
            await host.refresh()
        return _welcome(host.profile, mailbox, relay, word)

    return await invitations.invite(
        mailbox=mailbox,
        signer=entry.key.key,
        title=profile.title,
        cluster=profile.cluster,
        show_code=lambda code: show_code(code, "" if mailbox == PUBLIC_MAILBOX else mailbox),
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
    entry = await personal_entry(
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
    secret = entry.standing.secret
    board = await entry.open_board(f"p2p-{secrets.token_hex(16)}", _Deaf())
    try:
        mailbox, relay = await rendezvous_of(entry, board)
        host_key = board.host_key if isinstance(board, SSHBoard) else ""
    finally:
        await board.close()
    title = f"{my_name()}/{name}"

    async def let_in(guest: Guest) -> Welcome | None:
        if await ask(Question(title, guest.name, guest, own=True)) is None:
            return None
        word = await asyncio.to_thread(
            vouch, entry.key.key, cluster=secret.cluster, key=guest.fingerprint, now=time.time()
        )
        return Welcome(title, secret.cluster, way.board, host_key, mailbox, relay, secret.topic, secret.key, b"", word)

    return await invitations.invite(
        mailbox=mailbox,
        signer=entry.key.key,
        title=title,
        cluster=secret.cluster,
        show_code=lambda code: show_code(code, "" if mailbox == PUBLIC_MAILBOX else mailbox),
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


def key_of_guest(identity: Path | None, stop: threading.Event | None = None) -> KeyChoice:
    """The key by which to join; its passphrase is asked for where it has one. Blocks. Raises ``NoKey``.

    ``stop`` ends the question.
    """
    return choose_among(SSHFiles.default(), identity=identity, passphrase=user_prompt(stop or threading.Event()))


def place_for_key(identity: Path | None) -> Path | None:
    """Where a key would be made: the file that was named, or the usual one; None where there is something already."""
    path = identity or SSHFiles.default().folder / "id_ed25519"
    return None if path.exists() or path.with_name(path.name + ".pub").exists() else path


def make_key(path: Path) -> KeyChoice:
    """Make an ed25519 key without a passphrase, mode 0600, with its ``.pub``. Raises ``ConfigError``."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(private)
        path.with_name(path.name + ".pub").write_bytes(public + f" {my_name()}\n".encode())
    except OSError as error:
        raise ConfigError(
            f"{path} can't be made: {error.strerror}", hint="Make a key by hand: ssh-keygen -t ed25519"
        ) from None
    return choose_among(SSHFiles.default(), identity=path)


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
        board = SSHBoard(
            address,
            topic,
            listener,
            key=key,
            settings=settings,
            pin=way.pin,
            public=True,
            ssh_options=way.ssh_options,
        )
        await board.open()
        host_key = board.host_key
        await asyncio.to_thread(remember_accepted, board, way.pin)
        return board

    told(f"knocking at {title} as {name}, with the key {key.fingerprint}")
    answer = await Knocking(title, key, open_board, name=check_name(name), owner=owner, told=told).run()
    if isinstance(answer, Refused):
        raise ConfigError(
            f"{parse_title(title)[0]} does not want you in {title}",
            hint=f"The host that said so has the key {answer.owner}. Ask for an invitation instead.",
        )
    return LetIn(title, answer.owner, answer, key, way, host_key)


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
        identity=_path(identity),
        signer=key.fingerprint,
        topic=welcome.topic,
        key=welcome.key,
        roster=welcome.roster,
        vouch=welcome.vouch,
    )
    return profiles.put(welcome.title, edit)


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


# --- taking out, trusting, leaving ------------------------------------------------------------------


@dataclass(frozen=True)
class Revoked:
    """Who is out, and which sessions of the others have (not) taken the new key within moments."""

    member: str
    told: int
    waiting: int


async def take_out(host: Host, entry: Entry, profiles: Profiles, name: str) -> Revoked:
    """Take a member, or one key of his, out of a cluster that we own; ``host`` is open, and tells the others.

    His links are cut by whoever hears of it. The others get another topic and key: those who are here at once, who
    comes later from a host. Raises ``ConfigError``, ``NoKey``.
    """
    title = host.profile.title
    before = roster_of(await asyncio.to_thread(profiles.load, title))
    member = before.member(name) or before.named(name)
    await host.listen(ROLL_CALL)
    await asyncio.to_thread(profiles.revise, title, lambda old: revoke(old, entry.key, name))
    await host.refresh()
    await host.listen(SETTLE / 3)  # those who weren't heard before ask for the new key within moments
    told, waiting = await host.settled(SETTLE)
    return Revoked(member.name if member is not None else name, told, waiting)


def trust(profiles: Profiles, title: str, name: str, *, allow: bool) -> tuple[str, Profile]:
    """Let results of a member's be pickles, which run code here, or no more; returns (his name, the profile).

    Blocks. Raises ``ConfigError`` where nobody is called so.
    """
    profile = profiles.load(title)
    roster = Roster.parse(profile.roster, profile.cluster) if profile.roster else None
    member = roster and (roster.named(name) or roster.member(name))
    if not member:
        known = ", ".join(m.name for m in roster.members) if roster is not None else "not known yet; connect first"
        raise ConfigError(f"{plain(name, 80)} is not in {title}", hint=f"Its members: {known}.")
    keys = frozenset(member.keys)

    def edit(old: Profile) -> Profile:
        return replace(old, trusted=old.trusted | keys if allow else old.trusted - keys)

    return member.name, profiles.change(title, edit)


def leave(profiles: Profiles, title: str) -> None:
    """Forget a cluster. Blocks. Raises ``ConfigError`` where it isn't known."""
    profiles.load(title)
    profiles.remove(title)


def until_of(profile: Profile) -> int:
    """How long the cluster is hosted, Unix time; 0: not known here."""
    if profile.hosting is not None:
        return profile.hosting.until
    return Roster.parse(profile.roster, profile.cluster).until if profile.roster else 0


def _path(identity: Path | None) -> str:
    return str(identity.expanduser().absolute()) if identity is not None else ""


class _Deaf:
    """A listener for who only asks."""

    def on_line(self, line: bytes) -> None:
        pass

    def on_board(self, report: BoardReport) -> None:
        pass
