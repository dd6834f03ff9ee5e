"""The operations on clusters of friends, step by step: name them, host them, revoke a membership, trust, leave.

The command line and the magics call these. Changes of rosters are in owner.py, what goes over the board in host.py,
the ways in in inviting.py and joining.py.

All coroutines belong to a loop that Twisted shares (``loop.adopt``).
"""

from __future__ import annotations

import asyncio
import getpass
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from p2p_ipython.board.base import Deaf
from p2p_ipython.board.client.address import PICO_BOARD
from p2p_ipython.board.client.login import choose_login, join_topic
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.members import owner as acts
from p2p_ipython.members.access import Access, profile_access
from p2p_ipython.members.host import Host
from p2p_ipython.members.owner import expect, extend, found, roster_of
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.members.way import Way, path_text
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.roster import Roster, check_name, is_fingerprint, is_title, parse_title

DURATION = 14 * 24 * 3600.0
"""How long a cluster is hosted by default, seconds."""

SETTLE = 3.0
"""How long a command waits for the members on the board to take a new key, seconds."""

ROLL_CALL = 0.2
"""How long a command listens for answers to its hello before it revokes a membership, seconds."""


# --- names of clusters ------------------------------------------------------------------------------


def find_title(profiles: Profiles, text: str, *, hosted: bool = False) -> str:
    """Return the title that is meant by a title, or by a cluster's name alone if only one cluster has it.

    "" means the only cluster that there is. ``hosted``: only clusters of this user's own. Raises ``ConfigError``.
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
    """Read ``bob,carol=SHA256:…`` as names with fingerprints, "" for none. Raises ``ConfigError``."""
    users: dict[str, str] = {}
    for part in text.split(","):
        name, _, fingerprint = part.strip().partition("=")
        if not name and not fingerprint:
            continue
        check_name(name)
        if fingerprint and not is_fingerprint(fingerprint):
            raise ConfigError(
                f"{plain(fingerprint, 80)!r} is not the fingerprint of a key",
                hint=f"It is the line 'key' that `p2p whoami` prints on {name}'s machine: SHA256:…",
            )
        users[name] = fingerprint
    return users


def my_name() -> str:
    """Return the name of this user if nobody says another: the login name, as a title may have it."""
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
) -> tuple[Access, Profile, bool]:
    """Found the cluster ``name``, or continue it; return what a ``Host`` needs, and whether it is a new one.

    ``owner`` is the owner's name in the title (default: the board's name for their key, else their login name).
    ``duration`` is in seconds. With ``resume`` the cluster must be there already. Raises ``ConfigError``, ``NoKey`` or
    a ``BoardError``.
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
        raise ConfigError(f"there is no cluster {name} to continue", hint=f"Found it: p2p host {name}")
    if known is not None:
        return *await _continue(known, way, profiles, settings, users=users or {}, until=until), False
    where = way.board or PICO_BOARD
    address, key = await choose_login(where, way.identity, ssh_options=way.ssh_options)
    progress(f"going to the board {where}")
    topic = secrets.token_hex(16)
    board = await join_topic(
        address, topic, Deaf(), key=key, settings=settings, pin=way.pin, ssh_options=way.ssh_options
    )
    try:
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
        identity=path_text(way.identity),
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
    access = profile_access(
        profile,
        address,
        key,
        me=parse_title(title)[0],
        settings=settings,
        profiles=profiles,
        ssh_options=way.ssh_options,
    )
    return access, profile, True


async def owners_access(title: str, *, way: Way, profiles: Profiles, settings: Settings) -> tuple[Access, Profile]:
    """Return what the owner's processes need to change a cluster that is there. Raises ``ConfigError``, ``NoKey``."""
    profile = await asyncio.to_thread(profiles.load, title)
    roster_of(profile)  # raises if somebody else owns it
    if profile.hosting is None:
        raise ConfigError(
            f"{title} is not hosted from this machine",
            hint=f"Do it where `p2p host {title}` was run: its files are there.",
        )
    return await _owners(profile, way, profiles, settings)


