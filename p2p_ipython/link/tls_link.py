"""One link over TLS: its frames out and in, over one connection after the other.

attempts.py brings the connections; session.py says what to send again, when to probe and when a link is lost. This
module joins the two: it says what happens when a connection, a timer, the handler or the link's user acts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from p2p_ipython.config import Settings
from p2p_ipython.errors import LinkError, LinkLost, LinkTimeout, ProtocolError, RemoteProtocolError, WrongPeer
from p2p_ipython.jobs import Complaints
from p2p_ipython.link.attempts import Attempts, Spawn
from p2p_ipython.link.base import PATIENCE, RESERVED, LinkHandler, LinkState
from p2p_ipython.link.dial import Kind, Ways
from p2p_ipython.link.half import CLOSE_LIMIT, HalfLink
from p2p_ipython.link.handshake import Terms
from p2p_ipython.link.idle import PAUSE, Idle
from p2p_ipython.link.listener import Listener
from p2p_ipython.link.outflow import write_frames
from p2p_ipython.link.rendezvous import Role
from p2p_ipython.link.session import ACK_DELAY, Liveness, Patience, Tick
from p2p_ipython.link.transport import Connection
from p2p_ipython.protocol.frames import Buffer, Header, encode

logger = logging.getLogger(__name__)

SETUP_LIMIT = 15.0
"""Seconds for the first connection, once both ends have met."""

MIN_HEARTBEAT = 0.02
"""The shortest heartbeat, seconds: one of 0 would probe without pause."""

_MOST_UNSENT = (
    8 << 20
)  # unsent bytes above which the connection is given up; all frames but control frames stop below 7 MiB
_NUMBERED = ("link.ack", "link.ping", "link.pong")
_MOST = 1 << 53  # the largest number in one of these


class TLSLink(HalfLink):
    """One end of a link; see ``link.base.Link``. Made by ``TLSLinker.open`` only."""

    def __init__(
        self,
        role: Role,
        ways: Ways,
        handler: LinkHandler,
        *,
        settings: Settings,
        listener: Listener,
        spawn: Spawn,
        on_end: Callable[[TLSLink], None],
        complaints: Complaints,
        peer: str = "",
    ) -> None:
        """``spawn`` starts a task; ``on_end`` is called when the link has ended."""
        super().__init__(role, handler, LinkState.RECONNECTING, complaints=complaints, peer=peer)
        self._ways = ways
        self._attempts = Attempts(self, role, ways, listener, spawn)
        self._on_end = on_end
        heartbeat = max(settings.heartbeat, MIN_HEARTBEAT)
        self._liveness = Liveness(heartbeat=heartbeat, lease=settings.lease, now=self._loop.time())
        self._patience = Patience()
        self._idle = Idle()
        self._lease = settings.lease
        self._kind: Kind | None = None
        self._connection: Connection | None = None
        self._made: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._ack_timer: asyncio.TimerHandle | None = None
        self._pong: int | None = None  # the number of the peer's latest probe, until it is answered

    def __repr__(self) -> str:
        return f"<TLSLink {self.role} {self._state.value} {self.kind}>"

    # The interface, link.base.Link

    @property
    def kind(self) -> str:
        return self._kind or "direct"

    @property
    def rtt(self) -> float | None:
        return self._liveness.rtt

    async def close(self) -> None:
        if not self._ended and not self._closing:
            self._closing = True
            end = self._loop.time() + CLOSE_LIMIT
            try:
                async with asyncio.timeout_at(end):
                    await self._emptied()
                    if (connection := self._connection) is not None:
                        connection.write([encode({"t": "link.bye"})])
                        # The peer leaves when it has read that. If this end left first, the goodbye might get lost:
                        # a socket that is closed with unread bytes in it sends a reset.
                        await asyncio.wait([connection.closed])
            except TimeoutError:
                logger.debug("%r: closed with %d bytes unwritten", self, self._outbox.pending)
            finally:
                self._end(LinkState.CLOSED, "closed here", tell=False)
        await self._attempts.ended()

    def abort(self) -> None:
        self._end(LinkState.CLOSED, "aborted here", tell=False)

    def cut(self) -> None:
        if self._connection is not None:
            self._connection.abort("cut on purpose")
            self._cut("cut on purpose")

    # For TLSLinker

    async def make(self, terms: Terms) -> None:
        """Make the first connection. Raises ``LinkTimeout``, ``RelayUnreachable``, ``WrongPeer``."""
        self._attempts.begin(terms)
        try:
            async with asyncio.timeout(SETUP_LIMIT):
                await asyncio.shield(self._made)
        except TimeoutError:
            raise self._ways.relay_error or LinkTimeout(
                "the other end was met, but no connection to it could be made",
                hint="Both may be behind firewalls: a relay would join them. See the board's settings.",
            ) from None

    # For its attempts (attempts.Seeker)

    def count_for_hello(self) -> int:
        """End an older connection, which may deliver no more; return how many frames have come."""
        if self._connection is not None:
            self._connection.abort("replaced")
            self._cut("the client connects anew")
        return self._inbox.tell()

    def connected(self, connection: Connection, kind: Kind, received: int) -> None:
        try:
            self._outbox.rewind(received)
        except RemoteProtocolError as error:
            self.give_up(error)
            return
        self._attempts.use(connection)
        self._connection, self._patience = connection, Patience()
        self._pong = None
        self._kind = kind
        self._state = LinkState.UP
        self._liveness.connected(self._loop.time())
        self._set_timer()
        if not self._made.done():
            self._made.set_result(None)
        elif self._begun:
            self._begin_connection()
            if self._connection is connection:  # frames that came at once may have ended it
                self._tell(LinkState.UP, kind)

    def rivalled(self) -> None:
        # A stranger who has overheard a greeting could also have sent that candidate. A probe decides.
        self._liveness.suspect(self._loop.time())
        self._tick()

    def give_up(self, error: Exception) -> None:
        if not self._made.done():
            self._made.set_exception(error if isinstance(error, LinkError) else WrongPeer(str(error)))
            return
        if self._ended:
            return
        if isinstance(error, (RemoteProtocolError, WrongPeer)):
            self.complaints.about(self.peer, "%r: given up: %s", self, error)
        else:
            logger.info("%r: given up: %s", self, error)
        self._end(LinkState.LOST, str(error).partition("\n")[0])

    # The beginning

    def _begin(self) -> None:
        self._begun = True
        if self._connection is not None:
            self._begin_connection()
        elif self._state is not LinkState.CLOSED:
            self._tell(self._state, "the connection was cut at once")

    def _begin_connection(self) -> None:
        connection = self._connection
        assert connection is not None
        logger.info("%r: connected", self)
        connection.start(self)
        self._tick()
        self._pump()

    # Ending connections, and the link

    def _cut(self, why: str) -> None:
        """Look for another connection: this one is gone."""
        self._connection = None
        if self._ended:
            return
        logger.info("%r: %s", self, why)
        self._state = LinkState.RECONNECTING
        self._liveness.cut(self._loop.time())
        self._set_timer()
        self._attempts.search(last=self._kind)
        self._tell(LinkState.RECONNECTING, why)

    def _end(self, state: LinkState, why: str, *, tell: bool = True) -> None:
        if self._ended:
            return
        self._state = state
        if not self._made.done():
            self._made.set_exception(LinkLost("the link was ended while it was being made"))
        self._made.exception()  # read here, since perhaps nobody waits for it any more
        self._on_end(self)
        for timer in (self._timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        self._attempts.end()
        if self._connection is not None:
            self._connection.abort(why)
            self._connection = None
        self._clear()
        logger.info("%r: %s", self, why)
        if tell and not self._closing:
            self._tell(state, why)

    # Frames out

    def _pump(self) -> None:
        """Write the frames that may be written now; report a peer that makes too many wait."""
        self._pumping = False
        connection, outbox = self._connection, self._outbox
        if not self._ended and outbox.excess:
            self.give_up(RemoteProtocolError(outbox.excess))
            return
        if connection is None or not self._begun:
            return
        if write_frames(outbox, connection):
            self._schedule()
        self._pumped()

    def _control(self, header: Header) -> None:
        if self._connection is None:
            return
        if self._connection.unsent > _MOST_UNSENT:
            self._connection.abort("nothing is read")
            self._cut("the other end does not read")
            return
        self._connection.write([encode(header)])

    def _answer(self) -> None:
        """Answer the peer's latest probe, unless so much is unsent that the answer would only add to it."""
        if self._pong is not None and self._connection is not None and self._connection.writable:
            number, self._pong = self._pong, None
            self._control({"t": "link.pong", "n": number})

    # For its connection (transport.Sink)

    def on_data(self) -> None:
        self._liveness.heard(self._loop.time())

    def on_frame(self, header: Header, body: Buffer, size: int) -> None:
        kind = header["t"]
        if kind.startswith(RESERVED):
            self._on_control(kind, header)
            self._came_to_nothing(0)
            return
        if self._closing:
            return
        due = self._inbox.receive(size)
        if self._handler.on_frame(header, body):
            self._came_to_nothing(len(body))
        if due:
            self._acknowledge()
        elif self._ack_timer is None and not self._ended:
            self._ack_timer = self._loop.call_later(ACK_DELAY, self._acknowledge)

    def _came_to_nothing(self, size: int) -> None:
        """Read the peer slower if it sends too much of that."""
        if self._idle.came(size, self._loop.time()) and (connection := self._connection) is not None:
            connection.rest()
            self._loop.call_later(PAUSE, connection.go_on)

    def buffer_for(self, header: Header, size: int) -> memoryview | None:
        if self._closing or header["t"].startswith(RESERVED):
            return None
        return self._handler.buffer_for(header, size)

    def on_writable(self) -> None:
        self._answer()
        self._acknowledge()
        if not self._pumping:
            self._pump()

    def on_gone(self, reason: Exception) -> None:
        if self._closing:
            self._connection = None
        elif isinstance(reason, (ProtocolError, WrongPeer)):
            self._connection = None
            self.give_up(reason)
        else:
            self._cut(str(reason))

    def _on_control(self, kind: str, header: Header) -> None:
        if kind == "link.bye":
            self._end(LinkState.CLOSED, "the other end closed the link")
            return
        if kind not in _NUMBERED:
            return  # a kind of frame of a later version
        number = header.get("n")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _MOST:
            raise RemoteProtocolError(f"the peer sent a {kind} without a number from 0 to 2^53")
        if kind == "link.ack":
            self._outbox.acknowledge(number)
            if self._outbox.pending:  # it may have waited for this
                self._schedule()
        elif kind == "link.ping":
            self._pong = number
            self._answer()
        elif kind == "link.pong":
            self._liveness.answered(number, self._loop.time())

    def _acknowledge(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        if self._inbox.owes and self._connection is not None and self._connection.writable:
            self._control({"t": "link.ack", "n": self._inbox.tell()})

    # Time

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._liveness.next_tick(), self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        if self._connection is not None and self._patience.ends(self._outbox, self._connection.unsent, now):
            self.give_up(RemoteProtocolError(f"the other end has read nothing for {PATIENCE:g} s"))
            return
        match self._liveness.tick(now):
            case Tick.PROBE:
                self._control({"t": "link.ping", "n": self._liveness.probe(now)})
            case Tick.CUT:
                if self._connection is not None:
                    self._connection.abort("no heartbeat")
                    self._cut("the other end has gone silent")
            case Tick.LOSE:
                self._end(LinkState.LOST, f"the other end did not come back within {self._lease:g} s")
            case _:
                pass
        if not self._ended:
            self._set_timer()
