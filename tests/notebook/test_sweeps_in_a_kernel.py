"""``%%p2p --each`` and ``--all`` at a real kernel: the line under the cell, what is bound, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernels import Notebook, connected, executed


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with connected(2) as one:
        yield one


@pytest.fixture
def nb(shared: Notebook) -> Notebook:
    shared.forget()
    return shared


def test_a_sweep_returns_at_once_and_its_line_says_how_far_it_is_and_what_failed(nb: Notebook, tmp_path: Path) -> None:
    go = tmp_path / "go"
    nb.done("alphas = [0, 1, 2, 4]")
    cell = nb.done(
        '%%p2p scores --each "alpha in alphas"\nimport pathlib, time\nprint("noise")\n'
        f"while alpha > 1 and not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n8 / alpha"
    )
    nb.until(lambda: "1 of 4 done, 1 failed" in (cell.status_line or ""))
    assert nb.run("len(scores), scores.done(), scores is _p2p, scores.settings[1]").value == (
        "(4, False, True, {'alpha': 1})"
    )
    go.touch()
    nb.until(lambda: "3 of 4 done" in (cell.status_line or ""))
    first, *errors = (cell.status_line or "").split("\n")
    assert first.startswith("scores: 3 of 4 done, 1 failed in ")
    assert errors == ["  alpha=0: ZeroDivisionError: division by zero"]
    html = cell.of("update_display_data")[-1]["data"]["text/html"]
    assert "alpha=0: ZeroDivisionError" in html
    assert "noise" not in cell.text
    assert nb.run("scores[2].replay()").text == "noise\n"
    assert "division by zero" in nb.run("scores.result()").traceback
    assert nb.run("import p2p_ipython; p2p_ipython.gather(scores, errors='skip')").value == "[8.0, 4.0, 2.0]"


def test_a_cell_that_waits_gives_the_list(nb: Notebook) -> None:
    cell = nb.done('%%p2p grid --each "a in range(2)" --each "b, c in zip(\'xy\', [1, 2])" --wait\na, b, c')
    assert cell.value == "[(0, 'x', 1), (0, 'y', 2), (1, 'x', 1), (1, 'y', 2)]"
    assert (cell.status_line or "").startswith("grid: 4 of 4 done in ")
    assert nb.run("await grid").value == cell.value


def test_a_cell_runs_once_on_each_worker(nb: Notebook) -> None:
    cell = nb.done("%%p2p pids --all --wait\nimport os; os.getpid()")
    assert nb.run("len(set(pids.result())), pids.settings").value == (
        "(2, [{'worker': 'worker-1'}, {'worker': 'worker-2'}])"
    )
    assert cell.value is not None


def test_an_interrupt_cancels_a_sweep_that_is_waited_for(nb: Notebook) -> None:
    cell = nb.start('%%p2p long --each "n in range(5)" --wait\nimport time; time.sleep(600)')
    nb.until(lambda: nb.cells[cell.id].of("display_data"))
    nb.manager.interrupt_kernel()
    nb.until(lambda: cell.idle)
    assert "the tasks were cancelled" in cell.traceback
    nb.until(lambda: "5 cancelled" in (cell.status_line or ""))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--each nonsense", "is no loop"),
        ('--each "n in range(3)" --bind x', "--bind doesn't go with --each"),
        ('--each "n in range(3)" --all', "don't go together"),
        ('--each "n in range(3)" --setup', "--setup takes no other option"),
        ("--each \"n in __import__('itertools').count()\"", "more than 100,000 settings"),
        ('--each "n in missing"', "name 'missing' is not defined"),
    ],
)
def test_what_makes_no_sense_is_refused(nb: Notebook, line: str, words: str) -> None:
    cell = nb.run(f"%%p2p sweep {line}\n1")
    assert words in (cell.shown if cell.error is None else cell.traceback)
    assert "NameError" in nb.run("sweep").traceback


def test_a_dry_run_shows_what_travels_also_the_names_that_are_set(nb: Notebook) -> None:
    nb.done("k = 3")
    shown = nb.done('%%p2p --each "n in range(3)" --dry-run\nn * k').shown
    assert "n " in shown
    assert "k " in shown


def test_a_map_that_takes_long_has_a_line_and_a_quick_one_has_none(nb: Notebook, tmp_path: Path) -> None:
    nb.done("def f(n):\n import pathlib, time\n while not pathlib.Path(path).exists(): time.sleep(0.01)\n return n")
    go = tmp_path / "go"
    nb.done(f"path = {str(go)!r}")
    nb.done("list(cluster.map(abs, range(10)))")  # the workers may still be starting
    assert nb.done("quick = list(cluster.map(abs, range(10)))").status_line is None
    cell = nb.start("list(cluster.map(f, range(6)))")
    nb.until(lambda: "f: 0 of 6 done" in (cell.status_line or ""))
    go.touch()
    nb.until(lambda: cell.idle)
    assert cell.value == "[0, 1, 2, 3, 4, 5]"
    nb.until(lambda: "f: 6 of 6 done in " in (cell.status_line or ""))


def test_the_line_of_a_task_says_how_far_the_task_is(nb: Notebook, tmp_path: Path) -> None:
    go = tmp_path / "go"
    cell = nb.done(
        "%%p2p slow\nimport pathlib, time, p2p_ipython\nfor n in p2p_ipython.progress(range(8), label='steps'):\n"
        f"    time.sleep(0.11)\n    while n == 4 and not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)"
    )
    nb.until(lambda: "steps: 4 of 8" in (cell.status_line or ""))
    html = cell.of("update_display_data")[-1]["data"]["text/html"]
    assert "width: 50.0%" in html
    go.touch()
    nb.until(lambda: "done on worker-" in (cell.status_line or ""))


def test_a_program_that_executes_the_notebook_gets_a_final_line(tmp_path: Path) -> None:
    outputs = executed(
        tmp_path,
        "%load_ext p2p_ipython\n%p2p_connect --workers 1",
        '%%p2p squares --each "n in range(3)"\nn * n',
        "squares.result()",
    )
    texts = [output["data"]["text/plain"] for cell in outputs for output in cell if "data" in output]
    assert "[0, 1, 4]" in texts
    assert any(text.startswith("squares: 3 of 3 done in ") for text in texts), texts
