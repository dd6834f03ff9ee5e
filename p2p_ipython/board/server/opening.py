"""The opening of a connection, purely: which protocol its first bytes are of, and for whom a proxy has connected.

Clients of SSH, of the mailbox and of the relay all speak first, and none begins as another does. So one port serves all
three. A client that is silent may wait for the server's first word, as SSH allows: after a second it is SSH's. Bytes
that begin like nothing that the port serves end the connection at once.

A proxy's header comes before all that. See ``proxy.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.proxy import Nonsense, ProxyHeader

G = TypeVar("G", bound=Hashable)


class Speaks(Enum):
    """The protocols of a board, by the names that the log has for them."""

    SSH = "SSH"
    MAILBOX = "mailbox"
    RELAY = "relay"


STARTS = {
    b"SSH-": Speaks.SSH,
    b"GET ": Speaks.MAILBOX,
    b"HEAD ": Speaks.MAILBOX,
    b"POST ": Speaks.MAILBOX,
    b"OPTIONS ": Speaks.MAILBOX,
    b"please relay ": Speaks.RELAY,
}
"""The first bytes of a connection, by which its protocol is known."""


@dataclass(frozen=True)
class Opened:
    """The protocol of a connection, what has been read of it, and the client's address as a proxy has given it."""

    speaks: Speaks
    data: bytes = b""
    address: str | None = None


class Opening:
    """Reads the beginning of one connection. ``header`` reads a proxy's, None if it comes from none."""

    def __init__(
        self, offered: Collection[Speaks], bounds: Bounds, now: float, header: ProxyHeader | None = None
    ) -> None:
        self._offered = offered
        self._bounds = bounds
        self._header = header
        self.address: str | None = None
        """The client's address as a proxy has given it."""
        self._data = b""
        self._silence = now + bounds.silence
        self._end = now + bounds.opening

    @property
    def deadline(self) -> float:
        """When to call ``late``."""
        return self._silence if self._silent() else self._end

    def feed(self, data: bytes, now: float) -> Opened | None:
        """Take bytes, maybe none; return the protocol once it is known. Raises ``Nonsense``."""
        if self._header is not None:
            rest = self._header.feed(data)
            if rest is None:
                return None
            self.address, self._header = self._header.address, None
            self._silence = now + self._bounds.silence
            data = rest
        self._data += data
        if len(self._offered) == 1:
            return self._opened(next(iter(self._offered)))
        starts = [(start, speaks) for start, speaks in STARTS.items() if speaks in self._offered]
        for start, speaks in starts:
            if self._data.startswith(start):
                return self._opened(speaks)
        if not any(start.startswith(self._data) for start, _ in starts):
            raise Nonsense("it begins like nothing that is served here")
        return None

    def late(self, now: float) -> Opened | None:
        """Decide by the time: return the protocol if it is known by silence. Raises ``Nonsense`` at the end of it."""
        if self._silent() and now >= self._silence:
            return self._opened(Speaks.SSH)
        if now >= self._end:
            raise Nonsense("it has not said what it speaks")
        return None

    def _silent(self) -> bool:
        return self._header is None and not self._data and Speaks.SSH in self._offered

    def _opened(self, speaks: Speaks) -> Opened:
        return Opened(speaks, self._data, self.address)


class Undecided(Generic[G]):
    """Counts the connections whose protocol isn't known yet. One of the largest crowd makes room for a newcomer."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._address: dict[G, str] = {}
        self._crowds: dict[str, dict[G, None]] = {}  # by address; the oldest first

    def __len__(self) -> int:
        return len(self._address)

    def come(self, guest: G, address: str) -> G | None:
        """Count a connection at an address, and nowhere else; return the one that has to make room for it."""
        self.go(guest)
        crowd = self._crowds.get(address, {})
        if len(crowd) < self._bounds.undecided_each:
            crowd = {}
            if len(self._address) >= self._bounds.connections:
                crowd = max(self._crowds.values(), key=len)
        leaves = next(iter(crowd), None)
        if leaves is not None:
            self.go(leaves)
        self._address[guest] = address
        self._crowds.setdefault(address, {})[guest] = None
        return leaves

    def all(self) -> list[G]:
        """Return all of them."""
        return list(self._address)

    def go(self, guest: G) -> None:
        """Count a connection no longer. Idempotent."""
        address = self._address.pop(guest, None)
        if address is not None:
            crowd = self._crowds[address]
            del crowd[guest]
            if not crowd:
                del self._crowds[address]
