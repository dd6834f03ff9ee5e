"""Cached functions, properties and dispatchers of a notebook do on the worker what they do at home."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from p2p_ipython.errors import CaptureError, NotPicklable
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import Captured, capture_cell, freeze, listing
from p2p_ipython.task.payload import Packed, pack_result, pack_task, unpack
from p2p_ipython.task.task import make_call

FIB = """
@functools.lru_cache(maxsize=50, typed=True)
def fib(n):
    "Fibonacci's."
    return n if n < 2 else fib(n - 1) + fib(n - 2)
"""

SHOW = """
@functools.singledispatch
def show(x):
    return 'other'
@show.register
def _(x: int):
    return f'{x + bonus}'
@show.register
def _(x: list):
    return [show(each) for each in x]
bonus = 1
"""


def notebook(source: str) -> dict[str, Any]:
    """A notebook's namespace, after a cell of ``source``."""
    namespace: dict[str, Any] = {"__name__": "__main__", "_ih": []}
    exec("import functools, math, typing\n" + source, namespace)
    return namespace


def capture(source: str, home: dict[str, Any]) -> Captured:
    return capture_cell(source, home, transform=TransformerManager().transform_cell)


def elsewhere(packed: Packed, expression: str) -> str:
    """The ``repr`` of ``expression`` in a process that has only ``packed``: as ``value``, or as its namespace."""
    code = (
        "import sys; from p2p_ipython.task.payload import unpack\n"
        f"value = unpack({[list(s) for s in packed.segments]!r}, sys.stdin.buffer.read(), {{}})\n"
        f"print(repr(eval({expression!r}, value if isinstance(value, dict) else {{'value': value}})), end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], input=packed.inline, capture_output=True, timeout=60)
    assert not done.returncode, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("source", "expression"),
    [
        (FIB, "fib(30)"),
        (FIB, "fib(30), fib.cache_info(), fib.cache_parameters()"),
        (FIB, "fib.__name__, fib.__doc__, fib.__module__, fib.__wrapped__(8)"),
        (FIB + "def twice(n): return fib(n) * 2", "twice(5)"),
        (FIB + "fs = {'fib': fib}", "fs['fib'](5), fs['fib'] is fib"),
        (FIB + "class H:\n  cb = fib", "H.cb(5), H.cb is fib"),
        (FIB + "half = functools.partial(fib, 5)", "half()"),
        (FIB + "fib.colour = 'red'", "fib.colour"),
        (FIB + "info = fib.cache_info", "fib(3), info().misses"),
        ("fact = functools.cache(math.factorial)", "fact(5), fact.cache_parameters()"),
        ("outer = functools.lru_cache(3)(functools.lru_cache(5)(math.sqrt))", "outer(4), outer.cache_info()"),
        (
            "@functools.cache\ndef even(n): return n == 0 or odd(n - 1)\n"
            "@functools.cache\ndef odd(n): return n > 0 and even(n - 1)",
            "even(20), odd(7)",
        ),
        ("def make():\n  @functools.cache\n  def f(n): return n and n + f(n - 1)\n  return f\nf = make()", "f(4)"),
        ("@functools.wraps(len)\n@functools.singledispatch\ndef f(x): return 7\nf.__wrapped__ = None", "f(1)"),
        ("class B:\n  @functools.lru_cache\n  def f(self, n): return n + 1", "B().f(1)"),
        ("class B:\n  @staticmethod\n  @functools.cache\n  def f(n): return n + 1", "B.f(1), B().f(1)"),
        ("class B:\n  @classmethod\n  @functools.cache\n  def f(cls, n): return cls.__name__, n", "B.f(1)"),
        ("class B:\n  @property\n  @functools.cache\n  def f(self): return 5", "B().f"),
        ("class B:\n  @functools.cache\n  def f(self): return B.__name__\nb = B()\ng = b.f", "g()"),
        ("class A:\n  @functools.cached_property\n  def p(self):\n    'P.'\n    return 8", "A().p, A.p.__doc__"),
        ("class A:\n  @functools.cached_property\n  def p(self): return 8\na = A()\na.p", "a.p, vars(a)"),
        (
            "class A:\n  @functools.cached_property\n  def p(self): return A.q\n  q = 3\np = A.__dict__['p']",
            "p.func(A())",
        ),
        (
            "class own(functools.cached_property):\n  def __init__(self, f, n=1):\n    super().__init__(f)\n"
            "    self.n = n\nclass A:\n  @own\n  def p(self): return 8",
            "A().p, A.__dict__['p'].n",
        ),
        (SHOW, "show(1), show('a'), show([1, 'a', [2]]), show.__name__"),
        (SHOW + "def f(x): return show(x)", "f(1), f([2])"),
        (SHOW + "class H:\n  cb = staticmethod(show)\nhs = [show]", "H.cb(1), hs[0](1), hs[0] is show"),
        (SHOW + "g = functools.wraps(show)(lambda x: show(x))", "g(1), g.__name__"),
        (SHOW + "g = functools.cache(show)", "g(1), g.__name__"),
        (SHOW + "class Own(int): pass\nshow.register(Own, lambda x: 'own')", "show(Own(1)), show(1)"),
        (
            "class C:\n  @functools.singledispatchmethod\n  def show(self, x): return 'other'\n"
            "  @show.register\n  def _(self, x: int): return C.__name__, x + bonus\nbonus = 1\nc = C()\nm = c.show",
            "C().show('a'), c.show(1), m(2)",
        ),
        (
            "class C:\n  @functools.singledispatchmethod\n  @classmethod\n  def show(cls, x): return cls.__name__\n"
            "  @show.register\n  @classmethod\n  def _(cls, x: int): return x",
            "C.show('a'), C.show(1)",
        ),
        ("Metres = typing.NewType('Metres', float)\ndef f(x: Metres) -> Metres: return x", "f(2), f.__annotations__"),
        ("P = typing.ParamSpec('P')\ndef f(g: typing.Callable[P, int]): return g()", "f(lambda: 3)"),
        ("T = typing.TypeVarTuple('T')\ndef f(*x: *T): return x", "f(1, 2)"),
    ],
)
def test_it_runs_on_the_worker_as_it_does_at_home(source: str, expression: str) -> None:
    home = notebook(source)
    assert elsewhere(freeze(capture(expression, home), BufferStore(0)), expression) == repr(eval(expression, home))


