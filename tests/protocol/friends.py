"""A shared cluster for tests: alice's, with rosters, keys and sessions that are the same in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

from people import NOW, PlainKey, stream

from p2p_ipython.protocol.identity import Certificate, ClusterSecret, Session, fingerprint
from p2p_ipython.protocol.membership_machine import MembershipMachine
from p2p_ipython.protocol.roster import ROLES, Member, Roster, commitment, lobby_secret

OWNER = "alice"
TITLE = "alice/friends"
UNTIL = int(NOW) + 14 * 24 * 3600
LOBBY = lobby_secret(TITLE)


@cache
def print_of(name: str) -> str:
    """The fingerprint of somebody's key."""
    return fingerprint(PlainKey(name).asbytes())


CLUSTER_ID = f"{print_of(OWNER)}/friends"


@cache
def secret(number: int = 1) -> ClusterSecret:
    """The cluster's topic and key number ``number``."""
    digest = hashlib.sha256(f"secret {number}".encode()).digest()
    return ClusterSecret(CLUSTER_ID, f"p2p-{digest[:16].hex()}", digest)


def unsigned(
    epoch: int, *names: str, key: int = 1, until: int = UNTIL, roles: Mapping[str, tuple[str, ...]] | None = None
) -> Roster:
    """Alice and ``names``, not signed yet."""
    members = [Member(name, (print_of(name),), (roles or {}).get(name, ROLES)) for name in (OWNER, *names)]
    return Roster(CLUSTER_ID, TITLE, epoch, until, commitment(secret(key)), tuple(members))


def roster(
    epoch: int, *names: str, key: int = 1, until: int = UNTIL, roles: Mapping[str, tuple[str, ...]] | None = None
) -> Roster:
    """Alice and ``names``, signed by her; ``key`` is the number of the secret that goes with it."""
    return unsigned(epoch, *names, key=key, until=until, roles=roles).signed(PlainKey(OWNER))


def session(
    name: str, role: str = "worker", *, number: int = 1, cluster: str = CLUSTER_ID, now: float = NOW, vouch: bytes = b""
) -> Session:
    """A session of somebody's in the shared cluster; the same for the same arguments."""
    random = stream(f"{name}/{role}/{number}/{cluster}")
    return Session(PlainKey(name), cluster=cluster, role=role, now=now, random=random, vouch=vouch)


@cache
def certificate(name: str, role: str = "worker", number: int = 1) -> Certificate:
    """Its certificate."""
    return session(name, role, number=number).certificate


def machine(name: str, known: Roster | None, *, key: int = 1, random: float = 0.5) -> MembershipMachine:
    """The membership of somebody's first worker session, on the topic of secret ``key``."""
    return MembershipMachine(
        secret=secret(key),
        me=print_of(name),
        name=name,
        shared=True,
        roster=known,
        unseal=session(name).unseal,
        random=lambda: random,
    )
