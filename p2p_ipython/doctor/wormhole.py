"""The needs of a wormhole: the mailbox, the relay, a link over it; and the mailbox's clock, the only one within reach.

Each function says what it found as a ``Result``; the caller limits its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import logging
import secrets
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from p2p_ipython import loop as loops
from p2p_ipython.config import Settings
from p2p_ipython.doctor.checks import Result, failed, ok, unknown
from p2p_ipython.errors import LinkError, P2PError, WrongPeer
from p2p_ipython.link.base import LinkHandler, LinkState, Meeting
from p2p_ipython.link.hints import parse_relay
from p2p_ipython.link.mailbox_client import endpoint
from p2p_ipython.link.rendezvous import new_code
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.loop import ADDRESS_DELAY
from p2p_ipython.protocol.frames import Buffer, Header
from p2p_ipython.protocol.identity import CLOCK_SLACK

log = logging.getLogger(__name__)

CLOCK_OFF = CLOCK_SLACK / 2
"""How far this clock may be off, s, before it is a fault: the friend's may be off by as much the other way."""

LINK_WITHIN = 12.0
"""How long a link to oneself may take, s."""

_MAX_WELCOME = 64 << 10
_MAX_HEAD = 16 << 10


@dataclass(frozen=True)
class _Url:
    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, mailbox: str) -> _Url | None:
        try:
            parts = urlsplit(mailbox)
            if parts.scheme not in ("ws", "wss") or not parts.hostname:
                return None
            tls = parts.scheme == "wss"
            return cls(parts.hostname, parts.port or (443 if tls else 80), tls)
        except ValueError:
            return None


# -- the mailbox --


async def check_mailbox(mailbox: str) -> Result:
    """Open a websocket to the mailbox and wait for its welcome."""
    url = _Url.parse(mailbox)
    if url is None:
        return failed(f"{mailbox[:100]!r} is no address of a mailbox", "It is written ws://HOST:PORT/v1.")
    todo = "Check the address (--mailbox), and that the mailbox is up; a board of ours brings one along (`p2p board`)."
    began = time.monotonic()
    try:
        # By ourselves first, since a plain connection's errors say more.
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(url.host, url.port, happy_eyeballs_delay=ADDRESS_DELAY)
        writer.close()
        welcome = await _first_message(mailbox, url)
    except (OSError, TimeoutError) as error:
        return failed(f"the mailbox {mailbox} {_in_words(error)}", todo)
    try:
        message = json.loads(welcome)
        if message["type"] != "welcome":
            raise ValueError
        refusal = message["welcome"].get("error")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return failed(f"what answers at {mailbox} is no wormhole mailbox", todo)
    if refusal:
        words = "".join(c if c.isprintable() else " " for c in str(refusal))[:200]
        return failed(f"the mailbox {mailbox} turns everybody away: {words}", "Use another one: --mailbox.")
    return ok(f"{mailbox} says welcome", seconds=time.monotonic() - began)


async def _first_message(mailbox: str, url: _Url) -> bytes:
    """Read the first message of a websocket's server. Raises ``ConnectionError`` when there is none."""
    loops.adopt()
    # Late: autobahn is heavy, and uses the reactor that adopt() has installed.
    from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol

    loop = asyncio.get_running_loop()
    heard: asyncio.Future[bytes] = loop.create_future()
    gone: asyncio.Future[None] = loop.create_future()

    def end(why: str) -> None:
        if not heard.done():
            heard.set_exception(ConnectionError(why[:200]))
        if not gone.done():
            gone.set_result(None)

    class MailboxProbe(WebSocketClientProtocol):  # type: ignore[misc]
        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            if not heard.done():
                heard.set_result(payload)

        def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
            end(f"hangs up: {reason or 'no reason given'}")

    factory = WebSocketClientFactory(mailbox)
    factory.protocol = MailboxProbe
    factory.setProtocolOptions(maxFramePayloadSize=_MAX_WELCOME, maxMessagePayloadSize=_MAX_WELCOME)
    try:
        async with asyncio.timeout(10):
            probe = await endpoint(url.host, url.port, tls=url.tls).connect(factory).asFuture(loop)
    except Exception as error:  # any of Twisted's
        raise ConnectionError(f"can't be reached: {error}") from None
    try:
        return await heard
    finally:
        probe.dropConnection(abort=True)
        # A server that doesn't take part in the farewell is left after autobahn's second.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                await gone


# -- the clock --


async def check_clock(mailbox: str) -> Result:
    """Compare this machine's clock with that of the mailbox's web server.

    SSH tells no time, so of a board's own clock nothing is known; and what matters is ours.
    """
    url = _Url.parse(mailbox)
    if url is None:
        return unknown("there is no mailbox whose clock could be asked")
    try:
        before = time.time()
        date = await _date(url)
        after = time.time()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return unknown("the mailbox, whose clock would be asked, does not answer")
    if date is None:
        return unknown("the mailbox does not say what time it is")
    off = (before + after) / 2 - (date + 0.5)  # a Date has whole seconds
    where = f"that of {url.host}"
    if abs(off) > CLOCK_OFF:
        return failed(
            f"this clock is {_span(abs(off))} {'ahead of' if off > 0 else 'behind'} {where}: friends would refuse what "
            "it has signed",
            "Set the clock (switch on the setting of time by network).",
        )
    return ok(f"it agrees with {where}" + (f" but for {_span(abs(off))}" if abs(off) > 2 else ""))


