"""The ports of a board: who comes in at them, for whom, and to which of its protocols.

A newcomer's first bytes are read here (``opening.py`` decides), and its connection is then handed on with them, never
passed through: nothing is copied afterwards. A newcomer that hasn't said what it speaks counts here, and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import cast

from p2p_ipython.board.server.descriptors import listening
from p2p_ipython.board.server.limits import Seldom, neighbourhood
from p2p_ipython.board.server.opening import Opened, Opening, Speaks, Undecided
from p2p_ipython.board.server.options import ServerOptions
from p2p_ipython.board.server.proxy import Nonsense, ProxyHeader

Take = Callable[[Opened, asyncio.Transport], None]
"""Takes a connection over: its protocol or its socket, at once."""


class Ports:
    """The ports of a board. ``take`` gets each connection whose protocol is known."""

    def __init__(self, options: ServerOptions, take: Take) -> None:
        self.options = options
        self.take = take
        self.undecided: Undecided[_Newcomer] = Undecided(options)
        self._proxy = None if options.proxy is None else neighbourhood(options.proxy)
        self._seldom = Seldom(options.say_every)
        self._servers: list[asyncio.Server] = []
        self.closed = False

    async def open(self, host: str, port: int, offered: Collection[Speaks]) -> int:
        """Listen on a port for some protocols; return the port. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        for listener in (listeners := listening(host, port, self._seldom)):
            self._servers.append(await loop.create_server(lambda: _Newcomer(self, offered), sock=listener))
        return int(listeners[0].getsockname()[1])

    def close(self) -> None:
        """Listen no longer, and drop the newcomers that haven't said what they speak. Idempotent."""
        self.closed = True
        for server in self._servers:
            server.close()
        for newcomer in self.undecided.all():
            newcomer.drop()

    async def wait_closed(self) -> None:
        """Wait, after ``close``, until nothing listens any more."""
        for server in self._servers:
            await server.wait_closed()

    def opening(self, host: str, offered: Collection[Speaks]) -> Opening:
        """Begin to read what comes from an address."""
        header = ProxyHeader(self.options.proxy_header) if neighbourhood(host) == self._proxy else None
        return Opening(offered, self.options, asyncio.get_running_loop().time(), header)


class _Newcomer(asyncio.Protocol):
    """A connection until its protocol is known."""

    def __init__(self, ports: Ports, offered: Collection[Speaks]) -> None:
        self._ports = ports
        self._offered = offered
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._opening: Opening

    def drop(self) -> None:
        """End the connection without a word."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer is None or self._ports.closed:  # it has gone already, or was accepted in the last moment
            self.drop()
            return
        # The most that the loop reads from this socket in its turn.
        vars(transport)["max_size"] = self._ports.options.slice
        self._opening = self._ports.opening(peer[0], self._offered)
        self._count(peer[0])
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self._decide(lambda: self._opening.feed(data, self._loop.time()))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._ports.undecided.go(self)

    def _decide(self, ask: Callable[[], Opened | None]) -> None:
        self._stop_timer()
        if self._transport.is_closing():
            return
        try:
            opened = ask()
        except Nonsense:
            self.drop()
            return
        if opened is None:
            if self._opening.address is not None:
                self._count(self._opening.address)
            self._timer = self._loop.call_at(self._opening.deadline, self._late)
            return
        self._ports.take(opened, self._transport)
        if self._transport.get_protocol() is not self:
            self._ports.undecided.go(self)  # else its descriptor is still ours, for a moment

    def _count(self, host: str) -> None:
        leaves = self._ports.undecided.come(self, neighbourhood(host))
        if leaves is not None:
            leaves.drop()

    def _late(self) -> None:
        self._decide(lambda: self._opening.late(self._loop.time()))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
