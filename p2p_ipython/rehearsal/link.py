"""Links whose two ends are in one process: the same interface and promises as link/tls.py, without a network.

A ``MemoryHub`` (hub.py) stands for everything between the processes: mailbox, relay and wires, and their faults::

    hub = MemoryHub(seed=7, cut_rate=0.01)
    client = MemoryLinker("client", hub=hub, settings=settings)
    worker = MemoryLinker("worker", hub=hub, settings=settings)
    link, other = await asyncio.gather(client.open(meeting, one), worker.open(same_meeting, two))
"""

from __future__ import annotations

import asyncio
import logging

from p2p_ipython.config import Settings
from p2p_ipython.errors import LinkLost, ProtocolError, RemoteProtocolError
from p2p_ipython.jobs import Complaints
from p2p_ipython.link.base import LANDING, LinkHandler, LinkState, Meeting
from p2p_ipython.link.half import CLOSE_LIMIT, HalfLink
from p2p_ipython.link.rendezvous import Role
from p2p_ipython.link.session import REFUSED_GRACE, Frame
from p2p_ipython.protocol.frames import PREFIX, Buffer, FrameError, decode_header
from p2p_ipython.rehearsal.hub import MemoryHub

logger = logging.getLogger(__name__)


class MemoryLinker:
    """Makes the links of one of the processes that a hub stands between; see ``link.base.Linker``."""

    def __init__(self, role: Role, *, hub: MemoryHub, settings: Settings) -> None:
        self.role = role
        self.settings = settings
        self._hub = hub
        self._links: set[MemoryLink] = set()
        self.complaints = Complaints(logger, asyncio.get_running_loop().time)
        self._closed = False

    async def open(self, meeting: Meeting, handler: LinkHandler) -> MemoryLink:
        """See ``link.base.Linker.open``."""
        if self._closed:
            raise LinkLost("the linker is closed")
        link = MemoryLink(self, self._hub, handler, meeting.peer)
        self._links.add(link)
        await link.begin_after(self._hub.meet(link, meeting))
        return link

    async def close(self) -> None:
        """Abort all links. Idempotent."""
        self._closed = True
        for link in list(self._links):
            link.abort()

    def forget(self, link: MemoryLink) -> None:
        """``link`` has ended."""
        self._links.discard(link)


