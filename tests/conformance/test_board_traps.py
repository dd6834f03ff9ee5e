"""The traps of boards like pico's: each shown with clients that know nothing of it, then what ours makes of it.

Our client uses public topics, so that the traps about access lists can't close on it; what is left are topics that
are cut, mixed up or stalled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncssh
import pytest
from board_support import (
    Answer,
    AsyncsshTalk,
    Bench,
    Recorder,
    benched,
    client,
    joined,
    pico_board,
    running,
    until,
)

from p2p_ipython.board import lines as lines_module
from p2p_ipython.board.base import BoardState
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.board.lines import frame
from p2p_ipython.board.pico import server as pico_server
from p2p_ipython.board.server.server import BoardServer
from p2p_ipython.board.session import STALLED

TOPIC = "p2p-0123456789abcdef0123456789abcdef"


@pytest.fixture
def pico(tmp_path) -> Callable[[], Any]:  # type: ignore[no-untyped-def]
    return partial(benched, pico_board, AsyncsshTalk, tmp_path)


@asynccontextmanager
async def members(board: Bench, tmp_path: Any, *users: str) -> AsyncIterator[list[tuple[SSHBoard, Recorder]]]:
    """Sessions of our own client's on one public topic."""
    ears = [Recorder() for _ in users]
    boards = [
        client(board.server, TOPIC, ear, board.keys[user], tmp_path, public=True)
        for user, ear in zip(users, ears, strict=True)
    ]
    async with joined(*boards):
        yield list(zip(boards, ears, strict=True))


@asynccontextmanager
async def staller(board: Bench, user: str, command: str) -> AsyncIterator[None]:
    """A session on the public topic that never reads, with room for 16 KiB on its way; it has gone at the end."""
    connection = await asyncssh.connect(
        "127.0.0.1", board.port, known_hosts=None, client_keys=[board.keys[user].key], config=None, agent_path=None
    )
    try:
        before = board.on(f"public/{TOPIC}")
        _, stalled, _ = await connection.open_session(command, encoding=None, window=16 << 10)
        stalled.channel.pause_reading()
        await until(lambda: board.on(f"public/{TOPIC}") == before + 1)
        yield
    finally:
        connection.abort()
        await connection.wait_closed()


# 1 to 4: the access list


async def test_trap_1_the_access_list_admits_everybodys_first_session_and_only_a_second_is_in_the_shadow(pico):
    async with pico() as board:
        host = await board.join("alice", "pipe t -r -a bob", "alice/t")
        for intruder in ("carol", "stranger"):
            first = await board.join(intruder, "pipe alice/t -r", "alice/t")
            await host.write(f"a secret that {intruder} reads\n".encode())
            await first.read_until(f"{intruder} reads\n".encode())
        await board.join("carol", "pipe alice/t -r", "carol/alice/t")
        await board.join("stranger", "pipe alice/t -r", "public/alice/t")
        await board.join("bob", "pipe alice/t -r", "alice/t")
        await board.join("bob", "pipe alice/t -r", "alice/t")


async def test_trap_2_a_short_name_lands_in_the_topic_of_somebody_called_like_its_beginning(pico):
    async with pico() as board:
        await board.join("bob", "pipe jobs -a bob,alice", "bob/jobs")
        # alice means her own topic, alice/bob/jobs
        await board.join("alice", "pipe bob/jobs -a carol", "bob/jobs")
        await board.join("alice", "pipe alice/bob/jobs -a carol", "alice/bob/jobs")


async def test_trap_3_a_member_who_comes_before_the_host_stays_in_a_shadow(pico):
    async with pico() as board:
        early = await board.join("bob", "pipe alice/t -r", "bob/alice/t")
        host = await board.join("alice", "pipe t -r -a bob", "alice/t")
        late = await board.join("bob", "pipe alice/t -r", "alice/t")
        await host.write(b"hello\n")
        await late.read_until(b"hello\n")
        await early.write(b"only I hear this\n")
        assert await early.read_until(b"\n") == b"only I hear this\n"


