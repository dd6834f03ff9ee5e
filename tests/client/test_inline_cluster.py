"""A cluster that is this process: what only holds there. The rest is in tests/conformance/test_future_api.py."""

from __future__ import annotations

import copy
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest

import p2p_ipython
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.errors import CaptureError, ConfigError, ResultNotPicklable, UsageError

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect("inline") as made:
        yield made


def begins_and_sleeps(path: str) -> None:
    with open(path, "w"):
        time.sleep(600)


def test_a_task_runs_in_the_thread_that_submits_it_and_is_over_then(cluster: Cluster) -> None:
    future = cluster.submit(lambda: (os.getpid(), threading.get_ident()))
    assert future.done()
    assert future.result() == (os.getpid(), threading.get_ident())
    assert (future.worker, future.state_text) == ("inline", "done on inline")


def test_cancelling_from_another_thread_interrupts_the_main_one(cluster: Cluster, tmp_path: Any) -> None:
    path = tmp_path / "begun"

    def cancel() -> None:
        while not path.exists():
            time.sleep(0.01)
        cluster._core.open_futures()[0].cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    future = cluster.submit(begins_and_sleeps, str(path))
    thread.join()
    assert future.cancelled()


def test_an_array_is_a_copy_that_may_be_written_to(cluster: Cluster) -> None:
    def change(array: Any) -> Any:
        array[0] = 7
        return array

    sent = np.zeros(1 << 18)
    got = cluster.submit(change, sent).result()
    assert (sent[0], got[0]) == (0, 7)
    got[1] = 8
    assert cluster.submit(change, sent).result()[1] == 0


def divides(a: int) -> float:
    b = a - 42
    return a / b


def test_the_frames_of_a_task_are_in_its_error_and_none_of_ours_is_between(cluster: Cluster) -> None:
    error = cluster.submit(divides, 42).exception()
    assert error is not None
    (frame,) = traceback.walk_tb(error.__traceback__)
    assert (frame[0].f_code.co_name, frame[0].f_locals) == ("divides", {"a": 42, "b": 0})


def test_a_value_that_could_not_travel_fails_here_too(cluster: Cluster) -> None:
    with pytest.raises(ResultNotPicklable, match="can't be pickled"):
        cluster.submit(threading.Lock).result()


def test_a_cluster_is_copied_into_tasks_only(cluster: Cluster) -> None:
    with pytest.raises(CaptureError, match="can't be copied"):
        copy.copy(cluster)


def test_what_it_cannot_have_is_refused() -> None:
    for options in ({"workers": 2}, {"sandbox": "bubblewrap"}, {"sandboxed": True}):
        with pytest.raises(UsageError, match="inline has no workers"):
            p2p_ipython.connect("inline", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        p2p_ipython.connect("inline", no_such_setting=1)
    with p2p_ipython.connect("inline") as cluster, pytest.raises(UsageError, match="2 workers will never be here"):
        cluster.wait_for_workers(2)


def test_threads_of_a_task_may_submit(cluster: Cluster) -> None:
    def spreads() -> list[int]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda n: cluster.submit(abs, -n).result(), range(20)))

    assert cluster.submit(spreads).result() == list(range(20))
