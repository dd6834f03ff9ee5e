"""A message board over SSH, with the wormhole mailbox and the transit relay that its members need.

It speaks pico's ``pipe`` protocol, so that OpenSSH and that service's own clients work against it unchanged. What
is different on purpose:

* an access list is enforced, and nobody closes a public topic that somebody is on (see ``topics.py``);
* logging in may take 10 s; a key has at most 64 sessions, and a rate limit: a key that writes faster is read slower;
* a subscriber that doesn't read has a queue of 256 KiB and is then cut; nobody waits for it;
* ``user`` answers as pico.sh's, and ``p2p`` says where the mailbox and the relay are;
* no wildcards for the user ``public``, no pseudo-terminals, and SSH's own keepalives instead of channel requests.

Every key is admitted; one that isn't known is the user ``public``. Treat the board as public: what is confidential
is encrypted by its members, end to end.

The way of a chunk: ``Session.data_received`` → ``Topics.publish`` → ``Fanout`` → ``Session.write``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging

import asyncssh

from p2p_ipython.board.server.fanout import Fanout
from p2p_ipython.board.server.guard import Guard
from p2p_ipython.board.server.limits import MAX_OFFERS, REFUSED_SESSIONS, Bucket, Seldom
from p2p_ipython.board.server.options import Addresses, ServerOptions, outward_address
from p2p_ipython.board.server.services import Services
from p2p_ipython.board.server.session import KeyInUse, Session
from p2p_ipython.board.server.users import Users
from p2p_ipython.board.topics import Action, Cut, Deliver, Ready, Topics
from p2p_ipython.config import stand_in_for_home

log = logging.getLogger(__name__)

GOODBYE = 1.0
"""How long a closing board waits for a client to take that in, s."""
KEYS = 1000
"""How many idle keys' rate limits are remembered before the full ones are forgotten."""


class BoardServer:
    """A board that serves. Made by ``serve``."""

    has_services = True
    """Whether ``serve`` gives it a mailbox and a relay."""

    def __init__(
        self, options: ServerOptions, host: str, users: Users, services: Services | None, key: asyncssh.SSHKey
    ) -> None:
        self.options = options
        self.users = users
        self.topics = Topics()
        self.sessions: dict[str, Session] = {}
        self.fanout = Fanout(self.sessions)
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self._host = host
        self._services = services
        self._key = key
        self._keys: dict[str, KeyInUse] = {}
        self._refused = Seldom()
        self._acceptor: asyncssh.SSHAcceptor
        self.addresses: Addresses

    async def listen(self) -> None:
        """Start listening for SSH. ``serve`` does this."""
        options = self.options
        stand_in_for_home()  # asyncssh asks for it, and reads nothing there
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
        """Return the mailbox's URL and the relay's hint, for somebody who reaches this machine at ``host``."""
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

    def key(self, fingerprint: str) -> KeyInUse:
        """Return what the sessions of a key share."""
        now = asyncio.get_running_loop().time()
        if fingerprint not in self._keys:
            if len(self._keys) >= KEYS:
                idle = [name for name, key in self._keys.items() if not key.sessions and key.bucket.full(now)]
                for name in idle:
                    del self._keys[name]
            self._keys[fingerprint] = KeyInUse(Bucket(self.options.rate, self.options.burst, now))
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


class _Connection(asyncssh.SSHServer):
    """A connection: admits every key, and nothing but keys."""

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
        if self._server.key(fingerprint).sessions >= self._server.options.sessions + REFUSED_SESSIONS:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many sessions")
        user = self._server.users.name_of(self._key.public_data)
        return self._server.session(self._connection, user, fingerprint)
