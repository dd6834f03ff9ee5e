"""One TCP connection: a line or two in the clear, then TLS, then frames.

The bytes come in on this way::

    socket ─recv_into─▶ 256 KiB ─▶ TLS ─▶ Intake.target() ─▶ Sink.on_frame

and go out on this one: frames ─▶ TLS ─▶ the transport's buffer. TLS is ``ssl.MemoryBIO`` rather than
``loop.start_tls``, for three reasons. The plain lines and the handshake may come in one segment; a record is decrypted
right into the buffer of its body; and a stranger's bytes never reach the loop's exception handler.

Each step of the set-up is a coroutine (``read_line``, ``start_tls``, ``read_frame``), one at a time, under a deadline
of its caller's. After ``start`` all frames go to the sink, and nothing is awaited any more.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Protocol, cast

from p2p_ipython.errors import LinkError, RemoteProtocolError, WrongPeer
from p2p_ipython.link.intake import Intake
from p2p_ipython.link.pace import MOST, Pace, kept_by_kernel
from p2p_ipython.protocol.frames import Buffer, FrameError, Header

logger = logging.getLogger(__name__)

_READ = 256 << 10
_HELD = 1 << 20  # encrypted bytes taken while nobody reads
_LEAST_IN_KERNEL = 4 << 10
_AGAIN = 0.005  # seconds between two looks whether the kernel has sent what it keeps
_LINE = 256  # bytes of a plain line, far above ours and the relay's
_PLAIN = 64 << 10  # bytes taken before TLS is started; a peer's first flight has some 2 KiB


class Sink(Protocol):
    """The receiver of a connection's frames. Exceptions of its methods end the connection."""

    def on_frame(self, header: Header, body: Buffer, size: int) -> None:
        """Take a frame, which had ``size`` bytes on the wire."""

    def buffer_for(self, header: Header, size: int) -> memoryview | None:
        """Return the place where a large body is to land, or None for a fresh buffer."""

    def on_data(self) -> None:
        """Learn that some bytes have come."""

    def on_writable(self) -> None:
        """Learn that the unsent bytes have fallen to a quarter of the limit after having been above it."""

    def on_gone(self, reason: Exception) -> None:
        """Learn that the connection has ended, and that no more comes from it. Not called after ``abort``."""


class ConnectionGone(LinkError):
    """The connection ended. This error stays inside the package: its holder tries another connection."""


