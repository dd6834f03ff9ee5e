"""What a cluster promises, whatever it is made of: a real one on loopback, and one in memory on virtual time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

import p2p_ipython
from p2p_ipython import rehearsal
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.task_options import TaskOptions
from p2p_ipython.errors import InputFailed, NotPicklable, TaskTimeout

Check = Callable[[Any], Coroutine[Any, Any, None]]
Run = Callable[[Check], None]

PATIENCE = 60


@pytest.fixture(scope="module")
def real() -> Iterator[Run]:
    with p2p_ipython.connect(workers=2) as cluster:

        def run(check: Check) -> None:
            asyncio.run(asyncio.wait_for(check(cluster), PATIENCE))

        yield run


def in_memory(check: Check) -> None:
    async def whole() -> None:
        async with rehearsal.Rehearsal(workers=2) as cluster:
            await asyncio.wait_for(check(cluster), PATIENCE)

    rehearsal.run(whole())


@pytest.fixture(params=["real", "in memory"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue("real") if request.param == "real" else in_memory  # type: ignore[no-any-return]


def fails_with(message: str) -> None:
    raise LookupError(message)


def waits(seconds: float) -> Any:
    """Takes time as each kind of worker knows it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return time.sleep(seconds)
    return asyncio.sleep(seconds)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - no event tells of a future's state
            await asyncio.sleep(0.02)


def test_a_value_comes_back(run: Run) -> None:
    async def check(cluster: Any) -> None:
        assert await cluster.submit(pow, 2, 10) == 1024
        assert await cluster.submit(dict, a=[1, (2, 3)], b=None) == {"a": [1, (2, 3)], "b": None}

    run(check)


def test_an_exception_comes_back_as_itself(run: Run) -> None:
    async def check(cluster: Any) -> None:
        future = cluster.submit(fails_with, "not here")
        with pytest.raises(LookupError, match="not here"):
            await future
        assert future.done()
        assert isinstance(future.exception(), LookupError)

    run(check)


def test_a_thousand_tasks_each_give_their_own_value(run: Run) -> None:
    async def check(cluster: Any) -> None:
        futures = [cluster.submit(divmod, n, 7) for n in range(1000)]
        assert await asyncio.gather(*futures) == [divmod(n, 7) for n in range(1000)]

    run(check)


def test_large_arguments_and_results_arrive_whole(run: Run) -> None:
    async def check(cluster: Any) -> None:
        block = os.urandom(5 << 20)
        for _ in range(2):
            assert await cluster.submit(bytes.swapcase, block) == block.swapcase()

    run(check)


def test_what_cant_be_pickled_is_refused_at_once(run: Run) -> None:
    async def check(cluster: Any) -> None:
        with pytest.raises(NotPicklable):
            cluster.submit(print, threading.Lock())

    run(check)


def test_a_cancelled_task_is_never_delivered(run: Run) -> None:
    async def check(cluster: Any) -> None:
        futures = [cluster.submit(waits, 3600) for _ in range(3)]
        await until(lambda: sum(f.running() for f in futures) == 2)
        for future in futures:
            assert future.cancel()
        for future in futures:
            with pytest.raises(asyncio.CancelledError):
                await future
            assert future.cancelled()
            assert future.state_text == "cancelled"
            with pytest.raises(concurrent.futures.CancelledError, match=r"its cancel\(\) was called"):
                future.result()
            assert future.cancel()
        assert await cluster.submit(pow, 3, 3) == 27

    run(check)


