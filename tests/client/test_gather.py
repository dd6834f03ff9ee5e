"""``gather`` and ``wait_for_workers``."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Iterator

import pytest

import p2p_ipython
from p2p_ipython import gather
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.errors import ClusterClosed, UsageError

PATIENCE = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=1) as made:
        yield made


def mixed(cluster: Cluster) -> list[concurrent.futures.Future[int]]:
    return [cluster.submit(int, text) for text in ("1", "x", "3")]


def test_values_come_in_order_from_any_executor(cluster: Cluster) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert gather([cluster.submit(abs, -1), pool.submit(abs, -2), cluster.submit(abs, -3)]) == [1, 2, 3]
    assert gather([]) == []


def test_errors_are_raised_returned_or_skipped(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        gather(mixed(cluster))
    one, error, three = gather(mixed(cluster), errors="return")
    assert (one, type(error), three) == (1, ValueError, 3)
    assert gather(mixed(cluster), errors="skip") == [1, 3]
    cancelled = cluster.submit(time.sleep, 600)
    cancelled.cancel()
    assert gather([cancelled, cluster.submit(abs, -1)], errors="skip") == [1]
    with pytest.raises(UsageError, match="errors='ignore'"):
        gather([], errors="ignore")  # type: ignore[call-overload]


@pytest.mark.parametrize("cancel", [False, True])
def test_the_first_error_ends_the_wait_and_on_request_the_rest(cluster: Cluster, cancel: bool) -> None:
    futures = [cluster.submit(int, "x"), cluster.submit(time.sleep, 600)]
    with pytest.raises(ValueError, match="invalid literal"):
        gather(futures, cancel=cancel)
    assert futures[1].state_text.startswith("stopping on ") or futures[1].cancelled() is cancel
    futures[1].cancel()
    concurrent.futures.wait(futures, PATIENCE)
    assert futures[1].cancelled()


def test_a_time_out_says_how_many_are_not_over(cluster: Cluster) -> None:
    futures = [cluster.submit(abs, -1), cluster.submit(time.sleep, 600)]
    futures[0].result(PATIENCE)
    with pytest.raises(TimeoutError, match=r"1 of 2 futures are not over after 0\.1 s"):
        gather(futures, timeout=0.1, cancel=True)
    with pytest.raises(concurrent.futures.CancelledError):
        futures[1].result(PATIENCE)


def test_workers_are_waited_for_and_counted() -> None:
    with p2p_ipython.connect(workers=2) as own:
        own.wait_for_workers(2, timeout=PATIENCE)
        assert own.slots == 2
        with pytest.raises(TimeoutError, match=r"2 of 3 workers are here after 0\.1 s"):
            own.wait_for_workers(3, timeout=0.1)
        ends = threading.Timer(0.2, own.close)
        ends.start()
        with pytest.raises(ClusterClosed):
            own.wait_for_workers(3, timeout=PATIENCE)
        ends.join()
