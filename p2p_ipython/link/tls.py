"""The link between a client and a worker: one TLS 1.3 connection at a time, and what makes it last.

``TLSLinker.open`` meets the peer through a wormhole (rendezvous.py), which gives both ends a shared key and each
other's certificate and addresses. Then both dial (dial.py), and the client uses the first connection that
greets right (handshake.py). From then on the mailbox isn't needed: when a connection breaks, both ends dial
again and go on where they stopped (session.py says what is sent again).

What runs: per process a listening socket; per link a connection and one timer, and while it has no connection the
search for one. All of it is ended by ``TLSLinker.close``.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import secrets
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Literal

from p2p_ipython.config import Settings
from p2p_ipython.errors import (
    ConfigError,
    LinkError,
    LinkLost,
    LinkTimeout,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    WrongPeer,
)
from p2p_ipython.link.base import LANDING, MOST_WAITING, RESERVED, LinkHandler, LinkState, Meeting
from p2p_ipython.link.certificate import MAX_DER, Certificate
from p2p_ipython.link.dial import Kind, Search, Ways
from p2p_ipython.link.guard import Guard
from p2p_ipython.link.handshake import FAILURES, Terms, Tokens, establish
from p2p_ipython.link.hints import is_local, own_hints, parse_hints, parse_relay
from p2p_ipython.link.listener import Listener
from p2p_ipython.link.rendezvous import Rendezvous, Role
from p2p_ipython.link.session import ACK_DELAY, Frame, Inbox, Liveness, Outbox, Tick
from p2p_ipython.link.transport import WRITE_HIGH, Connection
from p2p_ipython.protocol.frames import Buffer, Header, encode

logger = logging.getLogger(__name__)

SETUP_LIMIT = 15.0
"""Seconds for the first connection, once both ends have met."""

MIN_HEARTBEAT = 0.02
"""Seconds; a heartbeat of 0 would probe without pause."""

CLOSE_LIMIT = 1.0
"""Seconds that ``close`` may take to write what is queued and to see the peer leave."""

MAX_CANDIDATES = 40
"""Connections of one link that are being set up at the same time: each end's 16 hints, the relay, and some spare."""

_CANDIDATE_LIMIT = 10.0  # seconds that a connection which greeted may wait to be used
_TRY_LIMIT = {"client": 5.0, "worker": _CANDIDATE_LIMIT}
"""Seconds for TLS and the hellos. The client then tries its next connection; the worker waits to be chosen."""
_BATCH = 256 << 10  # bytes of small frames in one write
_SMALL_HIGH = 4 << 20  # unsent bytes above which small frames wait, too
_MOST_UNSENT = 8 << 20  # unsent bytes with which the connection is given up: all but control frames stops below 7
_NUMBERED = ("link.ack", "link.ping", "link.pong")
_MOST = 1 << 53  # the largest number in one of these
_TURN = 4 << 20  # bytes of bulk written before the loop gets its turn