async def _owners(profile: Profile, way: Way, profiles: Profiles, settings: Settings) -> tuple[Access, Profile]:
    identity = way.identity or (Path(profile.identity) if profile.identity else None)
    address, key = await choose_login(profile.board, identity, ssh_options=way.ssh_options)
    owner = parse_title(profile.title)[0]
    access = profile_access(
        profile, address, key, me=owner, settings=settings, profiles=profiles, ssh_options=way.ssh_options
    )
    return access, profile


async def _continue(
    profile: Profile, way: Way, profiles: Profiles, settings: Settings, *, users: Mapping[str, str], until: int
) -> tuple[Access, Profile]:
    if way.board and way.board != profile.board:
        raise ConfigError(
            f"{profile.title} is on the board {profile.board}", hint="Give a cluster on another board another name."
        )
    access, _ = await _owners(profile, way, profiles, settings)

    def edit(old: Profile) -> Profile:
        return expect(extend(old, access.key, until), access.key, users)

    return await _owners(await asyncio.to_thread(profiles.revise, profile.title, edit), way, profiles, settings)


def _hosted_title(profiles: Profiles, name: str, owner: str | None) -> str | None:
    """Return the title of a cluster that is hosted here, or that the user has said in full; None for a new cluster."""
    if is_title(name):
        return name
    check_name(name)
    if owner is not None:
        return f"{owner}/{name}"
    hosted = [p.title for p in profiles.all() if p.hosting is not None and parse_title(p.title)[1] == name]
    return hosted[0] if len(hosted) == 1 else None


# --- revoking, trusting, leaving --------------------------------------------------------------------


@dataclass(frozen=True)
class Revoked:
    """The member who is out, and how many sessions of the others have (not) taken the new key within moments."""

    member: str
    told: int
    waiting: int


async def revoke(host: Host, access: Access, profiles: Profiles, name: str) -> Revoked:
    """Revoke a membership, or one key of a member's, in a cluster that we own; ``host`` is open, and tells the others.

    Each process that hears of it cuts its links to them. The others get another topic and key: at once if they are
    here, later from a host. Raises ``ConfigError``, ``NoKey``.
    """
    title = host.profile.title
    before = roster_of(await asyncio.to_thread(profiles.load, title))
    member = before.member(name) or before.named(name)
    await host.listen(ROLL_CALL)
    await asyncio.to_thread(profiles.revise, title, lambda old: acts.revoke(old, access.key, name))
    await host.refresh()
    await host.listen(SETTLE / 3)  # members who were not heard before ask for the new key within moments
    told, waiting = await host.settled(SETTLE)
    return Revoked(member.name if member is not None else name, told, waiting)


def trust(profiles: Profiles, title: str, name: str, *, allow: bool) -> tuple[str, Profile]:
    """Let results of a member's be pickles, which run code here, or no longer; return (their name, the profile).

    Blocks. Raises ``ConfigError`` if nobody has that name.
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
    """Forget a cluster. Blocks. Raises ``ConfigError`` if it isn't known."""
    profiles.load(title)
    profiles.remove(title)


def is_listed(profile: Profile) -> bool:
    """Return whether the newest roster that has come has us. True before one has come, and in personal clusters."""
    if not profile.roster or profile.vouch:
        return True
    return Roster.parse(profile.roster, profile.cluster).member(profile.signer) is not None


def until_of(profile: Profile) -> int:
    """Return until when the cluster is hosted, Unix time; 0 if that is not known here."""
    if profile.hosting is not None:
        return profile.hosting.until
    return Roster.parse(profile.roster, profile.cluster).until if profile.roster else 0


def still_expected(profile: Profile) -> list[str]:
    """Return the names that may knock at a cluster that is hosted here, and are not in yet."""
    roster = roster_of(profile)
    expected = profile.hosting.expected if profile.hosting is not None else {}
    return [name for name, key in expected.items() if not key and roster.named(name) is None]


def is_only_here(board: str) -> bool:
    """Return whether a board's address leads other machines to themselves."""
    return board.rpartition("@")[2].startswith(("localhost", "127.", "[::1]"))
