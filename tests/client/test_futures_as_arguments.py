"""Futures among a task's arguments, tasks that run again, and the errors of an executor, on a personal cluster."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

import p2p_ipython
from p2p_ipython import errors
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.frozen import EACH, FrozenTasks
from p2p_ipython.client.future import Frozen, Future
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.task import make_call, make_cell

cloudpickle.register_pickle_by_value(sys.modules[__name__])

PATIENCE = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=2) as made:
        yield made


def opened(path: Path) -> str:
    """Wait until there is a file."""
    while not path.exists():
        time.sleep(0.01)
    return "opened"


def changes(*arrays: Any) -> list[float]:
    for array in arrays:
        array[0] = 7
    return [float(array.sum()) for array in arrays]


def nothing_is_pinned(cluster: Cluster) -> bool:
    return not any(entry.pins for entry in list(cluster._core.store._entries.values()))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- arguments ---


def test_submit_returns_at_once_and_freezes_the_other_arguments(cluster: Cluster, tmp_path: Path) -> None:
    gate = cluster.submit(opened, tmp_path / "gate")
    others = [1, 2]
    future = cluster.submit(lambda word, rest: (word, rest), gate, others)
    others.append(3)
    assert not gate.done()
    until(gate.running)  # from here on its state stays the same
    assert ("<lambda>", f"waiting for opened ({gate.state_text})") in [
        (task.label.rpartition(".")[2], task.state) for task in cluster.status().tasks
    ]
    assert not cluster._core.idle
    (tmp_path / "gate").touch()
    assert future.result(PATIENCE) == ("opened", [1, 2])


@pytest.mark.parametrize("size", [10, 1000, 40_000, 500_000])
def test_arrays_may_be_written_to_whatever_way_they_come(cluster: Cluster, size: int) -> None:
    value = cluster.submit(np.zeros, size)
    assert cluster.submit(changes, value, np.zeros(size), [value, np.zeros(size)][0]).result(PATIENCE) == [7.0] * 3
    until(lambda: nothing_is_pinned(cluster))


def test_futures_of_other_executors_are_waited_for_too(cluster: Cluster) -> None:
    come = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(lambda: come.wait(PATIENCE) and 20)
        ours = cluster.submit(max, theirs, 1)
        assert ours.state_text == "waiting for 1 future among its arguments"
        come.set()
        assert ours.result(PATIENCE) == 20


def test_an_async_task_that_runs_can_be_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    async def waits(mark: Path) -> None:
        import asyncio

        await asyncio.to_thread(mark.touch)
        await asyncio.sleep(3600)

    future = cluster.submit(waits, tmp_path / "mark")
    until((tmp_path / "mark").exists)
    assert future.cancel()
    assert list(cluster.map(abs, [-1, -2, -3], timeout=PATIENCE)) == [1, 2, 3]


def test_map_takes_futures_and_coroutine_functions(cluster: Cluster) -> None:
    async def twice(n: int) -> int:
        return 2 * n

    assert list(cluster.map(twice, [cluster.submit(abs, -1), 2], timeout=PATIENCE)) == [2, 4]


def test_a_lost_input_names_itself_and_its_error(cluster: Cluster) -> None:
    future = cluster.submit(max, cluster.submit(int, "ten"), 3)
    with pytest.raises(errors.InputFailed, match="max did not run, because int among its arguments failed") as caught:
        future.result(PATIENCE)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_task_whose_input_needed_trust_runs_again_once_that_is_given(cluster: Cluster) -> None:
    theirs: concurrent.futures.Future[int] = concurrent.futures.Future()
    theirs.set_exception(errors.NotTrusted("bob is not trusted", hint="Type: %p2p_trust bob."))
    future = cluster.submit(abs, theirs)
    with pytest.raises(errors.InputFailed, match=r"%p2p_trust bob. Then this future's again\(\) runs it"):
        future.result(PATIENCE)
    theirs._exception, theirs._result = None, -3
    assert future.again().result(PATIENCE) == 3


def test_the_end_of_a_with_block_waits_for_the_tasks_that_wait(tmp_path: Path) -> None:
    with p2p_ipython.connect(workers=1) as own:
        last = own.submit(list, own.submit(str.upper, own.submit(opened, tmp_path / "gate")))
        (tmp_path / "gate").touch()
    assert last.result(0) == list("OPENED")


def test_closing_cancels_the_tasks_that_wait(tmp_path: Path) -> None:
    own = p2p_ipython.connect(workers=1)
    waiting = own.submit(str.upper, own.submit(opened, tmp_path / "gate"))
    own.close()
    with pytest.raises(concurrent.futures.CancelledError, match="the cluster was disconnected"):
        waiting.result(PATIENCE)


def test_a_task_that_nobody_keeps_runs_when_its_input_comes(cluster: Cluster, tmp_path: Path) -> None:
    gate = cluster.submit(opened, tmp_path / "gate")
    cluster.submit(Path.write_text, tmp_path / "out", gate)
    (tmp_path / "gate").touch()
    until(lambda: (tmp_path / "out").exists())


# --- again ---


def test_a_task_that_ends_its_process_runs_again(cluster: Cluster, tmp_path: Path) -> None:
    def dies_once(mark: Path) -> str:
        import os

        if not mark.exists():
            mark.touch()
            os._exit(3)
        return "lived"

    future = cluster.submit(dies_once, tmp_path / "mark")
    with pytest.raises(errors.TaskDied):
        future.result(PATIENCE)
    assert future.again().result(PATIENCE) == "lived"


def test_a_cell_runs_again_with_the_names_as_they_were(cluster: Cluster) -> None:
    core = cluster._core
    names: dict[str, Any] = {"base": 20}
    first = core.submit_task(make_cell("base + 1", names, core.store, transform=str, label="cell"))
    names["base"] = 0
    assert [first.result(PATIENCE), first.again().result(PATIENCE)] == [21, 21]


def test_a_task_whose_buffers_are_gone_says_so() -> None:
    with p2p_ipython.connect(workers=1, client_cache=0) as own:
        future = own.submit(len, bytes(2 << 20))
        again = future.again()  # it isn't over, or has just ended
        assert future.result(PATIENCE) == again.result(PATIENCE) == 2 << 20
        until(lambda: not len(own._core.store))
        with pytest.raises(errors.TaskForgotten, match="the arguments of len are no longer kept"):
            future.again()


class Nobody:
    def withdraw(self, task_id: str) -> None:
        pass


def test_tasks_that_are_over_are_kept_within_bounds() -> None:
    store = BufferStore(1 << 30)
    kept = FrozenTasks(store, limit=4 * (EACH + 2000))
    futures: list[Future[Any]] = []
    for n in range(6):
        task = make_call(len, (bytes(1500), n), {}, store)
        future: Future[Any] = Future(task.id, task.label, Nobody(), lambda arrived: None)  # type: ignore[arg-type]
        future._frozen = Frozen(task)
        kept.over(future)
        futures.append(future)
    assert [future._frozen is None for future in futures] == [True, True, False, False, False, False]
    with pytest.raises(errors.TaskForgotten):
        kept.thawed(futures[0])
    assert kept.thawed(futures[5]).task.id != futures[5].task_id
    gone = weakref.ref(futures.pop())
    del future
    assert gone() is None


# --- an executor's errors, callbacks and end ---


def test_errors_are_the_built_in_ones_too(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(pickle.PicklingError):
        cluster.submit(print, threading.Lock())
    with pytest.raises(pickle.PicklingError):
        cluster.submit(threading.Lock).result(PATIENCE)
    with pytest.raises(BrokenProcessPool):
        cluster.submit(sys.modules["os"]._exit, 1).result(PATIENCE)
    with pytest.raises(ValueError, match="workers is 0"):
        p2p_ipython.connect(workers=0)
    with pytest.raises(ValueError, match="chunksize"):
        cluster.map(abs, [1], chunksize=0)
    with pytest.raises(TimeoutError):
        cluster.submit(opened, tmp_path / "gate").result(0.01)
    (tmp_path / "gate").touch()
    own = p2p_ipython.connect(workers=1)
    future = own.submit(abs, -1)
    own.shutdown()
    for call in (lambda: own.submit(abs, 1), future.again, lambda: own.map(abs, [1])):
        with pytest.raises(RuntimeError, match="this cluster is closed"):
            call()


@pytest.mark.parametrize("kind", [errors.TaskDied, errors.WorkerLost, errors.ResultNotPicklable, errors.ConfigError])
def test_an_error_with_two_bases_travels(kind: type[errors.P2PError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what", hint="Do this.")))
    assert (type(error), str(error)) == (kind, "what\nDo this.")


def test_a_callback_may_ask_for_its_futures_value_and_for_others(cluster: Cluster) -> None:
    over: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def add(future: concurrent.futures.Future[int]) -> None:
        over.put(
            (future.result(), cluster.submit(abs, -4).result(PATIENCE), cluster.submit(abs, future).result(PATIENCE))
        )

    for _ in range(5):
        cluster.submit(abs, -3).add_done_callback(add)
    assert [over.get(timeout=PATIENCE) for _ in range(5)] == [(3, 4, 3)] * 5


def test_a_cluster_inside_a_task_is_the_slot_of_that_task(cluster: Cluster) -> None:
    def squares(n: int) -> tuple[list[int], int, bool]:
        return (
            list(cluster.map(pow, range(n), [2] * n)),
            cluster.slots,
            cluster.submit(os.getpid).result() == os.getpid(),
        )

    assert cluster.submit(squares, 4).result(PATIENCE) == ([0, 1, 4, 9], 1, True)
    assert cluster.submit(repr, cluster).result(PATIENCE) == "<Cluster inline at this process>"
    with pytest.raises(errors.ResultNotPicklable, match="can't come back from a task"):
        cluster.submit(lambda: cluster).result(PATIENCE)


def test_shutdown_that_cancels_runs_what_a_free_slot_would_have_got() -> None:
    own = p2p_ipython.connect(workers=2)
    futures = [own.submit(abs, -n) for n in range(50)]
    waiting = own.submit(abs, futures[0])
    own.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    concurrent.futures.wait(futures, PATIENCE)
    assert [futures[n].result() for n in range(2)] == [0, 1]
    assert all(future.cancelled() or future.result() == n for n, future in enumerate(futures))
    own.shutdown()