class TLSLinker:
    """Makes a process's links; see ``link.base.Linker``."""

    def __init__(
        self,
        role: Role,
        *,
        settings: Settings,
        listen_host: str | None = None,
        force: Literal["direct", "relay"] | None = None,
        relay: str | None = None,
    ) -> None:
        """``listen_host`` is the one address to listen on; None: all of them. ``force`` leaves out the other way.

        ``relay`` (``tcp:HOST:PORT``) is for meetings that name none.
        """
        self.role = role
        self.settings = settings
        self._force = force
        self._relay = relay
        self._listener = Listener(listen_host)
        self._listen_host = listen_host
        self._started: asyncio.Task[None] | None = None
        self._rendezvous = Rendezvous()
        self._certificate: Certificate
        self._links: set[TLSLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self, meeting: Meeting, handler: LinkHandler) -> TLSLink:
        """See ``link.base.Linker.open``. Takes up to the meeting's deadline, and then ``SETUP_LIMIT`` seconds."""
        if self._closed:
            raise LinkLost("the linker is closed")
        await self._start()
        local = is_local(meeting.mailbox)
        relay = None if self._force == "direct" else meeting.relay or self._relay
        hints = [] if self._force == "relay" else own_hints(self._listener.port, self._listen_host, local=local)
        offer = {
            "cert": base64.b64encode(self._certificate.der).decode(),
            "hints": [[hint.host, hint.port] for hint in hints],
            "relay": relay,
        }
        met = await self._rendezvous.meet(meeting, self.role, offer)
        peer_certificate, peer_hints, peer_relay = _parse_offer(met.offer, local=local)
        if self._force == "relay":
            peer_hints = []
        if self._force != "direct":
            # Both have to be at the same relay: the client's, if it has one.
            relay = (relay or peer_relay) if self.role == "client" else (peer_relay or relay)
        ways = Ways(
            tokens=Tokens.of(met.key_for, self.role),
            hints=peer_hints,
            relay=None if relay is None else parse_relay(relay),
            relay_only=not hints and not peer_hints,
            side=secrets.token_hex(8).encode(),
        )
        link = TLSLink(self, ways, handler)
        if self._closed:
            raise LinkLost("the linker was closed meanwhile")
        self._links.add(link)
        try:
            await link.make(
                Terms(
                    context=self._certificate.context(peer_certificate, server=self.role == "worker"),
                    certificate=peer_certificate,
                    session=ways.tokens.session,
                    proof=meeting.prove(met.verifier),
                    check=_once(partial(meeting.check, met.verifier)),
                    count=link.count_for_hello,
                )
            )
        except BaseException:
            link.abort()
            raise
        link.begin()
        return link

    async def close(self) -> None:
        """Abort all links, stop listening, let the mailbox go. Idempotent."""
        self._closed = True
        for link in list(self._links):
            link.abort()
        if self._started is not None:
            self._started.cancel()
            await asyncio.wait([self._started])
        await self._listener.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._rendezvous.close()

    async def _start(self) -> None:
        """Do what is done once, on the first open; several may come at the same time."""
        if self._started is None or (self._started.done() and self._started.exception() is not None):
            self._started = asyncio.get_running_loop().create_task(self._start_once())
        await asyncio.shield(self._started)

    async def _start_once(self) -> None:
        _tune_malloc()
        self._certificate = Certificate()
        if self._force != "relay":
            try:
                await self._listener.start()
            except OSError as error:
                raise LinkError(
                    f"no port can be listened on: {error}", hint="Check the address that was given to listen on."
                ) from None

    # What its links call

    @property
    def listener(self) -> Listener:
        return self._listener

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ``close`` waits for; whoever has started it cancels it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def forget(self, link: TLSLink) -> None:
        """``link`` has ended."""
        self._links.discard(link)


