"""The two services beside a board's SSH, the wormhole mailbox and the transit relay: whom they serve, and how many.

Both are in the board's process and on its loop; see ``mailbox.py`` and ``relay.py``. Nothing of them is kept on disk,
there is no log of their use, and all ends with ``close``. Assumes ``loop.adopt()``: they import Twisted's reactor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from p2p_ipython import loop as loops
from p2p_ipython.board.server.limits import Seldom
from p2p_ipython.board.server.opening import Opened, Speaks
from p2p_ipython.board.server.options import ServerOptions

log = logging.getLogger(__name__)

_NO_ROOM = {
    Speaks.MAILBOX: b"HTTP/1.1 503 Too many connections\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    Speaks.RELAY: b"too many connections in all\n",
}
"""The word for newcomers when a service has all the connections that it may have."""


class Services:
    """A mailbox and a relay, for connections that ``take`` is given.

    ``is_here`` says whether an address has an SSH session on the board; the board sets it.
    """

    def __init__(self, options: ServerOptions) -> None:
        """Make both."""
        loops.adopt()
        # Late: Twisted and what imports its reactor use the one that adopt() has installed.
        from p2p_ipython.board.server.mailbox import Mailbox
        from p2p_ipython.board.server.relay import relay_factory

        self.is_here: Callable[[str], bool] = lambda address: False
        self.mailbox = Mailbox(options, self._is_here)
        # The wrapper knows every open connection, so that it can count them, and close() can end them.
        self._factories = {
            Speaks.MAILBOX: _bounded(self.mailbox.site, Speaks.MAILBOX, options),
            Speaks.RELAY: _bounded(relay_factory(options, self._is_here), Speaks.RELAY, options),
        }
        self.mailbox.start()
        self._closed = False

    def take(self, opened: Opened, transport: asyncio.Transport) -> None:
        """Take the socket of a connection over, with what has been read of it."""
        from twisted.internet import reactor

        sock = transport.get_extra_info("socket")
        factory = _For(self._factories[opened.speaks], opened.address)
        try:
            sock.getpeername()  # else Twisted would leave a descriptor open
            adopted = reactor.adoptStreamConnection(sock.fileno(), sock.family, factory)
        except OSError:  # it has gone meanwhile
            return
        finally:
            transport.abort()  # this closes our descriptor, and not the connection, of which Twisted has its own
        if not opened.data:
            return
        try:
            adopted.protocol.dataReceived(opened.data)
        except Exception:
            # As Twisted does with all that comes later.
            log.exception("a connection to the %s failed", opened.speaks.value)
            adopted.abortConnection()

    async def close(self) -> None:
        """Cut every connection. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.mailbox.stop()
        for factory in self._factories.values():
            for connection in list(factory.protocols):
                connection.transport.abortConnection()
        for _ in range(100):
            if not any(factory.protocols for factory in self._factories.values()):
                break
            await asyncio.sleep(0.01)

    def _is_here(self, address: str) -> bool:
        return self.is_here(address)


class _For:
    """A factory for one connection: that of a client at ``address``, which a proxy has given."""

    def __init__(self, factory: Any, address: str | None) -> None:
        self._factory = factory
        self._address = address

    def buildProtocol(self, addr: Any) -> Any:
        from twisted.internet.address import IPv4Address, IPv6Address

        protocol = self._factory.buildProtocol(addr)
        if self._address is not None:
            kind = IPv6Address if ":" in self._address else IPv4Address
            peer = kind("TCP", self._address, addr.port)
            protocol.getPeer = lambda: peer
        return protocol


def _bounded(factory: Any, speaks: Speaks, options: ServerOptions) -> Any:
    """Let a factory have so many connections. The next is closed with a word, and those that there are stay."""
    from twisted.internet import reactor
    from twisted.internet.protocol import Protocol
    from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

    refused = Seldom(options.say_every)

    class Refusal(Protocol):  # type: ignore[misc]
        def connectionMade(self) -> None:
            self.transport.write(_NO_ROOM[speaks])
            self.transport.loseConnection()

    class Bounded(WrappingFactory):  # type: ignore[misc]
        def buildProtocol(self, addr: Any) -> Any:
            if len(self.protocols) >= options.connections:
                if count := refused.say(reactor.seconds()):
                    log.warning(
                        "%s connections refused: %d; there are %d already", speaks.value, count, options.connections
                    )
                return Refusal()
            return ProtocolWrapper(self, self.wrappedFactory.buildProtocol(addr))

    return Bounded(factory)
