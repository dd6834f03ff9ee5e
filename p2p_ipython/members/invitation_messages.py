"""The messages of an invitation, as JSON: the inviter's, the guest's and the welcome, written, read and checked. Pure.

Every field comes from somebody who may be anyone: each is bounded, and one that is wrong is a ``WrongPeer``. Nothing of
a key is in a repr or an error.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.board.client.known_hosts import pin_fingerprint
from p2p_ipython.errors import ConfigError, RemoteProtocolError, WrongPeer
from p2p_ipython.link.hints import parse_relay
from p2p_ipython.protocol.identity import BadIdentity, ClusterSecret, check_vouch, fingerprint, verify
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.roster import (
    MAX_ROSTER,
    Roster,
    check_name,
    commitment,
    is_fingerprint,
    is_title,
    owner_of,
    parse_title,
)
from p2p_ipython.protocol.rules import Fields, Rule, Wrong, flag, ruled, text

F = TypeVar("F", bound=Fields)

NAMESPACE = "p2p-ipython-invite@v1"

MAX_MESSAGE = 256 << 10
"""Largest message taken from the other side, bytes of JSON; a roster is 171 KiB of it at most."""

MAX_VOUCH = 4096


def _text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes64(most: int, least: int = 0) -> Rule:
    """Return the rule of so many bytes, as base64."""

    def read(value: Any) -> bytes:
        if type(value) is not str or len(value) > (most + 2) // 3 * 4:
            raise Wrong
        try:
            data = base64.b64decode(value, validate=True)
        except ValueError:
            raise Wrong from None
        if least <= len(data) <= most:
            return data
        raise Wrong

    return Rule(f"base64 of {least:,} to {most:,} bytes", read, _text64)


def _line() -> Rule:
    """Return the rule of a line of text that can be shown as it is."""

    def read(value: Any) -> str:
        if type(value) is str and len(value) <= 1000 and plain(value, 1000) == value:
            return value
        raise Wrong

    return Rule("a line of at most 1,000 characters", read)


@dataclass(frozen=True, slots=True)
class _HostSays(Fields):
    """The host's first message."""

    kind: ClassVar[str] = "host"
    title: str = ruled(text(MAX_MESSAGE))
    cluster: str = ruled(text(MAX_MESSAGE))
    own: bool = ruled(flag())
    key: bytes = ruled(_bytes64(4096), repr=False)
    proof: bytes = ruled(_bytes64(8192), repr=False)


@dataclass(frozen=True, slots=True)
class _GuestSays(Fields):
    """The guest's answer."""

    kind: ClassVar[str] = "guest"
    name: str = ruled(text(MAX_MESSAGE))
    key: bytes = ruled(_bytes64(4096), repr=False)
    proof: bytes = ruled(_bytes64(8192), repr=False)
    about: str = ruled(text(MAX_MESSAGE), default="")


@dataclass(frozen=True)
class Inviter:
    """The other end, which has proved to have the key ``fingerprint``, the owner's of the cluster ``title``."""

    title: str
    cluster: str
    fingerprint: str


@dataclass(frozen=True)
class Guest:
    """The end that asks to come in, and has proved to have the key. The name and ``about`` are its own words."""

    name: str
    public_line: str
    fingerprint: str
    about: str = ""


@dataclass(frozen=True)
class Welcome(Fields):
    """All that a new member needs. ``mailbox``, ``relay`` and ``host_key`` may be "", as in a profile.

    ``roster`` names the guest among the members. ``vouch`` is the owner's word for a machine of the owner's, which may
    get no roster.
    """

    kind: ClassVar[str] = "welcome"
    title: str = ruled(_line())
    cluster: str = ruled(_line())
    board: str = ruled(_line())
    host_key: str = ruled(_line())
    mailbox: str = ruled(_line())
    relay: str = ruled(_line())
    topic: str = ruled(_line(), repr=False)
    key: bytes = ruled(_bytes64(32, 32), repr=False)
    roster: bytes = ruled(_bytes64(MAX_ROSTER), default=b"", repr=False)
    vouch: bytes = ruled(_bytes64(MAX_VOUCH), default=b"", repr=False)


def signed_text(role: str, verifier: bytes, cluster: str) -> bytes:
    """Return what an end signs: SSH strings, so that no two texts of different parts are the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (role.encode(), verifier, cluster.encode()))


def parse(message: bytes, who: str) -> dict[str, Any]:
    """Read a message's fields; ``who`` ("host" or "guest") has sent it. Raises ``WrongPeer``."""
    if len(message) > MAX_MESSAGE:
        raise nonsense(who)
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError):
        raise nonsense(who) from None
    if not isinstance(fields, dict):
        raise nonsense(who)
    return fields


def host_fields(title: str, cluster: str, *, own: bool, key: bytes, proof: bytes) -> dict[str, Any]:
    """Return the host's first message: where to it invites, with its key and signature."""
    return _written(_HostSays(title, cluster, own, key, proof))


def guest_fields(name: str, about: str, *, key: bytes, proof: bytes) -> dict[str, Any]:
    """Return the guest's answer: the name and the machine, with the key and signature."""
    return _written(_GuestSays(name, key, proof, about))


