"""Images: the dimensions that a picture's file states, read without decoding it.

A front end decodes what it is shown, and a file of a kilobyte can say that it has a million million points. So the
dimensions are read here, from where decoders read them, and whatever is not plainly a PNG or a JPEG is refused. The
points themselves are not looked at: that is the decoder's business, which in browsers is made for strangers' files.

Pure; standard library only.
"""

from __future__ import annotations

import zlib

MAX_POINTS = 50_000_000
"""Points of a picture: 200 MB once it is decoded."""

MAX_SIZE = 20 << 20
"""Bytes of a picture's file."""

_PNG = b"\x89PNG\r\n\x1a\n"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits of a sample, by kind of colour."""

_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers of a frame's header: all SOFs; DHT, JPG and DAC lie between them."""

_BARE = {0x01, *range(0xD0, 0xD8)}
"""JPEG markers without a length."""


class BadImage(ValueError):
    """Bytes that are not the picture that they are said to be, or too large a one; the message says which."""


def check_png(data: bytes) -> tuple[int, int]:
    """Return width and height of a PNG file, a still one of nothing but chunks. Raises ``BadImage``."""
    _check_size(data)
    if not data.startswith(_PNG):
        raise BadImage("it is not a PNG file")
    position, first, seen = len(_PNG), True, b""
    width = height = points = 0
    while seen != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        seen = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data) or not seen.isalpha() or first != (seen == b"IHDR"):
            raise BadImage("its chunks are out of order")
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise BadImage("a checksum of it is wrong")
        if first:
            width, height = _check_header(data[position + 8 : end - 4])
            first = False
        if seen in _ANIMATION:
            raise BadImage("it is animated")
        points += length if seen == b"IDAT" else 0
        position = end
    if position != len(data):
        raise BadImage("there is more after its end")
    if not points:
        raise BadImage("it has no points")
    return width, height


def check_jpeg(data: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG file. Raises ``BadImage``."""
    _check_size(data)
    if not data.startswith(b"\xff\xd8\xff"):
        raise BadImage("it is not a JPEG file")
    position, found = 2, None
    while True:
        if data[position : position + 1] != b"\xff":
            raise BadImage("its markers are out of order")
        while data[position : position + 1] == b"\xff":  # there may be several
            position += 1
        marker = data[position : position + 1]
        if not marker or marker in (b"\x00", b"\xd8", b"\xd9"):
            raise BadImage("its markers are out of order")
        position += 1
        if marker[0] in _BARE:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            raise BadImage("its markers are out of order")
        if marker[0] in _FRAMES:
            if found is not None or length < 8:
                raise BadImage("it has more than one frame, or a broken one")
            height = int.from_bytes(data[position + 3 : position + 5], "big")
            found = _check_points(int.from_bytes(data[position + 5 : position + 7], "big"), height)
        if marker == b"\xda":  # the points begin
            if found is None:
                raise BadImage("it has no frame")
            return found
        position += length


def _check_header(header: bytes) -> tuple[int, int]:
    if len(header) != 13:
        raise BadImage("its header is broken")
    depth, colour, compression, filtering, interlace = header[8:]
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise BadImage("its header is broken")
    return _check_points(int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big"))


def _check_points(width: int, height: int) -> tuple[int, int]:
    if not (width and height):
        raise BadImage("it has no points")
    if width * height > MAX_POINTS:
        raise BadImage(f"it has {width:,} × {height:,} points, and {MAX_POINTS:,} are allowed")
    return width, height


def _check_size(data: bytes) -> None:
    if len(data) > MAX_SIZE:
        raise BadImage(f"it has {len(data):,} bytes, and {MAX_SIZE:,} are allowed")