async def test_trap_3_a_member_who_comes_after_the_host_has_gone_is_in_a_shadow_too(pico):
    async with pico() as board:
        host = await board.join("alice", "pipe t -r -a bob,carol", "alice/t")
        await board.join("bob", "pipe alice/t -r", "alice/t")
        await board.join("bob", "pipe alice/t -r", "alice/t")
        await host.hang_up()
        await until(lambda: board.on("alice/t") == 2)
        await board.join("carol", "pipe alice/t -r", "carol/alice/t")


async def test_trap_4_a_list_is_void_when_there_is_an_entry_even_an_empty_one_and_goes_with_its_creator(pico):
    async with pico() as board:
        first = await board.join("alice", "pipe t -r", "alice/t")
        await board.join("alice", "pipe t -r -a bob", "alice/t")
        await board.join("alice", "pipe t -r", "alice/t")
        await board.join("bob", "pipe alice/t -r", "bob/alice/t")
        assert b"Access List" not in (await board.ask("alice", "ls")).out
        await first.hang_up()
        await until(lambda: board.on("alice/t") == 2)
        await board.join("alice", "pipe t -r -a bob", "alice/t")
        assert b"alice/t: (Access List: bob)" in (await board.ask("alice", "ls")).out
        await board.join("bob", "pipe alice/t -r", "alice/t")


async def test_a_public_topic_is_out_of_reach_of_all_four(pico, tmp_path):
    """No owner, no list, no short name, no host: whoever comes, in whatever order, is on the same topic."""
    async with pico() as board, members(board, tmp_path, "stranger", "bob", "alice", "bob", "stranger") as all_:
        assert board.on(f"public/{TOPIC}") == 5
        for number, (member, _) in enumerate(all_):
            member.post(b"p1 from %d" % number)
        for _, ear in all_:
            await ear.until(lambda ear=ear: len(ear.lines) == 4)


# 5: the last one is cut


async def test_trap_5_when_the_second_last_pipe_leaves_the_last_is_cut_without_a_status(pico):
    async with pico() as board:
        last = await board.join("bob", f"pipe {TOPIC} -r -p", f"public/{TOPIC}")
        other = await board.join("stranger", f"pipe {TOPIC} -r -p", f"public/{TOPIC}")
        await other.hang_up()
        assert await last.end() == Answer(b"", b"", None)


async def test_trap_5_our_client_is_back_at_once_on_the_same_connection_and_loses_no_line_of_its_own(pico, tmp_path):
    async with pico() as board, members(board, tmp_path, "alice") as [(stays, ear)]:
        for number in range(3):
            async with members(board, tmp_path, "bob") as [(_, other_ear)]:
                stays.post(b"p1 line %d" % number)
                await other_ear.until(lambda number=number, ear=other_ear: b"p1 line %d" % number in ear.lines)
            stays.post(b"p1 written while it is cut %d" % number)
            await until(lambda: not stays._lines._outbox.waiting)
            await until(lambda: board.on(f"public/{TOPIC}") == 1)
        assert ear.states == [BoardState.CONNECTED]
        assert len(board.server.connections) == 1


# 6: one that doesn't read


async def test_trap_6_a_reader_that_does_not_read_stops_the_topic_for_all_others(pico):
    async with pico() as board:
        author = await board.join("alice", f"pipe {TOPIC} -p", f"public/{TOPIC}")
        reader = await board.join("bob", f"pipe {TOPIC} -p", f"public/{TOPIC}")
        topics, reading = board.server.topics, asyncio.ensure_future(reader.read_until(b"the end\n"))

        def stands_still() -> bool:
            """Whether a piece waits for a reader, and another one behind it."""
            return any(topics._owed.values()) and any(topics.backlog(name) for name in board.server.sessions)

        async with staller(board, "stranger", f"pipe {TOPIC} -p"):
            stalled = False
            for number in range(200):
                await author.write(b"<%d>" % number + b"x" * 990 + b"\n")
                await until(lambda line=b"<%d>" % number: line in reader.out or stands_still())
                if stalled := b"<%d>" % number not in reader.out:
                    break
            assert stalled
            assert 16 << 10 <= len(reader.out) <= 64 << 10
        # and once it has gone all is passed on
        await author.write(b"the end\n")
        assert b"<%d>" % number in await reading