def test_a_cache_arrives_empty_and_the_one_at_home_stays_as_it_is() -> None:
    home = notebook(FIB)
    fib = home["fib"]
    before = fib(30), fib.cache_info()
    packed = freeze(capture("fib", home), BufferStore(0))
    assert home["fib"] is fib
    assert (fib(30), fib.cache_info().currsize) == (before[0], before[1].currsize)
    assert elsewhere(packed, "fib.cache_info().currsize, fib.cache_parameters()") == repr((0, fib.cache_parameters()))


@pytest.mark.parametrize(
    ("source", "name"),
    [(FIB, "fib"), (FIB + "def twice(n): return fib(n)", "twice"), (SHOW, "show")],
)
def test_calls_carry_it_too(source: str, name: str) -> None:
    home = notebook(source)
    task = make_call(home[name], (1,), {}, BufferStore(0))
    assert task.needs_python
    assert elsewhere(task.packed, "value[0](*value[1])") == repr(home[name](1))


def test_a_result_brings_it_home() -> None:
    away = notebook(FIB + "class A:\n  @functools.cached_property\n  def p(self): return fib(10)")
    packed = pack_result([away["fib"], away["A"]()])
    fib, a = unpack(packed.segments, packed.inline, packed.large)
    assert (fib(10), a.p) == (55, 55)


