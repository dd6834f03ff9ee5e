"""The options of a board, and its addresses."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from p2p_ipython.board.server.bounds import Bounds

PORT = 2222


@dataclass(frozen=True)
class ServerOptions(Bounds):
    """The options of a board, with its bounds. A port of 0 picks one. ``data`` None keeps nothing on disk.

    A ``mailbox_port`` or ``relay_port`` of None is the board's own ``port``, which serves all then.

    ``users`` is a file, ``users_inline`` maps names to public key lines; see ``users.py``. ``advertise`` is the
    HOST or HOST:PORT at which members find the mailbox and the relay, where it isn't what they have dialled.
    ``proxy`` is the address from which each connection begins with a header of the PROXY protocol.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    mailbox_port: int | None = None
    relay_port: int | None = None
    data: Path | None = None
    users: Path | None = None
    users_inline: Mapping[str, str] = field(default_factory=dict)
    advertise: str | None = None
    proxy: str | None = None


@dataclass(frozen=True)
class Addresses:
    """Where a board is. ``host_key`` is a public key line, ``fingerprint`` its SHA256.

    ``mailbox`` and ``relay`` are "" where it has none. ``host`` is an address that can be connected to, also where
    the board listens on all of them.
    """

    host: str
    port: int
    mailbox: str
    relay: str
    host_key: str
    fingerprint: str


def split_place(text: str) -> tuple[str, int]:
    """Return the host and the port of HOST, HOST:PORT, [HOST]:PORT or an IPv6 address; a port of 0 if it has none.

    Raises ``ValueError``.
    """
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, "0"
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) >= 1 << 16:
        raise ValueError(f"{text!r} is no HOST or HOST:PORT")
    return host, int(port)


def outward_address(everywhere: str) -> str:
    """Find the address by which others are likely to reach this machine, which listens on "::" or "0.0.0.0"."""
    found = _outward(4)
    return _outward(6) if everywhere == "::" and found == "127.0.0.1" else found


def _outward(version: int) -> str:
    # Connecting a datagram socket only chooses a route, and sends nothing. Both addresses are for documentation.
    family, there = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((there, 9))
            return str(probe.getsockname()[0])
    except OSError:  # there is no network but loopback
        return "127.0.0.1" if version == 4 else "::1"
