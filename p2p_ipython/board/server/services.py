"""The two services beside a board's SSH port, the wormhole mailbox and the transit relay: when they listen, for whom.

Both are Magic Wormhole's servers, in the board's process and on its loop; see ``mailbox.py`` and ``relay.py``. Nothing
of them is kept: the mailbox's database is in memory, there is no log of their use, and all ends with ``close``.
Assumes ``loop.adopt()``: the servers import Twisted's reactor.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from p2p_ipython import loop as loops
from p2p_ipython.board.server.limits import MAX_CONNECTIONS, Seldom

log = logging.getLogger(__name__)


class Services:
    """A mailbox and a relay that listen. ``mailbox_port`` and ``relay_port`` are where."""

    def __init__(self, host: str, mailbox_port: int, relay_port: int, connections: int = MAX_CONNECTIONS) -> None:
        """Start listening; each port takes as many connections. Raises ``OSError`` when a port can't be had.

        Nothing listens then.
        """
        loops.adopt()
        # Late: Twisted and what imports its reactor use the one that adopt() has installed.
        from twisted.internet import error, reactor

        from p2p_ipython.board.server.mailbox import Mailbox
        from p2p_ipython.board.server.relay import relay_factory

        self._mailbox = Mailbox()
        # The wrapper knows every open connection, so that it can count them, and close() can end them.
        self._factories = [
            _bounded(self._mailbox.site, "mailbox", connections),
            _bounded(relay_factory(), "relay", connections),
        ]
        self._listening: list[Any] = []
        try:
            for factory, port in zip(self._factories, (mailbox_port, relay_port), strict=True):
                self._listening.append(reactor.listenTCP(port, factory, interface=host))
        except error.CannotListenError as cause:
            for port in self._listening:
                port.stopListening()
            self._mailbox.close()
            raise OSError(str(cause)) from None
        self._mailbox.start()
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
        self._mailbox.stop()
        for factory in self._factories:
            for connection in list(factory.protocols):
                connection.transport.abortConnection()
        for _ in range(100):
            if not any(factory.protocols for factory in self._factories):
                break
            await asyncio.sleep(0.01)
        self._mailbox.close()


def _bounded(factory: Any, name: str, connections: int) -> Any:
    """Let a factory have so many connections. The next one is closed at once, and those that there are stay."""
    from twisted.internet import reactor
    from twisted.protocols.policies import WrappingFactory

    refused = Seldom()

    class Bounded(WrappingFactory):  # type: ignore[misc]
        def buildProtocol(self, addr: Any) -> Any:
            if len(self.protocols) < connections:
                return super().buildProtocol(addr)
            if count := refused.say(reactor.seconds()):
                log.warning("%s connections refused: %d; there are %d already", name, count, connections)
            return None

    return Bounded(factory)
