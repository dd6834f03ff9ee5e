"""The safe codec: a result as data, which can be read without trust in its sender.

A pickle is a program, and reading it runs it. So a worker of somebody else encodes a result with this codec instead, if
all of it is pure data: the first segment is JSON text, arrays and bytes are segments of their own.

::

    None, bool, str, list            as JSON has them; str in UTF-8, in which surrogates may stand alone
    int within 64 bits, finite float
    dict with keys of str            an object, unless its only key begins with "!"
    anything else                    an object of one key that begins with "!", the kind, e.g. {"!tuple": [1, 2]}

The kinds are those of ``_DECODERS``: ``_encoders`` says what each is made of. *Data* in them is the number of a segment
(the text is 0) or, when small, base64. Each segment is referred to once.

Promises: ``decode(encode(x))`` equals ``x`` and has the same types all through: so a subclass of a supported type is
not supported, nor is an enumeration. A part that a value holds twice is there twice afterwards. ``decode`` runs
nothing that the bytes say, takes no more memory than its budget, and ends in time that grows with their number. Bytes
that no encoder would have made are refused, with ``RemoteProtocolError``.

Nothing here reads pickles, ``.npy`` or Arrow files: see arrays.py and frames.py for why.

The runner imports this inside the sandbox: standard library only; numpy and pandas where the task has loaded them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

from p2p_ipython.errors import P2PError, RemoteProtocolError
from p2p_ipython.protocol.frames import INLINE, Buffer
from p2p_ipython.task.payload import Packed, PayloadError, as_result, in_pieces
from p2p_ipython.task.safe import arrays, containers, extensions, frames, times
from p2p_ipython.task.safe.parts import (
    INT_MAX,
    INT_MIN,
    Incoming,
    Outgoing,
    Unreadable,
    Unsupported,
    class_name,
    listed,
    step,
    texted,
    whole,
)
from p2p_ipython.task.safe.text import MAX_DEPTH, check

__all__ = ["BUDGET", "Unsupported", "decode", "encode"]

BUDGET = 1 << 30
"""Bytes of memory that decoding takes at most, unless its caller says otherwise or less than four times as much is
available here. Large segments that have arrived already are used where they lie, and don't count."""

_DEEP = MAX_DEPTH - 28
"""Deepest list or object of an encoded value: what is in it may add some."""

_MAX_ITEMS = 1 << 24
_MAX_TEXT = 1 << 30
"""Items and characters of text in a value; an innocent one of a few lists that contain one another can have 10¹²."""

_MAX_EXPONENT = 1_000_000
"""Of a Decimal, either way: the default context's. ``int`` of a larger one would not end."""

_MAX_FRACTION = 1 << 16
"""Bits of a fraction's parts; each use of one looks for their common divisor."""

_AS_JSON = {str, bool, type(None)}


def encode(value: object, *, room: int = INLINE) -> Packed:
    """Encode ``value``; its large arrays are views, not copies. Raises ``Unsupported`` for what is not pure data.

    ``room``: bytes that may be inline.
    """
    encoder = Encoder()
    try:
        text = dumps(encoder.value(value, 0)).encode("utf-8", "surrogatepass")
    except Unsupported:
        raise
    except RecursionError:
        raise Unsupported(value, "it is nested too deeply") from None
    except Exception as error:  # arrays and frames of versions and kinds that nobody has seen here
        raise Unsupported(value, f"{type(error).__name__}: {error}"[:200]) from error
    return as_result(text, encoder.data.buffers, room=room)


def decode(
    segments: object,
    inline: Buffer,
    large: Mapping[str, Buffer],
    *,
    worker: str = "",
    budget: int | None = None,
) -> Any:
    """Decode a value from its segments, as ``(size, ref)`` pairs, and its bytes, trusted or not.

    Arrays are writable; those in ``large`` stay where they are if they can be written to there. ``budget`` is the
    memory in bytes that anything else may take (None: see ``BUDGET``). Raises ``RemoteProtocolError`` for bytes that
    are no value or too large a one, and ``NameMissing`` where numpy or pandas is needed and isn't there.
    """
    try:
        return decoded(_pieces(segments, inline, large), (lambda: budget) if budget is not None else _budget)
    except P2PError:
        raise
    except Exception as error:  # a stranger's bytes in the constructors of numpy and pandas: anything may come of it
        ours = isinstance(error, Unreadable | PayloadError)
        why = str(error) if ours else f"{type(error).__name__}: {str(error)[:200]!r}"
        raise RemoteProtocolError(
            f"{worker or 'a worker'} sent a result that can't be read: {why}",
            peer=worker,
            hint="Return less at a time, or as arrays, or in another form; then submit it again.",
        ) from None


