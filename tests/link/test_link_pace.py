"""Bulk is put below a link by time: on a slow network a small frame passes most of it, a fast one is kept busy."""

from __future__ import annotations

import asyncio
import itertools
import socket
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_support import PATIENCE, eventually, world

from p2p_ipython.link import tls
from p2p_ipython.link.hints import Hint
from p2p_ipython.link.pace import FIRST, LEAST, MOST, TIME, Pace
from p2p_ipython.link.session import Frame, Outbox
from p2p_ipython.protocol.frames import MAX_BODY


def driven(pace: Pace, rate: float, seconds: float) -> None:
    """Bulk without end, of which the kernel takes so many bytes a second."""
    for step in range(int(seconds / 0.005)):
        pace.look(int(rate * 0.005 * step), 0.005 * step, waits=True)


@pytest.mark.parametrize(
    ("rate", "limit"), [(62_500, LEAST), (125_000, LEAST), (2.5e6, 64 << 10), (12.5e6, 512 << 10), (1e9, MOST)]
)
def test_the_limit_is_what_leaves_in_a_twentieth_of_a_second(rate, limit):
    pace = Pace()
    driven(pace, rate, 3)
    assert pace.limit == limit


def test_it_grows_while_all_is_taken_at_once_and_falls_when_the_network_slows_down():
    pace, taken = Pace(), 0
    for _ in range(10):
        pace.look(taken, 0.0, waits=False)
        taken += pace.limit
        pace.look(taken, 0.0, waits=False)
    assert pace.limit == MOST
    pace.look(taken, 1.0, waits=True)
    pace.look(taken + 5000, 1.0 + TIME, waits=True)
    assert pace.limit == LEAST


def test_a_pause_is_not_taken_for_a_slow_network():
    pace = Pace()
    for second in range(100):
        pace.look(second * 1000, float(second), waits=False)
        pace.look(second * 1000 + 1000, float(second), waits=False)
    assert pace.limit == FIRST


@given(st.lists(st.tuples(st.integers(0, 1 << 22), st.floats(0, 1), st.booleans())))
def test_whatever_happens_the_limit_is_a_power_of_two_within_its_bounds(looks):
    pace, taken, now = Pace(), 0, 0.0
    for more, later, waits in looks:
        taken, now = taken + more, now + later
        pace.look(taken, now, waits=waits)
        assert LEAST <= pace.limit <= MOST
        assert pace.limit.bit_count() == 1


@given(st.binary(min_size=1, max_size=200), st.lists(st.integers(1, 70), min_size=1), st.integers(0, 1000))
def test_bulk_that_says_where_it_belongs_is_cut_and_nothing_is_lost(body, most, offset):
    outbox = Outbox()
    outbox.queue(Frame.of({"t": "chunk", "offset": offset}, body, bulk=True))
    came = bytearray()
    for each in itertools.cycle(most):
        frame = outbox.take(bulk=True, most=each)
        if frame is None:
            break
        assert len(frame.body) <= each
        assert frame.header is not None
        assert frame.header["offset"] == offset + len(came)
        came += frame.body
    assert bytes(came) == body
    assert outbox.pending == 0
    written = outbox.written
    outbox.rewind(0)
    assert len(outbox.bulk) == written
    assert outbox.pending == sum(frame.size for frame in outbox.bulk)


def test_other_frames_are_never_cut():
    outbox = Outbox()
    outbox.queue(Frame.of({"t": "a", "offset": 0}, bytes(100), bulk=False))
    outbox.queue(Frame.of({"t": "b"}, bytes(100), bulk=True))
    for bulk in (False, True):
        frame = outbox.take(bulk=bulk, most=10)
        assert frame is not None
        assert len(frame.body) == 100


RATE = 125_000
"""The bytes a second of the wire: 1 Mbit/s."""


def _narrow() -> socket.socket:
    """A socket that holds little of what comes, and takes packets of a line's size."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    return sock


class Wire:
    """What a slow line does: it passes bytes on to a port, so many a second."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def before(self, port: int, host: str | None, *, local: bool) -> list[Hint]:
        """Take connections for ``port``; return where. Stands in for ``own_hints``."""
        listener = _narrow()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        self._start(self._serve(listener, port))
        return [Hint(*listener.getsockname())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Any) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    async def _serve(self, listener: socket.socket, port: int) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                near, _ = await loop.sock_accept(listener)
                far = _narrow()
                far.setblocking(False)
                await loop.sock_connect(far, ("127.0.0.1", port))
                for one, other in ((near, far), (far, near)):
                    self._start(self._pass(one, other))

    async def _pass(self, one: socket.socket, other: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with one, other, suppress(OSError):
            free_at = loop.time()
            while data := await loop.sock_recv(one, 1024):
                free_at = max(free_at, loop.time()) + len(data) / RATE
                await asyncio.sleep(free_at - loop.time())  # this is the wire: nothing is waited for
                await loop.sock_sendall(other, data)


async def test_a_small_frame_beside_a_full_upload_at_one_megabit_passes_all_but_a_third_of_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = Wire()
    monkeypatch.setattr(tls, "own_hints", wire.before)
    try:
        async with asyncio.timeout(2 * PATIENCE), world("direct") as here:
            ends = await here.join()
            for number in range(4):
                ends.client.send({"t": "chunk", "offset": number * MAX_BODY}, bytes(MAX_BODY), bulk=True)
            heard = ends.worker_hears

            def came() -> int:
                return sum(len(body) for header, body in heard.frames if header["t"] == "chunk")

            behind = []
            for number in range(5):
                await eventually(lambda least=(number + 2) * RATE // 4: came() >= least)
                before = came()
                ends.client.send({"t": "recall", "n": number})
                await heard.until(lambda me, number=number: number in me.numbers)
                behind.append(came() - before)
            assert sorted(behind)[2] <= 0.3 * RATE, behind
            for end in (ends.client, ends.worker):
                end.abort()
    finally:
        await wire.close()
