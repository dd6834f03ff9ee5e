"""Data beside a task's code: the code is the same whatever data it gets, and the data is what it was."""

from __future__ import annotations

import collections
import datetime
import decimal
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import capture_cell
from p2p_ipython.task.datum import beside
from p2p_ipython.task.payload import in_pieces, unpack
from p2p_ipython.task.safe.several import MAX_ITEMS, Values, read
from p2p_ipython.task.task import Task, make_call, task_of

HOME: dict[str, Any] = {"__name__": "__main__"}
exec("def double(x, by=2): return by * x", HOME)

PLAIN = [
    *(None, True, 3, -(1 << 80), 2.5, float("inf"), 1j, "text", "\ud800", b"b", bytearray(b"ab"), [], (1, "two")),
    *({"a": [1, {2, 3}], (1, 2): None}, frozenset({1}), range(3), slice(1, None), decimal.Decimal("1.50")),
    *(datetime.datetime(2026, 11, 30, tzinfo=datetime.UTC), collections.Counter("aab"), collections.deque([1], 5)),
    *(np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((2, 3))), np.float32(1.5), np.zeros(300_000)),
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
]
Point = collections.namedtuple("Point", "x y")
fixed = np.arange(3)
fixed.flags.writeable = False
twice = [1]
NOT_PLAIN = [
    *(Point(1, 2), fixed, np.array([object()]), object(), {}.keys(), [twice, twice], list(range(MAX_ITEMS + 1))),
    *(double := HOME["double"], [double], "x" * (2 << 20)),
]


def cell(source: str, **names: Any) -> Task:
    captured = capture_cell(source, HOME | names, transform=str)
    return task_of(captured, BufferStore(1 << 30), apart=True)


def call(function: Any, *args: Any, **kwargs: Any) -> Task:
    return make_call(function, args, kwargs, BufferStore(1 << 30), apart=True)


class Copies:
    """A task's large buffers, as a runner gives them out."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def get(self, ref: str) -> memoryview:
        return memoryview(bytearray(self._task.large[ref]))


def arrived(task: Task) -> Any:
    """What a runner makes of a task's payload."""
    large = Copies(task)
    values: list[Any] = []
    if task.data is not None:
        values = read(in_pieces(task.data.segments, task.data.inline, large))
    with beside(values):
        return unpack(task.packed.segments, task.packed.inline, large)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, pd.DataFrame):
        return bool(one.equals(other))
    equal = np.array_equal(one, other) and one.dtype == other.dtype if isinstance(one, np.ndarray) else one == other
    return type(one) is type(other) and bool(equal)


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{type(value).__name__}")
def test_plain_data_arrives_as_it_was_and_the_code_is_the_same_without_it(value: Any) -> None:
    for made, other in ((call(double, value), call(double, 1)), (cell("double(v)", v=value), cell("double(v)", v=1))):
        assert made.packed.segments == other.packed.segments
        assert made.packed.inline == other.packed.inline
        there = arrived(made)
        assert same(value, there["v"] if made.kind == "cell" else there[1][0])


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: f"{type(value).__name__}")
def test_other_data_stays_with_the_code(value: Any) -> None:
    made = call(double, value, 7)
    assert made.data is not None
    assert made.data.inline == b"[7]"
    (_, (there, seven), _) = arrived(made)
    assert seven == 7
    assert type(there) is type(value)
    assert made.packed.inline != call(double, 1, 7).packed.inline


def test_defaults_are_code_and_so_are_the_globals_of_a_function_that_is_called() -> None:
    notebook: dict[str, Any] = {"__name__": "__main__", "scale": 2}
    exec("def f(x, by=3): return scale * by * x", notebook)
    before = call(notebook["f"], 1)
    notebook["scale"] = 5
    assert call(notebook["f"], 1).packed.inline != before.packed.inline
    notebook["scale"], notebook["f"].__defaults__ = 2, (4,)
    assert call(notebook["f"], 1).packed.inline != before.packed.inline
    notebook["f"].__defaults__ = (3,)
    assert call(notebook["f"], 9).packed.inline == before.packed.inline


def test_what_a_cell_and_its_functions_both_know_is_one_thing() -> None:
    home: dict[str, Any] = {"__name__": "__main__", "rows": [0]}
    exec("def table(): return rows", home)
    made = task_of(capture_cell("rows.append(1); table()", home, transform=str), BufferStore(0), apart=True)
    assert made.data is not None
    there = arrived(made)
    there["rows"].append(1)
    assert there["table"]() is there["rows"]


def test_an_argument_that_comes_twice_is_one_thing() -> None:
    both = [1]
    made = call(double, both, by=both)
    assert made.data is not None
    _, (one,), named = arrived(made)
    assert one is named["by"]


def test_data_that_code_knows_by_another_way_stays_with_it() -> None:
    rows = [0]
    for made in (call(double, rows, {"in": rows}), call(double, rows, by=[double, rows])):
        assert made.data is None
        _, args, named = arrived(made)
        assert args[0] is (args[1]["in"] if len(args) > 1 else named["by"][1])
    HOME["double"].rows = rows
    try:
        assert cell("double(rows)", rows=rows).data is None
    finally:
        del HOME["double"].rows


def test_a_call_without_data_is_as_it_would_be() -> None:
    made, plain = call(double), make_call(double, (), {}, BufferStore(0))
    assert made.data is None
    assert made.packed == plain.packed


def test_a_large_array_is_a_buffer_that_is_pinned_once_and_written_to_by_the_task_alone() -> None:
    store, array = BufferStore(0), np.ones(1 << 20)
    made = make_call(double, (array, [double, array.copy()]), {}, store, apart=True)
    assert made.data is not None
    assert len(made.large) == 1  # the copy has the same bytes
    array[0] = 7
    _, (there, (_, copy)), _ = arrived(made)
    assert there[0] == 1
    there[0] = 3
    assert copy[0] == 1
    store.unpin(made.large)
    assert len(store) == 0


def test_a_value_that_is_left_out_half_way_leaves_nothing_behind() -> None:
    values = Values()
    assert values.take([np.zeros(1000), object()]) is None
    assert values.take([np.ones(1000)]) == 0
    assert len(values.buffers) == 1
    (there,) = read([values.text, *values.buffers])
    assert there[0][0] == 1


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


@pytest.mark.parametrize("make", [pickle.dumps, lambda evil: b'[{"!pickle": 1}]', lambda evil: b'{"!list": []}'])
def test_attack_data_that_is_code_is_refused(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "made"
    with pytest.raises(Exception, match=r"JSON|unknown kind|not valid|it is"):
        read([make(Evil(str(path)))])
    assert not path.exists()
