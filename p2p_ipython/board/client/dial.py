"""The way to a board: a socket, SSH through each jump host, and the log-in with one key. All of it blocks."""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paramiko

from p2p_ipython.board.client.address import BoardAddress, Route, SSHFiles, SSHOptions, route
from p2p_ipython.board.client.eyeballs import connect
from p2p_ipython.board.client.keys import KeyChoice, Passphrase, choose_among
from p2p_ipython.board.client.known_hosts import HostKeyCheck
from p2p_ipython.board.client.tunnel import Tunnel
from p2p_ipython.errors import BoardError, BoardUnreachable, KeyRefused
from p2p_ipython.protocol.plain import plain

_LOG = "p2p_ipython.board.paramiko"
# paramiko logs as errors, with tracebacks, what we report in words.
logging.getLogger(_LOG).setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Target:
    """Everything that connecting needs; ``key`` None chooses one (see ``keys.py``)."""

    address: BoardAddress
    files: SSHFiles
    options: SSHOptions
    key: KeyChoice | None = None
    identity: Path | None = None
    passphrase: Passphrase | None = None
    pin: str | None = None
    timeout: float = 15.0


class Way:
    """The way to one board: ``connect`` goes it, ``end`` may come from any thread, ``close`` comes last.

    ``transports`` are those of the jump hosts and, at last, the board's. ``ending`` is set once the connection is
    to end, for ``reason``. ``target`` knows the key after ``connect``.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.key = target.key
        self.host_key = ""
        self.route: Route | None = None
        self.machine = ""
        """The IP address of the board's machine, where it was connected to directly."""
        self.transports: list[paramiko.Transport] = []
        self.ending = threading.Event()
        self.reason = ""
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def connect(self, deadline: float) -> None:
        """Connect, through jump hosts if there are any, and log in."""
        target = self.target
        self.route = way = route(target.address, target.files, target.options)
        # The board's key first, so that a lacking one is said before anything is connected to.
        choice = target.key or choose_among(
            target.files, identity=target.identity, way=way, passphrase=target.passphrase
        )
        self.key = choice
        self.target = replace(target, key=choice)
        hops = [*way.jumps, way]
        sock: Any = self._connect_socket(hops[0], deadline)
        self.machine = "" if way.jumps else str(sock.getpeername()[0]).partition("%")[0]
        for hop, onward in zip(hops, [*hops[1:], None], strict=True):
            check = HostKeyCheck(hop, target.files, target.pin if hop is way else None)
            key = choice
            if hop is not way and hop.identities:
                key = choose_among(target.files, way=hop, passphrase=target.passphrase)
            transport = self._log_in(sock, hop, check, key, deadline)
            if onward is not None:
                try:
                    sock = Tunnel(
                        transport.open_channel(
                            "direct-tcpip", (onward.host, onward.port), ("127.0.0.1", 0), timeout=seconds_left(deadline)
                        )
                    )
                except paramiko.SSHException as error:
                    raise BoardUnreachable(
                        f"the jump host {hop} doesn't connect to {onward}: {error}", hint="Try: ssh -J, by hand."
                    ) from None
        self.host_key = (
            f"{transport.get_remote_server_key().get_name()} {transport.get_remote_server_key().get_base64()}"
        )

    def end(self, reason: str) -> None:
        """End the connection, from any thread: a thread that reads or writes it notices at once."""
        with self._lock:
            if not self.ending.is_set():
                self.reason = reason
                self.ending.set()
            sock = self._socket
        if sock is not None:
            try:
                # Wakes the thread that reads or writes; close() would not, and could free the descriptor under it.
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        """Close what was opened, the board's end first."""
        for transport in reversed(self.transports):
            close_transport(transport)
        if self._socket is not None:
            self._socket.close()

    def _connect_socket(self, hop: Route, deadline: float) -> socket.socket:
        if self.ending.is_set():
            raise BoardUnreachable(self.reason, hint="Connect again.")
        hint = "Check the address and the port (a board of ours listens on 2222 unless told otherwise)."
        try:
            sock = connect(hop.host, hop.port, seconds_left(deadline))
        except (socket.gaierror, UnicodeError):  # the latter for what can't be a name, as a..b
            raise BoardUnreachable(
                f"there is no host called {hop.host}", hint="Check the name; is this machine online?"
            ) from None
        except ConnectionRefusedError:
            raise BoardUnreachable(f"nothing listens at {hop}", hint=f"Is the board running? {hint}") from None
        except TimeoutError:
            raise BoardUnreachable(f"{hop} does not answer within {self.target.timeout:g} s", hint=hint) from None
        except OSError as error:
            raise BoardUnreachable(f"{hop} can't be reached: {error.strerror or error}", hint=hint) from None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._socket = sock
            if self.ending.is_set():  # since we looked; its end found no socket to shut down
                raise BoardUnreachable(self.reason, hint="Connect again.")
        return sock

    def _log_in(
        self, sock: Any, hop: Route, check: HostKeyCheck, key: KeyChoice, deadline: float
    ) -> paramiko.Transport:
        transport = new_transport(sock, check.kinds, seconds_left(deadline))
        self.transports.append(transport)
        _prefer(transport)
        try:
            transport.start_client(timeout=seconds_left(deadline))
            check.check(transport.get_remote_server_key())
        except paramiko.ssh_exception.IncompatiblePeer as error:
            raise BoardUnreachable(f"{hop} and this client have no cipher in common: {error}", hint="") from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            if self.reason:
                raise BoardUnreachable(self.reason) from None
            raise no_ssh(hop, error, transport) from None
        try:
            left = transport.auth_publickey(hop.user, key.key)
        except paramiko.AuthenticationException as error:
            raise _refusal(hop, key, transport, error) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise BoardUnreachable(f"{hop} has hung up during the log-in: {error}", hint="Try again.") from None
        if left:
            raise _refusal(hop, key, transport, None)
        return transport


