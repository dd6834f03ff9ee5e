"""A wormhole mailbox and a transit relay on the running loop, for tests of the link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from twisted.internet.protocol import ServerFactory

from p2p_ipython import loop as loops


@dataclass
class Servers:
    """Where the two are."""

    mailbox: str
    relay: str


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """Start both on free ports of loopback; at the end stop them and drop who is connected."""
    loops.adopt()
    from twisted.internet import reactor
    from wormhole_mailbox_server.database import create_channel_db
    from wormhole_mailbox_server.server import make_server
    from wormhole_mailbox_server.web import make_web_server
    from wormhole_transit_relay.transit_server import Transit, TransitConnection
    from wormhole_transit_relay.usage import create_usage_tracker

    relay = _Factory()
    relay.protocol = TransitConnection
    relay.log_requests = False
    relay.transit = Transit(create_usage_tracker(None, None, None), reactor.seconds)
    database = create_channel_db(":memory:")
    site = make_web_server(make_server(database), log_requests=False)
    ports = [reactor.listenTCP(0, factory, interface="127.0.0.1") for factory in (site, relay)]
    try:
        yield Servers(
            mailbox=f"ws://127.0.0.1:{ports[0].getHost().port}/v1",
            relay=f"tcp:127.0.0.1:{ports[1].getHost().port}",
        )
    finally:
        loop = asyncio.get_running_loop()
        for port in ports:
            await port.stopListening().asFuture(loop)
        for connection in list(relay.connections):
            connection.transport.abortConnection()
        database.close()


class _Factory(ServerFactory):
    """Knows its connections, so that they can be dropped, and sets TCP_NODELAY on them."""

    def __init__(self) -> None:
        self.connections: set[Any] = set()

    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        made, lost = protocol.connectionMade, protocol.connectionLost

        def connection_made() -> None:
            self.connections.add(protocol)
            protocol.transport.setTcpNoDelay(True)
            made()

        def connection_lost(reason: Any) -> None:
            self.connections.discard(protocol)
            lost(reason)

        protocol.connectionMade, protocol.connectionLost = connection_made, connection_lost
        return protocol
