"""The relay's bounds: each is met by real sockets, and the pairs that are there notice nothing."""

from __future__ import annotations

import asyncio
import secrets
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from board_support import PATIENCE, AsyncsshTalk, make_key, running, until

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.opening import Speaks
from p2p_ipython.board.server.server import BoardServer

End = tuple[StreamReader, StreamWriter]


class Relay:
    """A board's relay, and connections to it from any address of loopback."""

    def __init__(self, server: BoardServer) -> None:
        self.server = server
        self.ends: list[End] = []

    async def wish(self, token: str, side: str = "a", source: str = "127.0.0.1") -> End:
        end = await asyncio.open_connection("127.0.0.1", self.server.ports[Speaks.RELAY], local_addr=(source, 0))
        self.ends.append(end)
        end[1].write(f"please relay {token} for side {side * 16}\n".encode())
        return end

    async def waiting(self, source: str = "127.0.0.1") -> End:
        """A connection that waits."""
        share = self.server._services._factories[Speaks.RELAY].wrappedFactory.waiting
        before = share._sum
        end = await self.wish(secrets.token_hex(32), source=source)
        await until(lambda: share._sum == before + 1)
        return end

    async def pair(self, source: str = "127.0.0.1", other: str | None = None) -> tuple[End, End]:
        """Two who have met."""
        token = secrets.token_hex(32)
        ends = await self.wish(token, "a", source), await self.wish(token, "b", other or source)
        for reader, _ in ends:
            assert await reader.readline() == b"ok\n"
        return ends

    async def works(self, pair: tuple[End, End]) -> None:
        """What one end says reaches the other."""
        for one, two in (pair, pair[::-1]):
            one[1].write(b"x\n")
            assert await two[0].readline() == b"x\n"


@asynccontextmanager
async def relay(**bounds: float) -> AsyncIterator[Relay]:
    async with asyncio.timeout(PATIENCE), running(**bounds) as server:
        there = Relay(server)
        yield there
        for _, writer in there.ends:
            writer.close()
        factory = server._services._factories[Speaks.RELAY]
        await until(lambda: not factory.protocols)
        for share in (factory.wrappedFactory.waiting, factory.wrappedFactory.ends):
            assert share._sum == 0
            assert not share._used


FULL = b"too many connections in all\n"
YOURS = b"too many connections for your address\n"


async def test_an_address_may_have_so_many_waiting():
    async with relay(relay_waiting_each=2) as there:
        pair = await there.pair()
        for _ in range(2):
            await there.waiting()
        reader, _ = await there.wish(secrets.token_hex(32))
        assert await reader.read() == YOURS
        await there.waiting("127.0.0.2")
        await there.works(pair)


async def test_when_the_relay_is_full_an_address_with_a_session_still_gets_in(tmp_path):
    async with relay(relay_waiting=4) as there:
        talk = await AsyncsshTalk.start(there.server.addresses.port, make_key(tmp_path), "pipe t")
        for _ in range(3):
            await there.waiting("127.0.0.2")
        reader, _ = await there.wish(secrets.token_hex(32), source="127.0.0.3")
        assert await reader.read() == FULL
        await there.waiting("127.0.0.1")
        reader, _ = await there.wish(secrets.token_hex(32), source="127.0.0.1")
        assert await reader.read() == FULL
        await talk.hang_up()


async def test_waiting_has_an_end():
    async with relay(relay_wait=0.1) as there:
        reader, _ = await there.waiting()
        assert await reader.read() == b"nobody came\n"
        pair = await there.pair()
        await asyncio.sleep(0.15)  # the time that waiting may take, which is no bound of pairs
        await there.works(pair)


async def test_an_address_may_have_so_many_pairs():
    async with relay(relay_pairs_each=3) as there:
        pair = await there.pair("127.0.0.1", "127.0.0.2")
        await there.pair("127.0.0.1", "127.0.0.2")
        await there.pair("127.0.0.1", "127.0.0.3")
        token = secrets.token_hex(32)
        waits = await there.wish(token, "a", "127.0.0.4")
        reader, _ = await there.wish(token, "b", "127.0.0.1")
        assert await reader.read() == YOURS
        await there.wish(token, "b", "127.0.0.2")
        assert await waits[0].readline() == b"ok\n"
        await there.works(pair)


async def test_pairs_are_bounded_in_all_and_some_are_kept_for_addresses_with_a_session(tmp_path):
    async with relay(relay_pairs=4) as there:
        talk = await AsyncsshTalk.start(there.server.addresses.port, make_key(tmp_path), "pipe t")
        for _ in range(3):
            await there.pair("127.0.0.2")
        token = secrets.token_hex(32)
        await there.wish(token, "a", "127.0.0.3")
        reader, _ = await there.wish(token, "b", "127.0.0.3")
        assert await reader.read() == FULL
        await there.works(await there.pair("127.0.0.1"))
        await talk.hang_up()


async def test_a_pair_that_says_nothing_is_closed():
    async with relay(relay_silence=0.3) as there:
        silent = await there.pair()
        busy = await there.pair()
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.6
        while loop.time() < end:
            await there.works(busy)
            await asyncio.sleep(0.02)
        for reader, _ in silent:
            assert await reader.read() == b""
        await there.works(busy)


async def _passed(pair: tuple[End, End], size: int) -> float:
    """Send so much from one end to the other; return how long that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    pair[0][1].write(bytes(size))
    got = await pair[1][0].readexactly(size)
    assert len(got) == size
    return loop.time() - began


async def test_an_address_that_sends_too_fast_is_read_slower_and_loses_nothing():
    async with relay(relay_rate_each=1_000_000) as there:
        slow = await there.pair("127.0.0.2", "127.0.0.3")
        quick = await there.pair("127.0.0.4")
        task = asyncio.ensure_future(_passed(slow, 1_500_000))
        await _passed(quick, 500_000)
        assert not task.done()
        assert await task >= 0.4  # of 1.5 MB one is free, and the rest takes half a second


async def test_when_the_relay_is_busy_addresses_without_a_session_wait_first(tmp_path):
    async with relay(relay_rate=4_000_000) as there:
        talk = await AsyncsshTalk.start(there.server.addresses.port, make_key(tmp_path), "pipe t")
        strangers = [await there.pair(f"127.0.0.{number}") for number in (2, 3)]
        member = await there.pair("127.0.0.1")
        busy = [asyncio.ensure_future(_passed(pair, 2_500_000)) for pair in strangers]
        await until(lambda: there.server._services._factories[Speaks.RELAY].wrappedFactory.flows._strangers.level < 0)
        await _passed(member, 500_000)
        assert not any(task.done() for task in busy)
        assert max(await asyncio.gather(*busy)) >= 0.4  # of 5 MB three are free, and the rest takes 0.7 s
        await talk.hang_up()


async def test_two_of_one_side_wait_and_a_bad_wish_is_refused():
    async with relay() as there:
        token = secrets.token_hex(32)
        first, second = await there.wish(token, "a"), await there.wish(token, "a")
        third = await there.wish(token, "b")
        assert await third[0].readline() == b"ok\n"
        assert sorted([await first[0].readline(), await second[0].readline()]) == [b"", b"ok\n"]
        reader, _ = await there.wish("no token")
        assert await reader.read() == b"bad handshake\n"


@pytest.mark.parametrize("name", ["relay_waiting_each", "relay_pairs_each"])
def test_a_workshop_behind_one_address_fits(name):
    assert getattr(Bounds, name) >= 200
