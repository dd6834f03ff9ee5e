"""A message board over SSH, with the wormhole mailbox and the transit relay that its members need.

It speaks pico's ``pipe`` protocol, so that OpenSSH and that service's own clients work against it unchanged. What
is different on purpose:

* an access list is enforced, and nobody closes a public topic that somebody is on (see ``topics.py``);
* strangers have bounds (see ``bounds.py``), among them a rate for each key: one that writes faster is read slower;
* a subscriber that doesn't read has a queue of 256 KiB and is then cut; nobody waits for it;
* ``user`` answers as pico.sh's, and ``p2p`` says where the mailbox and the relay are;
* no wildcards for the user ``public``, and SSH's own keepalives instead of channel requests.

Every key is admitted; one that isn't known is the user ``public``. Treat the board as public: what is confidential
is encrypted by its members, end to end.

The way of a chunk: ``Session.data_received`` → ``Topics.publish`` → ``Fanout`` → ``Session.write``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import defaultdict
from typing import Any

import asyncssh
from asyncssh.kex import get_kex_algs

from p2p_ipython.board.server.arrivals import Arrivals
from p2p_ipython.board.server.fanout import Fanout
from p2p_ipython.board.server.guard import Guard
from p2p_ipython.board.server.limits import Bucket, Seldom, Unread, neighbourhood
from p2p_ipython.board.server.opening import Opened, Speaks
from p2p_ipython.board.server.options import Addresses, ServerOptions, outward_address, split_place
from p2p_ipython.board.server.ports import Ports
from p2p_ipython.board.server.services import Services
from p2p_ipython.board.server.session import KeyInUse, Session
from p2p_ipython.board.server.users import Users
from p2p_ipython.board.topics import PUBLIC, Action, Cut, Deliver, Ready, Topics
from p2p_ipython.config import stand_in_for_home

log = logging.getLogger(__name__)

GOODBYE = 1.0
"""How long a closing board waits for a client to take that in, s."""
OLD_SIGNATURES = {b"ssh-rsa", b"ssh-rsa-sha224@ssh.com", b"ssh-dss"}
"""The signatures of users that don't count, because SHA-1 or less is in them."""
LOOK_AROUND = 1.0
"""Between two looks for connections that have been without a session for too long, s."""
# What the last ten years' clients have, over one curve, with or without a second method that holds against quantum
# computers. No SHA-1, no curves of unexplained constants, no Diffie-Hellman over large
# numbers, whose larger groups take a tenth of a second each. Not ChaCha20, which costs asyncssh several times as much a
# packet.
ALGORITHMS = {
    "kex_algs": [name for name in map(bytes.decode, get_kex_algs()) if "25519-sha" in name and name[:3] != "gss"],
    "encryption_algs": ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr"],
    "mac_algs": ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"],
    "signature_algs": "-ssh-rsa",
    "compression_algs": ["none"],
}
"""The algorithms that the board takes, by asyncssh's options. ssh-audit has no failure to report."""


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
        self.arrivals: Arrivals[asyncssh.SSHServerConnection] = Arrivals(options)
        self.unread: Unread[Session] = Unread(options.queues, Session.unread)
        self.held = 0
        """Bytes of publishers that wait for a reader."""
        self._host = host
        self._services = services
        if services is not None:
            services.is_here = self.is_here
        self._key = key
        self._keys: dict[str, KeyInUse] = {}
        self._most_keys = options.keys
        self._warned: defaultdict[str, Seldom] = defaultdict(lambda: Seldom(options.say_every))
        self._looking: asyncio.TimerHandle | None = None
        self._ports = Ports(options, self._take)
        self._for: dict[asyncssh.SSHServerConnection, str] = {}
        self._ssh: asyncssh.SSHServerConnectionOptions
        self.ports: dict[Speaks, int] = {}
        """Where each of the board's protocols is served."""
        self.addresses: Addresses

    async def listen(self) -> None:
        """Start listening. ``serve`` does this. Raises ``OSError`` when a port can't be had; nothing listens then."""
        options = self.options
        stand_in_for_home()  # asyncssh asks for it, and reads nothing there
        self._ssh = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: _Connection(self),
            server_host_keys=[self._key],
            config=None,
            gss_host=None,  # without it, asyncssh looks this machine's full name up at each log-in
            encoding=None,
            line_editor=False,
            agent_forwarding=False,
            x11_forwarding=False,
            login_timeout=options.login_timeout,
            keepalive_interval=options.keepalive,
            keepalive_count_max=3,
            window=options.window,
            **ALGORITHMS,
        )
        for port, offered in self._offers():
            try:
                there = await self._ports.open(self._host, port, offered)
            except BaseException:
                self._ports.close()
                raise
            self.ports.update(dict.fromkeys(offered, there))
        self._look_around()
        host = self._host
        if ipaddress.ip_address(host).is_unspecified:
            host = outward_address(host)
        self.addresses = Addresses(
            host,
            self.ports[Speaks.SSH],
            *self.services_at(host),
            host_key=self._key.export_public_key("openssh").decode().strip(),
            fingerprint=self._key.get_fingerprint(),
        )

    def services_at(self, host: str) -> tuple[str, str]:
        """Return the mailbox's URL and the relay's hint, for somebody who reaches this machine at ``host``."""
        if self._services is None:
            return "", ""
        advertised, port = split_place(self.options.advertise or host)
        netloc = f"[{advertised}]" if ":" in advertised else advertised
        mailbox, relay = (port or self.ports[each] for each in (Speaks.MAILBOX, Speaks.RELAY))
        return f"ws://{netloc}:{mailbox}/v1", f"tcp:{netloc}:{relay}"

    def describe_services(self, host: str) -> dict[str, Any]:
        """Return the answer to ``p2p``, for somebody who reaches this machine at ``host``."""
        mailbox, relay = self.services_at(host)
        told: dict[str, Any] = {"mailbox": mailbox, "relay": relay, "port": self.ports[Speaks.SSH]}
        return told | ({"advertised": True} if self.options.advertise else {})

    async def close(self) -> None:
        """Stop listening, end every session, and the mailbox and the relay with them. Idempotent."""
        self._ports.close()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        ending = [asyncio.ensure_future(_end(connection)) for connection in self.connections]
        if ending:
            await asyncio.wait(ending)
        self.fanout.close()
        await self._ports.wait_closed()
        if self._services is not None:
            await self._services.close()

    def session(self, connection: asyncssh.SSHServerConnection, user: str, fingerprint: str) -> Session:
        """Make a session of a user's."""
        return Session(self, connection, user, fingerprint)

    def key(self, fingerprint: str) -> KeyInUse:
        """Return what the sessions of a key share."""
        now = asyncio.get_running_loop().time()
        if fingerprint not in self._keys:
            if len(self._keys) >= self._most_keys:
                idle = [name for name, key in self._keys.items() if not key.sessions and key.bucket.full(now)]
                for name in idle:
                    del self._keys[name]
                # Not at each key, when many are in use.
                self._most_keys = max(self.options.keys, 2 * len(self._keys))
            self._keys[fingerprint] = KeyInUse(Bucket(self.options.rate, self.options.burst, now))
        return self._keys[fingerprint]

    def room_for(self, key: KeyInUse) -> bool:
        """Return whether a key may have a session more; if there are too many, the key that has most gives one up."""
        if len(self.sessions) < self.options.all_sessions:
            return True
        most = max(self._keys.values(), key=lambda each: each.sessions)
        if most.sessions < key.sessions + 2:
            return False
        newest = next(each for each in reversed(self.sessions.values()) if each.key is most)
        newest.refuse("the board has too many sessions, and your key has most of them")
        return True

    def seldom(self, warning: str) -> Seldom:
        """Return what decides how often a kind of warning is logged."""
        return self._warned[warning]

    def is_here(self, address: str) -> bool:
        """Return whether an address has a session on this board."""
        return self.arrivals.is_here(address)

    def refused(self, why: str) -> None:
        """Count a connection that is refused, and say so in the log now and then."""
        if count := self.seldom("refused").say(asyncio.get_running_loop().time()):
            log.warning(
                "SSH connections refused: %d, the last because of %s; there are %d already",
                count, why, len(self.arrivals),
            )  # fmt: skip

    def _offers(self) -> list[tuple[int, set[Speaks]]]:
        """Return the ports on which to listen, and the protocols of each."""
        ports = [(self.options.port, {Speaks.SSH})]
        if self._services is not None:
            options = self.options
            for speaks, port in ((Speaks.MAILBOX, options.mailbox_port), (Speaks.RELAY, options.relay_port)):
                same = [offered for there, offered in ports if port and port == there]
                if port is None:
                    ports[0][1].add(speaks)
                elif same:
                    same[0].add(speaks)
                else:
                    ports.append((port, {speaks}))
        return ports

    def _take(self, opened: Opened, transport: asyncio.Transport) -> None:
        """Hand a connection to its protocol, with what it has said."""
        if opened.speaks is not Speaks.SSH:
            assert self._services is not None
            self._services.take(opened, transport)
            return
        connection = asyncssh.SSHServerConnection(asyncio.get_running_loop(), self._ssh)
        if opened.address is not None:
            self._for[connection] = opened.address
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if opened.data:
            connection.data_received(opened.data)

    def client_of(self, connection: asyncssh.SSHServerConnection) -> str:
        """Return the address of a new connection's client, which a proxy may have given."""
        host, port = connection.get_extra_info("peername")[:2]
        if connection in self._for:
            host = self._for.pop(connection)
            connection.set_extra_info(peername=(host, port))
        return str(host)

    def _look_around(self) -> None:
        loop = asyncio.get_running_loop()
        for connection in self.arrivals.overdue(loop.time()):
            self.arrivals.leave(connection)
            dismiss(connection, f"no session for {self.options.idle:g} s")
        self._looking = loop.call_later(LOOK_AROUND, self._look_around)

    def flush(self) -> None:
        """Write now what waits to be written together."""
        self.fanout.flush_all()

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