class MemoryLink(HalfLink):
    """One end of a link; see ``link.base.Link``."""

    def __init__(self, linker: MemoryLinker, hub: MemoryHub, handler: LinkHandler, peer: str) -> None:
        super().__init__(linker.role, handler, LinkState.UP, complaints=linker.complaints, peer=peer)
        self._linker = linker
        self._hub = hub
        self._peer: MemoryLink | None = None
        self._lease: asyncio.TimerHandle | None = None
        self._mending: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<MemoryLink {self.role} {self._state.value}>"

    # The interface, link.base.Link

    @property
    def kind(self) -> str:
        return "memory"

    @property
    def rtt(self) -> float | None:
        return 0.0 if self._begun else None

    async def close(self) -> None:
        if self._ended or self._closing:
            return
        self._closing = True
        try:
            async with asyncio.timeout(CLOSE_LIMIT):
                await self._emptied()
        except TimeoutError:
            logger.debug("%r: closed with %d bytes undelivered", self, self._outbox.pending)
        finally:
            peer, up = self._peer, self._state is LinkState.UP
            self._end(LinkState.CLOSED, "closed here", tell=False)
            if peer is not None and up:
                peer._end(LinkState.CLOSED, "the other end closed the link")
            elif peer is not None:
                peer._forsaken()

    def abort(self) -> None:
        self._end(LinkState.CLOSED, "aborted here", tell=False)
        if self._peer is not None:
            self._peer._forsaken()

    def cut(self) -> None:
        self._hub.cut(self)

    # For the hub and the linker

    def join(self, peer: MemoryLink) -> None:
        """Connect the two ends."""
        self._peer, peer._peer = peer, self

    def cut_for(self, away: float) -> None:
        """See ``MemoryHub.cut``."""
        peer = self._peer
        if peer is None or self._state is not LinkState.UP or peer._state is not LinkState.UP:
            return
        for end, other in ((self, peer), (peer, self)):
            end._outbox.rewind(other._inbox.received)
            end._go_away("the connection was cut", end._linker.settings.lease)
        if away != float("inf"):
            self._mending = self._loop.call_later(away, self.restore)

    def restore(self) -> None:
        """See ``MemoryHub.restore``."""
        peer = self._peer
        if peer is None or {self._state, peer._state} != {LinkState.RECONNECTING}:
            return
        for end in (self, peer):
            end._cancel_timers()
            end._state = LinkState.UP
        for end in (self, peer):
            if end._state is LinkState.UP:  # the first one's handler may have ended both
                end._tell(LinkState.UP, "memory")
                end._schedule()

    def lose(self, why: str) -> None:
        """See ``MemoryHub.lose``."""
        for end in (self, self._peer):
            if end is not None:
                end._end(LinkState.LOST, why)

    # Helpers

    def _begin(self) -> None:
        self._begun = True
        if self._state is LinkState.RECONNECTING or self._state is LinkState.LOST:
            self._tell(self._state, "the connection was cut at once")
        self._schedule()
        if self._peer is not None:
            self._peer._schedule()

    def _forsaken(self) -> None:
        """Find out, as over TLS, that the other end has gone without a word."""
        if self._ended:
            return
        self._outbox.rewind(self._peer._inbox.received if self._peer else 0)
        self._go_away("the peer ended the connection", min(self._linker.settings.lease, REFUSED_GRACE))

    def _go_away(self, why: str, lease: float) -> None:
        self._cancel_timers()
        self._lease = self._loop.call_later(
            lease, self._end, LinkState.LOST, f"the other end did not come back within {lease:g} s"
        )
        if self._state is not LinkState.RECONNECTING:
            self._state = LinkState.RECONNECTING
            self._tell(LinkState.RECONNECTING, why)

    def _cancel_timers(self) -> None:
        for timer in (self._lease, self._mending):
            if timer is not None:
                timer.cancel()

    def give_up(self, error: Exception) -> None:
        """See ``HalfLink``; the other end finds out as over TLS."""
        if self._ended:
            return
        if isinstance(error, RemoteProtocolError):
            self.complaints.about(self.peer, "%r: given up: %s", self, error)
        else:
            logger.info("%r: given up: %s", self, error)
        self._end(LinkState.LOST, str(error).partition("\n")[0])
        if self._peer is not None:
            self._peer._forsaken()

    def _end(self, state: LinkState, why: str, *, tell: bool = True) -> None:
        if self._ended:
            return
        self._state = state
        self._cancel_timers()
        self._clear()
        self._linker.forget(self)
        if tell and not self._closing:
            self._tell(state, why)

    def _schedule(self) -> None:
        if self._begun:
            super()._schedule()

    def _pump(self) -> None:
        """Deliver all small frames and one that is bulk; the rest at the loop's next turn."""
        self._pumping = False
        outbox = self._outbox
        if outbox.excess:
            self.lose(outbox.excess)
            return
        while self._deliver(bulk=False):
            pass
        if self._deliver(bulk=True) and outbox.bulk:
            self._schedule()
        self._pumped()

    def _deliver(self, *, bulk: bool) -> bool:
        """Deliver one frame of a class; return False when there is none or it can't be delivered."""
        peer = self._peer
        if peer is None or self._state is not LinkState.UP or not peer._begun:
            return False
        frame = self._outbox.take(bulk=bulk)
        if frame is None:
            return False
        try:
            received = peer._receive(frame, struck=self._hub.strikes())
        except FrameError as error:
            peer.give_up(RemoteProtocolError(f"the peer sent what is not a frame: {error}"))
            return False
        except ProtocolError as error:
            peer.give_up(error.with_traceback(None))  # its traceback would keep the frame
            return False
        if not received:
            self._hub.cut(self)
            return False
        if not self._ended:
            self._outbox.acknowledge(self._outbox.written)
        return True

    def _receive(self, frame: Frame, *, struck: bool) -> bool:
        """Hand a frame to the handler; if ``struck``, lose it after ``buffer_for`` and return False."""
        if self._closing:
            return True
        header = decode_header(frame.head[PREFIX:])
        body: Buffer = bytes(frame.body)
        place = self._handler.buffer_for(header, len(body)) if len(body) >= LANDING else None
        if self._ended:
            return True
        if struck:
            return False
        if place is not None:
            place.cast("B")[:] = body
            body = place
        self._inbox.receive(frame.size)
        self._handler.on_frame(header, body)
        return True
