"""A message board over SSH, with the wormhole mailbox and the transit relay that its members need.

It speaks pico's ``pipe`` protocol, so that OpenSSH and that service's own clients work against it unchanged. What
is different on purpose:

* an access list is enforced, and nobody closes a public topic that somebody is on (see ``topics.py``);
* logging in may take 10 s; a key has at most 64 sessions, and a rate limit: who writes faster is read slower;
* a subscriber that doesn't read has a queue of 256 KiB and is then cut; nobody waits for it;
* ``user`` answers as pico.sh's, and ``p2p`` says where the mailbox and the relay are;
* no wildcards for the user ``public``, no pseudo-terminals, and SSH's own keepalives instead of channel requests.

Every key is let in, and whoever isn't known is the user ``public``. Treat the board as public: what is confidential
is encrypted by its members, end to end.

The way of a chunk: ``Session.data_received`` → ``Topics.publish`` → ``_Fanout`` → ``Session.write``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh

from p2p_ipython.board.server import commands, descriptors
from p2p_ipython.board.server.guard import Forgetful, Guard, unsent
from p2p_ipython.board.server.host_key import host_key
from p2p_ipython.board.server.limits import (
    MAX_COMMAND,
    MAX_CONNECTIONS,
    MAX_OFFERS,
    OPEN_SESSIONS,
    Bucket,
    Seldom,
    connections_each,
)
from p2p_ipython.board.server.services import Services
from p2p_ipython.board.server.users import Users
from p2p_ipython.board.topics import Action, Cut, Deliver, Denied, Direction, Join, Ready, Topics
from p2p_ipython.errors import BoardError

log = logging.getLogger(__name__)

PORT = 2222
BATCH = 0.005
"""Under load, chunks of a topic that come within this time, s, are written together: one packet per reader."""
AT_ONCE = 50
"""Packets that are written in ``BATCH`` before that counts as load."""
CUT_AFTER = 10.0
"""How long a session that is being ended may take to read what it was sent, s."""
GOODBYE = 1.0
"""How long a closing board waits for a client to take that in, s."""
KEYS = 1000
"""How many idle keys' rate limits are remembered before the full ones are forgotten."""


@dataclass(frozen=True)
class ServerOptions:
    """What a board is to be. A port of 0 picks one. ``data`` None keeps nothing on disk.

    ``users`` is a file, ``users_inline`` maps names to public key lines; see ``users.py``. ``advertise`` is the
    host that members are told for the mailbox and the relay, where it isn't the one that they connected to.
    ``rate`` (bytes/s) and ``burst`` (bytes) are what a key may write; ``queue`` (bytes) is what a subscriber may
    leave unread; ``sessions`` is per key. ``connections`` is per port, and less where the process may open fewer
    files. ``quirks``: behave as pico's service does, for tests of what has to live with that (see ``like_pico.py``);
    none of the limits holds then.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    mailbox_port: int = 0
    relay_port: int = 0
    data: Path | None = None
    users: Path | None = None
    users_inline: Mapping[str, str] = field(default_factory=dict)
    advertise: str | None = None
    login_timeout: float = 10.0
    keepalive: float = 5.0
    queue: int = 256 << 10
    sessions: int = 64
    connections: int = MAX_CONNECTIONS
    rate: float = 256 << 10
    burst: float = 256 << 10
    quirks: bool = False


@dataclass(frozen=True)
class Addresses:
    """Where a board is. ``host_key`` is a public key line, ``fingerprint`` its SHA256.

    ``mailbox`` and ``relay`` are "" where it has none. ``host`` is an address that can be connected to, also where
    the board listens on all of them.
    """

    host: str
    port: int
    mailbox: str
    relay: str
    host_key: str
    fingerprint: str


async def serve(options: ServerOptions) -> BoardServer:
    """Start a board; it serves until ``close``. The running loop becomes the process's Twisted reactor.

    Raises ``ConfigError`` for a file that can't be used, ``BoardError`` when a port can't be had.
    """
    # At its info level asyncssh logs commands, and topics are secrets.
    asyncssh.set_log_level(logging.WARNING)
    options = replace(options, connections=min(options.connections, connections_each(descriptors.limit())))
    key = host_key(options.data)
    users = Users(options.users, options.users_inline)
    host = await _literal(options.host)
    server: BoardServer
    services: Services | None = None
    if options.quirks:
        from p2p_ipython.board.pico.server import PicoServer  # it builds on this module

        server = PicoServer(options, host, users, None, key)
    else:
        try:
            services = Services(host, options.mailbox_port, options.relay_port, options.connections)
        except OSError as error:
            raise _taken(error) from None
        server = BoardServer(options, host, users, services, key)
    try:
        await server.listen()
    except BaseException as error:
        if services is not None:
            await services.close()
        if isinstance(error, OSError):
            raise _taken(error) from None
        raise
    log.info("board listens on %s port %d", server.addresses.host, server.addresses.port)
    return server


def _taken(error: OSError) -> BoardError:
    return BoardError(
        f"the board can't listen: {error}", hint="Is another board running? Give another --port (0 picks a free one)."
    )


async def _literal(host: str) -> str:
    """An IP address for ``host``; Twisted listens on nothing else."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError as error:
        raise BoardError(f"{host} is no address of this machine: {error}", hint="Give an address as --host.") from None
    return str(found[0][4][0])


