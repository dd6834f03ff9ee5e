"""A batch of joblib's calls is taken apart for its task: its plain data is apart from its code."""

from __future__ import annotations

from typing import Any

import numpy as np

from p2p_ipython.task.batches import call_batch, failed_call, taken_apart
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.task import Task, make_call


class Model:
    def __init__(self) -> None:
        self.depth = 3


def fit(model: Model, X: np.ndarray, *, parameters: dict[str, float]) -> float:
    return float(X.sum()) * parameters["C"] / (model.depth - 3)


def batch(*depths: float, X: np.ndarray) -> list[Any]:
    return [(fit, (Model(), X), {"parameters": {"C": each}}) for each in depths]


def task(calls: list[Any], store: BufferStore) -> Task:
    functions, plan, values = taken_apart(calls)
    return make_call(call_batch, (functions, plan, 1, None, *values), {}, store, apart=True)


def test_each_object_travels_once() -> None:
    X = np.arange(3.0)
    functions, plan, values = taken_apart(batch(1.0, 2.0, X=X))
    assert functions == (fit,)
    assert [list(places) for _, places, _ in plan] == [[0, 1], [3, 1]]
    assert sum(each is X for each in values) == 1


def test_the_same_functions_on_other_data_are_the_same_code() -> None:
    store = BufferStore(64 << 20)
    X = np.random.default_rng(0).random(300_000)
    one, other = task(batch(1.0, X=X), store), task(batch(2.0, X=X + 1), store)
    assert (one.packed.segments, one.packed.inline) == (other.packed.segments, other.packed.inline)
    assert not one.packed.large  # what is large is data
    assert one.data is not None
    assert [view.nbytes for view in one.data.large.values()] == [X.nbytes]


def test_the_call_that_fails_is_known() -> None:
    functions, plan, values = taken_apart([(divmod, (7, 2), {}), (divmod, (7, 0), {}), (divmod, (1, 1), {})])
    arguments = (functions, plan, 1, None, *values)
    try:
        call_batch(*arguments)
    except ZeroDivisionError:
        assert failed_call(call_batch, arguments, {}) == (divmod, [7, 0], {})
    assert failed_call(divmod, (1, 0), {}) == (divmod, (1, 0), {})
    assert call_batch((divmod,), [(0, [0, 1], {})], 1, None, 7, 2) == [(3, 1)]
