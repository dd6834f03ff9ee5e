"""A board that a hostile client attacks by every way at once: members join, and those who are there lose nothing.

This is the small form of tests/benchmarks/bench_strangers.py (``make strangers``), which has the figures.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import pytest
from attacked_board import Attack, Board, join_once
from board_support import PATIENCE, Recorder, client, joined, make_key

from p2p_ipython.board.base import BoardState

MOST = 200
"""MB that a board may have."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all addresses 127.0.0.x")


async def test_members_join_and_talk_while_a_stranger_does_the_worst_it_can(tmp_path):
    board = await asyncio.to_thread(Board, tmp_path)
    try:
        key = make_key(tmp_path)
        ears = [Recorder(), Recorder()]
        async with joined(*(client(board, "p2p-there", ear, key, tmp_path) for ear in ears)):  # type: ignore[arg-type]
            attack = await asyncio.to_thread(lambda: Attack(board, half_open=300, idle=100))
            assert attack.ready
            attack.begin()
            speaker, other = Recorder(), Recorder()
            for number in range(4):
                async with asyncio.timeout(PATIENCE):
                    await join_once(board, tmp_path, key, number)
                assert board.memory() < MOST
            async with joined(
                client(board, "p2p-new", speaker, key, tmp_path),  # type: ignore[arg-type]
                listening := client(board, "p2p-new", other, key, tmp_path),  # type: ignore[arg-type]
            ):
                for number in range(50):
                    listening.post(b"p1 line %d" % number)
                await speaker.until(lambda: len(set(speaker.lines)) == 50)
            did = await asyncio.to_thread(attack.end)
            assert sum(name.endswith(" begun") for name in did) == 9, did
            assert [ear.states for ear in ears] == 2 * [[BoardState.CONNECTED]], ears[0].reports
        assert board.memory() < MOST
        assert board.log.read_text().count("\n") < 20
    finally:
        with suppress(ProcessLookupError):
            await asyncio.to_thread(board.end)
