"""A port that nobody answers at: what that may mean, and what around this machine may explain it.

``explain_silence`` decides, from what ``look_around`` has seen. It looks only at the host that was to be reached, on
the ports of the web, and at this machine's own settings: no third party hears of it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from p2p_ipython.loop import ADDRESS_DELAY, in_thread

AGENT_WITHIN = 3.0
"""How long the agent may take to say how many keys it holds, s."""

_LOOK = 3.0  # seconds for each look at another port
_MAX_HEAD = 8 << 10


@dataclass(frozen=True)
class Web:
    """The ports of the web; only tests have others."""

    http: int = 80
    https: int = 443


@dataclass(frozen=True)
class Surroundings:
    """The surroundings of a port that doesn't answer.

    ``https_open``: whether the same host answers on 443. ``proxy`` is the address of a proxy that this machine is set
    to use, without any password. ``portal`` is the host that a page of the same host is diverted to.
    """

    https_open: bool = False
    proxy: str = ""
    portal: str = ""


def explain_silence(host: str, port: int, around: Surroundings) -> tuple[str, str]:
    """Why nothing comes back from ``port`` of ``host``, and what to do."""
    ways = (
        "try another network (a phone's hotspot); go through a machine that you can reach (`ProxyJump` in "
        "~/.ssh/config); or meet at a board that listens on port 443 (`p2p board --host :: --port 443`)."
    )
    if around.portal:
        return (
            f"{host} does not answer on port {port}, and this network sends its web page to {around.portal}: "
            "it wants you to log in there first",
            f"Open http://{around.portal}/ in a browser, log in, and try again.",
        )
    if around.https_open:
        culprit = "this network blocks port 22 (SSH)" if port == 22 else f"a firewall blocks port {port}"
        return (
            f"{host} answers on port 443 and not on port {port}: {culprit}",
            f"{ways[0].upper()}{ways[1:]}",
        )
    if around.proxy:
        return (
            f"{host} does not answer on port {port}; this machine is set to use a web proxy ({around.proxy}), "
            "so its network probably blocks everything else",
            f"{ways[0].upper()}{ways[1:]}",
        )
    return (
        f"{host} does not answer on port {port}",
        f"Check the address, and that the machine is up and its firewall open. If other machines reach it, {ways}",
    )


async def look_around(host: str, web: Web) -> Surroundings:
    """See what may explain a silence of ``host``. Takes 3 s at most."""
    https_open, portal = await asyncio.gather(_opens(host, web.https), _portal(host, web.http))
    return Surroundings(https_open, proxy_of(urllib.request.getproxies()), portal)


def proxy_of(proxies: Mapping[str, str]) -> str:
    """Return the proxy for web pages as HOST:PORT, from urllib's mapping of schemes to URLs; "" where there is none."""
    for scheme in ("https", "http", "all"):
        url = proxies.get(scheme, "")
        try:
            parts = urlsplit(url if "//" in url else f"//{url}")
            if parts.hostname:
                return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
        except ValueError:
            continue
    return ""


async def _opens(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_LOOK):
            _, writer = await asyncio.open_connection(host, port, happy_eyeballs_delay=ADDRESS_DELAY)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _portal(host: str, port: int) -> str:
    """Return the other host that a plain page of ``host`` is diverted to, or ""."""
    writer = None
    try:
        async with asyncio.timeout(_LOOK):
            reader, writer = await asyncio.open_connection(
                host, port, limit=_MAX_HEAD, happy_eyeballs_delay=ADDRESS_DELAY
            )
            writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return ""
    finally:
        if writer is not None:
            writer.close()
    status, _, fields = head.partition("\r\n")
    if status.split(" ")[1:2] not in (["301"], ["302"], ["303"], ["307"], ["308"], ["511"]):
        return ""
    for field in fields.split("\r\n"):
        name, _, value = field.partition(":")
        if name.strip().lower() == "location":
            return _elsewhere(value.strip(), host)
    return ""


def _elsewhere(location: str, host: str) -> str:
    try:
        there = (urlsplit(location).hostname or "")[:100]
    except ValueError:
        return ""
    # pico.sh sends people on to www.pico.sh, or from http to https: that is no portal.
    related = not there or there == host or there.endswith(f".{host}") or host.endswith(f".{there}")
    return "" if related or not there.isprintable() else there


# -- the agent --


@dataclass(frozen=True)
class SSHAgent:
    """The SSH agent: how many keys it holds (0 also when it is locked), or why it doesn't say; None: there is none."""

    keys: int | None = None
    trouble: str = ""


async def ask_agent() -> SSHAgent:
    """Ask the SSH agent of this session how many keys it holds."""
    where = os.environ.get("SSH_AUTH_SOCK")
    if not where or sys.platform == "win32":
        return SSHAgent()
    try:
        return SSHAgent(keys=await in_thread("p2p-doctor-agent", lambda: _count_keys(where)))
    except TimeoutError:
        return SSHAgent(trouble="does not answer")
    except OSError as error:
        return SSHAgent(trouble=f"can't be reached: {error.strerror or error}")


def _count_keys(where: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(AGENT_WITHIN)
        agent.connect(where)
        agent.sendall(b"\0\0\0\1\x0b")  # list your identities
        head = b""
        while len(head) < 9:
            data = agent.recv(9 - len(head))
            if not data:
                raise OSError("it hangs up")
            head += data
    if head[4] != 12:
        raise OSError("it refuses")
    return int.from_bytes(head[5:9])
