"""What a waited-for task prints and shows goes where the notebook would have it go, as if it had run there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.notebook.kernels import Notebook, connected


@pytest.fixture(scope="module")
def kernel() -> Iterator[Notebook]:
    with connected() as it:
        yield it


def test_capture_catches_what_a_waited_for_task_prints_and_shows(kernel: Notebook) -> None:
    source = "%%capture cap\n%%p2p --wait\nimport sys\nprint('out'); print('err', file=sys.stderr)\ndisplay(5)\n6"
    cell = kernel.run(source)
    assert (cell.text, cell.of("display_data"), cell.value, cell.error) == ("", [], None, None)
    assert kernel.run("cap.stdout, cap.stderr").value == "('out\\n', 'err\\n')"
    assert kernel.run("[each.data['text/plain'] for each in cap.outputs]").value == "['5', '6']"


def test_redirect_stdout_catches_what_a_task_prints_whose_result_is_asked_for(kernel: Notebook) -> None:
    cell = kernel.run(
        "import contextlib, io\nheld = io.StringIO()\n"
        "with contextlib.redirect_stdout(held): cluster.submit(print, 'held').result()\n"
        "cluster.submit(print, 'shown').result()\n"
        "held.getvalue()"
    )
    assert (cell.text, cell.value) == ("shown\n", "'held\\n'")


def test_what_is_captured_and_not_waited_for_is_shown_as_ever(kernel: Notebook) -> None:
    cell = kernel.run("%%capture cap\n%%p2p later\nprint('later')")
    kernel.until(lambda: cell.text == "later\n")
    assert kernel.run("later.result(), cap.stdout").value == "(None, '')"


def test_an_output_widget_catches_what_a_waited_for_task_prints(kernel: Notebook) -> None:
    pytest.importorskip("ipywidgets")
    cell = kernel.run(
        "import ipywidgets\narea = ipywidgets.Output()\n"
        "with area: cluster.submit(print, 'inside').result()\n"
        "print('outside')"
    )
    area = next(
        comm for comm in kernel.comms.values() if comm.data.get("state", {}).get("_model_name") == "OutputModel"
    )
    updates = [m["content"]["data"].get("state", {}).get("msg_id") for m in area.messages]
    assert updates == [cell.id, ""]  # the front end puts into the area what comes in between
    assert cell.text == "inside\noutside\n"


def test_a_value_stands_above_the_figure(kernel: Notebook) -> None:
    pytest.importorskip("matplotlib")
    cell = kernel.run("%%p2p --wait\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('first')\n7")
    kinds = [m["msg_type"] for m in cell.messages]
    pictures = [n for n, m in enumerate(cell.messages) if "image/png" in m["content"].get("data", {})]
    assert len(pictures) == 1
    assert kinds.index("stream") < kinds.index("execute_result") < pictures[0]


@pytest.mark.parametrize("source", ["x = (1,\n", "def f():\n  return 1\n   y", "1 +"])
def test_a_syntax_error_looks_as_at_home(kernel: Notebook, source: str) -> None:
    at_home, cell = kernel.run(source), kernel.run(f"%%p2p --wait\n{source}")
    home, away = at_home.error, cell.error
    assert home is not None
    assert away is not None
    assert (away["ename"], away["evalue"].partition(" (")[0]) == (home["ename"], home["evalue"].partition(" (")[0])
    assert "Cell In[" in cell.traceback
    assert "p2p_ipython" not in cell.traceback


def test_a_syntax_error_that_a_task_raises_shows_no_frame_of_ours(kernel: Notebook) -> None:
    cell = kernel.run("%%p2p --wait\neval('1 +')")
    assert cell.error is not None
    assert cell.error["ename"] == "SyntaxError"
    assert "eval('1 +')" in cell.traceback
    assert "p2p_ipython" not in cell.traceback
    assert kernel.run("try: _p2p.result()\nexcept SyntaxError as error: print(error.msg)").text == "invalid syntax\n"


def test_a_value_that_can_not_travel_is_shown_and_only_result_raises(kernel: Notebook) -> None:
    cell = kernel.run("%%p2p --wait\nit = (each for each in 'ab')\nnext(it)\nit")
    assert cell.error is None
    assert "<generator object" in cell.shown
    assert "can't be pickled" in cell.text
    error = kernel.run("_p2p.result()").error
    assert error is not None
    assert error["ename"] == "ResultNotPicklable"


def test_ten_thousand_texts_of_two_streams_arrive(kernel: Notebook) -> None:
    source = "%%p2p --wait\nimport sys\nfor i in range(5000): print(i); print(i, file=sys.stderr)"
    cell = kernel.run(source)
    for name in ("stdout", "stderr"):
        text = "".join(content["text"] for content in cell.of("stream") if content["name"] == name)
        assert text == "".join(f"{i}\n" for i in range(5000))
