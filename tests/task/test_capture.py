"""What a cell takes along, what stays at home, and what is said when something can't travel."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import threading
import types
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from p2p_ipython.errors import CaptureError, NotPicklable
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import CELL, Captured, capture_cell, freeze, listing
from p2p_ipython.task.payload import unpack
from p2p_ipython.task.task import make_cell

transform = TransformerManager().transform_cell


def notebook(source: str = "", **values: Any) -> dict[str, Any]:
    """A namespace as a notebook's, with the names that IPython puts there."""
    home: dict[str, Any] = {"__name__": "__main__", "In": [""], "Out": {}, "_ih": [""], "get_ipython": object.__new__}
    exec(source, home)
    home.update(values)
    return home


def capture(source: str, home: dict[str, Any], **options: Any) -> Captured:
    return capture_cell(source, home, transform=transform, **options)


def travel(captured: Captured) -> dict[str, Any]:
    """The namespace that the worker unpickles."""
    packed = freeze(captured, BufferStore(0))
    namespace = unpack(packed.segments, packed.inline, {ref: bytearray(view) for ref, view in packed.large.items()})
    assert isinstance(namespace, dict)
    return namespace


def run(source: str, home: dict[str, Any]) -> dict[str, Any]:
    """The namespace after a worker ran the cell."""
    namespace = travel(capture(source, home))
    exec(transform(source), namespace)
    return namespace


def test_only_what_the_cell_uses_travels() -> None:
    captured = capture("total = a + b", notebook(a=1, b=2, c=3))
    assert captured.names == {"a": 1, "b": 2}
    assert travel(captured) == {"a": 1, "b": 2}


def test_names_that_are_nowhere_are_left_to_fail_where_the_cell_runs() -> None:
    with pytest.raises(NameError, match="nowhere"):
        run("nowhere", notebook())


def test_builtins_travel_only_where_the_notebook_hides_them() -> None:
    assert not capture("print(len([]))", notebook()).names
    assert list(capture("print(len([]))", notebook(len=abs)).names) == ["len"]


def test_ipythons_own_names_stay_and_results_travel() -> None:
    home = notebook(_=5, _3=6, _i2="x = 1")
    assert capture("_, _3, _i2, In, Out, get_ipython(), __name__", home).names == {"_": 5, "_3": 6}


def test_functions_bring_what_they_use_and_say_so() -> None:
    home = notebook(
        "import json\nk = 2\ndef inner(x): return x * k\ndef outer(x): return json.dumps(inner(x))\nunused = 3\n"
    )
    captured = capture("outer(4)", home)
    assert dict(captured.used_by) == {"outer": CELL, "json": "outer", "inner": "outer", "k": "inner"}
    assert run("result = outer(4)", home)["result"] == "8"


@pytest.mark.parametrize(
    "source",
    [
        "f = lambda: k",
        "def g(): return k\nf = [g]",
        "def g(): return k\nf = {'x': (g,)}",
        "class f:\n  def m(self): return k",
        "class C:\n  def m(self): return k\nf = C()",
        "class C:\n  @property\n  def p(self): return k\nclass f(C): pass",
        "class C:\n  @staticmethod\n  def s(): return k\nf = C.s",
        "class f:\n  @staticmethod\n  def s(): return k",
        "class f:\n  @classmethod\n  def c(cls): return k",
        "class C:\n  @classmethod\n  def c(cls): return k\nf = C.c",
        "class C:\n  def m(self): return k\nf = C().m",
        "import functools\ndef g(x): return k\nf = functools.partial(g, 1)",
        "import functools\n@functools.cache\ndef f(): return k",
        "def o():\n  def i(): return k\n  return i\nf = o()",
        "def o(h):\n  def i(): return h()\n  return i\nf = o(lambda: k)",
        "def f(g=lambda: k): return g()",
        "def f():\n  class C:\n    a = k\n  return C",
        "def f():\n  global k\n  k += 1",
        "async def f(): return k",
        "def f(): return f() or k",
    ],
)
def test_globals_of_the_notebooks_code_are_found_wherever_it_hides(source: str) -> None:
    assert "k" in capture("f", notebook(source, k=7)).names


def test_a_cells_assignment_is_seen_by_the_notebooks_functions() -> None:
    home = notebook("k = 1\ndef f(): return k")
    assert run("k = 10\nresult = f()", home)["result"] == 10
    assert home["k"] == 1


