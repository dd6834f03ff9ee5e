"""A wormhole mailbox, purely: what its clients say, what they are told, and what is kept meanwhile.

Two clients that know a short name, the *nameplate*, get one *mailbox* by it, or they know the mailbox's own name. What
either adds to it, both get, also when they come later. The messages are those of Magic Wormhole's mailbox protocol, in
which a client is a connection and says which *side* it is. So a side can come again over another connection.

All that strangers can make it keep has a bound, of each address and in all; see ``bounds.py``. A client is refused with
an ``error``, and those who are there notice nothing.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.limits import Share

Message = dict[str, Any]

MAX_WORD = 128
"""Longest name of an application, a side, a mailbox or a phase, characters."""
MAX_NAMEPLATE = 40
"""Longest nameplate, digits."""
OVERHEAD = 512
"""The cost of a message beside its text, bytes."""


@dataclass(eq=False)
class Client:
    """A connection to the mailbox, of an address. The rest is what it has said so far."""

    address: str
    heard: float
    app: str = ""
    side: str = ""
    nameplate: str = ""
    box: _Box | None = None
    said: set[str] = field(default_factory=set)

    @property
    def listens(self) -> bool:
        """Return whether it gets a mailbox's messages."""
        return self.box is not None and self in self.box.listeners


@dataclass(frozen=True)
class Tell:
    """Send this message to a client."""

    client: Client
    message: Message


@dataclass(frozen=True)
class Close:
    """Close the connection of a client."""

    client: Client
    why: str


Action = Tell | Close


@dataclass(eq=False)
class _Box:
    app: str
    name: str
    owner: str
    opened: float
    used: float
    sides: dict[str, bool] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    size: int = 0
    paid: Counter[str] = field(default_factory=Counter)
    listeners: list[Client] = field(default_factory=list)
    plates: set[str] = field(default_factory=set)


@dataclass
class _Plate:
    box: _Box
    claims: dict[str, bool] = field(default_factory=dict)


class Refused(Exception):
    """The client's wish isn't granted; the text is what it is told."""


