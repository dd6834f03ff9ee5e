"""Frames: what travels on a link and between a worker's agent and its runner.

A frame is a small JSON object, its *header*, and a *body* of raw bytes::

    header length  4 bytes, big endian
    body length    4 bytes, big endian
    header         UTF-8 JSON, an object whose "t" names the kind of frame
    body           as many bytes as were said

Both lengths are bounded before anything is allocated: the header by ``MAX_HEADER``, the body by
``MAX_BODY``. A larger body travels as several ``chunk`` frames, so that small frames can pass it.

A header that was read can always be written again: what JSON has no word for (NaN, infinities), whole numbers
beyond 64 bits, and nesting deeper than ``MAX_DEPTH`` are refused where it is read.

The header is JSON rather than a pickle because its reader may hold keys, and rather than a packed
format because a person can read it in a trace; parsing one takes a few microseconds.

This module is pure and uses the standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

Header = dict[str, Any]
Buffer = bytes | bytearray | memoryview

PROTOCOL_VERSION = 1  # of everything that travels on a link; each end says it in its link.hello

PREFIX = 8
"""Bytes before the header."""

MAX_HEADER = 1 << 20
"""Largest header, bytes. A cell's source travels in one, so it is far above any real one."""

MAX_BODY = 1 << 20
"""Largest body, bytes: 1 MiB moved fastest over TLS, and takes about a millisecond, during which
small frames wait."""

MAX_DEPTH = 32
"""Deepest nesting of objects and lists in a header. Ours have 4."""

INLINE = 256 << 10
"""Bytes of a task's or a result's segments that travel in the frame itself; the rest is chunked."""


class FrameError(ValueError):
    """Bytes that are not a frame. The link that reads them turns this into an error that names the peer."""


_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False)


def _writer() -> Callable[[Header, int], Iterable[str]]:
    """Return what writes a header in pieces. ``JSONEncoder.encode`` makes such a writer for each call; ours stays."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # another Python than CPython
        return lambda header, _level: _encoder.iterencode(header)
    quote = json.encoder.encode_basestring
    return cast(
        "Callable[[Header, int], Iterable[str]]",
        make(None, _encoder.default, quote, None, ":", ",", False, False, False),
    )


_pieces = _writer()


def _whole(text: str) -> int:
    number = int(text)
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError("a whole number beyond 64 bits")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # such as 1e999
        raise ValueError("a number that is not finite")
    return number


# For NaN and the infinities _finite is called, too: they are words of their own for the parser.
_decoder = json.JSONDecoder(parse_int=_whole, parse_float=_finite, parse_constant=_finite)
_quick = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
"""For headers whose whole numbers are all short: it reads them without a call of ours."""

_LONG = re.compile(rb"[0-9]{19}")
"""A whole number without such a run of digits has less than 64 bits."""


def encode(header: Header, body_size: int = 0) -> bytes:
    """Return the bytes that precede a body of ``body_size`` bytes.

    The body isn't copied in: the caller writes it after these bytes, so that 100 MB stay where they are.
    Raises ``FrameError`` for a header or a body over its bound.
    """
    # A lone surrogate in user text must not kill the connection: it is shown as "?".
    text = "".join(_pieces(header, 0)).encode("utf-8", "replace")
    if len(text) > MAX_HEADER:
        raise FrameError(f"a frame's header of {len(text)} bytes is over {MAX_HEADER}")
    if body_size > MAX_BODY:
        raise FrameError(f"a frame's body of {body_size} bytes is over {MAX_BODY}")
    return len(text).to_bytes(4, "big") + body_size.to_bytes(4, "big") + text


def sizes(prefix: Buffer) -> tuple[int, int]:
    """Return (header size, body size) from the first 8 bytes; raise ``FrameError`` where over the bounds."""
    header = int.from_bytes(prefix[:4], "big")
    body = int.from_bytes(prefix[4:8], "big")
    if header > MAX_HEADER or body > MAX_BODY:
        raise FrameError(f"a frame of {header} + {body} bytes is over {MAX_HEADER} + {MAX_BODY}")
    return header, body


def decode_header(data: Buffer) -> Header:
    """Parse a header; raise ``FrameError`` unless it is a JSON object with a string under "t" (see the module)."""
    data = bytes(data)
    try:
        header = _parse(data)
    except (ValueError, RecursionError) as error:
        raise FrameError("a frame's header is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("t"), str):
        raise FrameError("a frame's header is not an object with a kind")
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _deeper(header, MAX_DEPTH):
        raise FrameError(f"a frame's header is nested more than {MAX_DEPTH} deep")
    return header


def _parse(data: bytes) -> Any:
    text = data.decode("utf-8")
    decoder = _decoder if _LONG.search(data) else _quick
    if text[:1] != "{" or text[-1:] != "}":
        return decoder.decode(text)  # there may be white space around the object
    header, end = decoder.raw_decode(text)
    if end < len(text):
        raise ValueError("more than one value")
    return header


def _deeper(value: Any, depth: int) -> bool:
    """Whether objects and lists are nested more than ``depth`` deep in ``value``."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper(each, depth - 1) for each in inner)


class FrameReader:
    """Cut a stream into frames: ``feed`` it bytes as they come, iterate over what is complete.

    Bodies are ``bytes``. Bulk is better read right into a buffer (see link/intake.py and sandbox/inside/runner.py).
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: Buffer) -> Iterator[tuple[Header, bytes]]:
        """Take ``data`` and yield each complete (header, body). Raises ``FrameError``."""
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= PREFIX:
                header_size, body_size = sizes(self._buffer[start : start + PREFIX])
                middle = start + PREFIX + header_size
                end = middle + body_size
                if len(self._buffer) < end:
                    break
                header = decode_header(self._buffer[start + PREFIX : middle])
                body = bytes(self._buffer[middle:end])
                start = end
                yield header, body
        finally:
            del self._buffer[:start]