def _budget() -> int:
    import psutil  # heavy; below, few values need what their decoders import

    return min(BUDGET, int(psutil.virtual_memory().available) // 4)


# --- out --------------------------------------------------------------------------------------------------------------

dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False).encode


class Encoder:
    """Turns one value into what JSON has words for. ``depth`` is that of the JSON text, at which a value begins."""

    def __init__(self) -> None:
        self.data = Outgoing()
        self._open: set[int] = set()
        self._items = 0
        self._text = 0

    def value(self, value: Any, depth: int) -> Any:
        cls = type(value)
        if cls is str:
            self._spend(value, 1, len(value))
            return value
        if cls in _AS_JSON:
            return value
        self._spend(value, 1, 0)
        encoder = _ENCODERS.get(cls)
        if encoder is None:
            encoder = _late_encoder(cls)
        if encoder is None:
            raise Unsupported(value)
        if cls not in _CONTAINERS and encoder is not containers.encode_named:
            return encoder(self, value, depth)
        if id(value) in self._open:
            raise Unsupported(value, "it contains itself")
        if depth >= _DEEP:
            raise Unsupported(value, f"it is nested more than {_DEEP} deep")
        self._open.add(id(value))
        try:
            return encoder(self, value, depth)
        finally:
            self._open.discard(id(value))

    def elements(self, items: list[Any], depth: int) -> list[Any]:
        """Each of ``items``; ``items`` itself where JSON has words for all of them."""
        kinds = set(map(type, items))
        if kinds <= _AS_JSON or _are_numbers(kinds, items):
            self._spend(items, len(items), sum(map(len, items)) if kinds == {str} else _length(items, kinds))
            return items
        encoded = []
        number = 0
        try:
            for number, item in enumerate(items):  # noqa: B007 - for the path
                encoded.append(self.value(item, depth))
        except Unsupported as error:
            raise error.inside(f"[{number}]") from None
        return encoded

    def pairs(self, value: dict[Any, Any], depth: int) -> list[list[Any]]:
        """Each key of ``value`` with what it has."""
        keys = list(value)
        try:
            values = self.elements(list(value.values()), depth + 2)
        except Unsupported as error:
            # elements() has said which of them; here they are known by their keys.
            raise error.renamed(lambda number: step(keys[number])) from None
        try:
            encoded = self.elements(keys, depth + 2)
        except Unsupported as error:
            raise error.renamed(lambda number: f" (key {number + 1})") from None
        return [list(pair) for pair in zip(encoded, values, strict=True)]

    def _spend(self, value: object, items: int, text: int) -> None:
        self._items += items
        self._text += text
        if self._items > _MAX_ITEMS or self._text > _MAX_TEXT:
            raise Unsupported(value, "it has too many parts, or has the same parts too often")


def _length(items: list[Any], kinds: set[type]) -> int:
    return sum(len(item) for item in items if item.__class__ is str) if str in kinds else 0


def _are_numbers(kinds: set[type], items: list[Any]) -> bool:
    """Whether ``items`` are all numbers that JSON has as they are. All ``int`` or all ``float``, as in long lists."""
    if kinds == {int}:
        return bool(min(items) >= INT_MIN and max(items) <= INT_MAX)
    return kinds == {float} and all(map(math.isfinite, items))


def _encode_int(_encoder: Encoder, value: int, _depth: int) -> Any:
    return value if INT_MIN <= value <= INT_MAX else {"!int": format(value, "x")}


def _encode_float(_encoder: Encoder, value: float, _depth: int) -> Any:
    return value if math.isfinite(value) else {"!float": repr(value)}


def _encode_dict(encoder: Encoder, value: dict[Any, Any], depth: int) -> Any:
    keys = list(value)
    plain = set(map(type, keys)) <= {str} and not (len(keys) == 1 and keys[0][:1] == "!")
    if not plain:
        return {"!dict": encoder.pairs(value, depth + 1)}
    before = list(value.values())
    try:
        values = encoder.elements(before, depth + 1)
    except Unsupported as error:
        raise error.renamed(lambda number: step(keys[number])) from None
    encoder._spend(value, len(keys), sum(map(len, keys)))
    return value if values is before else dict(zip(keys, values, strict=True))


def _encode_set(kind: str) -> Callable[[Encoder, Any, int], Any]:
    def encode_set(encoder: Encoder, value: Any, depth: int) -> Any:
        try:
            return {kind: encoder.elements(list(value), depth + 2)}
        except Unsupported as error:
            raise error.renamed(lambda _: " (an element)") from None

    return encode_set


