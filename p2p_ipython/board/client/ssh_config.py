"""What ``~/.ssh/config`` says of a host: OpenSSH is asked (``ssh -G``) where it is there, else paramiko reads the file.

OpenSSH alone follows ``Include``, and knows all that a ``Match`` line can ask for. paramiko reads the rest.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from p2p_ipython.errors import ConfigError

ASK_WITHIN = 10.0
"""Seconds that ``ssh -G`` may take: a ``Match exec`` line runs a command of the user's."""

MAX_ANSWER = 1 << 20
"""Bytes of ``ssh -G``'s answer that are looked at."""


@dataclass(frozen=True)
class HostSettings:
    """What is configured for a host. ``agent``: a socket's path, "none", or "" for the usual one.

    ``identities_only``: no key but those of ``identities`` may be shown; see ssh_config(5) for the rest.
    """

    hostname: str
    port: str | None = None
    user: str | None = None
    identities: tuple[Path, ...] = ()
    known_hosts: tuple[Path, ...] = ()
    host_key_alias: str | None = None
    proxy_jump: str = "none"
    proxy_command: str = "none"
    agent: str = ""
    identities_only: bool = False


Lookup = Callable[[str, str | None, int | None], HostSettings]
"""Looks a host up, for a user and a port if they were typed. Raises ``ConfigError``."""


def configuration(file: Path | None) -> Lookup:
    """Return the way to look hosts up in ``file``. Raises ``ConfigError`` if it can't be read."""
    if file is None or not file.is_file():
        return lambda host, user, port: HostSettings(host)
    ssh = shutil.which("ssh")
    return _by_paramiko(file) if ssh is None else _by_openssh(ssh, file)


def _by_openssh(ssh: str, file: Path) -> Lookup:
    def lookup(host: str, user: str | None, port: int | None) -> HostSettings:
        # With -F the system's own file is left out. Without it ssh would look in the home of the user list, not $HOME.
        typed = [*(("-l", user) if user else ()), *(("-p", str(port)) if port else ())]
        try:
            asked = subprocess.run(
                [ssh, "-G", "-F", str(file), *typed, "--", host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=ASK_WITHIN,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"`ssh -G {host}` takes longer than {ASK_WITHIN:g} s",
                hint=f"Does a `Match exec` line in {file} wait for something?",
            ) from None
        except OSError as error:
            raise ConfigError(f"{ssh} can't be run: {error.strerror}", hint="Repair OpenSSH's client.") from None
        if asked.returncode:
            raise _unusable(file, _said(asked.stderr))
        return _answer(host, asked.stdout[:MAX_ANSWER].decode(errors="replace"))

    return lookup


def _said(complaint: bytes) -> str:
    lines = [line.strip() for line in complaint.decode(errors="replace").splitlines()]
    # ssh says the same of its terminal each time.
    return "; ".join(line for line in lines if line and "Pseudo-terminal" not in line)[:500] or "ssh doesn't say why"


def _answer(host: str, text: str) -> HostSettings:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        found.setdefault(name.lower(), []).append(value.strip())

    def first(name: str) -> str | None:
        return found.get(name, [None])[0]

    names = found.get("identityfile", [])
    if names and all(map(_DEFAULT_IDENTITY.fullmatch, names)) and len(names) > 1:
        names = []  # nothing is configured: ssh then tells the files that it would look for
    files = (first("userknownhostsfile") or "").split()
    if [Path(name).parts[-2:] for name in files] == [(".ssh", "known_hosts"), (".ssh", "known_hosts2")]:
        files = []  # likewise
    tokens = {"d": str(Path.home()), "h": first("hostname") or host, "n": host, "r": first("user") or "", "%": "%"}
    tokens["u"] = _login_name()
    return HostSettings(
        hostname=first("hostname") or host,
        port=first("port"),
        user=first("user"),
        identities=_paths(_TOKEN.sub(lambda token: tokens.get(token[1], token[0]), name) for name in names),
        known_hosts=_paths(files),
        host_key_alias=first("hostkeyalias"),
        proxy_jump=first("proxyjump") or "none",
        proxy_command=first("proxycommand") or "none",
        agent=_agent_of(first("identityagent")),
        identities_only=first("identitiesonly") == "yes",
    )


_DEFAULT_IDENTITY = re.compile(r"~/\.ssh/id_(rsa|dsa|ecdsa|ecdsa_sk|ed25519|ed25519_sk|xmss)")
_TOKEN = re.compile("%(.)")


def _by_paramiko(file: Path) -> Lookup:
    import paramiko  # heavy

    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        settings = paramiko.SSHConfig.from_text(text)
    except (OSError, ValueError, paramiko.SSHException) as error:
        raise _unusable(file, str(error)) from None
    if re.search(r"(?im)^\s*include\b", text):
        raise ConfigError(f"{file} has an Include, which only OpenSSH follows", hint="Install OpenSSH's client, `ssh`.")

    def lookup(host: str, user: str | None, port: int | None) -> HostSettings:
        try:
            found = settings.lookup(host)
        except Exception as error:  # a Match line can fail in as many ways as there are criteria
            raise _unusable(file, f"{host}: {error}") from None
        return HostSettings(
            hostname=found["hostname"],
            port=found.get("port"),
            user=found.get("user"),
            identities=_paths(found.get("identityfile", [])),
            known_hosts=_paths(found.get("userknownhostsfile", "").split()),
            host_key_alias=found.get("hostkeyalias"),
            proxy_jump=found.get("proxyjump", "none"),
            proxy_command=found.get("proxycommand", "none"),
            agent=_agent_of(found.get("identityagent")),
            identities_only=found.get("identitiesonly", "no") == "yes",
        )

    return lookup


def _unusable(file: Path, why: str) -> ConfigError:
    return ConfigError(f"{file} can't be used: {why}", hint="Correct the file; `ssh -G HOST` checks it.")


def _paths(names: Iterable[str]) -> tuple[Path, ...]:
    return tuple(Path(name).expanduser() for name in names if name.lower() != "none")


def _agent_of(value: str | None) -> str:
    """Return where the agent is, as ``HostSettings.agent``: a value may name a variable of the environment."""
    if value is None or value == "SSH_AUTH_SOCK":
        return ""
    if value.startswith("$"):
        return os.environ.get(value[1:].strip("{}"), "none")
    return "none" if value.lower() == "none" else str(Path(value).expanduser())


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        return ""