def tidies_up(seconds: float) -> Any:
    """Takes so long once it is told to stop, as each kind of worker knows it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        try:
            return time.sleep(3600)
        finally:
            time.sleep(seconds)

    async def tidies() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(seconds)

    return tidies()


def test_a_task_that_runs_is_stopping_until_its_worker_has_said_that_it_has_ended(run: Run) -> None:
    async def check(cluster: Any) -> None:
        future = cluster.submit(tidies_up, 0.5)
        await until(future.running)
        over: list[Any] = []
        future.add_done_callback(over.append)
        assert future.cancel()
        assert future.cancel(), "a second time asks for nothing more"
        await until(lambda: future.state_text.startswith("stopping on "))
        assert (future.done(), future.cancelled(), future.running(), over) == (False, False, True, [])
        with pytest.raises(asyncio.CancelledError):
            await future
        assert (future.done(), future.cancelled(), future.running()) == (True, True, False)
        await until(lambda: over == [future])

    run(check)


def test_cancelling_what_is_over_is_refused(run: Run) -> None:
    async def check(cluster: Any) -> None:
        future = cluster.submit(pow, 2, 2)
        assert await future == 4
        assert not future.cancel()
        assert (future.cancelled(), future.result()) == (False, 4)

    run(check)


def test_a_future_that_is_cancelled_in_the_moment_of_its_end_is_either_cancelled_or_delivered(run: Run) -> None:
    async def check(cluster: Any) -> None:
        for number in range(60):
            future = cluster.submit(waits, 0.0)
            await asyncio.sleep(number / 5000)
            cancelled = future.cancel()
            ended = (await asyncio.gather(future, return_exceptions=True))[0]
            assert isinstance(ended, asyncio.CancelledError) is cancelled is future.cancelled()

    run(check)


def test_a_timeout_ends_a_task_and_the_next_one_runs(run: Run) -> None:
    async def check(cluster: Any) -> None:
        future = timed(cluster, 0.3, waits, 3600)
        with pytest.raises(TaskTimeout, match=r"ended on .*: it ran for 0\.3 s, which is its timeout") as caught:
            await future
        assert isinstance(caught.value, TimeoutError)
        assert "longer timeout" in caught.value.hint
        assert await timed(cluster, 3600, pow, 2, 2) == 4

    run(check)


def timed(cluster: Any, timeout: float, function: Callable[..., Any], *args: Any) -> Any:
    """Submit a call with a timeout."""
    if isinstance(cluster, Cluster):
        return cluster.options(timeout=timeout).submit(function, *args)
    return cluster.submitted.call(function, args, {}, options=TaskOptions(timeout=timeout))


def test_a_short_task_isnt_kept_behind_a_long_one(run: Run) -> None:
    async def check(cluster: Any) -> None:
        await asyncio.gather(*(cluster.submit(pow, 2, n) for n in range(50)))  # now it sends ahead
        long = cluster.submit(waits, 3600)
        short: list[Awaitable[int]] = [cluster.submit(pow, 2, n) for n in range(50)]
        assert await asyncio.gather(*short) == [2**n for n in range(50)]
        assert long.cancel()

    run(check)


def test_waiting_for_the_first_exception_ends_with_the_first_failure(run: Run) -> None:
    async def check(cluster: Any) -> None:
        long = cluster.submit(waits, 3600)
        failing = cluster.submit(fails_with, "at once")
        first = concurrent.futures.FIRST_EXCEPTION
        waiting = {asyncio.wrap_future(long), asyncio.wrap_future(failing)}
        if isinstance(cluster, concurrent.futures.Executor):
            done, _ = await asyncio.to_thread(concurrent.futures.wait, [long, failing], PATIENCE, first)
            assert done == {failing}
        else:
            done, _ = await asyncio.wait(waiting, return_when=first)
            assert len(done) == 1
        long.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(check)


def test_a_future_among_the_arguments_is_its_value(run: Run) -> None:
    async def check(cluster: Any) -> None:
        base, exponent = cluster.submit(abs, -2), cluster.submit(abs, -10)
        assert await cluster.submit(pow, base, exponent) == 1024
        assert await cluster.submit(pow, base, exponent) == 1024  # now that they are over
        assert await cluster.submit(sum, [base, 1, exponent, exponent]) == 23
        assert await cluster.submit(dict, a=base, b={"c": exponent}, d=(1, base)) == {
            "a": 2,
            "b": {"c": 10},
            "d": (1, 2),
        }

    run(check)


def test_a_task_waits_for_the_future_that_it_gets(run: Run) -> None:
    async def check(cluster: Any) -> None:
        first = cluster.submit(waits, 0.3)
        second = cluster.submit(repr, first)
        assert not second.done()
        assert second.state_text.startswith("waiting for waits")
        assert await second == "None"
        assert first.done()

    run(check)


def test_a_chain_of_a_hundred_tasks_ends_with_the_last_ones_value(run: Run) -> None:
    async def check(cluster: Any) -> None:
        future = cluster.submit(abs, 0)
        for n in range(100):
            future = cluster.submit(divmod, n, 7) if n % 10 == 0 else cluster.submit(max, future, (n, 0))
        assert await future == (99, 0)

    run(check)


def test_a_future_that_fails_fails_the_tasks_that_get_it(run: Run) -> None:
    async def check(cluster: Any) -> None:
        failing = cluster.submit(fails_with, "not here")
        last = cluster.submit(len, cluster.submit(list, failing))
        with pytest.raises(InputFailed, match="not here") as caught:
            await last
        cause: Any = caught.value
        while isinstance(cause, InputFailed):
            cause = cause.__cause__
        assert isinstance(cause, LookupError)

    run(check)


def test_one_future_that_fails_is_enough(run: Run) -> None:
    async def check(cluster: Any) -> None:
        long = cluster.submit(waits, 3600)
        with pytest.raises(InputFailed, match="at once"):
            await cluster.submit(max, long, cluster.submit(fails_with, "at once"))
        assert long.cancel()

    run(check)


def test_a_future_that_is_cancelled_cancels_the_tasks_that_get_it(run: Run) -> None:
    async def check(cluster: Any) -> None:
        long = cluster.submit(waits, 3600)
        last = cluster.submit(repr, cluster.submit(repr, long))
        assert long.cancel()
        await until(last.done)
        assert last.cancelled()
        with pytest.raises(concurrent.futures.CancelledError, match="repr, for whose value it waited, was cancelled"):
            last.result()

    run(check)


def test_a_task_that_waits_for_a_future_can_be_cancelled_alone(run: Run) -> None:
    async def check(cluster: Any) -> None:
        first = cluster.submit(waits, 0.3)
        second = cluster.submit(repr, first)
        assert second.cancel()
        assert second.cancelled()
        assert await first is None

    run(check)


def test_a_value_that_comes_late_cant_be_pickled_for_the_next_task(run: Run) -> None:
    async def check(cluster: Any) -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            odd = pool.submit(threading.Lock)
            with pytest.raises(NotPicklable, match="a future among the arguments of list"):
                await cluster.submit(list, odd)

    run(check)


def test_a_coroutine_function_is_awaited(run: Run) -> None:
    async def check(cluster: Any) -> None:
        assert await cluster.submit(slowly, 20, b=1) == 21

    run(check)


async def slowly(a: int, b: int) -> int:
    await asyncio.sleep(0.01)
    return a + b


def test_a_task_runs_again(run: Run) -> None:
    async def check(cluster: Any) -> None:
        block = bytearray(5 << 20)
        done, failed, cancelled = (
            cluster.submit(len, block),
            cluster.submit(fails_with, "x"),
            cluster.submit(waits, 0.1),
        )
        assert cancelled.cancel()
        block += b"more"
        assert await done == 5 << 20
        assert await done.again() == 5 << 20
        assert done.again().label == done.label
        with pytest.raises(LookupError):
            await failed
        with pytest.raises(LookupError):
            await failed.again()
        assert await cancelled.again() is None
        assert await cancelled.again().again() is None

    run(check)


def test_a_task_that_waits_for_a_future_runs_again(run: Run) -> None:
    async def check(cluster: Any) -> None:
        first = cluster.submit(waits, 0.2)
        second = cluster.submit(repr, first)
        assert second.cancel()
        third = second.again()
        assert await third == "None"
        assert await third.again() == "None"

    run(check)
