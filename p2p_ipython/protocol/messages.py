"""The messages on the board: one frozen dataclass a verb, parsed once, at the edge.

``encode`` makes a message's JSON. ``decode`` reads anybody's, and raises ``BadMessage`` for one that is not exactly as
it should be; behind it, types are trusted. Text is cut to a length and stripped of control characters here, so that no
code further in has to think of it.
"""

from __future__ import annotations

import base64
import enum
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from p2p_ipython.protocol.plain import plain

MAX_BOX = 800
"""Bytes of a sealed box in an ``accept`` or a ``grant``: code, mailbox and relay need about 250."""

MAX_PART = 1024
"""Bytes of a roster in one line."""

MAX_PARTS = 256

TOPIC = re.compile(r"p2p-[0-9a-f]{32}")
"""Topics of clusters: 128 secret bits."""

MAX_NAME = 64
"""Characters of a session's name for itself."""

MAX_ONLY = 8
"""Keys of the members whom an offer is for; with all its conditions a hello must fit its line (wire.py)."""

MAX_KINDS = 4
"""Kinds of graphics cards that an offer names."""

MAX_CARDS = 64
"""Cards of a kind."""

MAX_CARD_NAME = 40

MAX_HELLO = 1136
"""Bytes of a hello for which a line has room beside the longest certificate (wire.py)."""

MAX_TAGS = 8
TAG = re.compile(r"[a-z0-9._-]{1,24}")
"""A word that tells what a worker is good for."""

NO_WALL = "process"
"""The sandbox that protects from nothing. An offer that names none, as those of earlier versions, has this one."""

_WHY = re.compile(r"(?:[a-z-]{1,16})?")
_ENGINE = re.compile(rf"(?:{TAG.pattern})?")

_PRINT = "SHA256:"
_DIGEST = re.compile(r"[A-Za-z0-9+/]{43}")


class BadMessage(ValueError):
    """A message that doesn't parse; the text says what is wrong with it."""


@dataclass(frozen=True)
class CardKind:
    """The graphics cards of one kind that a worker lends; ``memory``: bytes of each, 0 if unknown."""

    count: int
    name: str
    memory: int = 0


def cards_words(cards: Iterable[CardKind]) -> str:
    """Return the kinds of cards in words: "2 × NVIDIA A40 with 45 GiB"; "" for none."""
    each = (
        f"{f'{kind.count} × ' if kind.count > 1 else ''}{kind.name}"
        f"{f' with {kind.memory / (1 << 30):.3g} GiB' if kind.memory else ''}"
        for kind in cards
    )
    return ", ".join(each)


WHY: Mapping[str, str] = {
    "hours": "outside its hours",
    "in-use": "its lender is using it",
    "battery": "on battery",
    "load": "busy with other work",
    "bytes": "its day's bytes are used up",
    "who": "it is lent to others",
    "input": "the task is too large for it",
    "asking": "its lender is asked",
    "no": "its lender has said no",
    "packages": "it installs no such packages",
    "engine": "its engine is away",
}
"""A lender's reasons to take nothing for now, or not this task: word on the wire → for people."""


def why_words(why: str) -> str:
    """Return a lender's reason for people; that of a later version is its own word."""
    return WHY.get(why, why)


