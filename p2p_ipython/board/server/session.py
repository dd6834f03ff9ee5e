"""One session of a client's: it runs one command, and is then on at most one topic."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import asyncssh

from p2p_ipython.board.server import commands
from p2p_ipython.board.server.arrivals import Arrivals
from p2p_ipython.board.server.guard import Forgetful, unsent
from p2p_ipython.board.server.limits import Bucket, Seldom, Unread
from p2p_ipython.board.server.options import ServerOptions
from p2p_ipython.board.server.users import Users
from p2p_ipython.board.topics import Action, Denied, Direction, Join, Topics

log = logging.getLogger(__name__)

CUT_AFTER = 10.0
"""How long a session that is being ended may take to read what it was sent, s."""


@dataclass
class KeyInUse:
    """The state that one key's sessions share: how many there are, and what they may write."""

    bucket: Bucket
    sessions: int = 0


class SessionServer(Protocol):
    """The part of a board that a session needs."""

    @property
    def options(self) -> ServerOptions:
        """Return what the board is to be."""
        ...

    @property
    def users(self) -> Users:
        """Return the names of users by their keys."""
        ...

    @property
    def topics(self) -> Topics:
        """Return the topics, with the sessions on them."""
        ...

    @property
    def sessions(self) -> dict[str, Session]:
        """Return all sessions, by name."""
        ...

    @property
    def arrivals(self) -> Arrivals[asyncssh.SSHServerConnection]:
        """Return the connections, by what they have."""
        ...

    @property
    def unread(self) -> Unread[Session]:
        """Return what all sessions leave unread."""
        ...

    held: int

    def key(self, fingerprint: str) -> KeyInUse:
        """Return what the sessions of a key share."""
        ...

    def seldom(self, warning: str) -> Seldom:
        """Return what decides how often a kind of warning is logged."""
        ...

    def describe_services(self, host: str) -> dict[str, Any]:
        """Return the answer to ``p2p``."""
        ...

    def do(self, actions: list[Action]) -> None:
        """Perform what the topics decided."""
        ...

    def flush(self) -> None:
        """Write now what waits to be written together."""
        ...


