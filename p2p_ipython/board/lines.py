"""The lines of a session with a board, purely: cut them out of a stream, see them through, start over.

A board gives back everything that we write, in between what others write. So a line counts as posted once its
echo was heard; until then it is written again. Times are arguments, in seconds of any clock that doesn't jump.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from p2p_ipython.board.base import MAX_LINE
from p2p_ipython.errors import LocalProtocolError

log = logging.getLogger(__name__)

RESEND_AFTER = 3.0
"""How long to wait for a line's echo before it is written again, s."""
GIVE_UP_AFTER = 30.0
"""How long a line is tried, s."""
REMEMBER = 60.0
"""How long after its first echo a line is still known as ours, s: echoes of what was written twice come late."""
ECHO_WITHIN = 5.0
"""Without any echo for so long, s, while lines are on their way, the topic counts as stalled. One line that was lost is
no stall: it is written again before that."""
IN_FLIGHT = 24 << 10
"""Bytes that may be without an echo. pico's board stalls above 32 KiB when its writers don't read."""
MAX_WAITING = 1000
"""Lines that wait to be posted. More than that, and the oldest is dropped."""


def frame(line: bytes) -> bytes:
    """Return a line as it is written, in one piece. The newline in front ends what somebody else left unfinished."""
    return b"\n" + line + b"\n"


class LineReader:
    """Cuts a stream into lines. Empty lines are skipped, and so are those over ``MAX_LINE`` bytes."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came, return the lines that are complete. Keeps at most ``MAX_LINE`` bytes."""
        *ends, rest = data.split(b"\n")
        lines = []
        for end in ends:
            self._rest += end
            if self._rest and not self._skipping and len(self._rest) <= MAX_LINE:
                lines.append(bytes(self._rest))
            self._rest.clear()
            self._skipping = False
        if not self._skipping:
            self._rest += rest
            if len(self._rest) > MAX_LINE:
                self._rest.clear()
                self._skipping = True
        return lines


@dataclass
class _Posting:
    posted: float
    sent: float | None = None


class Outbox:
    """Our lines: what to write when, and which of the lines that come back are ours."""

    def __init__(self) -> None:
        self._connected = False
        self._waiting: OrderedDict[bytes, _Posting] = OrderedDict()
        self._heard: OrderedDict[bytes, float] = OrderedDict()
        self._silent_since: float | None = None
        self.stalled = False
        """Whether the board takes lines from us and gives none back. ``due`` finds out, an echo ends it."""

    @property
    def waiting(self) -> int:
        """Return how many lines were not echoed yet."""
        return len(self._waiting)

    def post(self, line: bytes, now: float) -> None:
        """Take a line on. Raises ``LocalProtocolError`` for one that can't be posted."""
        if not line or b"\n" in line or len(line) > MAX_LINE:
            raise LocalProtocolError(f"a line of {len(line)} bytes can't be posted: 1 to {MAX_LINE}, without newline")
        self._heard.pop(line, None)
        self._waiting[line] = _Posting(now)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
            log.warning("more than %d lines wait to be posted; the oldest is dropped", MAX_WAITING)

    def connected(self) -> None:
        """Begin anew on a topic that was joined (again): everything that waits is due at once."""
        self._connected = True
        self._silent_since, self.stalled = None, False
        for posting in self._waiting.values():
            posting.sent = None

    def disconnected(self) -> None:
        """Write nothing until ``connected``."""
        self._connected = False
        self._silent_since, self.stalled = None, False

    def is_ours(self, line: bytes, now: float) -> bool:
        """Whether a line that came is the echo of one of ours; if so, it needn't be written again."""
        while self._heard and next(iter(self._heard.values())) < now - REMEMBER:
            self._heard.popitem(last=False)
        if line not in self._heard:
            if self._waiting.pop(line, None) is None:
                return False
            self._heard[line] = now
        self.stalled = False
        self._silent_since = now if any(posting.sent is not None for posting in self._waiting.values()) else None
        return True

    def due(self, now: float) -> list[bytes]:
        """Return the lines to write now, in order. Call it after every event, and at ``next_due``."""
        for line in [line for line, p in self._waiting.items() if p.posted <= now - GIVE_UP_AFTER]:
            del self._waiting[line]
            log.info("the board has not taken a line in %g s; it is given up", GIVE_UP_AFTER)
        if not self._connected:
            return []
        lines = []
        flying = 0
        for line, posting in self._waiting.items():
            flying += len(line) + 2
            if flying > IN_FLIGHT:
                break
            if posting.sent is None or posting.sent <= now - RESEND_AFTER:
                posting.sent = now
                lines.append(line)
        if lines and self._silent_since is None:
            self._silent_since = now
        self.stalled = self._silent_since is not None and now >= self._silent_since + ECHO_WITHIN
        return lines

    def next_due(self) -> float | None:
        """Return when ``due`` has something to do next; None: not before the next event."""
        times = [p.posted + GIVE_UP_AFTER for p in self._waiting.values()]
        if self._connected:
            times += [p.sent + RESEND_AFTER for p in self._waiting.values() if p.sent is not None]
            if self._silent_since is not None and not self.stalled:
                times.append(self._silent_since + ECHO_WITHIN)
        return min(times, default=None)


@dataclass
class Backoff:
    """How long to wait before the next try: up to ``first``, doubling up to ``longest``, s, by ``chance`` (0 to 1)."""

    first: float = 0.2
    longest: float = 30.0
    # The process's own generator is the notebook's, which may have seeded it.
    chance: Callable[[], float] = field(default=random.SystemRandom().random)
    tries: int = 0

    def next(self) -> float:
        """Count a try, and say how long to wait before it."""
        limit = min(self.longest, self.first * 2.0 ** min(self.tries, 30))
        self.tries += 1
        return limit * (0.5 + 0.5 * self.chance())

    def reset(self) -> None:
        """Forget the tries: one has worked."""
        self.tries = 0


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th … 11th, 21st."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"
