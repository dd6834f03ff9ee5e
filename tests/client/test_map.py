"""``cluster.map``: an executor's, for elements without end, in tasks of as many elements as their time allows."""

from __future__ import annotations

import itertools
import re
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from frame_support import read_result

import p2p_ipython
from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.future import Future
from p2p_ipython.client.groups import Groups
from p2p_ipython.client.mapping import (
    AHEAD,
    BEHIND,
    CHUNK,
    GROWTH,
    MAX_BYTES,
    MAX_ELEMENTS,
    Calls,
    Chunks,
    _Sent,
    _values_of,
)
from p2p_ipython.errors import ClusterClosed, NotPicklable, RemoteProtocolError, ResultNotPicklable
from p2p_ipython.task import safe
from p2p_ipython.task.outcome import decode

PATIENCE = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=2) as made:
        yield made


def unless_three(x: int) -> int:
    if x == 3:
        raise ValueError("three")
    return x


# --- what a caller sees -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", ["auto", 1, 7, 1000])
def test_values_come_in_order_and_each_once(cluster: Cluster, chunksize: Any) -> None:
    assert list(cluster.map(pow, range(300), [2] * 300, chunksize=chunksize)) == [n * n for n in range(300)]
    assert list(cluster.map(pow, range(30), itertools.repeat(2), chunksize=chunksize)) == [n * n for n in range(30)]
    assert sorted(cluster.map(abs, range(300), chunksize=chunksize, ordered=False)) == list(range(300))
    assert list(cluster.map(abs, [], chunksize=chunksize)) == []
    assert list(cluster.map(abs, iter([]), chunksize=chunksize)) == []


def test_short_calls_share_tasks(cluster: Cluster) -> None:
    before = len(cluster.journal())
    assert sum(cluster.map(abs, range(5000))) == sum(range(5000))
    assert len(cluster.journal()) - before < 500