class Session(asyncssh.SSHServerSession[bytes]):
    """A session: runs one command, and is then on at most one topic."""

    def __init__(
        self, server: SessionServer, connection: asyncssh.SSHServerConnection, user: str, fingerprint: str
    ) -> None:
        self._server = server
        self._connection = connection
        self._user = user
        self._fingerprint = fingerprint
        self._name = str(uuid.uuid4())
        self.key = server.key(fingerprint)
        self.key.sessions += 1
        server.arrivals.begin(connection)
        self._line: str | None = None
        self._too_long = False
        self._channel: asyncssh.SSHServerChannel[bytes]
        self._stream: commands.Stream | None = None
        self._topic = ""
        self._join: Join
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = False
        self._held = b""
        self._holds = 0
        self._terminal = False
        self._eof = False
        self._ended = False
        self._loop = asyncio.get_running_loop()

    # What asyncssh calls

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan
        # OpenSSH sends LANG and others with each session; asyncssh would keep whatever comes, for as long.
        vars(chan)["_env"] = Forgetful()
        self._server.sessions[self._name] = self
        within = self._server.options.command_within
        self._timer = self._loop.call_later(within, self.refuse, f"no command within {within:g} s")

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self.key.sessions -= 1
        self._server.arrivals.end(self._connection, self._loop.time())
        self._server.sessions.pop(self._name, None)
        self._server.unread.forget(self)
        self._hold(0)
        self._stop_timer()
        self._server.do(self._server.topics.leave(self._name))

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        # As pico's: it is accepted, and lines end as a terminal needs it.
        self._terminal = True
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._too_long = len(command.encode()) > self._server.options.command
        if not self._too_long:
            self._line = command
        return True

    def session_started(self) -> None:
        self._stop_timer()
        if self.key.sessions > self._server.options.sessions:
            self._fail("too many sessions")
            return
        if self._too_long:
            self._fail(f"the command is longer than {self._server.options.command} bytes")
            return
        self._run(commands.parse(self._line))

    def _run(self, command: commands.Command) -> None:
        match command:
            case commands.Help():
                self._finish(commands.help_text(self._where()))
            case commands.Ls() if self._user == "public":
                self._fail("access denied")
            case commands.Ls():
                self._finish(commands.ls_text(self._server.topics.listing(self._user)))
            case commands.WhoAmI():
                self._finish(self._server.users.describe(self._user))
            case commands.Services():
                self._finish(json.dumps(self._server.describe_services(self._local()[0])) + "\n")
            case commands.Unknown():
                self._finish("")
            case commands.Bad(usage):
                self.write(usage.encode())
                self._fail("invalid cmd args")
            case commands.Stream():
                self._start(command)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if self._ended or self._stream is None or self._stream.direction is Direction.SUB:
            return
        if self._waiting:
            self._hold(len(self._held) + len(data))
            if self._server.held > self._server.options.held:
                self._fail("too much waits for readers on this board")
                return
            self._held += data
            self._channel.pause_reading()  # the rest is kept by the publisher until there is a reader
            return
        self._put(data)
        silence = self.key.bucket.take(len(data), self._loop.time())
        if silence and not self._ended:
            self._channel.pause_reading()
            self._stop_timer()
            self._timer = self._loop.call_later(silence, self._read_on)

    def eof_received(self) -> bool:
        self._eof = True
        if self._stream is not None and not self._waiting:
            if self._stream.direction is Direction.PUB:
                self._sent()
            elif self._stream.direction is Direction.PIPE:
                self._input_ended()
        return True  # a subscriber that has nothing to say still reads

    # Streams

    def _start(self, stream: commands.Stream) -> None:
        topic = stream.topic
        if not topic and stream.direction is not Direction.SUB:
            topic = str(uuid.uuid4())
        peer = self._connection.get_extra_info("peername")
        self._join = Join(
            session=self._name,
            label=f"{self._name} ({self._user}@{_netloc(peer[0], peer[1])})",
            user=self._user,
            fingerprint=self._fingerprint,
            direction=stream.direction,
            topic=topic,
            access=stream.access,
            public=stream.public,
            replay=stream.replay,
            keep=stream.keep,
            dispatch=stream.dispatch,
            fresh=str(uuid.uuid4()),
        )
        try:
            self._topic = self._server.topics.resolve(self._join)
        except Denied as error:
            self._fail(str(error))
            return
        self._stream = stream
        if self._topic == f"public/{self._join.fresh}":
            topic = self._join.fresh
        if stream.direction is Direction.PUB:
            self._say(commands.invitation(stream, self._where(), topic, self._user))
            self._wait_for_reader(stream)
            return
        if stream.direction is Direction.PIPE and not stream.topic:
            self._say(commands.invitation(stream, self._where(), topic, self._user))
        self._server.do(self._server.topics.join(self._join, self._topic))

    def _wait_for_reader(self, stream: commands.Stream) -> None:
        if not stream.block or self._server.topics.has_readers(self._topic):
            self._publish()
            return
        wait = f" {commands.format_duration(stream.timeout)}" if stream.timeout > 0 else ""
        self._say(f"no subs found ... waiting{wait}\n")
        self._waiting = True
        self._server.topics.wait(self._join, self._topic)
        self._timer = self._loop.call_later(stream.timeout, self._timed_out)

    def reader_came(self) -> None:
        """Publish: the reader that this publisher has waited for has come."""
        self._stop_timer()
        # Its own message must not overtake the reader's joining, which is under way.
        self._loop.call_soon(self._publish)

    def _publish(self) -> None:
        if self._ended:
            return
        assert self._stream is not None
        self._waiting = False
        self._hold(0)
        self._server.do(self._server.topics.join(self._join, self._topic))
        self._say("sending msg ...\n")
        message = b"\0" if self._stream.empty else self._held
        if message:
            self._put(message)
        if self._stream.empty or self._eof:
            self._sent()
        else:
            self._channel.resume_reading()

    def _put(self, data: bytes) -> None:
        """Write on the topic."""
        self._server.do(self._server.topics.publish(self._name, data))

    def _timed_out(self) -> None:
        assert self._stream is not None
        self._fail("" if self._stream.clean else "timeout reached, exiting")

    def _sent(self) -> None:
        self._say("msg sent!\n")
        self._finish("")

    def _input_ended(self) -> None:
        """End a pipe whose client has nothing more to say, as pico does; all readers get first what it has said."""
        self._server.flush()
        self._finish("")

    def _hold(self, size: int) -> None:
        """Count what is kept of a publisher that waits."""
        self._server.held += size - self._holds
        self._holds = size

    def _read_on(self) -> None:
        self._timer = None
        self._channel.resume_reading()

    # Answers

    def write(self, data: bytes) -> None:
        """Write to the client, or cut it if it has left too much unread."""
        if self._ended or not data:
            return
        if self._terminal:
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        try:
            self._channel.write(data)
        except OSError:  # the client has closed the channel, and asyncssh is about to say so
            return
        unread = self.unread()
        if unread > self._server.options.queue and self._stream is not None:
            self.cut(unread)
        elif (most := self._server.unread.note(self, unread)) is not None:
            most.cut(most.unread())

    def unread(self) -> int:
        """Return how many bytes wait for the client."""
        return int(self._channel.get_write_buffer_size() + unsent(self._connection))

    def cut(self, unread: int) -> None:
        """Cut a client that doesn't read."""
        if count := self._server.seldom("unread").say(self._loop.time()):
            log.warning(
                "sessions that don't read are cut: %d, one of %s with %d bytes that wait for it",
                count, self._user, unread,
            )  # fmt: skip
        self._ended = True
        self._stop_timer()
        self._server.unread.forget(self)
        self._server.do(self._server.topics.leave(self._name))
        self._channel.abort()

    def refuse(self, word: str) -> None:
        """End the session with a word."""
        self._fail(word)

    def end(self) -> None:
        """End the session without an exit status, once it has read what it was sent."""
        self._close(None)

    def _say(self, text: str) -> None:
        if self._stream is not None and not self._stream.clean:
            self.write(text.encode())

    def _finish(self, text: str) -> None:
        self.write(text.encode())
        self._close(0)

    def _fail(self, message: str) -> None:
        if message:
            if self._ended:
                return
            try:
                self._channel.write_stderr(f"{message}\n\r".encode())
            except OSError:
                return
        self._close(1)

    def _close(self, status: int | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._stop_timer()
        self._held = b""
        self._hold(0)
        self._server.do(self._server.topics.leave(self._name))
        self._channel.resume_reading()  # or asyncssh waits for what is unread before it closes
        if status is None:
            self._channel.close()
        else:
            self._channel.exit(status)
        self._timer = self._loop.call_later(CUT_AFTER, self._channel.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _local(self) -> tuple[str, int]:
        """Our own address, as the client reached it."""
        name = self._connection.get_extra_info("sockname")
        return str(name[0]).removeprefix("::ffff:"), int(name[1])

    def _where(self) -> str:
        host, port = self._local()
        return f"-p {port} {host}" if port != 22 else host


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
