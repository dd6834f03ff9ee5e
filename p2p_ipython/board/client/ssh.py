"""A session with a board over SSH, by paramiko: our own boards, and any that speaks pico's ``pipe``.

One SSH connection carries everything; its threads are in ``connection.py``, the way to it in ``dial.py``. All
decisions are made here, on the event loop, from what the threads report:

* a channel that the board ends (it does when the second-last member of a topic leaves) is opened again on the same
  connection;
* a connection that is lost is made again, later and later, at random within bounds;
* a connection that doesn't answer for ``DEAD_AFTER`` is lost.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import time
from pathlib import Path

import paramiko

from p2p_ipython.board.base import BoardListener, BoardReport, BoardState
from p2p_ipython.board.client.address import BoardAddress, Route, SSHFiles, parse_ssh_options
from p2p_ipython.board.client.connection import PROBE_EVERY, Connection
from p2p_ipython.board.client.dial import Target
from p2p_ipython.board.client.keys import KeyChoice, Passphrase
from p2p_ipython.board.client.services import parse_services
from p2p_ipython.board.lines import Backoff, ordinal
from p2p_ipython.board.session import Lines
from p2p_ipython.config import Settings
from p2p_ipython.errors import BoardUnreachable, HostKeyChanged, HostKeyUnknown, KeyRefused, P2PError
from p2p_ipython.loop import in_thread

log = logging.getLogger(__name__)

DEAD_AFTER = 15.0
"""Without any sign of life for so long, s, the connection counts as lost."""
STABLE_AFTER = 5.0
"""A connection that held for so long, s, was a good one: the next is tried at once again."""
CLOSE_WITHIN = 5.0


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
        self._connection: Connection | None = None
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
        return self._connection.way.key if self._connection else self._target.key

    @property
    def host_key(self) -> str:
        """The public key line of the board, once connected: for ``remember_host_key``."""
        return self._connection.way.host_key if self._connection else ""

    @property
    def route(self) -> Route | None:
        """Where the address led to, once connected."""
        return self._connection.way.route if self._connection else None

    @property
    def machine(self) -> str:
        """The IP address of the board's machine, once connected; "" if a jump host leads there."""
        return self._connection.way.machine if self._connection else ""

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
        finally:  # also when the caller is cancelled
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
        """Return where the board's own ``mailbox`` and ``relay`` are; None if it has none (pico's has none)."""
        connection = self._connection
        answer, _ = await self.ask("p2p")
        return parse_services(answer, connection.way.route if connection is not None else None)

    # What follows runs on the event loop, told by a connection's threads

    def _connect(self, *, ask_user: bool = False) -> None:
        self._timer = None
        self._connection = Connection(self._target, self._command, self, ask_user=ask_user)
        self._connection.start()

    def connected(self, connection: Connection, user: str) -> None:
        """Take note that the topic was joined."""
        if connection is not self._connection or self._closed:
            return
        self._user = self._user or user
        self._target = connection.way.target  # it knows the key now
        self._since = self._now()
        self._lines.say(BoardState.CONNECTED)
        self._lines.connected()
        self._timer = asyncio.get_running_loop().call_later(PROBE_EVERY, self._look)
        if self._opening is not None and not self._opening.done():
            self._opening.set_result(None)

    def rejoined(self, connection: Connection) -> None:
        """Take note that the board has ended the channel, and that there is another."""
        if connection is self._connection and not self._closed:
            self._lines.connected()

    def received(self, connection: Connection, data: bytes) -> None:
        """Take bytes that have come."""
        if connection is self._connection and not self._closed:
            self._lines.received(data)

    def lost(self, connection: Connection, error: P2PError) -> None:
        """Take note that the connection has ended, or couldn't be made: try again, or fail for good."""
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
        """End a connection that has not answered for ``DEAD_AFTER``."""
        connection = self._connection
        if connection is None:
            return
        if time.monotonic() - connection.heard > DEAD_AFTER:
            connection.end("the board no longer answers")
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