async def test_trap_6_our_client_says_that_a_topic_is_stalled_and_goes_on_when_the_staller_has_gone(
    pico, tmp_path, monkeypatch
):
    monkeypatch.setattr(lines_module, "ECHO_WITHIN", 1.0)
    async with pico() as board, members(board, tmp_path, "alice", "bob") as [(author, ear), (_, other_ear)]:
        # More than the staller's window, a piece that is held for it, and what we write ahead of our echoes, together.
        lines = [b"p1 %03d " % number + b"x" * 700 for number in range(160)]
        async with staller(board, "stranger", f"pipe {TOPIC} -r -p"):
            for line in lines:
                author.post(line)
            await ear.until(lambda: author.report.detail == STALLED)
            assert author.report.state is BoardState.CONNECTED
            assert len(other_ear.lines) < len(lines)
        await other_ear.until(lambda: set(lines) <= set(other_ear.lines))
        await ear.until(lambda: author.report.detail == "")
        assert set(ear.states) == {BoardState.CONNECTED}


async def test_trap_6_our_client_is_never_the_one_that_does_not_read(pico, tmp_path):
    """What comes is taken in by a thread of its own, whether or not the event loop gets round to it."""
    async with pico() as board, members(board, tmp_path, "alice") as [(quiet, ear)]:
        author = await board.join("bob", f"pipe {TOPIC} -r -p", f"public/{TOPIC}")
        connection = quiet._connection
        assert connection is not None
        told, connection._tell = connection._tell, lambda *_: None  # type: ignore[method-assign]
        big = frame(b"x" * 4000)
        for number in range(1000):  # 4 MB, twice the window that paramiko gives
            await author.write(big)
            if number % 50 == 49:
                await author.read_until(big)
                author.out = b""
        await author.write(b"the end\n")
        await author.read_until(b"the end\n")
        connection._tell = told  # type: ignore[method-assign]
        assert ear.lines == []


# 7: lines that are cut, and mixed up


async def test_trap_7_lines_of_several_writers_in_a_burst_are_cut_and_mixed_up(pico):
    async with pico() as board:
        writers = [await board.join("alice", f"pipe {TOPIC} -p", f"public/{TOPIC}") for _ in range(3)]
        reader = await board.join("bob", f"sub {TOPIC} -p -k", f"public/{TOPIC}")
        whole = {b"%d %04d " % (who, number) + b"x" * 290 for who in range(3) for number in range(1500)}

        async def write(who: int, talk: Any) -> None:
            for line in sorted(line for line in whole if line.startswith(b"%d " % who)):
                talk.process.stdin.write(frame(line))
            await talk.process.stdin.drain()

        size = sum(len(frame(line)) for line in whole)
        tasks = [asyncio.ensure_future(write(who, talk)) for who, talk in enumerate(writers)]
        got = b""
        while len(got) < size:
            got += await reader.process.stdout.read(65536)
        await asyncio.gather(*tasks)
        broken = set(filter(None, got.split(b"\n"))) - whole
        assert broken, "no line was cut"
        assert all(len(line) < 600 for line in broken)


