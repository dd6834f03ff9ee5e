"""The internet for runners, and nothing of the lender's own network: by pasta and a packet filter, see ``behind``.

A runner's network is a namespace of its own. pasta carries what leaves it, through ordinary sockets outside; it
neither carries anything to the lender's loopback nor in. A filter in the namespace refuses all that is private, the
networks that the lender's machine is in, and multicast. A task has no right to change it.

Routes to nowhere would not do: a socket that is bound to an interface passes them by, and anybody may bind one so.

Names are resolved by an address that nobody has: pasta passes what comes there, on port 53, to the lender's resolver.
So a resolver at a private address works, and nothing else at that address is in reach.

The lender's networks are those of the moment when a runner starts. Linux, with pasta, nft and /dev/net/tun.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from p2p_ipython.sandbox.launch import Missing
from p2p_ipython.sandbox.mechanisms.install import install_with

_RESOLVERS = {4: "198.51.100.53", 6: "2001:db8::53"}
"""Of the ranges that are for documents, so no host on the internet has them (RFC 5737 and RFC 3849)."""

_CLOSED = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3"),
)
"""Private, shared, link-local with the clouds' metadata, for tests, multicast and reserved (IANA's registry)."""

_CLOSED_6 = ("::/96", "::ffff:0:0/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fc00::/7", "fe80::/9", "ff00::/8")
"""The same, and what stands for IPv4; fe80::/9 is link-local and the old site-local."""

_NAT64 = ipaddress.IPv6Address("64:ff9b::")

_PASTA = ("--config-net", "--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none", "-q")

_STAGE = '"$1" -f "$2/rules" && exec 8<"$2/arguments" 9<"$2/filter" && shift 2 && exec "$@"'
"""No filter, no runner. Descriptors have to be opened here: pasta closes those that it inherits."""

DESCRIPTORS = {"arguments": 8, "filter": 9}
"""The descriptors that a command gets: the files of these names in the folder."""

_NOISE = (
    "Couldn't write to /proc/self/uid_map",  # as root
    "Couldn't configure user mappings",
    "Couldn't get any nameserver address",  # when the lender's resolver is on the loopback, which it is mapped to
)


def lacks() -> Missing | None:
    """Return what this system lacks to give runners the internet."""
    for program, package in (("pasta", "passt"), ("nft", "nftables")):
        if _found(program) is None:
            return Missing(f"{program} is not installed, which --network needs", install_with(package))
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return Missing("/dev/net/tun, which --network needs, is not there or closed to you")
    return None


def resolver() -> str:
    """Return the address by which tasks resolve names: of the version that the lender's first resolver has."""
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        lines = []
    servers = [line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1]
    return _RESOLVERS[6 if servers and all(":" in server for server in servers) else 4]


def behind(folder: Path, command: list[str]) -> list[str]:
    """Return the command that runs ``command`` with the internet; files that it needs are made in ``folder``.

    Of root's it is run by root: the lender's files have to be shown by somebody who may see them.
    """
    (folder / "rules").write_text(rules(own_networks()))
    as_root = ["--netns-only", "--runas", "0"] if os.geteuid() == 0 else []
    words = [*_PASTA, *as_root, "--dns-forward", resolver(), "--log-file", str(folder / "pasta")]
    stage = ["sh", "-c", _STAGE, "sh", _found("nft") or "nft", str(folder), *command]
    return [_found("pasta") or "pasta", *words, "--", *stage]


def without_noise(words: str) -> str:
    """Return what a runner said without what pasta says when all is well."""
    return "\n".join(line for line in words.splitlines() if not line.startswith(_NOISE))


def own_networks() -> list[str]:
    """Return the networks that this machine's interfaces are in."""
    found = []
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family in (socket.AF_INET, socket.AF_INET6):
                address, mask = each.address.partition("%")[0], each.netmask
                length = int(ipaddress.ip_address(mask)).bit_count() if mask else None
                found.append(f"{address}/{length}" if length is not None else address)
    return found


def own_addresses() -> list[str]:
    """Return the IPv4 addresses of this machine, the loopback's among them."""
    found = [text.partition("/")[0] for text in own_networks()]
    return [address for address in found if ":" not in address]


def rules(own: Iterable[str]) -> str:
    """Return the filter, for nft: what leaves the namespace may go anywhere but to closed networks and ``own``."""
    four = [ipaddress.IPv4Network(each) for each in _CLOSED]
    six = [ipaddress.IPv6Network(each) for each in _CLOSED_6]
    for text in own:
        network = ipaddress.ip_network(text, strict=False)
        if isinstance(network, ipaddress.IPv4Network):
            four.append(network)
        else:
            six.append(network)
    six += [ipaddress.IPv6Network((int(_NAT64) + int(each.network_address), 96 + each.prefixlen)) for each in four]
    return f"""table inet p2p {{
  chain out {{
    type filter hook output priority 0; policy accept;
    oifname "lo" accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    ip daddr {{ {_listed(ipaddress.collapse_addresses(four))} }} reject
    ip6 daddr {{ {_listed(ipaddress.collapse_addresses(six))} }} reject
  }}
}}
"""


def _listed(networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    return ", ".join(map(str, networks))


def _found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
