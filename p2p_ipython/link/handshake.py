"""The steps by which a connection becomes part of a link.

First each end writes a line in the clear, so that a stranger at a port costs one line and no cryptography::

    dialler    p2p-link/1 <64 hex: a key that only the two know>      relay: please relay <64 hex> for side <16 hex>
    other end  p2p-link/1 <64 hex: another one>                              ok

Then TLS 1.3, in which the *client* is the TLS client, whichever end dialled. The client thereby decides which of
several connections is used: it starts TLS on that one. Then, as the first frames in each direction::

    link.hello   the protocol's version, the link's session, how many frames this end has got; its proof as the body
    link.ready   the peer's hello is accepted   (link.refused: it is not; with the version that this end speaks)

A connection is part of the link once both ends are ready. A payload frame can't come before that.
"""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from p2p_ipython.errors import ProtocolError, RemoteProtocolError, WrongPeer
from p2p_ipython.link.rendezvous import KeyFor, Role
from p2p_ipython.link.transport import Connection, ConnectionGone
from p2p_ipython.protocol.frames import PROTOCOL_VERSION, Buffer, Header, encode

_GREETING = b"p2p-link/1 "

MAX_PROOF = 32 << 10
"""Largest proof, bytes."""

_MAX_VERSION = 1 << 16


@dataclass(frozen=True)
class Tokens:
    """The lines that the two ends of one link show in the clear, each made from a key for this purpose alone.

    A stranger who overhears a line can knock with it, and then fails at TLS.
    """

    dial: bytes = field(repr=False)
    """Our line when we dial."""
    dialled: bytes = field(repr=False)
    """The peer's line when it dials. A listening socket tells its links apart by this line."""
    answer: bytes = field(repr=False)
    """Our answer when the peer dials."""
    answered: bytes = field(repr=False)
    """The peer's answer when we dial."""
    relay: bytes = field(repr=False)
    session: str = field(repr=False)

    @classmethod
    def of(cls, key_for: KeyFor, role: Role) -> Tokens:
        """Make the tokens of the end that has ``role``."""
        other = "worker" if role == "client" else "client"

        def line(purpose: str) -> bytes:
            return _GREETING + key_for(purpose).hex().encode()

        return cls(
            dial=line(f"dial/{role}"),
            dialled=line(f"dial/{other}"),
            answer=line(f"answer/{role}"),
            answered=line(f"answer/{other}"),
            relay=key_for("relay").hex().encode(),
            session=key_for("session").hex()[:32],
        )


async def greet(connection: Connection, tokens: Tokens) -> None:
    """Knock at a listening socket. Raises ``ConnectionGone`` unless it is the peer's."""
    connection.write_line(tokens.dial)
    if not hmac.compare_digest(await connection.read_line(), tokens.answered):
        raise ConnectionGone("another program answered")


async def greet_relay(connection: Connection, tokens: Tokens, side: bytes) -> None:
    """Wait at a relay until the peer is there, too. Raises ``ConnectionGone`` when the relay refuses."""
    connection.write_line(b"please relay " + tokens.relay + b" for side " + side)
    if await connection.read_line() != b"ok":
        raise ConnectionGone("the relay refused")


@dataclass(frozen=True)
class Terms:
    """The things that an end brings to a connection, and those that it demands of the peer."""

    context: ssl.SSLContext
    certificate: bytes
    """The peer's certificate, DER."""
    session: str
    proof: bytes
    check: Callable[[bytes], None]
    """Raises ``WrongPeer`` unless the peer's proof is right."""
    count: Callable[[], int]
    """Returns how many frames this end has got. Called once the peer is known; then no other connection may deliver."""
    version: int = PROTOCOL_VERSION


async def establish(connection: Connection, terms: Terms, role: Role) -> int:
    """Make ``connection`` part of the link; return how many of our frames the peer has got.

    Raises ``WrongPeer``, ``ConnectionGone``, ``RemoteProtocolError``. The caller limits the time.
    """
    server = role == "worker"
    shown = await connection.start_tls(terms.context, server=server)
    if shown != terms.certificate:
        raise WrongPeer("the other end of a connection shows another certificate than the one that was agreed on")
    # The worker's answer waits for the client's hello, which comes with the client's last words of the handshake. That
    # costs no time, and only a client that has proved its certificate can end an older connection.
    if not server:
        _send_hello(connection, terms)
    header, body = await _expect(connection, "link.hello", terms)
    try:
        _check_version(header, terms)
        received, proof = _parse_hello(header, body, terms.session)
        terms.check(proof)
    except WrongPeer:
        connection.write([encode({"t": "link.refused", "version": terms.version})])
        connection.close()
        raise
    if server:
        _send_hello(connection, terms)
    connection.write([encode({"t": "link.ready"})])
    await _expect(connection, "link.ready", terms)
    return received


def _send_hello(connection: Connection, terms: Terms) -> None:
    header: Header = {
        "t": "link.hello",
        "version": terms.version,
        "session": terms.session,
        "received": terms.count(),
    }
    connection.write([encode(header, len(terms.proof)) + terms.proof])


async def _expect(connection: Connection, kind: str, terms: Terms) -> tuple[Header, Buffer]:
    header, body = await connection.read_frame()
    if header["t"] == "link.refused":
        _check_version(header, terms)
        raise WrongPeer("the peer refused our proof of who we are", hint="Has the membership of this cluster ended?")
    if header["t"] != kind:
        raise RemoteProtocolError(f"the peer sent {header['t'][:40]!r} where {kind} was due")
    return header, body


def _check_version(header: Header, terms: Terms) -> None:
    """Raise ``WrongPeer`` if the peer, by its hello or its refusal, speaks another version than this end."""
    theirs = header.get("version", 1)  # the first ends did not say it
    if not isinstance(theirs, int) or isinstance(theirs, bool) or not 0 < theirs <= _MAX_VERSION:
        raise RemoteProtocolError("the peer's version of the protocol makes no sense")
    if theirs != terms.version:
        raise WrongPeer(
            f"the other end of a link speaks version {theirs} of the protocol, and this end version {terms.version}",
            hint=f"Upgrade p2p_ipython at {'this' if theirs > terms.version else 'the other'} end.",
        )


def _parse_hello(header: Header, body: Buffer, session: str) -> tuple[int, bytes]:
    received = header.get("received")
    if not isinstance(received, int) or isinstance(received, bool) or received < 0 or len(body) > MAX_PROOF:
        raise RemoteProtocolError("the peer's hello makes no sense")
    if header.get("session") != session:
        raise WrongPeer("the peer is on another link")
    return received, bytes(body)


FAILURES = (ConnectionGone, ProtocolError, OSError, TimeoutError)
"""Errors that end one connection only: another one may succeed."""