def _encode_decimal(_encoder: Encoder, value: Any, _depth: int) -> Any:
    if value.is_finite() and abs(value.adjusted()) > _MAX_EXPONENT:
        raise Unsupported(value, "its exponent is too large")
    return {"!decimal": str(value)}


def _encode_fraction(encoder: Encoder, value: Any, depth: int) -> Any:
    parts = [value.numerator, value.denominator]
    if any(type(part) is not int or part.bit_length() > _MAX_FRACTION for part in parts):
        raise Unsupported(value, "its parts are too long")
    return {"!fraction": encoder.elements(parts, depth + 2)}


def _encode_range(_encoder: Encoder, value: range, _depth: int) -> Any:
    parts = [value.start, value.stop, value.step]
    if any(type(part) is not int or not INT_MIN <= part <= INT_MAX for part in parts):
        raise Unsupported(value, "its numbers are too large")
    return {"!range": parts}


_ENCODERS: dict[type, Callable[[Encoder, Any, int], Any]] = {
    int: _encode_int,
    float: _encode_float,
    list: lambda encoder, value, depth: encoder.elements(value, depth + 1),
    dict: _encode_dict,
    tuple: lambda encoder, value, depth: {"!tuple": encoder.elements(list(value), depth + 2)},
    set: _encode_set("!set"),
    frozenset: _encode_set("!frozenset"),
    bytes: lambda encoder, value, _: {"!bytes": encoder.data.put(memoryview(value), value)},
    bytearray: lambda encoder, value, _: {"!bytearray": encoder.data.put(memoryview(value), value)},
    complex: lambda encoder, value, depth: {"!complex": encoder.elements([value.real, value.imag], depth + 2)},
    range: _encode_range,
    slice: lambda encoder, value, depth: {"!slice": encoder.elements([value.start, value.stop, value.step], depth + 2)},
    datetime: lambda _encoder, value, _depth: times.encode_datetime(value),
    date: lambda _encoder, value, _depth: times.encode_date(value),
    time: lambda _encoder, value, _depth: times.encode_time(value),
    timedelta: lambda _encoder, value, _depth: times.encode_timedelta(value),
    **containers.ENCODERS,
}

_CONTAINERS = {list, dict, tuple, set, frozenset, slice, *containers.ENCODERS}

_LATE: dict[str, Callable[[Encoder, Any, int], Any]] = {
    "decimal.Decimal": _encode_decimal,
    "fractions.Fraction": _encode_fraction,
    "uuid.UUID": lambda _encoder, value, _depth: {"!uuid": value.hex},
}
"""Classes of modules that are not loaded for this."""

_NUMPY: dict[str, Callable[[Encoder, Any, int], Any]] = {
    "array": lambda encoder, value, _: arrays.encode_array(encoder, value),
    "scalar": lambda encoder, value, _: arrays.encode_scalar(encoder, value),
    "text": lambda _encoder, value, _: {"!numpy.str": str(value)},
    "bytes": lambda encoder, value, _: {"!numpy.bytes": encoder.data.put(memoryview(bytes(value)), value)},
}


def _late_encoder(cls: type) -> Callable[[Encoder, Any, int], Any] | None:
    """Return the encoder for a class of a module that may be loaded or not. A class that only has the name has none."""
    name = class_name(cls)
    if name in _LATE:
        module, _, attribute = name.rpartition(".")
        return _LATE[name] if getattr(sys.modules.get(module), attribute, None) is cls else None
    if containers.is_named_tuple(cls):
        return containers.encode_named
    if kind := arrays.numpy_type(cls):
        return _NUMPY[kind]
    return frames.encode_pandas if frames.pandas_type(cls) else None


# --- in ---------------------------------------------------------------------------------------------------------------


def _pieces(segments: object, inline: Buffer, large: Mapping[str, Buffer]) -> list[Buffer]:
    if not isinstance(segments, list | tuple):
        raise PayloadError("it has no list of segments")
    pieces = in_pieces(segments, inline, large)
    refs = [ref for _, ref in segments if ref is not None]
    if len(set(refs)) != len(refs):
        raise PayloadError("two segments of it have the same bytes")
    return pieces


def decoded(pieces: Sequence[Buffer], budget: Callable[[], int]) -> Any:
    incoming = Incoming(pieces, budget)
    incoming.charge(memoryview(pieces[0]).nbytes)
    text = bytes(pieces[0])
    check(text, incoming)

    def build(pairs: list[tuple[str, Any]]) -> Any:
        if len(pairs) == 1 and pairs[0][0][:1] == "!":
            kind, args = pairs[0]
            decoder = _DECODERS.get(kind)
            if decoder is None:
                raise Unreadable(f"it has something of an unknown kind {kind[:40]!r}")
            return decoder(incoming, args)
        made = dict(pairs)
        if len(made) != len(pairs):
            raise Unreadable("an object in it has a key twice")
        return made

    try:
        value = json.loads(text.decode("utf-8", "surrogatepass"), object_pairs_hook=build, parse_constant=_no_constant)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"its first segment is not JSON: {type(error).__name__}") from None
    incoming.end()
    return value


