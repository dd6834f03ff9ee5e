"""The addresses at which a process can be reached: its own, and those that a peer names.

A peer's hints make us connect to an address of its choice, while all we know of the peer is that it knew the code. So
hints are IP addresses only (no look-ups on the peer's behalf), few, of unprivileged ports. Loopback is taken only in a
cluster whose mailbox is on this machine. Such an address gets no more from us than one line of 75 bytes.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from p2p_ipython.errors import ConfigError, WrongPeer

MAX_HINTS = 16
_URL = re.compile(r"(?P<scheme>wss?://|tcp:)(?P<host>\[[^\]]*\]|[^:/]*)(?P<rest>(:\d+)?(/.*)?)")
_FIRST_PORT = 1024
_INSIDE = re.compile(
    r"docker|podman|br-|bridge|virbr|veth|vnet|vmnet|vboxnet|VirtualBox|VMware|vEthernet|lxc|lxd|cni|flannel|cali"
)
_VPN = re.compile(r"tun|tap|utun|wg|ppp|ipsec|tailscale|zt|nordlynx|proton", re.IGNORECASE)


@dataclass(frozen=True)
class Hint:
    """An address to connect to: an IP address and a port."""

    host: str
    port: int


def is_local(mailbox: str) -> bool:
    """Return whether a mailbox's URL is on this machine's loopback."""
    host = urlsplit(mailbox).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def seen_from(url: str, board: str) -> str:
    """Return the URL of a mailbox or relay as this end reaches it; ``board`` is the board's address, "" if unknown.

    A peer on the board's machine may name loopback, or the unspecified address. From elsewhere both lead nowhere, or to
    something else. So a peer can't make us connect to our own machine, unless the board is there.
    """
    parts = _URL.fullmatch(url)
    if parts is None or not board or is_here(board) or not is_here(parts["host"].strip("[]")):
        return url
    return f"{parts['scheme']}{f'[{board}]' if ':' in board else board}{parts['rest']}"


def is_here(host: str) -> bool:
    """Return whether a host is this machine's loopback, or the unspecified address."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback or (mapped or address).is_unspecified


def own_hints(port: int, listen_host: str | None, *, local: bool) -> list[Hint]:
    """Return the addresses at which a peer may reach our ``port``, the likeliest first.

    Those of bridges to containers and virtual machines come last: elsewhere they are nobody's, or somebody else's.

    ``listen_host`` is the one address that we listen on, None for all. ``local``: see ``is_local``.
    """
    if listen_host is not None:
        return [Hint(listen_host, port)]
    import psutil  # late: it takes long to load

    loopback: list[Hint] = []
    other: list[tuple[int, bool, Hint]] = []
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if address.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            try:
                parsed = ipaddress.ip_address(address.address)
            except ValueError:  # with a scope ("fe80::1%eth0"), which has no meaning on another machine
                continue
            if parsed.is_link_local:
                continue
            hint = Hint(str(parsed), port)
            if parsed.is_loopback:
                loopback.append(hint)
            else:
                other.append((_distance(name), parsed.version == 6, hint))
    other.sort(key=lambda each: each[:2])  # IPv4 first: it works in home networks
    return ((loopback if local else []) + [hint for _, _, hint in other])[:MAX_HINTS]


def _distance(interface: str) -> int:
    """Return 0 for an interface that others may reach, 1 for a VPN's, 2 for one that ends in this machine."""
    return 2 if _INSIDE.match(interface) else 1 if _VPN.match(interface) else 0


def parse_hints(value: object, *, local: bool) -> list[Hint]:
    """Return the hints in a peer's message, a list of [host, port], without the unusable ones.

    Raises ``WrongPeer`` when ``value`` is no such list.
    """
    if not isinstance(value, list) or len(value) > MAX_HINTS:
        raise _nonsense()
    hints: dict[Hint, None] = {}
    for pair in value:
        match pair:
            case [str(host), int(port)] if len(host) < 64 and not isinstance(port, bool):
                hint = _usable(host, port, local=local)
                if hint is not None:
                    hints[hint] = None
            case _:
                raise _nonsense()
    return list(hints)


def _usable(host: str, port: int, *, local: bool) -> Hint | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if not _FIRST_PORT <= port < 1 << 16 or address.is_multicast or address.is_unspecified or address.is_link_local:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if (mapped or address).is_loopback and not local:
        return None
    return Hint(str(address), port)


def _nonsense() -> WrongPeer:
    return WrongPeer(
        "the peer's addresses make no sense", hint="Its p2p_ipython may be of another version: upgrade both."
    )


def parse_relay(text: str) -> tuple[str, int]:
    """Return (host, port) of a relay given as ``tcp:HOST:PORT``. Raises ``ConfigError``."""
    kind, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    host = host.replace("\\", "").strip("[]")
    if kind != "tcp" or not host or len(host) > 253 or not port.isascii() or not port.isdigit() or int(port) >= 1 << 16:
        raise ConfigError(f"{text[:80]!r} is not the address of a relay", hint="Write it as tcp:HOST:PORT.")
    return host, int(port)