def test_what_a_cell_assigns_is_seen_by_cached_functions() -> None:
    home = notebook("k = 1\n@functools.cache\ndef f(): return k")
    packed = freeze(capture("f()", home), BufferStore(0))
    away = unpack(packed.segments, packed.inline, packed.large)
    away["k"] = 10
    assert away["f"]() == 10


@pytest.mark.parametrize(
    "source",
    [
        "@functools.singledispatch\ndef f(x): return k",
        "@functools.singledispatch\ndef f(x): return 1\n@f.register\ndef _(x: int): return k",
        "class f:\n  @functools.singledispatchmethod\n  def m(self, x): return k",
        "import contextlib\n@contextlib.contextmanager\ndef f(): yield k",
    ],
)
def test_globals_are_found_behind_the_decorators_of_libraries(source: str) -> None:
    assert "k" in capture("f", notebook(source + "\nk = 7")).names


def test_a_cached_function_of_a_library_travels_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_us.py").write_text("import functools\n@functools.cache\ndef f(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    beside_us = __import__("beside_us")
    packed = pack_task(beside_us.f, BufferStore(0))
    assert unpack(packed.segments, packed.inline, {}) is beside_us.f
    assert not packed.needs_python
    cloudpickle.register_pickle_by_value(beside_us)
    try:
        assert elsewhere(pack_task(beside_us.f, BufferStore(0)), "value()") == "1"
    finally:
        cloudpickle.unregister_pickle_by_value(beside_us)
        del sys.modules["beside_us"]


def test_a_dry_run_has_the_size_of_a_cached_function_and_what_it_uses() -> None:
    rows = {row.name: row for row in listing(capture("fib(3)", notebook(FIB + "print = functools.cache(print)")))}
    assert rows["fib"].type == "cached function"
    assert (rows["fib"].size or 0) > 200


def refused(source: str, name: str) -> Mapping[str, str]:
    with pytest.raises(CaptureError) as caught:
        freeze(capture(name, notebook(source)), BufferStore(0))
    return {"message": caught.value.message, "hint": caught.value.hint}


def test_what_a_cached_function_uses_and_can_not_travel_is_named() -> None:
    source = "lock = __import__('threading').Lock()\n@functools.cache\ndef f(): return lock"
    assert refused(source, "f")["message"].startswith("'lock' (lock, used by f)")
    source = "def make():\n  lock = __import__('threading').Lock()\n  return functools.cache(lambda: lock)\nf = make()"
    error = refused(source, "f")
    assert error["message"].startswith("'f' (cached function, used by the cell) can't be pickled")
    assert error["hint"].startswith("Something that f refers to can't travel")


def test_a_cached_function_that_hides_what_it_calls_is_refused_with_what_to_do() -> None:
    source = "def g(): return 1\n@functools.wraps(g)\n@functools.cache\ndef f(): return g() + 1"
    error = refused(source, "f")
    assert error["message"].startswith("'f' (cached function, used by the cell)")
    assert "above @wraps" in error["hint"]


def test_what_is_pickled_by_a_name_of_the_notebook_is_refused_by_name_and_blames_no_version() -> None:
    source = "class Missing:\n  def __reduce__(self): return 'MISSING'\nMISSING = Missing()\nrows = [MISSING]"
    with pytest.raises(NotPicklable) as caught:
        freeze(capture("rows", notebook(source)), BufferStore(0))
    assert caught.value.name == "rows"
    assert "only the name 'MISSING'" in caught.value.message
    assert "version" not in str(caught.value)
    assert "inside the cell" in caught.value.hint


def test_what_its_class_takes_apart_is_taken_apart_once() -> None:
    source = "calls = []\nclass C:\n  def __reduce__(self):\n    calls.append(1)\n    return int, (5,)\nc = C()"
    home = notebook(source)
    packed = pack_task(home["c"], BufferStore(0))
    assert unpack(packed.segments, packed.inline, {}) == 5
    assert home["calls"] == [1]