@dataclass(frozen=True)
class Terms:
    """A standing offer of a worker, which lends until ``until`` (Unix time, seconds; 0: open end).

    ``slots`` tasks at a time, of which ``free`` are free now; ``python`` is its minor version ("3.11");
    ``memory`` is bytes. ``only``: fingerprints of the members' keys that it is for; () for everybody. The worker's own
    member always may. ``tags`` are words that tasks may ask for. ``paused``: it takes no new tasks for now. ``sandbox``
    is the mechanism that its tasks run behind, in a word; "process" has no wall. ``cards``: the graphics cards that
    tasks may use, whole ones for each slot. ``not_for``: fingerprints of keys that it is not for. ``input``: the most
    bytes that one task may bring; 0: any number. ``why`` it is paused, in a word (``WHY``); "": by hand.
    ``edition`` rises when the lender has changed conditions or answered a question: a task that was refused under
    another one may be sent again. ``task_memory``: the most bytes of memory that one task may use; 0 if unknown.
    ``packages``: whose tasks may have packages installed, in a word of packages.py; "": nobody's, as those of earlier
    versions. ``engine``: what runs the tasks in place of this machine, in a word; "": nothing does. Memory and
    processors are the engine's own, and what tasks print comes at their end.
    """

    slots: int
    free: int
    python: str
    platform: str = ""
    cores: int = 0
    memory: int = 0
    until: int = 0
    only: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    paused: bool = False
    sandbox: str = NO_WALL
    cards: tuple[CardKind, ...] = ()
    not_for: tuple[str, ...] = ()
    input: int = 0
    why: str = ""
    edition: int = 0
    task_memory: int = 0
    packages: str = ""
    engine: str = ""

    @property
    def cards_each(self) -> int:
        """The graphics cards that each slot has, at least."""
        return sum(kind.count for kind in self.cards) // self.slots if self.slots else 0

    @property
    def walled(self) -> bool:
        """Whether tasks run in a sandbox."""
        return self.sandbox != NO_WALL

    @property
    def machine(self) -> str:
        """Its platform; and the engine, if one runs the tasks, with what is different there."""
        if not self.engine:
            return self.platform
        return f"{self.platform} (engine {self.engine}: memory and cores are its own; output comes at the end)"

    @property
    def pause(self) -> str:
        """Say that it is paused, and why if its lender's policy has done that."""
        return f"paused: {why_words(self.why)}" if self.why else "paused"


@dataclass(frozen=True)
class Hello:
    """I am here; a worker's carries its standing offer. ``time`` is the sender's clock, Unix seconds.

    ``epoch`` is that of the roster that the sender knows; 0: none, as in personal clusters.
    """

    name: str
    time: int
    offer: Terms | None = None
    epoch: int = 0


@dataclass(frozen=True)
class Request:
    """I have work and no worker: workers that can run ``python`` ("" for any), say hello with your offer."""

    python: str = ""


@dataclass(frozen=True)
class Accept:
    """I take up the offer of the worker ``to`` (its sid). ``box`` is sealed to it: where and how to meet."""

    to: bytes
    box: bytes


@dataclass(frozen=True)
class Bye:
    """I am leaving."""


@dataclass(frozen=True)
class RosterPart:
    """Part number ``part`` of ``parts`` of the signed roster of ``epoch``. Any session may say it."""

    epoch: int
    part: int
    parts: int
    data: bytes


@dataclass(frozen=True)
class Ask:
    """Admit me: give me the topic and the key that go with the roster. ``epoch`` is that of the roster I have.

    From a guest on the lobby, who isn't in the roster, it is a knock: ``name`` is the name that the guest asks for.
    """

    name: str
    epoch: int = 0


@dataclass(frozen=True)
class Grant:
    """The host's answer to the session ``to``: ``box``, sealed to it, holds topic and key (see ``Admission``)."""

    to: bytes
    epoch: int
    box: bytes


class Reply(enum.Enum):
    """The reason why there is no grant; the value is on the wire."""

    WAITING = "waiting"
    """The owner has been asked, and hasn't answered."""
    NO = "no"
    """The owner has refused."""


@dataclass(frozen=True)
class Answer:
    """The host's answer to the session ``to``, which asked: no grant, or not yet."""

    to: bytes
    reply: Reply


Message = Hello | Request | Accept | Bye | RosterPart | Ask | Grant | Answer


@dataclass(frozen=True)
class Rendezvous:
    """The text sealed in an ``accept``: a wormhole code, used once, the mailbox, and the relay or "".

    ``own``: the two are the board's own, and its members know by themselves how they reach these.

    The code is a secret; it has no place in a repr.
    """

    code: str
    mailbox: str
    relay: str
    own: bool = False

    def __repr__(self) -> str:
        return f"Rendezvous(code=<secret>, mailbox={self.mailbox!r}, relay={self.relay!r})"


@dataclass(frozen=True)
class Admission:
    """The text sealed in a ``grant``: the cluster's id, and the topic and the key of its lines.

    Topic and key are secrets; they have no place in a repr.
    """

    cluster: str
    topic: str = field(repr=False)
    key: bytes = field(repr=False)


