"""The board client in trouble: each error from a real socket or server, and what the client does about it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from board_support import PATIENCE, Key, Recorder, client, joined, make_key, running, ssh_files, until

from p2p_ipython.board import lines as lines_module
from p2p_ipython.board.base import BoardState
from p2p_ipython.board.client import connection as connection_module
from p2p_ipython.board.client import ssh as ssh_module
from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.board.client.known_hosts import remember_host_key
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.board.client.tunnel import Tunnel
from p2p_ipython.config import Settings
from p2p_ipython.errors import (
    BoardError,
    BoardRefused,
    BoardUnreachable,
    ConfigError,
    HostKeyChanged,
    HostKeyUnknown,
    KeyRefused,
    NoKey,
)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    left = [t for t in threading.enumerate() if t.name.startswith(("p2p-board", "Thread-"))]
    for thread in left:  # one may be on its last line
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in left), f"threads of the client are still there: {left}"


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path)


def at(port: int, key: Key, folder: Path, listener: Recorder | None = None, **options: Any) -> SSHBoard:
    """A session with whatever listens on a port."""
    options.setdefault("files", ssh_files(folder))
    options.setdefault("pin", key.line)
    return SSHBoard(BoardAddress("127.0.0.1", port, "me"), "t", listener or Recorder(), identity=key.path, **options)


async def failure(board: SSHBoard) -> BoardError:
    """What ``open`` raises; the hint is checked to be there."""
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BoardError) as caught:
            await board.open()
        await board.close()
    assert caught.value.hint
    return caught.value


@asynccontextmanager
async def tcp(handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A server that isn't SSH's."""
    tasks = set()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await until(lambda: not tasks)


@asynccontextmanager
async def sshd(handler: Any = None, *, host_key: Key, **options: Any) -> AsyncIterator[int]:
    """An SSH server of asyncssh's with one process handler for all commands."""
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[host_key.key], process_factory=handler, config=None, encoding=None, **options
    )
    try:
        yield server.get_port()
    finally:
        server.close()
        await server.wait_closed()


class Anybody(asyncssh.SSHServer):
    """Lets every key in and keeps what was offered."""

    offered: list[str]

    def __init__(self) -> None:
        self.connections: list[asyncssh.SSHServerConnection] = []

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self.offered.append(key.get_fingerprint())
        return True


def anybody() -> type[Anybody]:
    return type("Anybody", (Anybody,), {"offered": []})


# Each error, and what it says


async def test_a_name_that_does_not_exist(key, tmp_path):
    for name in ("no-such-host.invalid", "a..b"):
        board = SSHBoard(BoardAddress(name), "t", Recorder(), identity=key.path, files=ssh_files(tmp_path))
        error = await failure(board)
        assert isinstance(error, BoardUnreachable)
        assert f"there is no host called {name}" in str(error)


async def test_a_port_where_nothing_listens(key, tmp_path):
    with socket.socket() as taken:  # so that no other test's server gets it meanwhile
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        error = await failure(at(port, key, tmp_path))
    assert isinstance(error, BoardUnreachable)
    assert f"nothing listens at 127.0.0.1 port {port}\nIs the board running?" in str(error)


async def test_a_server_that_says_nothing(key, tmp_path):
    async with tcp(lambda reader, writer: asyncio.sleep(PATIENCE)) as port:
        error = await failure(at(port, key, tmp_path, settings=Settings(connect_timeout=0.5)))
    assert isinstance(error, BoardUnreachable)
    assert "does not speak SSH" in str(error)


async def test_a_server_that_is_not_ssh(key, tmp_path):
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x\r\n" * 200)
        await writer.drain()
        await reader.read()

    async with tcp(http) as port:
        error = await failure(at(port, key, tmp_path))
    assert isinstance(error, BoardUnreachable)
    assert "does not speak SSH" in str(error)


