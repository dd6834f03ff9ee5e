"""Joining a cluster, the guest's end: by a code, or by knocking at a title; and the profile that is kept of it.

The command line and the magics call these. The words that go over the wormhole are in invitation.py, those on the
lobby in knocking.py; the owner's end is in inviting.py.

All coroutines belong to a loop that Twisted shares (``loop.adopt``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from p2p_ipython.board.base import Board, BoardListener
from p2p_ipython.board.client.address import PICO_BOARD
from p2p_ipython.board.client.keys import KeyChoice
from p2p_ipython.board.client.login import choose_login, join_topic
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError, LinkTimeout, MailboxUnreachable
from p2p_ipython.link.base import Secret
from p2p_ipython.link.rendezvous import PUBLIC_MAILBOX
from p2p_ipython.members import invitation
from p2p_ipython.members.invitation import CODE_LIFE
from p2p_ipython.members.invitation_messages import Inviter, Welcome
from p2p_ipython.members.knocking import Granted, Knocking, Refused
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.members.way import Way, path_text
from p2p_ipython.protocol.roster import check_name, parse_title


async def join(
    code: str,
    *,
    key: KeyChoice,
    identity: Path | None,
    name: str,
    mailbox: str,
    profiles: Profiles,
    told: Callable[[Inviter], None] = lambda _inviter: None,
    deadline: float = CODE_LIFE,
    own: bool = False,
) -> Profile:
    """Join by a spoken code, and keep the profile. Raises as ``invitation.accept`` does, and ``ConfigError``."""
    secret = Secret(invitation.read_code(code))
    kept: list[Profile] = []

    async def keep(welcome: Welcome) -> None:
        kept.append(await asyncio.to_thread(_keep, profiles, welcome, key, identity))

    try:
        await invitation.accept(
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


@dataclass(frozen=True)
class LetIn:
    """The answer to our knocking: a host with the key ``owner``, a fingerprint, admits us."""

    title: str
    owner: str
    _granted: Granted
    _key: KeyChoice
    _way: Way
    _host_key: str

    def keep(self, profiles: Profiles) -> Profile:
        """Believe that the key is the right owner's, and keep the cluster. Blocks. Raises ``ConfigError``."""
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
    settings: Settings,
    told: Callable[[str], None],
) -> LetIn:
    """Ask the owner of a cluster to admit us, for as long as it takes. Raises ``ConfigError`` for a no.

    With ``way.owner`` only a host that has this key is believed. Without it any host is: show ``LetIn.owner`` before
    ``LetIn.keep``.
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
    answer = await Knocking(title, key, open_board, name=check_name(name), owner=way.owner, told=told).run()
    if isinstance(answer, Refused):
        raise ConfigError(
            f"{parse_title(title)[0]} does not want you in {title}",
            hint=f"The host that said so has the key {answer.owner}. Ask for an invitation instead.",
        )
    return LetIn(title, answer.owner, answer, key, way, host_key)


def _keep(profiles: Profiles, welcome: Welcome, key: KeyChoice, identity: Path | None) -> Profile:
    """Keep the profile of a cluster that welcomes us. Blocks. Raises ``ConfigError``."""

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
                hint="Give the code to somebody else, on another machine or under another user.",
            )
        # Knocking brings no roster; the one that we have keeps older ones from counting.
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
