"""The listening socket of a process, shared by all its links.

Strangers may connect to it. A connection has a few seconds to show the line of a link that we know. Otherwise it is
dropped without an answer. A peer whose link has ended here is dropped at once, too; it counts that as a refusal (see
session.Refusals).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from p2p_ipython.link.transport import Connection, ConnectionGone

logger = logging.getLogger(__name__)

GREETING_LIMIT = 5.0
"""Seconds that a connection has to show its line."""

MAX_STRANGERS = 64
"""Connections that may be about to show their line; one more is dropped at once."""


class Listener:
    """Accepts connections and hands each to the link whose line it shows."""

    def __init__(self, host: str | None) -> None:
        """``host`` is the one address to listen on; None: all, of IPv4 and of IPv6 where the machine has it."""
        self._host = host
        self._server: asyncio.Server | None = None
        self._links: dict[bytes, tuple[bytes, Callable[[Connection], None]]] = {}
        self._strangers: dict[asyncio.Task[None], Connection] = {}

    @property
    def port(self) -> int:
        """The listening socket's port; 0 before ``start``."""
        return 0 if self._server is None else int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen on a free port. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Knock(self), sock=_bound(self._host))

    def expect(self, line: bytes, answer: bytes, accept: Callable[[Connection], None]) -> None:
        """Answer ``line`` with ``answer`` from now on, and hand its connection to ``accept``."""
        self._links[line] = answer, accept

    def forget(self, line: bytes) -> None:
        """Undo ``expect``."""
        self._links.pop(line, None)

    async def close(self) -> None:
        """Stop listening and drop the connections that have shown no line. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._links.clear()
        for task, connection in self._strangers.items():
            connection.abort("closed")
            task.cancel()
        if self._strangers:
            await asyncio.wait(self._strangers)

    def knocked(self, connection: Connection) -> None:
        """Wait for the line of a stranger who has connected, unless there are too many of them."""
        if len(self._strangers) >= MAX_STRANGERS:
            connection.abort("too many strangers")
            return
        task = asyncio.get_running_loop().create_task(self._admit(connection))
        self._strangers[task] = connection
        task.add_done_callback(lambda task: self._strangers.pop(task, None))

    async def _admit(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(GREETING_LIMIT):
                line = await connection.read_line()
        except (TimeoutError, ConnectionGone):
            connection.abort("no greeting")
            logger.debug("a stranger at the link's port was dropped: no greeting")
            return
        # A look-up by 256 random bits: its duration gives away nothing that could be used.
        found = self._links.get(line)
        if found is None:
            connection.abort("unknown greeting")
            logger.debug("a stranger at the link's port was dropped: an unknown greeting")
            return
        answer, accept = found
        connection.write_line(answer)
        accept(connection)


class _Knock(Connection):
    """A connection that came to the listening socket."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.knocked(self)


def _bound(host: str | None) -> socket.socket:
    if host is not None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, 0), family=family)
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError:
            pass  # IPv6 is compiled in and switched off
    return socket.create_server(("", 0))
