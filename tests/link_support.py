"""What the tests of the link share: a handler that records, two ends, a mailbox and a relay on the running loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from twisted.internet.protocol import ServerFactory

from p2p_ipython import loop as loops
from p2p_ipython.config import Settings
from p2p_ipython.errors import MailboxUnreachable
from p2p_ipython.link.base import Link, Linker, LinkState, Meeting, Secret
from p2p_ipython.link.rendezvous import Role, new_code
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.rehearsal.hub import MemoryHub
from p2p_ipython.rehearsal.link import MemoryLinker

PATIENCE = 30.0
"""Seconds that a test waits for what should come at once: the machine may be busy."""

SHORT = (0.5, 2.0, 8.0, PATIENCE)
"""Deadlines that are to pass in a test, s; the next one where the machine was too slow for what has to come before."""

Header = dict[str, Any]


class Recorder:
    """A link's handler that keeps what it hears; bodies whose header has "at" land in ``memory``."""

    def __init__(self, memory: int = 0) -> None:
        self.frames: list[tuple[Header, Any]] = []
        self.states: list[tuple[LinkState, str]] = []
        self.drains = 0
        self.asked = 0
        self.memory = bytearray(memory)
        self.each: Callable[[Header], None] = lambda header: None
        self.each_body: Callable[[Header], None] = lambda header: None
        self._changed = asyncio.Event()

    def on_frame(self, header: Header, body: Any) -> None:
        self.frames.append((header, body))
        self._changed.set()
        self.each(header)

    def buffer_for(self, header: Header, size: int) -> memoryview | None:
        self.asked += 1
        self.each_body(header)
        if "at" not in header:
            return None
        return memoryview(self.memory)[header["at"] : header["at"] + size]

    def on_link(self, state: LinkState, detail: str) -> None:
        self.states.append((state, detail))
        self._changed.set()

    def on_drain(self) -> None:
        self.drains += 1
        self._changed.set()

    @property
    def numbers(self) -> list[Any]:
        """The "n" of each frame."""
        return [header.get("n") for header, _ in self.frames]

    async def until(self, condition: Callable[[Recorder], object]) -> None:
        """Wait for what is heard to make ``condition`` true."""
        async with asyncio.timeout(PATIENCE):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def until_state(self, *states: LinkState) -> None:
        """Wait until the last state heard is one of ``states``."""
        await self.until(lambda me: me.states and me.states[-1][0] in states)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` is true, for what no callback tells."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


async def in_vain(attempt: Callable[[float], Awaitable[object]]) -> object:
    """Return the error of an attempt to meet somebody who doesn't come; ``attempt`` gets a deadline, s.

    If the mailbox itself hasn't answered by then the machine was slow, and the attempt gets longer.
    """
    for deadline in SHORT:
        (result,) = await asyncio.gather(attempt(deadline), return_exceptions=True)
        if not isinstance(result, MailboxUnreachable):
            break
    return result


@dataclass
class Ends:
    """Both ends of a link, and their listeners."""

    client: Any
    worker: Any
    client_hears: Recorder
    worker_hears: Recorder
    client_linker: Linker
    worker_linker: Linker


class World:
    """One kind of link, and what its ends need in order to meet."""

    def __init__(self, kind: Literal["memory", "direct", "relay"], mailbox: str, relay: str | None) -> None:
        self.kind = kind
        self.mailbox = mailbox
        self.relay = relay
        self.hub = MemoryHub()
        self.relayed: set[Any] = set()
        self._linkers: list[Linker] = []

    def linker(self, role: Role, **settings: float) -> Linker:
        linker: Linker
        if self.kind == "memory":
            linker = MemoryLinker(role, hub=self.hub, settings=Settings(**settings))  # type: ignore[arg-type]
        else:
            linker = TLSLinker(role, settings=Settings(**settings), listen_host="127.0.0.1", force=self.kind)  # type: ignore[arg-type]
        self._linkers.append(linker)
        return linker

    def meeting(
        self,
        code: Secret,
        *,
        deadline: float = PATIENCE,
        prove: Callable[[bytes], bytes] = lambda verifier: b"proof of " + verifier,
        check: Callable[[bytes, bytes], None] | None = None,
    ) -> Meeting:
        def right(verifier: bytes, proof: bytes) -> None:
            assert proof == b"proof of " + verifier

        return Meeting(code, self.mailbox, self.relay, deadline, prove, check or right)

    async def join(self, *, memory: int = 0, **settings: float) -> Ends:
        """Two linkers, and a link between them."""
        code = new_code()
        client_linker, worker_linker = self.linker("client", **settings), self.linker("worker", **settings)
        client_hears, worker_hears = Recorder(), Recorder(memory)
        client, worker = await asyncio.gather(
            client_linker.open(self.meeting(code), client_hears),
            worker_linker.open(self.meeting(code), worker_hears),
        )
        return Ends(client, worker, client_hears, worker_hears, client_linker, worker_linker)

    async def fail(self, client: Meeting, worker: Meeting) -> list[Link | BaseException]:
        """What becomes of both ends' attempts to meet."""
        return await asyncio.gather(
            self.linker("client").open(client, Recorder()),
            self.linker("worker").open(worker, Recorder()),
            return_exceptions=True,
        )

    async def close(self) -> None:
        for linker in self._linkers:
            await linker.close()


@asynccontextmanager
async def world(kind: Literal["memory", "direct", "relay"]) -> AsyncIterator[World]:
    """A world of one kind, with its servers where it needs some."""
    if kind == "memory":
        memory = World(kind, "memory:", None)
        try:
            yield memory
        finally:
            await memory.close()
        return
    async with servers() as running:
        real = World(kind, running.mailbox, running.relay)
        real.relayed = running.relayed
        try:
            yield real
        finally:
            await real.close()


@dataclass
class Servers:
    """Where the two are, and the relay's connections."""

    mailbox: str
    relay: str
    relayed: set[Any]


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """Start both on free ports of loopback; at the end stop them and drop their connections."""
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
            relayed=relay.connections,
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