@pytest.mark.parametrize("patient", [True, False], ids=["as we write", "written all at once"])
async def test_trap_7_all_lines_of_our_clients_arrive_whole_and_those_that_were_cut_again(
    pico, tmp_path, monkeypatch, patient
):
    """By waiting for echoes below 32 KiB none is cut; where they are, each is written again until it is heard whole."""
    if patient:  # to the end: on a machine that stands still for long, what is written again would be cut, too
        monkeypatch.setattr(lines_module, "RESEND_AFTER", 1000.0)
    else:
        monkeypatch.setattr(lines_module, "IN_FLIGHT", 1 << 30)
        monkeypatch.setattr(lines_module, "RESEND_AFTER", 0.3)
    async with pico() as board, members(board, tmp_path, "alice", "bob", "stranger") as all_:
        observer = await board.join("carol", f"sub {TOPIC} -p -k", f"public/{TOPIC}")
        reading = asyncio.ensure_future(observer.read_until(b"p1 that was all\n"))  # or it might be what stalls them
        wanted = [[b"p1 %d %04d " % (who, number) + b"x" * 290 for number in range(600)] for who in range(3)]
        whole = {line for lines in wanted for line in lines}
        for number in range(600):
            for (member, _), lines in zip(all_, wanted, strict=True):
                member.post(lines[number])
        for (_, ear), lines in zip(all_, wanted, strict=True):
            await ear.until(lambda ear=ear, lines=lines: whole - set(lines) <= set(ear.lines))
        await until(lambda: not any(member._lines._outbox.waiting for member, _ in all_))
        all_[0][0].post(b"p1 that was all")
        heard = (await reading).split(b"\n")
        broken = set(heard) - whole - {b"", b"p1 that was all"}
        assert bool(broken) is not patient


# The rest of what is worse there


async def test_the_first_key_that_is_offered_wins_even_if_it_has_no_account(pico):
    async with pico() as board:
        keys = [board.keys["stranger"].key, board.keys["alice"].key]
        async with asyncssh.connect(
            "127.0.0.1", board.port, known_hosts=None, client_keys=keys, config=None, agent_path=None
        ) as connection:
            await connection.create_process("pipe t", encoding=None)
            await until(lambda: board.on("public/t") == 1)


async def test_there_is_no_user_no_p2p_and_no_mailbox(pico, tmp_path):
    async with pico() as board, members(board, tmp_path, "alice") as [(member, _)]:
        assert await board.ask("alice", "user") == await board.ask("alice", "p2p") == Answer(b"", b"", 0)
        assert (board.server.addresses.mailbox, board.server.addresses.relay) == ("", "")
        assert member.user == ""
        assert await member.services() is None


async def test_pings_come_as_channel_requests_and_disturb_no_client(pico, tmp_path, monkeypatch):
    monkeypatch.setattr(pico_server, "PING_EVERY", 0.02)
    pings = []
    handle = asyncssh.SSHClientChannel._service_next_request  # type: ignore[attr-defined]

    def count(channel: Any) -> Any:
        pings.append(channel._request_queue[0][0])
        return handle(channel)

    monkeypatch.setattr(asyncssh.SSHClientChannel, "_service_next_request", count)
    async with pico() as board, members(board, tmp_path, "alice", "bob") as [(author, _), (_, ear)]:
        raw = await board.join("carol", f"pipe {TOPIC} -p", f"public/{TOPIC}")
        await until(lambda: pings.count("ping@pico.sh") > 5)
        author.post(b"p1 hello")
        await ear.until(lambda: ear.lines)
        await raw.read_until(b"p1 hello\n")


async def test_a_published_message_goes_out_before_its_publisher_is_told_so(pico):
    async with pico() as board:
        reader = await board.join("alice", "sub t -k", "alice/t")
        author = await board.start("alice", "pub t -c")
        await author.write(b"x" * 300_000 + b"end\n")
        await author.eof()
        assert (await author.end()).status == 0
        assert len(await reader.read_until(b"end\n")) == 300_004


async def test_a_board_of_ours_has_none_of_this_unless_it_is_asked_to():
    async with running() as server:
        assert type(server) is BoardServer
