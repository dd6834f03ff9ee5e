"""A session with a board over SSH, by paramiko: our own boards, and any that speaks pico's ``pipe``.

One SSH connection carries everything: the topic on one channel, questions (``user``, ``p2p``) on others. paramiko
blocks, so it runs in threads: one connects and then reads, one writes and probes. They end with the connection. All
decisions are made on the event loop, from what the threads tell it:

* a channel that the board ends (it does when the second-last member of a topic leaves) is opened again on the same
  connection;
* a connection that is lost is made again, later and later, at random within bounds;
* a connection that doesn't answer for ``DEAD_AFTER`` is lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import re
import shlex
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paramiko

from p2p_ipython.board.base import BoardListener, BoardReport, BoardState
from p2p_ipython.board.client.address import BoardAddress, Route, SSHFiles, SSHOptions, parse_ssh_options, route
from p2p_ipython.board.client.keys import KeyChoice, Passphrase, choose_among
from p2p_ipython.board.client.known_hosts import HostKeyCheck
from p2p_ipython.board.client.tunnel import Tunnel
from p2p_ipython.board.lines import Backoff, ordinal
from p2p_ipython.board.session import Lines
from p2p_ipython.config import Settings
from p2p_ipython.errors import (
    BoardError,
    BoardRefused,
    BoardUnreachable,
    HostKeyChanged,
    HostKeyUnknown,
    KeyRefused,
    P2PError,
)
from p2p_ipython.loop import in_thread

log = logging.getLogger(__name__)

PROBE_EVERY = 5.0
"""How often the board is asked for a sign of life, s."""
DEAD_AFTER = 15.0
"""Without any sign of life for so long, s, the connection counts as lost."""
STABLE_AFTER = 5.0
"""A connection that held for so long, s, was a good one: the next is tried at once again."""
ANSWER_WITHIN = 10.0
"""How long a board may take to answer a question, s."""
PAUSE = 1.0
"""Between two channels that the board ends at once, s."""
MAX_ANSWER = 64 << 10
CLOSE_WITHIN = 5.0

_NAME = re.compile(r"[a-zA-Z0-9]{1,50}")
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


class SSHBoard:
    """A session on one topic of a board; implements ``base.Board``.

    ``topic`` is the full name, ``owner/name``, wherever the owner is known. ``key`` is the one
    to show; without it one is chosen on ``open``, with ``identity`` and ``passphrase`` (called in a thread).
    ``pin`` is the board's host key or its fingerprint; without it, known-hosts files decide. ``access`` is passed
    on as the topic's access list: an owner passes it with every session. ``public`` joins ``public/topic``, one topic
    for everybody, with an account or without. ``ssh_options`` are options of ``ssh`` for the way to the board, as
    ``-J HOST``; see ``address.parse_ssh_options``. Raises ``ConfigError`` for those that aren't supported.
    """

    def __init__(
        self,
        address: BoardAddress,
        topic: str,
        listener: BoardListener,
        key: paramiko.PKey | KeyChoice | None = None,
        *,
        identity: Path | None = None,
        passphrase: Passphrase | None = None,
        pin: str | None = None,
        files: SSHFiles | None = None,
        settings: Settings | None = None,
        access: tuple[str, ...] = (),
        public: bool = False,
        ssh_options: tuple[str, ...] = (),
    ) -> None:
        files = files or SSHFiles.default()
        timeout = (settings or Settings()).connect_timeout
        if isinstance(key, paramiko.PKey):
            key = KeyChoice(key, "given")
        options = parse_ssh_options(ssh_options)
        self._target = Target(address, files, options, key, identity or options.identity, passphrase, pin, timeout)
        self._command = f"pipe {shlex.quote(topic)} -r{' -p' if public else ''}"
        if access:
            self._command += f" -a {shlex.quote(','.join(access))}"
        self._lines = Lines(listener, self._write)
        self._backoff = Backoff()
        self._connection: _Connection | None = None
        self._opening: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._user = ""
        self._since = 0.0
        self._closed = False

    @property
    def report(self) -> BoardReport:
        """The state now, and its reason."""
        return self._lines.report

    @property
    def user(self) -> str:
        """Our name on the board; "" where it doesn't say."""
        return self._user

    @property
    def key(self) -> KeyChoice | None:
        """The key that was shown, once connected."""
        return self._connection.key if self._connection else self._target.key

    @property
    def host_key(self) -> str:
        """The public key line of the board, once connected: for ``remember_host_key``."""
        return self._connection.host_key if self._connection else ""

    @property
    def route(self) -> Route | None:
        """Where the address led to, once connected."""
        return self._connection.route if self._connection else None

    async def open(self) -> None:
        """Connect and join; see ``base.Board``.

        Raises ``BoardUnreachable``, ``HostKeyUnknown``, ``HostKeyChanged``, ``KeyRefused``, ``NoKey``,
        ``BoardRefused`` or ``ConfigError``, each with what to do.
        """
        assert self._opening is None, "a board is opened once"
        self._opening = asyncio.get_running_loop().create_future()
        self._connect(ask_user=True)
        try:
            await self._opening
        except BaseException:
            self._closed = True
            await self._end_connection()
            raise

    def post(self, line: bytes) -> None:
        """Post a line; see ``base.Board``."""
        self._lines.post(line)

    async def close(self) -> None:
        """Leave; see ``base.Board``."""
        try:
            if not self._closed and self.report.state is BoardState.CONNECTED:
                await self._lines.flush()
        finally:  # also when who waits for it is cancelled
            self._closed = True
            self._stop_timer()
            self._lines.close()
            await self._end_connection()
            self._lines.say(BoardState.CLOSED)

    async def ask(self, command: str) -> tuple[str, int | None]:
        """Run a command of the board's and return what it prints, and its exit status (None: it didn't say).

        Raises ``BoardUnreachable`` when there is no connection, or no answer within 10 s.
        """
        connection = self._connection
        if connection is None or self.report.state is not BoardState.CONNECTED:
            raise BoardUnreachable("there is no connection to the board", hint="Wait until it is connected again.")
        return await in_thread("p2p-board-ask", lambda: connection.ask(command))

    async def services(self) -> dict[str, str] | None:
        """Where the board's own ``mailbox`` and ``relay`` are; None if it has none (pico's has none)."""
        answer, _ = await self.ask("p2p")
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        mailbox, relay = found.get("mailbox"), found.get("relay")
        if not isinstance(mailbox, str) or not re.fullmatch(r"wss?://[^\s]{1,250}", mailbox):
            return None
        if not isinstance(relay, str) or not re.fullmatch(r"tcp:[^\s]{1,250}:\d{1,5}", relay):
            return None
        return {"mailbox": mailbox, "relay": relay}

    # What follows runs on the event loop, told by a connection's threads

    def _connect(self, *, ask_user: bool = False) -> None:
        self._timer = None
        self._connection = _Connection(self._target, self._command, self, ask_user=ask_user)
        self._connection.start()

    def connected(self, connection: _Connection, user: str) -> None:
        """The topic was joined."""
        if connection is not self._connection or self._closed:
            return
        self._user = self._user or user
        self._target = connection.target  # it knows the key now
        self._since = self._now()
        self._lines.say(BoardState.CONNECTED)
        self._lines.connected()
        self._timer = asyncio.get_running_loop().call_later(PROBE_EVERY, self._look)
        if self._opening is not None and not self._opening.done():
            self._opening.set_result(None)

    def rejoined(self, connection: _Connection) -> None:
        """The board had ended the channel; there is another."""
        if connection is self._connection and not self._closed:
            self._lines.connected()

    def received(self, connection: _Connection, data: bytes) -> None:
        """Bytes have come."""
        if connection is self._connection and not self._closed:
            self._lines.received(data)

    def lost(self, connection: _Connection, error: P2PError) -> None:
        """The connection has ended, or couldn't be made."""
        if connection is not self._connection or self._closed:
            return
        self._stop_timer()
        assert self._opening is not None
        if not self._opening.done():
            self._opening.set_exception(error)
            return
        self._lines.disconnected()
        if isinstance(error, HostKeyChanged | HostKeyUnknown | KeyRefused):
            self._lines.close()
            self._lines.say(BoardState.FAILED, error.message, error)
            return
        if self._since and self._now() - self._since >= STABLE_AFTER:
            self._backoff.reset()
        self._since = 0.0
        delay = self._backoff.next()
        self._lines.say(BoardState.RECONNECTING, f"{ordinal(self._backoff.tries)} try: {error.message}")
        self._timer = asyncio.get_running_loop().call_later(delay, self._connect)

    def _look(self) -> None:
        """Is the connection alive?"""
        connection = self._connection
        if connection is None:
            return
        if time.monotonic() - connection.heard > DEAD_AFTER:
            connection.end("the board doesn't answer any more")
        self._timer = asyncio.get_running_loop().call_later(PROBE_EVERY, self._look)

    def _write(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.write(data)

    async def _end_connection(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.end("closed")
            try:
                await asyncio.wait_for(in_thread("p2p-board-close", connection.join), CLOSE_WITHIN)
            except TimeoutError:
                log.warning("the threads of a connection to %s have not ended yet", self._target.address)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class _Connection:
    """One SSH connection with the topic's channel on it: all that blocks, in threads of its own.

    Tells its board, on the event loop, ``connected``, ``rejoined``, ``received`` and at last ``lost``, once.
    """

    def __init__(self, target: Target, command: str, board: SSHBoard, *, ask_user: bool) -> None:
        self.target = target
        self.key = target.key
        self.host_key = ""
        self.route: Route | None = None
        self.heard = time.monotonic()
        self._command = command
        self._board = board
        self._ask_user = ask_user
        self._loop = asyncio.get_running_loop()
        self._transports: list[paramiko.Transport] = []
        self._socket: socket.socket | None = None
        self._channel: paramiko.Channel | None = None
        self._to_write: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._reason = ""
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="p2p-board-read", daemon=True)
        self._writer = threading.Thread(target=self._write_and_probe, name="p2p-board-write", daemon=True)

    # For the event loop: nothing here blocks

    def start(self) -> None:
        """Begin to connect."""
        self._reader.start()

    def write(self, data: bytes) -> None:
        """Queue bytes for the topic."""
        self._to_write.put(data)

    def end(self, reason: str) -> None:
        """End the connection: its threads notice at once."""
        with self._lock:
            if not self._ending.is_set():
                self._reason = reason
                self._ending.set()
            sock = self._socket
        self._to_write.put(None)
        if sock is not None:
            try:
                # Wakes whoever reads or writes; close() would not, and could free the descriptor under them.
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    # For other threads

    def join(self) -> None:
        """Wait until the threads have ended."""
        self._reader.join()

    def ask(self, command: str) -> tuple[str, int | None]:
        """Run a command on a channel of its own; see ``SSHBoard.ask``."""
        channel = None
        question = command.split(maxsplit=1)[0]
        try:
            channel = self._open_channel(ANSWER_WITHIN)
            channel.settimeout(ANSWER_WITHIN)
            channel.exec_command(command)
            channel.shutdown_write()
            answer = b""
            deadline = time.monotonic() + ANSWER_WITHIN
            while len(answer) < MAX_ANSWER and time.monotonic() < deadline:
                data = channel.recv(MAX_ANSWER)
                if not data:
                    status = channel.recv_exit_status() if channel.exit_status_ready() else None
                    return answer.decode("utf-8", "replace"), status
                answer += data
            raise BoardUnreachable(f"the board's answer to {question!r} doesn't end", hint="Try again.")
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise BoardUnreachable(f"the board doesn't answer {question!r}: {error}", hint="Try again.") from None
        finally:
            if channel is not None:
                channel.close()

    # The reading thread

    def _read(self) -> None:
        error: P2PError = BoardUnreachable("the connection to the board has ended", hint="It is made again.")
        try:
            deadline = time.monotonic() + self.target.timeout
            self._dial(deadline)
            channel = self._join_topic(max(1.0, deadline - time.monotonic()))
            user = self._who_am_i() if self._ask_user else ""
            self._refused(channel)
            self.heard = time.monotonic()  # logging in may have taken long: somebody had to type a passphrase
            self._writer.start()
            self._tell(self._board.connected, user)
            quick = 0
            while True:
                began = time.monotonic()
                self._drain(channel)
                self._refused(channel)
                if self._ending.is_set() or not self._transports[-1].is_active():
                    break
                quick = quick + 1 if time.monotonic() - began < PAUSE else 0
                if quick > 1:  # a board that ends every channel is not to be asked without a pause
                    self._ending.wait(PAUSE)
                channel = self._join_topic(ANSWER_WITHIN)
                self._tell(self._board.rejoined)
        except P2PError as refusal:
            error = refusal
        except (paramiko.SSHException, OSError, EOFError) as failure:
            error = BoardUnreachable(f"the connection to the board has ended: {failure}", hint="It is made again.")
        except Exception:
            log.exception("the board's reader failed")
        finally:
            if self._reason:
                error = BoardUnreachable(self._reason, hint="It is made again.")
            self.end("")
            self._close_transports()
            if self._writer.ident is not None:
                self._writer.join()
            self._tell(self._board.lost, error)

    def _dial(self, deadline: float) -> None:
        """Connect, through jump hosts if there are any, and log in."""
        target = self.target
        self.route = way = route(target.address, target.files, target.options)
        # The board's key first, so that a lacking one is said before anything is connected to.
        choice = target.key or choose_among(
            target.files, identity=target.identity, configured=way.identities, passphrase=target.passphrase
        )
        self.key = choice
        self.target = replace(target, key=choice)
        hops = [*way.jumps, way]
        sock: Any = self._connect_socket(hops[0], deadline)
        for hop, onward in zip(hops, [*hops[1:], None], strict=True):
            check = HostKeyCheck(hop, target.files, target.pin if hop is way else None)
            key = choice
            if hop is not way and hop.identities:
                key = choose_among(target.files, configured=hop.identities, passphrase=target.passphrase)
            transport = self._log_in(sock, hop, check, key, deadline)
            if onward is not None:
                try:
                    sock = Tunnel(
                        transport.open_channel(
                            "direct-tcpip", (onward.host, onward.port), ("127.0.0.1", 0), timeout=_left(deadline)
                        )
                    )
                except paramiko.SSHException as error:
                    raise BoardUnreachable(
                        f"the jump host {hop} doesn't connect to {onward}: {error}", hint="Try: ssh -J, by hand."
                    ) from None
        self.host_key = (
            f"{transport.get_remote_server_key().get_name()} {transport.get_remote_server_key().get_base64()}"
        )

    def _connect_socket(self, hop: Route, deadline: float) -> socket.socket:
        if self._ending.is_set():
            raise BoardUnreachable(self._reason, hint="Connect again.")
        hint = "Check the address and the port (a board of ours listens on 2222 unless told otherwise)."
        try:
            sock = socket.create_connection((hop.host, hop.port), timeout=_left(deadline))
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
            if self._ending.is_set():  # since we looked; whoever ended it had no socket to shut down
                raise BoardUnreachable(self._reason, hint="Connect again.")
        return sock

    def _log_in(
        self, sock: Any, hop: Route, check: HostKeyCheck, key: KeyChoice, deadline: float
    ) -> paramiko.Transport:
        transport = paramiko.Transport(sock)
        self._transports.append(transport)
        transport.set_log_channel(_LOG)
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = _left(deadline)
        _prefer(transport, check.kinds)
        try:
            transport.start_client(timeout=_left(deadline))
            check.check(transport.get_remote_server_key())
        except paramiko.ssh_exception.IncompatiblePeer as error:
            raise BoardUnreachable(f"{hop} and this client have no cipher in common: {error}", hint="") from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            if self._reason:
                raise BoardUnreachable(self._reason) from None
            raise BoardUnreachable(
                f"what answers at {hop} does not speak SSH: {error}",
                hint="Check the port (a board of ours listens on 2222 unless told otherwise).",
            ) from None
        try:
            left = transport.auth_publickey(hop.user, key.key)
        except paramiko.AuthenticationException as error:
            raise _refusal(hop, key, transport, error) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise BoardUnreachable(f"{hop} has hung up during the log-in: {error}", hint="Try again.") from None
        if left:
            raise _refusal(hop, key, transport, None)
        return transport

    def _open_channel(self, timeout: float) -> paramiko.Channel:
        return self._transports[-1].open_session(timeout=timeout)

    def _join_topic(self, timeout: float) -> paramiko.Channel:
        channel = self._open_channel(timeout)
        channel.settimeout(timeout)
        channel.exec_command(self._command)
        channel.settimeout(None)
        self._channel = channel
        return channel

    def _who_am_i(self) -> str:
        """Our name; by the time that it has come, a refusal of the topic would have come, too."""
        try:
            name = self.ask("user")[0].partition("\n")[0].strip()
        except BoardUnreachable as error:
            log.debug("the board doesn't say who we are: %s", error)
            return ""
        return name.lower() if _NAME.fullmatch(name) else ""

    def _refused(self, channel: paramiko.Channel) -> None:
        """Raise ``BoardRefused`` if the board has ended the topic with an error."""
        if channel.exit_status_ready() and channel.recv_exit_status() > 0:
            words = channel.recv_stderr(MAX_ANSWER) if channel.recv_stderr_ready() else b""
            said = words.decode("utf-8", "replace").strip()[:200] or "no reason given"
            raise BoardRefused(
                f"the board refuses the topic: {said}", hint="Is it the right cluster, and the right key?"
            )

    def _drain(self, channel: paramiko.Channel) -> None:
        """Read until the channel ends. Whatever happens to the lines, the board is never kept waiting."""
        while data := channel.recv(64 << 10):
            self.heard = time.monotonic()
            self._tell(self._board.received, data)

    def _close_transports(self) -> None:
        for transport in reversed(self._transports):
            try:
                transport.close()
            except (OSError, EOFError, paramiko.SSHException):
                pass  # what it goes through has ended already: so has it
        if self._socket is not None:
            self._socket.close()

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(what, self, *arguments)
        except RuntimeError:  # the loop is closed, and nobody is left to be told
            pass

    # The writing thread

    def _write_and_probe(self) -> None:
        probe_at = time.monotonic() + PROBE_EVERY
        while not self._ending.is_set():
            try:
                data = self._to_write.get(timeout=max(0.0, probe_at - time.monotonic()))
            except queue.Empty:
                probe_at = time.monotonic() + PROBE_EVERY
                try:
                    # Whatever the answer, it is one. Returns when the connection ends, too.
                    self._transports[-1].global_request("keepalive@openssh.com", wait=True)
                except (paramiko.SSHException, OSError, EOFError):
                    continue
                if self._transports[-1].is_active():
                    self.heard = time.monotonic()
                continue
            channel = self._channel
            if data is None or channel is None:
                continue
            try:
                channel.sendall(data)
            except (paramiko.SSHException, OSError, EOFError) as error:
                # The channel is gone: the reader finds out, and the line is written again by its next one.
                log.debug("a line was not written: %s", error)


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _prefer(transport: paramiko.Transport, kinds: list[str]) -> None:
    """The quickest good algorithms first, none of the old ones, and the kinds of host keys that we know."""
    options = transport.get_security_options()
    quick = "curve25519-sha256@libssh.org"
    options.kex = tuple(sorted(options.kex, key=lambda name: name != quick))
    options.ciphers = tuple(
        sorted((name for name in options.ciphers if "cbc" not in name), key=lambda name: "gcm" not in name)
    )
    options.digests = tuple(name for name in options.digests if "sha2" in name)
    known = {name for kind in kinds for name in (("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,))}
    options.key_types = tuple(sorted(options.key_types, key=lambda name: name not in known))


def _refusal(hop: Route, key: KeyChoice, transport: paramiko.Transport, error: Exception | None) -> BoardError:
    if not transport.is_active() and error is not None and "timeout" in str(error).lower():
        return BoardUnreachable(f"{hop} does not answer the log-in", hint="Try again.")
    return KeyRefused(
        f"{hop} does not let the key {key} in",
        hint="Give another key with --identity, or have this one's public part added there.",
    )
