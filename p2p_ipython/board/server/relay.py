"""A board's transit relay: Magic Wormhole's own, with bounds, and without a delay for small records.

A connection waits for its partner, and is then one of a pair. Both have bounds for each address and in all, in number,
in seconds and in bytes a second. Import it after ``loop.adopt()``: it imports Twisted's reactor.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet import interfaces, reactor
from twisted.internet.protocol import ServerFactory
from wormhole_transit_relay.transit_server import Transit, TransitConnection
from wormhole_transit_relay.usage import create_usage_tracker
from zope.interface import implementer

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.limits import KEPT, Bucket, Share, neighbourhood

BUFFER = 32 << 10
"""Bytes that are read at once, and bytes that wait for a partner before the other is asked to pause."""
_WISH = re.compile(rb"^please relay (\w{64})(?: for side (\w{16}))?$")


class Flows:
    """The bytes that pass through a relay: how many, of whom, and how long to be silent then."""

    def __init__(self, bounds: Bounds, is_here: Callable[[str], bool]) -> None:
        self._bounds = bounds
        self._is_here = is_here
        now = reactor.seconds()
        self._all = Bucket(bounds.relay_rate, bounds.relay_rate, now)
        strangers = bounds.relay_rate - bounds.relay_rate / KEPT
        self._strangers = Bucket(strangers, strangers, now)
        self._each: dict[str, Bucket] = {}

    def take(self, address: str, size: int, now: float) -> float:
        """Count bytes of an address; return for how many seconds it should send no more."""
        each = self._each.get(address)
        if each is None:
            each = self._each[address] = Bucket(self._bounds.relay_rate_each, self._bounds.relay_rate_each, now)
        waits = each.take(size, now), self._all.take(size, now)
        return max(waits) if self._is_here(address) else max(*waits, self._strangers.take(size, now))

    def forget(self, now: float) -> None:
        """Forget addresses that have sent little lately."""
        for address in [address for address, bucket in self._each.items() if bucket.full(now)]:
            del self._each[address]


def relay_factory(bounds: Bounds, is_here: Callable[[str], bool]) -> Any:
    """Make the factory of a relay that logs and keeps nothing."""
    factory = ServerFactory()
    factory.protocol = _Connection
    factory.log_requests = False
    factory.transit = Transit(
        create_usage_tracker(blur_usage=None, log_file=None, usage_db=None),
        reactor.seconds,
    )
    factory.bounds = bounds
    factory.waiting = Share(bounds.relay_waiting_each, bounds.relay_waiting, is_here)
    # Each of a pair's two ends counts.
    factory.ends = Share(bounds.relay_pairs_each, 2 * bounds.relay_pairs, is_here)
    factory.flows = Flows(bounds, is_here)
    return factory


@implementer(interfaces.IPushProducer)
class _Tap:
    """Reads a connection while its partner takes what comes, and while it may send more."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._full = False
        self._silence: Any = None

    def pauseProducing(self) -> None:
        self._full = True
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._full = False
        if self._silence is None:
            self._transport.resumeProducing()

    def stopProducing(self) -> None:
        self.close()
        self._transport.loseConnection()

    def silence(self, seconds: float) -> None:
        """Read nothing for so long."""
        if self._silence is None:
            self._transport.pauseProducing()
            self._silence = reactor.callLater(seconds, self._read_on)

    def close(self) -> None:
        """Stop the timer."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _read_on(self) -> None:
        self._silence = None
        if not self._full:
            self._transport.resumeProducing()


class _Connection(TransitConnection):  # type: ignore[misc]
    def connectionMade(self) -> None:
        # Without it, small records wait for the peer's delayed acknowledgement: 43 ms for four and a reply.
        self.transport.setTcpNoDelay(True)
        self.transport.transport.bufferSize = BUFFER  # beneath the wrapper that services.py puts around it
        self.address = neighbourhood(self.transport.getPeer().host)
        self._holds: Share | None = None
        self._tap = _Tap(self.transport)
        self._heard = reactor.seconds()
        self._timer = reactor.callLater(self.factory.bounds.relay_token_within, self.transport.abortConnection)
        super().connectionMade()

    def lineReceived(self, line: bytes) -> None:
        self._stop_timer()
        wish = _WISH.match(line)
        if wish is not None:
            refused = self._admit(wish[1], wish[2])
            if refused:
                self._refuse(f"too many connections {refused}")
                return
        super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        self._heard = reactor.seconds()
        super().rawDataReceived(data)
        if silence := self.factory.flows.take(self.address, len(data), self._heard):
            self._tap.silence(silence)

    def connect_partner(self, other: Any) -> None:
        # Not the transport itself: two may ask it to pause, the partner and the bound of bytes a second.
        self._buddy = other
        other._client.transport.registerProducer(self._tap, True)
        self._listen()

    def connectionLost(self, reason: Any) -> None:
        self._stop_timer()
        self._tap.close()
        self._hold(None)
        self.factory.flows.forget(reactor.seconds())
        super().connectionLost(reason)

    def _admit(self, token: bytes, side: bytes | None) -> str:
        """Count the connection as one that waits, or as one of a pair; return "", or whose bound it would be over."""
        partner: _Connection | None = None
        for other_side, other in self.factory.transit.pending_requests._requests.get(token, ()):
            if side is None or other_side is None or side != other_side:
                partner = other._client
        if partner is None:
            refused: str = self.factory.waiting.take(self.address)
            if not refused:
                self._holds = self.factory.waiting
                self._timer = reactor.callLater(self.factory.bounds.relay_wait, self._refuse, "nobody came")
            return refused
        ends: Share = self.factory.ends
        if refused := ends.take(self.address):
            return refused
        self._holds = ends
        if refused := ends.take(partner.address):
            return refused
        partner._hold(ends)
        return ""

    def _hold(self, share: Share | None) -> None:
        """Count from now on among those of ``share``, which has been taken already."""
        if self._holds is not None:
            self._holds.give_back(self.address)
        self._holds = share

    def _listen(self) -> None:
        """Close the pair when neither has said anything for too long."""
        self._stop_timer()
        last = max(self._heard, self._buddy._client._heard) if self._buddy is not None else self._heard
        left = last + self.factory.bounds.relay_silence - reactor.seconds()
        if left > 0:
            self._timer = reactor.callLater(left, self._listen)
        else:
            self.transport.loseConnection()

    def _refuse(self, word: str) -> None:
        self.transport.write(word.encode() + b"\n")
        self.transport.loseConnection()

    def _stop_timer(self) -> None:
        if self._timer.active():
            self._timer.cancel()
