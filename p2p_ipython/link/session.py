"""The memory of one end of a link, and the times at which it acts: pure, with time as an argument.

A link outlives its connections. Each end counts the frames that it has written and the frames that it has
got whole; both counts start at 0 with the link and leave out the link's own frames (``"t": "link.…"``)::

    queue ─────▶ take ─────▶ written, kept ─────▶ acknowledge(count): forgotten
      ▲                          │
      └──── rewind(count) ◀──────┘    a new connection: the peer has ``count`` of them, the others go again

A frame that the peer did not get returns to the front of its queue. So small frames overtake bulk after a
reconnect as before it. Frames are kept by reference: no byte is copied for the sake of a resend.

``Liveness`` says when to probe, when a connection is dead and when a link is lost; ``Refusals`` says when
the peer's process must be gone, although its machine still answers.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from p2p_ipython.errors import LocalProtocolError, RemoteProtocolError
from p2p_ipython.link.base import FRAME_COST, HIGH_WATER, LOW_WATER, MOST_WAITING, PATIENCE, RESERVED, WINDOW
from p2p_ipython.protocol.frames import Buffer, Header, encode

ACK_BYTES = 4 << 20
"""Bytes received after which an acknowledgement is sent at once. This bounds the frames that the sender keeps."""

ACK_DELAY = 0.1
"""Seconds after which received frames are acknowledged in any case: so seldom that it costs nothing."""

MISSES = 3
"""Heartbeats without a byte from the peer after which its connection is given up."""

REFUSED_GRACE = 3.0
"""Seconds for which every known address of the peer has to refuse us before the peer counts as gone. A process that
ended takes its listening socket with it, and tasks should not wait out the whole lease for it. A process that is
merely unreachable doesn't refuse; it is silent."""


@dataclass(slots=True, eq=False)
class Frame:
    """A frame on its way out: the bytes before its body, its body, and what both take while they wait.

    ``header`` is there for those that may be cut in two: bulk that says at which ``offset`` its body belongs.
    """

    head: bytes
    body: Buffer
    size: int
    bulk: bool
    header: Header | None = None

    @classmethod
    def of(cls, header: Header, body: Buffer, *, bulk: bool) -> Frame:
        """Make a frame for ``Link.send``; see there for the errors."""
        if header["t"].startswith(RESERVED):
            raise LocalProtocolError(f"{header['t']!r} is a kind of frame of the link itself")
        if isinstance(body, memoryview) and (body.itemsize != 1 or body.ndim != 1):
            body = body.cast("B")
        head = encode(header, len(body))
        size = len(head) + len(body) + FRAME_COST
        return cls(head, body, size, bulk, header if bulk and "offset" in header else None)

    def cut(self, most: int) -> tuple[Frame, Frame] | None:
        """Return two frames for this one, the first with ``most`` bytes of body; None if it can't or needn't be cut."""
        if self.header is None or len(self.body) <= most:
            return None
        body, rest = memoryview(self.body)[:most], memoryview(self.body)[most:]
        later = {**self.header, "offset": self.header["offset"] + most}
        return Frame.of(self.header, body, bulk=True), Frame.of(later, rest, bulk=True)


