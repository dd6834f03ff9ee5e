"""What a runner answers to a client that won't unpickle: data where it can, and words about what is in the way."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from slot_support import Outcome, Worker, worker

from p2p_ipython.errors import NotTrusted, RemoteError
from p2p_ipython.task.outcome import decode


class Strict(Worker):
    """Asks for safe replies, and keeps the results as they came."""

    def on_result(self, slot: Any, header: Any, body: Any) -> None:
        outcome = self._outcome(header)
        outcome.value = bytes(body)
        self._end(outcome)

    def read(self, outcome: Outcome, *, trusted: bool = False) -> Any:
        large = {ref: memoryview(data) for ref, data in self._chunks.items()}
        return decode(outcome.result, outcome.value, large, worker="bob", trusted=trusted)


def strict(it: Worker) -> Strict:
    it.__class__ = Strict
    assert isinstance(it, Strict)
    return it


async def safely(it: Strict, source: str) -> Outcome:
    return await it.cell(source, reply="safe")


async def call(it: Strict, function: Any, *arguments: Any) -> Outcome:
    it.begin((function, arguments, {}), reply="safe")
    return await it.over()


async def test_values_of_cells_and_calls_come_as_data() -> None:
    async with worker() as one:
        it = strict(one)
        for outcome, value in (
            (await safely(it, "{'a': (1, 2.5), 'b': {3}}"), {"a": (1, 2.5), "b": {3}}),
            (await safely(it, "x = 1"), None),
            (await call(it, pow, 2, 100), 1 << 100),
            (await call(it, print, "hello"), None),
        ):
            assert outcome.result.codec == "safe"
            assert it.read(outcome) == value


async def test_a_large_array_comes_as_a_segment_of_its_own() -> None:
    async with worker() as one:
        it = strict(one)
        array = np.arange(1 << 18, dtype="f8")
        outcome = await call(it, operator.mul, array, 2)
        assert [ref for _, ref in outcome.result.segments] == [None, "r0"]
        back = it.read(outcome)
        back += 1
        assert np.array_equal(back, array * 2 + 1)


async def test_what_is_no_data_comes_as_a_pickle_that_says_so_and_waits_for_trust() -> None:
    async with worker() as one:
        it = strict(one)
        outcome = await safely(it, "import types\n[0, {'x': types.SimpleNamespace(a=2)}]")
        assert outcome.result.codec == "pickle"
        assert outcome.result.type_name == "types.SimpleNamespace"
        assert outcome.result.at == "[1]['x']"
        with pytest.raises(NotTrusted, match=r"types.SimpleNamespace at \[1\]\['x'\]"):
            it.read(outcome)
        assert it.read(outcome, trusted=True)[1]["x"].a == 2


async def test_a_class_of_the_cell_is_named_and_one_that_can_not_be_pickled_is_an_error() -> None:
    async with worker() as one:
        it = strict(one)
        outcome = await safely(it, "class Model: pass\nModel()")
        assert outcome.result.type_name == "__main__.Model"
        outcome = await safely(it, "__import__('threading').Lock()")
        assert outcome.error.what == "unpicklable"


async def test_an_exception_comes_in_words_and_as_plain_data() -> None:
    async with worker() as one:
        it = strict(one)
        outcome = await safely(it, "1 / 0")
        assert (outcome.result.ok, outcome.result.codec) == (False, "safe")
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            it.read(outcome)
        outcome = await call(it, operator.itemgetter("k"), {})
        with pytest.raises(KeyError) as caught:
            it.read(outcome)
        assert caught.value.args == ("k",)
        outcome = await safely(it, "open('no file')")
        with pytest.raises(FileNotFoundError) as missing:
            it.read(outcome)
        assert (missing.value.errno, missing.value.filename) == (2, "no file")
        outcome = await safely(it, "assert 1 > 2")
        with pytest.raises(AssertionError) as asserted:
            it.read(outcome)
        assert asserted.value.args == ()
        outcome = await safely(it, "class Mine(Exception): pass\nraise Mine('m')")
        with pytest.raises(RemoteError, match="Mine: m"):
            it.read(outcome)


async def test_without_the_word_for_it_a_result_is_a_pickle_as_ever() -> None:
    async with worker() as one:
        it = strict(one)
        outcome = await it.cell("[1]")
        assert outcome.result.codec == ""
        assert it.read(outcome, trusted=True) == [1]
        with pytest.raises(NotTrusted):
            it.read(outcome)
