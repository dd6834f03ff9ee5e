"""The roster: the members of a cluster of several people, a list that its owner signs.

A **title** is what people say, ``alice/friends``; the cluster's **id** is the fingerprint of the owner's SSH key and
the name. The **roster** names the members and their keys, says until when it counts, and commits to the topic and the
key of the board's lines without containing them. Its **epoch** rises with each change; readers take a higher one only.
The owner's signature proves it, so anybody may hand it on.

On the board a roster travels in parts (``RosterPart``), which ``Parts`` puts together again, within bounds.

Pure: time is an argument.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol.identity import BadIdentity, Certificate, ClusterSecret, Signer, fingerprint, sign, verify
from p2p_ipython.protocol.messages import RosterPart
from p2p_ipython.protocol.plain import plain

ROSTER_NAMESPACE = "p2p-ipython-roster@v1"

ROLES = ("client", "worker")
"""The roles that a member may have; the owner may be ``host`` as well."""

MAX_ROSTER = 128 << 10
"""Bytes of a signed roster: about a thousand members."""

MAX_MEMBERS = 1000
MAX_KEYS = 16
"""Keys of one member."""

PART = 780
"""Bytes of a roster in a line, beside a signature and the largest certificate: a line has at most 4,096 characters."""

_TITLE = re.compile(r"(?P<owner>[a-z0-9]{1,50})/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,49})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


# --- titles -----------------------------------------------------------------------------------------


def parse_title(text: str) -> tuple[str, str]:
    """Split ``OWNER/NAME``. Raises ``ConfigError`` for what is no title of a shared cluster."""
    found = _TITLE.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"{plain(text, 80)!r} is no title of a shared cluster",
            hint="It is OWNER/NAME, as alice/friends: a short name of the owner in small letters, then the cluster's.",
        )
    return found["owner"], found["name"]


def is_title(text: str) -> bool:
    """Return whether ``text`` is a title of a shared cluster: its owner, a slash, its name."""
    return _TITLE.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Return whether ``text`` can be a member's or a cluster's name: it means nothing more to a terminal or a shell."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str) -> str:
    """Return the name of a member or a cluster. Raises ``ConfigError`` for one that can't be."""
    if not _NAME.fullmatch(text):
        raise ConfigError(
            f"{plain(text, 80)!r} can't be a name here",
            hint="Use letters, digits, '.', '_' and '-', at most 50, a letter or a digit first.",
        )
    return text


def is_fingerprint(text: str) -> bool:
    """Return whether ``text`` is ``SHA256:…`` as ``ssh-keygen -l`` prints it."""
    return _FINGERPRINT.fullmatch(text) is not None


def owner_of(cluster: str) -> str:
    """Return the owner's fingerprint, from a cluster's id."""
    return cluster.rpartition("/")[0]


# --- the lobby --------------------------------------------------------------------------------------


def lobby_secret(title: str) -> ClusterSecret:
    """Return topic and key of a cluster's lobby, where guests knock who know only its title.

    Both follow from the title, so lines there are signed but not secret; the key only gives them the usual form.
    The "cluster" of certificates that are shown there is the title.
    """

    def derive(purpose: bytes) -> bytes:
        return hashlib.sha256(b"p2p-ipython/lobby/v1\0" + purpose + b"\0" + title.encode()).digest()

    return ClusterSecret(title, "p2p-lobby-" + derive(b"topic")[:16].hex(), derive(b"key"))


# --- the roster -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """A member, as a roster has them: ``keys`` are fingerprints, ``roles`` some of ``ROLES``."""

    name: str
    keys: tuple[str, ...]
    roles: tuple[str, ...] = ROLES


