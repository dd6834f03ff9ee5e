"""Is it the right board? The host key that it shows, against the one that was pinned or accepted.

Nothing is ever accepted silently. A pin (it comes with an invitation, or from the user) decides alone; without one
the user's and the system's known-hosts files do, and our own, which ``remember_host_key`` writes.
"""

from __future__ import annotations

import base64
import logging
from fnmatch import fnmatchcase
from pathlib import Path

import paramiko

from p2p_ipython import private_files
from p2p_ipython.board.client.address import Route, SSHFiles
from p2p_ipython.errors import ConfigError, HostKeyChanged, HostKeyUnknown
from p2p_ipython.protocol.identity import fingerprint

log = logging.getLogger(__name__)

MAX_KNOWN_HOSTS = 4 << 20
"""Largest file of accepted keys that is added to, bytes: some 40,000 keys."""

_PATIENCE = 10.0  # seconds to wait for another process that adds a key, which takes milliseconds


class HostKeyCheck:
    """Knows which host keys are right for a route.

    ``pin`` is a public key line or a ``SHA256:…`` fingerprint. Raises ``ConfigError`` when it is neither.
    """

    def __init__(self, route: Route, files: SSHFiles, pin: str | None = None) -> None:
        self._route = route
        self._pin = pin_fingerprint(pin) if pin is not None else None
        self._paths = list(route.known_hosts or files.known_hosts)
        if files.accepted is not None:
            self._paths.append(files.accepted)
        self._known: list[tuple[Path, paramiko.PKey]] = []
        self._revoked: set[str] = set()
        if self._pin is None:
            self._read()

    @property
    def kinds(self) -> list[str]:
        """Kinds of keys to ask the board for first: those that are known."""
        return list(dict.fromkeys(key.get_name() for _, key in self._known))

    def check(self, key: paramiko.PKey) -> None:
        """Return if ``key`` is the board's. Raises ``HostKeyUnknown`` or ``HostKeyChanged``."""
        shown = fingerprint(key.asbytes())
        if self._pin is not None:
            if shown != self._pin:
                raise HostKeyChanged(
                    f"{self._route} shows the host key {shown}, and {self._pin} was expected",
                    hint="Somebody may be in between, or the board was set up anew. Ask its owner before you continue.",
                )
            return
        if key.get_base64() in self._revoked:
            raise HostKeyChanged(f"{self._route} shows a revoked host key, {shown}", hint="Ask the board's owner.")
        if any(key == known for _, known in self._known):
            return
        if self._known:
            path, known = self._known[0]
            raise HostKeyChanged(
                f"{self._route} shows the host key {shown}; {path} has {fingerprint(known.asbytes())}",
                hint="Somebody may be in between, or the board was set up anew. Ask its owner; if the new key is "
                f"right, remove the old one with `ssh-keygen -R '{self._route.name}' -f {path}` "
                f"and connect with --accept-host-key {shown}.",
            )
        raise HostKeyUnknown(
            f"the host key of {self._route} is not known yet; it is {shown} ({key.get_name()})",
            hint=f"Compare it with what the board's owner says, then connect with --accept-host-key {shown}.",
        )

    def _read(self) -> None:
        """Read the files, line by line: paramiko's own reader gives up at the first that it doesn't know."""
        for path in self._paths:
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            for line in text.splitlines():
                words = line.split()
                if len(words) > 3 and words[0] == "@revoked":
                    self._revoked.add(words[3])
                elif len(words) > 2 and words[0][0] not in "#@" and _names(words[0], self._route.name):
                    try:
                        self._known.append((path, paramiko.PKey.from_type_string(words[1], base64.b64decode(words[2]))))
                    except (paramiko.SSHException, ValueError):
                        log.info("%s has a line for %s that can't be read", path, self._route.name)


def _names(patterns: str, name: str) -> bool:
    """Whether the first word of a line, names or hashes or patterns with commas between them, means ``name``."""
    found = False
    for pattern in patterns.split(","):
        if pattern.startswith("|1|"):
            try:
                found |= paramiko.HostKeys.hash_host(name, pattern) == pattern
            except (ValueError, AssertionError):
                continue
        elif pattern.startswith("!"):
            if _matches(pattern[1:], name):
                return False
        else:
            found |= _matches(pattern, name)
    return found


def _matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern of ``*`` and ``?``; brackets, which ports come with, mean themselves."""
    return fnmatchcase(name.lower(), pattern.lower().replace("[", "[[]"))


def pin_fingerprint(pin: str) -> str:
    """Return the fingerprint that a pin means: itself, or that of a public key line. Raises ``ConfigError``."""
    pin = pin.strip()
    words = pin.split()
    try:
        if pin.startswith("SHA256:") and len(base64.b64decode(pin[7:].rstrip("=") + "=", validate=True)) == 32:
            return pin.rstrip("=")
        if len(words) >= 2:
            blob = base64.b64decode(words[1], validate=True)
            if blob[4 : 4 + int.from_bytes(blob[:4])] == words[0].encode():
                return fingerprint(blob)
    except ValueError:
        pass
    raise ConfigError(
        f"{pin[:80]!r} is no host key", hint="Give SHA256:… or ssh-ed25519 AAAA…, as `p2p board` prints it."
    )


def remember_host_key(route: Route, line: str, path: Path) -> None:
    """Accept a board's host key for good: write ``line`` (a public key line) to ``path``, mode 0600, for ``route``.

    Replaces the key that was accepted for the route before, and keeps every other line as it is. Blocks. Raises
    ``ConfigError`` if ``line`` is no key, or if the file is a link, too large or can't be written.
    """
    pin_fingerprint(line)
    kind, text = line.split()[:2]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = private_files.Lock.acquire(path.with_name(f".{path.name}.lock"), wait=_PATIENCE)
        if lock is None:
            raise TimeoutError(f"another process has been writing it for {_PATIENCE:g} s")
        with lock:
            old = private_files.read(path, MAX_KNOWN_HOSTS) or b""
            if len(old) > MAX_KNOWN_HOSTS:
                raise OSError(f"it is larger than {MAX_KNOWN_HOSTS} bytes")
            name = route.name.encode()
            kept = b"".join(entry for entry in old.splitlines(True) if entry.split(None, 1)[:1] != [name])
            end = b"" if not kept or kept.endswith((b"\n", b"\r")) else b"\n"
            private_files.write(path, kept + end + f"{route.name} {kind} {text}\n".encode())
    except OSError as error:
        raise ConfigError(
            f"{path} can't be written: {error}", hint="Give the folder another mode, or set P2P_DATA."
        ) from None
