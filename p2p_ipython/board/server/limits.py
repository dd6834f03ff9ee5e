"""The limits of strangers: how much they may make a board parse, keep or do; and how much a key may write. Pure.

``ServerOptions`` has the limits that a board's owner may choose: rate, burst, queue, sessions, connections.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_COMMAND = 4 << 10
"""Longest command line, bytes. Longer ones are refused before anything splits them."""

MAX_PACKET = 64 << 10
"""Longest SSH packet, bytes. A channel's data come in pieces of at most 32 KiB."""

PACKET = 128
"""The least that an SSH packet counts as in a connection's budget, bytes: work goes by packets, not by bytes."""

KEY_EXCHANGE = 64 << 10
"""The cost of a key exchange in that budget, bytes."""

SLICE = 16 << 10
"""How many bytes of a connection are parsed before another connection has its turn."""

MAX_OFFERS = 20
"""How many public keys a client may show or sign with before it is logged in. Any key will do, so one is enough."""

REFUSED_SESSIONS = 64
"""Channels that a key may have open beyond its sessions. Each gets a word, and no command."""

MAX_MAILBOX_MESSAGE = 1 << 20
"""Longest message to the mailbox, bytes. A rendezvous sends some hundreds, an invitation up to half of this."""

MAILBOX_RATE = 64 << 10
MAILBOX_BURST = 2 << 20
"""The bytes that a connection to the mailbox may send, a second and at once. It is cut when it sends more."""

MAILBOX_KEEPS = 64 << 20
"""How much the mailbox keeps for all its clients, bytes."""

RELAY_TOKEN_WITHIN = 30.0
"""How long a connection to the relay may take until it has said whom it wants to meet, s."""

PORTS = 3
DESCRIPTORS = 64
"""Files that a board opens beside its connections: ports, logs, standard streams, the file of users."""

MAX_CONNECTIONS = 4096
"""Most connections of each of a board's ports: SSH, mailbox, relay."""

SAY_EVERY = 60.0
"""A warning that strangers can cause is logged once in so long, s."""


def connections_each(descriptors: int) -> int:
    """Share what a process may open among the board's ports, so that a crowd at one doesn't close the others."""
    return max(1, min(MAX_CONNECTIONS, (descriptors - DESCRIPTORS) // PORTS))


@dataclass
class Bucket:
    """A token bucket that can be overdrawn: ``take`` always succeeds and says how long to be silent then.

    ``rate`` is in bytes a second, ``burst`` in bytes, ``at`` is when it was full, seconds.
    """

    rate: float
    burst: float
    at: float
    level: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.burst

    def take(self, size: int, now: float) -> float:
        """Spend ``size`` bytes; return the seconds until the next may be spent (0: at once)."""
        self._fill(now)
        self.level -= size
        return max(0.0, -self.level / self.rate)

    def full(self, now: float) -> bool:
        """Return whether nothing would be forgotten by forgetting this bucket."""
        self._fill(now)
        return self.level >= self.burst

    def _fill(self, now: float) -> None:
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now


@dataclass
class Seldom:
    """Decides when a warning that keeps coming is logged: once every ``every`` seconds."""

    every: float = SAY_EVERY
    said: float | None = None
    silent: int = 0

    def say(self, now: float) -> int:
        """Count a warning; return how many there have been since the last one that was logged, or 0 for "be silent"."""
        self.silent += 1
        if self.said is not None and now < self.said + self.every:
            return 0
        count, self.silent, self.said = self.silent, 0, now
        return count
