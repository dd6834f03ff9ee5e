"""The promises that every link keeps: in memory, direct, and by a relay (the last two over real sockets)."""

from __future__ import annotations

import array
import asyncio
import hashlib
import logging
import random
import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal

import pytest
from link_support import PATIENCE, Ends, Recorder, World, in_vain, world

from p2p_ipython.errors import (
    LinkLost,
    LinkTimeout,
    LocalProtocolError,
    MailboxUnreachable,
    RemoteProtocolError,
    WrongPeer,
)
from p2p_ipython.link.base import HIGH_WATER, LOW_WATER, LinkState, Meeting, Secret
from p2p_ipython.link.rendezvous import new_code
from p2p_ipython.protocol.frames import MAX_BODY, MAX_HEADER, FrameError

MIB = 1 << 20
Worlds = Callable[[], AbstractAsyncContextManager[World]]


@pytest.fixture(params=["memory", "direct", "relay"])
def worlds(request: pytest.FixtureRequest) -> Worlds:
    return lambda: world(request.param)


async def test_a_link_is_up_and_knows_its_kind(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join()
        assert (ends.client.state, ends.worker.state) == (LinkState.UP, LinkState.UP)
        assert ends.client.kind == ends.worker.kind == here.kind
        assert ends.client_hears.states == ends.worker_hears.states == []


async def test_frames_arrive_once_and_in_order_both_ways(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join()
        for number in range(3000):
            ends.client.send({"t": "a", "n": number}, b"x" * (number % 300))
            ends.worker.send({"t": "b", "n": number, "text": "äöü\ud800"})
        await ends.worker_hears.until(lambda heard: len(heard.frames) >= 3000)
        await ends.client_hears.until(lambda heard: len(heard.frames) >= 3000)
        assert ends.worker_hears.numbers == ends.client_hears.numbers == list(range(3000))
        assert all(body == b"x" * (header["n"] % 300) for header, body in ends.worker_hears.frames)
        assert ends.client_hears.frames[0][0] == {"t": "b", "n": 0, "text": "äöü?"}


async def test_bodies_of_all_sizes_and_types_arrive_whole(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join()
        sizes = [0, 1, 65_535, 65_536, 65_537, 262_144, MAX_BODY - 1, MAX_BODY]
        bodies = [random.Random(size).randbytes(size) for size in sizes]
        for number, body in enumerate(bodies):
            ends.client.send({"t": "a", "n": number, "long": "h" * (number * 40_000)}, body)
        floats = array.array("d", range(20_000))
        ends.client.send({"t": "a", "n": 8}, memoryview(floats))
        await ends.worker_hears.until(lambda heard: len(heard.frames) == 9)
        assert [bytes(body) for _, body in ends.worker_hears.frames] == [*bodies, floats.tobytes()]
        assert [len(header.get("long", "")) for header, _ in ends.worker_hears.frames[:8]] == [
            number * 40_000 for number in range(8)
        ]


async def test_the_handler_hears_nothing_before_open_has_returned(worlds: Worlds) -> None:
    async with worlds() as here:
        code = new_code()
        heard_early = []
        opened = False
        hears = Recorder()
        hears.each = lambda header: None if opened else heard_early.append(header)
        sent = here.linker("client")
        waits = here.linker("worker")

        async def client() -> None:
            link = await sent.open(here.meeting(code), Recorder())
            link.send({"t": "early"})

        async def worker() -> None:
            nonlocal opened
            await waits.open(here.meeting(code), hears)
            opened = True

        await asyncio.gather(client(), worker())
        await hears.until(lambda heard: heard.frames)
        assert heard_early == []


async def test_64_mib_land_intact_in_the_memory_that_the_handler_gives(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join(memory=64 * MIB)
        data = random.Random(1).randbytes(64 * MIB)
        _send_bulk(ends, data)
        await ends.worker_hears.until(lambda heard: len(heard.frames) == 64)
        assert ends.worker_hears.memory == data
        assert ends.worker_hears.asked == 64
        assert isinstance(ends.worker_hears.frames[0][1], memoryview)


async def test_small_frames_overtake_bulk(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join(memory=64 * MIB)
        once = iter([lambda: ends.client.send({"t": "small", "n": "small"})])
        ends.worker_hears.each = lambda header: next(once, lambda: None)()
        _send_bulk(ends, bytes(64 * MIB))
        await ends.worker_hears.until(lambda heard: len(heard.frames) == 65)
        order = ends.worker_hears.numbers
        assert order.index("small") < 40
        assert [n for n in order if n != "small"] == list(range(64))


async def test_pending_counts_waiting_bytes_and_drain_says_when_they_are_few(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join(memory=16 * MIB)
        _send_bulk(ends, bytes(16 * MIB))
        assert ends.client.pending > 16 * MIB > HIGH_WATER
        await ends.client_hears.until(lambda heard: heard.drains)
        assert ends.client.pending <= LOW_WATER
        await ends.worker_hears.until(lambda heard: len(heard.frames) == 16)
        assert ends.client_hears.drains == 1
        assert ends.client.pending == 0


async def test_a_link_cut_in_the_middle_of_bulk_loses_and_doubles_nothing(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join(memory=32 * MIB)
        data = random.Random(2).randbytes(32 * MIB)
        cuts = {5: ends.worker.cut, 11: ends.client.cut, 12: ends.client.cut, 25: ends.worker.cut}
        ends.worker_hears.each = lambda header: cuts.pop(header["n"], lambda: None)()
        for number in range(32):
            ends.client.send({"t": "small", "n": 1000 + number})
        _send_bulk(ends, data)
        ends.worker.send({"t": "back", "n": 7})
        await ends.worker_hears.until(lambda heard: len(heard.frames) >= 64)
        await ends.client_hears.until(lambda heard: len(heard.frames) >= 1)
        await ends.client_hears.until_state(LinkState.UP)
        assert ends.worker_hears.memory == data
        assert sorted(ends.worker_hears.numbers) == [*range(32), *range(1000, 1032)]
        assert [n for n in ends.worker_hears.numbers if n < 1000] == list(range(32))
        assert ends.client_hears.numbers == [7]
        assert ends.client.state is LinkState.UP


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whenever_a_link_is_cut_each_frame_arrives_once_and_in_its_order(worlds: Worlds, seed: int) -> None:
    async with worlds() as here:
        ends = await here.join()
        dice = random.Random(seed)

        def maybe_cut(header: object) -> None:
            if dice.random() < 0.01:
                dice.choice([ends.client, ends.worker]).cut()

        ends.client_hears.each = ends.worker_hears.each = maybe_cut
        for number in range(500):
            for link in (ends.client, ends.worker):
                bulk = dice.random() < 0.2
                body = dice.randbytes(dice.choice([0, 100, 70_000, 300_000] if bulk else [0, 10, 5000, 70_000]))
                link.send({"t": "x", "n": number, "bulk": bulk, "sum": _sum(body)}, body, bulk=bulk)
            if dice.random() < 0.05:
                await asyncio.sleep(0)
        for hears in (ends.client_hears, ends.worker_hears):
            await hears.until(lambda heard: len(heard.frames) >= 500)
            assert sorted(hears.numbers) == list(range(500))
            for bulk in (True, False):
                numbers = [header["n"] for header, _ in hears.frames if header["bulk"] is bulk]
                assert numbers == sorted(numbers)
            assert all(header["sum"] == _sum(body) for header, body in hears.frames)


async def test_frames_sent_while_the_link_is_away_arrive_when_it_is_back(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join()
        ends.client.cut()
        assert ends.client.state is LinkState.RECONNECTING
        ends.client.send({"t": "a", "n": 1})
        assert ends.client.pending > 0
        await ends.worker_hears.until(lambda heard: heard.frames)
        await ends.client_hears.until_state(LinkState.UP)
        assert [state for state, _ in ends.client_hears.states] == [LinkState.RECONNECTING, LinkState.UP]


async def test_when_one_end_closes_the_other_has_everything_and_hears_so(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join(memory=8 * MIB)
        _send_bulk(ends, bytes(8 * MIB))
        ends.client.send({"t": "last", "n": "last"})
        await ends.client.close()
        await ends.worker_hears.until_state(LinkState.CLOSED)
        assert len(ends.worker_hears.frames) == 9
        assert ends.worker_hears.states == [(LinkState.CLOSED, "the other end closed the link")]
        assert ends.client_hears.states == []
        assert ends.client.state is ends.worker.state is LinkState.CLOSED
        for link in (ends.client, ends.worker):
            with pytest.raises(LinkLost):
                link.send({"t": "a"})
            await link.close()
            link.abort()


async def test_a_peer_that_vanishes_is_lost_after_the_lease(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join(lease=0.4)
        await ends.worker_linker.close()
        ends.client.send({"t": "a"})
        await ends.client_hears.until_state(LinkState.LOST)
        assert [state for state, _ in ends.client_hears.states] == [LinkState.RECONNECTING, LinkState.LOST]
        assert ends.worker_hears.states == []
        assert ends.client.pending == 0
        with pytest.raises(LinkLost):
            ends.client.send({"t": "a"})


async def test_a_wrong_code_is_a_wrong_peer_for_both(worlds: Worlds) -> None:
    async with worlds() as here:
        code = new_code()
        wrong = Secret(code.reveal()[:-1] + ("0" if code.reveal()[-1] != "0" else "1"))
        results = await here.fail(here.meeting(code), here.meeting(wrong))
        assert [isinstance(result, WrongPeer) for result in results] == [True, True]


async def test_two_of_the_same_role_do_not_make_a_link(worlds: Worlds) -> None:
    async with worlds() as here:
        code = new_code()
        results = await asyncio.gather(
            *(here.linker("client").open(here.meeting(code), Recorder()) for _ in range(2)), return_exceptions=True
        )
        assert [type(result) for result in results] == [WrongPeer, WrongPeer]


@pytest.mark.parametrize("liar", ["client", "worker"])
async def test_a_failed_proof_is_a_wrong_peer_and_no_link(worlds: Worlds, liar: str) -> None:
    def refuse(verifier: bytes, proof: bytes) -> None:
        assert len(verifier) == 32
        if proof != b"proof of " + verifier:
            raise WrongPeer("not a member")

    async with worlds() as here:
        code = new_code()

        def meeting(role: str) -> Meeting:
            if role == liar:
                return here.meeting(code, check=refuse, prove=lambda verifier: b"a lie")
            return here.meeting(code, check=refuse)

        results = await here.fail(meeting("client"), meeting("worker"))
        assert [type(result) for result in results] == [WrongPeer, WrongPeer]
        assert any("not a member" in str(result) for result in results)


async def test_nobody_there_is_a_timeout(worlds: Worlds) -> None:
    async with worlds() as here:
        error = await in_vain(
            lambda deadline: here.linker("client").open(here.meeting(new_code(), deadline=deadline), Recorder())
        )
        assert isinstance(error, LinkTimeout)
        assert error.hint


async def test_a_mailbox_that_is_down_is_named(worlds: Worlds) -> None:
    async with worlds() as here:
        here.mailbox = "ws://127.0.0.1:9/v1"
        here.hub.mailbox_up = False
        with pytest.raises(MailboxUnreachable) as caught:
            await here.linker("client").open(here.meeting(new_code()), Recorder())
        assert "ws://127.0.0.1:9/v1" in caught.value.message
        assert caught.value.hint


async def test_an_open_that_is_cancelled_leaves_nothing_behind(worlds: Worlds) -> None:
    async with worlds() as here:
        linker = here.linker("client")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await linker.open(here.meeting(new_code()), Recorder())
        await linker.close()
        with pytest.raises(LinkLost):
            await linker.open(here.meeting(new_code()), Recorder())


async def test_a_code_is_never_shown(worlds: Worlds, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with worlds() as here:
        code, wrong = new_code(), new_code()
        nameplate, _, secret = code.reveal().partition("-")
        shown = [repr(here.meeting(code)), repr(code), str(code)]
        other = Secret(f"{nameplate}-{wrong.reveal().partition('-')[2]}")
        for result in await here.fail(here.meeting(code), here.meeting(other)):
            shown += [str(result), repr(result)]
        error = await in_vain(
            lambda deadline: here.linker("client").open(here.meeting(code, deadline=deadline), Recorder())
        )
        assert isinstance(error, LinkTimeout)
        caught = pytest.ExceptionInfo.from_exception(error)
        shown += [str(error), str(caught.getrepr(style="long", showlocals=False))]
        ends = await here.join()
        shown += [repr(ends.client), caplog.text]
        for text in shown:
            assert secret not in text
            assert nameplate not in text


async def test_frames_over_the_bounds_and_the_links_own_kinds_are_refused_here(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join()
        with pytest.raises(FrameError):
            ends.client.send({"t": "a"}, bytes(MAX_BODY + 1))
        with pytest.raises(FrameError):
            ends.client.send({"t": "a", "long": "x" * MAX_HEADER})
        with pytest.raises(LocalProtocolError):
            ends.client.send({"t": "link.bye"})
        ends.client.send({"t": "a", "n": 1})
        await ends.worker_hears.until(lambda heard: heard.frames)
        assert ends.worker_hears.numbers == [1]


# A handler that raises


@pytest.mark.parametrize("bulk", [False, True], ids=["small", "bulk"])
@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_frame_that_its_handler_refuses_ends_the_link_at_once(
    worlds: Worlds, size: int, bulk: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with worlds() as here:
        ends = await here.join(lease=0.4)
        _fail_on(ends, 3, RemoteProtocolError("a task of no size", hint="Update both ends."))
        for number in range(1, 9):
            ends.client.send({"t": "a", "n": number}, bytes(size), bulk=bulk)
        await ends.worker_hears.until_state(LinkState.LOST)
        await ends.client_hears.until_state(LinkState.LOST)
        assert ends.worker_hears.states == [(LinkState.LOST, "a task of no size")]
        assert ends.worker_hears.numbers == [1, 2, 3]
        with pytest.raises(LinkLost):
            ends.worker.send({"t": "a"})
        (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert (record.levelno, record.exc_info) == (logging.WARNING, None)
        assert "a task of no size" in record.getMessage()


async def test_a_body_that_its_handler_refuses_beforehand_ends_the_link_at_once(
    worlds: Worlds, caplog: pytest.LogCaptureFixture
) -> None:
    async with worlds() as here:
        ends = await here.join(memory=4 * MIB, lease=0.4)
        _fail_on(ends, 2, RemoteProtocolError("a chunk out of turn"), in_buffer_for=True)
        _send_bulk(ends, bytes(4 * MIB))
        await ends.worker_hears.until_state(LinkState.LOST)
        await ends.client_hears.until_state(LinkState.LOST)
        assert ends.worker_hears.states == [(LinkState.LOST, "a chunk out of turn")]
        assert ends.worker_hears.numbers == [0, 1]
        assert [record.exc_info for record in caplog.records if record.levelno >= logging.WARNING] == [None]


@pytest.mark.parametrize("in_buffer_for", [False, True], ids=["on_frame", "buffer_for"])
async def test_a_bug_of_a_handler_ends_the_link_and_is_logged_once(
    worlds: Worlds, in_buffer_for: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with worlds() as here:
        ends = await here.join(memory=4 * MIB, lease=0.4)
        _fail_on(ends, 1, RuntimeError("a bug of the handler's"), in_buffer_for=in_buffer_for)
        _send_bulk(ends, bytes(4 * MIB))
        await ends.worker_hears.until_state(LinkState.LOST)
        await ends.client_hears.until_state(LinkState.LOST)
        assert [state for state, _ in ends.worker_hears.states] == [LinkState.LOST]
        assert "a bug of p2p_ipython" in ends.worker_hears.states[0][1]
        assert ends.worker_hears.numbers == ([0] if in_buffer_for else [0, 1])
        assert caplog.text.count("Traceback") == 1
        assert "a bug of the handler's" in caplog.text


@pytest.mark.parametrize("method", ["on_link", "on_drain"])
async def test_a_handler_that_fails_where_no_frame_comes_ends_its_link_too(
    worlds: Worlds, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with worlds() as here:
        ends = await here.join(memory=16 * MIB, lease=0.4)

        def fail(*arguments: object) -> None:
            raise RuntimeError("a bug of the handler's")

        setattr(ends.client_hears, method, fail)
        if method == "on_link":
            ends.client.cut()
        else:
            _send_bulk(ends, bytes(16 * MIB))
        await ends.worker_hears.until_state(LinkState.LOST)
        assert ends.client.state is LinkState.LOST
        assert caplog.text.count("Traceback") == 1


@pytest.mark.parametrize("method", ["on_frame", "buffer_for", "on_link", "on_drain"])
async def test_a_handler_may_abort_its_link_wherever_it_is_called(
    worlds: Worlds, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with worlds() as here:
        ends = await here.join(memory=16 * MIB, lease=0.4)
        link, hears = (ends.worker, ends.worker_hears) if method in ("on_frame", "buffer_for") else (
            ends.client, ends.client_hears)  # fmt: skip
        heard = getattr(hears, method)
        calls = []

        def abort(*arguments: object) -> object:
            calls.append(arguments)
            link.abort()
            return heard(*arguments)

        setattr(hears, method, abort)
        _send_bulk(ends, bytes(16 * MIB))
        if method == "on_link":
            ends.worker.cut()
        await (ends.worker_hears if link is ends.client else ends.client_hears).until_state(LinkState.LOST)
        assert len(calls) == 1
        assert link.state is LinkState.CLOSED
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_place_of_the_wrong_size_ends_the_link(worlds: Worlds, caplog: pytest.LogCaptureFixture) -> None:
    async with worlds() as here:
        ends = await here.join(memory=10, lease=0.4)
        for _ in range(2):
            ends.client.send({"t": "a", "at": 0}, b"x" * 70_000)
        await ends.worker_hears.until_state(LinkState.LOST)
        await ends.client_hears.until_state(LinkState.LOST)
        assert ends.worker_hears.frames == []
        assert caplog.text.count("10 bytes for a body of 70000") == 1


async def test_the_place_of_a_body_that_is_refused_is_let_go(worlds: Worlds) -> None:
    async with worlds() as here:
        ends = await here.join(lease=0.4)
        place = array.array("B", bytes(100_000))
        gone = weakref.ref(place)
        places = [place]
        del place
        ends.worker_hears.buffer_for = lambda header, size: memoryview(places.pop())  # type: ignore[method-assign]

        def refuse(header: object) -> None:
            raise RemoteProtocolError("refused")

        ends.worker_hears.each = refuse
        ends.client.send({"t": "a"}, bytes(100_000))
        await ends.worker_hears.until_state(LinkState.LOST)
        ends.worker_hears.frames.clear()
        await ends.client_hears.until_state(LinkState.LOST)
        assert gone() is None


@pytest.mark.parametrize("kind", ["memory", "direct"])  # a relay can't tell whether the other end comes back
async def test_an_end_whose_frame_was_refused_learns_it_before_the_lease(
    kind: Literal["memory", "direct"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p_ipython.link.session.REFUSED_GRACE", 0.1)
    monkeypatch.setattr("p2p_ipython.rehearsal.link.REFUSED_GRACE", 0.1)
    async with world(kind) as here:
        ends = await here.join(lease=1000.0)
        _fail_on(ends, 1, RemoteProtocolError("refused"))
        ends.client.send({"t": "a", "n": 1})
        await ends.client_hears.until_state(LinkState.LOST)


def _fail_on(ends: Ends, number: int, error: Exception, *, in_buffer_for: bool = False) -> None:
    """Have the worker's handler raise on the frame of that number."""

    def fail(header: dict[str, object]) -> None:
        if header["n"] == number:
            raise error

    if in_buffer_for:
        ends.worker_hears.each_body = fail
    else:
        ends.worker_hears.each = fail


async def test_many_links_of_one_process_do_not_mix(worlds: Worlds) -> None:
    async with worlds() as here:
        client, worker = here.linker("client"), here.linker("worker")
        codes = [new_code() for _ in range(10)]
        hears = [Recorder() for _ in codes]
        async with asyncio.timeout(PATIENCE):
            opened = await asyncio.gather(
                *(client.open(here.meeting(code), Recorder()) for code in codes),
                *(worker.open(here.meeting(code), one) for code, one in zip(codes, hears, strict=True)),
            )
        for number, link in enumerate(opened[:10]):
            link.send({"t": "a", "n": number})
        for number, one in enumerate(hears):
            await one.until(lambda heard: heard.frames)
            assert one.numbers == [number]


def _send_bulk(ends: Ends, data: bytes) -> None:
    view = memoryview(data)
    for number, at in enumerate(range(0, len(data), MIB)):
        ends.client.send({"t": "chunk", "n": number, "at": at}, view[at : at + MIB], bulk=True)


def _sum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
