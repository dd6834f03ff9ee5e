"""Where a board is, and the way to it: what the user typed, completed by ``~/.ssh/config``."""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2p_ipython import config
from p2p_ipython.errors import ConfigError

DEFAULT_PORT = 22
"""SSH's. Our own boards (``server.PORT``) say theirs."""

MAX_HOPS = 8

_ADDRESS = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<v6>[0-9a-fA-F:.%\w]+)\]|(?P<host>[^\s:\[\]@]+))(?::(?P<port>\d{1,5}))?"
)


@dataclass(frozen=True)
class SSHFiles:
    """A user's SSH files. ``accepted`` is our own known-hosts file, of keys accepted by ``remember_host_key``.

    ``folder`` is where keys without a mention in ``config`` are looked for; ``agent``: whether to ask the agent.
    """

    folder: Path
    config: Path | None
    known_hosts: tuple[Path, ...]
    accepted: Path | None
    agent: bool = True

    @classmethod
    def default(cls) -> SSHFiles:
        """This user's."""
        folder = Path.home() / ".ssh"
        return cls(
            folder=folder,
            config=folder / "config",
            known_hosts=(folder / "known_hosts", folder / "known_hosts2", Path("/etc/ssh/ssh_known_hosts")),
            accepted=config.data_dir() / "known_hosts",
        )


@dataclass(frozen=True)
class BoardAddress:
    """What the user typed: a host (or a name from ``~/.ssh/config``), and a port and a user if given."""

    host: str
    port: int | None = None
    user: str | None = None

    @classmethod
    def parse(cls, text: str) -> BoardAddress:
        """Read ``[USER@]HOST[:PORT]``; an IPv6 address with a port in brackets. Raises ``ConfigError``."""
        text = text.strip()
        if text.count(":") > 1 and "[" not in text:
            user, _, host = text.rpartition("@")
            text = f"{user}@[{host}]" if user else f"[{host}]"
        found = _ADDRESS.fullmatch(text)
        port = int(found["port"]) if found and found["port"] else None
        # A host with a leading dash would be an option to any ssh command that it is shown in.
        if found is None or (found["host"] or "").startswith("-") or (port is not None and not 0 < port < 65536):
            raise ConfigError(
                f"{text[:80]!r} is no address of a board", hint="Give HOST, HOST:PORT, USER@HOST:PORT or [IPV6]:PORT."
            )
        return cls(found["v6"] or found["host"], port, found["user"])

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"{user}{host}:{self.port}" if self.port else f"{user}{host}"


@dataclass(frozen=True)
class Route:
    """Where to connect to: an address completed by the configuration. ``jumps`` are to be gone through, in order.

    ``name`` is what known-hosts files call it; ``identities`` are the configured key files, ``known_hosts`` the
    configured files of host keys (none: the usual ones).
    """

    host: str
    port: int
    user: str
    name: str
    identities: tuple[Path, ...] = ()
    known_hosts: tuple[Path, ...] = ()
    jumps: tuple[Route, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


def route(address: BoardAddress, files: SSHFiles) -> Route:
    """Complete an address. Raises ``ConfigError`` for a configuration that can't be read or followed."""
    return _route(address, _load(files), 0)


def _load(files: SSHFiles) -> Any:
    import paramiko

    if files.config is None:
        return paramiko.SSHConfig()
    try:
        return paramiko.SSHConfig.from_path(str(files.config))
    except FileNotFoundError:
        return paramiko.SSHConfig()
    except (OSError, ValueError, paramiko.SSHException) as error:
        raise ConfigError(
            f"{files.config} can't be read: {error}", hint="Mend the file; `ssh -G HOST` checks it."
        ) from None


def _route(address: BoardAddress, settings: Any, depth: int) -> Route:
    if depth > MAX_HOPS:
        raise ConfigError(f"more than {MAX_HOPS} jump hosts", hint="Does a ProxyJump in ~/.ssh/config lead to itself?")
    try:
        found = settings.lookup(address.host)
    except Exception as error:
        # A Match line can fail in as many ways as there are criteria.
        raise ConfigError(f"~/.ssh/config can't be used for {address.host}: {error}", hint="Mend the file.") from None
    if found.get("proxycommand", "none") != "none":
        raise ConfigError(
            f"~/.ssh/config has a ProxyCommand for {address.host}, which is not supported",
            hint="Use ProxyJump there, or connect with `ssh -L` and give its local port.",
        )
    host = found["hostname"]
    port = address.port or _port(found.get("port"), address.host)
    jump = found.get("proxyjump", "none")
    jumps: tuple[Route, ...] = ()
    if jump.lower() != "none":
        # "a,b" is: to a, from there to b. Only the first may have jump hosts of its own; ssh ignores the others' too.
        first, *others = (BoardAddress.parse(hop) for hop in jump.split(","))
        nearest = _route(first, settings, depth + 1)
        jumps = (*nearest.jumps, nearest, *(_route(hop, settings, depth + 1) for hop in others))
    return Route(
        host=host,
        port=port,
        user=address.user or found.get("user") or _login_name(),
        name=found.get("hostkeyalias") or (host if port == 22 else f"[{host}]:{port}"),
        identities=tuple(Path(name).expanduser() for name in found.get("identityfile", []) if name != "none"),
        known_hosts=tuple(Path(name).expanduser() for name in found.get("userknownhostsfile", "").split()),
        jumps=jumps,
    )


def _port(text: str | None, host: str) -> int:
    if text is None:
        return DEFAULT_PORT
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"~/.ssh/config has no usable Port for {host}: {text[:20]!r}", hint="Mend the file.")
    return int(text)


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in this container; boards don't look at the name
        return "p2p"
