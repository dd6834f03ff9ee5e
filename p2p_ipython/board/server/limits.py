"""Buckets, shares and counts by which a board keeps to its bounds. Pure; ``bounds.py`` has the figures."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R", bound=Hashable)

PACKET = 128
"""The least that an SSH packet counts as in a connection's budget, bytes: work goes by packets, not by bytes."""

KEY_EXCHANGE = 64 << 10
"""The cost of a key exchange in that budget, bytes."""

SHARES = 4
"""The shares of a board's connections: SSH, mailbox, relay, and those that have not said which of these they speak."""

SAY_EVERY = 60.0
"""A warning that strangers can cause is logged once in so long, s."""

KEPT = 4
"""One part in so many of what there is in all is kept for addresses that have an SSH session here."""


def connections_each(descriptors: int, most: int, spare: int) -> int:
    """Share what a process may open among the board's protocols, so that a crowd at one doesn't close the others."""
    return max(1, min(most, (descriptors - spare) // SHARES))


def neighbourhood(host: str) -> str:
    """Return what counts as one address: an IPv4 address, or the network of 64 bits of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


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


class Share:
    """Counts what addresses have: ``each`` may have so much, and all together ``total``.

    A part of ``total`` is kept for addresses that have an SSH session here (``is_here``). Strangers can't use it up.
    """

    def __init__(self, each: int, total: int, is_here: Callable[[str], bool]) -> None:
        self._each = each
        self._total = total
        self._is_here = is_here
        self._used: Counter[str] = Counter()
        self._sum = 0

    def take(self, address: str, size: int = 1) -> str:
        """Take so much for an address. Return "", or whose bound it would be over; nothing is taken then."""
        if self._used.get(address, 0) + size > self._each:
            return "for your address"
        total = self._total if self._is_here(address) else self._total - self._total // KEPT
        if self._sum + size > total:
            return "in all"
        self._used[address] += size
        self._sum += size
        return ""

    def give_back(self, address: str, size: int = 1) -> None:
        """Undo ``take``."""
        self._used[address] -= size
        self._sum -= size
        if self._used[address] <= 0:
            del self._used[address]


class Unread(Generic[R]):
    """Bounds what all readers together leave unread. ``measure`` says how much one has, which shrinks by itself."""

    def __init__(self, most: int, measure: Callable[[R], int]) -> None:
        self._most = most
        self._measure = measure
        self._sizes: dict[R, int] = {}
        self._sum = 0

    def note(self, reader: R, size: int) -> R | None:
        """Note what a reader has unread now. Return the reader that has most, if all together have too much."""
        self._sum += size - self._sizes.get(reader, 0)
        self._sizes[reader] = size
        if self._sum <= self._most:
            return None
        self._sizes = {each: self._measure(each) for each in self._sizes}
        self._sum = sum(self._sizes.values())
        return max(self._sizes, key=self._sizes.__getitem__) if self._sum > self._most else None

    def forget(self, reader: R) -> None:
        """Count a reader no longer."""
        self._sum -= self._sizes.pop(reader, 0)
