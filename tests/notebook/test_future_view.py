"""What a cell shows whose value is a future, what it says of output and warnings: a real kernel and a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernels import Notebook, connected


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with connected(1) as one:
        yield one


@pytest.fixture
def nb(shared: Notebook) -> Notebook:
    shared.forget()
    return shared


def test_a_future_that_runs_is_shown_with_a_line_that_follows_it(nb: Notebook, tmp_path: Path) -> None:
    go = tmp_path / "go"
    nb.done(f"%%p2p --label <b>slow</b> slow\nimport pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): "
            "time.sleep(0.01)")  # fmt: skip
    cell = nb.done("slow")
    assert (cell.value or "").startswith("<Future <b>slow</b>: ")
    nb.until(lambda: "on worker-1" in (cell.status_line or ""))
    go.touch()
    nb.until(lambda: (cell.status_line or "").startswith("<b>slow</b>: done on worker-1 in "))
    pages = [each["data"]["text/html"] for each in (*cell.of("display_data"), *cell.of("update_display_data"))]
    assert all("&lt;b&gt;slow&lt;/b&gt;" in page for page in pages)


def test_a_future_that_is_over_is_shown_with_its_outcome(nb: Notebook) -> None:
    nb.run("%%p2p --wait bad\n1/0")
    nb.done("%%p2p --wait good\n1")
    shown = {name: nb.done(name).of("execute_result")[0]["data"] for name in ("bad", "good")}
    assert shown["bad"]["text/plain"] == "<Future bad: failed on worker-1>"
    assert "ZeroDivisionError: division by zero</span>" in shown["bad"]["text/html"]
    assert "good: done on worker-1 in " in shown["good"]["text/html"]


def test_output_is_shown_when_the_cell_says_so(nb: Notebook) -> None:
    source = "print('one')\nprint('two')\n3"
    for way, pieces in (("end", ["one\ntwo\n"]), ("off", [])):
        cell = nb.done(f"%%p2p --wait --stdout {way} f\n{source}")
        assert cell.value == "3"
        assert [each["text"] for each in cell.of("stream")] == pieces
        assert nb.done("f.replay()").text == "one\ntwo\n"
    wrong = nb.run(f"%%p2p --stdout loud\n{source}")
    assert "stdout is 'loud', which can't be\nGive 'live', 'end' or 'off'" in wrong.traceback


def test_a_warning_is_shown_once_under_its_cell_and_recorded_with_the_value(nb: Notebook) -> None:
    cell = nb.done("%%p2p f\nimport warnings\nwarnings.warn('careful')\n3")
    asked = nb.done(
        "import warnings\nwith warnings.catch_warnings(record=True) as caught: value = f.result()\n"
        "value, [str(each.message) for each in caught]"
    )
    assert asked.value == "(3, ['careful'])"
    assert asked.text == ""
    nb.until(lambda: "UserWarning: careful" in cell.text)
    assert cell.text.count("UserWarning: careful") == 1
    assert nb.done("%%p2p f\nimport warnings\nwarnings.warn('careful')\n3").error is None
    assert nb.done("f.result()").text == ""


def test_records_of_the_loggers_that_the_notebook_chooses_are_handled_here(nb: Notebook) -> None:
    nb.done("import logging\nkept = []\nhandler = logging.Handler()\nhandler.emit = kept.append\n"
            "logging.getLogger('mine').addHandler(handler)\n%config P2PMagics.relay_loggers = ['mine']")  # fmt: skip
    cell = nb.done("%%p2p --wait\nimport logging\nlogging.getLogger('mine').warning('said %d', 5)")
    assert nb.done("[(each.getMessage(), each.p2p_worker) for each in kept]").value == "[('said 5', 'worker-1')]"
    assert "said" not in cell.text
    nb.done("%config P2PMagics.relay_loggers = []")
