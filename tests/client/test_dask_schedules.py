"""dask's own collections, with a cluster as their scheduler: ``dask.config.set(scheduler=cluster)``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import p2p_ipython
from p2p_ipython.client.cluster import Cluster

dask = pytest.importorskip("dask", reason="dask is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=2) as made, dask.config.set(scheduler=made):
        yield made


def double(number: int) -> int:
    return 2 * number


def test_delayed_functions_run_on_workers(cluster: Cluster) -> None:
    assert dask.delayed(os.getpid)().compute() != os.getpid()
    assert dask.delayed(sum)([dask.delayed(double)(each) for each in range(4)]).compute() == 12
    with pytest.raises(ZeroDivisionError):
        dask.delayed(divmod)(1, 0).compute()


def test_bags_and_arrays_do(cluster: Cluster) -> None:
    import dask.array
    import dask.bag

    numbers = dask.bag.from_sequence(range(20), npartitions=4).map(double)
    assert numbers.filter(lambda each: each % 3 == 0).compute() == [0, 6, 12, 18, 24, 30, 36]
    assert int(dask.array.arange(1_000_000, chunks=250_000).sum().compute()) == 499_999_500_000
    assert dask.array.ones((1000, 1000), chunks=500).compute().shape == (1000, 1000)


def test_dask_has_no_fewer_tasks_under_way_than_there_are_slots(cluster: Cluster) -> None:
    assert cluster._max_workers >= cluster.slots >= 1