class Mailboxes:
    """All mailboxes of a board. ``is_here`` says whether an address has an SSH session here. Times are seconds."""

    def __init__(self, bounds: Bounds, is_here: Callable[[str], bool]) -> None:
        self._bounds = bounds
        self._boxes: dict[tuple[str, str], _Box] = {}
        self._plates: dict[tuple[str, str], _Plate] = {}
        self._clients: dict[Client, None] = {}
        self._connections = Share(bounds.mailbox_connections, bounds.connections, is_here)
        self._opened = Share(bounds.mailboxes_each, bounds.mailboxes, is_here)
        self._kept = Share(bounds.mailbox_bytes_each, bounds.mailbox_bytes_all, is_here)
        self._do: dict[str, Callable[[Client, Message, float], list[Action]]] = {
            "list": lambda client, message, now: [Tell(client, {"type": "nameplates", "nameplates": []})],
            "allocate": self._allocate,
            "claim": self._claim,
            "release": self._release,
            "open": self._open,
            "add": self._add,
            "close": self._close,
        }

    def connect(self, address: str, now: float) -> Client | str:
        """Take a connection; a text is the word with which it is refused."""
        if refused := self._connections.take(address):
            return f"too many connections {refused}"
        client = Client(address, now)
        self._clients[client] = None
        return client

    def leave(self, client: Client) -> None:
        """Note that a connection has gone. Idempotent."""
        if client in self._clients:
            del self._clients[client]
            self._connections.give_back(client.address)
            self._deafen(client)

    def receive(self, client: Client, message: object, now: float) -> list[Action]:
        """Take what a client says. Raises ``ValueError`` for what is no message at all."""
        if not isinstance(message, dict):
            raise ValueError("no message")
        client.heard = now
        kind, number = message.get("type"), message.get("id")
        brief = {name: each for name, each in (("type", kind), ("id", number)) if _is_word(each)}
        if "id" in message and "id" not in brief and number is not None:
            raise ValueError("no id")
        try:
            if kind is None:
                raise Refused("missing 'type'")
            return [Tell(client, {"type": "ack", "id": number}), *self._answer(client, kind, message, now)]
        except Refused as error:
            return [Tell(client, {"type": "error", "error": str(error), "orig": brief})]

    def prune(self, now: float) -> list[Action]:
        """Forget what is too old; return which connections have been silent for too long."""
        bounds = self._bounds
        for box in list(self._boxes.values()):
            idle = not box.listeners and now >= box.used + bounds.mailbox_age
            if idle or now >= box.opened + bounds.mailbox_life:
                self._forget(box)
        return [
            Close(client, "silence")
            for client in self._clients
            if not client.listens and now >= client.heard + bounds.mailbox_silence
        ]

    # What clients say

    def _answer(self, client: Client, kind: object, message: Message, now: float) -> list[Action]:
        if kind == "ping":
            if "ping" not in message:
                raise Refused("ping requires 'ping'")
            if not _is_word(message["ping"]):
                raise Refused("that ping is too long")
            return [Tell(client, {"type": "pong", "pong": message["ping"]})]
        if kind == "bind":
            if client.app:
                raise Refused("already bound")
            client.app, client.side = _word(message, "appid"), _word(message, "side")
            return []
        if not client.app:
            raise Refused("must bind first")
        act = self._do.get(kind) if isinstance(kind, str) else None
        if act is None:
            raise Refused("unknown type")
        return act(client, message, now)

    def _allocate(self, client: Client, message: Message, now: float) -> list[Action]:
        _once(client, "allocate")
        name = self._free_nameplate(client.app)
        self._take_nameplate(client, name, now)
        return [Tell(client, {"type": "allocated", "nameplate": name})]

    def _claim(self, client: Client, message: Message, now: float) -> list[Action]:
        name = message.get("nameplate")
        if not (isinstance(name, str) and name.isascii() and name.isdigit() and len(name) <= MAX_NAMEPLATE):
            raise Refused(f"claim requires 'nameplate', of 1 to {MAX_NAMEPLATE} digits")
        _once(client, "claim")
        box = self._take_nameplate(client, name, now)
        client.nameplate = name
        return [Tell(client, {"type": "claimed", "mailbox": box.name})]

    def _release(self, client: Client, message: Message, now: float) -> list[Action]:
        name = message.get("nameplate") or client.nameplate
        if not name or (client.nameplate and name != client.nameplate):
            raise Refused("release and claim must use the same nameplate")
        _once(client, "release")
        plate = self._plates.get((client.app, name)) if isinstance(name, str) else None
        if plate is not None and client.side in plate.claims:
            plate.claims[client.side] = False
            if not any(plate.claims.values()):
                self._drop_nameplate(client.app, name)
        return [Tell(client, {"type": "released"})]

    def _open(self, client: Client, message: Message, now: float) -> list[Action]:
        name = _word(message, "mailbox")
        _once(client, "open")
        box = self._box(client, name, now)
        client.box = box
        same = [each for each in box.listeners if each.side == client.side]
        closed: list[Action] = []
        if len(same) >= self._bounds.mailbox_listeners:
            self._deafen(same[0])
            closed = [Close(same[0], "its side has come again")]
        box.listeners.append(client)
        return closed + [Tell(client, each) for each in box.messages]

    def _add(self, client: Client, message: Message, now: float) -> list[Action]:
        box = client.box
        if box is None or not client.listens:
            raise Refused("must open mailbox before adding")
        phase, body = _word(message, "phase"), message.get("body")
        if not isinstance(body, str):
            raise Refused("missing 'body'")
        size = len(body) + len(phase) + OVERHEAD
        if len(box.messages) >= self._bounds.messages:
            raise Refused("the mailbox has too many messages")
        if box.size + size > self._bounds.mailbox_bytes:
            raise Refused("the mailbox is full")
        if refused := self._kept.take(client.address, size):
            raise Refused(f"too many bytes {refused}")
        box.paid[client.address] += size
        box.size += size
        box.used = now
        said = {
            "type": "message",
            "side": client.side,
            "phase": phase,
            "body": body,
            "server_rx": now,
            "id": message.get("id"),
        }
        box.messages.append(said)
        return [Tell(each, said) for each in box.listeners]

    def _close(self, client: Client, message: Message, now: float) -> list[Action]:
        name = client.box.name if client.box is not None and "mailbox" not in message else _word(message, "mailbox")
        if client.box is not None and name != client.box.name:
            raise Refused("open and close must use the same mailbox")
        box = self._boxes.get((client.app, name))
        _once(client, "close")
        self._deafen(client)
        if box is not None and client.side in box.sides:
            box.sides[client.side] = False
            if not any(box.sides.values()):
                self._forget(box)
        return [Tell(client, {"type": "closed"})]

    # What is kept

    def _box(self, client: Client, name: str, now: float) -> _Box:
        """Return the mailbox of that name with the client's side on it, a new one if there is none."""
        box = self._boxes.get((client.app, name))
        if box is None:
            if refused := self._opened.take(client.address):
                raise Refused(f"too many mailboxes {refused}")
            box = self._boxes[client.app, name] = _Box(client.app, name, client.address, now, now)
        elif client.side not in box.sides and len(box.sides) >= 2:
            raise Refused("crowded")
        box.sides[client.side] = True
        box.used = now
        return box

    def _take_nameplate(self, client: Client, name: str, now: float) -> _Box:
        plate = self._plates.get((client.app, name))
        if plate is None:
            box = self._box(client, secrets.token_hex(8), now)
            plate = self._plates[client.app, name] = _Plate(box)
            box.plates.add(name)
        elif plate.claims.get(client.side) is False:
            raise Refused("reclaimed")
        else:
            box = self._box(client, plate.box.name, now)
        plate.claims[client.side] = True
        return box

    def _free_nameplate(self, app: str) -> str:
        """Return a nameplate that nobody has, a short one if there is one."""
        for digits in (1, 2, 3):
            free = [str(n) for n in range(10 ** (digits - 1), 10**digits) if (app, str(n)) not in self._plates]
            if free:
                return secrets.choice(free)
        while True:  # there are far fewer mailboxes than such numbers
            name = str(1000 + secrets.randbelow(10**6 - 1000))
            if (app, name) not in self._plates:
                return name

    def _drop_nameplate(self, app: str, name: str) -> None:
        plate = self._plates.pop((app, name))
        plate.box.plates.discard(name)

    def _forget(self, box: _Box) -> None:
        for client in list(box.listeners):
            self._deafen(client)
        for name in list(box.plates):
            self._drop_nameplate(box.app, name)
        del self._boxes[box.app, box.name]
        box.messages.clear()  # connections that have opened it still know it
        self._opened.give_back(box.owner)
        for address, size in box.paid.items():
            self._kept.give_back(address, size)

    def _deafen(self, client: Client) -> None:
        if client.box is not None and client in client.box.listeners:
            client.box.listeners.remove(client)


def _is_word(value: object) -> bool:
    return (isinstance(value, str) and len(value) <= MAX_WORD) or (
        isinstance(value, int | float) and abs(value) < 1 << 64
    )


def _word(message: Message, name: str) -> str:
    value = message.get(name)
    if not (isinstance(value, str) and 0 < len(value) <= MAX_WORD):
        raise Refused(f"{message['type']} requires {name!r}, of 1 to {MAX_WORD} characters")
    return value


def _once(client: Client, kind: str) -> None:
    if kind in client.said:
        raise Refused(f"only one {kind} per connection")
    client.said.add(kind)
