"""The text of the cells where code is defined travels with that code, once, and is forgotten with the task."""

from __future__ import annotations

import contextlib
import inspect
import linecache
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2p_ipython.task import sources
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import pack_result, pack_task, unpack
from tests.task.elsewhere_support import Elsewhere, frozen

CELL = "def f(x):\n    # a comment ☃\n    return 1 / x\n"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    process = Elsewhere()
    yield process
    process.close()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    known = set(linecache.cache)
    yield
    sources.forget_sources()
    for name in linecache.cache.keys() - known:
        del linecache.cache[name]


def cell(name: str, text: str = CELL, *, kept: bool = True) -> dict[str, object]:
    """Run a cell as IPython does, with its text where Python looks for it."""
    if kept:
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace: dict[str, object] = {"__name__": "__main__", "_ih": []}
    exec(compile(text, name, "exec"), namespace)
    return namespace


def test_a_function_has_its_source_on_the_worker(elsewhere: Elsewhere) -> None:
    home = cell("/tmp/ipykernel_1/2.py")
    said = elsewhere.ask(frozen("f", home), "inspect.getsource(f), f.__code__.co_filename", "import inspect")
    assert said.text == repr((CELL, "/tmp/ipykernel_1/2.py"))


def test_the_lines_of_a_traceback_and_a_warning_are_there(elsewhere: Elsewhere) -> None:
    home = cell(
        "<cell 1>", "import warnings\ndef f(x):\n    warnings.warn('careful', stacklevel=1)\n    return 1 / x\n"
    )
    code = (
        "import io, sys, traceback\nsys.stderr = io.StringIO()\ntry: f(0)\nexcept ZeroDivisionError:\n"
        "    traceback.print_exc()\nsaid, sys.stderr = sys.stderr.getvalue(), sys.__stderr__"
    )
    said = elsewhere.ask(frozen("f, warnings", home), "said", code).text
    assert "<cell 1>:3: UserWarning: careful\\n  warnings.warn(" in said
    assert "line 4, in f\\n    return 1 / x\\n" in said


def test_a_text_travels_once_for_all_code_of_a_cell_and_only_with_its_code() -> None:
    text = CELL + "".join(f"def f{n}(x): return f(x) + {n}\n" for n in range(20)) + "'only once'\n"
    home = cell("<cell 2>", text)
    cell("<cell 3>", "'unused'\n" + CELL)
    packed = frozen("f1, f2, f3", home)
    assert packed.inline.count(b"only once") == 1
    assert b"unused" not in packed.inline


def test_a_longer_text_is_a_buffer_that_goes_to_a_worker_once() -> None:
    home = cell("<cell 4>", CELL + "# " + "x" * 5000)
    first, second = (pack_task((home["f"], (each,)), BufferStore(1 << 20)) for each in (1, 2))
    (ref,) = first.large
    assert second.large.keys() == {ref}
    assert len(first.inline) < 1500
    function, _ = unpack(first.segments, first.inline, first.large)
    assert inspect.getsource(function) == CELL
    assert not pack_result(home["f"]).large  # a result's buffers have no hash


def test_a_text_that_is_too_long_stays_and_its_code_travels() -> None:
    home = cell("<cell 5>", CELL + "# " + "x" * (1 << 20))
    packed = pack_task(home["f"], BufferStore(1 << 30))
    assert packed.size < 2000
    assert unpack(packed.segments, packed.inline, packed.large)(2) == 0.5


def test_code_of_no_known_text_keeps_the_name_that_says_so() -> None:
    packed = pack_result(cell("<string>", kept=False)["f"])
    assert unpack(packed.segments, packed.inline, {}).__code__.co_filename == "<string>"


def test_a_script_says_its_name_and_not_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(CELL, encoding="utf-8")
    packed = pack_result(cell(str(path), kept=False)["f"])
    assert str(tmp_path).encode() not in packed.inline
    function = unpack(packed.segments, packed.inline, {})
    assert (function.__code__.co_filename, inspect.getsource(function)) == ("mine.py", CELL)


def test_the_text_of_a_library_stays() -> None:
    packed = pack_result(contextlib.contextmanager(cell("<cell 5>")["f"]))  # type: ignore[arg-type]
    assert b"# a comment" in packed.inline
    assert len(packed.inline) < 4000


def test_a_cell_that_has_been_run_again_travels_as_it_is_now() -> None:
    cell("<cell 6>")
    home = cell("<cell 6>", CELL + "# newer\n")
    assert b"# newer" in pack_result(home["f"]).inline


def test_a_result_changes_no_text_that_is_there() -> None:
    sources.arrive("<cell 7>", "", "", b"as it was\n")
    sources.arrive("<cell 7>", "", "", b"another\n")
    assert linecache.getline("<cell 7>", 1) == "as it was\n"


def test_texts_are_forgotten() -> None:
    sources.arrive("<cell 8>", "Cell", "In[8]", b"text\n")
    assert sources.name_for_people("<cell 8>") == ("Cell", "In[8]")
    sources.forget_sources()
    assert (linecache.getline("<cell 8>", 1), sources.name_for_people("<cell 8>")) == ("", None)


def test_a_function_that_has_arrived_travels_on_with_its_text(elsewhere: Elsewhere) -> None:
    home = cell("<cell 9>")
    brought = elsewhere.ask(frozen("f", home), "f").value()
    del linecache.cache["<cell 9>"]
    again = elsewhere.ask(frozen("f", home), "f").value()
    assert inspect.getsource(brought) == CELL
    assert again.__code__.co_filename == "<cell 9>"
