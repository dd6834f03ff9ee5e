"""``%%p2p --setup``: a cell that each runner runs before its first task, at a real kernel and its personal cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernels import Notebook, connected


@pytest.fixture(scope="module")
def nb() -> Iterator[Notebook]:
    with connected(2) as one:
        yield one


LOOK = """
def look(_=0):
    import decimal, os, math, time
    time.sleep(0.05)
    found = os.environ.get("SET_UP"), str(decimal.Decimal(1) / 3), getattr(math, "marked", None), os.getpid()
    os.environ["SET_UP"] = "by a task"
    decimal.getcontext().prec = 9
    return found
"""


def test_it_runs_once_in_each_runner_and_what_tasks_change_is_undone_to_it(nb: Notebook, tmp_path: Path) -> None:
    nb.done(f"{LOOK}\nplace, digits = {str(tmp_path)!r}, 4")
    said = nb.done(
        "%%p2p --setup\nimport decimal, os, math, tempfile\nos.environ['SET_UP'] = 'yes'\n"
        "decimal.getcontext().prec = digits\nmath.marked = 'too'\ntempfile.mkstemp(dir=place)"
    ).text
    assert "before your first task there" in said
    nb.done("found = list(cluster.map(look, range(8)))")
    assert nb.done("{each[:3] for each in found}").value == "{('yes', '0.3333', 'too')}"
    assert nb.done("len({each[3] for each in found})").value == str(len(list(tmp_path.iterdir())))
    assert (
        "yes 0.3333"
        in nb.done("%%p2p --wait\nimport os, decimal\nprint(os.environ['SET_UP'], decimal.Decimal(1) / 3)").text
    )
    nb.done("import os; found = cluster.submit(os.abort)")
    nb.done("found.exception(); found = list(cluster.map(look, range(8)))")  # in new runners, too
    assert nb.done("{each[:3] for each in found}").value == "{('yes', '0.3333', 'too')}"
    assert "any more" in nb.done("%p2p --setup").text
    assert nb.done("{each[:2] for each in cluster.map(look, range(8))}").value == f"{{(None, '0.{'3' * 28}')}}"


def test_tasks_fail_with_its_error_until_there_is_another(nb: Notebook) -> None:
    nb.done("%%p2p --setup\n{}['the key']")
    failed = nb.run("%%p2p --wait\n1")
    assert failed.error is not None
    assert failed.error["ename"] == "KeyError"
    assert "--setup" in "".join(failed.error["traceback"])
    assert nb.done("type(cluster.submit(abs, -1).exception()).__name__").value == "'KeyError'"
    nb.done("%%p2p --setup\n\n")
    assert nb.done("cluster.submit(abs, -1).result()").value == "1"


def test_it_takes_no_future_s_name(nb: Notebook) -> None:
    failed = nb.run("%%p2p --setup tile\n1")
    assert failed.error is None or failed.error["ename"] == "UsageError"
    assert "no future" in failed.shown + str(failed.error)


def test_what_it_tells_loggers_holds_in_all_tasks_beside_what_the_notebook_tells_its_own(nb: Notebook) -> None:
    tell = "import logging\nlogging.basicConfig(level=logging.{0}, format='{1}: %(message)s')"
    nb.done(f"%%p2p --setup\n{tell.format('INFO', 'setup')}")
    log = "import logging\nlogging.info('one'); logging.debug('two')"
    for _ in range(4):  # more than there are workers
        assert nb.done(f"%%p2p --wait\n{log}").text == "setup: one\n"
    nb.done(tell.format("DEBUG", "notebook"))
    for _ in range(4):
        assert nb.done(f"%%p2p --wait\n{log}").text == "setup: one\nsetup: two\n"
    nb.done("logging.root.handlers.clear(); logging.root.setLevel(logging.WARNING)")
    nb.done("%p2p --setup")
    assert nb.done(f"%%p2p --wait\n{log}").text == ""
