"""The board server, spoken to by three clients that know nothing of it: asyncssh's, paramiko and OpenSSH.

First what pico's ``pipe`` service does and we do too, then what is different on purpose.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from functools import partial
from typing import Any

import asyncssh
import paramiko
import pytest
from board_support import PATIENCE, Answer, AsyncsshTalk, Key, benched, make_key, pico_board, running, until

from p2p_ipython.board.server.options import ServerOptions
from p2p_ipython.board.server.serve import serve
from p2p_ipython.board.server.server import BoardServer
from p2p_ipython.errors import BoardError

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class ParamikoTalk:
    def __init__(self, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        self.transport, self.channel, self.out = transport, channel, b""

    @classmethod
    async def start(cls, port: int, key: Key, command: str) -> ParamikoTalk:
        def work() -> ParamikoTalk:
            transport = paramiko.Transport(("127.0.0.1", port))
            transport.start_client(timeout=PATIENCE)
            transport.auth_publickey("whoever", paramiko.PKey.from_path(key.path))
            channel = transport.open_session(timeout=PATIENCE)
            channel.settimeout(PATIENCE)
            channel.exec_command(command)
            return cls(transport, channel)

        return await asyncio.to_thread(work)

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(self.channel.sendall, data)

    async def eof(self) -> None:
        await asyncio.to_thread(self.channel.shutdown_write)

    async def read_until(self, wanted: bytes) -> bytes:
        while wanted not in self.out:
            data = await asyncio.to_thread(self.channel.recv, 65536)
            assert data, f"ended after {self.out!r}"
            self.out += data
        return self.out

    async def end(self) -> Answer:
        def work() -> Answer:
            while data := self.channel.recv(65536):
                self.out += data
            err = self.channel.recv_stderr(65536)
            self.channel.status_event.wait(PATIENCE)
            return Answer(self.out, err, self.channel.exit_status if self.channel.exit_status >= 0 else None)

        return await asyncio.to_thread(work)

    async def hang_up(self) -> None:
        await asyncio.to_thread(self.transport.close)


class OpenSSHTalk:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process, self.out = process, b""

    @classmethod
    async def start(cls, port: int, key: Key, command: str, terminal: str = "-T") -> OpenSSHTalk:
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": os.devnull,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "IdentityFile": str(key.path),
            "LogLevel": "ERROR",
        }
        flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        arguments = [terminal, "-F", "none", "-p", str(port), *flags, "127.0.0.1", command]
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec("ssh", *arguments, stdin=pipe, stdout=pipe, stderr=pipe))

    async def write(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    async def eof(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()

    async def read_until(self, wanted: bytes) -> bytes:
        assert self.process.stdout
        while wanted not in self.out:
            data = await self.process.stdout.read(65536)
            assert data, f"ended after {self.out!r}"
            self.out += data
        return self.out

    async def end(self) -> Answer:
        assert self.process.stdout
        assert self.process.stderr
        self.out += await self.process.stdout.read()
        err = await self.process.stderr.read()
        status = await self.process.wait()
        return Answer(self.out, err, None if status == 255 else status)  # 255: it was told none

    async def hang_up(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


CLIENTS: dict[str, Any] = {"asyncssh": AsyncsshTalk, "paramiko": ParamikoTalk, "openssh": OpenSSHTalk}
if shutil.which("ssh") is None:
    del CLIENTS["openssh"]


@pytest.fixture(params=CLIENTS)
def bench(request, tmp_path) -> Callable[..., Any]:  # type: ignore[no-untyped-def]
    return partial(benched, running, CLIENTS[request.param], tmp_path)


@pytest.fixture(params=[*CLIENTS, "like pico"])
def both(request, tmp_path) -> Callable[..., Any]:  # type: ignore[no-untyped-def]
    """Our own board with every client, and a board like pico's."""
    board = pico_board if request.param == "like pico" else running
    return partial(benched, board, CLIENTS.get(request.param, AsyncsshTalk), tmp_path)


# What pico's service does


async def test_no_command_and_help_print_help(both):
    async with both() as board:
        answer = await board.ask("alice", "help")
        assert answer.status == 0
        assert answer.out.startswith(f"Command: ssh -p {board.port} 127.0.0.1 <help | ls | pub | sub | pipe".encode())
        assert answer.err == b""
        assert await board.ask("alice", "  ") == answer


