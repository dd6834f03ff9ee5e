"""The limits of one SSH connection: how much it may make a board do and keep.

asyncssh bounds none of this, and has no options for it.

The guard stands between a connection's socket and asyncssh:

* what a connection sends is parsed in slices, so that others have their turn;
* each packet counts, and each key exchange; a connection that has sent too many is read again a little later;
* a client that makes the board answer, and doesn't read the answers, is cut. Packets that wait for the end of
  a key exchange are such answers, too;
* packets over ``Bounds.packet`` end the connection.

It reaches into asyncssh where asyncssh has no public way. tests/board/test_strangers.py fails when that goes nowhere.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import asyncssh

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.limits import KEY_EXCHANGE, PACKET, Bucket, Seldom

log = logging.getLogger(__name__)


class Guard:
    """Reads one connection for asyncssh."""

    def __init__(
        self,
        connection: asyncssh.SSHServerConnection,
        bounds: Bounds,
        seldom: Seldom,
    ) -> None:
        self._connection: Any = connection
        self._loop = asyncio.get_running_loop()
        self._bucket = Bucket(bounds.rate, bounds.burst, self._loop.time())
        self._bounds = bounds
        self._seldom = seldom
        self._receive = self._connection.data_received
        self._keys = self._connection._recv_encryption
        self._packets = 0
        self._rest = b""
        self._timer: asyncio.TimerHandle | None = None
        vars(connection).update(data_received=self._data_received, _max_recv_pktlen=bounds.packet)

    def wait(self, seconds: float) -> None:
        """Read nothing for so long."""
        if (transport := self._connection._transport) is not None:
            transport.pause_reading()
            self._timer = self._loop.call_later(seconds, self._read_on)

    def close(self) -> None:
        """Stop reading. The connection has ended."""
        self._rest = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _data_received(self, data: bytes, datatype: int | None = None) -> None:
        self._rest += data
        if self._timer is None:
            self._read()

    def _read(self) -> None:
        self._timer = None
        transport = self._connection._transport
        while self._rest and transport is not None and not transport.is_closing():
            piece, self._rest = self._rest[: self._bounds.slice], self._rest[self._bounds.slice :]
            self._receive(piece)
            waiting = unsent(self._connection)
            if waiting > 2 * self._bounds.queue:
                if count := self._seldom.say(self._loop.time()):
                    log.warning("clients that don't read their answers are cut: %d; %d bytes wait", count, waiting)
                self._connection.abort()
                return
            silence = self._bucket.take(self._cost(), self._loop.time())
            if silence:
                transport.pause_reading()
                self._timer = self._loop.call_later(silence, self._read_on)
                return

    def _read_on(self) -> None:
        self._read()
        if self._timer is None and (transport := self._connection._transport) is not None:
            transport.resume_reading()

    def _cost(self) -> int:
        """Return what asyncssh has had to do since the last call, in bytes."""
        packets, keys = self._connection._recv_seq, self._connection._recv_encryption
        new = packets - self._packets if packets >= self._packets else packets  # new keys may count from 0 again
        exchanges = int(keys is not self._keys)
        self._packets, self._keys = packets, keys
        cost: int = new * PACKET + exchanges * KEY_EXCHANGE
        return cost


def unsent(connection: asyncssh.SSHServerConnection) -> int:
    """Return how many bytes wait for the connection's socket, or for the end of a key exchange.

    asyncssh neither says how many there are nor stops writing when there are too many, and a client chooses its
    window itself. Without this look a client that stops reading could fill our memory.
    """
    transport: Any = getattr(connection, "_transport", None)
    deferred: Any = getattr(connection, "_deferred_packets", ())
    waiting: int = sum(len(part) for _, parts in deferred for part in parts) + PACKET * len(deferred)
    return waiting + (int(transport.get_write_buffer_size()) if transport is not None else 0)


class Forgetful(dict[bytes, bytes]):
    """The environment that a client sends: nothing of it is kept."""

    def __setitem__(self, name: bytes, value: bytes) -> None:
        pass
