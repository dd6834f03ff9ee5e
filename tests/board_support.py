"""What the tests of boards share: keys, files, a board that runs, a listener that can be waited for.

Nothing here reads the home directory or the agent of whoever runs the tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import asyncssh

from p2p_ipython.board.base import BoardReport, BoardState
from p2p_ipython.board.client.address import BoardAddress, SSHFiles
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.board.pico.server import PicoServer
from p2p_ipython.board.server.options import ServerOptions
from p2p_ipython.board.server.serve import serve
from p2p_ipython.board.server.server import BoardServer

PATIENCE = 20.0
"""How long anything may take before a test fails, s."""


@dataclass(frozen=True)
class Key:
    """A key pair in a folder of the test's."""

    path: Path
    key: asyncssh.SSHKey

    @property
    def line(self) -> str:
        return self.key.export_public_key("openssh").decode().strip()

    @property
    def fingerprint(self) -> str:
        return self.key.get_fingerprint()


def make_key(folder: Path, name: str = "id", kind: str = "ssh-ed25519", passphrase: str | None = None) -> Key:
    """Make a key pair, NAME and NAME.pub."""
    options = {"key_size": 2048} if kind == "ssh-rsa" else {}
    key = asyncssh.generate_private_key(kind, **options)
    path = folder / name
    if passphrase:
        key.write_private_key(str(path), passphrase=passphrase, rounds=50)
    else:
        key.write_private_key(str(path))
    key.write_public_key(f"{path}.pub")
    path.chmod(0o600)
    return Key(path, key)


def ssh_files(folder: Path, config: str | None = None) -> SSHFiles:
    """A user's SSH files in a folder of the test's, without an agent."""
    home = folder / "dot-ssh"
    home.mkdir(exist_ok=True)
    if config is not None:
        (home / "config").write_text(config)
    return SSHFiles(home, home / "config", (home / "known_hosts",), folder / "accepted", agent=False)


class Recorder:
    """A listener that keeps everything and can be waited for."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.reports: list[BoardReport] = []
        self._news = asyncio.Event()

    def on_line(self, line: bytes) -> None:
        self.lines.append(line)
        self._news.set()

    def on_board(self, report: BoardReport) -> None:
        self.reports.append(report)
        self._news.set()

    @property
    def states(self) -> list[BoardState]:
        return [report.state for report in self.reports]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that tells nobody when it happens."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(make: type[BoardServer] = BoardServer, **options: Any) -> AsyncIterator[BoardServer]:
    """A board on a free port of loopback, that is closed at the end."""
    server = await serve(ServerOptions(**{"port": 0, **options}), make)
    try:
        yield server
    finally:
        await server.close()
        assert not server.sessions
        assert not server.connections


@asynccontextmanager
async def pico_board(**options: Any) -> AsyncIterator[BoardServer]:
    """A board on a free port of loopback with all the weaknesses of pico's; it has no mailbox and no relay."""
    async with running(PicoServer, **options) as server:
        yield server


def client(server: BoardServer, topic: str, listener: Recorder, key: Key, folder: Path, **options: Any) -> SSHBoard:
    """A session with a board, not yet opened, that knows the board's host key."""
    where = server.addresses
    options.setdefault("pin", where.host_key)
    options.setdefault("files", ssh_files(folder))
    return SSHBoard(BoardAddress(where.host, where.port), topic, listener, identity=key.path, **options)


@asynccontextmanager
async def joined(*boards: Any) -> AsyncIterator[None]:
    """Boards that are open, and closed at the end."""
    try:
        for board in boards:
            await board.open()
        yield
    finally:
        for board in boards:
            await board.close()


@dataclass(frozen=True)
class Answer:
    out: bytes
    err: bytes
    status: int | None


class Talk(Protocol):
    """A command that runs on a board."""

    async def write(self, data: bytes) -> None: ...
    async def eof(self) -> None: ...
    async def read_until(self, wanted: bytes) -> bytes:
        """Everything that has come on standard output, once ``wanted`` is in it."""
        ...

    async def end(self) -> Answer:
        """What came in all; waits for the board to end it."""
        ...

    async def hang_up(self) -> None: ...


class AsyncsshTalk:
    def __init__(self, connection: asyncssh.SSHClientConnection, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self.connection, self.process, self.out = connection, process, b""

    @classmethod
    async def start(cls, port: int, key: Key, command: str) -> AsyncsshTalk:
        connection = await asyncssh.connect(
            "127.0.0.1", port, known_hosts=None, client_keys=[key.key], config=None, agent_path=None
        )
        return cls(connection, await connection.create_process(command, encoding=None))

    async def write(self, data: bytes) -> None:
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    async def eof(self) -> None:
        self.process.stdin.write_eof()

    async def read_until(self, wanted: bytes) -> bytes:
        while wanted not in self.out:
            data = await self.process.stdout.read(65536)
            assert data, f"ended after {self.out!r}"
            self.out += data
        return self.out

    async def end(self) -> Answer:
        self.out += await self.process.stdout.read()
        err = await self.process.stderr.read()
        await self.process.wait_closed()
        return Answer(self.out, err, self.process.exit_status)

    async def hang_up(self) -> None:
        self.connection.abort()
        await self.connection.wait_closed()


def on_topic(server: BoardServer, topic: str) -> int:
    """How many sessions are on a topic, ``owner/name``; what asks the board something else meanwhile doesn't count."""
    listed = server.topics.listing(topic.split("/", maxsplit=1)[0])
    return sum(len(who) for entry in listed if entry.topic == topic for _, who in entry.sessions)


class Bench:
    """A board, its users' keys, and one kind of client."""

    def __init__(self, server: BoardServer, keys: dict[str, Key], kind: Any, stack: AsyncExitStack) -> None:
        self.server, self.keys, self.port = server, keys, server.addresses.port
        self._kind, self._stack = kind, stack

    async def start(self, user: str, command: str) -> Talk:
        talk: Talk = await self._kind.start(self.port, self.keys[user], command)
        self._stack.push_async_callback(talk.hang_up)
        return talk

    async def ask(self, user: str, command: str) -> Answer:
        talk = await self.start(user, command)
        return await talk.end()

    async def join(self, user: str, command: str, topic: str) -> Talk:
        """Start a command, and wait until it is on ``topic``."""
        before = self.on(topic)
        talk = await self.start(user, command)
        await until(lambda: self.on(topic) == before + 1)
        return talk

    def on(self, topic: str) -> int:
        """How many sessions are on a topic."""
        return on_topic(self.server, topic)


@asynccontextmanager
async def benched(board: Any, kind: Any, folder: Path, **options: Any) -> AsyncIterator[Bench]:
    """A bench with a board (``running`` or ``pico_board``), its users alice, bob and carol, and a stranger's key."""
    keys = {name: make_key(folder, name) for name in ("alice", "bob", "carol", "stranger")}
    users = {name: keys[name].line for name in ("alice", "bob", "carol")}
    async with asyncio.timeout(3 * PATIENCE), board(users_inline=users, **options) as server, AsyncExitStack() as stack:
        yield Bench(server, keys, kind, stack)
