"""A board's transit relay: Magic Wormhole's own, without a delay for small records, and without silent guests.

Import it after ``loop.adopt()``: it imports Twisted's reactor.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import ServerFactory
from wormhole_transit_relay.transit_server import Transit, TransitConnection
from wormhole_transit_relay.usage import create_usage_tracker

from p2p_ipython.board.server.limits import RELAY_TOKEN_WITHIN


def relay_factory() -> Any:
    """Make the factory of a relay that logs and keeps nothing."""
    factory = ServerFactory()
    factory.protocol = _Connection
    factory.log_requests = False
    factory.transit = Transit(
        create_usage_tracker(blur_usage=None, log_file=None, usage_db=None),
        reactor.seconds,
    )
    return factory


class _Connection(TransitConnection):  # type: ignore[misc]
    def connectionMade(self) -> None:
        # Without it, small records wait for the peer's delayed acknowledgement: 43 ms for four and a reply.
        self.transport.setTcpNoDelay(True)
        self._silence = reactor.callLater(RELAY_TOKEN_WITHIN, self.transport.abortConnection)
        super().connectionMade()

    def lineReceived(self, line: bytes) -> None:
        self._listen_on()
        super().lineReceived(line)

    def connectionLost(self, reason: Any) -> None:
        self._listen_on()
        super().connectionLost(reason)

    def _listen_on(self) -> None:
        if self._silence.active():
            self._silence.cancel()