def encode(message: Message) -> bytes:
    """Return the message as JSON; its verb is under "v"."""
    match message:
        case Hello():
            fields: dict[str, Any] = {"v": "hello", "name": plain(message.name, MAX_NAME), "time": message.time}
            if message.offer is not None:
                fields["offer"] = _offer(message.offer)
            if message.epoch:
                fields["epoch"] = message.epoch
            # Conditions come first, should all together be too long for a line. Without a card or a tag fewer tasks
            # are for it, never others.
            for name in ("cards", "tags"):
                while len(_json(fields)) > MAX_HELLO and fields.get("offer", {}).get(name):
                    fields["offer"] |= {name: fields["offer"][name][:-1]}
        case Request():
            fields = {"v": "request", "python": message.python}
        case Accept():
            fields = {"v": "accept", "to": message.to.hex(), "box": base64.b64encode(message.box).decode()}
        case Bye():
            fields = {"v": "bye"}
        case RosterPart():
            fields = {"v": "roster", "epoch": message.epoch, "part": message.part, "parts": message.parts}
            fields["data"] = base64.b64encode(message.data).decode()
        case Ask():
            fields = {"v": "ask", "name": message.name, "epoch": message.epoch}
        case Grant():
            fields = {"v": "grant", "to": message.to.hex(), "epoch": message.epoch}
            fields["box"] = base64.b64encode(message.box).decode()
        case Answer():
            fields = {"v": "answer", "to": message.to.hex(), "reply": message.reply.value}
    return _json(fields)


