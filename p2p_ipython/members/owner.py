"""The owner's acts on a cluster: found it, admit somebody, revoke a membership, keep it going.

Each is a function from the owner's profile to the next one, with a roster of the next epoch that the owner's key has
signed; ``Profiles.change`` puts it on disk. A host process sees that and notifies the members (members/host.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from p2p_ipython.board.client.keys import KeyChoice
from p2p_ipython.errors import ConfigError
from p2p_ipython.members.profile import Hosting, Profile
from p2p_ipython.protocol.identity import BadIdentity, ClusterSecret
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.roster import (
    ROLES,
    Member,
    Roster,
    changed,
    check_name,
    commitment,
    is_fingerprint,
    parse_title,
)

LONGEST = 400 * 24 * 3600.0
"""How long a cluster may be hosted without being renewed, seconds."""


def found(
    title: str,
    key: KeyChoice,
    *,
    board: str,
    host_key: str,
    mailbox: str = "",
    relay: str = "",
    identity: str = "",
    until: int,
    expected: Mapping[str, str] | None = None,
) -> Profile:
    """Found a cluster. Its members are the owner, and the names that come with a fingerprint in ``expected``.

    ``until`` is Unix time, s. Asks the key for signatures: blocks. Raises ``ConfigError`` and ``NoKey``.
    """
    owner, name = parse_title(title)
    secret = _new_secret(f"{key.fingerprint}/{name}")
    members = [Member(owner, (key.fingerprint,))]
    roster = Roster(secret.cluster, title, 0, until, commitment(secret), tuple(members))
    profile = Profile(
        title=title,
        cluster=secret.cluster,
        board=board,
        host_key=host_key,
        mailbox=mailbox,
        relay=relay,
        identity=identity,
        signer=key.fingerprint,
        topic=secret.topic,
        key=secret.key,
        roster=changed(roster, members).signed(key.key).wire,
        hosting=Hosting(until),
    )
    return expect(profile, key, expected or {})


def expect(profile: Profile, key: KeyChoice, expected: Mapping[str, str]) -> Profile:
    """Admit the names whose keys are known beforehand; the other names may knock, and are asked about."""
    for name, fingerprint in expected.items():
        check_name(name)
        if fingerprint and not is_fingerprint(fingerprint):
            raise ConfigError(
                f"{plain(fingerprint, 80)!r} is not the fingerprint of a key",
                hint=f"Give --users {name}=SHA256:…, as `p2p whoami` prints it on {name}'s machine.",
            )
    for name, fingerprint in expected.items():
        if fingerprint:
            profile = admit(profile, key, name, fingerprint)
    hosting = _hosting(profile)
    return replace(profile, hosting=Hosting(hosting.until, {**hosting.expected, **expected}))


def admit(profile: Profile, key: KeyChoice, name: str, fingerprint: str, *, roles: Iterable[str] = ROLES) -> Profile:
    """Admit a key of ``name`` in the next epoch: a new member's, or another one of a member's.

    Changes nothing if that key is in already under this name. Raises ``ConfigError`` if it is somebody else's.
    """
    check_name(name)
    roster = roster_of(profile)
    there = roster.member(fingerprint)
    if there is not None:
        if there.name == name:
            return profile
        raise ConfigError(
            f"the key {fingerprint} is in {profile.title} already, as {there.name}",
            hint=f"Revoke it first (p2p revoke), or invite {there.name}.",
        )
    known = roster.named(name)
    if known is None:
        members = [*roster.members, Member(name, (fingerprint,), tuple(roles))]
    else:
        members = [replace(m, keys=(*m.keys, fingerprint)) if m.name == name else m for m in roster.members]
    return replace(profile, roster=changed(roster, members).signed(key.key).wire)


def revoke(profile: Profile, key: KeyChoice, name: str) -> Profile:
    """Revoke the membership of ``name``: the next epoch has another topic and key, which they don't get.

    ``name`` may be a fingerprint: only that key is revoked then. Raises ``ConfigError``.
    """
    roster = roster_of(profile)
    member = roster.member(name) or roster.named(name)
    if member is None:
        known = ", ".join(m.name for m in roster.members[1:]) or "nobody else"
        raise ConfigError(f"{plain(name, 80)} is not in {profile.title}", hint=f"Its members are: {known}.")
    if member == roster.members[0]:
        raise ConfigError(
            f"{member.name} owns {profile.title}, and can't be revoked", hint="End the hosting instead: Ctrl-C."
        )
    left = tuple(one for one in member.keys if one != name) if name in member.keys else ()
    members = [replace(m, keys=left) if m == member else m for m in roster.members if m != member or left]
    secret = _new_secret(profile.cluster)
    hosting = _hosting(profile)
    expected = {n: f for n, f in hosting.expected.items() if n != member.name}
    return replace(
        profile,
        topic=secret.topic,
        key=secret.key,
        roster=changed(roster, members, secret=commitment(secret)).signed(key.key).wire,
        hosting=Hosting(hosting.until, expected),
    )


def extend(profile: Profile, key: KeyChoice, until: int) -> Profile:
    """Let the next epoch count until ``until`` (Unix time, s); make none if this one counts that long already."""
    roster = roster_of(profile)
    hosting = replace(_hosting(profile), until=until)
    if until <= roster.until:
        return replace(profile, hosting=hosting)
    return replace(profile, hosting=hosting, roster=changed(roster, roster.members, until=until).signed(key.key).wire)


def free_name(profile: Profile, wanted: str) -> str:
    """Return a name for a guest who would be ``wanted``; no member has it, not even in other capitals."""
    allowed = "".join(c for c in wanted if c.isascii() and (c.isalnum() or c in "._-")).lstrip("._-")[:40] or "friend"
    taken = {member.name.lower() for member in roster_of(profile).members}
    name, number = allowed, 1
    while name.lower() in taken:
        number += 1
        name = f"{allowed}-{number}"
    return name


def roster_of(profile: Profile) -> Roster:
    """Return the roster of the owner's profile. Raises ``ConfigError`` if the profile is no owner's."""
    try:
        roster = Roster.parse(profile.roster, profile.cluster)
    except BadIdentity as error:
        raise ConfigError(f"the profile of {profile.title} has {error}", hint="Host the cluster anew.") from None
    if roster.owner != profile.signer:
        raise ConfigError(
            f"you don't own {profile.title}; {roster.members[0].name} does",
            hint=f"Ask {roster.members[0].name} to do it.",
        )
    return roster


def _hosting(profile: Profile) -> Hosting:
    return profile.hosting or Hosting(roster_of(profile).until)


def _new_secret(cluster: str) -> ClusterSecret:
    return ClusterSecret(cluster, f"p2p-{os.urandom(16).hex()}", os.urandom(32))
