"""Which SSH key to show to a board. Exactly one is offered, because pico's boards admit the first one that they see.

The first of these that is there is taken:

1. the file given as ``--identity``, or by ``-i`` among the SSH options;
2. the first ``IdentityFile`` of ``~/.ssh/config`` for the board's host that exists;
3. the agent's first key, unless the configuration says ``IdentitiesOnly``;
4. ``id_ed25519``, ``id_ecdsa`` or ``id_rsa`` in ``~/.ssh``.

The agent is the one at ``IdentityAgent`` if that is configured for the board's host (none for ``none``), else the one
at ``$SSH_AUTH_SOCK``. A file's key that the agent holds as well is used through the agent, so that no passphrase is
asked for. A file may be a public key alone (``.pub``), for a key that only the agent has. A key whose passphrase was
asked for stays open in this process: nobody is asked twice for it.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.agent import AgentSSH

from p2p_ipython.board.client.address import BoardAddress, Route, SSHFiles, parse_ssh_options, route
from p2p_ipython.errors import NoKey
from p2p_ipython.protocol.identity import fingerprint

log = logging.getLogger(__name__)

LIST_WITHIN = 5.0
SIGN_WITHIN = 60.0
"""How long the agent may take to sign, s: it may ask its user, or wait for a touch."""
DEFAULT_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")
MAX_KEY_FILE = 64 << 10

TRIES = 3
"""How often a passphrase is asked for when it is wrong."""

Passphrase = Callable[[Path], str]
"""Asks the user for the passphrase of a key file. Its exceptions are passed on."""


class _Encrypted(Exception):
    """A key file needs a passphrase."""


@dataclass(frozen=True)
class KeyChoice:
    """The key to show. ``source`` says in words where it is from. Never shows what is private."""

    key: paramiko.PKey = field(repr=False)
    source: str

    @property
    def fingerprint(self) -> str:
        """``SHA256:…``, as ``ssh-keygen -l`` prints it."""
        return fingerprint(self.key.asbytes())

    @property
    def public_line(self) -> str:
        """``ssh-ed25519 AAAA…``, as in a ``.pub`` file."""
        return f"{self.key.get_name()} {self.key.get_base64()}"

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.source})"


class AgentSigner(paramiko.AgentKey):  # type: ignore[misc]
    """A key of the agent's. Each signature has its own connection, so threads may share the key."""

    def __init__(self, blob: bytes, comment: str, agent: str = "") -> None:
        super().__init__(None, blob, comment)
        self._at = agent

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> bytes:
        """Have the agent sign. Raises ``NoKey`` when it won't."""
        try:
            with _agent(self._at, SIGN_WITHIN) as agent:
                if agent._conn is None:
                    raise OSError("there is no agent")
                signed: bytes = paramiko.AgentKey(agent, self.blob).sign_ssh_data(data, algorithm)
                return signed
        except (paramiko.SSHException, OSError) as error:
            raise NoKey(
                f"the SSH agent does not sign with {fingerprint(self.blob)}: {error}",
                hint="Is it locked (unlock it: `ssh-add -X`), or was the key removed (add it: `ssh-add`)?",
            ) from None

    def __repr__(self) -> str:
        return f"<agent key {fingerprint(self.blob)}>"


def choose_key(
    address: BoardAddress | str,
    *,
    identity: Path | None = None,
    passphrase: Passphrase | None = None,
    files: SSHFiles | None = None,
    ssh_options: Iterable[str] = (),
) -> KeyChoice:
    """Choose the key to show to the board at ``address``. May block: on the agent, on ``passphrase``.

    Raises ``NoKey``, with what to type, when there is none or it can't be used, and ``ConfigError``.
    """
    files = files or SSHFiles.default()
    address = BoardAddress.parse(address) if isinstance(address, str) else address
    identity = identity or parse_ssh_options(ssh_options).identity
    return choose_among(files, identity=identity, way=route(address, files), passphrase=passphrase)


def choose_among(
    files: SSHFiles,
    *,
    identity: Path | None = None,
    way: Route | None = None,
    passphrase: Passphrase | None = None,
) -> KeyChoice:
    """Choose a key for a route that is known, or for none. See ``choose_key``."""
    held = _held(files, way.agent if way is not None else "")
    if identity is not None:
        return _from_file(identity.expanduser(), held, passphrase)
    for path in way.identities if way is not None else ():
        if os.path.exists(path) or os.path.exists(_public(path)):
            return _from_file(path, held, passphrase)
    if held and not (way is not None and way.identities_only):
        return KeyChoice(held[0], "from the SSH agent")
    for name in DEFAULT_NAMES:
        if os.path.exists(files.folder / name):
            return _from_file(files.folder / name, held, passphrase)
    raise NoKey(
        f"there is no SSH key in {files.folder}, nor in an SSH agent",
        hint="Make one with `ssh-keygen -t ed25519`; or, if the agent is locked, unlock it with `ssh-add -X`.",
    )


