"""``%p2p_connect inline`` in a real kernel: cells run in it, in a namespace of their own, and a debugger sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.notebook.kernels import Notebook, notebook


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with notebook() as one:
        one.done("%load_ext p2p_ipython")
        assert "Connected: inline, in this kernel" in one.done("%p2p_connect inline --as cluster").shown
        yield one


@pytest.fixture
def nb(shared: Notebook) -> Notebook:
    shared.forget()
    return shared


def test_a_cell_runs_at_once_in_a_namespace_of_its_own(nb: Notebook) -> None:
    nb.done("import os, random; x = [1]; before = random.getstate(), os.getcwd(), dict(os.environ)")
    cell = nb.done("%%p2p tile\nimport os\nx.append(2); y = 5\nos.chdir('/'); os.environ['Z'] = ''\nprint('here')\nx")
    nb.until(lambda: "done" in (cell.status_line or ""))
    assert cell.text.startswith("here\n")
    assert nb.run("tile.done(), tile.result(), x, 'y' in globals(), tile['y']").value == "(True, [1, 2], [1], False, 5)"
    assert nb.run("before == (random.getstate(), os.getcwd(), dict(os.environ))").value == "True"


def test_later_changes_do_not_reach_a_task_that_runs_again(nb: Notebook) -> None:
    nb.done("n = 1")
    nb.done("%%p2p tile\nn")
    assert nb.run("n = 2\ntile.again().result()").value == "1"


def test_the_value_of_a_cell_that_waits_is_its_own(nb: Notebook) -> None:
    assert nb.run("%%p2p --wait\nimport asyncio\nawait asyncio.sleep(0, 7)").value == "7"
    assert nb.run("%%p2p --wait\n7;").value is None


def test_displays_are_shown_and_kept(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile\nfrom IPython.display import HTML, display\ndisplay(HTML('<b>b</b>'))\n!echo shell")
    nb.until(lambda: "shell" in cell.text)
    assert [content["data"].get("text/html") for content in cell.of("display_data")][-1] == "<b>b</b>"
    assert nb.run("[each['kind'] for each in tile.outputs], tile.stdout").value == (
        "(['display_data', 'stream'], 'shell\\r\\n')"
    )
    assert nb.run("%%capture kept\ncluster.submit(print, 'x').result()").text == ""
    assert nb.run("kept.stdout").value == "'x\\n'"


def test_a_debugger_looks_at_the_frame_that_raised(nb: Notebook) -> None:
    nb.done("def divides(a):\n    b = a - 1\n    return a / (b - 41)")
    failed = nb.run("%%p2p --wait\ndivides(42)")
    assert "return a / (b - 41)" in failed.traceback
    assert failed.traceback.rstrip().endswith("ZeroDivisionError: division by zero")
    asked = nb.start("%debug", asks=True)
    for line in ("p a, b", "u", "q"):
        nb.client.get_stdin_msg(timeout=60)
        nb.client.input(line)
    nb.until(lambda: asked.idle)
    assert "(42, 41)" in asked.text
    assert "divides(42)" in re.sub(r"\x1b\[[\d;]*m", "", asked.text)


def test_a_breakpoint_stops_where_it_is(nb: Notebook) -> None:
    cell = nb.start("%%p2p tile\nm = 6\nimport pdb; pdb.set_trace()\nm * 7", asks=True)
    for line in ("p m + 1", "c"):
        nb.client.get_stdin_msg(timeout=60)
        nb.client.input(line)
    nb.until(lambda: cell.idle)
    assert "7\n" in cell.text
    assert nb.run("tile.result()").value == "42"


def test_an_error_of_the_notebooks_own_class_is_caught_as_one(nb: Notebook) -> None:
    nb.done("class Mine(Exception):\n    seen = 0\ndef fails():\n    Mine.seen += 1\n    raise Mine(3)")
    assert nb.run(
        "try: cluster.submit(fails).result()\nexcept Mine as error: seen = error.args\nseen, Mine.seen"
    ).value == ("((3,), 0)")


def test_an_interrupt_ends_the_task_and_the_cell(nb: Notebook) -> None:
    cell = nb.start("%%p2p --wait\nprint('begun', flush=True)\nwhile True: pass")
    nb.until(lambda: "begun" in cell.text)
    nb.manager.interrupt_kernel()
    nb.until(lambda: cell.idle)
    assert (cell.status_line or "").endswith(": cancelled")
    assert nb.run("cluster.submit(abs, -1).result()").value == "1"


def test_the_panel_and_the_status_say_inline(nb: Notebook) -> None:
    assert "inline  here" in nb.done("%p2p_status").shown
    assert "inline: connected" in nb.done("%p2p_panel").shown


def test_local_is_a_personal_cluster() -> None:
    with notebook() as one:
        one.done("%load_ext p2p_ipython")
        assert "Connected: a personal cluster on this machine" in one.done("%p2p_connect local --workers 1").shown
        assert "Still connected" in one.done("%p2p_connect --workers 1").shown
        cell = one.done("%%p2p --wait\nget_ipython().run_line_magic('load_ext', 'p2p_ipython')\n"
                        "get_ipython().run_line_magic('p2p_connect', 'bob/any')\n"
                        "get_ipython().run_cell_magic('p2p', '--wait', '6 * 7')")  # fmt: skip
        assert cell.value == "42"
        assert "the one slot that the task has" in cell.text
