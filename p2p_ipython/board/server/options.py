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

    ``users`` is a file, ``users_inline`` maps names to public key lines; see ``users.py``. ``advertise`` is the
    host that members are told for the mailbox and the relay, where it isn't the one that they connected to.
    ``proxy`` is the address from which each connection begins with a header of the PROXY protocol.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    mailbox_port: int = 0
    relay_port: int = 0
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


def outward_address(version: int = 4) -> str:
    """Find the address by which others on the network are likely to reach this machine. Sends nothing."""
    # Connecting a datagram socket only chooses a route. Both addresses are reserved for documentation.
    family, there = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((there, 9))
            return str(probe.getsockname()[0])
    except OSError:  # there is no network but loopback
        return "127.0.0.1" if version == 4 else "::1"
