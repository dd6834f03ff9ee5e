"""The wormhole mailbox and the transit relay of a board, in its own process and on its own loop.

Both are Magic Wormhole's servers. Nothing of them is kept: the mailbox's database is in memory, there is no log of
their use, and all ends with ``close``. Assumes ``loop.adopt()``: the servers import Twisted's reactor.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from p2p_ipython import loop as loops

log = logging.getLogger(__name__)

MAX_MESSAGE = 1 << 20
"""Largest websocket message, bytes. A rendezvous sends some hundreds."""

PRUNE_EVERY = 300.0
EXPIRE_AFTER = 660.0


class Services:
    """A mailbox and a relay that listen. ``mailbox_port`` and ``relay_port`` are where."""

    def __init__(self, host: str, mailbox_port: int, relay_port: int) -> None:
        """Start listening. Raises ``OSError`` when a port can't be had; nothing listens then."""
        loops.adopt()
        from twisted.internet import error, reactor
        from twisted.protocols.policies import WrappingFactory
        from wormhole_mailbox_server.database import create_channel_db
        from wormhole_mailbox_server.server import make_server
        from wormhole_mailbox_server.web import make_web_server

        self._database = create_channel_db(":memory:")
        self._server = make_server(self._database, allow_list=False)
        # A dead websocket is noticed by its pings; one that says too much is closed.
        options = [
            ("autoPingInterval", 30),
            ("autoPingTimeout", 30),
            ("maxFramePayloadSize", MAX_MESSAGE),
            ("maxMessagePayloadSize", MAX_MESSAGE),
        ]
        # The wrapper knows every open connection, so that close() can end them.
        self._factories = [
            WrappingFactory(make_web_server(self._server, False, options)),
            WrappingFactory(_relay_factory()),
        ]
        self._listening: list[Any] = []
        try:
            for factory, port in zip(self._factories, (mailbox_port, relay_port), strict=True):
                self._listening.append(reactor.listenTCP(port, factory, interface=host))
        except error.CannotListenError as cause:
            for port in self._listening:
                port.stopListening()
            self._database.close()
            raise OSError(str(cause)) from None
        self._server.startService()
        self.mailbox_port, self.relay_port = (port.getHost().port for port in self._listening)
        self._loop = asyncio.get_running_loop()
        self._pruning = self._loop.call_later(PRUNE_EVERY, self._prune)
        self._closed = False

    def _prune(self) -> None:
        self._pruning = self._loop.call_later(PRUNE_EVERY, self._prune)
        try:
            self._server.prune_all_apps(time.time(), time.time() - EXPIRE_AFTER)
        except Exception:
            log.exception("pruning the mailbox failed; it is tried again in %g s", PRUNE_EVERY)

    async def close(self) -> None:
        """Stop listening and cut every connection. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._pruning.cancel()
        for port in self._listening:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped.asFuture(self._loop)
        self._server.stopService()
        for factory in self._factories:
            for connection in list(factory.protocols):
                connection.transport.abortConnection()
        for _ in range(100):
            if not any(factory.protocols for factory in self._factories):
                break
            await asyncio.sleep(0.01)
        self._database.close()


def _relay_factory() -> Any:
    from twisted.internet import reactor
    from twisted.internet.protocol import ServerFactory
    from wormhole_transit_relay.transit_server import Transit, TransitConnection
    from wormhole_transit_relay.usage import create_usage_tracker

    class Connection(TransitConnection):  # type: ignore[misc]
        def connectionMade(self) -> None:
            # Without it, small records wait for the peer's delayed acknowledgement: 43 ms for four and a reply.
            self.transport.setTcpNoDelay(True)
            super().connectionMade()

    factory = ServerFactory()
    factory.protocol = Connection
    factory.log_requests = False
    factory.transit = Transit(
        create_usage_tracker(blur_usage=None, log_file=None, usage_db=None),
        reactor.seconds,
    )
    return factory
