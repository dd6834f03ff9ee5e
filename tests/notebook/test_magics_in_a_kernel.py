"""A notebook's user at a real kernel and a real personal cluster: what each cell shows, and where."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernels import Notebook, connected, executed, notebook


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with connected(2) as one:
        yield one


@pytest.fixture
def nb(shared: Notebook) -> Notebook:
    shared.forget()
    return shared


def test_a_cell_returns_at_once_and_its_output_lands_under_it_live(nb: Notebook, tmp_path: Path) -> None:
    go = tmp_path / "go"
    cell = nb.run(
        f"%%p2p tile\nimport pathlib, sys, time\nprint('first')\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\nprint('second', file=sys.stderr)\n6 * 7"
    )
    nb.until(lambda: "first" in cell.text)  # it is over and its task is not
    nb.until(lambda: nb.run("tile.running()").value == "True")  # it says so after a moment, maybe after its output
    assert nb.run("tile.done(), tile is _p2p, tile.running()").value == "(False, True, True)"
    later = nb.run(f"open({str(go)!r}, 'w').close()\ntile.result()")
    assert later.value == "42"
    nb.until(lambda: "second\n" in cell.text)
    said = itertools.groupby(cell.of("stream"), key=lambda content: content["name"])  # it may come in pieces
    assert [(name, "".join(content["text"] for content in part)) for name, part in said] == [
        ("stdout", "first\n"),
        ("stderr", "second\n"),
    ]
    assert later.text == ""


def test_the_line_under_a_cell_says_where_its_task_is_and_how_it_ended(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile\n1")
    nb.until(lambda: "done" in (cell.status_line or ""))
    assert (cell.status_line or "").startswith("tile: done on worker-")
    failed = nb.run("%%p2p\n1/0")
    nb.until(lambda: "failed" in (failed.status_line or ""))
    number = failed.of("execute_input")[0]["execution_count"]
    assert (failed.status_line or "").startswith(f"In[{number}]: failed")


def test_a_label_is_escaped_where_it_is_html(nb: Notebook) -> None:
    cell = nb.run("%%p2p --label <b>\n1")
    html = cell.of("display_data")[0]["data"]["text/html"]
    assert "&lt;b&gt;: submitted" in html
    assert "<b>" not in html


def test_a_future_can_be_awaited_and_used_by_the_next_cell(nb: Notebook) -> None:
    nb.run("x = 5\ndef square(y): return y * y")
    nb.run("%%p2p a\nsquare(x)")
    assert nb.run("await a").value == "25"
    nb.run("%%p2p b\na.result() + await a")
    assert nb.run("b.result(60)").value == "50"


def test_a_line_gives_a_future_of_an_expression(nb: Notebook) -> None:
    nb.run("k = 20")
    nb.run("f = %p2p k + 1")
    assert nb.run("f.result()").value == "21"


def test_rich_displays_land_under_the_cell(nb: Notebook) -> None:
    cell = nb.run(
        "%%p2p plot\nfrom IPython.display import HTML, display\n"
        "h = display(HTML('<i>one</i>'), display_id=True)\nh.update(HTML('<i>two</i>'))"
    )
    nb.run("plot.result()")
    nb.until(lambda: any("two" in c["data"].get("text/html", "") for c in cell.of("update_display_data")))
    assert any(c["data"].get("text/html") == "<i>one</i>" for c in cell.of("display_data"))


def test_clearing_the_output_keeps_the_line_under_the_cell(nb: Notebook) -> None:
    for wait in (True, False):
        cell = nb.run(f"%%p2p task\nfrom IPython.display import clear_output\nclear_output(wait={wait})\nprint('x')")
        nb.run("task.result()")
        nb.until(lambda cell=cell: "x" in cell.text and "done" in (cell.status_line or ""))
        kinds = [m["msg_type"] for m in cell.messages if m["msg_type"] not in ("status", "execute_input")]
        assert kinds.index("clear_output") < kinds.index("display_data", 1) < kinds.index("stream")


def test_waiting_shows_output_and_value_as_the_cells_own(nb: Notebook) -> None:
    cell = nb.run("%%p2p --wait\nprint('hello')\n6 * 7")
    assert (cell.text, cell.value) == ("hello\n", "42")
    assert nb.run("%%p2p --wait\n6 * 7;").value is None


def test_a_long_wait_says_what_it_waits_for(nb: Notebook, tmp_path: Path) -> None:
    go = tmp_path / "go"
    cell = nb.start(
        f"%%p2p a --wait\nimport pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)"
    )
    nb.until(lambda: (cell.status_line or "").startswith("a: on worker-"))
    go.touch()
    nb.until(lambda: cell.idle and "done" in (cell.status_line or ""))


def test_waiting_shows_its_line_above_the_output_with_the_time_since_the_submission(nb: Notebook) -> None:
    cell = nb.run("%%p2p a --wait\nimport time\ntime.sleep(1.5)\nprint('x')\n1")
    kinds = [m["msg_type"] for m in cell.messages]
    assert kinds.index("display_data") < kinds.index("stream")
    took = re.fullmatch(r"a: done on worker-\d in ([\d.]+) s", cell.status_line or "")  # it is final when the cell ends
    assert took is not None, cell.status_line
    assert float(took[1]) >= 1.5


def test_a_syntax_error_shows_its_line(nb: Notebook) -> None:
    cell = nb.run("%%p2p\nif 1:\n    return 5")
    assert cell.error is not None
    assert "return 5" in cell.traceback


def test_a_remote_error_shows_the_remote_cell_and_not_the_machinery(nb: Notebook) -> None:
    waited = nb.run("%%p2p --wait\ndef g():\n    return 1 / 0\ng()")
    later = nb.run("_p2p.result()")
    for cell in (waited, later):
        assert cell.error is not None
        assert cell.error["ename"] == "ZeroDivisionError"
        shown = "\n".join(cell.error["traceback"])
        assert "line 2" in shown
        assert "p2p_ipython" not in shown
        assert "concurrent" not in shown
    assert nb.run("try: _p2p.result()\nexcept ZeroDivisionError as e: print(e)").text == "division by zero\n"


def test_a_function_of_the_notebook_has_its_lines_on_the_worker(nb: Notebook) -> None:
    nb.run("def inner(x):\n    # a comment\n    return 1 / x\nclass A:\n    def m(self):\n        return inner(0)")
    at_home = nb.run("A().m()").traceback
    assert re.search(r"Cell In\[\d+\], line 3, in inner\(x\)\n.*\n.*\n----> 3     return 1 / x", at_home)
    away = nb.run("%%p2p --wait\nA().m()").traceback
    assert re.sub(r"In\[\d+\]", "In[]", away) == re.sub(r"In\[\d+\]", "In[]", at_home)
    call = nb.run("cluster.submit(A().m).result()").traceback
    assert "Task A.m, line 1\n----> 1 m()\n" in call
    assert call.partition("Cell In")[2] == at_home.partition("Cell In")[2].partition("Cell In")[2]


def test_a_function_that_interact_shows_travels(nb: Notebook) -> None:
    nb.run("import ipywidgets\n@ipywidgets.interact(x=(0, 10))\ndef f(x=3): return x * 2")
    assert nb.run("%%p2p --wait\nf(4)").value == "8"
    used = nb.run("%%p2p --wait\nf.widget").error
    assert used is not None
    assert "'widget' (interactive) can't travel, and the code mentions it" in used["evalue"]


def test_help_doctests_and_questions_work_on_the_worker(nb: Notebook) -> None:
    nb.run('import doctest, inspect\ndef f(x):\n    """Twice.\n\n    >>> f(2)\n    5\n    """\n    return x * 2')
    for code in ("help(f)", "doctest.run_docstring_examples(f, globals())", "print(inspect.getsource(f))"):
        assert nb.run(f"%%p2p --wait\n{code}").text == nb.run(code).text != ""
    assert "Twice." in nb.run("%%p2p --wait\nf?").text
    assert "return" in nb.run("%%p2p --wait\nf??").text
    own = "import doctest\ndef g():\n    '''\n    >>> g()\n    1\n    '''\n    return 1\ndoctest.testmod()"
    assert nb.run(f"%%p2p --wait\n{own}").value == nb.run(own).value == "TestResults(failed=1, attempted=2)"


def test_interrupting_a_wait_cancels_the_task(nb: Notebook) -> None:
    cell = nb.start("%%p2p --wait --label slow\nimport time\nprint('it runs')\ntime.sleep(600)")
    nb.until(lambda: "it runs" in cell.text)
    nb.manager.interrupt_kernel()
    nb.until(lambda: cell.idle)
    assert cell.error is not None
    assert "".join(cell.error["traceback"]).endswith("the task was cancelled")
    assert nb.run("_p2p.cancelled()").value == "True"
    assert nb.run("%%p2p --wait\n1").value == "1"


def test_joblib_knows_the_cluster_and_an_interrupt_ends_its_calls(nb: Notebook) -> None:
    nb.run("import joblib, time\ndef square(n): print('seen'); return n * n")
    nb.run("def slow(n): print('it runs'); time.sleep(600)")
    within = "with joblib.parallel_config('p2p'):\n    {}joblib.Parallel()(joblib.delayed({})(n) for n in range(6))"
    cell = nb.run(f"{within.format('found = ', 'square')}\nfound")
    assert cell.value == "[0, 1, 4, 9, 16, 25]"
    nb.until(lambda: cell.text.count("seen\n") == 6)  # also of those that were sent later, in another thread
    cell = nb.start(within.format("", "slow"))
    nb.until(lambda: "it runs" in cell.text)
    nb.manager.interrupt_kernel()
    nb.until(lambda: cell.idle)
    assert cell.error is not None
    assert cell.error["ename"] == "KeyboardInterrupt"
    nb.until(lambda: nb.run("cluster._core.idle").value == "True")
    assert nb.run("%%p2p --wait\n1").value == "1"


def test_a_second_interrupt_of_a_wait_returns_at_once_and_the_task_is_stopped_all_the_same(nb: Notebook) -> None:
    stubborn = (
        "import time\nprint('it runs')\nwhile True:\n    try: time.sleep(600)\n    except BaseException: print('no')"
    )
    cell = nb.start(f"%%p2p --wait --label slow\n{stubborn}")
    nb.until(lambda: "it runs" in cell.text)
    nb.manager.interrupt_kernel()
    nb.until(lambda: "stopping on worker-" in (cell.status_line or ""))
    assert not cell.idle
    nb.manager.interrupt_kernel()
    nb.until(lambda: cell.idle)
    assert cell.error is not None
    last = cell.error["traceback"][-1]
    assert last.endswith(("the task was cancelled", ", and cancelled once it has ended there"))
    assert nb.run("import concurrent.futures\nconcurrent.futures.wait([_p2p], 60)\n_p2p.cancelled()").value == "True"


def test_interrupting_a_result_ends_the_wait_only_and_says_how_to_stop_the_task(nb: Notebook) -> None:
    started = nb.run("%%p2p slow\nimport time\nprint('it runs')\ntime.sleep(600)")
    nb.until(lambda: "it runs" in started.text)
    cell = nb.start("print('here')\nslow.result()")
    nb.until(lambda: "here" in cell.text)
    nb.manager.interrupt_kernel()
    nb.until(lambda: cell.idle)
    assert cell.error is not None
    assert cell.error["ename"] in ("Interrupted", "KeyboardInterrupt")
    assert "slow goes on (on worker-" in cell.error["traceback"][-1]
    assert cell.error["traceback"][-1].endswith("; its cancel() stops it")
    assert nb.run("slow.done(), slow.cancel()").value == "(False, True)"


def test_a_timeout_is_an_option_of_a_cell(nb: Notebook) -> None:
    error = nb.run("%%p2p --wait --timeout 2s\nimport time\ntime.sleep(600)").error
    assert error is not None
    assert error["ename"] == "TaskTimeout"
    assert "it ran for 2 s, which is its timeout" in error["traceback"][0]
    wrong = nb.run("%%p2p --timeout soon\n1").error
    assert wrong is not None
    assert "'soon' is not a duration such as 90s, 30m, 2h or 14d" in wrong["evalue"]


def test_what_can_not_travel_is_said_before_anything_is_sent(nb: Notebook) -> None:
    nb.run("import threading\nlock = threading.Lock()\nn = len(cluster._core.store)\n_p2p = None")
    expected = {
        "%%p2p\nlock": ("NotPicklable", "'lock'"),
        "%%p2p\n# nothing": ("CaptureError", "empty"),
        "%%p2p\nx = = 1": ("SyntaxError", "invalid syntax"),
        "%%p2p --globals +nowhere\n1": ("CaptureError", "'nowhere'"),
        "%%p2p 3x\n1": ("UsageError", "3x"),
        "%%p2p a b\n1": ("UsageError", "b"),
        "%p2p": ("UsageError", "expression"),
    }
    for source, (name, words) in expected.items():
        cell = nb.run(source)
        if name == "UsageError":
            assert words in cell.text
            continue
        assert cell.error is not None, source
        assert cell.error["ename"] == name
        assert cell.status_line is None
        lines = "\n".join(cell.error["traceback"])
        assert words in lines
        assert "p2p_ipython" not in lines
    assert nb.run("_p2p is None, len(cluster._core.store) == n").value == "(True, True)"


def test_a_dry_run_lists_names_types_and_sizes_and_sends_nothing(nb: Notebook) -> None:
    nb.run("import threading\nlock = threading.Lock()\nrows = [0] * 1000\ndef f(): return rows, lock\n_p2p = None")
    cell = nb.run("%%p2p --dry-run x\nf()")
    (content,) = cell.of("display_data")
    text = content["data"]["text/plain"]
    assert "Nothing was sent" in text
    assert all(name in text for name in ("f", "rows", "list", "2.", "kB", "lock", "can't travel"))
    assert "<table>" in content["data"]["text/html"]
    assert nb.run("_p2p is None, 'x' in dir()").value == "(True, False)"


def test_cached_and_dispatching_functions_travel(nb: Notebook) -> None:
    nb.run(
        "import functools\n@functools.cache\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
        "@functools.singledispatch\ndef show(x): return 'other'\n@show.register\ndef show_int(x: int): return fib(x)\n"
        "class A:\n  @functools.cached_property\n  def p(self): return show(20)"
    )
    assert nb.run("%%p2p --wait\nfib(30), show(10), show('a'), A().p").value == "(832040, 55, 'other', 6765)"
    assert nb.run("cluster.submit(fib, 20).result(), list(cluster.map(show, [1, 2, 'a']))").value == (
        "(6765, [1, 1, 'other'])"
    )
    assert nb.run("fib.cache_info().currsize").value == "0"


def test_names_can_be_added_and_left_out(nb: Notebook) -> None:
    nb.run("a, b = 1, 2")
    assert nb.run("%%p2p --wait --globals +a -b\neval('a'), 'b' in globals() and b").value == "(1, False)"


def test_the_status_is_a_table(nb: Notebook) -> None:
    nb.until(lambda: nb.run("len(cluster.status().members)").value == "2")
    (content,) = nb.run("%p2p_status").of("display_data")
    assert "worker-1" in content["data"]["text/plain"]
    assert "<table>" in content["data"]["text/html"]


def test_connecting_ends_with_one_line_that_says_so() -> None:
    with notebook() as one:
        cell = one.run("%load_ext p2p_ipython\n%p2p_connect --workers 1")
        assert (cell.status_line or "").startswith("Connected: a personal cluster")
        assert cell.text == ""
        (first, *_) = cell.of("display_data")
        assert first["data"]["text/plain"].endswith("…")


def test_connecting_again_keeps_the_cluster_and_may_name_it(nb: Notebook) -> None:
    nb.run("before = cluster")
    assert nb.run("%p2p_connect --workers 2 --as after").text.startswith("Still connected")
    assert nb.run("after is before").value == "True"
    assert nb.run("%p2p_connect --as named").text.startswith("Still connected")
    assert nb.run("named is before, named.closed").value == "(True, False)"
    assert "can't be the name of a cluster" in nb.run("%p2p_connect --as 1st").text


def test_the_cluster_from_the_magic_takes_calls_too(nb: Notebook) -> None:
    assert nb.run("list(cluster.map(pow, [2, 3], [3, 2]))").value == "[8, 9]"


def test_before_connecting_it_says_how_to_and_after_unloading_all_is_gone(tmp_path: Path) -> None:
    with notebook() as one:
        one.run("%load_ext p2p_ipython")
        for source in ("%%p2p\n1", "%p2p 1", "%p2p_status"):
            cell = one.run(source)
            assert cell.error is not None
            assert cell.error["ename"] == "NotConnected"
            assert "%p2p_connect" in "\n".join(cell.error["traceback"])
        assert one.run("%p2p_disconnect").text == "Not connected.\n"
        assert one.run("%p2p_connect --workers 1 --as c").error is None
        assert one.run("%%p2p --wait\n1").value == "1"
        assert one.run("%unload_ext p2p_ipython").error is None
        assert one.run("c.closed").value == "True"
        assert "not found" in one.run("%p2p_status").text
        assert one.run("%load_ext p2p_ipython").error is None


def test_a_notebook_that_is_executed_shows_output_where_it_waits_and_the_final_line(tmp_path: Path) -> None:
    _, (line,), waiting = executed(
        tmp_path,
        "%load_ext p2p_ipython\n%p2p_connect --workers 1",
        "%%p2p tile\nimport time\ntime.sleep(1)\nprint('from afar')\n42",
        # What the loop does between the value and the line: there is no other cell in which the line could come.
        "import time\ntile.add_done_callback(lambda _future: time.sleep(0.5))\ntile.result()",
    )
    assert "".join(o["text"] for o in waiting if o["output_type"] == "stream") == "from afar\n"
    assert [o["data"]["text/plain"] for o in waiting if o["output_type"] == "execute_result"] == ["42"]
    assert line["data"]["text/plain"].startswith("tile: done on worker-1 in ")
