"""Inviting a guest into a cluster, the owner's end: whom the owner is asked about, and what a yes changes on disk.

The command line and the magics call these; they ask their user by callbacks and show what comes back. The words that
go over the wormhole are in invitation.py; the guest's end is in joining.py.

All coroutines belong to a loop that Twisted shares (``loop.adopt``).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from p2p_ipython.board.base import Deaf
from p2p_ipython.board.client.keys import KeyChoice
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.link.rendezvous import PUBLIC_MAILBOX
from p2p_ipython.members import invitation
from p2p_ipython.members.access import Access, personal_access, rendezvous_of
from p2p_ipython.members.host import Host
from p2p_ipython.members.invitation import CODE_LIFE
from p2p_ipython.members.invitation_messages import Guest, Welcome
from p2p_ipython.members.operations import my_name
from p2p_ipython.members.owner import admit, free_name, roster_of
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.members.way import Way
from p2p_ipython.protocol.identity import vouch
from p2p_ipython.protocol.roster import check_name


@dataclass(frozen=True)
class Question:
    """Whether to admit a guest, who has proved to have their key, to a cluster under the name ``called``.

    ``own``: as a machine of the owner's. ``another_key``: a member of that name is in already, by another key; this key
    will count as much as that one. As text, it is the question that a person reads.
    """

    title: str
    called: str
    guest: Guest
    own: bool
    another_key: bool = False

    @property
    def also(self) -> str:
        """A note that the owner has to know before saying yes; "" for none."""
        return (
            f"{self.called} is in already, by another key: both keys will count as theirs." if self.another_key else ""
        )

    def __str__(self) -> str:
        as_whom = "as a machine of your own" if self.own else f"as {self.called}"
        says = f", who uses the name {self.guest.name}," if self.guest.name != self.called else ""
        about = f" ({self.guest.about})" if self.guest.about else ""
        here = f"{self.called}{says} is here{about}, with the key {self.guest.fingerprint}."
        also = f"\n{self.also}" if self.also else ""
        return f"{here}{also}\nAdmit them to {self.title} {as_whom}?"


Ask = Callable[[Question], Awaitable[str | None]]
"""Asks the user; returns the name that the guest will have (a machine of one's own: anything), None for no."""


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
    """Invite one guest into a cluster that we own; return the guest, or None if the answer was no.

    ``show_code(code, mailbox)`` shows what to tell the guest; ``mailbox`` is "" if it is the usual one. ``host`` is
    open: it tells the members. ``name`` is what the guest will be called (default: as the guest says). ``own``: the
    guest is a machine of the owner's.

    Raises ``WrongPeer`` (a wrong code), ``LinkTimeout``, ``MailboxUnreachable``, ``ConfigError``.
    """
    profile = host.profile
    if name is not None:
        check_name(name)  # now, and not when a guest has used the code up
    mailbox, relay, _ = await rendezvous_of(access, host.board)

    async def admit_guest(guest: Guest) -> Welcome | None:
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

    return await invitation.invite(
        mailbox=mailbox,
        signer=access.key.key,
        title=profile.title,
        cluster=profile.cluster,
        show_code=_without_the_usual(mailbox, show_code),
        admit=admit_guest,
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
            f"the personal cluster {name} is on a board, and no board was named",
            hint="Give its address: --board HOST[:PORT].",
        )
    check_name(name)
    access = await personal_access(name, way, me=my_name(), settings=settings)
    secret = access.standing.secret
    board = await access.open_board(f"p2p-{secrets.token_hex(16)}", Deaf())
    try:
        mailbox, relay, _ = await rendezvous_of(access, board)
        host_key = board.host_key if isinstance(board, SSHBoard) else ""
    finally:
        await board.close()
    title = f"{my_name()}/{name}"

    async def admit_machine(guest: Guest) -> Welcome | None:
        if await ask(Question(title, guest.name, guest, own=True)) is None:
            return None
        word = await _word_for(guest, access)
        return Welcome(title, secret.cluster, way.board, host_key, mailbox, relay, secret.topic, secret.key, b"", word)

    return await invitation.invite(
        mailbox=mailbox,
        signer=access.key.key,
        title=title,
        cluster=secret.cluster,
        show_code=_without_the_usual(mailbox, show_code),
        admit=admit_machine,
        deadline=deadline,
        own=True,
    )


def _without_the_usual(mailbox: str, show_code: Callable[[str, str], None]) -> Callable[[str], None]:
    """Return a function that shows a code, and names the mailbox only if the guest has to type that, too."""
    return lambda code: show_code(code, "" if mailbox == PUBLIC_MAILBOX else mailbox)


async def _word_for(guest: Guest, access: Access) -> bytes:
    """Vouch that a guest's key is on a machine of our own."""
    cluster = access.standing.secret.cluster
    return await asyncio.to_thread(vouch, access.key.key, cluster=cluster, key=guest.fingerprint, now=time.time())


def _called(profiles: Profiles, title: str, name: str | None, guest: Guest) -> tuple[str, bool]:
    """Return what a guest will be called, and whether a member has that name already, by another key.

    The owner's choice comes first, then the guest's own name if no member has it.
    """
    profile = profiles.load(title)
    roster = roster_of(profile)
    there = roster.member(guest.fingerprint)
    if there is not None and name not in (None, there.name):
        raise ConfigError(
            f"the guest's key, {guest.fingerprint}, is in {title} already, as {there.name}",
            hint=f"So the guest needs no invitation; to call them {name}, revoke {there.name} first (p2p revoke).",
        )
    if there is not None:
        return there.name, False
    called = name or free_name(profile, guest.name)
    return called, roster.named(called) is not None


def _admit_asked(profile: Profile, key: KeyChoice, question: Question, called: str) -> Profile:
    """Admit, in the next epoch, a guest whom the answer to ``question`` has named ``called``.

    Raises ``ConfigError`` as ``admit`` does, and if another guest has got the name since: the question then did not say
    that both keys would count as the same member's.
    """
    there = roster_of(profile).named(called)
    other = there is not None and question.guest.fingerprint not in there.keys
    if other and called == question.called and not question.another_key:
        raise ConfigError(
            f"somebody else is called {called} in {profile.title} by now, so the guest was not admitted",
            hint="Invite the guest again, by another name.",
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
