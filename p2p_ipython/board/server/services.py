"""The two services beside a board's SSH port, the wormhole mailbox and the transit relay: when they listen, for whom.

Both are in the board's process and on its loop; see ``mailbox.py`` and ``relay.py``. Nothing of them is kept on disk,
there is no log of their use, and all ends with ``close``. Assumes ``loop.adopt()``: they import Twisted's reactor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from p2p_ipython import loop as loops
from p2p_ipython.board.server.limits import Seldom, neighbourhood
from p2p_ipython.board.server.options import ServerOptions
from p2p_ipython.board.server.proxy import Nonsense, ProxyHeader

log = logging.getLogger(__name__)

_NO_ROOM = {
    "mailbox": b"HTTP/1.1 503 Too many connections\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "relay": b"too many connections in all\n",
}
"""The word for newcomers when a port has all the connections that it may have."""


class Services:
    """A mailbox and a relay that listen. ``mailbox_port`` and ``relay_port`` are where.

    ``is_here`` says whether an address has an SSH session on the board; the board sets it.
    """

    def __init__(self, host: str, options: ServerOptions) -> None:
        """Start listening. Raises ``OSError`` when a port can't be had; nothing listens then."""
        loops.adopt()
        # Late: Twisted and what imports its reactor use the one that adopt() has installed.
        from twisted.internet import error, reactor

        from p2p_ipython.board.server.mailbox import Mailbox
        from p2p_ipython.board.server.relay import relay_factory

        self.is_here: Callable[[str], bool] = lambda address: False
        self.mailbox = Mailbox(options, self._is_here)
        # The wrapper knows every open connection, so that it can count them, and close() can end them.
        self._factories = [
            _bounded(self.mailbox.site, "mailbox", options),
            _bounded(relay_factory(options, self._is_here), "relay", options),
        ]
        self._listening: list[Any] = []
        try:
            for factory, port in zip(self._factories, (options.mailbox_port, options.relay_port), strict=True):
                self._listening.append(reactor.listenTCP(port, factory, interface=host, backlog=512))
        except error.CannotListenError as cause:
            for port in self._listening:
                port.stopListening()
            raise OSError(str(cause)) from None
        self.mailbox.start()
        self.mailbox_port, self.relay_port = (port.getHost().port for port in self._listening)
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def close(self) -> None:
        """Stop listening and cut every connection. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for port in self._listening:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped.asFuture(self._loop)
        self.mailbox.stop()
        for factory in self._factories:
            for connection in list(factory.protocols):
                connection.transport.abortConnection()
        for _ in range(100):
            if not any(factory.protocols for factory in self._factories):
                break
            await asyncio.sleep(0.01)

    def _is_here(self, address: str) -> bool:
        return self.is_here(address)


def _bounded(factory: Any, name: str, options: ServerOptions) -> Any:
    """Let a factory have so many connections, and read for whom a proxy has connected.

    The next connection is closed with a word, and those that there are stay.
    """
    from twisted.internet import reactor
    from twisted.internet.address import IPv4Address, IPv6Address
    from twisted.internet.protocol import Protocol
    from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

    refused = Seldom(options.say_every)
    proxy = None if options.proxy is None else neighbourhood(options.proxy)

    class Refusal(Protocol):  # type: ignore[misc]
        def connectionMade(self) -> None:
            self.transport.write(_NO_ROOM[name])
            self.transport.loseConnection()

    class Proxied(ProtocolWrapper):  # type: ignore[misc]
        """A connection from a proxy: it begins when the header has come."""

        _peer: Any = None
        _begun = False

        def makeConnection(self, transport: Any) -> None:
            self.transport = transport
            self._header = ProxyHeader(options.proxy_header)
            self._deadline = reactor.callLater(options.relay_token_within, transport.abortConnection)
            self.factory.registerProtocol(self)

        def dataReceived(self, data: bytes) -> None:
            if self._begun:
                super().dataReceived(data)
                return
            try:
                rest = self._header.feed(data)
            except Nonsense:
                self.transport.abortConnection()
                return
            if rest is None:
                return
            self._deadline.cancel()
            if (host := self._header.address) is not None:
                kind = IPv6Address if ":" in host else IPv4Address
                self._peer = kind("TCP", host, self.transport.getPeer().port)
            self._begun = True
            super().makeConnection(self.transport)
            if rest:
                super().dataReceived(rest)

        def getPeer(self) -> Any:
            return self._peer or self.transport.getPeer()

        def connectionLost(self, reason: Any) -> None:
            if self._begun:
                super().connectionLost(reason)
                return
            if self._deadline.active():
                self._deadline.cancel()
            self.factory.unregisterProtocol(self)

    class Bounded(WrappingFactory):  # type: ignore[misc]
        def buildProtocol(self, addr: Any) -> Any:
            if len(self.protocols) >= options.connections:
                if count := refused.say(reactor.seconds()):
                    log.warning("%s connections refused: %d; there are %d already", name, count, options.connections)
                return Refusal()
            kind = Proxied if neighbourhood(addr.host) == proxy else ProtocolWrapper
            return kind(self, self.wrappedFactory.buildProtocol(addr))

    return Bounded(factory)