async def test_an_unknown_command_says_nothing_and_succeeds(both):
    async with both() as board:
        assert await board.ask("alice", "rm -rf /") == Answer(b"", b"", 0)


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("pipe t -z", b"flag provided but not defined: -z\nUsage: pipe <topic> [args...]\nArgs:\n"),
        ("sub t -a", b"flag needs an argument: -a\nUsage: sub <topic> [args...]\nArgs:\n"),
        ("pub t -c=maybe", b'invalid boolean value "maybe" for -c: parse error\nUsage: pub <topic> [args...]\nArgs:\n'),
        ("pipe help", b"Usage: pipe <topic> [args...]\nArgs:\n"),
    ],
)
async def test_bad_flags_print_the_usage_and_fail(both, command, first):
    async with both() as board:
        answer = await board.ask("alice", command)
        assert answer.out.startswith(first)
        assert (answer.err, answer.status) == (b"invalid cmd args\n\r", 1)


async def test_ls_is_denied_to_strangers_and_lists_ones_own_topics(both):
    async with both() as board:
        assert await board.ask("stranger", "ls") == Answer(b"", b"access denied\n\r", 1)
        assert await board.ask("alice", "ls") == Answer(b"no pubsub channels found\n", b"", 0)
        await board.join("alice", "pipe jobs -a alice,bob", "alice/jobs")
        await board.join("alice", "sub news", "alice/news")
        await board.join("bob", "pipe own", "bob/own")
        talk = await board.start("alice", "pub empty")
        await talk.read_until(b"waiting")
        answer = await board.ask("alice", "ls")
        who = rf"{UUID} \(alice@127\.0\.0\.1:\d+\)\r\n"
        assert re.fullmatch(
            r"Channel Information\r\n"
            rf"- alice/jobs: \(Access List: alice, bob\)\r\n  Pipes:\r\n  - {who}"
            rf"- alice/news:\r\n  Subs:\r\n  - {who}"
            rf"- alice/empty:\r\n  Waiting Pubs:\r\n  - {who}",
            answer.out.decode(),
        )


async def test_pipes_hear_each_other_and_themselves_only_with_r(both):
    async with both() as board:
        plain = await board.join("alice", "pipe t", "alice/t")
        echoing = await board.join("alice", "pipe alice/t -r", "alice/t")
        await plain.write(b"from plain\n")
        await echoing.read_until(b"from plain\n")
        await echoing.write(b"from echoing\n")
        assert await echoing.read_until(b"from echoing\n") == b"from plain\nfrom echoing\n"
        assert await plain.read_until(b"from echoing\n") == b"from echoing\n"


async def test_a_pipe_without_a_topic_says_how_to_join_it_unless_it_is_quiet(both):
    async with both() as board:
        talk = await board.start("alice", "pipe -r")
        said = await talk.read_until(b"sub ")
        said = await talk.read_until(b"-")
        await until(lambda: len(board.server.topics.listing("alice")) == 1)
        topic = board.server.topics.listing("alice")[0].topic.removeprefix("alice/")
        said = await talk.read_until(topic.encode() + b"\n")
        assert said.decode() == f"subscribe to this topic:\n  ssh -p {board.port} 127.0.0.1 sub {topic}\n"
        quiet = await board.start("alice", "pipe -r -c")
        await until(lambda: len(board.server.topics.listing("alice")) == 2)
        await quiet.write(b"x\n")
        assert await quiet.read_until(b"x\n") == b"x\n"


async def test_quotes_are_honoured(both):
    async with both() as board:
        await board.join("alice", "pipe 'my topic' -r", "alice/my topic")


async def test_pub_waits_for_a_subscriber_who_ends_with_it(both):
    async with both() as board:
        pub = await board.start("alice", "pub t")
        await pub.read_until(b"waiting 720h0m0s\n")
        await pub.write(b"the message\n")
        await pub.eof()
        sub = await board.start("alice", "sub t")
        assert await sub.end() == Answer(b"the message\n", b"", None)
        answer = await pub.end()
        assert answer.status == 0
        assert answer.out.decode() == (
            f"subscribe to this channel:\n  ssh -p {board.port} 127.0.0.1 sub t\n"
            "no subs found ... waiting 720h0m0s\nsending msg ...\nmsg sent!\n"
        )