def test_methods_share_the_cells_names_in_another_process_too() -> None:
    home = notebook("k = 1\nclass C:\n  def get(self): return k\nc = C()")
    packed = freeze(capture("c.get()", home), BufferStore(0))
    code = (
        "import sys; from p2p_ipython.task.payload import unpack\n"
        f"n = unpack({[list(s) for s in packed.segments]!r}, sys.stdin.buffer.read(), {{}})\n"
        "n['k'] = 10; print(n['c'].get(), type(n['c']).get.__globals__ is n)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=packed.inline, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.split() == [b"10", b"True"]


def test_what_changes_after_submission_does_not_reach_the_task() -> None:
    home = notebook(rows=[1], table=np.zeros(300_000))
    store = BufferStore(0)
    packed = freeze(capture("rows, table", home), store)
    home["rows"].append(2)
    home["table"][:] = 1
    away = unpack(packed.segments, packed.inline, packed.large)
    assert away["rows"] == [1]
    assert away["table"].sum() == 0


def test_modules_are_imported_with_the_submodules_that_are_used_through_them() -> None:
    home = notebook("import xml.etree.ElementTree, os.path as p, numpy as np")
    packed = freeze(capture("xml.etree.ElementTree.fromstring, p.join, np.linalg.norm", home), BufferStore(0))
    code = (
        "import sys; from p2p_ipython.task.payload import unpack\n"
        f"n = unpack({[list(s) for s in packed.segments]!r}, sys.stdin.buffer.read(), {{}})\n"
        "print(n['xml'].etree.ElementTree.__name__, n['p'].join('a', 'b'), n['np'].__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=packed.inline, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.split() == [b"xml.etree.ElementTree", b"a/b", b"numpy"]


def test_modules_beside_the_notebook_travel_as_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_us.py").write_text("def f(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    home = notebook("import beside_us\nfrom beside_us import f")
    packed = freeze(capture("beside_us.f(), f()", home), BufferStore(0))
    assert not packed.needs_python
    monkeypatch.delitem(sys.modules, "beside_us")
    sys.path.remove(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="beside_us"):
        unpack(packed.segments, packed.inline, {})


def test_data_alone_runs_on_any_python_and_functions_do_not() -> None:
    home = notebook("import math\ndef f(): pass", data=[1])
    assert not freeze(capture("math.pi, data", home), BufferStore(0)).needs_python
    assert freeze(capture("f", home), BufferStore(0)).needs_python


@pytest.mark.parametrize("source", ["", "\n \n", "# only\n# comments\n"])
def test_an_empty_cell_is_refused(source: str) -> None:
    with pytest.raises(CaptureError, match="empty"):
        capture(source, notebook())


def test_a_syntax_error_is_shown_as_one() -> None:
    with pytest.raises(SyntaxError) as caught:
        capture("\nx = 1\nx = = 2", notebook())
    assert caught.value.lineno == 3


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = 1\nreturn 5\n", "return 5"),
        ("if 1:\r\n    return 5\r\n", "    return 5"),
        ("\n\ns = 'a\\\n\x0cb'\nbreak", "break"),
        ("x = = 2", "x = = 2"),
    ],
)
def test_a_syntax_error_has_its_line_wherever_python_finds_it(source: str, line: str) -> None:
    with pytest.raises(SyntaxError) as caught:
        capture(source, notebook())
    assert (caught.value.text or "").rstrip("\n") == line


def test_a_cell_nested_too_deeply_is_refused_by_a_python_that_cant_compile_it() -> None:
    try:
        names = set(capture("+".join(["x"] * 5_000), notebook(x=1)).names)
    except CaptureError as error:
        assert "deep" in str(error)  # noqa: PT017 - Python 3.13 can compile it
    else:
        assert names == {"x"}


def test_a_name_that_can_not_be_pickled_is_named_with_what_to_do() -> None:
    home = notebook("def f(): return lock", lock=threading.Lock(), fine=1)
    with pytest.raises(NotPicklable, match=r"'lock' \(lock, used by f\).*pickle") as caught:
        freeze(capture("fine, f()", home), BufferStore(0))
    assert caught.value.name == "lock"
    assert "inside the cell" in caught.value.hint
    assert "--globals -lock" in caught.value.hint
    assert isinstance(caught.value.__cause__, TypeError)


def test_an_open_file_is_to_be_opened_in_the_cell(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file, pytest.raises(NotPicklable, match="'file'") as caught:
        freeze(capture("file.write(b'')", notebook(file=file)), BufferStore(0))
    assert "Open it inside the cell" in caught.value.hint


def test_an_open_file_of_text_is_refused_and_its_content_does_not_travel(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("private")
    with (tmp_path / "f").open() as file:
        captured = capture("file.read()", notebook(file=file))
        with pytest.raises(NotPicklable, match=r"'file'.*open file") as caught:
            freeze(captured, BufferStore(0))
        (row,) = listing(captured)
    assert caught.value.name == "file"
    assert "read it here and send" in caught.value.hint
    assert row.size is None
    assert "open file" in row.trouble


def test_files_in_memory_and_the_standard_streams_travel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        away = travel(capture("a, b, out", notebook(a=io.StringIO("x"), b=io.BytesIO(b"y"), out=out)))
        assert (away["a"].read(), away["b"].read(), away["out"] is out) == ("x", b"y", True)


def test_what_a_container_hides_is_blamed_on_the_container() -> None:
    with pytest.raises(NotPicklable) as caught:
        freeze(capture("rows", notebook(rows=[1, {"k": threading.Lock()}])), BufferStore(0))
    assert caught.value.name == "rows"


def test_pickling_code_that_raises_anything_is_blamed_on_its_name() -> None:
    home = notebook("class C:\n  def __reduce__(self): raise LookupError('no\\nway')\nc = C()")
    with pytest.raises(NotPicklable, match=r"'c' .*: no\n") as caught:
        freeze(capture("c", home), BufferStore(0))
    assert caught.value.name == "c"


def test_nothing_stays_pinned_after_a_failure() -> None:
    store = BufferStore(0)
    with pytest.raises(NotPicklable):
        freeze(capture("a, b", notebook(a=np.zeros(MIB), b=threading.Lock())), store)
    assert len(store) == 0


MIB = 1 << 20


def test_a_finished_future_travels_as_one_and_an_unfinished_one_is_refused_by_name() -> None:
    tile: Future[int] = Future()
    home = notebook(tile=tile, tiles=[tile])
    with pytest.raises(CaptureError, match="'tile'") as caught:
        capture("tile.result()", home)
    assert "await tile" in caught.value.hint
    with pytest.raises(CaptureError, match=r"'tiles'.*not finished"):
        freeze(capture("sum(t.result() for t in tiles)", home), BufferStore(0))
    tile.set_result(7)
    assert run("total = tile.result() + sum(t.result() for t in tiles)", home)["total"] == 14


def test_a_future_that_the_cell_itself_replaces_does_not_matter() -> None:
    assert not capture("tile = 1\ntile", notebook(tile=Future())).names


def test_names_can_be_added_left_out_or_given_by_hand() -> None:
    home = notebook("def f(): return a, b", a=1, b=2, c=3)
    assert set(capture("f(), eval('c')", home, include=["c"]).names) == {"c", "f", "a", "b"}
    assert set(capture("f()", home, automatic=False, include=["a"]).names) == {"a"}
    away = travel(capture("f()", home, exclude=["b"]))
    assert set(away) >= {"f", "a"}
    assert "b" not in away
    with pytest.raises(CaptureError, match="'nowhere'"):
        capture("1", home, include=["nowhere"])


def test_functions_leave_the_shells_names_at_home() -> None:
    home = notebook("def f(): return get_ipython, In, k", k=threading.Lock)
    away = travel(capture("f", home))
    assert away["f"].__globals__ is away
    assert not {"get_ipython", "In"} & set(away)


def test_the_listing_has_names_types_sizes_and_trouble() -> None:
    home = notebook("import math\ndef f(): return table", table=np.zeros((100, 10)), lock=threading.Lock())
    rows = {row.name: row for row in listing(capture("f(), math.pi, lock", home))}
    assert (rows["table"].type, rows["table"].used_by) == ("ndarray (100, 10)", "f")
    assert rows["table"].size is not None
    assert 8000 <= rows["table"].size < 8500
    assert rows["math"].type == "module"
    assert rows["f"].size is not None
    assert rows["f"].size < 2000  # its table is counted under its own name
    assert (rows["lock"].size, rows["lock"].type) == (None, "lock")
    assert "pickle" in rows["lock"].trouble


def test_listing_a_cell_copies_and_keeps_nothing() -> None:
    captured = capture("a", notebook(a=np.zeros(MIB)))
    listing(captured)
    assert "a" in repr(captured)
    assert "0." not in repr(captured)


# -- names in strings --


def _in_strings(cell: str, home: dict[str, Any], *, values: bool = True) -> set[str]:
    captured = capture_cell(cell, home, transform=transform, values_in_strings=values)
    return {name for name, by in captured.used_by.items() if by == "a string of the cell"}


def test_what_strings_mention_travels_if_it_is_small_or_code() -> None:
    home: dict[str, Any] = {"lim": 1, "text": "x", "big": bytes(10**6), "math": math, "f": open, "rows": [1, 2]}
    exec("def lg(v): return other + v\nclass C: pass\nother = 3", home)
    home["lg"].__module__ = home["C"].__module__ = "__main__"
    cell = '"""math lim"""\ndf.query("a > @lim and text in rows"); eval("lg(big, C, f) + math.pi")'
    assert _in_strings(cell, home) == {"lim", "text", "rows", "lg", "C", "math"}
    assert _in_strings(cell, home, values=False) == {"lg", "C", "math"}, "no value goes to others unasked"
    assert capture_cell(cell, home, transform=transform).used_by["other"] == "lg", "what that code uses comes along"


@pytest.mark.parametrize(
    ("before", "cell"),
    [
        ("", "import doctest\ndoctest.testmod()"),
        ("import doctest as d", "d.testmod(verbose=False)"),
        ("from doctest import testmod", "testmod()"),
        ("import unittest", "unittest.main(argv=['x'], exit=False)"),
        ("from unittest import main as run", "run(argv=['x'], exit=False)"),
    ],
)
def test_a_cell_that_runs_the_notebooks_tests_has_its_functions_and_classes(before: str, cell: str) -> None:
    home = notebook(f"{before}\ndef f(): return g\nclass C: pass\ng = 5\nother = 1", lock=threading.Lock())
    home |= {"bad": notebook("def bad(): return lock", lock=home["lock"])["bad"]}
    found = set(capture(cell, home).names)
    assert {"f", "C", "g"} <= found
    assert not {"other", "bad", "lock"} & found
    assert "f" not in capture("1 + 1", home).names


def test_a_word_in_a_string_keeps_no_cell_from_being_sent() -> None:
    home: dict[str, Any] = {"lock": threading.Lock()}
    exec("def f(): return lock", home)
    home["f"].__module__ = "__main__"
    assert _in_strings("print('f of lock')", home) == set()
    assert _in_strings("f'{1} lim'", {"lim": 2}) == {"lim"}
    assert _in_strings(repr("x " * 60_000), {"x": 2}) == set(), "a long text is data"


def test_a_module_that_only_a_string_mentions_may_be_missing_there() -> None:
    module = types.ModuleType("nowhere_at_all")
    sys.modules["nowhere_at_all"] = module
    try:
        store = BufferStore(1 << 20)
        packed = make_cell("x = 'nw'", {"nw": module}, store, transform=transform).packed
    finally:
        del sys.modules["nowhere_at_all"]
    there = unpack(packed.segments, packed.inline, {})
    with pytest.raises(AttributeError):
        there["nw"].anything


def test_a_module_imported_for_its_effects_goes_with_a_cell_that_imports_from_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "birds_of_tests"
    (package / "more").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "more" / "__init__.py").write_text("")
    (package / "enable_owls.py").write_text("import birds_of_tests\nbirds_of_tests.owls = 3\n")
    (package / "tools.py").write_text("def fly(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    home = notebook("from birds_of_tests import enable_owls, more, tools\nimport json.decoder as decoder")
    try:
        assert list(capture("from birds_of_tests import owls", home).names) == ["enable_owls"]
        assert list(capture("import birds_of_tests.tools as t", home).names) == ["enable_owls"]
        assert not capture("import json", home).names
        assert not capture("1", home).names
    finally:
        for name in [name for name in sys.modules if name.startswith("birds_of_tests")]:
            del sys.modules[name]
