"""A profile: what this user knows of one shared cluster, and its form on disk, JSON. Pure.

Promises: a profile is read whole and checked strictly, or not at all. A profile that a newer version has written is
refused; fields that a newer version has added are kept.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from p2p_ipython.protocol.roster import is_title, parse_title

VERSION = 1
MAX_PROFILE = 1 << 20
"""Largest profile, bytes of JSON; a roster is at most 128 KiB of it."""

KEY_SIZE = 32


class WrongProfile(ValueError):
    """The reason why a text is no profile; never its values, which may be secret."""


class NewerProfile(ValueError):
    """The version, newer than ours, that has written a text."""


@dataclass(frozen=True)
class Hosting:
    """The owner's decisions for the host process.

    ``until`` is Unix time, seconds: how long the cluster is hosted. ``expected`` holds the names that may knock, with
    the fingerprint that each must have, or "" for any.
    """

    until: int
    expected: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "expected", MappingProxyType(dict(sorted(self.expected.items()))))

    def __reduce__(self) -> str | tuple[object, ...]:
        return (Hosting, (self.until, dict(self.expected)))


@dataclass(frozen=True)
class Profile:
    """One shared cluster, as this user knows it. Its repr shows nothing secret."""

    title: str
    """As people say it, ``alice/friends``."""
    cluster: str
    """Its id, ``SHA256:…/friends``."""
    board: str
    """``[USER@]HOST[:PORT]``"""
    host_key: str
    """The board's public key, one line; "" if known-hosts files decide."""
    mailbox: str
    """A websocket URL; "" for the board's own, or the public one."""
    relay: str
    """``tcp:HOST:PORT``; "" as with the mailbox."""
    identity: str
    """Path of the key file; "" for the one that ssh would choose."""
    signer: str
    """The fingerprint of our own key in this cluster."""
    topic: str = field(repr=False)
    """As secret as the key: anyone who knows it can stall the topic."""
    key: bytes = field(repr=False)
    """Of the board's lines, 32 bytes."""
    roster: bytes = field(repr=False)
    """As its owner signed it; b"" before the first has come."""
    trusted: frozenset[str] = frozenset()
    """Fingerprints of members whose results may be pickles."""
    vouch: bytes = field(default=b"", repr=False)
    """The owner's word for a machine of the owner's that has a key of its own."""
    hosting: Hosting | None = None
    """In the owner's own profile only."""


def parse(data: bytes) -> tuple[Profile, dict[str, Any]]:
    """Read a profile, and all fields of its text. Raises ``WrongProfile``, ``NewerProfile``."""
    if len(data) > MAX_PROFILE:
        raise WrongProfile(f"it is larger than {MAX_PROFILE} bytes")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise WrongProfile("it is not JSON") from None
    if not isinstance(fields, dict):
        raise WrongProfile("it is not a JSON object")
    version = fields.get("version")
    if type(version) is int and version > VERSION:
        raise NewerProfile(version)
    if version != VERSION or type(version) is not int:
        raise WrongProfile("it has no version")
    return _profile(fields), fields


def text_of(profile: Profile, others: Mapping[str, Any]) -> bytes:
    """Return the text of a profile, with ``others``, fields that are not ours. Raises ``WrongProfile``."""
    fields = {**others, **_as_fields(profile)}
    if profile.hosting is not None and isinstance(others.get("hosting"), dict):
        fields["hosting"] = {**others["hosting"], **fields["hosting"]}
    data = json.dumps(fields, indent=1, ensure_ascii=True).encode() + b"\n"
    assert parse(data)[0] == profile, "what is written can be read"
    return data


def _as_fields(profile: Profile) -> dict[str, Any]:
    hosting = profile.hosting
    return {
        "version": VERSION,
        **{name: getattr(profile, name) for name in _TEXTS},
        "key": profile.key.hex(),
        "roster": base64.b64encode(profile.roster).decode(),
        "trusted": sorted(profile.trusted),
        "vouch": base64.b64encode(profile.vouch).decode(),
        "hosting": None if hosting is None else {"until": hosting.until, "expected": dict(hosting.expected)},
    }


_TEXTS = ("title", "cluster", "board", "host_key", "mailbox", "relay", "identity", "signer", "topic")


def _profile(fields: dict[str, Any]) -> Profile:
    texts = {name: _text(fields, name) for name in _TEXTS}
    if not is_title(texts["title"]):
        raise WrongProfile("title is none")
    if not texts["cluster"].endswith(f"/{parse_title(texts['title'])[1]}"):
        raise WrongProfile("cluster does not fit the title")
    key = _text(fields, "key")
    if not re.fullmatch(f"[0-9a-f]{{{2 * KEY_SIZE}}}", key):
        raise WrongProfile(f"key is not {2 * KEY_SIZE} hexadecimal digits")
    trusted = fields.get("trusted")
    if not isinstance(trusted, list) or not all(isinstance(entry, str) for entry in trusted):
        raise WrongProfile("trusted is not a list of texts")
    return Profile(
        **texts,
        key=bytes.fromhex(key),
        roster=_bytes(fields, "roster"),
        trusted=frozenset(trusted),
        vouch=_bytes(fields, "vouch"),
        hosting=_hosting(fields.get("hosting")),
    )


def _hosting(fields: object) -> Hosting | None:
    if fields is None:
        return None
    if not isinstance(fields, dict) or type(fields.get("until")) is not int:
        raise WrongProfile("hosting has no time until which it lasts")
    expected = fields.get("expected")
    if not isinstance(expected, dict) or not all(isinstance(entry, str) for entry in expected.values()):
        raise WrongProfile("hosting does not say who is expected")
    return Hosting(fields["until"], expected)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise WrongProfile(f"{name} is not a text")
    return value


def _bytes(fields: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(_text(fields, name), validate=True)
    except ValueError:
        raise WrongProfile(f"{name} is not base64") from None
