"""A notebook's futures, listed, waited for and cancelled; and options of cells, in a real kernel with two workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernels import Notebook, connected


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with connected(2) as one:
        one.done("cluster.wait_for_workers(2, 60)")
        yield one


@pytest.fixture
def nb(shared: Notebook) -> Notebook:
    shared.forget()
    shared.done("_ = [globals().pop(name, None) for name in ('tile', 'other', 'many', 'late')]")
    return shared


def listed(nb: Notebook, line: str = "") -> str:
    cell = nb.run(f"%p2p_futures {line}")
    assert cell.error is None, cell.traceback
    return cell.shown


def test_futures_are_listed_with_their_names_and_states(nb: Notebook) -> None:
    nb.run("%%p2p tile --label <b>label</b> --on worker-2\n6 * 7")
    nb.done("many = [cluster.submit(abs, -n) for n in range(2)]\ntile.result(), [each.result() for each in many]")
    cell = nb.run("%p2p_futures")
    (display,) = cell.of("display_data")
    text, html = display["data"]["text/plain"], display["data"]["text/html"]
    assert "3 of 3 futures over." in text
    assert "tile" in text
    assert "many[1]" in text
    assert "done on worker-2  worker-2" in text
    assert "&lt;b&gt;label" in html
    assert "<b>label" not in html


def test_without_futures_the_list_says_how_to_make_one(nb: Notebook) -> None:
    assert "no futures here" in listed(nb)


def test_futures_are_cancelled_by_name_or_all(nb: Notebook) -> None:
    nb.done("import time\ntile = cluster.submit(time.sleep, 600)\nmany = [cluster.submit(time.sleep, 600)] * 2")
    assert "1 task cancelled." in listed(nb, "--cancel tile")
    assert nb.run("many[0].done()").value == "False"
    assert "1 task cancelled." in listed(nb, "--cancel all")
    assert "Nothing to cancel" in listed(nb, "--cancel all")
    assert "did you mean tile?" in nb.run("%p2p_futures --cancel til").text
    assert "wants names of futures, or all" in nb.run("%p2p_futures --cancel").text
    nb.done("import concurrent.futures\nconcurrent.futures.wait([tile, *many], 60)")


def test_waiting_is_asked_for_bounded_and_interruptible(nb: Notebook, tmp_path: Path) -> None:
    go = tmp_path / "go"
    nb.done(
        "def held(go):\n    import pathlib, time\n    while not pathlib.Path(go).exists(): time.sleep(0.01)\n"
        f"tile = cluster.submit(held, {str(go)!r})\nlate = cluster.options(lazy=True).submit(abs, -3)"
    )
    assert "1 of 1 task are not over yet." in listed(nb, "--wait --timeout 0.1s")
    cell = nb.start("print('begun')\n%p2p_futures --wait tile")
    nb.until(lambda: "begun" in cell.text)
    nb.manager.interrupt_kernel()
    nb.until(lambda: cell.idle)
    assert "the tasks go on" in cell.traceback
    go.touch()
    assert "lazy: runs when" in listed(nb, "--wait")
    assert nb.run("tile.done(), late.done()").value == "(True, False)"
    listed(nb, "--wait late")
    assert nb.run("late.done(), late.result()").value == "(True, 3)"


def test_names_are_completed(nb: Notebook) -> None:
    nb.done("tile = cluster.submit(abs, -3)\nfrom IPython.core.completer import provisionalcompleter as p")
    line = "%p2p_futures --cancel ti"
    code = f"with p(): print([c.text for c in get_ipython().Completer.completions({line!r}, {len(line)})])"
    assert "'tile'" in nb.run(code).text


# --- options of cells ---


def test_a_cell_runs_on_the_worker_that_it_asks_for(nb: Notebook) -> None:
    nb.run("%%p2p --on worker-2 tile\n1")
    assert nb.run("tile.result(60), tile.worker").value == "(1, 'worker-2')"
    assert "There are worker-1, worker-2. Did you mean worker-" in nb.run("%%p2p --on workr-1 tile\n1").traceback


def test_a_cell_that_nobody_can_run_says_why_under_it(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile --tags gpu\n1")
    nb.until(lambda: "tile: waiting for a worker with tag gpu; here: worker-" in (cell.status_line or ""))
    assert "waiting for a worker with tag gpu" in listed(nb)
    nb.done("tile.cancel()")


def test_a_cell_that_raises_runs_again_and_says_so_where_its_output_stands(nb: Notebook, tmp_path: Path) -> None:
    nb.done("class Flaky(Exception): pass")
    cell = nb.run(
        f"%%p2p --retries 2 --retry-on Flaky tile\nimport pathlib\nmark = pathlib.Path({str(tmp_path)!r})\n"
        "(mark / str(len(list(mark.iterdir())))).touch()\nprint('run')\n"
        "if len(list(mark.iterdir())) < 3: raise Flaky('not yet')\n'done'"
    )
    assert nb.run("tile.result(60)").value == "'done'"
    nb.until(lambda: cell.text.count("run\n") == 3)
    assert "[retry 1 of 2 after Flaky: not yet]" in cell.text
    assert "[retry 2 of 2 after Flaky: not yet]" in cell.text


def test_a_default_of_the_session_holds_for_cells(nb: Notebook, tmp_path: Path) -> None:
    nb.done("%config P2PMagics.retries = 1")
    try:
        nb.run(f"%%p2p tile\nimport os\nopen({str(tmp_path / 'x')!r}, 'x').close() or 1/0")
        assert nb.run("type(tile.exception(60)).__name__").value == "'FileExistsError'"
    finally:
        nb.done("%config P2PMagics.retries = None")


def test_a_lazy_cell_runs_once_its_value_is_asked_for(nb: Notebook) -> None:
    nb.done("x = 5")
    cell = nb.run("%%p2p --lazy late\nprint('now')\nx * 2")
    assert cell.status_line == "late: lazy: runs when its value is asked for"
    nb.done("x = 7")
    assert nb.run("late.done(), late.state_text").value == "(False, 'lazy: runs when its value is asked for')"
    assert nb.run("await late").value == "10"
    nb.until(lambda: "now\n" in cell.text)
    nb.until(lambda: (cell.status_line or "").startswith("late: done"))


def test_a_sweep_has_one_line_and_its_futures_have_theirs(nb: Notebook) -> None:
    nb.done("%%p2p many --wait --each 'n in range(60)'\nn * n")
    (line,) = (each for each in listed(nb).splitlines() if each.startswith("many"))
    assert line.split() == ["many", "many", "60", "of", "60", "done"]
    assert "many[7]" in listed(nb, "many")
