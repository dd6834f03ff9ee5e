"""Access to a cluster: all that a process needs to know to take part, put together.

* a **personal** cluster on a board: every holder of the same SSH key is in it, nothing else needs to be known;
* a **shared** one, ``owner/name``: the profile on disk has the board, the topic, the key and the roster;
* a cluster that is made for one process and its children: key and board are handed over.

Client, worker and host begin here alike.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from p2p_ipython.board.base import Board, BoardListener
from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.board.client.keys import KeyChoice
from p2p_ipython.board.client.login import choose_login, join_topic
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.link.rendezvous import PUBLIC_MAILBOX, PUBLIC_RELAY
from p2p_ipython.members.membership import Keep, Membership, Standing
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.members.way import Way
from p2p_ipython.protocol.identity import BadIdentity, ClusterSecret, Session, check_vouch, fingerprint, personal_secret
from p2p_ipython.protocol.roster import Roster, commitment


@dataclass(frozen=True)
class Access:
    """All that a process needs to take part in a cluster. ``mailbox`` and ``relay``: "" for the board's own."""

    address: BoardAddress
    key: KeyChoice
    standing: Standing
    settings: Settings
    pin: str | None = None
    mailbox: str = ""
    relay: str = ""
    vouch: bytes = field(default=b"", repr=False)
    keep: Keep | None = None
    ssh_options: tuple[str, ...] = ()
    remember: bool = True

    def session(self, role: str) -> Session:
        """Make a session of ours in a ``role``. Asks the SSH key for a signature: blocks, raises ``NoKey``."""
        return Session(
            self.key.key,
            cluster=self.standing.secret.cluster,
            role=role,
            now=time.time(),
            random=os.urandom,
            vouch=self.vouch,
        )

    def reached_at(self, mailbox: str, relay: str) -> Access:
        """Return the same with another mailbox and relay; "" leaves one as it is."""
        return replace(self, mailbox=mailbox or self.mailbox, relay=relay or self.relay)

    def membership(self, session: Session) -> Membership:
        """Make a session's place among the members. For the running loop."""
        return Membership(session, self.standing, self.open_board, keep=self.keep)

    async def open_board(self, topic: str, listener: BoardListener) -> Board:
        """Join a topic. Raises a ``BoardError``."""
        return await join_topic(
            self.address,
            topic,
            listener,
            key=self.key,
            settings=self.settings,
            pin=self.pin,
            ssh_options=self.ssh_options,
            remember=self.remember,
        )


def machine_of(board: Board | None) -> str:
    """Return the IP address of a board's machine; "" if it isn't known."""
    return board.machine if isinstance(board, SSHBoard) else ""


async def rendezvous_of(access: Access, board: Board) -> tuple[str, str, bool]:
    """Return where links are arranged, (mailbox, relay): those given, else the board's own, else the public ones.

    The last value: both are the board's own.
    """
    mailbox, relay = access.mailbox, access.relay
    if not mailbox:
        found = await board.services() if isinstance(board, SSHBoard) else None
        if found is not None:
            return found["mailbox"], relay or found["relay"], not relay
        mailbox = PUBLIC_MAILBOX
    return mailbox, relay or (PUBLIC_RELAY if mailbox == PUBLIC_MAILBOX else ""), False


async def own_places(access: Access, board: Board | None) -> tuple[str, str] | None:
    """Return how we reach the board's own mailbox and relay, as given or as dialled; None if that isn't known.

    Raises ``BoardUnreachable``.
    """
    if access.mailbox and access.relay:
        return access.mailbox, access.relay
    found = await board.services() if isinstance(board, SSHBoard) else None
    return None if found is None else (access.mailbox or found["mailbox"], access.relay or found["relay"])


async def personal_access(name: str, way: Way, *, me: str, settings: Settings) -> Access:
    """Return access to the personal cluster ``name`` of our SSH key. Raises ``ConfigError`` and ``NoKey``."""
    address, key = await choose_login(way.board, way.identity, ssh_options=way.ssh_options)
    return await asyncio.to_thread(given_access, address, key, name, way, me=me, settings=settings)


def given_access(
    address: BoardAddress,
    key: KeyChoice,
    name: str,
    way: Way,
    *,
    me: str,
    settings: Settings,
    remember: bool = True,
) -> Access:
    """Return access to the personal cluster ``name`` of ``key``, which signs: blocks, raises ``NoKey``."""
    secret = personal_secret(key.key, name)
    standing = Standing(secret, fingerprint(key.key.asbytes()), me)
    return Access(
        address,
        key,
        standing,
        settings,
        way.pin,
        way.mailbox,
        way.relay,
        ssh_options=way.ssh_options,
        remember=remember,
    )


async def shared_access(
    title: str,
    *,
    me: str,
    settings: Settings,
    identity: Path | None = None,
    profiles: Profiles | None = None,
    ssh_options: tuple[str, ...] = (),
) -> Access:
    """Return access to the shared cluster ``title`` by its profile. Raises ``ConfigError`` and ``NoKey``."""
    profiles = profiles or Profiles()
    profile = await asyncio.to_thread(profiles.load, title)
    path = identity or (Path(profile.identity) if profile.identity else None)
    address, key = await choose_login(profile.board, path, ssh_options=ssh_options)
    return profile_access(profile, address, key, me=me, settings=settings, profiles=profiles, ssh_options=ssh_options)


def profile_access(
    profile: Profile,
    address: BoardAddress,
    key: KeyChoice,
    *,
    me: str,
    settings: Settings,
    profiles: Profiles,
    ssh_options: tuple[str, ...] = (),
) -> Access:
    """Return access to a profile's cluster with the chosen key. Raises ``ConfigError`` if they don't fit together."""
    if key.fingerprint != profile.signer:
        raise ConfigError(
            f"you are in {profile.title} by the key {profile.signer}, and {key} would be shown",
            hint="Name that key's file with --identity, or add it to the agent first (ssh-add).",
        )
    roster, member = None, key.fingerprint
    try:
        if profile.roster:
            roster = Roster.parse(profile.roster, profile.cluster)
        if profile.vouch:
            member = check_vouch(profile.vouch, profile.cluster, key.fingerprint, time.time())
    except BadIdentity as error:
        raise ConfigError(
            f"the profile of {profile.title} has {error}", hint="Ask the owner for a new invitation (p2p join CODE)."
        ) from None

    def keep(roster: Roster | None, secret: ClusterSecret) -> None:
        def edit(old: Profile) -> Profile:
            if old.hosting is not None:  # only the owner's commands change the owner's own files
                return old
            before = Roster.parse(old.roster, old.cluster).epoch if old.roster else 0
            if roster is None or roster.epoch < before:
                return old
            known = ClusterSecret(old.cluster, old.topic, old.key)
            if commitment(known) == roster.secret:  # another process of ours was quicker than this one
                return replace(old, roster=roster.wire)
            return replace(old, roster=roster.wire, topic=secret.topic, key=secret.key)

        profiles.change(profile.title, edit)

    standing = Standing(
        ClusterSecret(profile.cluster, profile.topic, profile.key),
        member,
        me,
        # A personal cluster that this machine was invited to, with a key of its own, has no roster.
        shared=bool(profile.roster) or not profile.vouch,
        roster=roster,
        title=profile.title,
        trusted=profile.trusted,
    )
    return Access(
        address,
        key,
        standing,
        settings,
        profile.host_key or None,
        profile.mailbox,
        profile.relay,
        profile.vouch,
        keep,
        ssh_options,
        remember=False,
    )