class Outbox:
    """The frames that are to be sent, and those that were sent and may have to be sent again."""

    def __init__(self, most_waiting: float = MOST_WAITING) -> None:
        """``most_waiting`` bounds the small frames that wait, bytes; see ``excess``."""
        self.pending = 0
        self._most_waiting = most_waiting
        self._waiting = 0  # bytes of small frames
        self._unacknowledged = 0  # bytes written
        self.small: deque[Frame] = deque()
        self.bulk: deque[Frame] = deque()
        self._kept: deque[Frame] = deque()
        self._forgotten = 0
        self._above = False

    @property
    def written(self) -> int:
        """Frames written since the link began."""
        return self._forgotten + len(self._kept)

    @property
    def unacknowledged(self) -> int:
        """Frames written that the peer has not acknowledged."""
        return len(self._kept)

    def queue(self, frame: Frame) -> None:
        """Put ``frame`` at the end of its class."""
        (self.bulk if frame.bulk else self.small).append(frame)
        self.pending += frame.size
        self._waiting += 0 if frame.bulk else frame.size
        if self.pending > HIGH_WATER:
            self._above = True

    def take(self, *, bulk: bool, most: int | None = None) -> Frame | None:
        """Take the next frame of a class, which then counts as written; return None when there is none.

        Nor is there one for a peer that has not acknowledged what it was sent. One with a longer body than ``most`` is
        cut, if it may be.
        """
        queue = self.bulk if bulk else self.small
        if not queue or self._unacknowledged >= WINDOW:
            return None
        frame = queue.popleft()
        if most is not None and (parts := frame.cut(most)) is not None:
            self.pending += sum(part.size for part in parts) - frame.size
            frame, rest = parts
            queue.appendleft(rest)
        self._kept.append(frame)
        self.pending -= frame.size
        self._waiting -= 0 if bulk else frame.size
        self._unacknowledged += frame.size
        return frame

    @property
    def excess(self) -> str:
        """The peer's fault that makes too much wait here, in words; "" if there is none."""
        if self._waiting > self._most_waiting:
            return f"the other end doesn't read what it asked for: {self._waiting >> 20} MiB wait for it"
        return ""

    @property
    def is_open(self) -> bool:
        """Whether frames may be taken: not too much is unacknowledged."""
        return self._unacknowledged < WINDOW

    @property
    def taken(self) -> tuple[int, int] | None:
        """The frames that were written, and those that the peer has; None if nothing is owed to it."""
        return (self.written, self._forgotten) if self.pending or self._kept else None

    def drained(self) -> bool:
        """Return, once, whether ``pending`` has fallen to the low-water mark since it was above the high one."""
        if self._above and self.pending <= LOW_WATER:
            self._above = False
            return True
        return False

    def acknowledge(self, count: int) -> None:
        """Forget the first ``count`` frames. Raises ``RemoteProtocolError`` unless they were written."""
        if not self._forgotten <= count <= self.written:
            raise RemoteProtocolError(
                f"the peer says it has {count} frames; it was sent {self.written} and had {self._forgotten}"
            )
        for _ in range(count - self._forgotten):
            self._unacknowledged -= self._kept.popleft().size
        self._forgotten = count

    def rewind(self, count: int) -> None:
        """Start a new connection, on which the peer says that it has ``count`` frames; queue the others again.

        Raises ``RemoteProtocolError`` as ``acknowledge`` does.
        """
        self.acknowledge(count)
        while self._kept:
            frame = self._kept.pop()
            (self.bulk if frame.bulk else self.small).appendleft(frame)
            self.pending += frame.size
            self._waiting += 0 if frame.bulk else frame.size
        self._unacknowledged = 0
        if self.pending > HIGH_WATER:
            self._above = True

    def clear(self) -> None:
        """Release all frames: the link has ended."""
        for frames in (self.small, self.bulk, self._kept):
            frames.clear()
        self.pending = self._waiting = self._unacknowledged = 0
        self._above = False


class Inbox:
    """Counts the frames that have come, and those of them that were acknowledged."""

    def __init__(self) -> None:
        self.received = 0
        self._told = 0
        self._bytes = 0

    @property
    def owes(self) -> bool:
        """Whether there is something to acknowledge."""
        return self._told != self.received

    def receive(self, size: int) -> bool:
        """Count a frame of ``size`` bytes; return whether an acknowledgement is due at once."""
        self.received += 1
        self._bytes += size
        return self._bytes >= ACK_BYTES

    def tell(self) -> int:
        """Return the count to acknowledge; its frames then count as acknowledged."""
        self._told = self.received
        self._bytes = 0
        return self.received


class Tick(enum.Enum):
    """The act that ``Liveness.tick`` asks for."""

    NOTHING = enum.auto()
    PROBE = enum.auto()
    CUT = enum.auto()
    LOSE = enum.auto()