def _json(fields: dict[str, Any]) -> bytes:
    """Return JSON as UTF-8, in which a name of letters that aren't Latin has half the size of its escapes."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")


def decode(text: bytes) -> Message:
    """Read a message, which may be anybody's. Raises ``BadMessage``.

    Unknown fields are ignored, so that later versions can say more; unknown verbs are not a message.
    """
    fields = _object(text)
    match fields.get("v"):
        case "hello":
            offer = fields.get("offer")
            return Hello(
                name=_text(fields, "name", MAX_NAME),
                time=_whole(fields, "time"),
                offer=None if offer is None else _terms(offer),
                epoch=_whole(fields, "epoch") if "epoch" in fields else 0,
            )
        case "request":
            return Request(python=_text(fields, "python", 16))
        case "accept":
            to = _bytes(fields, "to", bytes.fromhex, 16, least=16)
            return Accept(to=to, box=_bytes(fields, "box", _unbase64, MAX_BOX))
        case "bye":
            return Bye()
        case "roster":
            part, parts = _whole(fields, "part", MAX_PARTS), _whole(fields, "parts", MAX_PARTS)
            if part >= parts:
                raise BadMessage("a part of a roster that has fewer")
            return RosterPart(_whole(fields, "epoch"), part, parts, _bytes(fields, "data", _unbase64, MAX_PART))
        case "ask":
            return Ask(name=_text(fields, "name", MAX_NAME), epoch=_whole(fields, "epoch"))
        case "grant":
            box = _bytes(fields, "box", _unbase64, MAX_BOX)
            return Grant(_bytes(fields, "to", bytes.fromhex, 16, least=16), _whole(fields, "epoch"), box)
        case "answer":
            to = _bytes(fields, "to", bytes.fromhex, 16, least=16)
            try:
                return Answer(to, Reply(fields.get("reply")))
            except ValueError:
                raise BadMessage("an unknown reply") from None
        case _:
            raise BadMessage("an unknown verb")


def encode_rendezvous(rendezvous: Rendezvous) -> bytes:
    """Return the text to seal."""
    fields: dict[str, Any] = {"code": rendezvous.code, "mailbox": rendezvous.mailbox, "relay": rendezvous.relay}
    if rendezvous.own:
        fields["own"] = True
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_rendezvous(text: bytes) -> Rendezvous:
    """Read a text that was sealed to us. Raises ``BadMessage`` (whose words hold nothing of it)."""
    fields = _object(text)
    code, mailbox, relay = (_text(fields, name, 200) for name in ("code", "mailbox", "relay"))
    rendezvous = Rendezvous(code, mailbox, relay, fields.get("own") is True)
    if not rendezvous.code or not rendezvous.mailbox.startswith(("ws://", "wss://")):
        raise BadMessage("a rendezvous without a code or a mailbox")
    if rendezvous.relay and not rendezvous.relay.startswith("tcp:"):
        raise BadMessage("a rendezvous with a relay that is not tcp:HOST:PORT")
    return rendezvous


def encode_admission(admission: Admission) -> bytes:
    """Return the text to seal."""
    fields = {"cluster": admission.cluster, "topic": admission.topic, "key": admission.key.hex()}
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_admission(text: bytes) -> Admission:
    """Read a text that was sealed to us. Raises ``BadMessage`` (whose words hold nothing of it)."""
    fields = _object(text)
    topic = _text(fields, "topic", 100)
    if not TOPIC.fullmatch(topic):
        raise BadMessage("an admission to a topic that can't be")
    return Admission(_text(fields, "cluster", 200), topic, _bytes(fields, "key", bytes.fromhex, 32, least=32))


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
        only=tuple(_PRINT + digest for digest in _words(fields, "only", _DIGEST, MAX_ONLY)),
        tags=_words(fields, "tags", TAG, MAX_TAGS),
        paused=_flag(fields, "paused"),
        sandbox=_word(fields, "sandbox", TAG, NO_WALL),
        cards=_cards(fields.get("cards", [])),
        not_for=tuple(_PRINT + digest for digest in _words(fields, "not_for", _DIGEST, MAX_ONLY)),
        input=_whole(fields, "input") if "input" in fields else 0,
        why=_word(fields, "why", _WHY, ""),
        edition=_whole(fields, "edition") if "edition" in fields else 0,
        task_memory=_whole(fields, "task_memory") if "task_memory" in fields else 0,
        packages=_word(fields, "packages", _WHY, ""),
        engine=_word(fields, "engine", _ENGINE, ""),
    )


def _cards(value: Any) -> tuple[CardKind, ...]:
    if not isinstance(value, list) or len(value) > MAX_KINDS:
        raise BadMessage(f"cards is not a list of at most {MAX_KINDS} kinds")
    kinds = []
    for each in value:
        if not isinstance(each, dict):
            raise BadMessage("a kind of cards that is not an object")
        if not (number := _whole(each, "n", MAX_CARDS)):
            raise BadMessage("a kind of cards without a card")
        kinds.append(CardKind(number, _text(each, "name", MAX_CARD_NAME), _whole(each, "memory")))
    return tuple(kinds)


def _offer(terms: Terms) -> dict[str, Any]:
    """Return an offer's fields, without conditions that it hasn't: earlier versions don't know them."""
    fields = asdict(terms)
    for name in ("only", "not_for"):
        fields[name] = [key.removeprefix(_PRINT) for key in fields[name]]
    if terms.sandbox == NO_WALL:
        del fields["sandbox"]
    fields["cards"] = [
        {"n": min(kind.count, MAX_CARDS), "name": plain(kind.name, MAX_CARD_NAME), "memory": kind.memory}
        for kind in terms.cards[:MAX_KINDS]
    ]
    return {name: value for name, value in fields.items() if value or name not in _CONDITIONS}


_CONDITIONS = (
    *("only", "tags", "paused", "cards", "not_for", "input", "why", "edition"),
    *("task_memory", "packages", "engine"),
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


def _words(fields: dict[str, Any], name: str, word: re.Pattern[str], most: int) -> tuple[str, ...]:
    """Return the words of a list that may be missing; each fits ``word``."""
    value = fields.get(name, [])
    if (
        not isinstance(value, list)
        or len(value) > most
        or not all(isinstance(entry, str) and word.fullmatch(entry) for entry in value)
    ):
        raise BadMessage(f"{name} is not a list of at most {most} words")
    return tuple(value)


def _word(fields: dict[str, Any], name: str, word: re.Pattern[str], unsaid: str) -> str:
    value = fields.get(name, unsaid)
    if not isinstance(value, str) or not word.fullmatch(value):
        raise BadMessage(f"{name} is not a word")
    return value


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise BadMessage(f"{name} is not true or false")
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
