"""Generators and coroutines that have not begun travel as the call that makes them."""

from __future__ import annotations

import heapq
from typing import Any

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import capture_cell, freeze
from p2p_ipython.task.payload import pack_result
from tests.task.test_by_value import elsewhere

CELL = """
import itertools, shutil
unit = 10
def count(a, *more, by=1, **named):
    add = lambda: a
    yield add(), more, by, named
    yield unit
def outer(factor):
    return (factor * each for each in [1, 2])
def again(n):
    if n:
        yield n
        yield from again(n - 1)
async def brew(cup):
    return cup * unit
"""


def notebook() -> dict[str, Any]:
    home: dict[str, Any] = {"__name__": "__main__", "_ih": []}
    exec(CELL, home)
    return home


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        ("count(1, 2, 3, by=4, five=5)", "[(1, (2, 3), 4, {'five': 5}), 10]"),
        ("outer(3)", "[3, 6]"),
        ("again(2)", "[2, 1]"),
        ("(each + unit for each in range(2))", "[10, 11]"),
        ("(one for one in outer(2))", "[2, 4]"),
    ],
)
def test_a_generator_begins_elsewhere(made: str, shown: str) -> None:
    home = notebook()
    home["it"] = eval(made, home)
    store = BufferStore(1 << 20)
    captured = capture_cell("list(it)", home, transform=TransformerManager().transform_cell)
    packed = freeze(captured, store)
    assert elsewhere(packed, "list(it)") == shown
    store.unpin(packed.large)
    assert repr(list(home["it"])) == shown, "it is still there"


def test_a_generator_of_a_module_goes_by_the_name_of_its_function() -> None:
    packed = pack_result(heapq.merge([1, 3], [2]))
    assert not packed.needs_python
    assert elsewhere(packed, "(list(value), value.__name__)") == "([1, 2, 3], 'merge')"


def test_a_coroutine_begins_elsewhere() -> None:
    home = notebook()
    coroutine = eval("brew(2)", home)
    packed = pack_result(coroutine)
    coroutine.close()
    assert elsewhere(packed, "__import__('asyncio').run(value)") == "20"


def test_one_that_has_begun_stays() -> None:
    generator = notebook()["again"](2)
    next(generator)
    with pytest.raises(TypeError, match="generator"):
        pack_result(generator)