async def test_a_board_that_refuses_a_newcomer_is_quoted(key, tmp_path):
    async with running(half_open_each=0) as server:
        error = await failure(at(server.addresses.port, key, tmp_path))
    assert isinstance(error, BoardUnreachable)
    assert "refuses the connection: too many connections from your address are logging in; try again" in str(error)


async def test_a_server_that_does_not_let_the_key_in(key, tmp_path):
    async with sshd(host_key=key, authorized_client_keys=asyncssh.import_authorized_keys("")) as port:
        error = await failure(at(port, key, tmp_path))
    assert isinstance(error, KeyRefused)
    assert key.fingerprint in str(error)


async def test_an_unknown_host_key_is_never_accepted_silently(key, tmp_path):
    async with running() as server:
        board = client(server, "t", Recorder(), key, tmp_path, pin=None)
        error = await failure(board)
        assert isinstance(error, HostKeyUnknown)
        assert f"--accept-host-key {server.addresses.fingerprint}" in str(error)
        assert not server.sessions
        board = client(server, "t", Recorder(), key, tmp_path, pin=server.addresses.fingerprint)
        async with joined(board):
            assert board.host_key == server.addresses.host_key
            assert board.route is not None
            remember_host_key(board.route, board.host_key, tmp_path / "accepted")
        async with joined(client(server, "t", Recorder(), key, tmp_path, pin=None)):
            pass


async def test_a_changed_host_key_stops_everything(key, tmp_path):
    async with running() as server:
        error = await failure(client(server, "t", Recorder(), key, tmp_path, pin=key.line))
        assert isinstance(error, HostKeyChanged)
        name = f"[127.0.0.1]:{server.addresses.port}"
        (ssh_files(tmp_path).folder / "known_hosts").write_text(f"{name} {key.line}\n")
        error = await failure(client(server, "t", Recorder(), key, tmp_path, pin=None))
        assert isinstance(error, HostKeyChanged)


async def test_without_a_key_nothing_is_connected_to(tmp_path):
    async with running() as server:
        board = SSHBoard(
            BoardAddress("127.0.0.1", server.addresses.port), "t", Recorder(), files=ssh_files(tmp_path), pin=None
        )
        error = await failure(board)
        assert isinstance(error, NoKey)
        assert "ssh-keygen" in error.hint


async def test_a_board_that_refuses_the_topic_says_why(key, tmp_path):
    async with running(sessions=0) as server:
        error = await failure(client(server, "t", Recorder(), key, tmp_path))
        assert isinstance(error, BoardRefused)
        assert "too many sessions" in str(error)


async def test_closing_while_connecting_ends_at_once(key, tmp_path):
    async with tcp(lambda reader, writer: asyncio.sleep(PATIENCE)) as port:
        board = at(port, key, tmp_path)
        opening = asyncio.ensure_future(board.open())
        await until(lambda: board._connection and board._connection.way._socket)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await board.close()
    assert board.report.state is BoardState.CLOSED


# What is shown to the board


