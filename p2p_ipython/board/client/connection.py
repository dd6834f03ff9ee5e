"""One SSH connection with a board, by paramiko: a topic on one channel, questions (``user``, ``p2p``) on others.

paramiko blocks, so it runs in threads: one connects and then reads, one writes and probes. They end with the
connection.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Protocol

import paramiko

from p2p_ipython.board.client.dial import Target, Way
from p2p_ipython.errors import BoardRefused, BoardUnreachable, P2PError

log = logging.getLogger(__name__)

PROBE_EVERY = 5.0
"""How often the board is asked for a sign of life, s."""
ANSWER_WITHIN = 10.0
"""How long a board may take to answer a question, s."""
PAUSE = 1.0
"""Between two channels that the board ends at once, s."""
MAX_ANSWER = 64 << 10

_NAME = re.compile(r"[a-zA-Z0-9]{1,50}")
_OWN_TOPIC = re.compile(r"^- ([a-zA-Z0-9]{1,50})/", re.MULTILINE)


class ConnectionListener(Protocol):
    """The listener of a connection, on the event loop."""

    def connected(self, connection: Connection, user: str) -> None:
        """Take note that the topic was joined, and of our name on the board."""

    def rejoined(self, connection: Connection) -> None:
        """Take note that the board has ended the topic's channel, and that there is another."""

    def received(self, connection: Connection, data: bytes) -> None:
        """Take bytes that have come."""

    def lost(self, connection: Connection, error: P2PError) -> None:
        """Take note, once, that the connection has ended, or couldn't be made."""


class Connection:
    """One SSH connection with the topic's channel on it: all that blocks, in threads of its own.

    Tells its board, on the event loop, ``connected``, ``rejoined``, ``received`` and at last ``lost``, once.
    """

    def __init__(self, target: Target, command: str, board: ConnectionListener, *, ask_user: bool) -> None:
        self.way = Way(target)
        self.heard = time.monotonic()
        self._command = command
        self._board = board
        self._ask_user = ask_user
        self._loop = asyncio.get_running_loop()
        self._channel: paramiko.Channel | None = None
        self._to_write: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
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
        self.way.end(reason)
        self._to_write.put(None)

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
            deadline = time.monotonic() + self.way.target.timeout
            self.way.connect(deadline)
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
                if self.way.ending.is_set() or not self.way.transports[-1].is_active():
                    break
                quick = quick + 1 if time.monotonic() - began < PAUSE else 0
                if quick > 1:  # a board that ends every channel is not to be asked without a pause
                    self.way.ending.wait(PAUSE)
                channel = self._join_topic(ANSWER_WITHIN)
                self._tell(self._board.rejoined)
        except P2PError as refusal:
            error = refusal
        except (paramiko.SSHException, OSError, EOFError) as failure:
            error = BoardUnreachable(f"the connection to the board has ended: {failure}", hint="It is made again.")
        except Exception:
            log.exception("the board's reader failed")
        finally:
            if self.way.reason:
                error = BoardUnreachable(self.way.reason, hint="It is made again.")
            self.end("")
            self.way.close()
            if self._writer.ident is not None:
                self._writer.join()
            self._tell(self._board.lost, error)

    def _open_channel(self, timeout: float) -> paramiko.Channel:
        return self.way.transports[-1].open_session(timeout=timeout)

    def _join_topic(self, timeout: float) -> paramiko.Channel:
        channel = self._open_channel(timeout)
        channel.settimeout(timeout)
        channel.exec_command(self._command)
        channel.settimeout(None)
        self._channel = channel
        return channel

    def _who_am_i(self) -> str:
        """Return our name, "public" without an account, or "" where the board says neither.

        By the time that it has come, a refusal of the topic would have come, too. pico's boards don't know ``user``.
        They refuse ``ls`` to those without an account, and name others' topics by their account.
        """
        try:
            name = self.ask("user")[0].partition("\n")[0].strip()
            if not name:
                listing, status = self.ask("ls")
                found = _OWN_TOPIC.search(listing)
                name = "public" if status else found[1] if found else ""
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

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(what, self, *arguments)
        except RuntimeError:  # the loop is closed, and nobody is left to be told
            pass

    # The writing thread

    def _write_and_probe(self) -> None:
        probe_at = time.monotonic() + PROBE_EVERY
        while not self.way.ending.is_set():
            try:
                data = self._to_write.get(timeout=max(0.0, probe_at - time.monotonic()))
            except queue.Empty:
                probe_at = time.monotonic() + PROBE_EVERY
                try:
                    # Whatever the answer, it is one. Returns when the connection ends, too.
                    self.way.transports[-1].global_request("keepalive@openssh.com", wait=True)
                except (paramiko.SSHException, OSError, EOFError):
                    continue
                if self.way.transports[-1].is_active():
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
