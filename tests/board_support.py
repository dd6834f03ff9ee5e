"""What the tests of boards share: keys, files, a board that runs, a listener that can be waited for.

Nothing here reads the home directory or the agent of whoever runs the tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from p2p_ipython.board.address import BoardAddress, SSHFiles
from p2p_ipython.board.base import BoardReport, BoardState
from p2p_ipython.board.server import BoardServer, ServerOptions, serve
from p2p_ipython.board.ssh import SSHBoard

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
async def running(**options: Any) -> AsyncIterator[BoardServer]:
    """A board on a free port of loopback, that is closed at the end."""
    server = await serve(ServerOptions(**{"port": 0, **options}))
    try:
        yield server
    finally:
        await server.close()
        assert not server.sessions
        assert not server.connections


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