class TLSLink:
    """One end of a link; see ``link.base.Link``. Made by ``TLSLinker.open`` only."""

    def __init__(self, linker: TLSLinker, ways: Ways, handler: LinkHandler) -> None:
        self._linker = linker
        self._role = linker.role
        self._ways = ways
        self._handler = Guard(handler, self)
        self._loop = asyncio.get_running_loop()
        settings = linker.settings
        self._outbox = Outbox(MOST_WAITING if self._role == "worker" else math.inf)
        self._inbox = Inbox()
        heartbeat = max(settings.heartbeat, MIN_HEARTBEAT)
        self._liveness = Liveness(heartbeat=heartbeat, lease=settings.lease, now=self._loop.time())
        self._lease = settings.lease
        self._terms: Terms
        self._state = LinkState.RECONNECTING
        self._kind: Kind | None = None
        self._connection: Connection | None = None
        self._made: asyncio.Future[None] = self._loop.create_future()
        self._begun = False
        self._closing = False
        self._empty: asyncio.Future[None] | None = None
        self._candidates: dict[Connection, asyncio.TimerHandle] = {}
        self._choices: asyncio.Queue[tuple[Connection, Kind]] = asyncio.Queue()
        self._searching: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._ack_timer: asyncio.TimerHandle | None = None
        self._pumping = False
        self._pong: int | None = None  # what the peer's latest probe is to be answered with

    def __repr__(self) -> str:
        return f"<TLSLink {self._role} {self._state.value} {self.kind}>"

    # What link.base.Link promises

    @property
    def kind(self) -> str:
        return self._kind or "direct"

    @property
    def state(self) -> LinkState:
        return self._state

    @property
    def rtt(self) -> float | None:
        return self._liveness.rtt

    @property
    def pending(self) -> int:
        return self._outbox.pending

    def send(self, header: Header, body: Buffer = b"", *, bulk: bool = False) -> None:
        if self._closing or self._ended:
            raise LinkLost(f"the link is {'closed' if self._closing else self._state.value}")
        if header["t"].startswith(RESERVED):
            raise LocalProtocolError(f"{header['t']!r} is a kind of frame of the link itself")
        if isinstance(body, memoryview) and (body.itemsize != 1 or body.ndim != 1):
            body = body.cast("B")
        head = encode(header, len(body))
        self._outbox.queue(Frame(head, body, len(head) + len(body), bulk))
        if not self._pumping:
            self._pumping = True
            # At the end of the loop's turn, so that all that is sent within it leaves in one write.
            self._loop.call_soon(self._pump)

    async def close(self) -> None:
        if not self._ended and not self._closing:
            self._closing = True
            end = self._loop.time() + CLOSE_LIMIT
            try:
                async with asyncio.timeout_at(end):
                    while self._outbox.pending:
                        self._empty = self._loop.create_future()
                        await self._empty
                    if (connection := self._connection) is not None:
                        connection.write([encode({"t": "link.bye"})])
                        # The peer leaves when it has read that. To leave first could destroy it on its way: a
                        # socket that is closed with unread bytes in it sends a reset.
                        await asyncio.wait([connection.closed])
            except TimeoutError:
                logger.debug("%r: closed with %d bytes unwritten", self, self._outbox.pending)
            finally:
                self._end(LinkState.CLOSED, "closed here", tell=False)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def abort(self) -> None:
        self._end(LinkState.CLOSED, "aborted here", tell=False)

    def cut(self) -> None:
        if self._connection is not None:
            self._connection.abort("cut on purpose")
            self._cut("cut on purpose")

    # What TLSLinker calls

    async def make(self, terms: Terms) -> None:
        """Make the first connection. Raises ``LinkTimeout``, ``RelayUnreachable``, ``WrongPeer``."""
        self._terms = terms
        tokens = self._ways.tokens
        self._linker.listener.expect(tokens.dialled, tokens.answer, lambda c: self._offer(c, "direct"))
        self._search()
        try:
            async with asyncio.timeout(SETUP_LIMIT):
                await asyncio.shield(self._made)
        except TimeoutError:
            raise self._ways.relay_error or LinkTimeout(
                "the other end was met, but no connection to it could be made",
                hint="Both may be behind firewalls: a relay would join them. See the board's settings.",
            ) from None

    def begin(self) -> None:
        """Let the handler hear of the link, from the loop's next turn on."""
        self._loop.call_soon(self._begin)

    # Making connections

    def _search(self) -> None:
        self._searching = self._spawn(self._search_until_connected())

    async def _search_until_connected(self) -> None:
        search = Search(self._ways, self._offer, last=self._kind)
        try:
            if self._role == "worker":
                await search.run()
            else:
                async with asyncio.TaskGroup() as group:
                    group.create_task(search.run())
                    group.create_task(self._choose())
        except* LinkError as errors:
            self._give_up(errors.exceptions[0])

    def _offer(self, connection: Connection, kind: Kind) -> None:
        """Take a connection that has greeted as our peer."""
        if self._ended or len(self._candidates) >= MAX_CANDIDATES:
            connection.abort("not needed")
            return
        self._candidates[connection] = self._loop.call_later(_CANDIDATE_LIMIT, self._drop_candidate, connection)
        if self._role == "worker":
            self._spawn(self._try(connection, kind))
            return
        self._choices.put_nowait((connection, kind))
        if self._connection is not None:
            # The worker seems to have lost our connection. Anybody who has overheard a greeting could make it
            # seem so; a probe tells.
            self._liveness.suspect(self._loop.time())
            self._tick()

    def _drop_candidate(self, connection: Connection) -> None:
        self._forget_candidate(connection)
        connection.abort("not needed")

    def _forget_candidate(self, connection: Connection) -> None:
        timer = self._candidates.pop(connection, None)
        if timer is not None:
            timer.cancel()

    async def _choose(self) -> None:
        """The client's part: try one connection after the other."""
        while self._connection is None:
            connection, kind = await self._choices.get()
            if connection in self._candidates and not connection.gone:
                await self._try(connection, kind)

    async def _try(self, connection: Connection, kind: Kind) -> None:
        try:
            async with asyncio.timeout(_TRY_LIMIT[self._role]):
                received = await establish(connection, self._terms, self._role)
            self._attach(connection, kind, received)
        except WrongPeer as error:
            self._give_up(error)
        except FAILURES as error:
            logger.debug("%r: a %s connection could not be used: %s", self, kind, error)
        finally:
            self._forget_candidate(connection)
            if connection is not self._connection and not connection.gone:
                connection.abort("not used")

    def count_for_hello(self) -> int:
        """How many frames have come; whatever an older connection may still deliver no longer counts."""
        if self._connection is not None:
            self._connection.abort("replaced")
            self._cut("the client connects anew")
        return self._inbox.tell()

    def _attach(self, connection: Connection, kind: Kind, received: int) -> None:
        if self._ended or self._connection is not None or connection.gone:
            return
        try:
            self._outbox.rewind(received)
        except RemoteProtocolError as error:
            self._give_up(error)
            return
        self._connection = connection
        self._pong = None
        self._kind = kind
        self._state = LinkState.UP
        self._liveness.connected(self._loop.time())
        self._set_timer()
        self._forget_candidate(connection)
        for other in list(self._candidates):
            self._drop_candidate(other)
        if self._searching is not None:
            self._searching.cancel()
            self._searching = None
        if not self._made.done():
            self._made.set_result(None)
        elif self._begun:
            self._begin_connection()
            if self._connection is connection:  # what came at once may have ended it
                self._tell(LinkState.UP, kind)

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

    @property
    def _ended(self) -> bool:
        return self._state in (LinkState.CLOSED, LinkState.LOST)

    def _cut(self, why: str) -> None:
        """The connection is gone: look for another one."""
        self._connection = None
        if self._ended:
            return
        logger.info("%r: %s", self, why)
        self._state = LinkState.RECONNECTING
        self._liveness.cut(self._loop.time())
        self._set_timer()
        self._search()
        self._tell(LinkState.RECONNECTING, why)

    def _give_up(self, error: Exception) -> None:
        if not self._made.done():
            self._made.set_exception(error if isinstance(error, LinkError) else WrongPeer(str(error)))
            return
        if self._ended:
            return
        log = logger.warning if isinstance(error, (RemoteProtocolError, WrongPeer)) else logger.info
        log("%r: given up: %s", self, error)
        self._end(LinkState.LOST, str(error).partition("\n")[0])

    def _end(self, state: LinkState, why: str, *, tell: bool = True) -> None:
        if self._ended:
            return
        self._state = state
        if not self._made.done():
            self._made.set_exception(LinkLost("the link was ended while it was being made"))
        self._made.exception()  # it may be that nobody waits for it any more
        self._linker.listener.forget(self._ways.tokens.dialled)
        self._linker.forget(self)
        for timer in (self._timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
        for candidate in list(self._candidates):
            self._drop_candidate(candidate)
        if self._connection is not None:
            self._connection.abort(why)
            self._connection = None
        for task in self._tasks:
            task.cancel()
        self._outbox.clear()
        logger.info("%r: %s", self, why)
        if tell and not self._closing:
            self._tell(state, why)

    def _tell(self, state: LinkState, detail: str) -> None:
        if not self._begun:
            return  # _begin will tell
        try:
            self._handler.on_link(state, detail)
        except ProtocolError as error:
            self._give_up(error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._linker.spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Frames out

    def _pump(self) -> None:
        """Write what may be written now: small frames, and bulk as far as the transport is not full."""
        self._pumping = False
        connection, outbox = self._connection, self._outbox
        if not self._ended and outbox.excess:
            self._give_up(RemoteProtocolError(outbox.excess))
            return
        if connection is None or not self._begun:
            return
        while outbox.small and connection.unsent < _SMALL_HIGH:
            connection.write(_batch(outbox))
        budget = _TURN
        while outbox.bulk and connection.writable and connection.unsent < WRITE_HIGH:
            if budget <= 0:
                self._pumping = True
                self._loop.call_soon(self._pump)
                break
            frame = outbox.take(bulk=True)
            assert frame is not None
            connection.write([frame.head, frame.body])
            budget -= frame.size
        if not outbox.pending and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
        if outbox.drained():
            try:
                self._handler.on_drain()
            except ProtocolError as error:
                self._give_up(error)

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

    # What the connection calls

    def on_data(self) -> None:
        self._liveness.heard(self._loop.time())

    def on_frame(self, header: Header, body: Buffer, size: int) -> None:
        kind = header["t"]
        if kind.startswith(RESERVED):
            self._on_control(kind, header)
            return
        if self._closing:
            return
        if self._inbox.receive(size):
            self._acknowledge()
        elif self._ack_timer is None:
            self._ack_timer = self._loop.call_later(ACK_DELAY, self._acknowledge)
        self._handler.on_frame(header, body)

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
            self._give_up(reason)
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


def _batch(outbox: Outbox) -> list[Buffer]:
    """Take small frames: their bytes in as few pieces as makes sense."""
    pieces: list[Buffer] = []
    run: list[Buffer] = []
    size = 0
    while size < _BATCH and (frame := outbox.take(bulk=False)) is not None:
        run.append(frame.head)
        if len(frame.body) >= LANDING:
            pieces += b"".join(run), frame.body
            run.clear()
        elif frame.body:
            run.append(frame.body)
        size += frame.size
    if run:
        pieces.append(run[0] if len(run) == 1 else b"".join(run))
    return pieces


def _once(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """``check`` until it has passed: later connections show the same certificate, and that is as good."""
    passed = False

    def checked(proof: bytes) -> None:
        nonlocal passed
        if not passed:
            check(proof)
            passed = True

    return checked


def _parse_offer(offer: dict[str, Any], *, local: bool) -> tuple[bytes, list[Any], str | None]:
    """(certificate, hints, relay) of a peer's offer. Raises ``WrongPeer``."""
    text, relay = offer.get("cert"), offer.get("relay")
    try:
        if not isinstance(text, str) or len(text) > 2 * MAX_DER or not (relay is None or isinstance(relay, str)):
            raise ValueError
        certificate = base64.b64decode(text, validate=True)
        if relay is not None:
            parse_relay(relay)
    except (ValueError, ConfigError):
        raise WrongPeer(
            "the peer's offer makes no sense", hint="Its p2p_ipython may be of another version: update both."
        ) from None
    return certificate, parse_hints(offer.get("hints"), local=local), relay


def _tune_malloc() -> None:
    """Make glibc keep freed buffers of up to 32 MiB rather than give each back to the kernel.

    Its threshold for that adapts to the largest block freed so far. TLS allocates and frees a few MiB for each
    MiB sent; without this, page faults take a third of its speed. Harmless where malloc is another one.
    """
    if sys.platform == "linux":
        block = bytes(31 << 20)
        del block
