"""The fake board's faults, and that members get through them."""

from __future__ import annotations

import asyncio

import pytest
from board_support import Recorder, joined

from p2p_ipython.board.base import BoardState
from p2p_ipython.errors import BoardUnreachable
from p2p_ipython.rehearsal.board import Faults, MemoryBoard, MemoryBoardHub


async def test_nobody_joins_a_board_that_is_down():
    hub = MemoryBoardHub()
    hub.down()
    board = MemoryBoard(hub, "t", Recorder())
    with pytest.raises(BoardUnreachable):
        await board.open()
    await board.close()


async def test_a_member_comes_back_when_the_board_does():
    hub, ear = MemoryBoardHub(), Recorder()
    async with joined(MemoryBoard(hub, "t", ear)):
        hub.down()
        await ear.until(lambda: any("2nd try" in report.detail for report in ear.reports))
        hub.up()
        await ear.until(lambda: ear.states[-1] is BoardState.CONNECTED)


async def test_shadow_topics_are_as_on_the_real_board():
    hub, ear = MemoryBoardHub(), Recorder()
    alice, bob = MemoryBoard(hub, "t", ear, user="alice"), MemoryBoard(hub, "alice/t", Recorder(), user="bob")
    carol_ear = Recorder()
    carol = MemoryBoard(hub, "alice/t", carol_ear, user="carol")
    async with joined(alice, bob, carol):
        bob.post(b"into the void")
        alice.post(b"hello")
        for _ in range(5):
            await asyncio.sleep(0)
        assert ear.lines == carol_ear.lines == []


async def test_lines_get_through_to_their_author_whatever_the_board_does():
    """The echo is what is promised: a drop on the way to somebody else is that reader's loss."""
    faults = Faults(drop=0.2, duplicate=0.2, cut=0.2, late=0.5, delay=0.01)
    hub, ear = MemoryBoardHub(seed=1, faults=faults), Recorder()
    author = MemoryBoard(hub, "t", Recorder())
    async with joined(author, MemoryBoard(hub, "t", ear)):
        lines = {b"p1 %d" % n for n in range(50)}
        for line in lines:
            author.post(line)
        await ear.until(lambda: len(lines & set(ear.lines)) > 25)
    assert any(line not in lines for line in ear.lines), "cut lines come out as garbage, for the wire to refuse"


async def test_the_same_seed_gives_the_same_run(monkeypatch):
    monkeypatch.setattr("p2p_ipython.board.lines.RESEND_AFTER", 1000.0)  # of a machine's stand-still no seed knows

    async def run() -> list[bytes]:
        hub, ear = MemoryBoardHub(seed=7, faults=Faults(drop=0.3, duplicate=0.3, cut=0.3)), Recorder()
        author = MemoryBoard(hub, "t", Recorder())
        async with joined(author, MemoryBoard(hub, "t", ear)):
            for number in range(30):
                author.post(b"p1 %d" % number)
            await ear.until(lambda: len(ear.lines) > 20)
            for _ in range(5):
                await asyncio.sleep(0)
            return list(ear.lines)

    assert await run() == await run()