async def test_pub_gives_up_after_its_time(both):
    async with both() as board:
        answer = await board.ask("alice", "pub t -t 50ms")
        assert answer.out.endswith(b"no subs found ... waiting 50ms\n")
        assert (answer.err, answer.status) == (b"timeout reached, exiting\n\r", 1)
        assert await board.ask("alice", "pub t -t 50ms -c") == Answer(b"", b"", 1)


async def test_pub_need_not_wait_and_can_be_empty_and_quiet(both):
    async with both() as board:
        talk = await board.start("alice", "pub t -b=false -c")
        await talk.write(b"to nobody")
        await talk.eof()
        assert await talk.end() == Answer(b"", b"", 0)
        sub = await board.join("alice", "sub t", "alice/t")
        assert await board.ask("alice", "pub t -e -c") == Answer(b"", b"", 0)
        assert (await sub.end()).out == b"\0"


async def test_k_keeps_a_subscription_when_the_publisher_leaves(both):
    async with both() as board:
        sub = await board.join("alice", "sub t -k", "alice/t")
        for message in (b"one\n", b"two\n"):
            pub = await board.start("alice", "pub t -c")
            await pub.write(message)
            await pub.eof()
            assert (await pub.end()).status == 0
        assert await sub.read_until(b"two\n") == b"one\ntwo\n"


async def test_public_topics_are_one_for_everybody(both):
    async with both() as board:
        bob = await board.join("bob", "pipe square -p", "public/square")
        alice = await board.join("alice", "pipe square -p", "public/square")
        await alice.write(b"hello\n")
        assert await bob.read_until(b"hello\n") == b"hello\n"


async def test_a_key_without_an_account_is_public_and_its_topics_are(both):
    async with both() as board:
        await board.join("stranger", "pipe secret-name", "public/secret-name")


async def test_round_robin_gives_each_message_to_one(both):
    async with both() as board:
        readers = [await board.join("alice", "sub t -k -d round_robin", "alice/t") for _ in range(2)]
        author = await board.join("alice", "pipe t", "alice/t")
        for number in range(4):
            await author.write(b"%d\n" % number)
            await readers[number % 2].read_until(b"%d\n" % number)  # before the next is written: one message a chunk
        assert [reader.out for reader in readers] == [b"0\n2\n", b"1\n3\n"]


async def test_wildcards_read_ones_own_topics(both):
    async with both() as board:
        ear = await board.join("alice", "sub 'jobs/*' -k", "alice/jobs/*")
        author = await board.join("alice", "pipe jobs/1", "alice/jobs/1")
        other = await board.join("alice", "pipe news", "alice/news")
        await other.write(b"news\n")
        await author.write(b"a job\n")
        assert await ear.read_until(b"a job\n") == b"a job\n"


async def test_when_the_second_last_leaves_the_last_is_cut_without_a_status(both):
    async with both() as board:
        last = await board.join("alice", "pipe t", "alice/t")
        second_last = await board.join("alice", "pipe t", "alice/t")
        await second_last.hang_up()
        assert await last.end() == Answer(b"", b"", None)


async def test_a_pipe_ends_with_its_input_and_all_have_read_that(both):
    async with both() as board:
        other = await board.join("alice", "pipe t", "alice/t")
        echoing = await board.join("alice", "pipe t -r", "alice/t")
        await board.join("alice", "pipe t", "alice/t")
        await echoing.write(b"x\n")
        await echoing.eof()
        assert await echoing.end() == Answer(b"x\n", b"", 0)
        assert await other.read_until(b"x\n") == b"x\n"
        await until(lambda: board.on("alice/t") == 2)


async def test_a_subscriber_whose_input_has_ended_still_reads(both):
    async with both() as board:
        reader = await board.join("alice", "sub t -k", "alice/t")
        await reader.eof()
        author = await board.join("alice", "pipe t", "alice/t")
        await author.write(b"still there?\n")
        assert await reader.read_until(b"?\n") == b"still there?\n"


