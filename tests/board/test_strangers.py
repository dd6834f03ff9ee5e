"""What any key can make a board do: each bound, with the attack that it stops."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_GLOBAL_REQUEST, MSG_IGNORE
from asyncssh.packet import Boolean, String
from board_support import PATIENCE, Answer, AsyncsshTalk, Key, make_key, running, until

from p2p_ipython.board.server import arrivals, commands
from p2p_ipython.board.server import server as server_module
from p2p_ipython.board.server.bounds import Bounds
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
        longest = "pub " + "x" * (Bounds.command - 4)
        for command, answer in (
            (longest, Answer(b"", b"topic too long\n\r", 1)),
            (longest + "x", Answer(b"", b"the command is longer than 4096 bytes\n\r", 1)),
            ("'" + "ü" * Bounds.command, Answer(b"", b"the command is longer than 4096 bytes\n\r", 1)),
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
        for _ in range(3 + Bounds.refused_sessions):
            await _open_only(connection)
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            await _open_only(connection)
        assert len(server.sessions) == 3 + Bounds.refused_sessions


async def test_a_channel_that_asks_for_nothing_is_closed(key):
    async with asyncio.timeout(PATIENCE), running(command_within=0.1) as server, stranger(server, key) as connection:
        await _open_only(connection)
        await until(lambda: not server.sessions)
        await answers(server, key)


async def test_sessions_are_bounded_in_all_and_the_key_that_has_most_makes_room(tmp_path):
    greedy, modest = make_key(tmp_path, "greedy"), make_key(tmp_path, "modest")
    async with (
        asyncio.timeout(PATIENCE),
        running(all_sessions=4) as server,
        stranger(server, greedy) as first,
        stranger(server, modest) as second,
    ):
        processes = [await first.create_process(f"pipe t{n} -c", encoding=None) for n in range(4)]
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            await first.create_process("pipe t -c", encoding=None)
        there = [await second.create_process(f"pipe m{n} -r -c", encoding=None) for n in range(2)]
        for process in processes[2:]:
            assert b"your key has most" in await process.stderr.read()
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            await second.create_process("pipe m -c", encoding=None)
        for process in (*processes[:2], *there):
            assert not process.channel.is_closing()
        there[0].stdin.write(b"still there\n")
        assert await there[0].stdout.readline() == b"still there\n"


async def test_a_key_has_so_many_connections(tmp_path, key):
    async with (
        asyncio.timeout(PATIENCE),
        running(key_connections=2) as server,
        stranger(server, key),
        stranger(server, key) as second,
    ):
        why: list[Exception | None] = []

        class Third(asyncssh.SSHClient):
            def connection_lost(self, exc: Exception | None) -> None:
                why.append(exc)

        with suppress(*GONE):
            async with stranger(server, key, client_factory=Third) as third:
                await third.wait_closed()
        assert "your key has 2 connections already" in str(why)
        await answers(server, make_key(tmp_path, "other"))
        assert (await second.run("user")).exit_status == 0


async def test_a_hundred_people_behind_one_address_get_in_at_once(tmp_path):
    keys = [make_key(tmp_path, f"person{number}") for number in range(100)]
    async with asyncio.timeout(3 * PATIENCE), running() as server, AsyncExitStack() as stack:
        people = await asyncio.gather(*(stack.enter_async_context(stranger(server, each)) for each in keys))
        for person in people:
            await person.create_process("pipe t -c", encoding=None)
        assert len(server.topics.listing("public")[0].sessions[0][1]) == 100


async def test_a_stranger_who_logs_in_again_and_again_from_our_address_does_not_keep_us_out(key, monkeypatch):
    monkeypatch.setattr(arrivals, "MAKES_ROOM", 0.1)
    async with asyncio.timeout(PATIENCE), running(half_open_each=3) as server:
        halves = [await asyncio.open_connection("127.0.0.1", server.addresses.port) for _ in range(3)]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses.port)
        assert (await reader.read()).startswith(b"too many connections from your address are logging in; try again")
        writer.close()
        await asyncio.sleep(0.1)  # the time that it takes until they make room
        await answers(server, key)
        assert b"you made room" in await halves[0][0].read()
        for _, writer in halves:
            writer.close()


async def test_a_stranger_who_logs_in_all_the_time_waits_and_others_do_not(key):
    async with asyncio.timeout(PATIENCE), running(logins=4, logins_burst=2) as server, AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(4):
            await stack.enter_async_context(stranger(server, key))
        assert loop.time() - began >= 0.4  # two are free, and two take half a second
        reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses.port, local_addr=("127.0.0.2", 0))
        writer.write(b"SSH-2.0-x\r\n")
        assert await reader.readexactly(8) == b"SSH-2.0-"
        assert server.arrivals._logins["127.0.0.2"].level >= 1
        writer.close()


async def test_a_connection_without_a_session_is_ended(tmp_path, key, monkeypatch):
    monkeypatch.setattr(server_module, "LOOK_AROUND", 0.05)
    async with (
        asyncio.timeout(PATIENCE),
        running(idle=0.2) as server,
        stranger(server, key) as idle,
        stranger(server, make_key(tmp_path, "other")) as busy,
    ):
        process = await busy.create_process("pipe t -r -c", encoding=None)
        await idle.wait_closed()
        process.stdin.write(b"still there\n")
        assert await process.stdout.readline() == b"still there\n"


async def test_a_client_that_is_gone_without_a_word_is_cut(key):
    async with asyncio.timeout(PATIENCE), running(keepalive=0.1) as server, stranger(server, key) as connection:
        await connection.create_process("pipe t -r -c", encoding=None)
        connection._transport.pause_reading()
        await until(lambda: not server.connections)


async def test_keys_that_are_idle_are_forgotten(tmp_path):
    async with asyncio.timeout(PATIENCE), running(keys=3) as server:
        for number in range(10):
            await answers(server, make_key(tmp_path, f"k{number}"))
            await until(lambda: not server.connections)
        assert len(server._keys) <= 4


# What is kept


async def test_a_session_that_is_read_slower_keeps_no_more_than_its_window(key):
    async with (
        asyncio.timeout(PATIENCE),
        running(rate=1, burst=100_000) as server,
        stranger(server, key) as connection,
    ):
        process = await connection.create_process("pipe t -c", encoding=None)
        process.stdin.write(b"x" * 400_000)
        (session,) = server.sessions.values()
        await until(lambda: session._channel._recv_buf)
        assert sum(len(data) for data, _ in session._channel._recv_buf) <= Bounds.window
        assert process.channel.get_write_buffer_size() > 100_000


async def test_waiting_publishers_hold_so_much_in_all(key):
    async with asyncio.timeout(PATIENCE), running(held=50_000) as server, stranger(server, key) as connection:
        first = await connection.create_process("pub a", encoding=None)
        first.stdin.write(b"x" * 20_000)
        await until(lambda: server.held)
        second = await connection.create_process("pub b", encoding=None)
        second.stdin.write(b"x" * 60_000)
        third = await connection.create_process("pub c", encoding=None)
        third.stdin.write(b"x" * 60_000)
        assert await third.stderr.read() == b"too much waits for readers on this board\n\r"
        assert server.held <= 50_000
        first.close()
        second.close()
        await until(lambda: not server.held)


async def test_what_all_readers_leave_unread_is_bounded_and_the_one_with_most_is_cut(key):
    async with (
        asyncio.timeout(PATIENCE),
        running(rate=1 << 30, burst=1 << 30, queues=100_000) as server,
        stranger(server, key) as reading,
        stranger(server, key) as writing,
    ):
        for topic in ("a", "b", "b"):
            await reading.create_process(f"sub {topic} -k", encoding=None, window=0)
        sizes = {"a": 70_000, "b": 20_000}
        authors = {topic: await writing.create_process(f"pipe {topic} -r -c", encoding=None) for topic in sizes}
        for topic, author in authors.items():
            author.stdin.write(b"x" * sizes[topic])
            assert len(await author.stdout.readexactly(sizes[topic])) == sizes[topic]
        await until(lambda: len(server.sessions) == 3)  # the last on topic a has gone, too
        assert {each.topic: len(each.sessions) for each in server.topics.listing("public")} == {
            "public/b": 2,
        }


async def _open_only(connection: asyncssh.SSHClientConnection) -> Any:
    """Open a session's channel, and ask for nothing on it."""
    loop = asyncio.get_running_loop()
    channel: Any = asyncssh.SSHClientChannel(connection, loop, False, None, "strict", 1 << 16, 1 << 15)
    await channel._open(b"session")
    return channel