@pytest.mark.parametrize("chunksize", [1, 6])
def test_an_element_that_fails_fails_alone(cluster: Cluster, chunksize: int) -> None:
    values = cluster.map(unless_three, range(6), chunksize=chunksize)
    assert list(itertools.islice(values, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^three$") as failed:
        next(values)
    assert list(values) == []  # as a generator that has raised
    shown = "".join(traceback.format_exception(failed.value))
    assert "unless_three(3)" in shown
    assert 'raise ValueError("three")' in shown


@pytest.mark.parametrize("chunksize", [1, 3])
def test_a_value_that_cant_be_pickled_fails_alone(cluster: Cluster, chunksize: int) -> None:
    values = cluster.map(lambda x: threading.Lock() if x == 1 else x, range(3), chunksize=chunksize)
    assert next(values) == 0
    with pytest.raises(ResultNotPicklable, match="lock"):
        next(values)


def test_an_argument_that_cant_travel_is_named_before_anything_is_sent(cluster: Cluster) -> None:
    before = len(cluster.journal())
    with pytest.raises(NotPicklable, match="argument"):
        cluster.map(repr, [threading.Lock()])
    with pytest.raises(NotPicklable, match="argument"):
        cluster.map(repr, [threading.Lock(), threading.Lock()], chunksize=2)
    assert len(cluster.journal()) == before


def test_what_elements_raise_comes_after_the_values_before_it(cluster: Cluster) -> None:
    def elements() -> Iterator[int]:
        yield from range(40)
        raise KeyError("no more")

    values = cluster.map(abs, elements(), buffersize=8)
    assert list(itertools.islice(values, 40)) == list(range(40))
    with pytest.raises(KeyError, match="no more"):
        next(values)


def test_futures_and_coroutine_functions_are_waited_for(cluster: Cluster) -> None:
    async def twice(x: int) -> int:
        return 2 * x

    assert list(cluster.map(twice, [cluster.submit(abs, -1), 2, 3], chunksize=3)) == [2, 4, 6]
    assert list(cluster.map(twice, [1, 2, 3], chunksize=3)) == [2, 4, 6]


@pytest.mark.parametrize("ordered", [True, False])
def test_the_time_is_for_all_and_its_end_cancels_the_rest(cluster: Cluster, ordered: bool) -> None:
    with pytest.raises(TimeoutError):
        list(cluster.map(time.sleep, [600, 600, 600], timeout=0.5, ordered=ordered))
    assert cluster.submit(abs, -1).result(PATIENCE) == 1  # a slot is free


def test_whoever_closes_the_iterator_cancels_what_is_left(cluster: Cluster) -> None:
    values = cluster.map(time.sleep, [0, 600, 600, 600])
    next(values)
    values.close()  # type: ignore[attr-defined]
    assert cluster.submit(abs, -1).result(PATIENCE) == 1


def test_values_come_as_they_are_ready_if_they_need_no_order(cluster: Cluster) -> None:
    values = cluster.map(lambda s: time.sleep(s) or s, [600, 0, 0.01], ordered=False)
    assert {next(values), next(values)} == {0, 0.01}
    values.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("buffersize", [None, 1, 5])
def test_a_generator_is_taken_as_its_values_are(cluster: Cluster, buffersize: int | None) -> None:
    taken = itertools.count()
    elements = ((next(taken), n)[1] for n in itertools.count())
    values = cluster.map(abs, elements, buffersize=buffersize)
    assert list(itertools.islice(values, 200)) == list(range(200))
    ahead = next(taken) - 200
    values.close()  # type: ignore[attr-defined]
    assert ahead <= (buffersize if buffersize is not None else 2 * BEHIND * MAX_ELEMENTS)


def test_elements_that_are_there_are_computed_while_nobody_looks(cluster: Cluster) -> None:
    over = threading.Event()
    values = cluster.map(lambda x: time.sleep(0.005) or x, range(60))
    last = cluster.submit(abs, -1)
    last.add_done_callback(lambda _: over.set())
    assert over.wait(PATIENCE)
    end = time.monotonic() + PATIENCE
    while not all(row["state"] == "done" for row in _rows(cluster)):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert list(values) == list(range(60))


def _rows(cluster: Cluster) -> list[dict[str, Any]]:
    return list(cluster._core.record.rows())[-8:]


def test_a_cluster_that_shuts_down_finishes_what_is_there_and_takes_nothing_more() -> None:
    with p2p_ipython.connect(workers=1) as own:
        values = own.map(abs, range(2000))
        fixed = own.map(abs, range(100), chunksize=3)
        endless = own.map(abs, itertools.count())
    assert list(values) == list(range(2000))
    assert list(fixed) == list(range(100))
    with pytest.raises(ClusterClosed):
        list(endless)
    with pytest.raises(ClusterClosed):
        own.map(abs, [1])


def test_a_shutdown_that_cancels_says_so_in_the_place_of_what_was_not_sent() -> None:
    own = p2p_ipython.connect(workers=1)
    values = own.map(time.sleep, [0.01] * 500, chunksize=1)
    own.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        list(values)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"chunksize": 0}, ValueError), ({"buffersize": 0}, ValueError), ({"buffersize": 1.5}, TypeError)],
)
def test_sizes_are_checked_as_executors_do(cluster: Cluster, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        cluster.map(abs, [1], **options)


def test_large_arguments_are_not_gathered_into_huge_tasks(cluster: Cluster) -> None:
    list(cluster.map(len, [b""] * 500))
    before = len(cluster.journal())
    assert list(cluster.map(len, [bytes(MAX_BYTES // 2)] * 8, chunksize=8)) == [MAX_BYTES // 2] * 8
    assert len(cluster.journal()) - before == 4


# --- how many elements a task gets ------------------------------------------------------------------------------------


def come_back(chunks: Chunks, elements: int, each: float, size: int = 10) -> None:
    chunks.over(elements, each * elements, size * elements)
    chunks.taken(elements)


def test_the_first_tasks_have_one_element_and_fill_the_slots() -> None:
    chunks = Chunks()
    for _ in range(2 * AHEAD):
        assert chunks.next(2) == 1
        chunks.sent(1)
    assert chunks.next(2) == 0


def test_tasks_grow_until_they_take_their_time() -> None:
    chunks, sizes = Chunks(), []
    for _ in range(6):
        sizes.append(chunks.next(1))
        chunks.sent(sizes[-1])
        come_back(chunks, sizes[-1], each=CHUNK / 1000)
    assert sizes == [1, GROWTH, GROWTH**2, 1000, 1000, 1000]


def test_long_calls_travel_alone_and_none_has_too_many() -> None:
    for each, size, most in ((CHUNK, 10, 1), (1.0, 10, 1), (0.0, 10, MAX_ELEMENTS), (0.0, MAX_BYTES // 4, 4)):
        chunks = Chunks()
        for _ in range(10):
            number = chunks.next(1)
            chunks.sent(number)
            come_back(chunks, number, each, size)
        assert number == most


def test_the_last_elements_are_dealt_out_among_the_slots() -> None:
    chunks = Chunks()
    chunks.sent(1000)
    come_back(chunks, 1000, each=0.0)
    assert [chunks.next(4, left) for left in (80_000, 800, 9, 1)] == [MAX_ELEMENTS, 100, 2, 1]


def test_a_fixed_size_is_kept() -> None:
    chunks = Chunks(7)
    assert [chunks.next(2, left) for left in (None, 100, 5)] == [7, 7, 5]
    chunks.sent(7)
    come_back(chunks, 7, each=1.0)
    assert chunks.next(2) == 7


def test_values_that_nobody_takes_hold_a_generator_up_and_no_collection() -> None:
    chunks = Chunks(10)
    sent = 0
    while size := chunks.next(1):
        chunks.sent(size)
        chunks.over(size, 0.0, 0)  # they come, and nobody takes them
        sent += 1
    assert sent == BEHIND
    assert chunks.next(1, 1000) == 10


def test_tasks_that_were_lost_teach_nothing() -> None:
    chunks = Chunks()
    chunks.sent(1)
    chunks.over(1, None, 0)
    assert chunks.next(1) == 1


# --- what an end leaves behind ----------------------------------------------------------------------------------------


def test_a_task_that_is_frozen_while_the_iterator_is_closed_is_cancelled_too() -> None:
    class Core:
        maps: weakref.WeakSet[Any] = weakref.WeakSet()
        slots = 1
        groups = Groups(lambda _id: None, lambda: 1)

        def check_open(self) -> None: ...

        def submit_call(self, *_: object, **__: object) -> Future[Any]:
            made: Future[Any] = Future("t1", "work", Friend(), Friend().decode)
            futures.append(made)
            if len(futures) == 2:
                calls.cancel()
            return made

    futures: list[Future[Any]] = []
    calls = Calls(Core(), abs, (range(100),), Chunks(), ordered=True)
    calls.pump()
    assert [future.cancelled() for future in futures] == [True, True]


# --- what workers say -------------------------------------------------------------------------------------------------


class Friend:
    """The owner of a future whose worker isn't trusted."""

    def decode(self, result: Arrived) -> Any:
        return decode(result.result, result.inline, result.large, worker=result.worker, trusted=False)

    def trusts(self, _signer: str) -> bool:
        return False

    def why(self, _task_id: str) -> str:
        return ""

    def withdraw(self, task_id: str) -> None: ...


def values_of(outcomes: object, elements: int) -> list[Any]:
    friend = Friend()
    future: Future[Any] = Future("t1", "work", friend, friend.decode)
    packed = safe.encode(outcomes)
    header = {"ok": True, "codec": "safe", "segments": packed.segments}
    future._promise.arrived(Arrived(read_result(header), packed.inline, packed.large, "bob", "SHA256:bob"))
    return list(_values_of(_Sent(future, elements), future.result()))


def failure(**more: Any) -> dict[str, Any]:
    error = {
        "kind": "exception",
        "class": "builtins.ValueError",
        "bases": [],
        "message": "no",
        "traceback": "ValueError",
    }
    return {"t": "result", "id": "t1", "attempt": 1, "ok": False, "segments": [], "error": error} | more


def test_outcomes_of_a_stranger_are_read_as_results_are() -> None:
    assert values_of(([1, None], {}), 2) == [1, None]
    with pytest.raises(Exception, match="no") as failed:
        values_of(([1, None], {1: (failure(), b"")}), 2)
    assert "ValueError" in repr(failed.value)


@pytest.mark.parametrize(
    ("outcomes", "elements"),
    [
        (None, 1),
        ([1], 1),
        (([1], {}), 2),
        ((1, {}), 1),
        (([1], []), 1),
        (([1], {}, 4), 1),
        (([None], {0: None}), 1),
        (([None], {0: (failure(ok=True), b"")}), 1),
        (([None], {0: (failure(), b"more")}), 1),
        (([None], {0: (failure(segments=[[1 << 40, "r0"]]), b"")}), 1),
        (([None], {0: ({}, b"")}), 1),
        (([None], {0: ("x", "y")}), 1),
    ],
)
def test_nonsense_is_an_error_that_names_the_worker(outcomes: object, elements: int) -> None:
    with pytest.raises(RemoteProtocolError, match=re.escape("bob sent something else than the values of work")):
        values_of(outcomes, elements)