async def test_a_terminal_gets_lines_that_end_as_it_needs_them(both):
    async with both() as board:
        connection = await asyncssh.connect(
            "127.0.0.1", board.port, known_hosts=None, client_keys=[board.keys["alice"].key], config=None
        )
        process = await connection.create_process("pipe t -r", encoding=None, term_type="xterm")
        process.stdin.write(b"one\ntwo\r\n")
        assert await process.stdout.readexactly(10) == b"one\r\ntwo\r\n"
        connection.abort()
        await connection.wait_closed()


@pytest.mark.skipif("openssh" not in CLIENTS, reason="OpenSSH is not installed")
async def test_ssh_with_a_terminal_and_ssh_with_its_input_piped_both_answer(tmp_path):
    async with benched(running, CLIENTS["openssh"], tmp_path) as board:
        for flag in ("-T", "-tt"):
            talk = await OpenSSHTalk.start(board.port, board.keys["alice"], "pipe t -r", flag)
            await talk.write(b"x\n")
            assert (await talk.read_until(b"x")).startswith(b"x")
            await talk.eof()
            answer = await talk.end()
            assert (answer.out.replace(b"\r", b""), answer.status) == (b"x\n", 0)


async def test_user_answers_as_pico_does(bench):
    async with bench() as board:
        answer = await board.ask("alice", "user")
        assert answer.status == 0
        assert re.fullmatch(rf"alice\n{UUID}\n\d{{4}}-\d\d-\d\d\nfree\n", answer.out.decode())
        assert (await board.ask("stranger", "user")).out.startswith(b"public\n")


# What is different on purpose


async def test_p2p_says_where_mailbox_and_relay_are_as_the_client_reaches_them(bench):
    async with bench() as board:
        where = board.server.addresses
        answer = await board.ask("alice", "p2p")
        assert json.loads(answer.out) == {"mailbox": where.mailbox, "relay": where.relay, "port": where.port}
        assert answer.out.count(b"\n") == 1


async def test_the_access_list_admits_names_and_keys_and_nobody_else(bench):
    async with bench() as board:
        host = await board.join("alice", f"pipe t -a bob,{board.keys['stranger'].fingerprint}", "alice/t")
        await board.join("bob", "pipe alice/t", "alice/t")
        await board.join("stranger", "pipe alice/t", "alice/t")
        # carol's first session would be admitted by pico's service; here even that is in a topic of her own
        carol = await board.join("carol", "pipe alice/t", "carol/alice/t")
        await host.write(b"a secret\n")
        twin = await board.join("carol", "pipe alice/t", "carol/alice/t")
        await twin.write(b"nothing here\n")
        assert await carol.read_until(b"\n") == b"nothing here\n"


async def test_a_public_topic_with_an_access_list_denies_subscribers_and_diverts_publishers(bench):
    async with bench() as board:
        await board.join("alice", "pipe t -p -a bob", "public/t")
        assert await board.ask("carol", "sub t -p") == Answer(b"", b"access denied\n\r", 1)
        talk = await board.start("carol", "pub t -p -b=false")
        await talk.eof()
        assert re.search(rf"sub -p {UUID}\n".encode(), (await talk.end()).out)
        assert board.on("public/t") == 1


async def test_a_subscriber_that_does_not_read_is_cut_and_holds_nobody_up(bench, tmp_path):
    async with bench(rate=1 << 30, burst=1 << 30) as board:
        author = await board.join("alice", "pipe t", "alice/t")
        reader = await board.join("alice", "pipe t", "alice/t")
        connection = await asyncssh.connect(
            "127.0.0.1", board.port, known_hosts=None, client_keys=[board.keys["alice"].key], config=None
        )
        _, stalled, _ = await connection.open_session("sub t -k", encoding=None, window=64 << 10)
        stalled.channel.pause_reading()
        await until(lambda: board.on("alice/t") == 3)
        written = 0
        while board.on("alice/t") == 3:
            await author.write(b"x" * 16000 + b"\n")
            written += 1
            await reader.read_until(b"x" * 16000)
            reader.out = b""
            assert written < 2000
        await author.write(b"the end\n")
        await reader.read_until(b"the end\n")
        connection.abort()
        await connection.wait_closed()
        assert written * 16001 > 256 << 10


