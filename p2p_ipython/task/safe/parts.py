"""The common parts of the safe codec: its two errors, data on its way out, data on its way in and its budget.

See task/safe/codec.py. Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import binascii
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Protocol

from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.task.payload import IN_BAND, LARGE, MAX_SEGMENTS

INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1
"""Whole numbers that travel as JSON has them."""

_MAX_NAME = 200
_MAX_REPEATED = 64 << 20
"""Bytes of large data that may travel more than once because a value refers to it more than once."""


class Unsupported(Exception):
    """A value that is not pure data of the codec's types. ``type_name`` is the culprit's, ``why`` more of it."""

    def __init__(self, culprit: object, why: str = "") -> None:
        super().__init__(why)
        self.type_name = culprit if isinstance(culprit, str) else class_name(type(culprit))
        self.why = why
        self._path: list[str] = []

    def inside(self, step: str) -> Unsupported:
        """Return this error as seen from one level further out; ``step`` leads to where it is."""
        self._path.append(step)
        return self

    def renamed(self, name: Callable[[int], str]) -> Unsupported:
        """Return this error with its last step, ``[number]``, written as ``name(number)``."""
        self._path[-1] = name(int(self._path[-1][1:-1]))
        return self

    @property
    def at(self) -> str:
        """Where in the value it is, as one would write it: ``[3]['x']``."""
        return "".join(reversed(self._path))[:_MAX_NAME]

    def __str__(self) -> str:
        return f"{self.type_name}{f' at {self.at}' if self.at else ''}{f': {self.why}' if self.why else ''}"


class Unreadable(ValueError):
    """Bytes that no encoder has made, or that would take more memory than is allowed."""


class Encode(Protocol):
    """The part of the encoder that encoders of single types may use."""

    data: Outgoing

    def value(self, value: Any, depth: int) -> Any:
        """Return a value as JSON will have it. Raises ``Unsupported``."""

    def elements(self, items: list[Any], depth: int) -> list[Any]:
        """Return each of ``items`` as JSON will have it. Raises ``Unsupported``."""

    def pairs(self, value: dict[Any, Any], depth: int) -> list[list[Any]]:
        """Return each key and value of a dict as JSON will have them. Raises ``Unsupported``."""


def class_name(cls: type) -> str:
    """``package.module.Class``, for any class at all."""
    try:
        name = f"{cls.__module__}.{cls.__qualname__}"
    except Exception:  # a metaclass may do anything
        name = str(type.__getattribute__(cls, "__name__"))
    return name.removeprefix("builtins.")[:_MAX_NAME]


def package_of(cls: type) -> str:
    """Return the package that a class says it is from; "" if it doesn't say."""
    try:
        return str(cls.__module__).partition(".")[0]
    except Exception:  # as above
        return ""


def step(key: object) -> str:
    """How a key is written in a path; only keys whose ``repr`` is ours to trust are."""
    return f"[{key!r:.60}]" if type(key) in (str, int) else "[…]"


class Outgoing:
    """Bytes that travel beside the JSON text: large ones as segments of their own, small ones in it, as base64."""

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []
        self._seen: set[int] = set()
        self._repeated = 0

    def put(self, view: memoryview, owner: object) -> int | str:
        """Take ``owner``'s bytes; return what the text says in their place. Raises ``Unsupported``."""
        if view.nbytes < IN_BAND or len(self.buffers) >= MAX_SEGMENTS - 1:
            return binascii.b2a_base64(view, newline=False).decode("ascii")
        if view.nbytes >= LARGE:
            if id(owner) in self._seen:
                self._repeated += view.nbytes
                if self._repeated > _MAX_REPEATED:
                    raise Unsupported(owner, "it occurs so often that it would travel many times")
            self._seen.add(id(owner))
        self.buffers.append(view)
        return len(self.buffers)


