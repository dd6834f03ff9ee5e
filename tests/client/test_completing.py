"""Futures and values as they are ready, in ``for`` and in ``async for``."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

import p2p_ipython
from p2p_ipython.client.cluster import Cluster

PATIENCE = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=2) as made:
        yield made


def inverse(n: int) -> float:
    return 1 / n


def test_each_future_comes_once_as_it_is_over() -> None:
    first, second, third = (Future[int]() for _ in range(3))
    second.set_result(2)

    async def look() -> list[int]:
        seen = []
        async for future in p2p_ipython.as_completed([first, second, third, second], PATIENCE):
            seen.append(future.result())
            if len(seen) == 1:
                threading.Thread(target=third.set_result, args=[3]).start()
            elif len(seen) == 2:
                threading.Thread(target=first.set_result, args=[1]).start()
        return seen

    assert asyncio.run(look()) == [2, 3, 1]
    assert sorted(future.result() for future in p2p_ipython.as_completed([first, second, third])) == [1, 2, 3]
    each = p2p_ipython.as_completed([second])
    assert next(each) is second
    assert next(each, None) is None


def test_a_future_that_isnt_over_in_time_is_a_time_out() -> None:
    async def look() -> None:
        async for _ in p2p_ipython.as_completed([Future[int]()], timeout=0.01):
            pass

    with pytest.raises(TimeoutError, match=r"1 \(of 1\) futures unfinished"):
        asyncio.run(look())
    with pytest.raises(TimeoutError):
        next(p2p_ipython.as_completed([Future[int]()], timeout=0))


def test_the_values_of_a_map_are_taken_without_blocking_the_loop(cluster: Cluster) -> None:
    async def look() -> list[int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        values = [value async for value in cluster.map(abs, range(-20, 0))]
        ticking.cancel()
        assert ticks > 1
        return values

    assert asyncio.run(look()) == [*range(20, 0, -1)]


def test_a_map_raises_the_error_of_an_element_and_is_over(cluster: Cluster) -> None:
    async def look() -> None:
        values = cluster.map(inverse, [1, 0, 2])
        with pytest.raises(ZeroDivisionError):
            assert [value async for value in values] == []
        assert [value async for value in values] == []

    asyncio.run(look())


def test_a_map_that_is_left_early_or_cancelled_cancels_what_is_left(cluster: Cluster) -> None:
    async def look() -> None:
        values = aiter(cluster.map(abs, itertools.count(-5)))
        assert await anext(values) == 5
        await values.aclose()
        taking = asyncio.create_task(anext(aiter(cluster.map(_wait, range(3)))))
        await asyncio.wait([taking], timeout=0.1)  # it has begun, and none of them will be over
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking

    asyncio.run(look())
    p2p_ipython.gather(cluster._core.open_futures(), errors="return", timeout=PATIENCE)
    assert not cluster._core.open_futures()


def _wait(_n: int) -> None:
    import time

    time.sleep(600)
