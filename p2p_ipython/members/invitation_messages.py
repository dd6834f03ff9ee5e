"""What is said in an invitation, as JSON: the inviter's, the guest's and the welcome, written, read and checked. Pure.

Every field comes from somebody who may be anyone: each is bounded, and one that is wrong is a ``WrongPeer``. Nothing of
a key is in a repr or an error.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.board.client.known_hosts import pin_fingerprint
from p2p_ipython.errors import ConfigError, WrongPeer
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

NAMESPACE = "p2p-ipython-invite@v1"

MAX_MESSAGE = 256 << 10
"""Largest message taken from the other side, bytes of JSON; a roster is 171 KiB of it at most."""

MAX_VOUCH = 4096


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
class Welcome:
    """All that a new member needs. ``mailbox``, ``relay`` and ``host_key`` may be "", as in a profile.

    ``roster`` names the guest among the members. ``vouch`` is the owner's word for a machine of the owner's, which may
    get no roster.
    """

    title: str
    cluster: str
    board: str
    host_key: str
    mailbox: str
    relay: str
    topic: str = field(repr=False)
    key: bytes = field(repr=False)
    roster: bytes = field(default=b"", repr=False)
    vouch: bytes = field(default=b"", repr=False)


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
    facts = {"title": title, "cluster": cluster, "own": own}
    return {"t": "host", **facts, "key": _text64(key), "proof": _text64(proof)}


def guest_fields(name: str, about: str, *, key: bytes, proof: bytes) -> dict[str, Any]:
    """Return the guest's answer: the name and the machine, with the key and signature."""
    return {"t": "guest", "name": name, "about": about, "key": _text64(key), "proof": _text64(proof)}


def read_host(fields: Mapping[str, Any], verifier: bytes, *, own: bool) -> Inviter:
    """Check the host's first message. ``own``: we are a machine of the owner's. Raises ``WrongPeer``."""
    title, cluster = fields.get("title"), fields.get("cluster")
    if not (isinstance(title, str) and is_title(title) and isinstance(cluster, str)):
        raise nonsense("host")
    owner = owner_of(cluster)
    if not is_fingerprint(owner) or cluster != f"{owner}/{parse_title(title)[1]}":
        raise nonsense("host")
    if fingerprint(_signer_of(fields, "host", verifier, cluster)) != owner:
        raise WrongPeer(
            f"the host that invites to {title} does not have its owner's key",
            hint="Somebody may be in between. Nothing was sent but the code; ask the owner for another one.",
        )
    if fields.get("own") is not own:
        raise WrongPeer(
            f"this is {'no' if own else 'an'} invitation of a machine of the owner's own",
            hint=f"Ask for another code, and join {'without' if own else 'with'} --own.",
        )
    return Inviter(title, cluster, owner)


def read_guest(fields: Mapping[str, Any], verifier: bytes, cluster: str) -> Guest:
    """Check the guest's answer. Raises ``WrongPeer``."""
    key = _signer_of(fields, "guest", verifier, cluster)
    name, about = fields.get("name"), fields.get("about", "")
    if not (isinstance(name, str) and isinstance(about, str)):
        raise nonsense("guest")
    try:
        check_name(name)
    except ConfigError:
        raise nonsense("guest") from None
    kind = key[4 : 4 + int.from_bytes(key[:4], "big")].decode()
    return Guest(name, f"{kind} {_text64(key)}", fingerprint(key), _NOT_IN_ABOUT.sub("", about[:200])[:60])


def _signer_of(fields: Mapping[str, Any], role: str, verifier: bytes, cluster: str) -> bytes:
    """Return the public key that the other end of this very wormhole has proved to have."""
    key = _bytes64(fields, "key", role, 4096)
    try:
        signed = verify(_bytes64(fields, "proof", role, 8192), signed_text(role, verifier, cluster), NAMESPACE)
    except BadIdentity:
        signed = b""
    if signed != key:
        raise WrongPeer(
            f"the {role} could not prove who they are",
            hint="Somebody may be in between. Nothing secret was sent; make a new invitation.",
        )
    return key


def welcome_fields(welcome: Welcome) -> dict[str, Any]:
    """Return the host's welcome."""
    texts = {name: getattr(welcome, name) for name in _TEXTS}
    return {"t": "welcome", **texts, **{name: _text64(getattr(welcome, name)) for name in ("key", "roster", "vouch")}}


_NOT_IN_ABOUT = re.compile(r"[^A-Za-z0-9 ._-]")
"""It is shown beside the key's fingerprint: the guest's words must not be able to show another one there."""

_TEXTS = ("title", "cluster", "board", "host_key", "mailbox", "relay", "topic")


def read_welcome(fields: Mapping[str, Any], host: Inviter, guest: str, *, own: bool) -> Welcome:
    """Check the welcome of ``host`` to the key ``guest``, a fingerprint. Raises ``WrongPeer``."""
    texts = {}
    for name in _TEXTS:
        value = fields.get(name)
        if not isinstance(value, str) or len(value) > 1000 or plain(value, 1000) != value:
            raise nonsense("host")
        texts[name] = value
    welcome = Welcome(
        **texts,
        key=_bytes64(fields, "key", "host", 32),
        roster=_bytes64(fields, "roster", "host", MAX_ROSTER),
        vouch=_bytes64(fields, "vouch", "host", MAX_VOUCH),
    )
    if (welcome.title, welcome.cluster) != (host.title, host.cluster) or len(welcome.key) != 32:
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


def _text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes64(fields: Mapping[str, Any], name: str, who: str, most: int) -> bytes:
    text = fields.get(name)
    if not isinstance(text, str) or len(text) > (most + 2) // 3 * 4:
        raise nonsense(who)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise nonsense(who) from None
    if len(data) > most:
        raise nonsense(who)
    return data