def dismiss(connection: asyncssh.SSHServerConnection, word: str) -> None:
    """End a connection with a word: a line, if SSH has not begun to speak, else SSH's own message."""
    parts: Any = connection
    if parts._transport is None:
        return
    if not parts._client_version:
        parts._transport.write(f"{word}\r\n".encode())
        connection.abort()
    else:
        connection.disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, word)


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
        self.address = ""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._guard = Guard(conn, self._server.options, self._server.seldom("answers"))
        self._server.connections.add(conn)
        self._arrive(self._server.client_of(conn))

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.close()
        self._server.connections.discard(self._connection)
        self._server.arrivals.leave(self._connection)

    def _arrive(self, host: str) -> None:
        now = asyncio.get_running_loop().time()
        answer = self._server.arrivals.arrive(self._connection, neighbourhood(host), now)
        if answer.leaves is not None:
            dismiss(answer.leaves, "you made room for others: there are too many connections")
        if answer.refused:
            self._server.refused(answer.refused)
            dismiss(self._connection, answer.refused)
        elif answer.wait:
            self._guard.wait(answer.wait)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        # The key of the last call is the one that signed; a key that is only offered comes before.
        self._key = key
        # The option of asyncssh's is about what it announces, and not about what it takes.
        vars(key)["all_sig_algorithms"] = set(key.all_sig_algorithms) - OLD_SIGNATURES
        self._offers += 1
        if self._offers > self._server.options.offers:
            self._connection.abort()
            return False
        return True

    def auth_completed(self) -> None:
        now = asyncio.get_running_loop().time()
        named = self._server.users.name_of(self._key.public_data) != PUBLIC
        refused = self._server.arrivals.prove(self._connection, self._key.get_fingerprint(), now, named=named)
        if refused:
            self._server.refused(refused)
            dismiss(self._connection, refused)

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        fingerprint = self._key.get_fingerprint()
        options, key = self._server.options, self._server.key(fingerprint)
        if key.sessions >= options.sessions + options.refused_sessions or not self._server.room_for(key):
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many sessions")
        user = self._server.users.name_of(self._key.public_data)
        return self._server.session(self._connection, user, fingerprint)
