"""Makes the links between clients and workers: TLS 1.3 connections, and what makes links outlast them.

``TLSLinker.open`` meets the peer through a wormhole (rendezvous.py), which gives both ends a shared key and each
other's certificate and addresses. Then both dial (attempts.py), and the client uses the first connection that
greets right (handshake.py). From then on the mailbox isn't needed: when a connection breaks, both ends dial
again and continue where they stopped (tls_link.py; session.py says what is sent again).

These run: per process a listening socket, while there are links or meetings; per link a connection and one timer, and
while it has no connection the search for one. All of it is ended by ``TLSLinker.close``.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from p2p_ipython.config import Settings
from p2p_ipython.errors import BoardError, ConfigError, LinkError, LinkLost, WrongPeer
from p2p_ipython.jobs import Complaints
from p2p_ipython.link.base import LinkHandler, Meeting
from p2p_ipython.link.certificate import MAX_DER, Certificate
from p2p_ipython.link.dial import Ways
from p2p_ipython.link.handshake import Terms, Tokens
from p2p_ipython.link.hints import is_local, own_hints, parse_hints, parse_relay, seen_from
from p2p_ipython.link.listener import Listener, Need
from p2p_ipython.link.rendezvous import Rendezvous, Role
from p2p_ipython.link.tls_link import TLSLink

logger = logging.getLogger(__name__)


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
        board: Callable[[], str] = lambda: "",
        own: Callable[[], Awaitable[tuple[str, str] | None]] | None = None,
    ) -> None:
        """``listen_host`` is the one address to listen on; None: those that peers need (see listener.py).

        ``force`` is the only way to use.

        ``relay`` (``tcp:HOST:PORT``) is for meetings that name none.

        ``board`` returns the address of the board's machine; see ``hints.seen_from``. ``own`` returns how we reach
        the board's own mailbox and relay, None if that isn't known; it may raise a ``BoardError``.
        """
        self.role = role
        self.settings = settings
        self._force = force
        self._relay = relay
        self._board = board
        self._own = own
        self.listener = Listener(listen_host)
        self._started: asyncio.Task[None] | None = None
        self._rendezvous = Rendezvous()
        self._complaints = Complaints(logger)
        self._certificate: Certificate
        self._links: set[TLSLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self, meeting: Meeting, handler: LinkHandler) -> TLSLink:
        """See ``link.base.Linker.open``. Takes up to the meeting's deadline, and then ``SETUP_LIMIT`` seconds."""
        if self._closed:
            raise LinkLost("the linker is closed")
        await self._start()
        meeting = await self._reached(meeting)
        board = self._board()
        relay = meeting.relay and seen_from(meeting.relay, board)
        meeting = replace(meeting, mailbox=seen_from(meeting.mailbox, board), relay=relay)
        local = is_local(meeting.mailbox)
        need = None if self._force == "relay" else await self._listen(local=local)
        try:
            return await self._open(meeting, handler, need, local=local)
        except BaseException:
            if need is not None:
                need.release()
            raise

    async def _reached(self, meeting: Meeting) -> Meeting:
        """Return a meeting at the board's own mailbox and relay with their addresses as we reach them."""
        if not meeting.own or self._own is None:
            return meeting
        try:
            places = await self._own()
        except BoardError as error:
            logger.info("the board does not say where its mailbox is: %s", error)
            places = None
        return meeting if places is None else replace(meeting, mailbox=places[0], relay=places[1] or None)

    async def _open(self, meeting: Meeting, handler: LinkHandler, need: Need | None, *, local: bool) -> TLSLink:
        relay = None if self._force == "direct" else meeting.relay or self._relay
        hints = [] if need is None else own_hints(need.port, need.host, local=local)
        offer = {
            "cert": base64.b64encode(self._certificate.der).decode(),
            "hints": [[hint.host, hint.port] for hint in hints],
            "relay": relay,
        }
        met = await self._rendezvous.meet(meeting, self.role, offer)
        peer_certificate, peer_hints, peer_relay = _parse_offer(met.offer, local=local)
        peer_relay = peer_relay and seen_from(peer_relay, self._board())
        if self._force == "relay":
            peer_hints = []
        if self._force != "direct":
            # Both have to be at the same relay: the client's, if it has one.
            ours_first = self.role == "client" or meeting.own
            relay = (relay or peer_relay) if ours_first else (peer_relay or relay)
        ways = Ways(
            tokens=Tokens.of(met.key_for, self.role),
            hints=peer_hints,
            relay=None if relay is None else parse_relay(relay),
            relay_only=not hints and not peer_hints,
            side=secrets.token_hex(8).encode(),
        )
        link = TLSLink(
            self.role,
            ways,
            handler,
            settings=self.settings,
            listener=self.listener,
            spawn=self._spawn,
            on_end=partial(self._ended, need),
            complaints=self._complaints,
            peer=meeting.peer,
        )
        if self._closed:
            raise LinkLost("the linker was closed meanwhile")
        terms = Terms(
            context=self._certificate.context(peer_certificate, server=self.role == "worker"),
            certificate=peer_certificate,
            session=ways.tokens.session,
            proof=meeting.prove(met.verifier),
            check=_once(partial(meeting.check, met.verifier)),
            count=link.count_for_hello,
        )
        self._links.add(link)
        await link.begin_after(link.make(terms))
        return link

    async def close(self) -> None:
        """Abort all links, stop listening, leave the mailbox. Idempotent."""
        self._closed = True
        for link in list(self._links):
            link.abort()
        if self._started is not None:
            self._started.cancel()
            await asyncio.wait([self._started])
        await self.listener.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._rendezvous.close()

    async def _start(self) -> None:
        """Prepare, once, on the first ``open``; several may come at the same time."""
        if self._started is None or (self._started.done() and self._started.exception() is not None):
            self._started = asyncio.get_running_loop().create_task(self._start_once())
        await asyncio.shield(self._started)

    async def _start_once(self) -> None:
        _tune_malloc()
        self._certificate = Certificate()

    async def _listen(self, *, local: bool) -> Need:
        try:
            return await self.listener.need(local=local)
        except OSError as error:
            raise LinkError(
                f"p2p_ipython can't listen on any port: {error}", hint="Check the address that it is to listen on."
            ) from None

    def _ended(self, need: Need | None, link: TLSLink) -> None:
        """Listen no longer for a link that has ended."""
        self._links.discard(link)
        if need is not None:
            need.release()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task of a link, which cancels it; ``close`` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _once(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return ``check``, skipped once it has passed: a later connection's certificate proves the same."""
    passed = False

    def checked(proof: bytes) -> None:
        nonlocal passed
        if not passed:
            check(proof)
            passed = True

    return checked


def _parse_offer(offer: dict[str, Any], *, local: bool) -> tuple[bytes, list[Any], str | None]:
    """Return (certificate, hints, relay) of a peer's offer. Raises ``WrongPeer``."""
    text, relay = offer.get("cert"), offer.get("relay")
    try:
        if not isinstance(text, str) or len(text) > 2 * MAX_DER or not (relay is None or isinstance(relay, str)):
            raise ValueError
        certificate = base64.b64decode(text, validate=True)
        if relay is not None:
            parse_relay(relay)
    except (ValueError, ConfigError):
        raise WrongPeer(
            "the peer's offer makes no sense", hint="Its p2p_ipython may be of another version: upgrade both."
        ) from None
    return certificate, parse_hints(offer.get("hints"), local=local), relay


def _tune_malloc() -> None:
    """Make glibc keep freed buffers of up to 32 MiB rather than give each back to the kernel.

    The threshold for that adapts to the largest block freed so far. TLS allocates and frees a few MiB for each
    MiB sent. Without this call, page faults take a third of its speed. With another malloc the call is harmless.
    """
    if sys.platform == "linux":
        block = bytes(31 << 20)
        del block