def seconds_left(deadline: float) -> float:
    """Return the seconds until a deadline, and a little where it has passed."""
    return max(0.1, deadline - time.monotonic())


class _Transport(paramiko.Transport):  # type: ignore[misc]
    """A transport that remembers what a server says before it speaks SSH: why it refuses, if that is one line."""

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self.words: list[str] = []

    def _log(self, level: int, msg: Any, *args: Any) -> None:
        # paramiko tells it nowhere else.
        if isinstance(msg, str) and msg.startswith("Banner: ") and len(self.words) < 2:
            self.words.append(plain(msg.removeprefix("Banner: "), 200))
        super()._log(level, msg, *args)


def new_transport(sock: Any, kinds: list[str], timeout: float) -> paramiko.Transport:
    """Make a transport that asks for the known ``kinds`` of host keys first; each step may take ``timeout`` seconds."""
    transport = _Transport(sock)
    transport.set_log_channel(_LOG)
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = timeout
    options = transport.get_security_options()
    known = {name for kind in kinds for name in (("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,))}
    options.key_types = tuple(sorted(options.key_types, key=lambda name: name not in known))
    return transport


def close_transport(transport: paramiko.Transport) -> None:
    """Close a transport, however broken it is."""
    try:
        transport.close()
    except (OSError, EOFError, paramiko.SSHException):
        pass  # what it goes through has ended already: so has it


def no_ssh(hop: Route, error: Exception, transport: paramiko.Transport) -> BoardUnreachable:
    """Return the error for a server that doesn't speak SSH, or says in a line why it doesn't."""
    words = transport.words if isinstance(transport, _Transport) else []
    if len(words) == 1:
        return BoardUnreachable(f"{hop} refuses the connection: {words[0]}", hint="Try again in a minute.")
    return BoardUnreachable(
        f"what answers at {hop} does not speak SSH: {error}",
        hint="Check the port (a board of ours listens on 2222 unless told otherwise).",
    )


def key_refused(hop: Route, key: KeyChoice) -> KeyRefused:
    """Return the error for a key that a server refuses."""
    return KeyRefused(
        f"{hop} does not let the key {key} in",
        hint="Give another key with --identity, or have this one's public part added there.",
    )


def _prefer(transport: paramiko.Transport) -> None:
    """Put the quickest good algorithms first; drop old ones."""
    options = transport.get_security_options()
    quick = "curve25519-sha256@libssh.org"
    options.kex = tuple(sorted(options.kex, key=lambda name: name != quick))
    options.ciphers = tuple(
        sorted((name for name in options.ciphers if "cbc" not in name), key=lambda name: "gcm" not in name)
    )
    options.digests = tuple(name for name in options.digests if "sha2" in name)


def _refusal(hop: Route, key: KeyChoice, transport: paramiko.Transport, error: Exception | None) -> BoardError:
    if not transport.is_active() and error is not None and "timeout" in str(error).lower():
        return BoardUnreachable(f"{hop} does not answer the log-in", hint="Try again.")
    return key_refused(hop, key)