async def _date(url: _Url) -> float | None:
    """Read a web server's ``Date``, as Unix time."""
    context = ssl.create_default_context() if url.tls else None
    reader, writer = await asyncio.open_connection(
        url.host, url.port, ssl=context, limit=_MAX_HEAD, happy_eyeballs_delay=ADDRESS_DELAY
    )
    try:
        host = f"[{url.host}]" if ":" in url.host else url.host
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}:{url.port}\r\nConnection: close\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    finally:
        writer.close()
    for field in head.split("\r\n")[1:]:
        name, _, value = field.partition(":")
        if name.strip().lower() == "date":
            try:
                return email.utils.parsedate_to_datetime(value.strip()).timestamp()
            except ValueError:
                return None
    return None


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# -- the relay --


async def check_relay(relay: str) -> Result:
    """Meet oneself at the relay: two connections with the same token, which it joins."""
    try:
        host, port = parse_relay(relay)
    except P2PError as error:
        return failed(error.message, error.hint)
    todo = (
        "Check the address (--relay), and that the relay is up and its port open. Without a relay only machines that "
        "can reach one another directly form links."
    )
    token = secrets.token_hex(32)
    began = time.monotonic()
    try:
        async with asyncio.timeout(7):
            answers = await asyncio.gather(_greet(host, port, token), _greet(host, port, token))
    except (OSError, TimeoutError) as error:
        return failed(f"the relay {relay} {_in_words(error)}", todo)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return failed(f"what answers at {relay} is no relay: it hangs up", todo)
    for answer in answers:
        if answer != b"ok\n":
            return failed(f"the relay {relay} refuses: {answer[:60]!r}", todo)
    return ok(f"{relay} joins two connections", seconds=time.monotonic() - began)


async def _greet(host: str, port: int, token: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, limit=_MAX_HEAD, happy_eyeballs_delay=ADDRESS_DELAY)
    try:
        writer.write(f"please relay {token} for side {secrets.token_hex(8)}\n".encode())
        return await reader.readuntil(b"\n")
    finally:
        writer.close()


# -- a link to oneself --


async def check_link(mailbox: str, relay: str) -> Result:
    """Make a link from this process to itself, as a client and a worker do, over the relay alone."""
    settings = Settings.load()
    linkers = [TLSLinker(role, settings=settings, force="relay") for role in ("client", "worker")]
    meeting = Meeting(
        new_code(), mailbox, relay, LINK_WITHIN, prove=lambda verifier: b"doctor" + verifier, check=_check_proof
    )
    here, there = _Echo(), _Echo()
    began = time.monotonic()
    opening = [
        asyncio.ensure_future(linker.open(meeting, handler))
        for linker, handler in zip(linkers, (here, there), strict=True)
    ]
    try:
        async with asyncio.timeout(LINK_WITHIN):
            link, there.link = await asyncio.gather(*opening)
            made = time.monotonic() - began
            sent = time.monotonic()
            link.send({"t": "doctor.ping"})
            await here.heard.wait()
            trip = time.monotonic() - sent
            await asyncio.gather(link.close(), there.link.close())
    except LinkError as error:
        return failed(error.message, error.hint or "Try again; run with -v to see more.")
    except TimeoutError:
        return failed("a link to oneself over the relay does not come about", "Try again; run with -v to see more.")
    finally:
        for task in opening:
            task.cancel()
        await asyncio.wait(opening)
        for linker in linkers:
            await linker.close()
    return ok(f"made in {made:.1f} s over the relay, encrypted from end to end", seconds=trip)


def _check_proof(verifier: bytes, proof: bytes) -> None:
    if proof != b"doctor" + verifier:
        raise WrongPeer("somebody else has answered in our stead", hint="Try again; use another mailbox.")


class _Echo(LinkHandler):
    """Answers the first frame, where it has a ``link`` to do so; knows when it has heard one."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.link: Any = None

    def on_frame(self, header: Header, body: Buffer) -> None:
        self.heard.set()
        if self.link is not None:
            self.link.send({"t": "doctor.pong"})

    def buffer_for(self, header: Header, size: int) -> memoryview | None:
        return None

    def on_link(self, state: LinkState, detail: str) -> None:
        log.info("the doctor's link is %s: %s", state.value, detail)

    def on_drain(self) -> None:
        pass


def _in_words(error: BaseException) -> str:
    """Say what a connection's error means, after the name of what was connected to."""
    if isinstance(error, socket.gaierror):
        return "has a host name that nobody knows"
    if isinstance(error, ConnectionRefusedError):
        return "is not there: nothing listens at that port"
    if isinstance(error, TimeoutError):
        return "does not answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate that does not fit: {error.verify_message}"
    if isinstance(error, OSError) and error.errno is None:
        return str(error)
    return f"can't be reached: {getattr(error, 'strerror', None) or error}"
