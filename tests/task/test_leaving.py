"""What can't travel stays behind where the rest is of use without it. Otherwise the error names it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from p2p_ipython.errors import CaptureError, NotPicklable
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import pack_result, unpack
from p2p_ipython.task.task import make_call
from tests.task.elsewhere_support import Elsewhere, frozen, notebook

LOCK = "import functools, threading\nlock = threading.Lock()\n"
F = LOCK + "def f(x): return x * 2\nf.lock = threading.Lock()\nf.colour = 'red'\n"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    process = Elsewhere()
    yield process
    process.close()


@pytest.mark.parametrize(
    ("source", "expression"),
    [
        (F, "f(2), f.colour"),
        (F + "def g(x): return f(x) + 1", "g(2)"),
        (F + "class A:\n  k = staticmethod(f)\nfs = [{'f': f}]", "A.k(2), fs[0]['f'](1)"),
        (F + "g = functools.cache(f)\nh = functools.wraps(f)(lambda x: x)", "g(2), h(1)"),
    ],
)
def test_a_function_travels_without_an_attribute_that_can_not(
    elsewhere: Elsewhere, source: str, expression: str
) -> None:
    home = notebook(source)
    assert elsewhere.ask(frozen(expression, home), expression).text == repr(eval(expression, home))
    assert hasattr(home["f"], "lock")  # at home nothing has changed


@pytest.mark.parametrize(
    ("source", "cell"),
    [
        (F, "with f.lock: pass"),
        (F + "def g(x):\n  with f.lock: return 1", "g(2)"),
        (F + "class A:\n  def m(self): return [h for h in [f.lock]]", "A().m()"),
    ],
)
def test_an_attribute_that_code_mentions_is_not_left_behind(source: str, cell: str) -> None:
    with pytest.raises(NotPicklable, match="'lock' \\(lock\\) can't travel, and the code mentions it"):
        frozen(cell, notebook(source))


def test_calls_leave_it_too() -> None:
    home = notebook(F)
    task = make_call(home["f"], (2,), {}, BufferStore(0))
    function, arguments, _ = unpack(task.packed.segments, task.packed.inline, {})
    assert (function(*arguments), vars(function)) == (4, {"colour": "red"})


RAISED = (
    LOCK + "class E(Exception):\n  def __init__(s): super().__init__('x'); s.code, s.lock = 4, threading.Lock()\n"
    "def caught():\n  try:\n    try: raise E\n    except E as e: raise ValueError('v') from e\n"
    "  except ValueError as e: return e\nalone = E()\nchained = caught()"
)


def test_an_error_of_a_task_comes_home_without_what_can_not_travel() -> None:
    home = notebook(RAISED)
    packed = pack_result(home["alone"], error=True)
    error = unpack(packed.segments, packed.inline, {})
    assert (type(error), error.code, error.lock) == (home["E"], 4, None)
    packed = pack_result(home["chained"], error=True)
    error = unpack(packed.segments, packed.inline, {})
    assert (repr(error), error.__cause__) == ("ValueError('v')", None)
    assert hasattr(home["alone"], "lock")


def test_a_value_is_never_less_than_it_was() -> None:
    with pytest.raises(TypeError, match="lock"):
        pack_result(notebook(RAISED)["alone"])


@pytest.mark.parametrize(
    ("source", "name", "part"),
    [
        (LOCK + "class M:\n  def __init__(s): s.past = [1, {'a': lock}]\nm = M()", "m", "m.past[1]['a'] (lock)"),
        (LOCK + "class M:\n  x = 1\n  def f(s): return 1\n  key = threading.Lock()\nm = M()", "m", "M.key (lock)"),
        (LOCK + "def make():\n  own = threading.Lock()\n  return lambda: own\nf = make()", "f", "own of f (lock)"),
        (LOCK + "def f(x, k=threading.Lock()): return x", "f", "k (lock)"),
        (LOCK + "f = functools.partial(print, 1, end=lock)", "f", "f.keywords['end'] (lock)"),
        (LOCK + "rows = [(1, lock)] * 3", "rows", "rows[0][1] (lock)"),
        ("rows = [1, (i for i in 'ab')]\nnext(rows[1])", "rows", "rows[1] (generator)"),
    ],
)
def test_the_error_names_the_part(source: str, name: str, part: str) -> None:
    home = notebook(source)
    with pytest.raises(CaptureError) as caught:
        frozen(name, home)
    assert f"can't be pickled: {part}: " in caught.value.message
    with pytest.raises(CaptureError) as caught:
        make_call(print, (home[name],), {}, BufferStore(0))
    assert part.replace(f"{name}.", "argument 1.").replace(f"{name}[", "argument 1[").replace(
        f" {name} ", " argument 1 "
    ) in str(caught.value)


def test_a_part_is_looked_for_among_a_bounded_number() -> None:
    home = notebook(LOCK + "import sys\nrows = [[object()] for _ in range(100000)] + [lock]")
    with pytest.raises(NotPicklable) as caught:
        frozen("rows", home)
    assert caught.value.message.startswith("'rows' (list, used by the cell) can't be pickled: cannot pickle")
