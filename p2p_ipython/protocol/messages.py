"""What members say on the board: one frozen dataclass a verb, parsed once, at the edge.

``encode`` makes a message's JSON, ``decode`` reads a stranger's and raises ``BadMessage`` for whatever is not
exactly as it should be; behind it, types are trusted. Text from a member is cut to a length and stripped of
control characters here, so that nobody further in has to think of it.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

MAX_BOX = 800
"""Bytes of a sealed box in an ``accept``: code, mailbox and relay need about 250."""


class BadMessage(ValueError):
    """A message that doesn't parse; the text says what is wrong with it."""


@dataclass(frozen=True)
class Terms:
    """A standing offer: what a worker lends, and until when (Unix time, seconds; 0: open end).

    ``slots`` tasks at a time, of which ``free`` are free now; ``python`` is its minor version ("3.11");
    ``memory`` is bytes.
    """

    slots: int
    free: int
    python: str
    platform: str = ""
    cores: int = 0
    memory: int = 0
    until: int = 0


@dataclass(frozen=True)
class Hello:
    """I am here; a worker's carries its standing offer. ``time`` is the sender's clock, Unix seconds."""

    name: str
    time: int
    offer: Terms | None = None


@dataclass(frozen=True)
class Request:
    """I have work and no worker: whoever can run ``python`` ("" for any), say hello with your offer."""

    python: str = ""


@dataclass(frozen=True)
class Accept:
    """I take up the offer of the worker ``to`` (its sid). ``box`` is sealed to it: where and how to meet."""

    to: bytes
    box: bytes


@dataclass(frozen=True)
class Bye:
    """I am leaving."""


Message = Hello | Request | Accept | Bye


@dataclass(frozen=True)
class Rendezvous:
    """What is sealed in an ``accept``: a wormhole code, used once, the mailbox, and the relay or "".

    The code is a secret; it has no place in a repr.
    """

    code: str
    mailbox: str
    relay: str

    def __repr__(self) -> str:
        return f"Rendezvous(code=<secret>, mailbox={self.mailbox!r}, relay={self.relay!r})"


def encode(message: Message) -> bytes:
    """The message as JSON; its verb is under "v"."""
    match message:
        case Hello():
            fields: dict[str, Any] = {"v": "hello", "name": message.name, "time": message.time}
            if message.offer is not None:
                fields["offer"] = asdict(message.offer)
        case Request():
            fields = {"v": "request", "python": message.python}
        case Accept():
            fields = {"v": "accept", "to": message.to.hex(), "box": base64.b64encode(message.box).decode()}
        case Bye():
            fields = {"v": "bye"}
    return json.dumps(fields, separators=(",", ":")).encode()


def decode(text: bytes) -> Message:
    """Read a stranger's message. Raises ``BadMessage``.

    Unknown fields are ignored, so that later versions can say more; unknown verbs are not a message.
    """
    fields = _object(text)
    match fields.get("v"):
        case "hello":
            offer = fields.get("offer")
            return Hello(
                name=_text(fields, "name", 64),
                time=_whole(fields, "time"),
                offer=None if offer is None else _terms(offer),
            )
        case "request":
            return Request(python=_text(fields, "python", 16))
        case "accept":
            to = _bytes(fields, "to", bytes.fromhex, 16, least=16)
            return Accept(to=to, box=_bytes(fields, "box", _unbase64, MAX_BOX))
        case "bye":
            return Bye()
        case _:
            raise BadMessage("an unknown verb")


def encode_rendezvous(rendezvous: Rendezvous) -> bytes:
    """The text to seal."""
    fields = {"code": rendezvous.code, "mailbox": rendezvous.mailbox, "relay": rendezvous.relay}
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_rendezvous(text: bytes) -> Rendezvous:
    """Read what was sealed to us. Raises ``BadMessage`` (whose text holds nothing of it)."""
    fields = _object(text)
    rendezvous = Rendezvous(_text(fields, "code", 200), _text(fields, "mailbox", 200), _text(fields, "relay", 200))
    if not rendezvous.code or not rendezvous.mailbox.startswith(("ws://", "wss://")):
        raise BadMessage("a rendezvous without a code or a mailbox")
    if rendezvous.relay and not rendezvous.relay.startswith("tcp:"):
        raise BadMessage("a rendezvous with a relay that is not tcp:HOST:PORT")
    return rendezvous


def plain(text: str, limit: int) -> str:
    """``text`` without control, format, surrogate and line-breaking characters, cut to ``limit`` characters.

    Format characters include those that reverse the reading direction, which could make one name look like
    another.
    """
    return "".join(c for c in text[: 4 * limit] if not _controls(unicodedata.category(c)))[:limit]


def _controls(category: str) -> bool:
    """Whether characters of a Unicode category are control, format, surrogate, unassigned, or break lines."""
    return category[0] == "C" or category in ("Zl", "Zp")


def _terms(fields: Any) -> Terms:
    if not isinstance(fields, dict):
        raise BadMessage("an offer that is not an object")
    slots, free = _whole(fields, "slots", 4096), _whole(fields, "free", 4096)
    if free > slots:
        raise BadMessage("an offer of more free slots than slots")
    return Terms(
        slots=slots,
        free=free,
        python=_text(fields, "python", 16),
        platform=_text(fields, "platform", 64),
        cores=_whole(fields, "cores", 1 << 16),
        memory=_whole(fields, "memory"),
        until=_whole(fields, "until"),
    )


def _object(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessage("not JSON") from None
    if not isinstance(fields, dict):
        raise BadMessage("not a JSON object")
    return fields


def _text(fields: dict[str, Any], name: str, limit: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > 4 * limit:
        raise BadMessage(f"{name} is not a text of at most {limit} characters")
    return plain(value, limit)


def _whole(fields: dict[str, Any], name: str, limit: int = 1 << 53) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise BadMessage(f"{name} is not a whole number from 0 to {limit}")
    return value


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _bytes(fields: dict[str, Any], name: str, read: Callable[[str], bytes], limit: int, least: int = 1) -> bytes:
    value = fields.get(name)
    try:
        data = read(value) if isinstance(value, str) and len(value) <= 2 * limit else b""
    except ValueError:
        data = b""
    if not least <= len(data) <= limit:
        raise BadMessage(f"{name} is not {least} to {limit} bytes")
    return data
