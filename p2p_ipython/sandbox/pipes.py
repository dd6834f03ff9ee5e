"""Cut what comes out of a pipe into frames, with bulk read straight to where it belongs.

Used at both ends of the pipes between an agent (non-blocking) and its runner (blocking): whoever uses it
does the reading itself::

    count = os.readv(fd, frames.room())
    for header, body in frames.advance(count): ...

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from p2p_ipython.protocol.frames import PREFIX, Buffer, Header, decode_header, sizes

PIPE_SIZE = 1 << 20
"""What a pipe between agent and runner holds, bytes (Linux; elsewhere the system's own size)."""

_SCRATCH = 64 << 10


def enlarge(fd: int) -> None:
    """Let the pipe at ``fd`` hold ``PIPE_SIZE`` bytes, where the system allows it; a smaller one is only slower."""
    if sys.platform != "linux":
        return
    import fcntl

    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:  # over fs.pipe-max-size, or over the user's share of pipe pages
        pass


class FrameInput:
    """Frames out of a stream that is read with ``os.readv``.

    ``land(header, size)`` may say where a body of ``size`` bytes is to be read to; None means a fresh buffer.
    It is asked once a frame. What it raises, ``advance`` raises.
    """

    def __init__(self, land: Callable[[Header, int], memoryview | None] | None = None) -> None:
        self._land = land
        self._scratch = memoryview(bytearray(_SCRATCH))
        self._start = self._end = 0
        self._header: Header = {}
        self._body: memoryview | None = None  # being filled; the scratch is empty meanwhile
        self._filled = 0

    def room(self) -> list[memoryview]:
        """Where the next bytes belong, for ``os.readv``; never empty."""
        if self._body is not None:
            return [self._body[self._filled :], self._scratch]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._scratch):
            self._compact(self._scratch)
        return [self._scratch[self._end :]]

    def advance(self, count: int) -> Iterator[tuple[Header, Buffer]]:
        """Take note of ``count`` bytes having been read to ``room()``; yield the frames that are whole now.

        A frame is yielded before the next one is looked at, since it may say where that one's body belongs: use
        up the iterator before the next read. Raises ``FrameError``; the stream is of no use after that.
        """
        whole: list[tuple[Header, Buffer]] = []
        if self._body is not None:
            taken = min(count, len(self._body) - self._filled)
            self._filled += taken
            count -= taken
            if self._filled < len(self._body):
                return
            whole.append((self._header, self._body))
            self._body = None
        self._end += count
        while whole or self._parse(whole):
            yield whole.pop()

    def _parse(self, whole: list[tuple[Header, Buffer]]) -> bool:
        """Move one frame out of the scratch; False when there isn't a whole one."""
        scratch, start, available = self._scratch, self._start, self._end - self._start
        if available < PREFIX:
            return False
        header_size, body_size = sizes(scratch[start : start + PREFIX])
        if available < PREFIX + header_size:
            if PREFIX + header_size > len(scratch):
                self._compact(memoryview(bytearray(PREFIX + header_size + _SCRATCH)))
            return False
        middle = start + PREFIX + header_size
        header = decode_header(scratch[start + PREFIX : middle])
        available = self._end - middle
        target = self._land(header, body_size) if self._land is not None and body_size else None
        if target is None:
            if body_size <= available:
                self._start = middle + body_size
                whole.append((header, bytes(scratch[middle : self._start])))
                return True
            target = memoryview(bytearray(body_size))
        part = min(available, body_size)
        target[:part] = scratch[middle : middle + part]
        self._start = middle + part
        if part == body_size:
            whole.append((header, target))
            return True
        self._start = self._end = 0
        self._header, self._body, self._filled = header, target, part
        return False

    def _compact(self, into: memoryview) -> None:
        held = bytes(self._scratch[self._start : self._end])
        into[: len(held)] = held
        self._scratch, self._start, self._end = into, 0, len(held)
