"""What every board does, run on the fake and on the real thing: SSHBoard with our own server on loopback, and with one
that has pico's weaknesses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
from board_support import Key, Recorder, client, make_key, pico_board, running

from p2p_ipython.board.base import MAX_LINE, Board, BoardState
from p2p_ipython.board.server.server import BoardServer
from p2p_ipython.errors import LocalProtocolError
from p2p_ipython.rehearsal.board import MemoryBoard, MemoryBoardHub


class World(Protocol):
    """A board, the members who may join it, and the means to cut them off."""

    def member(self, listener: Recorder, topic: str = "alice/t", *, user: str = "alice", public: bool = False) -> Board:
        """A session of ``alice``'s, ``bob``'s, or of a key without an account (``public``)."""
        ...

    async def cut_everybody(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.hub = MemoryBoardHub()

    def member(self, listener: Recorder, topic: str = "alice/t", *, user: str = "alice", public: bool = False) -> Board:
        return MemoryBoard(self.hub, topic, listener, user=user, public=public)

    async def cut_everybody(self) -> None:
        self.hub.down()
        self.hub.up()


class SSHWorld:
    def __init__(self, server: BoardServer, keys: dict[str, Key], folder: Path) -> None:
        self.server, self.keys, self.folder = server, keys, folder

    def member(self, listener: Recorder, topic: str = "alice/t", *, user: str = "alice", public: bool = False) -> Board:
        return client(self.server, topic, listener, self.keys[user], self.folder, public=public)

    async def cut_everybody(self) -> None:
        for connection in list(self.server.connections):
            connection.abort()


@asynccontextmanager
async def _memory(tmp_path: Path) -> AsyncIterator[World]:
    yield MemoryWorld()


@asynccontextmanager
async def _ssh(tmp_path: Path, board: Any = running) -> AsyncIterator[World]:
    keys = {user: make_key(tmp_path, user) for user in ("alice", "bob", "public")}
    async with board(users_inline={user: keys[user].line for user in ("alice", "bob")}) as server:
        yield SSHWorld(server, keys, tmp_path)


@pytest.fixture(params=[_memory, _ssh, partial(_ssh, board=pico_board)], ids=["memory", "ssh", "ssh like pico"])
def world(request, tmp_path):  # type: ignore[no-untyped-def]
    return lambda: request.param(tmp_path)


async def test_a_line_reaches_every_other_member_and_not_its_author(world):
    async with world() as board:
        ears = [Recorder() for _ in range(3)]
        members = [board.member(ear) for ear in ears]
        for member in members:
            await member.open()
        members[0].post(b"p1 hello")
        members[1].post(b"p1 hello yourself")
        await ears[2].until(lambda: len(ears[2].lines) == 2)
        await ears[1].until(lambda: ears[1].lines)
        await ears[0].until(lambda: ears[0].lines)
        for member in members:
            await member.close()
        assert [ear.lines for ear in ears[:2]] == [[b"p1 hello yourself"], [b"p1 hello"]]
        assert sorted(ears[2].lines) == [b"p1 hello", b"p1 hello yourself"]


async def test_lines_of_one_author_keep_their_order(world):
    async with world() as board:
        ear = Recorder()
        author, reader = board.member(Recorder()), board.member(ear)
        await author.open()
        await reader.open()
        lines = [b"p1 line %d" % n for n in range(300)]
        for line in lines:
            author.post(line)
        await ear.until(lambda: len(ear.lines) == len(lines))
        await author.close()
        await reader.close()
        assert ear.lines == lines


async def test_the_longest_line_arrives_whole(world):
    async with world() as board:
        ear = Recorder()
        author, reader = board.member(Recorder()), board.member(ear)
        await author.open()
        await reader.open()
        author.post(b"x" * MAX_LINE)
        await ear.until(lambda: ear.lines)
        await author.close()
        await reader.close()
        assert ear.lines == [b"x" * MAX_LINE]


@pytest.mark.parametrize("line", [b"", b"two\nlines", b"x" * (MAX_LINE + 1)], ids=["empty", "newline", "too long"])
async def test_a_line_that_cannot_be_posted_is_our_own_mistake(world, line):
    async with world() as board:
        member = board.member(Recorder())
        await member.open()
        with pytest.raises(LocalProtocolError):
            member.post(line)
        await member.close()


async def test_topics_do_not_hear_each_other(world):
    async with world() as board:
        ear, other_ear = Recorder(), Recorder()
        author, reader, other = board.member(Recorder()), board.member(ear), board.member(other_ear, "alice/u")
        for member in (author, reader, other):
            await member.open()
        author.post(b"p1 for t")
        await ear.until(lambda: ear.lines)
        for member in (author, reader, other):
            await member.close()
        assert other_ear.lines == []


async def test_the_state_is_told_from_connecting_to_closed(world):
    async with world() as board:
        ear = Recorder()
        member = board.member(ear)
        assert member.report.state is BoardState.CONNECTING
        await member.open()
        assert member.report.state is BoardState.CONNECTED
        await member.close()
        await member.close()
        assert ear.states == [BoardState.CONNECTED, BoardState.CLOSED]


async def test_the_board_says_who_we_are(world):
    async with world() as board:
        for user in ("alice", "bob", "public"):
            member = board.member(Recorder(), user=user)
            await member.open()
            assert member.user == user
            await member.close()


async def test_what_was_posted_just_before_closing_is_still_read(world):
    async with world() as board:
        ear = Recorder()
        author, reader = board.member(Recorder()), board.member(ear)
        await reader.open()
        await author.open()
        author.post(b"p1 bye")
        await author.close()
        await ear.until(lambda: ear.lines)
        await reader.close()
        assert ear.lines == [b"p1 bye"]


async def test_members_who_are_cut_off_come_back_and_post_what_waited(world):
    async with world() as board:
        ears = [Recorder(), Recorder()]
        author, reader = (board.member(ear) for ear in ears)
        await author.open()
        await reader.open()
        await board.cut_everybody()
        for ear in ears:
            await ear.until(lambda ear=ear: BoardState.RECONNECTING in ear.states)
        author.post(b"p1 posted while away")
        for ear in ears:
            await ear.until(lambda ear=ear: ear.states[-1] is BoardState.CONNECTED)
        author.post(b"p1 posted after")
        # The reader may have come back after the first line was posted: boards keep nothing.
        await ears[1].until(lambda: b"p1 posted after" in ears[1].lines)
        assert ears[0].lines == []
        assert "1st try" in next(r.detail for r in ears[0].reports if r.state is BoardState.RECONNECTING)
        await author.close()
        await reader.close()


async def test_the_last_member_stays_when_the_second_last_leaves(world):
    """A real board then cuts the last one's channel; the member doesn't notice, and hears the next."""
    async with world() as board:
        ear = Recorder()
        stays, leaves, comes = board.member(ear), board.member(Recorder()), board.member(Recorder())
        await stays.open()
        await leaves.open()
        await leaves.close()
        await comes.open()
        posted = 0
        async with asyncio.timeout(20):
            while not ear.lines:
                comes.post(b"p1 welcome %d" % posted)
                posted += 1
                await asyncio.sleep(0.2)
        await stays.close()
        await comes.close()
        assert stays.report.state is BoardState.CLOSED


async def test_closing_while_cut_off_ends_at_once(world):
    async with world() as board:
        ear = Recorder()
        member = board.member(ear)
        await member.open()
        await board.cut_everybody()
        await ear.until(lambda: BoardState.RECONNECTING in ear.states)
        await member.close()
        assert member.report.state is BoardState.CLOSED


@pytest.mark.parametrize("first", ["alice", "bob", "public"])
async def test_a_public_topic_is_one_for_users_and_for_keys_without_an_account_whoever_comes_first(world, first):
    async with world() as board:
        users = [first, *({"alice", "bob", "public"} - {first})]
        ears = [Recorder() for _ in users]
        members = [
            board.member(ear, "p2p-lobby", user=user, public=True) for user, ear in zip(users, ears, strict=True)
        ]
        for member in members:
            await member.open()
        for user, member in zip(users, members, strict=True):
            member.post(f"p1 from {user}".encode())
        for ear in ears:
            await ear.until(lambda ear=ear: len(ear.lines) == 2)
        for member in members:
            await member.close()
        for user, ear in zip(users, ears, strict=True):
            assert set(ear.lines) == {f"p1 from {other}".encode() for other in users if other != user}


async def test_the_public_topic_is_still_the_same_when_the_first_has_left_and_come_back(world):
    async with world() as board:
        ears = [Recorder(), Recorder(), Recorder()]
        first, *others = (
            board.member(ear, "p2p-lobby", user=user, public=True)
            for ear, user in zip(ears, ("alice", "bob", "public"), strict=True)
        )
        for member in (first, *others):
            await member.open()
        await first.close()
        back = board.member(ears[0], "p2p-lobby", user="alice", public=True)
        await back.open()
        back.post(b"p1 I am back")
        for ear in ears[1:]:
            await ear.until(lambda ear=ear: ear.lines)
        for member in (back, *others):
            await member.close()