def _held(files: SSHFiles, where: str) -> list[AgentSigner]:
    """Return the keys in the agent, in its order; ``where`` as in ``HostSettings.agent``."""
    if not files.agent or where == "none":
        return []
    try:
        with _agent(where, LIST_WITHIN) as agent:
            keys = [key for key in agent.get_keys() if b"-cert-" not in key.blob[:40]]
            return [AgentSigner(key.blob, key.comment, where) for key in keys]
    except (paramiko.SSHException, OSError) as error:
        log.info("the SSH agent can't be asked: %s", error)
        return []


@contextmanager
def _agent(where: str, timeout: float) -> Iterator[AgentSSH]:
    """Connect to the agent at ``where`` ("": the usual one); without keys when there is none.

    An answer may take ``timeout`` s.

    Made here and not by ``paramiko.Agent``, which waits for ever, and leaves its socket open when nobody answers.
    """
    usual, where = not where, where or os.environ.get("SSH_AUTH_SOCK", "")
    agent = AgentSSH()
    if sys.platform == "win32" and usual:
        agent = paramiko.Agent()
    elif where:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(where)
            agent._connect(connection)
        except BaseException:
            connection.close()
            raise
    try:
        yield agent
    finally:
        agent._close()


def _public(path: Path) -> Path:
    return path if path.suffix == ".pub" else path.with_name(path.name + ".pub")


def _from_file(path: Path, held: list[AgentSigner], passphrase: Passphrase | None) -> KeyChoice:
    blob = _read_public(_public(path))
    for key in held:
        if key.blob == blob:
            return KeyChoice(key, f"{path}, in the SSH agent")
    if path.suffix == ".pub":
        raise NoKey(f"the agent doesn't hold the key of {path}", hint=f"Type: ssh-add {path.with_suffix('')}")
    try:
        return KeyChoice(_load(path, None), str(path))
    except _Encrypted:
        return KeyChoice(_opened.key(path, passphrase), str(path))


class _Opened:
    """The keys whose passphrase was given to this process. Shows none of them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[tuple[str, int, int], paramiko.PKey] = {}

    def key(self, path: Path, passphrase: Passphrase | None) -> paramiko.PKey:
        """Return the key in a file; ask for its passphrase if nobody has done so since the file was written."""
        with self._lock:  # a second thread waits for the first one's answer, and doesn't ask again
            try:
                file = path.stat()
            except OSError as error:
                raise NoKey(f"the key {path} can't be read: {error.strerror}", hint="Give another file.") from None
            which = (str(path.resolve()), file.st_mtime_ns, file.st_size)
            if which not in self._keys:
                self._keys[which] = _unlock(path, passphrase)
            return self._keys[which]

    def __repr__(self) -> str:
        return f"<{len(self._keys)} opened keys>"


_opened = _Opened()


def _unlock(path: Path, passphrase: Passphrase | None) -> paramiko.PKey:
    if passphrase is None:
        raise NoKey(
            f"the key {path} has a passphrase",
            hint=f"Give it to the agent: `ssh-add {path}` (if the agent is locked, `ssh-add -X` first).",
        )
    for _ in range(TRIES - 1):
        given = passphrase(path)
        try:
            return _load(path, given)
        except NoKey:
            continue
    return _load(path, passphrase(path))


def _read_public(path: Path) -> bytes | None:
    try:
        if path.stat().st_size > MAX_KEY_FILE:
            return None
        return base64.b64decode(path.read_text(encoding="utf-8").split()[1], validate=True)
    except (OSError, ValueError, IndexError, binascii.Error):
        return None


def _load(path: Path, passphrase: str | None) -> paramiko.PKey:
    """Load a private key. Errors say what is wrong without the key's text, which a library's error may quote.

    Raises ``_Encrypted`` where a passphrase is needed and None was given, and ``NoKey``.
    """
    why = "it is no private key of a known kind, or the passphrase is wrong"
    password = passphrase.encode() if passphrase is not None else None
    try:
        text = path.read_bytes()
        try:
            key: object = serialization.load_ssh_private_key(text, password)
        except ValueError:
            key = serialization.load_pem_private_key(text, password)
        return _for_paramiko(key)
    except OSError as error:
        why = error.strerror or "it can't be read"
    except TypeError:  # cryptography's way to say that the passphrase is lacking, or is there for nothing
        if passphrase is None:
            raise _Encrypted from None
    except (ValueError, UnsupportedAlgorithm, paramiko.SSHException) as error:
        log.debug("%s: %s", path, type(error).__name__)
    raise NoKey(f"the key {path} can't be used: {why}", hint="Give another file, or make a key: ssh-keygen -t ed25519")


def _for_paramiko(key: object) -> paramiko.PKey:
    """Convert a key for paramiko, whose own reader fails for some ECDSA files that others write."""
    match key:
        case rsa.RSAPrivateKey():
            return paramiko.RSAKey(key=key)
        case ec.EllipticCurvePrivateKey():
            return paramiko.ECDSAKey(vals=(key, key.public_key()))
        case ed25519.Ed25519PrivateKey():
            form = serialization.PrivateFormat.OpenSSH
            text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
            return paramiko.Ed25519Key.from_private_key(io.StringIO(text.decode()))
        case _:
            raise ValueError("no kind of key that is in use")