def outward_address(version: int = 4) -> str:
    """The address by which others on the network are likely to reach this machine. Sends nothing."""
    # Connecting a datagram socket only chooses a route. Both addresses are reserved for documentation.
    family, there = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((there, 9))
            return str(probe.getsockname()[0])
    except OSError:  # there is no network but loopback
        return "127.0.0.1" if version == 4 else "::1"


class BoardServer:
    """A board that serves. Made by ``serve``."""

    def __init__(
        self, options: ServerOptions, host: str, users: Users, services: Services | None, key: asyncssh.SSHKey
    ) -> None:
        self.options = options
        self.users = users
        self.topics = Topics()
        self.sessions: dict[str, Session] = {}
        self.fanout = _Fanout(self.sessions)
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self._host = host
        self._services = services
        self._key = key
        self._keys: dict[str, _Key] = {}
        self._refused = Seldom()
        self._acceptor: asyncssh.SSHAcceptor
        self.addresses: Addresses

    async def listen(self) -> None:
        """Start listening for SSH. ``serve`` does this."""
        options = self.options
        self._acceptor = await asyncssh.listen(
            self._host,
            options.port,
            server_factory=lambda: _Connection(self),
            server_host_keys=[self._key],
            config=None,
            encoding=None,
            allow_pty=False,
            line_editor=False,
            agent_forwarding=False,
            x11_forwarding=False,
            compression_algs=["none"],
            # Not ChaCha20, which costs asyncssh several times as much a packet.
            encryption_algs=["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr"],
            # Not Diffie-Hellman over large numbers, whose larger groups take a tenth of a second each.
            kex_algs="-diffie-hellman*,rsa*,gss*",
            login_timeout=options.login_timeout,
            keepalive_interval=options.keepalive,
            keepalive_count_max=3,
            # What a session that is being read slower may leave in our memory.
            window=128 << 10,
        )
        host = self._host
        if ipaddress.ip_address(host).is_unspecified:
            host = outward_address(ipaddress.ip_address(host).version)
        self.addresses = Addresses(
            host,
            self._acceptor.get_port(),
            *self.services_at(host),
            host_key=self._key.export_public_key("openssh").decode().strip(),
            fingerprint=self._key.get_fingerprint(),
        )

    def services_at(self, host: str) -> tuple[str, str]:
        """The URL of the mailbox and the hint of the relay, for somebody who reaches this machine at ``host``."""
        host = self.options.advertise or host
        if self._services is None:
            return "", ""
        netloc = f"[{host}]" if ":" in host else host
        return f"ws://{netloc}:{self._services.mailbox_port}/v1", f"tcp:{netloc}:{self._services.relay_port}"

    async def close(self) -> None:
        """Stop listening, end every session, and the mailbox and the relay with them. Idempotent."""
        self._acceptor.close()
        ending = [asyncio.ensure_future(_end(connection)) for connection in self.connections]
        if ending:
            await asyncio.wait(ending)
        self.fanout.close()
        await self._acceptor.wait_closed()
        if self._services is not None:
            await self._services.close()

    def session(self, connection: asyncssh.SSHServerConnection, user: str, fingerprint: str) -> Session:
        """Make a session of a user's."""
        return Session(self, connection, user, fingerprint)

    def key(self, fingerprint: str) -> _Key:
        """What is known of a key that is in use."""
        now = asyncio.get_running_loop().time()
        if fingerprint not in self._keys:
            if len(self._keys) >= KEYS:
                idle = [name for name, key in self._keys.items() if not key.sessions and key.bucket.full(now)]
                for name in idle:
                    del self._keys[name]
            self._keys[fingerprint] = _Key(Bucket(self.options.rate, self.options.burst, now))
        return self._keys[fingerprint]

    def refused(self) -> None:
        """Count a connection that is refused because there are enough, and say so in the log now and then."""
        if count := self._refused.say(asyncio.get_running_loop().time()):
            log.warning("SSH connections refused: %d; there are %d already", count, self.options.connections)

    def do(self, actions: list[Action]) -> None:
        """Perform what the topics decided."""
        for action in actions:
            match action:
                case Deliver():
                    self.fanout.deliver(action)
                case Ready(sessions):
                    for name in sessions:
                        self.sessions[name].reader_came()
                case Cut(sessions):
                    self.fanout.flush_all()
                    for name in sessions:
                        self.sessions[name].end()