class Incoming:
    """The segments of a result, each of which is read once, and the memory that reading may take."""

    def __init__(self, pieces: Sequence[Buffer], budget: Callable[[], int]) -> None:
        self._pieces = pieces
        self._left = set(range(1, len(pieces)))
        self._ask_budget = budget
        self._allowed = _UNASKED
        self._hashing = _HASHING
        self.charged = 0
        """Bytes that reading takes by what is known so far; more than it will."""

    def charge(self, size: int) -> None:
        """Note that ``size`` bytes are about to be taken. Raises ``Unreadable`` when that is too much in all."""
        self.charged += size
        if self.charged <= self._allowed:
            return
        if self._allowed == _UNASKED:
            self._allowed = max(_UNASKED + 1, self._ask_budget())
        if self.charged > self._allowed:
            raise Unreadable(
                f"it would take {self.charged:,} bytes or more of memory here; {self._allowed:,} are allowed. "
                "Arrays take less than lists"
            )

    def take(self, place: object, *, copy: bool = False) -> Buffer:
        """Return the bytes at ``place``, as the text calls it: writable, the caller's; as ``bytes`` with ``copy``."""
        if type(place) is str:
            self.charge(len(place))
            data: Buffer = binascii.a2b_base64(place, strict_mode=True) if place else b""
            return data if copy else bytearray(data)
        if type(place) is not int or not 0 < place < len(self._pieces):
            raise Unreadable("it refers to a segment that isn't there")
        if place not in self._left:
            raise Unreadable("it refers to a segment twice")
        self._left.remove(place)
        view = memoryview(self._pieces[place])
        if copy or view.readonly:
            self.charge(view.nbytes)
            return bytes(view) if copy else bytearray(view)
        return view

    def fill(self, table: dict[Any, Any] | set[Any], keys: Sequence[Any], items: Sequence[Any]) -> None:
        """Update ``table`` by ``items``, whose keys are ``keys``; refuse keys that were made to meet in one place.

        A table of a million of them is built for hours. They need not have one hash: the places that a table tries
        one after the other follow from the hash, so whole rows of them can be aimed at. What shows such keys is the
        time that they take: of this thread's, and of all tables of the value together.

        Raises ``Unreadable``, and ``TypeError`` for what can't be a key.
        """
        if set(map(type, keys)) <= {str, bytes}:
            table.update(items)  # these hashes are salted, nobody can aim at them
            return
        if any(sum(1 for _ in same) > _SAME_HASH for _, same in groupby(sorted(map(hash, keys)))):
            raise Unreadable("it has many keys of one hash")
        self._hashing += len(keys) * _HASHING_EACH
        for start in range(0, len(items), _BATCH):
            begun = time.thread_time()
            table.update(items[start : start + _BATCH])
            self._hashing -= time.thread_time() - begun
            if self._hashing < 0:
                raise Unreadable("it has keys that were made to be in each other's way")

    def end(self) -> None:
        """Raise ``Unreadable`` if there are segments that nothing refers to."""
        if self._left:
            raise Unreadable("it has segments that nothing refers to")


_UNASKED = 16 << 20
"""Bytes that any result may take: below it nobody asks the system how much memory there is."""

_SAME_HASH = 100

_HASHING, _HASHING_EACH = 0.3, 5e-6
"""Seconds of a thread's that a result's tables may take in all, and more for each key; an innocent one takes 0.2 µs."""

_BATCH = 256
"""Keys between two looks at the time."""


def listed(args: object, *lengths: int) -> list[Any]:
    """``args`` if it is a list of one of these lengths (of any, without them). Raises ``Unreadable``."""
    if type(args) is not list or (lengths and len(args) not in lengths):
        raise Unreadable("a part of it doesn't have the parts that it should")
    return args


def texted(value: object, limit: int) -> str:
    """``value`` if it is text of at most ``limit`` characters. Raises ``Unreadable``."""
    if type(value) is not str or len(value) > limit:
        raise Unreadable("a part of it isn't the short text that it should be")
    return value


def whole(value: object, least: int = INT_MIN, most: int = INT_MAX) -> int:
    """``value`` if it is a whole number between the two. Raises ``Unreadable``."""
    if type(value) is not int or not least <= value <= most:
        raise Unreadable("a number in it is none, or is out of its bounds")
    return value