# Packets


async def test_a_connection_is_read_in_slices(key, tmp_path):
    async with (
        asyncio.timeout(PATIENCE),
        running(rate=1 << 30, burst=1 << 30) as server,
        stranger(server, key) as client,
    ):
        (served,) = server.connections
        sizes: list[int] = []
        receive = served.data_received
        vars(served)["data_received"] = lambda data, kind=None: (sizes.append(len(data)), receive(data, kind))
        for _ in range(100):
            client.send_packet(MSG_IGNORE, String(b"x" * 30_000))
        await client._make_global_request(b"keepalive@openssh.com")
        assert sum(sizes) > 3_000_000
        assert max(sizes) <= Bounds.slice


async def test_a_packet_over_64_kib_ends_the_connection(key):
    async with asyncio.timeout(PATIENCE), running() as server, stranger(server, key) as connection:
        connection.send_packet(MSG_IGNORE, String(b"x" * Bounds.packet))
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
        running(rate=1 << 30, burst=1 << 30, queue=32 << 10) as server,
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
    assert "clients that don't read their answers are cut: 1;" in caplog.text


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
    assert "sessions that don't read are cut: 1, one of public" in caplog.text


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("kex_algs", "diffie-hellman-group14-sha1"),
        ("kex_algs", "diffie-hellman-group-exchange-sha1"),
        ("kex_algs", "diffie-hellman-group18-sha512"),
        ("kex_algs", "ecdh-sha2-nistp256"),
        ("encryption_algs", "3des-cbc"),
        ("encryption_algs", "aes256-cbc"),
        ("mac_algs", "hmac-sha1"),
        ("mac_algs", "hmac-sha1-etm@openssh.com"),
        ("mac_algs", "hmac-md5"),
        ("mac_algs", "hmac-sha2-256"),
    ],
)
async def test_old_algorithms_are_refused(key, name, old):
    others = {"encryption_algs": ["aes128-ctr"]} if name == "mac_algs" else {}
    async with asyncio.timeout(PATIENCE), running() as server:
        with pytest.raises(asyncssh.KeyExchangeFailed):
            async with stranger(server, key, **others, **{name: [old]}):
                pass
        async with stranger(server, key, kex_algs=["curve25519-sha256"]):
            pass


async def test_an_rsa_key_logs_in_by_sha2_and_not_by_sha1(tmp_path):
    rsa = make_key(tmp_path, kind="ssh-rsa")
    async with asyncio.timeout(PATIENCE), running() as server:
        for algorithm in ("rsa-sha2-256", "rsa-sha2-512"):
            async with stranger(server, rsa, signature_algs=[algorithm]) as connection:
                assert (await connection.run("user")).exit_status == 0
        with pytest.raises(asyncssh.PermissionDenied):
            async with stranger(server, rsa, signature_algs=["ssh-rsa"]):
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
        assert undecided.shown <= Bounds.offers + 1
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
