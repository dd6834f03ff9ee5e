"""One session of a client's: it runs one command, and is then on at most one topic."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from dataclasses import dataclass
from typing import Protocol

import asyncssh

from p2p_ipython.board.server import commands
from p2p_ipython.board.server.guard import Forgetful, unsent
from p2p_ipython.board.server.limits import MAX_COMMAND, Bucket
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

    def key(self, fingerprint: str) -> KeyInUse:
        """Return what the sessions of a key share."""
        ...

    def services_at(self, host: str) -> tuple[str, str]:
        """Return where the mailbox and the relay are."""
        ...

    def do(self, actions: list[Action]) -> None:
        """Perform what the topics decided."""
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
        self._key = server.key(fingerprint)
        self._key.sessions += 1
        self._line: str | None = None
        self._too_long = False
        self._channel: asyncssh.SSHServerChannel[bytes]
        self._stream: commands.Stream | None = None
        self._topic = ""
        self._join: Join
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = False
        self._held = b""
        self._eof = False
        self._ended = False
        self._loop = asyncio.get_running_loop()

    # What asyncssh calls

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan
        # OpenSSH sends LANG and others with each session; asyncssh would keep whatever comes, for as long.
        vars(chan)["_env"] = Forgetful()
        self._server.sessions[self._name] = self

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._key.sessions -= 1
        self._server.sessions.pop(self._name, None)
        self._stop_timer()
        self._server.do(self._server.topics.leave(self._name))

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._too_long = len(command.encode()) > MAX_COMMAND
        if not self._too_long:
            self._line = command
        return True

    def session_started(self) -> None:
        if self._key.sessions > self._server.options.sessions:
            self._fail("too many sessions")
            return
        if self._too_long:
            self._fail(f"the command is longer than {MAX_COMMAND} bytes")
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
                mailbox, relay = self._server.services_at(self._local()[0])
                self._finish(json.dumps({"mailbox": mailbox, "relay": relay}) + "\n")
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
            self._held += data
            self._channel.pause_reading()  # the rest is kept by the publisher until there is a reader
            return
        self._put(data)
        silence = self._key.bucket.take(len(data), self._loop.time())
        if silence and not self._ended:
            self._channel.pause_reading()
            self._stop_timer()
            self._timer = self._loop.call_later(silence, self._read_on)

    def eof_received(self) -> bool:
        self._eof = True
        if self._stream is not None and self._stream.direction is Direction.PUB and not self._waiting:
            self._sent()
        return True  # a pipe or a subscriber that has nothing to say still reads

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

    def _read_on(self) -> None:
        self._timer = None
        self._channel.resume_reading()

    # Answers

    def write(self, data: bytes) -> None:
        """Write to the client, or cut it if it has left too much unread."""
        if self._ended or not data:
            return
        try:
            self._channel.write(data)
        except OSError:  # the client has closed the channel, and asyncssh is about to say so
            return
        unread = self._channel.get_write_buffer_size() + unsent(self._connection)
        if unread > self._server.options.queue and self._stream is not None:
            log.warning(
                "session %s of %s doesn't read and is cut: %d bytes wait for it", self._name, self._user, unread
            )
            self._ended = True
            self._server.do(self._server.topics.leave(self._name))
            self._channel.abort()

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