@dataclass(frozen=True)
class Roster:
    """The members of a cluster at an ``epoch``; counts until ``until`` (Unix time, s).

    ``secret`` is the commitment to topic and key (see ``commitment``), ``wire`` the signed bytes, "" before
    ``signed``. The first member is the owner.
    """

    cluster: str
    title: str
    epoch: int
    until: int
    secret: str
    members: tuple[Member, ...]
    wire: bytes = field(default=b"", repr=False)

    @property
    def owner(self) -> str:
        """The owner's fingerprint."""
        return owner_of(self.cluster)

    def member(self, fingerprint: str) -> Member | None:
        """Return the member whose key that is."""
        return self._by_key.get(fingerprint)

    @cached_property
    def _by_key(self) -> dict[str, Member]:
        """The members by key: each line that is heard asks for one, so there is no search through all of them."""
        return {key: member for member in self.members for key in member.keys}

    def named(self, name: str) -> Member | None:
        """Return the member of that name."""
        return next((member for member in self.members if member.name == name), None)

    def admits(self, certificate: Certificate, now: float) -> bool:
        """Return whether a session belongs here at ``now``, in the role that it claims."""
        if now > self.until:
            return False
        member = self.member(certificate.signer)
        if certificate.role == "host":
            return certificate.signer == self.owner
        return member is not None and certificate.role in member.roles

    def signed(self, signer: Signer) -> Roster:
        """Return the roster, signed by its owner. Raises ``NoKey``, and ``ConfigError`` for one that is too large."""
        if fingerprint(signer.asbytes()) != self.owner:
            raise ConfigError(
                f"only the owner's key can change the members of {self.title}",
                hint=f"That is {self.owner}; name its file with --identity.",
            )
        body = json.dumps(
            {
                "cluster": self.cluster,
                "title": self.title,
                "epoch": self.epoch,
                "until": self.until,
                "secret": self.secret,
                "members": [{"name": m.name, "keys": m.keys, "roles": m.roles} for m in self.members],
            },
            separators=(",", ":"),
        ).encode()
        sshsig = sign(signer, body, ROSTER_NAMESPACE)
        wire = len(body).to_bytes(4, "big") + body + len(sshsig).to_bytes(4, "big") + sshsig
        try:
            return Roster.parse(wire, self.cluster)
        except BadIdentity as error:
            raise ConfigError(
                f"{self.title} can't have such a list of members: {error}", hint="Make it smaller."
            ) from None

    @classmethod
    def parse(cls, wire: bytes, cluster: str) -> Roster:
        """Read a roster that anybody may have handed on; when this returns, the owner of ``cluster`` has signed it.

        Raises ``BadIdentity``. ``admits`` says whether it still counts.
        """
        if len(wire) > MAX_ROSTER:
            raise BadIdentity("a roster that is too large")
        body, sshsig = _two(wire)
        if fingerprint(verify(sshsig, body, ROSTER_NAMESPACE)) != owner_of(cluster):
            raise BadIdentity("a roster that the cluster's owner has not signed")
        try:
            fields = json.loads(body)
            roster = cls(
                cluster=_text(fields, "cluster"),
                title=_text(fields, "title"),
                epoch=_whole(fields, "epoch"),
                until=_whole(fields, "until"),
                secret=_text(fields, "secret"),
                members=tuple(_member(one) for one in fields["members"]),
                wire=wire,
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadIdentity("a roster that does not parse") from None
        if roster.cluster != cluster or not is_title(roster.title):
            raise BadIdentity("a roster of another cluster")
        if cluster.rpartition("/")[2] != roster.title.partition("/")[2]:
            raise BadIdentity("a roster whose title is another cluster's")
        if not 1 <= len(roster.members) <= MAX_MEMBERS or roster.epoch < 1:
            raise BadIdentity("a roster without members, or with too many")
        if roster.owner not in roster.members[0].keys:
            raise BadIdentity("a roster without its owner")
        keys = [key for member in roster.members for key in member.keys]
        names = [member.name for member in roster.members]
        if len(set(keys)) != len(keys) or len(set(names)) != len(names):
            raise BadIdentity("a roster with a name or a key twice")
        return roster


def commitment(secret: ClusterSecret) -> str:
    """Return a roster's commitment to the topic and the key: enough to recognise them, too little to find them."""
    topic = secret.topic.encode()
    text = b"p2p-ipython/roster/v1\0" + len(topic).to_bytes(4, "big") + topic + secret.key
    return hashlib.sha256(text).hexdigest()


def _member(fields: Any) -> Member:
    name, keys, roles = fields["name"], fields["keys"], fields["roles"]
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ValueError
    if not (isinstance(keys, list) and 1 <= len(keys) <= MAX_KEYS and all(map(is_fingerprint, keys))):
        raise ValueError
    if not (isinstance(roles, list) and all(role in ROLES for role in roles) and len(set(roles)) == len(roles)):
        raise ValueError
    return Member(name, tuple(keys), tuple(roles))


def _text(fields: Any, name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError
    return value


def _whole(fields: Any, name: str) -> int:
    value = fields[name]
    if type(value) is not int or not 0 <= value <= 1 << 53:
        raise ValueError
    return value


def _two(wire: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(wire[:4], "big")
    body, rest = wire[4 : 4 + size], wire[4 + size :]
    if len(body) != size or int.from_bytes(rest[:4], "big") != len(rest) - 4:
        raise BadIdentity("a roster that is cut short")
    return body, rest[4:]


# --- on the board -----------------------------------------------------------------------------------


def parts_of(roster: Roster) -> list[RosterPart]:
    """Cut a signed roster into the messages that carry it."""
    pieces = [roster.wire[start : start + PART] for start in range(0, len(roster.wire), PART)]
    return [RosterPart(roster.epoch, number, len(pieces), piece) for number, piece in enumerate(pieces)]


_Incomplete = tuple[int, int, dict[int, bytes]]  # epoch, how many parts, the parts


class Parts:
    """Puts the parts of rosters together, in any order. Anybody who has the cluster's key can send parts.

    At most ``AT_ONCE`` incomplete rosters are kept, one a sender; the sender heard longest ago makes room. As many
    again are kept of senders who aren't members, and can't push the members' out. (By the roster that they send, they
    may be members.)
    """

    AT_ONCE = 8

    def __init__(self) -> None:
        self._members: dict[bytes, _Incomplete] = {}
        self._others: dict[bytes, _Incomplete] = {}

    def add(self, sender: bytes, part: RosterPart, *, admitted: bool = True) -> bytes | None:
        """Take a part from a session; return the roster's bytes when they are complete."""
        incomplete = self._members if admitted else self._others
        epoch, count, pieces = incomplete.pop(sender, (0, 0, {}))
        if (epoch, count) != (part.epoch, part.parts):
            pieces = {}
        pieces[part.part] = part.data
        if len(pieces) == part.parts:
            return b"".join(pieces[number] for number in range(part.parts))
        incomplete[sender] = (part.epoch, part.parts, pieces)
        if len(incomplete) > self.AT_ONCE:
            del incomplete[next(iter(incomplete))]
        return None


def changed(
    roster: Roster, members: Iterable[Member], *, until: int | None = None, secret: str | None = None
) -> Roster:
    """Make the next epoch of ``roster``, not signed yet."""
    return Roster(
        cluster=roster.cluster,
        title=roster.title,
        epoch=roster.epoch + 1,
        until=roster.until if until is None else until,
        secret=roster.secret if secret is None else secret,
        members=tuple(members),
    )
