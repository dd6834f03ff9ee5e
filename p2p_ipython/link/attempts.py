"""The attempts of one link to get a connection, each time that it has none.

Connections come from a search (dial.py) and from the listening socket (listener.py). A connection that greets as the
peer is a *candidate*. The worker tries each candidate at once: it waits for TLS on it. The client tries one candidate
after the other, so the client chooses. The first one that both ends accept (handshake.py) becomes the link's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from p2p_ipython.errors import LinkError, WrongPeer
from p2p_ipython.link.dial import Kind, Search, Ways
from p2p_ipython.link.handshake import FAILURES, Terms, establish
from p2p_ipython.link.listener import Listener
from p2p_ipython.link.rendezvous import Role
from p2p_ipython.link.transport import Connection

logger = logging.getLogger(__name__)

MAX_CANDIDATES = 40
"""Candidates of one link at the same time: each end's 16 hints, the relay, and some spare."""

CANDIDATE_LIMIT = 10.0
"""Seconds for which a candidate may wait to be used."""

_TRY_LIMIT = {"client": 5.0, "worker": CANDIDATE_LIMIT}
"""Seconds for TLS and the hellos. The client then tries its next candidate; the worker waits to be chosen."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Seeker(Protocol):
    """The link that wants a connection. The log shows its ``repr``."""

    def connected(self, connection: Connection, kind: Kind, received: int) -> None:
        """Use ``connection``, which both ends have accepted; the peer has got ``received`` of our frames."""

    def give_up(self, error: Exception) -> None:
        """End the link: after ``error`` no further attempt makes sense."""

    def rivalled(self) -> None:
        """Doubt the client's connection: another candidate has come, so the worker may have lost it."""


class Attempts:
    """See the module. ``begin`` once, then ``search`` whenever there is no connection; ``end`` in the end."""

    def __init__(self, seeker: Seeker, role: Role, ways: Ways, listener: Listener, spawn: Spawn) -> None:
        """``spawn`` starts a task."""
        self._seeker = seeker
        self._role = role
        self._ways = ways
        self._listener = listener
        self._spawn_by = spawn
        self._loop = asyncio.get_running_loop()
        self._terms: Terms
        self._candidates: dict[Connection, tuple[Kind, asyncio.TimerHandle]] = {}
        self._news = asyncio.Event()
        self._searching: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._used: Connection | None = None
        self._ended = False

    def begin(self, terms: Terms) -> None:
        """Take candidates from the listening socket, and make the first search."""
        self._terms = terms
        tokens = self._ways.tokens
        self._listener.expect(tokens.dialled, tokens.answer, lambda connection: self._offer(connection, "direct"))
        self.search(last=None)

    def search(self, *, last: Kind | None) -> None:
        """Search until a connection is used. ``last`` is the kind of the one that was cut."""
        self._used = None
        self._searching = self._spawn(self._search(last))

    def use(self, connection: Connection) -> None:
        """Keep ``connection``, which the seeker now uses, and stop searching."""
        self._used = connection
        self._forget(connection)
        self._drop_all()
        if self._searching is not None:
            self._searching.cancel()
            self._searching = None

    def end(self) -> None:
        """Give up everything. Idempotent."""
        self._ended = True
        self._used = None
        self._listener.forget(self._ways.tokens.dialled)
        self._drop_all()
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Wait, after ``end``, until nothing runs any more."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _search(self, last: Kind | None) -> None:
        search = Search(self._ways, self._offer, last=last)
        try:
            if self._role == "worker":
                await search.run()
            else:
                async with asyncio.TaskGroup() as group:
                    group.create_task(search.run())
                    group.create_task(self._choose())
        except* LinkError as errors:
            self._seeker.give_up(errors.exceptions[0])

    async def _choose(self) -> None:
        """Try one candidate after the other, as the client."""
        while True:
            if self._candidates:
                connection, (kind, _) = next(iter(self._candidates.items()))
                await self._try(connection, kind)
            else:
                self._news.clear()
                await self._news.wait()

    def _offer(self, connection: Connection, kind: Kind) -> None:
        """Take a connection that has greeted as the peer."""
        if self._ended or len(self._candidates) >= MAX_CANDIDATES:
            connection.abort("not needed")
            return
        self._candidates[connection] = kind, self._loop.call_later(CANDIDATE_LIMIT, self._drop, connection)
        if self._role == "worker":
            self._spawn(self._try(connection, kind))
        elif self._used is None:
            self._news.set()
        else:
            self._seeker.rivalled()

    async def _try(self, connection: Connection, kind: Kind) -> None:
        try:
            async with asyncio.timeout(_TRY_LIMIT[self._role]):
                received = await establish(connection, self._terms, self._role)
            if not self._ended and self._used is None and not connection.gone:
                self._seeker.connected(connection, kind, received)
        except WrongPeer as error:
            self._seeker.give_up(error)
        except FAILURES as error:
            logger.debug("%r: a %s connection could not be used: %s", self._seeker, kind, error)
        finally:
            self._forget(connection)
            if connection is not self._used and not connection.gone:
                connection.abort("not used")

    def _drop_all(self) -> None:
        for connection in list(self._candidates):
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._forget(connection)
        connection.abort("not needed")

    def _forget(self, connection: Connection) -> None:
        _, timer = self._candidates.pop(connection, (None, None))
        if timer is not None:
            timer.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._spawn_by(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
