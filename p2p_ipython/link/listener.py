"""The listening socket of a process, shared by all its links, and open only while one needs it.

A meeting needs it, and then its link. Where the mailbox is on this machine, so are the peers: the socket is on loopback
then.

Strangers may connect to it. A connection has a few seconds to show the line of a link that we know. Otherwise it is
dropped without an answer. A peer whose link has ended here is dropped at once, too; it counts that as a refusal (see
session.Refusals).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

from p2p_ipython.link.transport import Connection, ConnectionGone

logger = logging.getLogger(__name__)

GREETING_LIMIT = 5.0
"""Seconds that a connection has to show its line."""

MAX_STRANGERS = 64
"""Connections that may be about to show their line; one more is dropped at once."""


LOOPBACK = "127.0.0.1"


@dataclass
class _Open:
    server: asyncio.Server
    port: int
    needs: int = 0


class Need:
    """One reason to listen: ``host`` (None: all addresses) and ``port`` are where."""

    def __init__(self, listener: Listener, host: str | None, port: int) -> None:
        self.host = host
        self.port = port
        self._listener: Listener | None = listener

    def release(self) -> None:
        """Need it no longer. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.release(self.host)


class Listener:
    """Accepts connections and hands each to the link whose line it shows."""

    def __init__(self, host: str | None) -> None:
        """``host`` is the one address to listen on.

        None: loopback for peers on this machine; for others all addresses, of IPv6, too, where the machine has it.
        """
        self._host = host
        self._open: dict[str | None, _Open] = {}
        self._opening = asyncio.Lock()
        self._links: dict[bytes, tuple[bytes, Callable[[Connection], None]]] = {}
        self._strangers: dict[asyncio.Task[None], Connection] = {}

    @property
    def port(self) -> int:
        """The listening socket's port; 0 while there is none."""
        return next((each.port for each in self._open.values()), 0)

    async def need(self, *, local: bool) -> Need:
        """Listen on a free port for peers on this machine (``local``) or elsewhere, until that is released.

        Raises ``OSError``.
        """
        host = LOOPBACK if local and self._host is None else self._host
        async with self._opening:
            there = self._open.get(host)
            if there is None:
                server = await asyncio.get_running_loop().create_server(lambda: _Knock(self), sock=_bound(host))
                there = self._open[host] = _Open(server, int(server.sockets[0].getsockname()[1]))
        there.needs += 1
        return Need(self, host, there.port)

    def release(self, host: str | None) -> None:
        """Undo a ``need``: stop listening with the last."""
        there = self._open.get(host)
        if there is not None:
            there.needs -= 1
            if not there.needs:
                del self._open[host]
                there.server.close()

    def expect(self, line: bytes, answer: bytes, accept: Callable[[Connection], None]) -> None:
        """Answer ``line`` with ``answer`` from now on, and hand its connection to ``accept``."""
        self._links[line] = answer, accept

    def forget(self, line: bytes) -> None:
        """Undo ``expect``."""
        self._links.pop(line, None)

    async def close(self) -> None:
        """Stop listening and drop the connections that have shown no line. Idempotent."""
        for there in self._open.values():
            there.server.close()
        self._open.clear()
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
