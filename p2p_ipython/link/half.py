"""One end of a link, without the way to the other end: its state, the frames that wait, the calls of its handler.

``tls_link.py`` adds connections to it, ``rehearsal/link.py`` a peer in the same process.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable

from p2p_ipython.errors import LinkLost, ProtocolError
from p2p_ipython.jobs import Complaints
from p2p_ipython.link.base import MOST_WAITING, LinkHandler, LinkState
from p2p_ipython.link.guard import Guard
from p2p_ipython.link.rendezvous import Role
from p2p_ipython.link.session import Frame, Inbox, Outbox
from p2p_ipython.protocol.frames import Buffer, Header

CLOSE_LIMIT = 1.0
"""Seconds that ``close`` may take to deliver the queued frames, and to see the peer leave."""


class HalfLink:
    """Base of both kinds of link; see ``link.base.Link``. They add ``abort``, ``give_up``, ``_begin`` and ``_pump``."""

    def __init__(
        self, role: Role, handler: LinkHandler, state: LinkState, *, complaints: Complaints, peer: str = ""
    ) -> None:
        """``peer`` is the member at the other end ("": our own), about whom ``complaints`` are."""
        self.role = role
        self.peer = peer
        self.complaints = complaints
        self._handler = Guard(handler, self, complaints, peer)
        self._loop = asyncio.get_running_loop()
        self._state = state
        self._outbox = Outbox(MOST_WAITING if role == "worker" else math.inf)
        self._inbox = Inbox()
        self._begun = False
        self._closing = False
        self._pumping = False
        self._empty: asyncio.Future[None] | None = None

    @property
    def state(self) -> LinkState:
        return self._state

    @property
    def pending(self) -> int:
        return self._outbox.pending

    def send(self, header: Header, body: Buffer = b"", *, bulk: bool = False) -> None:
        if self._closing or self._ended:
            raise LinkLost(f"the link is {'closed' if self._closing else self._state.value}")
        self._outbox.queue(Frame.of(header, body, bulk=bulk))
        self._schedule()

    async def begin_after(self, making: Awaitable[None]) -> None:
        """Wait until the link is made; from the loop's next turn on, call the handler. Abort a link that fails."""
        try:
            await making
            if self._state is LinkState.CLOSED:
                raise LinkLost("the linker was closed meanwhile")
        except BaseException:
            self.abort()
            raise
        self._loop.call_soon(self._begin)

    def abort(self) -> None:
        raise NotImplementedError

    def give_up(self, error: Exception) -> None:
        """End as LOST because of ``error``."""
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _pump(self) -> None:
        raise NotImplementedError

    @property
    def _ended(self) -> bool:
        return self._state in (LinkState.CLOSED, LinkState.LOST)

    def _schedule(self) -> None:
        """Pump at the end of the loop's turn, so that all that is sent within it leaves together."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    async def _emptied(self) -> None:
        """Wait until no frame waits, or the link has ended."""
        while self._outbox.pending:
            self._empty = self._loop.create_future()
            await self._empty

    def _clear(self) -> None:
        """Drop the frames of a link that has ended."""
        self._outbox.clear()
        self._report_empty()

    def _report_empty(self) -> None:
        if not self._outbox.pending and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _pumped(self) -> None:
        """Tell ``close`` and the handler that frames have left."""
        self._report_empty()
        if self._outbox.drained():
            try:
                self._handler.on_drain()
            except ProtocolError as error:
                self.give_up(error)

    def _tell(self, state: LinkState, detail: str) -> None:
        if not self._begun:
            return  # _begin will report it
        try:
            self._handler.on_link(state, detail)
        except ProtocolError as error:
            self.give_up(error)
