"""The arrivals at a board, purely: which SSH connections may stay, and which make room when there are too many.

A connection *arrives* from an address, *proves* its key by logging in, has *sessions*, and *leaves*. Its address counts
until it has proved its key, and not afterwards: many people may be behind one address. A connection that has not
logged in for ``MAKES_ROOM`` makes room for a newcomer, and so does one that has no session. Otherwise the newcomer is
refused with a word. Members who have a session notice nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.limits import Bucket

G = TypeVar("G", bound=Hashable)

MAKES_ROOM = 2.0
"""After so long, s, a connection that has not logged in, or has no session, makes room when there are too many."""


@dataclass(frozen=True)
class Answer(Generic[G]):
    """The answer to a newcomer: ``refused`` is "" or the word for them, ``leaves`` the connection that makes room.

    ``wait`` is for how long, s, nothing should be read of them.
    """

    refused: str = ""
    leaves: G | None = None
    wait: float = 0.0


@dataclass
class _Guest:
    address: str
    key: str = ""
    named: bool = False
    sessions: int = 0


class Arrivals(Generic[G]):
    """The connections of a board. Times are seconds of a clock that doesn't jump."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._guests: dict[G, _Guest] = {}
        self._half_open: dict[str, dict[G, float]] = {}  # by address; the oldest first
        self._halves = 0
        self._idle: dict[G, float] = {}  # the longest idle first
        self._crowds: dict[str, dict[G, None]] = {}  # by address, of those without a name; the newest last
        self._keys: Counter[str] = Counter()
        self._here: Counter[str] = Counter()  # sessions by address
        self._logins: dict[str, Bucket] = {}  # by address

    def __len__(self) -> int:
        return len(self._guests)

    def is_here(self, address: str) -> bool:
        """Return whether an address has a session."""
        return address in self._here

    def arrive(self, guest: G, address: str, now: float) -> Answer[G]:
        """Take a connection that has not logged in yet, or refuse it."""
        bounds = self._bounds
        leaves: G | None = None
        if len(self._half_open.get(address, ())) >= bounds.half_open_each:
            refused = "too many connections from your address are logging in"
            leaves = self._oldest([address], now)
        elif self._halves >= bounds.half_open:
            refused = "too many connections are logging in"
            leaves = self._oldest(self._half_open, now)
        elif len(self._guests) >= bounds.connections:
            refused = "the board has too many connections"
            leaves = self._oldest(self._half_open, now) or self._longest_idle(now) or self._of_a_crowd(address)
        else:
            refused = ""
        if refused and leaves is None:
            return Answer(f"{refused}; try again in a moment")
        wait = self._turn(address, now)
        if wait >= bounds.login_timeout:
            return Answer("too many log-ins from your address; try again in a moment")
        if leaves is not None:
            self.leave(leaves)
        self._guests[guest] = _Guest(address)
        self._half_open.setdefault(address, {})[guest] = now
        self._halves += 1
        return Answer(leaves=leaves, wait=wait)

    def prove(self, guest: G, key: str, now: float, *, named: bool = False) -> str:
        """Note that a connection has logged in with a key; ``named``: the board has a name for it.

        Returns "", or the word with which it is refused.
        """
        known = self._guests.get(guest)
        if known is None:
            return ""  # it has just made room
        if self._keys[key] >= self._bounds.key_connections:
            return f"your key has {self._bounds.key_connections} connections already"
        self._log_in(guest, known)
        known.key, known.named = key, named
        self._keys[key] += 1
        if not named:
            self._crowds.setdefault(known.address, {})[guest] = None
        self._idle[guest] = now
        return ""

    def begin(self, guest: G) -> None:
        """Note that a connection has one session more."""
        if (known := self._guests.get(guest)) is not None:
            known.sessions += 1
            self._here[known.address] += 1
            self._idle.pop(guest, None)

    def end(self, guest: G, now: float) -> None:
        """Note that a connection has one session less."""
        if (known := self._guests.get(guest)) is not None:
            known.sessions -= 1
            self._absent(known.address, 1)
            if not known.sessions:
                self._idle[guest] = now

    def leave(self, guest: G) -> None:
        """Note that a connection has gone. Idempotent."""
        known = self._guests.pop(guest, None)
        if known is None:
            return
        if not known.key:
            self._log_in(guest, known)
            return
        self._keys[known.key] -= 1
        if not self._keys[known.key]:
            del self._keys[known.key]
        self._idle.pop(guest, None)
        self._absent(known.address, known.sessions)
        crowd = self._crowds.get(known.address, {})
        crowd.pop(guest, None)
        if not crowd:
            self._crowds.pop(known.address, None)

    def overdue(self, now: float) -> list[G]:
        """Return the connections that have been without a session for too long."""
        found = []
        for guest, since in self._idle.items():
            if now < since + self._bounds.idle:
                break
            found.append(guest)
        return found

    def _turn(self, address: str, now: float) -> float:
        """Return how long an address has to wait until it may begin to log in: its key exchange is work for us."""
        if address not in self._logins:
            if len(self._logins) >= self._bounds.keys:
                self._logins = {each: bucket for each, bucket in self._logins.items() if not bucket.full(now)}
            self._logins[address] = Bucket(self._bounds.logins, self._bounds.logins_burst, now)
        bucket = self._logins[address]
        if bucket.level <= -self._bounds.logins * self._bounds.login_timeout:
            bucket.full(now)  # a refusal isn't work, and costs no turn
            return max(0.0, -bucket.level / bucket.rate)
        return bucket.take(1, now)

    def _log_in(self, guest: G, known: _Guest) -> None:
        halves = self._half_open[known.address]
        del halves[guest]
        if not halves:
            del self._half_open[known.address]
        self._halves -= 1

    def _absent(self, address: str, sessions: int) -> None:
        self._here[address] -= sessions
        if self._here[address] <= 0:
            del self._here[address]

    def _oldest(self, addresses: Iterable[str], now: float) -> G | None:
        """Return the oldest that has not logged in, of the address that has most of them, if it is old enough."""
        most = max((self._half_open.get(address, {}) for address in addresses), key=len, default={})
        guest, since = next(iter(most.items()), (None, now))
        return guest if now >= since + MAKES_ROOM else None

    def _longest_idle(self, now: float) -> G | None:
        guest, since = next(iter(self._idle.items()), (None, now))
        return guest if now >= since + MAKES_ROOM else None

    def _of_a_crowd(self, newcomers: str) -> G | None:
        address, crowd = max(self._crowds.items(), key=lambda item: len(item[1]), default=("", {}))
        if len(crowd) <= self._bounds.crowd or address == newcomers:
            return None
        return next(reversed(crowd))
