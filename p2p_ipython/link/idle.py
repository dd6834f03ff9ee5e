"""How much a peer may send that comes to nothing, before it is read slower: pure.

Frames about tasks that nobody has any more are innocent, and few: some cross with a cancellation on their way. A peer
that sends nothing else would have the loop read its frames all the time, at the cost of those who share it. What comes
to something is never slowed down by this.
"""

from __future__ import annotations

AT_ONCE = 5_000
"""Frames that come to nothing and are read at once; one counts once more for each ``_EACH`` bytes of its body."""

A_SECOND = 1_000
"""Of these a second, after that: reading one takes some 30 µs, so this is 3 % of a processor."""

PAUSE = 0.1
"""Seconds for which nothing is read, each time."""

_EACH = 32 << 10


class Idle:
    """Counts one peer's frames that come to nothing."""

    def __init__(self) -> None:
        self._left = float(AT_ONCE)
        self._at = 0.0

    def came(self, size: int, now: float) -> bool:
        """Count a frame with a body of ``size`` bytes; return whether its peer is to be left alone for ``PAUSE``."""
        self._left = min(AT_ONCE, self._left + (now - self._at) * A_SECOND) - 1 - size // _EACH
        self._at = now
        return self._left < 0