class Liveness:
    """Decides when to probe an idle link, when its connection is dead, when the link is lost.

    Times are those of one monotonic clock, seconds.
    """

    def __init__(self, *, heartbeat: float, lease: float, now: float) -> None:
        self._heartbeat = heartbeat
        self._lease = lease
        self._up = False
        self._away_since = now
        self._heard = now
        self._probe_at = now
        self._deadline = now
        self._probes: dict[int, float] = {}
        self._number = 0
        self.rtt: float | None = None

    def connected(self, now: float) -> None:
        """Note that there is a connection."""
        self._up = True
        self._heard = self._probe_at = now
        self._probes.clear()
        self._deadline = now + MISSES * self._heartbeat

    def cut(self, now: float) -> None:
        """Note that the connection is gone; the lease begins."""
        self._up = False
        self._away_since = now

    def heard(self, now: float) -> None:
        """Note that some bytes came from the peer."""
        self._heard = now
        self._deadline = now + MISSES * self._heartbeat

    def suspect(self, now: float) -> None:
        """Doubt the connection: it has one heartbeat to show that it is not dead."""
        self._probe_at = now
        self._deadline = min(self._deadline, now + self._heartbeat)

    def probe(self, now: float) -> int:
        """Return the number of the probe that is being sent."""
        self._number += 1
        self._probes[self._number] = now
        while len(self._probes) > MISSES + 1:
            del self._probes[next(iter(self._probes))]
        return self._number

    def answered(self, number: int, now: float) -> None:
        """Note that the peer answered a probe; a number that no probe had is ignored."""
        sent = self._probes.pop(number, None)
        if sent is not None:
            self.rtt = now - sent

    def next_tick(self) -> float:
        """Return the time at which to call ``tick``."""
        return min(self._probe_at, self._deadline) if self._up else self._away_since + self._lease

    def tick(self, now: float) -> Tick:
        """Return the act that is due now."""
        if not self._up:
            return Tick.LOSE if now >= self._away_since + self._lease else Tick.NOTHING
        if now >= self._probe_at + self._heartbeat and now >= self._deadline:
            # This end was away (a suspended laptop, a debugger), and the bytes that the peer sent meanwhile are still
            # unread. The peer gets the time for one answer.
            self._probe_at = now
            self._deadline = now + self._heartbeat
        if now >= self._deadline:
            return Tick.CUT
        if now >= self._probe_at:
            self._probe_at = now + self._heartbeat
            return Tick.PROBE
        return Tick.NOTHING


class Patience:
    """Tells a peer that no longer reads from one that reads slowly. Times are those of one monotonic clock, seconds."""

    def __init__(self) -> None:
        self._taken: tuple[int, int] | None = None
        self._unsent = 0
        self._looked = self._since = float("-inf")

    def ends(self, outbox: Outbox, unsent: int, now: float) -> bool:
        """Look whether the peer has taken anything since the last look; return whether it has not for too long.

        ``unsent`` are the bytes that the connection holds. A look after a long time says nothing: this end was away.
        """
        taken, away = outbox.taken, now - self._looked > PATIENCE / 2
        if taken is None or away or taken != self._taken or unsent < self._unsent:
            self._since = now
        self._taken, self._unsent, self._looked = taken, unsent, now
        return now - self._since >= PATIENCE


class Refusals:
    """Tells a peer whose process is gone from one that can't be reached.

    ``ways`` are the peer's addresses. Those that have ever answered decide; if none has, all of them do.
    """

    def __init__(self, ways: Iterable[Hashable]) -> None:
        self._refuses: dict[Hashable, bool] = dict.fromkeys(ways, False)
        self._answered: set[Hashable] = set()
        self._since: float | None = None

    def answered(self, way: Hashable) -> None:
        """Note that the peer itself answered at ``way``."""
        self._answered.add(way)
        self._refuses[way] = False
        self._since = None

    def silent(self, way: Hashable) -> None:
        """Note that nothing came back from ``way``: the network's fault, not the peer's."""
        self._refuses[way] = False
        if way in self._deciding():
            self._since = None

    def refused(self, way: Hashable, now: float) -> bool:
        """Note that the peer is not at ``way``; return whether it now counts as gone."""
        self._refuses[way] = True
        if not all(self._refuses[one] for one in self._deciding()):
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= REFUSED_GRACE

    def reset(self) -> None:
        """Begin anew: a new search begins."""
        self._refuses = dict.fromkeys(self._refuses, False)
        self._since = None

    def _deciding(self) -> Iterable[Hashable]:
        return self._answered or self._refuses.keys()
