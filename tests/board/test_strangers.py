"""What any key can make a board do: each bound, with the attack that it stops."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_GLOBAL_REQUEST, MSG_IGNORE
from asyncssh.packet import Boolean, String
from board_support import PATIENCE, Answer, AsyncsshTalk, Key, make_key, running, until

from p2p_ipython.board.server import commands
from p2p_ipython.board.server.limits import MAX_COMMAND, MAX_OFFERS, MAX_PACKET, REFUSED_SESSIONS
from p2p_ipython.board.server.server import BoardServer

GONE = (OSError, asyncssh.Error)


@pytest.fixture
def key(tmp_path) -> Key:  # type: ignore[no-untyped-def]
    return make_key(tmp_path)


@asynccontextmanager
async def stranger(server: BoardServer, key: Key, **options: Any) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection of a client that does what it likes."""
    connection = await asyncssh.connect(
        "127.0.0.1", server.addresses.port, known_hosts=None, client_keys=[key.key], config=None, agent_path=None,
        **options,
    )  # fmt: skip
    try:
        yield connection
    finally:
        connection.abort()
        await connection.wait_closed()


async def answers(server: BoardServer, key: Key) -> None:
    """The board answers somebody else."""
    talk = await AsyncsshTalk.start(server.addresses.port, key, "user")
    assert (await talk.end()).status == 0
    await talk.hang_up()


# Commands


async def test_a_command_over_4_kib_is_refused_before_it_is_parsed(key, monkeypatch):
    parsed: list[str | None] = []
    parse = commands.parse
    monkeypatch.setattr(commands, "parse", lambda line: parsed.append(line) or parse(line))
    async with asyncio.timeout(PATIENCE), running() as server, stranger(server, key) as connection:
        longest = "pub " + "x" * (MAX_COMMAND - 4)
        for command, answer in (
            (longest, Answer(b"", b"topic too long\n\r", 1)),
            (longest + "x", Answer(b"", b"the command is longer than 4096 bytes\n\r", 1)),
            ("'" + "ü" * MAX_COMMAND, Answer(b"", b"the command is longer than 4096 bytes\n\r", 1)),
        ):
            process = await connection.create_process(command, encoding=None)
            assert await AsyncsshTalk(connection, process).end() == answer
    assert parsed == [longest]


# What comes with a session


async def test_the_environment_that_a_client_sends_is_ignored_and_not_kept(key):
    async with asyncio.timeout(PATIENCE), running() as server, stranger(server, key) as connection:
        names = {f"NAME{number}": "x" * 1000 for number in range(100)}
        process = await connection.create_process("pipe t -r -c", encoding=None, env={"LANG": "de_DE.UTF-8", **names})
        process.stdin.write(b"still there\n")
        assert await process.stdout.readline() == b"still there\n"
        (session,) = server.sessions.values()
        assert session._channel.get_environment() == {}
        assert not session._channel._env


async def test_channels_that_never_ask_for_anything_are_bounded_too(key):
    async with asyncio.timeout(PATIENCE), running(sessions=3) as server, stranger(server, key) as connection:
        for _ in range(3 + REFUSED_SESSIONS):
            await _open_only(connection)
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            await _open_only(connection)
        assert len(server.sessions) == 3 + REFUSED_SESSIONS


async def _open_only(connection: asyncssh.SSHClientConnection) -> Any:
    """Open a session's channel, and ask for nothing on it."""
    loop = asyncio.get_running_loop()
    channel: Any = asyncssh.SSHClientChannel(connection, loop, False, None, "strict", 1 << 16, 1 << 15)
    await channel._open(b"session")
    return channel


# Packets


async def test_a_packet_over_64_kib_ends_the_connection(key):
    async with asyncio.timeout(PATIENCE), running() as server, stranger(server, key) as connection:
        connection.send_packet(MSG_IGNORE, String(b"x" * MAX_PACKET))
        await connection.wait_closed()
        await until(lambda: not server.connections)


async def test_the_board_does_not_sign_proofs_of_its_host_key_on_request(key):
    async with asyncio.timeout(PATIENCE), running() as server, stranger(server, key) as connection:
        host_key = String(connection.get_server_host_key().public_data)
        kind, _ = await connection._make_global_request(b"hostkeys-prove-00@openssh.com", host_key * 500)
        assert kind == 82  # MSG_REQUEST_FAILURE


