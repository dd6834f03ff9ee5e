"""Tasks that are stopped: by their user, by their timeout, by the loss of their worker. A real cluster, on loopback."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import p2p_ipython
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.errors import ConfigError, TaskTimeout, WorkerLost
from p2p_ipython.loop import background
from p2p_ipython.task.task import make_call

PATIENCE = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=1, cancel_grace=0.3) as made:
        yield made


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def stubborn(mark: str) -> None:
    """Ignores all that it is told."""
    while True:
        try:
            Path(mark).write_text(str(os.getpid()))
            time.sleep(3600)
        except BaseException:
            pass


def in_c(mark: str) -> None:
    """Never comes back to where Python looks for signals."""
    Path(mark).write_text(str(os.getpid()))
    sum(itertools.repeat(1))


def begun(path: Path) -> int:
    until(lambda: path.exists() and path.read_text(), "the task has begun")
    return int(path.read_text())


@pytest.mark.parametrize("function", [stubborn, in_c])
def test_a_loop_that_heeds_nothing_is_killed_and_then_its_future_is_cancelled(
    cluster: Cluster, tmp_path: Path, function: Callable[[str], None]
) -> None:
    future = cluster.submit(function, str(tmp_path / "mark"))
    pid = begun(tmp_path / "mark")
    assert future.cancel()
    assert not future.done()
    after = cluster.submit(pow, 2, 10)
    with pytest.raises(concurrent.futures.CancelledError, match=r"was cancelled: its cancel\(\) was called$"):
        future.result(PATIENCE)
    assert not psutil.pid_exists(pid), "it is done when its process is gone"
    assert after.result(PATIENCE) == 1024
    entry = cluster._core.record.entries[future.task_id]
    assert (entry.state.value, entry.words) == ("cancelled", "cancelled")


def test_while_a_task_is_being_stopped_everything_says_so(cluster: Cluster, tmp_path: Path) -> None:
    future = cluster.submit(stubborn, str(tmp_path / "mark"))
    begun(tmp_path / "mark")
    until(future.running, "the worker has said that it runs")
    assert future.cancel()
    seen = [future.state_text, repr(future)]
    until(lambda: cluster._core.record.entries[future.task_id].state.value == "stopping" or future.done(), "stopping")
    row = next(row for row in cluster._core.record.rows() if row["task"] == future.task_id)
    status = cluster.status()
    assert concurrent.futures.wait([future], PATIENCE).done
    assert seen == ["stopping on worker-1", "<Future stubborn: stopping on worker-1>"]
    assert (row["state"], row["worker"]) == ("stopping", "worker-1")
    assert ("stubborn", "stopping on worker-1") in [(task.label, task.state) for task in status.tasks]
    assert status.running == 1


def test_all_that_waits_for_a_future_follows_when_its_task_has_ended(cluster: Cluster, tmp_path: Path) -> None:
    future = cluster.submit(stubborn, str(tmp_path / "mark"))
    pid = begun(tmp_path / "mark")
    told: list[bool] = []
    future.add_done_callback(lambda _future: told.append(psutil.pid_exists(pid)))
    last = cluster.submit(repr, future)
    waiter = threading.Thread(target=lambda: told.append(next(concurrent.futures.as_completed([future])) is future))
    waiter.start()
    assert future.cancel()
    assert told == []
    assert concurrent.futures.wait([future, last], PATIENCE).not_done == set()
    waiter.join(PATIENCE)
    until(lambda: sorted(told) == [False, True], "the callback's word, and that of as_completed")
    assert last.cancelled()


def test_cancel_may_be_called_anywhere_and_never_waits(cluster: Cluster, tmp_path: Path) -> None:
    """By any thread, in callbacks, and on the loop that would bring the answer."""
    one = cluster.submit(stubborn, str(tmp_path / "mark"))
    begun(tmp_path / "mark")

    async def on_the_loop() -> bool:
        return one.cancel()

    assert background().run(on_the_loop(), PATIENCE)
    others = [cluster.submit(time.sleep, 3600) for _ in range(3)]
    one.add_done_callback(lambda _future: [each.cancel() for each in others])
    assert concurrent.futures.wait([one, *others], PATIENCE).not_done == set()
    assert all(each.cancelled() for each in others)


def test_closing_waits_for_no_task_that_is_being_stopped(tmp_path: Path) -> None:
    with p2p_ipython.connect(workers=1, cancel_grace=3600) as own:
        future = own.submit(stubborn, str(tmp_path / "mark"))
        pid = begun(tmp_path / "mark")
        assert future.cancel()
        assert not future.done()
        own.close()
        with pytest.raises(concurrent.futures.CancelledError, match=r"its cancel\(\) was called"):
            future.result(0)
    until(lambda: not psutil.pid_exists(pid), "the end of the task's process")


def test_a_worker_that_is_lost_while_it_stops_a_task_ends_the_wait(tmp_path: Path) -> None:
    with p2p_ipython.connect(workers=1, cancel_grace=3600) as own:
        future = own.submit(stubborn, str(tmp_path / "mark"))
        runner = psutil.Process(begun(tmp_path / "mark"))
        assert future.cancel()
        worker = next(each for each in runner.parents() if each.pid in own.pids)
        worker.kill()
        with pytest.raises(
            concurrent.futures.CancelledError, match="its worker was lost before it had said that it has"
        ):
            future.result(PATIENCE)


def test_the_values_of_a_map_that_is_closed_early_are_stopped(cluster: Cluster, tmp_path: Path) -> None:
    calls = (lambda: "first"), (lambda: stubborn(mark))
    mark = str(tmp_path / "mark")
    values: Any = cluster.map(lambda call: call(), calls, chunksize=1)
    assert next(values) == "first"
    pid = begun(tmp_path / "mark")
    values.close()
    until(lambda: not psutil.pid_exists(pid), "the end of the task's process")
    assert cluster.submit(pow, 2, 2).result(PATIENCE) == 4


# --- timeouts ---------------------------------------------------------------------------------------


def test_a_timeout_ends_whatever_runs_and_says_what_to_do(cluster: Cluster, tmp_path: Path) -> None:
    future = cluster.options(timeout=3).submit(stubborn, str(tmp_path / "mark"))
    with pytest.raises(TaskTimeout) as caught:
        future.result(PATIENCE)
    assert caught.value.message == "the task was ended on worker-1: it ran for 3 s, which is its timeout"
    assert caught.value.hint == "Give it a longer timeout, or less to do: several smaller tasks."
    assert not psutil.pid_exists(begun(tmp_path / "mark"))
    assert future.state_text == "failed on worker-1"
    assert cluster.submit(pow, 2, 2).result(PATIENCE) == 4
    assert isinstance(future.again().exception(PATIENCE), TaskTimeout), "it has its timeout the next time, too"


def test_a_timeout_of_a_tasks_input_is_not_its_own(cluster: Cluster) -> None:
    first = cluster.submit(time.sleep, 0.6)
    assert cluster.options(timeout=0.5).submit(repr, first).result(PATIENCE) == "None"


def test_the_shorter_of_timeout_and_the_lenders_time_counts_and_is_named() -> None:
    with p2p_ipython.connect(workers=1, task_time=1) as own:
        cases: dict[float | None, str] = {0.3: "its timeout", 300: "its lender lets a task run", None: "its lender"}
        for timeout, whose in cases.items():
            error = own.options(timeout=timeout).submit(time.sleep, 3600).exception(PATIENCE)
            assert isinstance(error, TaskTimeout)
            assert whose in error.message
            assert ("ask the lender" in error.hint) is ("lender" in whose)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "five", "-5m", True])
def test_what_is_no_timeout_is_refused_at_once(cluster: Cluster, timeout: Any) -> None:
    with pytest.raises(ConfigError, match=r"timeout|duration"):
        cluster.options(timeout=timeout)
    assert len(cluster._core.store) == 0 or cluster.submit(pow, 2, 2).result(PATIENCE) == 4


# --- tasks that may run once only -------------------------------------------------------------------


def test_a_once_task_whose_worker_is_lost_maybe_ran_and_says_so(tmp_path: Path) -> None:
    with p2p_ipython.connect(workers=1) as own:
        task = make_call(stubborn, (str(tmp_path / "mark"),), {}, own._core.store, once=True)
        future = own._core.submit_task(task)
        os.kill(begun(tmp_path / "mark"), signal.SIGKILL)
        with pytest.raises(WorkerLost, match=r"^maybe ran: the worker of this task went away") as caught:
            future.result(PATIENCE)
        assert caught.value.maybe_ran
        assert future.state_text == "failed (maybe ran)"
        entry = own._core.record.entries[future.task_id]
        assert entry.words == "failed (maybe ran) on worker-1"
        assert entry.error.startswith("maybe ran: ")