async def _end(connection: asyncssh.SSHServerConnection) -> None:
    """Say good-bye to a client, or cut it if it doesn't listen."""
    connection.close()
    try:
        await asyncio.wait_for(connection.wait_closed(), GOODBYE)
    except TimeoutError:
        connection.abort()
        await connection.wait_closed()


@dataclass
class _Key:
    bucket: Bucket
    sessions: int = 0


class _Fanout:
    """Writes chunks to their readers: at once while there is little to write, in batches when there is much.

    A packet costs far more than the bytes in it, so under load what comes within ``BATCH`` is written together.
    """

    def __init__(self, sessions: dict[str, Session]) -> None:
        self._sessions = sessions
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[Deliver]] = {}
        self._since = 0.0
        self._written = 0
        self._timer: asyncio.TimerHandle | None = None

    def deliver(self, chunk: Deliver) -> None:
        """Write a chunk, now or within ``BATCH``; chunks of a topic keep their order."""
        waiting = self._waiting.get(chunk.topic)
        if waiting is not None:
            waiting.append(chunk)
            return
        now = self._loop.time()
        if now - self._since >= BATCH:
            self._since, self._written = now, 0
        if self._written < AT_ONCE:
            self._written += len(chunk.to)
            self._write([chunk])
            # Writing to many takes longer than BATCH: what came in the meantime is load, too.
            self._since = max(self._since, self._loop.time() - BATCH / 2)
            return
        self._waiting[chunk.topic] = [chunk]
        if self._timer is None:
            self._timer = self._loop.call_later(BATCH, self.flush_all)

    def flush_all(self) -> None:
        """Write whatever waits, now."""
        self.close()
        waiting, self._waiting = self._waiting, {}
        for chunks in waiting.values():
            self._write(chunks)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self, chunks: list[Deliver]) -> None:
        """Write chunks of one topic. Runs with the same readers are joined; a writer gets its own left out."""
        start = 0
        while start < len(chunks):
            to = chunks[start].to
            end = start + 1
            while end < len(chunks) and chunks[end].to is to:
                end += 1
            run = chunks[start:end]
            start = end
            data = b"".join(chunk.data for chunk in run)
            left_out = {chunk.but for chunk in run} - {None}
            for name in to:
                session = self._sessions.get(name)
                if session is None:
                    continue
                if name in left_out:
                    session.write(b"".join(chunk.data for chunk in run if chunk.but != name))
                else:
                    session.write(data)


class _Connection(asyncssh.SSHServer):
    """A connection: lets every key in, and nothing but keys."""

    def __init__(self, server: BoardServer) -> None:
        self._server = server
        self._connection: asyncssh.SSHServerConnection
        self._guard: Guard
        self._key: asyncssh.SSHKey
        self._offers = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        options = self._server.options
        self._connection = conn
        self._guard = Guard(conn, options.rate, options.burst, options.queue)
        self._server.connections.add(conn)
        if len(self._server.connections) > options.connections:
            self._server.refused()
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.close()
        self._server.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        # The key of the last call is the one that signed; a key that is only offered comes before.
        self._key = key
        self._offers += 1
        if self._offers > MAX_OFFERS:
            self._connection.abort()
            return False
        return True

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        fingerprint = self._key.get_fingerprint()
        if self._server.key(fingerprint).sessions >= OPEN_SESSIONS * self._server.options.sessions:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many sessions")
        user = self._server.users.name_of(self._key.public_data)
        return self._server.session(self._connection, user, fingerprint)


class Session(asyncssh.SSHServerSession[bytes]):
    """A session: runs one command, and is then on at most one topic."""

    def __init__(
        self, server: BoardServer, connection: asyncssh.SSHServerConnection, user: str, fingerprint: str
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
        """Publish: the reader that this publisher has waited for is there."""
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