def _no_constant(name: str) -> Any:
    raise Unreadable(f"it has {name}, which JSON hasn't")


def _decode_int(_incoming: Incoming, args: object) -> int:
    return int(texted(args, sys.maxsize), 16)


def _decode_float(_incoming: Incoming, args: object) -> float:
    if args not in ("nan", "inf", "-inf"):
        raise Unreadable("a number in it is none")
    return float(args)


def _decode_complex(_incoming: Incoming, args: object) -> complex:
    real, imaginary = listed(args, 2)
    if type(real) is not float or type(imaginary) is not float:
        raise Unreadable("a complex number in it is of other parts than floats")
    return complex(real, imaginary)


def _decode_dict(incoming: Incoming, args: object) -> dict[Any, Any]:
    pairs = [listed(pair, 2) for pair in listed(args)]
    incoming.charge(200 * len(pairs))
    made: dict[Any, Any] = {}
    incoming.fill(made, [key for key, _ in pairs], pairs)
    if len(made) != len(pairs):
        raise Unreadable("a dict in it has a key twice")
    return made


def _decode_set(kind: type[set[Any]] | type[frozenset[Any]]) -> Callable[[Incoming, object], Any]:
    def decode_set(incoming: Incoming, args: object) -> Any:
        items = listed(args)
        incoming.charge(300 + 250 * len(items))  # a table that has just grown is eight times as large as its items
        made: set[Any] = set()
        incoming.fill(made, items, items)
        if len(made) != len(items):
            raise Unreadable("a set in it has an element twice")
        return made if kind is set else kind(made)

    return decode_set


def _decode_range(_incoming: Incoming, args: object) -> range:
    return range(*(whole(each) for each in listed(args, 3)))


def _decode_decimal(_incoming: Incoming, args: object) -> Any:
    from decimal import Decimal

    value = Decimal(texted(args, sys.maxsize))
    if value.is_finite() and abs(value.adjusted()) > _MAX_EXPONENT:
        raise Unreadable("a decimal number in it has too large an exponent")
    return value


def _decode_fraction(_incoming: Incoming, args: object) -> Any:
    from fractions import Fraction

    parts = listed(args, 2)
    if any(type(part) is not int or part.bit_length() > _MAX_FRACTION for part in parts) or parts[1] < 1:
        raise Unreadable("a fraction in it is none, or too long")
    return Fraction(*parts)


def _decode_uuid(_incoming: Incoming, args: object) -> Any:
    from uuid import UUID

    return UUID(hex=texted(args, 32))


_DECODERS: dict[str, Callable[[Incoming, Any], Any]] = {
    "!int": _decode_int,
    "!float": _decode_float,
    "!complex": _decode_complex,
    "!tuple": lambda _incoming, args: tuple(listed(args)),
    "!set": _decode_set(set),
    "!frozenset": _decode_set(frozenset),
    "!dict": _decode_dict,
    "!bytes": lambda incoming, args: incoming.take(args, copy=True),
    "!bytearray": lambda incoming, args: bytearray(incoming.take(args)),
    "!range": _decode_range,
    "!slice": lambda _incoming, args: slice(*listed(args, 3)),
    "!datetime": times.decode_datetime,
    "!date": times.decode_date,
    "!time": times.decode_time,
    "!timedelta": times.decode_timedelta,
    "!decimal": _decode_decimal,
    "!fraction": _decode_fraction,
    "!uuid": _decode_uuid,
    "!array": arrays.decode_array,
    "!scalar": arrays.decode_scalar,
    "!numpy.str": lambda _incoming, args: arrays.numpy().str_(texted(args, sys.maxsize)),
    "!numpy.bytes": lambda incoming, args: arrays.numpy().bytes_(incoming.take(args, copy=True)),
    "!frame": frames.decode_frame,
    "!series": frames.decode_series,
    "!index": frames.decode_index,
    "!index.range": frames.decode_ranged,
    "!index.many": frames.decode_many,
    "!timestamp": frames.decode_timestamp,
    "!pandas.timedelta": frames.decode_timedelta,
    "!missing": frames.decode_missing,
    "!period": extensions.decode_period,
    "!interval": extensions.decode_interval,
    **containers.decoders(_decode_dict),
}
