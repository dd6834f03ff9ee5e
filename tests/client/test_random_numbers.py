"""A notebook's random numbers are its own: the same with a cluster and without."""

from __future__ import annotations

import random

import p2p_ipython


def test_a_cluster_draws_nothing_from_the_generator_that_the_notebook_may_have_seeded() -> None:
    random.seed(5)
    before = random.getstate()
    with p2p_ipython.connect(workers=1) as cluster:
        assert cluster.submit(abs, -3).result(timeout=60) == 3
    assert random.getstate() == before