async def test_a_key_has_a_limit_of_sessions_and_another_key_has_its_own(bench):
    async with bench(sessions=2) as board:
        first = await board.join("alice", "pipe t", "alice/t")
        await board.join("alice", "pipe t", "alice/t")
        assert await board.ask("alice", "pipe t") == Answer(b"", b"too many sessions\n\r", 1)
        await board.join("bob", "pipe t", "bob/t")
        await first.hang_up()
        await until(lambda: board.on("alice/t") == 0)
        await board.join("alice", "pipe t", "alice/t")


async def test_who_writes_too_fast_is_read_slower_and_loses_nothing(bench):
    async with bench(rate=100_000, burst=20_000) as board:
        reader = await board.join("bob", "sub alice/t -k", "bob/alice/t")
        author = await board.join("bob", "pipe alice/t", "bob/alice/t")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await author.write(b"x" * 60_000 + b"end\n")
        got = await reader.read_until(b"end\n")
        await author.write(b"again\n")
        await reader.read_until(b"again\n")
        assert len(got) == 60_004
        assert loop.time() - began >= 0.2  # of 60,010 bytes 20,000 are free, and the rest takes 0.4 s


async def test_no_forwarding_no_sftp(bench):
    async with (
        bench() as board,
        asyncssh.connect(
            "127.0.0.1", board.port, known_hosts=None, client_keys=[board.keys["alice"].key], config=None
        ) as connection,
    ):
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", board.port)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("", 0, "127.0.0.1", board.port)
        with pytest.raises((asyncssh.ChannelOpenError, asyncssh.SFTPError)):
            await connection.start_sftp_client()


# The server as such, whoever the client is


async def test_logging_in_has_a_deadline():
    async with asyncio.timeout(PATIENCE), running(login_timeout=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses.port)
        assert (await reader.readline()).startswith(b"SSH-2.0-")
        while await reader.read(65536):
            pass
        writer.close()


async def test_the_host_key_is_kept_with_mode_0600_and_only_where_told(tmp_path):
    data = tmp_path / "data"
    async with running(data=data) as server:
        first = server.addresses.host_key
    (path,) = data.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    async with running(data=data) as server:
        assert server.addresses.host_key == first
    async with running() as server:
        assert server.addresses.host_key != first


async def test_the_file_of_users_is_read_again_when_it_changes(tmp_path, caplog):
    key = make_key(tmp_path)
    users = tmp_path / "users"
    users.write_text("# friends\n\nnobody knows this line\n")

    async def name(server: BoardServer) -> bytes:
        talk = await AsyncsshTalk.start(server.addresses.port, key, "user")
        answer = await talk.end()
        await talk.hang_up()
        return answer.out.split(b"\n")[0]

    async with asyncio.timeout(PATIENCE), running(users=users) as server:
        assert await name(server) == b"public"
        users.write_text(f"Alice {key.line} her laptop\n")
        assert await name(server) == b"alice"
        users.unlink()
        assert await name(server) == b"alice"
    assert "line 3 is skipped" in caplog.text


async def test_a_session_with_an_open_topic_ends_with_the_board(tmp_path):
    key = make_key(tmp_path)
    async with asyncio.timeout(PATIENCE):
        async with running() as server:
            talk = await AsyncsshTalk.start(server.addresses.port, key, "pipe t")
        assert (await talk.end()).status is None
        await talk.hang_up()


async def test_a_board_on_all_addresses_names_one_that_can_be_connected_to():
    async with asyncio.timeout(PATIENCE), running(host="0.0.0.0") as server:
        where = server.addresses
        assert where.host != "0.0.0.0"
        assert where.relay.startswith(f"tcp:{where.host}:")
        _, writer = await asyncio.open_connection(where.host, where.port)
        writer.close()


async def test_a_port_that_is_taken_is_an_error_that_says_so_and_nothing_is_left_listening():
    async with running() as server:
        for port in ("port", "mailbox_port"):
            with pytest.raises(BoardError, match=r"can't listen.*\n.*--port"):
                await serve(ServerOptions(**{"port": 0, port: server.addresses.port}))


async def test_closing_a_board_twice_is_the_same_as_once():
    async with running() as server:
        await server.close()
