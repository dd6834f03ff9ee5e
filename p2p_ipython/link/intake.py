"""Cuts a stream into frames, each large body landing in its own buffer: pure, no socket.

``target()`` returns the place for the next bytes, and ``landed(n)`` says that n bytes are there. Small frames are
parsed in batches out of one scratch buffer. A body of ``LANDING`` bytes or more lands right in the place that its
reader gives; only its first bytes, which came with the header, are copied there.

Both lengths of a frame are checked before anything is allocated for it (see protocol/frames.py).
"""

from __future__ import annotations

from collections.abc import Callable

from p2p_ipython.link.base import LANDING
from p2p_ipython.protocol.frames import PREFIX, Buffer, Header, decode_header, sizes

SCRATCH = 256 << 10
_ROOM = 16 << 10
"""Least free scratch to read into: a TLS record, which is what one read returns."""

_LARGE_HEADER = 64 << 10
"""A longer header gets a buffer of its own; any shorter one fits the scratch with the largest body beside it."""


class Intake:
    """Takes a stream's bytes, delivers its frames. While ``held``, bytes are taken but no frame is delivered."""

    def __init__(
        self, buffer_for: Callable[[Header, int], memoryview | None], on_frame: Callable[[Header, Buffer, int], None]
    ) -> None:
        """``on_frame`` gets the header, the body and the bytes that the frame took on the wire."""
        self.held = False
        self._buffer_for = buffer_for
        self._on_frame = on_frame
        self._scratch = memoryview(bytearray(SCRATCH))
        self._start = 0  # of what has not been parsed yet
        self._end = 0  # of what has been read
        self._header: Header | None = None  # of the frame whose body is awaited
        self._sizes: tuple[int, int] | None = None  # of the frame whose header is awaited in _landing
        self._body: Buffer = b""
        self._frame_size = 0
        self._landing: memoryview | None = None
        self._filled = 0

    def target(self) -> memoryview:
        """Return the place for the next bytes; it is never empty."""
        if self._landing is not None:
            return self._landing[self._filled :]
        if SCRATCH - self._end < _ROOM:
            rest = self._end - self._start
            self._scratch[:rest] = bytes(self._scratch[self._start : self._end])
            self._start, self._end = 0, rest
        return self._scratch[self._end :]

    def landed(self, count: int) -> None:
        """Note that ``count`` bytes are in ``target()``; deliver complete frames. Raises ``FrameError``."""
        if self._landing is None:
            self._end += count
        else:
            self._filled += count
        self.deliver()

    def deliver(self) -> None:
        """Deliver complete frames, unless held; ``landed`` does it by itself. Raises ``FrameError``."""
        while not self.held:
            if self._landing is not None:
                if self._filled < len(self._landing):
                    return
                self._land()
            elif not self._parse():
                return

    def drop(self) -> None:
        """Deliver no more frames, and release the one that has come in part."""
        self.held = True
        self._header = self._sizes = self._landing = None
        self._body = b""

    def _land(self) -> None:
        """Continue with the full landing: it was a long header, or a body."""
        landing, self._landing = self._landing, None
        assert landing is not None
        if self._sizes is not None:
            (_, body_size), self._sizes = self._sizes, None
            self._begin_body(decode_header(landing), len(landing), body_size)
            return
        header, body = self._header, self._body
        assert header is not None
        self._header, self._body = None, b""
        self._on_frame(header, body, self._frame_size)

    def _parse(self) -> bool:
        """Take one step in the scratch; False when it has too few bytes for it."""
        scratch, start, end = self._scratch, self._start, self._end
        if end - start < PREFIX:
            if start == end:
                self._start = self._end = 0
            return False
        header_size, body_size = sizes(scratch[start : start + PREFIX])
        middle = start + PREFIX + header_size
        if end < middle:
            if header_size > _LARGE_HEADER:
                self._start += PREFIX
                self._sizes = header_size, body_size
                self._land_in(memoryview(bytearray(header_size)))
                return True
            return False
        if body_size >= LANDING:
            self._start = middle
            self._begin_body(decode_header(scratch[start + PREFIX : middle]), header_size, body_size)
            return True
        finish = middle + body_size
        if end < finish:
            return False
        header = decode_header(scratch[start + PREFIX : middle])
        self._start = finish
        self._on_frame(header, bytes(scratch[middle:finish]) if body_size else b"", finish - start)
        return True

    def _begin_body(self, header: Header, header_size: int, body_size: int) -> None:
        self._header = header
        self._frame_size = PREFIX + header_size + body_size
        place = self._buffer_for(header, body_size) if body_size >= LANDING else None
        if self.held:
            self.drop()  # the link was ended by its handler
            return
        if place is None:
            self._body = bytearray(body_size)
            place = memoryview(self._body)
        else:
            self._body = place
            place = place.cast("B")
        self._land_in(place)

    def _land_in(self, place: memoryview) -> None:
        """Make ``place`` the target; move those of its bytes that the scratch has already."""
        there = min(len(place), self._end - self._start)
        place[:there] = self._scratch[self._start : self._start + there]
        self._start += there
        self._landing = place
        self._filled = there