async def test_exactly_one_key_is_offered_and_the_configuration_is_honoured(key, tmp_path):
    server_class = anybody()
    other = make_key(tmp_path, "other")

    async def pipe(process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.exit(0)

    async with sshd(pipe, host_key=key, server_factory=server_class) as port:
        config = (
            f"Host board\n HostName 127.0.0.1\n Port {port}\n IdentityFile {other.path}\n IdentityFile {key.path}\n"
        )
        files = ssh_files(tmp_path, config)
        make_key(files.folder, "id_ed25519")
        board = SSHBoard(BoardAddress("board"), "t", Recorder(), files=files, pin=key.line)
        async with joined(board):
            assert board.key is not None
            assert board.key.fingerprint == other.fingerprint
    assert set(server_class.offered) == {other.fingerprint}


async def test_rsa_keys_sign_with_sha2_512(tmp_path):
    host, rsa = make_key(tmp_path, "host"), make_key(tmp_path, "rsa", kind="ssh-rsa")

    async def pipe(process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.exit(0)

    options = {"server_factory": anybody(), "signature_algs": ["rsa-sha2-512", "ssh-ed25519"]}
    async with sshd(pipe, host_key=host, **options) as port, joined(at(port, rsa, tmp_path, pin=host.line)):
        pass


async def test_a_board_like_picos_that_knows_neither_p2p_nor_user(key, tmp_path):
    async def pico(process: asyncssh.SSHServerProcess[bytes]) -> None:
        assert process.command
        if process.command.startswith("pipe"):
            await process.stdin.read()
        process.exit(0)

    async with sshd(pico, host_key=key, server_factory=anybody()) as port:
        board = at(port, key, tmp_path)
        async with joined(board):
            assert board.user == ""
            assert await board.services() is None
            assert await board.ask("nothing") == ("", 0)


@pytest.mark.parametrize(
    "answer", [b"[]", b"{}", b'{"mailbox": "http://x", "relay": "tcp:x:1"}', b'{"mailbox": 1, "relay": 2}', b"[" * 9000]
)
async def test_attack_an_answer_that_is_no_address_is_no_address(key, tmp_path, answer):
    async def liar(process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.command == "p2p":
            process.stdout.write(answer)
        elif process.command == "user":
            process.stdout.write(b"\x1b[2J not a name\n")
        else:
            await process.stdin.read()
        process.exit(0)

    async with sshd(liar, host_key=key, server_factory=anybody()) as port:
        board = at(port, key, tmp_path)
        async with joined(board):
            assert board.user == ""
            assert await board.services() is None


async def test_attack_an_answer_without_an_end_is_not_read_for_ever(key, tmp_path):
    async def endless(process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.command == "p2p":
            with contextlib.suppress(BrokenPipeError, asyncssh.Error):
                while True:
                    process.stdout.write(b"x" * 10000)
                    await process.stdout.drain()
        elif process.command != "user":
            await process.stdin.read()
        process.exit(0)

    async with sshd(endless, host_key=key, server_factory=anybody()) as port:
        board = at(port, key, tmp_path)
        async with joined(board):
            with pytest.raises(BoardUnreachable, match="doesn't end"):
                await board.services()


async def test_our_own_boards_say_who_we_are_and_where_their_services_are(key, tmp_path):
    async with running(users_inline={"Alice": key.line}) as server:
        board = client(server, "t", Recorder(), key, tmp_path)
        async with joined(board):
            assert board.user == "alice"
            assert await board.services() == {"mailbox": server.addresses.mailbox, "relay": server.addresses.relay}
        with pytest.raises(BoardUnreachable):
            await board.services()


# Lines and connections that are lost


class Echo:
    """A board of one that loses, or cuts, what it is told to."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.lose = 0

    async def __call__(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.command and process.command.startswith("pipe"):
            while data := await process.stdin.read(32768):
                self.received.append(data)
                if self.lose:
                    self.lose -= 1
                else:
                    process.stdout.write(data)
        process.exit(0)


async def test_a_line_that_the_board_lost_is_written_again_until_it_is_echoed(key, tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "RESEND_AFTER", 0.05)
    echo, ear = Echo(), Recorder()
    echo.lose = 2
    async with sshd(echo, host_key=key, server_factory=anybody()) as port:
        board = at(port, key, tmp_path, ear)
        async with joined(board):
            board.post(b"p1 hello")
            await until(lambda: not board._lines._outbox.waiting)
    # Two times in vain, or more often where they are read together; and again while the echo is on its way.
    received = b"".join(echo.received)
    assert set(received.split(b"\n")) == {b"", b"p1 hello"}
    assert received.count(b"\np1 hello\n") >= 3
    assert ear.lines == []


async def test_a_board_that_comes_back_on_its_port_is_joined_again(key, tmp_path):
    ear = Recorder()
    data = tmp_path / "data"
    async with contextlib.AsyncExitStack() as stack:
        async with running(data=data) as server:
            board = client(server, "t", ear, key, tmp_path)
            await board.open()
            stack.push_async_callback(board.close)
        await ear.until(lambda: any("2nd try: nothing listens" in report.detail for report in ear.reports))
        board.post(b"p1 posted while away")
        async with running(data=data, port=server.addresses.port):
            await ear.until(lambda: ear.states[-1] is BoardState.CONNECTED)
            await until(lambda: not board._lines._outbox.waiting)


async def test_a_board_that_comes_back_with_another_host_key_is_not_joined(key, tmp_path):
    ear = Recorder()
    async with contextlib.AsyncExitStack() as stack:
        async with running() as server:
            board = client(server, "t", ear, key, tmp_path)
            await board.open()
            stack.push_async_callback(board.close)
        async with running(port=server.addresses.port) as impostor:
            await ear.until(lambda: ear.states[-1] is BoardState.FAILED)
            assert isinstance(board.report.error, HostKeyChanged)
            assert not impostor.sessions


async def test_a_connection_that_is_silent_is_found_dead_and_made_anew(key, tmp_path, monkeypatch):
    for module in (ssh_module, connection_module):
        monkeypatch.setattr(module, "PROBE_EVERY", 0.1)
    ear = Recorder()
    frozen = asyncio.Event()

    async with running() as server:

        async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            onward, back = await asyncio.open_connection("127.0.0.1", server.addresses.port)

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    if not frozen.is_set():
                        sink.write(data)

            try:
                await asyncio.gather(pump(reader, back), pump(onward, writer))
            finally:
                back.transport.abort()

        async with tcp(through) as port:
            board = at(port, key, tmp_path, ear, pin=server.addresses.host_key)
            async with joined(board):
                monkeypatch.setattr(ssh_module, "DEAD_AFTER", 0.5)
                frozen.set()
                await ear.until(lambda: any("no longer answers" in report.detail for report in ear.reports))
                frozen.clear()
                await ear.until(lambda: ear.states[-1] is BoardState.CONNECTED)


async def test_an_idle_connection_that_answers_probes_is_alive(key, tmp_path, monkeypatch):
    for module in (ssh_module, connection_module):
        monkeypatch.setattr(module, "PROBE_EVERY", 0.05)
    ear, echo = Recorder(), Echo()
    async with sshd(echo, host_key=key, server_factory=anybody()) as port:
        board = at(port, key, tmp_path, ear)
        async with joined(board):
            connection = board._connection
            assert connection is not None
            for _ in range(10):  # each answer puts off the time after which it counts as dead
                last = connection.heard
                await until(lambda last=last: connection.heard > last)
            assert board._connection is connection
    assert ear.states == [BoardState.CONNECTED, BoardState.CLOSED]


async def test_who_took_long_to_log_in_is_not_dead_by_then(key, tmp_path):
    """A passphrase may take its owner a minute to type; the time after which a connection is dead begins with it."""
    locked = make_key(tmp_path, "locked", passphrase="a long one")
    typed: list[float] = []

    def passphrase(_path: Path) -> str:
        typed.append(time.monotonic())
        return "a long one"

    async with running() as server:
        board = client(server, "t", Recorder(), locked, tmp_path, passphrase=passphrase)
        async with joined(board):
            assert board._connection is not None
            assert board._connection.heard > typed[0]


# Jump hosts

SSHD = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


@asynccontextmanager
async def openssh_server(host: Key, member: Key, folder: Path) -> AsyncIterator[tuple[int, Path]]:
    """A real sshd on a free port of loopback that lets ``member`` in; yields the port and its log."""
    (folder / "authorized_keys").write_text(f"{member.line}\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = folder / "sshd.log"
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host.path}\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nAllowTcpForwarding yes\n"
    )
    assert SSHD is not None
    process = await asyncio.create_subprocess_exec(SSHD, "-D", "-f", str(config), "-E", str(log))
    try:
        async with asyncio.timeout(PATIENCE):
            while "listening" not in (log.read_text() if log.exists() else ""):
                if process.returncode is not None:  # as root it wants a user and a folder of its own
                    pytest.skip(f"sshd doesn't run here: {log.read_text()[-200:]}")
                await asyncio.sleep(0.05)
        yield port, log
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


class Jump(Anybody):
    """A jump host: forwards connections, and keeps where they went."""

    went: list[tuple[str, int]]

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        self.went.append((dest_host, dest_port))
        return True


async def test_a_chain_of_jump_hosts_is_gone_through_with_their_own_host_keys(key, tmp_path):
    jump: Any = type("Jumps", (Jump,), {"offered": [], "went": []})
    host = make_key(tmp_path, "jump-host")
    async with (
        running() as server,
        sshd(host_key=host, server_factory=jump) as one,
        sshd(host_key=host, server_factory=jump) as two,
    ):
        port = server.addresses.port
        way = f"ProxyJump 127.0.0.1:{one},127.0.0.1:{two}"
        files = ssh_files(tmp_path, f"Host board\n HostName 127.0.0.1\n Port {port}\n {way}\n")

        def member(listener: Recorder) -> SSHBoard:
            where = BoardAddress("board", None, "me")
            return SSHBoard(where, "t", listener, identity=key.path, files=files, pin=server.addresses.host_key)

        assert isinstance(await failure(member(Recorder())), HostKeyUnknown), "a jump host must be known, too"
        files.known_hosts[0].write_text("".join(f"[127.0.0.1]:{hop} {host.line}\n" for hop in (one, two)))
        ear = Recorder()
        author = member(Recorder())
        async with joined(author, member(ear)):
            author.post(b"p1 through two hosts")
            await ear.until(lambda: ear.lines)
    assert jump.went[:2] == [("127.0.0.1", two), ("127.0.0.1", port)]
    assert set(jump.offered) == {key.fingerprint}


async def test_jump_hosts_can_be_given_as_an_option(key, tmp_path):
    jump: Any = type("Jumps", (Jump,), {"offered": [], "went": []})
    host = make_key(tmp_path, "jump-host")
    async with running() as server, sshd(host_key=host, server_factory=jump) as one:
        files = ssh_files(tmp_path, f"Host gate\n HostName 127.0.0.1\n Port {one}\n User gatekeeper\n")
        files.known_hosts[0].write_text(f"[127.0.0.1]:{one} {host.line}\nthe-board {server.addresses.host_key}\n")
        options = ("-J gate", f"-p {server.addresses.port} -i {key.path}", "-o HostKeyAlias=the-board")
        board = SSHBoard(BoardAddress("127.0.0.1"), "t", Recorder(), files=files, ssh_options=options)
        async with joined(board):
            assert board.route is not None
            assert [hop.user for hop in board.route.jumps] == ["gatekeeper"]
            assert board.key is not None
            assert board.key.fingerprint == key.fingerprint
    assert jump.went == [("127.0.0.1", server.addresses.port)]


async def test_an_option_that_is_not_supported_is_refused_before_anything_is_connected_to(key, tmp_path):
    with pytest.raises(ConfigError, match="Supported are -J"):
        SSHBoard(BoardAddress("127.0.0.1"), "t", Recorder(), ssh_options=("-A",))


@pytest.mark.skipif(SSHD is None, reason="there is no sshd here (Debian has it in openssh-server)")
async def test_a_real_sshd_is_gone_through(key, tmp_path):
    host = make_key(tmp_path, "jump-host")
    async with running() as server, openssh_server(host, key, tmp_path) as (gate, log):
        files = ssh_files(tmp_path)
        files.known_hosts[0].write_text(f"[127.0.0.1]:{gate} {host.line}\n")
        ear, author_ear = Recorder(), Recorder()

        def member(listener: Recorder) -> SSHBoard:
            way = (f"-J {getpass.getuser()}@127.0.0.1:{gate}",)
            return client(server, "t", listener, key, tmp_path, files=files, ssh_options=way)

        author = member(author_ear)
        async with joined(author, member(ear)):
            author.post(b"p1 through OpenSSH")
            await ear.until(lambda: ear.lines)
            for connection in list(server.connections):
                connection.abort()
            await author_ear.until(lambda: BoardState.RECONNECTING in author_ear.states)
            await author_ear.until(lambda: author_ear.states[-1] is BoardState.CONNECTED)
    assert "Accepted publickey" in log.read_text()


def test_closing_a_tunnel_whose_jump_host_has_gone_is_no_error():
    class Gone:
        closed = False

        def close(self) -> None:
            raise EOFError

        def send(self, data: bytes) -> int:
            raise EOFError

    tunnel = Tunnel(Gone())  # type: ignore[arg-type]
    tunnel.close()
    with pytest.raises(OSError, match="the jump host has ended"):
        tunnel.send(b"x")


async def test_a_jump_host_that_goes_away_is_a_lost_connection_like_any_other(key, tmp_path):
    host = make_key(tmp_path, "jump-host")
    hosts: list[asyncssh.SSHServerConnection] = []

    class Going(Jump):
        offered, went = [], []

        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            hosts.append(conn)

    ear = Recorder()
    async with running() as server, sshd(host_key=host, server_factory=Going) as one:
        files = ssh_files(tmp_path)
        files.known_hosts[0].write_text(f"[127.0.0.1]:{one} {host.line}\n")
        board = client(server, "t", ear, key, tmp_path, files=files, ssh_options=(f"-J 127.0.0.1:{one}",))
        async with joined(board):
            for times in (1, 2, 3):
                hosts[-1].abort()
                await ear.until(lambda times=times: ear.states.count(BoardState.RECONNECTING) >= times)
                await ear.until(lambda times=times: ear.states.count(BoardState.CONNECTED) > times)


async def test_a_jump_host_that_does_not_connect_onward_is_named(key, tmp_path):
    host = make_key(tmp_path, "jump-host")
    async with sshd(host_key=host, server_factory=anybody()) as jump:
        files = ssh_files(tmp_path, f"Host board\n HostName 127.0.0.1\n ProxyJump 127.0.0.1:{jump}\n")
        files.known_hosts[0].write_text(f"[127.0.0.1]:{jump} {host.line}\n")
        board = SSHBoard(BoardAddress("board", 9), "t", Recorder(), identity=key.path, files=files, pin=key.line)
        error = await failure(board)
    assert f"the jump host 127.0.0.1 port {jump} doesn't connect" in str(error)


async def test_an_agents_refusal_during_the_log_in_is_said_as_it_is(key, tmp_path):
    from p2p_ipython.board.client.keys import AgentSigner, KeyChoice

    choice = KeyChoice(AgentSigner(key.key.public_data, "gone"), "from the SSH agent")
    async with running() as server:
        files = replace(ssh_files(tmp_path), agent=False)
        board = SSHBoard(
            BoardAddress("127.0.0.1", server.addresses.port),
            "t",
            Recorder(),
            choice,
            files=files,
            pin=server.addresses.host_key,
        )
        error = await failure(board)
    assert isinstance(error, NoKey)
    assert "ssh-add" in str(error)


async def test_who_is_cancelled_while_he_leaves_has_left_all_the_same(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    async with running() as server:
        board = client(server, "t", Recorder(), key, tmp_path)
        await board.open()
        board.post(b"a line whose echo is waited for")
        leaving = asyncio.ensure_future(board.close())
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert board.report.state is BoardState.CLOSED
        await until(lambda: not server.sessions)