class Connection(asyncio.BufferedProtocol):
    """See the module. Made for ``loop.create_connection`` and for a listening socket."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writable = True
        self._transport: asyncio.Transport | None = None
        self._raw = memoryview(bytearray(_LINE))  # enough for a stranger; more comes with TLS
        self._plain = bytearray()
        self._waiter: asyncio.Future[Any] | None = None
        self._gone: Exception | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._secure = False
        self._intake: Intake | None = None
        self._sink: Sink | None = None
        self._paused = False
        self._pace = Pace()
        self._given = 0  # bytes, to the transport
        self._later: asyncio.TimerHandle | None = None

    # For the owner

    def write_line(self, line: bytes) -> None:
        """Write a line in the clear."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(line + b"\n")

    async def read_line(self) -> bytes:
        """Return the next plain line, without its newline. Raises ``ConnectionGone``, also if it is too long."""
        while b"\n" not in self._plain:
            if len(self._plain) > _LINE:
                self.abort("a plain line is too long")
            await self._wait()
        line, _, rest = bytes(self._plain).partition(b"\n")
        self._plain[:] = rest
        return line

    async def start_tls(self, context: ssl.SSLContext, *, server: bool) -> bytes:
        """Make the handshake; return the peer's certificate, DER.

        Raises ``WrongPeer`` when the peer has another certificate than the context's, or doesn't accept ours;
        ``ConnectionGone`` when the connection ends otherwise.
        """
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._raw = memoryview(bytearray(_READ))
        self._intake = Intake(self._buffer_for, self._on_frame)
        self._intake.held = True
        if self._plain:
            self._incoming.write(self._plain)
            self._plain.clear()
        while True:
            self._check()
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                await self._wait()
                continue
            except ssl.SSLError as error:
                self._flush()  # the alert that tells the peer why
                raise self._end(_tls_error(error)) from None
            break
        self._secure = True
        self._flush()
        certificate = self._tls.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate

    async def read_frame(self) -> tuple[Header, Buffer]:
        """Return the next frame; later ones wait. Raises ``ConnectionGone`` or ``WrongPeer`` as ``start_tls`` does."""
        self._check()
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._release()
        try:
            frame: tuple[Header, Buffer] = await self._waiter
        finally:
            self._hold()
            self._waiter = None
        return frame

    def start(self, sink: Sink) -> None:
        """Hand all further frames to ``sink``."""
        assert self._transport is not None
        self._sink = sink
        if self._gone is not None:
            sink.on_gone(self._gone)
            return
        self._release()

    def rest(self) -> None:
        """Deliver no frames until ``go_on``; what has come already waits, and then the rest with the peer."""
        self._hold()

    def go_on(self) -> None:
        """Deliver frames again."""
        if self._gone is None:
            self._release()

    def write(self, pieces: Sequence[Buffer]) -> None:
        """Encrypt and send ``pieces``; each begins a TLS record of its own."""
        tls, transport = self._tls, self._transport
        if self._gone is not None or tls is None or transport is None or transport.is_closing():
            return
        try:
            for piece in pieces:
                written = tls.write(piece)
                while written < len(piece):
                    written += tls.write(memoryview(piece)[written:])
        except ssl.SSLError as error:
            self._fail(_tls_error(error))
            return
        self._flush()

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def limit(self) -> int:
        """Unsent bytes above which bulk waits, and the longest piece of it. See ``pace.py``."""
        return self._pace.limit

    def look(self) -> None:
        """Look how quickly what is written goes onto the wire, and set the limit by that."""
        waits = self._waits()
        if self._pace.look(self._given - waits, asyncio.get_running_loop().time(), waits=waits > 0):
            self._set_limit()

    def has_room(self) -> bool:
        """Return whether bulk may be written; if not, the sink learns when that may have changed."""
        if not self.writable or self.unsent >= self.limit:
            return False
        if self.limit < MOST and self._waits() >= self.limit:
            # The kernel reports room in its own measure, which is far above ours on a slow network.
            if self._later is None:
                self._later = asyncio.get_running_loop().call_later(_AGAIN, self._look_again)
            return False
        return True

    def info(self, name: str) -> Any:
        """Return the transport's extra info of that name, such as its ``peername``."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    @property
    def gone(self) -> bool:
        """Whether the connection has ended."""
        return self._gone is not None

    def close(self) -> None:
        """Send the written bytes, then end, without a word to the sink."""
        self._finish(ConnectionGone("closed here"), flush=True)

    def abort(self, reason: str = "aborted here") -> None:
        """End at once, without a word to the sink."""
        self._finish(ConnectionGone(reason), flush=False)

    # For the loop (asyncio.BufferedProtocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        options = self._transport.get_extra_info("socket")
        # asyncio sets this only on sockets that were made with an explicit protocol number. Without it a
        # handshake takes 40 ms longer, and so does each small answer.
        options.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._set_limit()
        if self._gone is not None:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._raw

    def buffer_updated(self, count: int) -> None:
        if self._gone is not None:
            return
        try:
            if self._tls is None:
                self._plain += self._raw[:count]
                if len(self._plain) > _PLAIN:
                    raise RemoteProtocolError("too many bytes before TLS")
                self._wake()
                return
            self._incoming.write(self._raw[:count])
            if not self._secure:
                self._wake()
                return
            if self._sink is not None:
                self._sink.on_data()
            self._read()
        except Exception as error:
            self._fail_by(error)

    def eof_received(self) -> bool:
        self._fail(ConnectionGone("the peer ended the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._gone is None:
            self._fail(ConnectionGone(f"the connection broke: {exc}" if exc else "the connection ended"))
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.look()
        # Not at once: asyncio's transport breaks when it is aborted in here, which the sink may do.
        asyncio.get_running_loop().call_soon(self._tell_writable)

    # Helpers, in order of use

    def _set_limit(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        limit = self._pace.limit
        self._transport.set_write_buffer_limits(limit, limit // 4)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # On a slow network the kernel would take megabytes of bulk that no small frame could overtake. Half a MiB,
            # the most, was measured not to slow a fast network.
            self._transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, max(limit // 2, _LEAST_IN_KERNEL)
            )

    def _waits(self) -> int:
        """Return how many bytes are not on the wire: those that the kernel hasn't taken, and those that it keeps."""
        return self.unsent + (
            0 if self._transport is None else kept_by_kernel(self._transport.get_extra_info("socket"))
        )

    def _look_again(self) -> None:
        self._later = None
        self.look()
        self._tell_writable()

    def _tell_writable(self) -> None:
        if self._sink is not None and self.writable:
            self._sink.on_writable()

    def _check(self) -> None:
        if self._gone is not None:
            raise self._gone

    async def _wait(self) -> None:
        self._check()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        self._check()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _flush(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return  # a transport whose socket has failed would log each further write
        if self._outgoing.pending:
            # A view, since the transport slices the bytes that it could not send at once.
            self._given += self._outgoing.pending
            self._transport.write(memoryview(self._outgoing.read()))

    def _hold(self) -> None:
        if self._intake is not None:
            self._intake.held = True

    def _release(self) -> None:
        assert self._intake is not None
        self._intake.held = False
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        try:
            self._intake.deliver()
            self._read()
        except Exception as error:
            self._fail_by(error)

    def _read(self) -> None:
        """Decrypt the bytes that have come, and deliver their frames."""
        tls, intake = self._tls, self._intake
        assert tls is not None
        assert intake is not None
        read, target, landed = tls.read, intake.target, intake.landed
        try:
            while not intake.held:
                place = target()
                count = cast(int, read(len(place), cast(bytearray, place)))  # any writable buffer will do
                if not count:
                    self._fail(ConnectionGone("the peer ended the connection"))
                    return
                landed(count)
        except ssl.SSLWantReadError:
            return
        if self._incoming.pending > _HELD and not self._paused and self._gone is None:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    def _on_frame(self, header: Header, body: Buffer, size: int) -> None:
        if self._sink is not None:
            self._sink.on_frame(header, body, size)
        elif self._waiter is not None and not self._waiter.done():
            self._hold()
            self._waiter.set_result((header, body))

    def _buffer_for(self, header: Header, size: int) -> memoryview | None:
        if self._sink is None:
            raise RemoteProtocolError("a large frame came before the link was made")
        return self._sink.buffer_for(header, size)

    def _fail_by(self, error: Exception) -> None:
        """End because of any error that the peer's bytes have caused: none may end the loop."""
        match error:
            case ssl.SSLError():
                self._fail(_tls_error(error))
            case FrameError():
                self._fail(RemoteProtocolError(f"the peer sent what is not a frame: {error}"))
            case _:
                # Its traceback would keep the frame that caused it, for as long as this error is known.
                self._fail(error.with_traceback(None))

    def _fail(self, reason: Exception) -> None:
        sink = self._sink
        if self._finish(reason, flush=False) and sink is not None:
            sink.on_gone(reason)

    def _end(self, reason: Exception) -> Exception:
        """End in good order because of ``reason``; return it."""
        self._finish(reason, flush=True)
        return reason

    def _finish(self, reason: Exception, *, flush: bool) -> bool:
        if self._gone is not None:
            if not flush and self._transport is not None:
                self._transport.abort()
            return False
        self._gone = reason
        self._sink = None
        if self._later is not None:
            self._later.cancel()
        if self._intake is not None:
            self._intake.drop()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(reason)
        if self._transport is not None:
            if flush:
                self._transport.close()
            else:
                self._transport.abort()
        return True


_REFUSALS = ("CERTIFICATE", "UNKNOWN_CA", "ALERT_DECRYPT_ERROR", "ALERT_ACCESS_DENIED")


def _tls_error(error: ssl.SSLError) -> LinkError:
    """Return our error for one of TLS: ``WrongPeer`` if it concerns a certificate, the peer's or ours."""
    reason = error.reason or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError) or any(word in reason for word in _REFUSALS):
        return WrongPeer(
            "the other end of a connection does not hold the certificate that was agreed on",
            hint="Somebody may be listening in between. Connect again; if that fails, by another network.",
        )
    return ConnectionGone(f"TLS failed: {reason}")