def read_host(fields: Mapping[str, Any], verifier: bytes, *, own: bool) -> Inviter:
    """Check the host's first message. ``own``: we are a machine of the owner's. Raises ``WrongPeer``."""
    said = _read(_HostSays, fields, "host")
    title, cluster, owner = said.title, said.cluster, owner_of(said.cluster)
    if not is_title(title) or not is_fingerprint(owner) or cluster != f"{owner}/{parse_title(title)[1]}":
        raise nonsense("host")
    if fingerprint(_signer_of(said, verifier, cluster)) != owner:
        raise WrongPeer(
            f"the host that invites to {title} does not have its owner's key",
            hint="Somebody may be in between. Nothing was sent but the code; ask the owner for another one.",
        )
    if said.own is not own:
        raise WrongPeer(
            f"this is {'no' if own else 'an'} invitation of a machine of the owner's own",
            hint=f"Ask for another code, and join {'without' if own else 'with'} --own.",
        )
    return Inviter(title, cluster, owner)


def read_guest(fields: Mapping[str, Any], verifier: bytes, cluster: str) -> Guest:
    """Check the guest's answer. Raises ``WrongPeer``."""
    said = _read(_GuestSays, fields, "guest")
    key = _signer_of(said, verifier, cluster)
    try:
        check_name(said.name)
    except ConfigError:
        raise nonsense("guest") from None
    kind = key[4 : 4 + int.from_bytes(key[:4], "big")].decode()
    return Guest(said.name, f"{kind} {_text64(key)}", fingerprint(key), _NOT_IN_ABOUT.sub("", said.about[:200])[:60])


def _signer_of(said: _HostSays | _GuestSays, verifier: bytes, cluster: str) -> bytes:
    """Return the public key that the other end of this very wormhole has proved to have."""
    try:
        signed = verify(said.proof, signed_text(said.kind, verifier, cluster), NAMESPACE)
    except BadIdentity:
        signed = b""
    if signed != said.key:
        raise WrongPeer(
            f"the {said.kind} could not prove who they are",
            hint="Somebody may be in between. Nothing secret was sent; make a new invitation.",
        )
    return signed


def welcome_fields(welcome: Welcome) -> dict[str, Any]:
    """Return the host's welcome."""
    return _written(welcome)


_NOT_IN_ABOUT = re.compile(r"[^A-Za-z0-9 ._-]")
"""It is shown beside the key's fingerprint: the guest's words must not be able to show another one there."""


def read_welcome(fields: Mapping[str, Any], host: Inviter, guest: str, *, own: bool) -> Welcome:
    """Check the welcome of ``host`` to the key ``guest``, a fingerprint. Raises ``WrongPeer``."""
    welcome = _read(Welcome, fields, "host")
    if (welcome.title, welcome.cluster) != (host.title, host.cluster):
        raise nonsense("host")
    if not re.fullmatch(r"p2p-[0-9a-f]{32}", welcome.topic):
        raise nonsense("host")
    _check_addresses(welcome)
    if own:
        _check_vouch(welcome, guest)
    if welcome.roster or not own:
        _check_roster(welcome, host.fingerprint if own else guest)
    return welcome


def _check_addresses(welcome: Welcome) -> None:
    try:
        BoardAddress.parse(welcome.board)
        if welcome.host_key:
            pin_fingerprint(welcome.host_key)
        if welcome.relay:
            parse_relay(welcome.relay)
        if welcome.mailbox:
            url = urlsplit(welcome.mailbox)
            if url.scheme not in ("ws", "wss") or not url.hostname or url.port == 0:
                raise ValueError
    except (ConfigError, ValueError):
        raise nonsense("host") from None


def _check_vouch(welcome: Welcome, guest: str) -> None:
    try:
        member = check_vouch(welcome.vouch, welcome.cluster, guest, time.time())
    except BadIdentity:
        raise nonsense("host") from None
    if member != owner_of(welcome.cluster):
        raise nonsense("host")


def _check_roster(welcome: Welcome, member: str) -> None:
    try:
        roster = Roster.parse(welcome.roster, welcome.cluster)
    except BadIdentity:
        raise nonsense("host") from None
    secret = ClusterSecret(welcome.cluster, welcome.topic, welcome.key)
    if roster.title != welcome.title or roster.member(member) is None or roster.secret != commitment(secret):
        raise nonsense("host")


def nonsense(who: str) -> WrongPeer:
    """Return the error for a message that "host" or "guest" can't mean."""
    return WrongPeer(
        f"what the {who} says makes no sense",
        hint="One side's p2p_ipython may be of another version: update both, and make a new invitation.",
    )


def _read(kind: type[F], fields: Mapping[str, Any], who: str) -> F:
    """Read a message that ``who`` has sent. Raises ``WrongPeer``."""
    try:
        return kind.read(fields)
    except RemoteProtocolError:
        raise nonsense(who) from None


def _written(message: Fields) -> dict[str, Any]:
    """Return a message's fields, also those that have their default: older versions want all of them."""
    values = {row.name: (row.rule.write, getattr(message, row.attribute)) for row in message.table()}
    return {"t": message.kind, **{name: write(value) if write else value for name, (write, value) in values.items()}}