async def test_a_client_that_sends_many_small_packets_waits_and_others_are_served(key, tmp_path):
    async with asyncio.timeout(PATIENCE), running(rate=1, burst=128_000) as server, stranger(server, key) as connection:
        for _ in range(1000):  # of which, with a key exchange, fewer than half are free
            connection.send_packet(MSG_IGNORE, String(b""))
        request = asyncio.ensure_future(connection._make_global_request(b"keepalive@openssh.com"))
        await answers(server, make_key(tmp_path, "other"))
        assert not request.done()
        request.cancel()


async def test_a_client_that_waited_is_read_again_and_nothing_is_lost(key):
    async with (
        asyncio.timeout(PATIENCE),
        running(rate=1 << 20, burst=70_000) as server,
        stranger(server, key) as connection,
    ):
        for _ in range(3):
            for _ in range(1000):
                connection.send_packet(MSG_IGNORE, String(b""))
            await connection._make_global_request(b"keepalive@openssh.com")


async def test_a_client_that_does_not_read_the_answers_it_asks_for_is_cut(key, caplog):
    async with (
        asyncio.timeout(PATIENCE),
        running(rate=1 << 30, burst=1 << 30) as server,
        stranger(server, key) as connection,
    ):
        connection._transport.pause_reading()
        (served,) = server.connections
        served.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        request = String(b"nobody-knows-this@example.org"), Boolean(True)
        while server.connections:
            for _ in range(1000):
                connection.send_packet(MSG_GLOBAL_REQUEST, *request)
            await asyncio.sleep(0)
    assert "doesn't read the board's answers" in caplog.text


async def test_a_reader_that_never_finishes_a_key_exchange_is_cut(key, caplog):
    """Everything that is written to it meanwhile waits in asyncssh, outside of any buffer that it tells of."""
    async with (
        asyncio.timeout(PATIENCE),
        running(rate=1 << 30, burst=1 << 30) as server,
        stranger(server, key) as reader,
        stranger(server, key) as writer,
    ):
        await reader.create_process("pipe t -c", encoding=None, window=1 << 30)
        author = await writer.create_process("pipe t -c", encoding=None)
        await until(lambda: len(server.topics.listing("public")[0].sessions[0][1]) == 2)
        reader._send_kexinit()
        reader.data_received = lambda data, datatype=None: None
        with suppress(OSError):  # the last on a topic is cut, too
            written = 0
            while len(server.sessions) == 2:
                written += 1
                assert written < 2000, "2 MB wait for a reader that takes nothing"
                author.stdin.write(b"x" * 1000 + b"\n")
                await author.stdin.drain()
                await asyncio.sleep(0)
    assert "is cut" in caplog.text


async def test_large_diffie_hellman_groups_are_not_offered(key):
    async with asyncio.timeout(PATIENCE), running() as server:
        with pytest.raises(asyncssh.KeyExchangeFailed):
            async with stranger(server, key, kex_algs=["diffie-hellman-group18-sha512"]):
                pass
        async with stranger(server, key, kex_algs=["curve25519-sha256"]):
            pass


# Logging in


async def test_a_client_that_shows_key_after_key_is_cut(tmp_path):
    class Undecided(asyncssh.SSHClient):
        shown = 0

        def public_key_auth_requested(self) -> Any:
            self.shown += 1
            (pair,) = asyncssh.load_keypairs(asyncssh.generate_private_key("ssh-ed25519"))
            pair.sign = lambda data: String("ssh-ed25519") + String(bytes(64))
            return pair

    undecided = Undecided()
    async with asyncio.timeout(PATIENCE), running() as server:
        with pytest.raises(GONE):
            await asyncssh.connect(
                "127.0.0.1", server.addresses.port, client_factory=lambda: undecided, known_hosts=None, config=None,
                agent_path=None,
            )  # fmt: skip
        assert undecided.shown <= MAX_OFFERS + 1
        await until(lambda: not server.connections)


# What is logged


async def test_refused_connections_are_logged_once_a_minute(key, caplog):
    async with asyncio.timeout(PATIENCE), running(connections=1) as server, stranger(server, key):
        for _ in range(20):
            with pytest.raises(GONE):
                async with stranger(server, key):
                    pass
        assert len(server.connections) == 1
    said = [record for record in caplog.records if "refused" in record.message]
    assert [record.levelno for record in said] == [logging.WARNING]
