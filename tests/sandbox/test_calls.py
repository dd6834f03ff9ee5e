"""Calls, and values and errors of every odd kind, in a runner."""

from __future__ import annotations

import functools
import operator
import re
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from slot_support import needs, worker

from p2p_ipython.sandbox.inside.buffers import MAPPED
from p2p_ipython.sandbox.inside.call_line import call_line


async def test_a_call_returns_its_value() -> None:
    async with worker() as it:
        assert (await it.call(pow, 2, 10)).value == 1024
        assert (await it.call(int, "ff", base=16)).value == 255
        none = await it.call(print, "hello")
        assert (none.value, none.result.value, none.text()) == (None, True, "hello\n")


async def test_a_call_raises_with_its_bases_and_its_pickle() -> None:
    async with worker() as it:
        outcome = await it.call(operator.truediv, 1, 0)
        assert isinstance(outcome.value, ZeroDivisionError)
        assert outcome.error.class_name == "builtins.ZeroDivisionError"
        assert outcome.error.bases[:2] == ("builtins.ZeroDivisionError", "builtins.ArithmeticError")
        assert "p2p_ipython" not in outcome.error.traceback
        assert "division by zero" in outcome.error.traceback


async def test_exceptions_that_can_hardly_be_described_are_described() -> None:
    async with worker() as it:
        mean = """
class Mean(Exception):
    def __str__(self): raise RuntimeError("no words")
    __repr__ = __str__
    def __reduce__(self): raise RuntimeError("no pickle")
raise Mean
"""
        outcome = await it.cell(mean)
        assert outcome.error.class_name.endswith("Mean")
        assert "RuntimeError" in outcome.error.message
        assert outcome.result.segments == ()
        for source in (
            "raise ExceptionGroup('two', [ValueError(1), TypeError(2)])",
            "raise Exception('x' * 10_000_000)",
            "def f(): f()\nf()",
            "class B(BaseException): pass\nraise B('odd')",
            "raise StopIteration(3)",
            "raise Exception('\\udc80 half a character')",
        ):
            outcome = await it.cell(source)
            assert outcome.error.what == "exception", source
            assert len(outcome.error.message) <= 64 << 10
            assert outcome.error.traceback, source
        assert (await it.cell("1")).value == 1
        assert it.deaths == []


async def test_a_value_that_cannot_be_pickled_is_named() -> None:
    async with worker() as it:
        for source, name in (
            ("it = iter(i for i in 'ab')\nnext(it)\nit", "generator"),
            ("import threading\nthreading.Lock()", "lock"),
        ):
            outcome = await it.cell(f"print('ran')\n{source}")
            assert outcome.error.what == "unpicklable"
            assert name in outcome.error.message
            assert outcome.text() == "ran\n"


async def test_a_module_that_is_missing_is_named() -> None:
    class Absent:
        def __reduce__(self) -> tuple[object, ...]:
            return (__import__, ("no_such_module",))

    async with worker() as it:
        it.begin({"x": Absent()}, run="cell", source="x")
        outcome = await it.over()
        assert (outcome.error.what, outcome.error.missing) == ("missing", "no_such_module")


async def test_a_payload_that_is_nonsense_is_unloadable() -> None:
    async with worker() as it:
        from p2p_ipython.task.payload import Packed, Segment

        nonsense = Packed((Segment(3, None),), b"abc", {}, needs_python=False)
        longer = Packed((Segment(4, None),), b"abc", {}, needs_python=False)
        for packed, more in ((nonsense, {}), (nonsense, {"run": "cell", "source": "1"}), (longer, {})):
            it.begin_packed(packed, [], **more)
            assert (await it.over()).error.what == "unloadable"
        it.begin("not a namespace", run="cell", source="1")
        assert (await it.over()).error.what == "unloadable"
        assert it.deaths == []


async def test_large_arrays_travel_both_ways() -> None:
    array = np.arange(13_000_000, dtype=np.float64)
    async with worker() as it:
        outcome = await it.call(operator.mul, array, 2)
        assert outcome.chunk_bytes == array.nbytes
        assert np.array_equal(outcome.value, array * 2)


async def test_a_task_cannot_change_a_cached_array_for_the_next() -> None:
    array = np.zeros(2_000_000)  # 16 MB: mapped
    small = np.zeros(200_000)  # 1.6 MB: copied
    async with worker() as it:
        for _ in range(2):
            outcome = await it.cell(
                "before = a[0] + b[0]\na[:] = 1\nb[:] = 1\nbefore, a.sum()", {"a": array, "b": small}
            )
            assert outcome.value == (0.0, 2_000_000.0)


async def test_too_much_memory_is_a_memory_error_of_the_task() -> None:
    async with worker(memory=512 << 20) as it:
        outcome = await it.cell("x = bytearray(1 << 30)")
        assert outcome.error.class_name == "builtins.MemoryError"
        assert (await it.cell("len(bytearray(100 << 20))")).value == 100 << 20
        assert it.deaths == []


@pytest.mark.parametrize("name", ["process", "bubblewrap", "landlock"])
async def test_a_large_buffer_comes_and_goes_whole_through_a_wall(name: str) -> None:
    needs(name)
    data = bytes(range(256)) * (MAPPED // 256 + 1)
    async with worker(mechanism=name) as it:
        assert (await it.call(bytes.upper, data)).value == data.upper()


async def test_the_traceback_of_a_call_begins_with_the_call() -> None:
    async with worker() as it:
        failed = await it.call(operator.truediv, 1, 0)
        assert "truediv(1, 0)" in re.sub(r"\x1b\[[\d;]*m", "", failed.error.traceback)
        bound = await it.call(int, "x", base=np.zeros((3, 2)))
        assert "int('x', base=<ndarray (3, 2)>)" in re.sub(r"\x1b\[[\d;]*m", "", bound.error.traceback)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: call_line(max, [list(range(9)), "x" * 99], {}), "max([0, 1, 2, 3, ...], 'xxxxxxxxxxxxxxxxx..."),
        (lambda: call_line(functools.partial(pow, 2), [3], {"mod": None}), "pow(2, 3, mod=None)"),
        (lambda: call_line(_Silent(), [_Silent()], {"key": len}), "<_Silent>(<_Silent>, key=len)"),
        (lambda: call_line(_Silent.method, [{"a": _Silent()}], {}), "method({'a': <_Silent>})"),
        (lambda: call_line(len, range(1000), {}), f"len({', '.join(map(str, range(20)))}, …)"),
        (lambda: call_line(len, ["y" * 30] * 1000, {})[-5:], "yyy…)"),
    ],
)
def test_a_call_is_one_short_line_that_runs_no_code_of_the_task(call: Callable[[], str], line: str) -> None:
    assert call().startswith(line) or call() == line
    assert len(call()) <= 200


class _Silent:
    def __repr__(self) -> str:
        raise RuntimeError("this is the task's code")

    def method(self) -> None: ...


class _Held:
    pass


async def test_what_a_weak_reference_refers_to_lives_as_long_as_the_task() -> None:
    held = [_Held(), _Held()]
    _Held.__module__ = "__main__"
    names = {"w": weakref.ref(held[0]), "d": weakref.WeakValueDictionary(k=held[1]), "s": weakref.WeakSet(held)}
    async with worker() as it:
        outcome = await it.cell("import gc; gc.collect(); w() is not None, 'k' in d, len(s)", names)
        assert outcome.value == (True, True, 2)
        code = "import gc; gc.collect(); [type(each).__name__ for each in gc.get_objects()].count('_Held')"
        assert (await it.cell(code)).value == 0
