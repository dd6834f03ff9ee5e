"""A channel through a jump host as the next connection's socket, one that can always be closed.

paramiko's transport closes its socket in its own thread, and is not prepared for that to fail. Closing a channel
does: it says so to the jump host, whose connection may have ended a moment before. The thread would then die with a
traceback before it wakes the threads that wait for an answer of the next host.
"""

from __future__ import annotations

import paramiko


class Tunnel:
    """The part of a socket that ``paramiko.Transport`` needs, by a channel. Closing it never fails."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    @property
    def _closed(self) -> bool:  # the name by which paramiko asks a socket
        return bool(self._channel.closed)

    def settimeout(self, timeout: float | None) -> None:
        """Set how long to wait for bytes, s."""
        self._channel.settimeout(timeout)

    def recv(self, size: int) -> bytes:
        """Read; b"" at the end."""
        data: bytes = self._channel.recv(size)
        return data

    def send(self, data: bytes) -> int:
        """Write some of ``data``, and say how much."""
        try:
            written: int = self._channel.send(data)
        except (EOFError, paramiko.SSHException) as error:
            raise OSError(f"the connection to the jump host has ended: {error}") from None
        return written

    def getpeername(self) -> object:
        """Return the jump host's address."""
        return self._channel.getpeername()

    def close(self) -> None:
        """Close the channel, or leave it closed that what it goes through has ended."""
        try:
            self._channel.close()
        except (OSError, EOFError, paramiko.SSHException):
            pass
