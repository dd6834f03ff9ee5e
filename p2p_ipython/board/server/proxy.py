"""The PROXY protocol, purely: how a proxy in front of a board says for whom it has connected.

A proxy sends a header before the bytes that it passes on: a line of text (version 1) or a binary block (version 2).
The board reads one from the address of ``--proxy`` only. Anybody else could claim any address by it.
"""

from __future__ import annotations

import ipaddress

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = 16
"""The length of a header of version 2 up to its addresses, bytes."""
_LINE = 107
"""The longest header of version 1, bytes."""
_SIZES = {0x1: 4, 0x2: 16}
"""The length of an address by its family: IPv4, IPv6."""


class Nonsense(ValueError):
    """The bytes are no header."""


class ProxyHeader:
    """Reads a header from a stream. ``most`` is its longest, bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._data = b""
        self.address: str | None = None
        """The address of the client; None: the proxy speaks for itself."""

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; return what came behind the header, or None if it isn't complete. Raises ``Nonsense``."""
        self._data += data
        start = self._data[: len(SIGNATURE)]
        if SIGNATURE.startswith(start):
            return self._binary()
        if start.startswith(b"PROXY "[: len(start)]):
            return self._line()
        raise Nonsense("no PROXY header")

    def _line(self) -> bytes | None:
        line, end, rest = self._data.partition(b"\r\n")
        if len(line) + 2 > min(_LINE, self._most):
            raise Nonsense("the PROXY header is too long")
        if not end:
            return None
        words = line.decode("ascii", "replace").split(" ")
        if words[1:2] == ["UNKNOWN"]:
            return rest
        if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
            raise Nonsense("the PROXY header is wrong")
        self.address = _address(words[2])
        return rest

    def _binary(self) -> bytes | None:
        if len(self._data) < _FIXED:
            return None
        kind, family, size = self._data[12], self._data[13], int.from_bytes(self._data[14:16], "big")
        if _FIXED + size > self._most or kind not in (0x20, 0x21):
            raise Nonsense("the PROXY header is too long or of another version")
        if len(self._data) < _FIXED + size:
            return None
        body, rest = self._data[_FIXED : _FIXED + size], self._data[_FIXED + size :]
        length = _SIZES.get(family >> 4)
        if kind == 0x21 and length is not None:
            if size < 2 * length + 4:
                raise Nonsense("the PROXY header is too short")
            self.address = str(ipaddress.ip_address(body[:length]))
        return rest


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Nonsense("the PROXY header names no address") from None
