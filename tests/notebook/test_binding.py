"""What becomes of the names that a cell on the cluster binds, at a real kernel and a real personal cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.notebook.kernels import Notebook, connected


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with connected() as one:
        yield one


@pytest.fixture
def nb(shared: Notebook) -> Notebook:
    shared.forget()
    return shared


def _bound(nb: Notebook, name: str) -> bool:
    return nb.run(f"{name!r} in globals()").value == "True"


def test_names_are_bound_when_the_task_is_over_and_none_unasked(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile --wait --bind score,model\nscore, model, rest = 0.5, {'a': [1, 2]}, 3\n'value'")
    assert cell.error is None, cell.error
    assert cell.value == "'value'"
    assert nb.run("score, model").value == "(0.5, {'a': [1, 2]})"
    assert not _bound(nb, "rest")
    assert "binds score, model" in (cell.status_line or "")
    assert "has bound rest, over there (%p2p_pull rest)" in (cell.status_line or "")


def test_of_a_cell_that_fails_what_it_has_bound_by_then_is_bound(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile --wait --bind all\nimport math\nfirst = [1]\n1 / 0\nlast = 2")
    assert cell.error is not None
    assert cell.error["ename"] == "ZeroDivisionError"
    assert "Not bound" not in cell.text
    assert nb.run("first, tile['first'], math.e > 2, 'last' in globals()").value == "([1], [1], True, False)"
    nb.forget()
    cell = nb.run("%%p2p tile --bind first\nfirst = [2]\n1 / 0\nlast = 2")
    nb.until(lambda: "ZeroDivisionError" in (cell.status_line or ""))
    nb.until(lambda: _bound(nb, "first"))
    assert nb.run("try: tile['last']\nexcept ZeroDivisionError: print('as it failed')").text == "as it failed\n"


def test_all_names_of_a_module_are_bound_and_those_of_the_cell_before_them(nb: Notebook) -> None:
    nb.done("%%p2p --wait --bind all\nfrom math import *\ne = 3")
    assert nb.run("round(pi, 2), e, floor(2.5)").value == "(3.14, 3, 2)"


def test_what_cannot_be_imported_here_is_said(nb: Notebook) -> None:
    made = "import pathlib, sys, tempfile\nwith tempfile.TemporaryDirectory() as folder:\n"
    made += "    pathlib.Path(folder, 'larks.py').write_text('def sing(): pass')\n    sys.path.append(folder)\n"
    cell = nb.run(f"%%p2p --wait --bind all\n{made}    from larks import sing\nloud = 1")
    assert cell.error is None, cell.error
    assert "Not bound, because larks can't be imported here as over there: sing." in cell.text
    assert nb.run("loud").value == "1"
    assert not _bound(nb, "sing")


def test_the_line_says_which_magics_mean_the_worker(nb: Notebook) -> None:
    line = nb.run("%%p2p --wait\n%precision 3\nnames = %who_ls\n1 / 3").status_line or ""
    assert "%precision held for this task: without %%p2p it holds for the notebook" in line
    assert "%who_ls means the worker" in line
    assert "the worker, which" not in (nb.run("%%p2p --wait\n%time 7 % 4").status_line or "")


def test_names_of_a_script_are_bound(nb: Notebook) -> None:
    nb.run("from pathlib import Path\nPath('rooks.py').write_text('import math\\ncaw = math.floor(2.5)')")
    cell = nb.run("%%p2p --wait --bind all\n%run -i rooks.py and more")
    assert cell.error is None, cell.error
    assert nb.run("caw, math.floor(1.5)").value == "(2, 1)"
    cell = nb.run(
        "Path('rooks.py').unlink()\nget_ipython().run_cell_magic('p2p', '--wait --bind all', '%run rooks.py')"
    )
    assert "rooks.py" in str(cell.error) + cell.text


def test_a_file_that_the_cell_has_closed_comes_back_closed(nb: Notebook) -> None:
    cell = nb.run("%%p2p --wait --bind all\nimport os\nwith open(os.devnull, 'w') as file:\n    file.write('x')")
    assert cell.error is None, cell.error
    assert "Not bound" not in cell.text
    assert nb.run("file, file.closed").value == "(<_io.TextIOWrapper name='/dev/null' mode='w' encoding='UTF-8'>, True)"


def test_without_wait_they_are_bound_later(nb: Notebook) -> None:
    cell = nb.run("%%p2p --bind all\nimport math\nx = math.pi\nclass C:\n    y = 1\n_private = 1")
    nb.until(lambda: "done" in (cell.status_line or ""))
    nb.until(lambda: _bound(nb, "C"))
    assert nb.run("round(x, 2), C.y, math.e > 2, '_private' in globals()").value == "(3.14, 1, True, False)"


def test_the_line_says_which_names_stay_and_pull_gets_them(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile --wait\nimport os\nsmall = list(range(5))\nlarge = bytes(10**6)\n_hidden = 1")
    assert "has bound small, large, over there (%p2p_pull small)" in (cell.status_line or "")
    assert nb.run("%p2p_pull small").error is None
    assert nb.run("small, tile['small'], tile.names").value == (
        "([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], ('small', 'large'))"
    )
    error = nb.run("%p2p_pull small,large from tile").error
    assert error is not None
    assert error["ename"] == "NotKept"
    text = "\n".join(error["traceback"])
    assert "'large', of the type bytes, stayed on worker-1" in text
    assert "%%p2p --bind large" in text
    missing = nb.run("try: tile['nothing']\nexcept KeyError as e: print(e)")
    assert "has not bound 'nothing'\nIt has bound small, large." in missing.text


def test_a_change_to_what_was_sent_is_said_to_have_changed_a_copy(nb: Notebook) -> None:
    nb.run("L, d = [1], {'a': 1}")
    cell = nb.run("%%p2p tile --wait\nL.append(2)\nd['b'] = 2\nlen(L)")
    assert cell.value == "2"
    assert "has changed its copy of L, d (%p2p_pull L)" in (cell.status_line or "")
    assert nb.run("L, tile['L']").value == "([1], [1, 2])"
    nb.run("%%p2p --wait --bind L,d\nL.append(2)\nd['b'] = 2")
    assert nb.run("L, d").value == "([1, 2], {'a': 1, 'b': 2})"


def test_only_names_that_the_cell_binds_can_be_bound(nb: Notebook) -> None:
    error = nb.run("%%p2p --bind other\nx = 1").error
    assert error is not None
    assert "the cell doesn't bind 'other'" in "\n".join(error["traceback"])
    assert "It binds x." in "\n".join(error["traceback"])
    assert not _bound(nb, "x")


def test_all_or_none_are_bound(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile --wait --bind good,bad\nimport threading\ngood, bad = 1, threading.Lock()\n'kept'")
    assert cell.value == "'kept'"
    assert "Nothing was bound. 'bad', of the type _thread.lock, stayed on worker-1: it can't be pickled" in cell.text
    assert not _bound(nb, "good")


def test_a_name_may_be_gone_at_the_end(nb: Notebook) -> None:
    nb.run("%%p2p tile --wait\nx = 1\ny = 2\ndel x")
    assert nb.run("tile.names").value == "('y',)"


def test_of_a_failed_cell_all_that_are_asked_for_are_bound_or_none(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile --wait --bind x,y\nx = 1\n1/0\ny = 2")
    assert cell.error is not None
    assert cell.error["ename"] == "ZeroDivisionError"
    assert not _bound(nb, "x")
    failed = nb.run("tile['y']").error
    assert failed is not None
    assert failed["ename"] == "ZeroDivisionError"


def test_large_values_travel_beside_the_value(nb: Notebook) -> None:
    nb.run(
        "%%p2p tile --wait --bind a,b\nimport numpy as np\n"
        "a, b = np.arange(10**6), bytearray(b'x') * (3 << 20)\nnp.ones(10**6)"
    )
    assert nb.run("int(a.sum()), len(b), int(tile.result().sum())").value == "(499999500000, 3145728, 1000000)"


def test_pull_says_what_it_wants(nb: Notebook) -> None:
    for line in ("%p2p_pull", "%p2p_pull x from nothing", "%p2p_pull 1x"):
        assert "UsageError: %p2p_pull wants" in nb.run(line).text


def test_imports_are_bound_beside_the_syntax_of_ipython(nb: Notebook) -> None:
    cell = nb.run(
        "%%p2p --wait --bind all\nimport math, xml.dom\nimport xml.sax as sax\nfrom json import tool, loads as read\n"
        "%time 1\nfiles = !echo a"
    )
    assert cell.error is None, cell.error
    found = "list(files), math.floor(1.5), xml.dom.__name__, sax.__name__, tool.__name__, read('2')"
    assert nb.run(found).value == "(['a'], 1, 'xml.dom', 'xml.sax', 'json.tool', 2)"


def test_functions_that_write_to_the_streams_write_under_the_cell_that_calls_them(nb: Notebook) -> None:
    nb.done("import sys\ndef shout(text, file=sys.stdout): print(text, file=file)")
    assert nb.done("%%p2p --wait\nshout('there')").text == "there\n"
    nb.done("%%p2p --wait --bind back\nimport sys\ndef back(text, file=sys.stderr): print(text, file=file)")
    back = nb.done("back('home')")
    assert [(each["name"], each["text"]) for each in back.of("stream")] == [("stderr", "home\n")]
