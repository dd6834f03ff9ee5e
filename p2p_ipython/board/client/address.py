"""Where a board is, and the way to it: what the user typed, completed by ``~/.ssh/config``.

As with ``ssh``, what was typed wins: an option (``-J``, ``-p``, …) over the address, that over the configuration.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from p2p_ipython import config
from p2p_ipython.board.client.ssh_config import Lookup, configuration
from p2p_ipython.errors import ConfigError

DEFAULT_PORT = 22
"""SSH's. Our own boards (``server.PORT``) say theirs."""

PICO_BOARD = "pipe.pico.sh"
"""The board where none is named: pico.sh's public one."""

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
        """Return this user's files."""
        try:
            accepted = config.data_dir() / "known_hosts"
        except ConfigError:
            accepted = None
        try:
            folder = Path.home() / ".ssh"
        except RuntimeError:  # no HOME, and nobody of this user id in the system's list
            return replace(cls.none(), known_hosts=(_SYSTEM,), accepted=accepted, agent=True)
        return cls(
            folder=folder,
            config=folder / "config",
            known_hosts=(folder / "known_hosts", folder / "known_hosts2", _SYSTEM),
            accepted=accepted,
        )

    @classmethod
    def none(cls) -> SSHFiles:
        """Return those of nobody: nothing is read, and no agent is asked."""
        return cls(folder=Path(os.devnull), config=None, known_hosts=(), accepted=None, agent=False)


_SYSTEM = Path("/etc/ssh/ssh_known_hosts")


SUPPORTED_OPTIONS = (
    "-J HOST[,HOST], -i FILE, -p PORT, -l USER, and -o with ProxyJump, IdentityFile, Port, User or HostKeyAlias"
)
_FLAGS = {"J": "proxyjump", "i": "identityfile", "p": "port", "l": "user"}


@dataclass(frozen=True)
class SSHOptions:
    """Options from the command line for the way to a board; None leaves one to the configuration.

    ``jump`` is as in ``ssh -J``: hosts with commas between them, or "none" for no jump host whatever is configured.
    """

    jump: str | None = None
    identity: Path | None = None
    port: int | None = None
    user: str | None = None
    host_key_alias: str | None = None


def parse_ssh_options(options: Iterable[str]) -> SSHOptions:
    """Read options of ``ssh``: each string holds one or more, ``-J a,b`` or ``-o Port=22``. The first of a kind counts.

    Raises ``ConfigError``, with what is supported, for anything else.
    """
    found: dict[str, str] = {}
    for option in options:
        try:
            words = _words(option)
        except ValueError:
            raise _not_supported(option) from None
        while words:
            word = words.pop(0)
            flag, value = word[1:2], word[2:].strip()
            if word[:1] != "-" or flag not in {*_FLAGS, "o"} or not (value or words):
                raise _not_supported(option)
            value = value or words.pop(0)
            name = _FLAGS.get(flag, "")
            if flag == "o":
                key, value = [*re.split(r"\s*=\s*|\s+", value.strip(), maxsplit=1), ""][:2]
                name = key.lower()
            if name not in {*_FLAGS.values(), "hostkeyalias"} or not value:
                raise _not_supported(option)
            found.setdefault(name, value)
    jump, port, user, alias = (found.get(name) for name in ("proxyjump", "port", "user", "hostkeyalias"))
    if jump is not None and jump.lower() != "none":
        _hops(jump)
    for given in (user, alias):
        if given is not None and (given.startswith("-") or re.search(r"\s", given)):
            raise _not_supported(given)
    return SSHOptions(
        jump=jump,
        identity=Path(found["identityfile"]).expanduser() if "identityfile" in found else None,
        port=_port(port, "-p has no usable port") if port is not None else None,
        user=user,
        host_key_alias=alias,
    )


def _words(option: str) -> list[str]:
    """Split at blanks, with quotes honoured. A backslash is itself: it is in the names of Windows's files."""
    lexer = shlex.shlex(option, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    return list(lexer)


def _not_supported(option: str) -> ConfigError:
    return ConfigError(
        f"the SSH option {option[:80]!r} is not supported",
        hint=f"Supported are {SUPPORTED_OPTIONS}. For anything else use ~/.ssh/config.",
    )


@dataclass(frozen=True)
class BoardAddress:
    """An address as the user typed it: a host (or a name from ``~/.ssh/config``), and a port and a user if given."""

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
    configured files of host keys (none: the usual ones). ``agent`` and ``identities_only`` are as in ``HostSettings``.
    """

    host: str
    port: int
    user: str
    name: str
    identities: tuple[Path, ...] = ()
    known_hosts: tuple[Path, ...] = ()
    jumps: tuple[Route, ...] = field(default=())
    agent: str = ""
    identities_only: bool = False

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


def route(address: BoardAddress, files: SSHFiles, options: SSHOptions | None = None) -> Route:
    """Complete an address. Raises ``ConfigError`` for a configuration that can't be read or followed.

    ``options`` are for the board; jump hosts have what is configured for them.
    """
    return _route(address, configuration(files.config), 0, options or SSHOptions())


def _route(address: BoardAddress, lookup: Lookup, depth: int, options: SSHOptions) -> Route:
    if depth > MAX_HOPS:
        raise ConfigError(f"more than {MAX_HOPS} jump hosts", hint="Does a ProxyJump in ~/.ssh/config lead to itself?")
    found = lookup(address.host, options.user or address.user, options.port or address.port)
    jump = options.jump or found.proxy_jump
    if options.jump is None and found.proxy_command != "none":
        raise ConfigError(
            f"~/.ssh/config has a ProxyCommand for {address.host}, which is not supported",
            hint="Use ProxyJump there (or -J), or connect with `ssh -L` and give its local port.",
        )
    host = found.hostname
    complaint = f"~/.ssh/config has no usable Port for {address.host}"
    port = options.port or address.port or _port(found.port, complaint)
    jumps: tuple[Route, ...] = ()
    if jump.lower() != "none":
        # "a,b" is: to a, from there to b. Only the first may have jump hosts of its own; ssh ignores the others' too.
        first, *others = _hops(jump)
        nearest = _route(first, lookup, depth + 1, SSHOptions())
        jumps = (*nearest.jumps, nearest, *(_route(hop, lookup, depth + 1, SSHOptions()) for hop in others))
    return Route(
        host=host,
        port=port,
        user=options.user or address.user or found.user or _login_name(),
        name=options.host_key_alias or found.host_key_alias or (host if port == 22 else f"[{host}]:{port}"),
        identities=found.identities if options.identity is None else (options.identity, *found.identities),
        known_hosts=found.known_hosts,
        jumps=jumps,
        agent=found.agent,
        identities_only=found.identities_only,
    )


def _hops(jump: str) -> list[BoardAddress]:
    hops = [BoardAddress.parse(hop) for hop in jump.split(",")]
    if len(hops) > MAX_HOPS:
        raise ConfigError(f"more than {MAX_HOPS} jump hosts", hint="Give fewer.")
    return hops


def _port(text: str | None, complaint: str) -> int:
    if text is None:
        return DEFAULT_PORT
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ConfigError(f"{complaint}: {text[:20]!r}", hint="Give a number from 1 to 65535.")
    return int(text)


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in this container; boards don't look at the name
        return "p2p"
