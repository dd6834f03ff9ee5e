"""What the figures of ``p2p sandbox --bench`` are compared with."""

from __future__ import annotations

import pytest

from p2p_ipython.sandbox.launch import MECHANISMS
from p2p_ipython.worker.sandbox_bench import GOALS, Cost, compared, costs

BASE = Cost("process", 80.0, 500.0, 0.2, 9.0)


def test_figures_over_their_goal_are_said_to_miss_it() -> None:
    assert compared(Cost("bubblewrap", 90.0, 520.0, 0.25, 9.0), BASE) == [
        "start-up: 10 ms over process, within the goal of 25 ms",
        "a warm task: 0.05 ms over process, within the goal of 0.1 ms",
    ]
    assert compared(Cost("landlock", 106.0, 520.0, 9.0, 9.0), BASE) == [
        "start-up: 26 ms over process, MISSES the goal of 25 ms"
    ]
    assert compared(Cost("qemu", 900.0, 1001.0, 9.0, 9.0), BASE) == [
        "the first task: 1001 ms, MISSES the goal of 1000 ms"
    ]
    assert compared(BASE, BASE) == []


async def test_a_bench_measures_each_figure_that_has_a_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2p_ipython.worker.sandbox_bench.REPEATS", 1)
    base, *rest = await costs([])
    assert (base.name, rest) == ("process", [])
    for _, figure in GOALS:
        assert getattr(base, figure) > 0
    assert {name for name, _ in GOALS} <= {*MECHANISMS, "qemu"}
