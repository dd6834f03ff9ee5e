"""A board over SSH that is no better than pico's ``pipe`` service.

It is for tests of whatever has to live with such a board, as this package's client has to. Beside the rules of
``quirks.py`` (the access hole, lock-step, reads of 32 KiB):

* no ``user``, no ``p2p``, no mailbox and no relay: whoever asks gets no output, and exit status 0;
* ``ping@pico.sh`` as a channel request every 5 s, and no keepalives of SSH's;
* no limit of sessions, rates or queues. It is for loopback, and only tests start it: ``serve(options, PicoServer)``.

A reader counts as one that doesn't read when the window that its client gave is full.

The way of a chunk: ``PicoSession.data_received`` → ``PicoTopics.read``, ``turn`` → ``PicoServer.do`` →
``PicoSession.write``.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import asyncssh

from p2p_ipython.board.pico.quirks import READ, PicoTopics
from p2p_ipython.board.server import commands
from p2p_ipython.board.server.options import ServerOptions
from p2p_ipython.board.server.server import BoardServer
from p2p_ipython.board.server.services import Services
from p2p_ipython.board.server.session import Session
from p2p_ipython.board.server.users import Users
from p2p_ipython.board.topics import Action, Deliver, Direction

PING_EVERY = 5.0
"""Between two channel requests that a session gets, s."""
NO_LIMIT = 1 << 40


class PicoServer(BoardServer):
    """A board like pico's. Made by ``serve(options, PicoServer)``."""

    has_services = False

    topics: PicoTopics

    def __init__(
        self, options: ServerOptions, host: str, users: Users, services: Services | None, key: asyncssh.SSHKey
    ) -> None:
        bounds = ("sessions", "all_sessions", "rate", "burst", "queue", "queues", "held")
        changes: dict[str, Any] = {
            **dict.fromkeys(bounds, NO_LIMIT),
            "keepalive": 0,
            "window": 128 << 10,
            "slice": 256 << 10,
        }
        free = replace(options, **changes)
        super().__init__(free, host, users, services, key)
        self.topics = PicoTopics()
        self.held_up: set[PicoSession] = set()
        """Sessions that wait until the topic has taken what they wrote."""
        self._loop = asyncio.get_running_loop()
        self._turning = False

    def session(self, connection: asyncssh.SSHServerConnection, user: str, fingerprint: str) -> Session:
        """Make a session of a user's."""
        return PicoSession(self, connection, user, fingerprint)

    def do(self, actions: list[Action]) -> None:
        """Perform what the topics decided; then see whose turn it is."""
        for action in actions:
            if isinstance(action, Deliver):
                for name in action.to:
                    if name != action.but and name in self.sessions:
                        self.sessions[name].write(action.data)
            else:
                super().do([action])
        if not self._turning:
            self._turning = True
            # Not at once: what has come in the meantime is read together, and cut at 32 KiB.
            self._loop.call_soon(self._take_turns)

    def _take_turns(self) -> None:
        while (actions := self.topics.turn()) is not None:
            self.do(actions)
        self._turning = False
        for session in list(self.held_up):
            session.go_on()


class PicoSession(Session):
    """A session on a board like pico's."""

    _server: PicoServer

    def __init__(
        self, server: PicoServer, connection: asyncssh.SSHServerConnection, user: str, fingerprint: str
    ) -> None:
        super().__init__(server, connection, user, fingerprint)
        self._ping: asyncio.TimerHandle | None = None
        self._finishing = False

    # What asyncssh calls

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        super().connection_made(chan)
        chan.set_write_buffer_limits(0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.held_up.discard(self)
        if self._ping is not None:
            self._ping.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._server.topics.fell_behind(self._name)

    def resume_writing(self) -> None:
        # asyncssh is in the middle of writing this channel's bytes.
        self._loop.call_soon(self._caught_up)

    # What is worse than on our own board

    def go_on(self) -> None:
        """Continue: the topic has taken some of what this session wrote."""
        if self._finishing and self._stream is not None and self._stream.direction is Direction.PIPE:
            self._input_ended()
        elif self._finishing:
            self._sent()
        elif self._server.topics.backlog(self._name) < READ and not self._ended:
            self._server.held_up.discard(self)
            self._channel.resume_reading()

    def _run(self, command: commands.Command) -> None:
        if isinstance(command, commands.WhoAmI | commands.Services):
            command = commands.Unknown()
        elif isinstance(command, commands.Stream):
            self._ping = self._loop.call_later(PING_EVERY, self._send_ping)
        super()._run(command)

    def _put(self, data: bytes) -> None:
        self._server.topics.read(self._name, data)
        if self._server.topics.backlog(self._name) >= READ:
            self._channel.pause_reading()
            self._server.held_up.add(self)
        self._server.do([])

    def _input_ended(self) -> None:
        if self._server.topics.backlog(self._name):
            self._finishing = True
            self._server.held_up.add(self)
        else:
            self._server.held_up.discard(self)
            super()._input_ended()

    def _sent(self) -> None:
        if self._server.topics.backlog(self._name):
            self._finishing = True
            self._server.held_up.add(self)
        else:
            self._server.held_up.discard(self)
            super()._sent()

    def _caught_up(self) -> None:
        self._server.do(self._server.topics.caught_up(self._name))

    def _send_ping(self) -> None:
        self._ping = self._loop.call_later(PING_EVERY, self._send_ping)
        if not self._ended:
            # asyncssh has no public way to send a request of one's own.
            self._channel._send_request(b"ping@pico.sh")
