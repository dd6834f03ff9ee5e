"""How many bytes of bulk to put below us, so that they are gone in a twentieth of a second.

A small frame passes the bulk that waits in an outbox, and none that the transport or the kernel has taken. Counted in
bytes, what is fit for a fast network is half a minute on a slow one. So the limit follows the rate at which the kernel
takes bytes: it doubles while they go quicker, and falls at once to what has gone in that time.

What is on its way in the network is TCP's own affair.
"""

from __future__ import annotations

import socket
import struct
import sys

_NOT_SENT = 0x894B  # SIOCOUTQNSD of Linux

FIRST = 16 << 10
"""The limit of a new connection, bytes."""

LEAST, MOST = 4 << 10, 1 << 20
"""The bounds of the limit, bytes; all powers of two."""

TIME = 0.05
"""The time in which as many bytes as the limit should be gone, s."""


class Pace:
    """Finds the limit. Times are those of one monotonic clock, seconds."""

    def __init__(self) -> None:
        self.limit = FIRST
        self._began = 0, 0.0

    def look(self, taken: int, now: float, *, waits: bool) -> bool:
        """Note the bytes that the kernel has taken in all, and whether more waits; return whether the limit changes.

        Call it before bulk is written, afterwards, and when the transport has room again.
        """
        gone, took = taken - self._began[0], now - self._began[1]
        before = self.limit
        if gone >= self.limit or (waits and took >= TIME):
            if gone * TIME >= 2 * self.limit * took:
                self.limit *= 2
            else:
                self.limit = 1 << int(gone * TIME / took).bit_length() >> 1
            self.limit = max(LEAST, min(self.limit, MOST))
            self._began = taken, now
        if not waits:
            self._began = taken, now  # what comes next may come after a pause
        return self.limit != before


def kept_by_kernel(sock: socket.socket) -> int:
    """Return how many bytes the kernel has taken and not yet put onto the wire; 0 where it doesn't say."""
    if sys.platform != "linux":
        return 0
    import fcntl  # there is none on Windows

    try:
        (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), _NOT_SENT, bytes(4)))
    except OSError:  # it has been closed
        return 0
    return max(0, int(size))
