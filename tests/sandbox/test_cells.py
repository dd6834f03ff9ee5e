"""A cell in a runner behaves as it would in a notebook."""

from __future__ import annotations

import cloudpickle
import pytest
from slot_support import worker

from p2p_ipython.task.payload import pack_task
from p2p_ipython.worker import slots


async def test_the_value_is_that_of_the_last_expression() -> None:
    async with worker() as it:
        cells = {
            "6 * 7": (42, True),
            "6 * 7;": (None, False),
            "x = 5": (None, False),
            "x = 5\nx  # a comment; not a semicolon": (5, True),
            "": (None, False),
            "# only a comment": (None, False),
            "None": (None, False),
            "if True:\n    5": (None, False),
        }
        for source, (value, has_value) in cells.items():
            outcome = await it.cell(source)
            assert (outcome.value, outcome.result.value) == (value, has_value), source


async def test_a_cell_uses_the_names_that_come_with_it() -> None:
    async with worker() as it:
        outcome = await it.cell("[x + y for y in z]", {"x": 1, "z": [1, 2]})
        assert outcome.value == [2, 3]
        assert (await it.cell("open", {"open": "mine"})).value == "mine"


async def test_functions_share_the_cells_globals() -> None:
    async with worker() as it:
        notebook: dict[str, object] = {"__name__": "__main__", "limit": 1}
        exec("def f():\n    return limit", notebook)
        namespace = {"f": notebook["f"], "limit": 1}
        packed = pack_task(namespace, it.store, shared_globals=(notebook, namespace))
        it.begin_packed(packed, [], run="cell", source="limit = 7\nf()")
        assert (await it.over()).value == 7


async def test_await_magics_and_shell_commands_work() -> None:
    async with worker() as it:
        assert (await it.cell("import asyncio\nawait asyncio.sleep(0, 'done')")).value == "done"
        assert (await it.cell("files = !echo one; echo two\nlist(files)")).value == ["one", "two"]
        assert (await it.cell("!echo from a shell")).text().strip() == "from a shell"
        assert "per loop" in (await it.cell("%timeit -n1 -r1 pass")).text()
        assert (await it.cell("%%capture kept\nprint('kept')")).text() == ""
        assert (await it.cell("get_ipython() is not None")).value is True


async def test_an_asyncio_task_that_a_cell_leaves_is_cancelled() -> None:
    async with worker() as it:
        source = """
import asyncio
async def forever():
    try:
        await asyncio.Event().wait()
    finally:
        print("tidied up")
task = asyncio.ensure_future(forever())
await asyncio.sleep(0)
"""
        assert (await it.cell(source)).text() == "tidied up\n"


async def test_rich_displays_come_in_their_order() -> None:
    async with worker() as it:
        outcome = await it.cell(
            "from IPython.display import HTML, clear_output\n"
            "print('before')\n"
            "handle = display(HTML('<b>1</b>'), display_id='one')\n"
            "print('between')\n"
            "handle.update(HTML('<b>2</b>'))\n"
            "clear_output(wait=True)"
        )
        assert outcome.order() == ["before\n", "display_data", "between\n", "update_display_data", "clear_output"]
        shown, updated, cleared = outcome.displays()
        assert shown[1]["data"]["text/html"] == "<b>1</b>"
        assert updated[1]["data"]["text/html"] == "<b>2</b>"
        assert shown[1]["transient"] == updated[1]["transient"] == {"display_id": "one"}
        assert cleared == ("clear_output", {"wait": True})


async def test_a_display_larger_than_a_frame_comes_in_parts() -> None:
    async with worker() as it:
        ((_, content),) = (await it.cell("display({'text/plain': 'é' * 2_000_000}, raw=True)")).displays()
        assert content["data"]["text/plain"] == "é" * 2_000_000


async def test_a_value_is_as_it_is_before_its_figure_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    async with worker() as it:
        outcome = await it.cell("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.xlabel('t')")
    assert str(outcome.value) == "Text(0.5, 0, 't')"


async def test_a_figure_is_displayed_and_closed_after_every_cell() -> None:
    pytest.importorskip("matplotlib")
    async with worker() as it:
        for _ in range(2):
            outcome = await it.cell("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
            assert [sorted(content["data"]) for _, content in outcome.displays()] == [["image/png", "text/plain"]]
        assert (await it.cell("import matplotlib.pyplot as plt\nplt.get_fignums()")).value == []


@pytest.mark.parametrize(
    ("magic", "shown"),
    [
        ("%matplotlib inline", 1),
        ("%matplotlib", 1),
        ("%matplotlib qt", 1),
        ("%matplotlib agg", 0),
        ("%pylab inline", 1),
        ("%gui qt", 1),
        ("get_ipython().run_line_magic('matplotlib', 'inline')", 1),
        ("import matplotlib\nmatplotlib.use('agg')", 0),
    ],
)
async def test_a_cell_may_choose_how_its_figures_are_shown_and_the_next_ones_are_shown(magic: str, shown: int) -> None:
    pytest.importorskip("matplotlib")
    async with worker() as it:
        plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
        outcome = await it.cell(f"{magic}\n{plot}")
        assert (outcome.result.ok, len(outcome.displays())) == (True, shown), outcome.frame
        assert len((await it.cell(plot)).displays()) == 1
        assert it.deaths == []


async def test_a_traceback_shows_the_cells_lines_and_none_of_ours() -> None:
    async with worker() as it:
        outcome = await it.cell("def f(x):\n    return 1 / x\n\nf(0)", label="tile")
        text = outcome.error.traceback
        plain = _plain(text)
        assert "\x1b[" in text
        assert "Cell tile, line 4" in plain
        assert "----> 4 f(0)" in plain
        assert "----> 2     return 1 / x" in plain
        assert "ZeroDivisionError: division by zero" in plain
        assert "p2p_ipython" not in plain
        assert "interactiveshell" not in plain


async def test_an_error_that_we_raise_for_the_task_points_at_its_line() -> None:
    async with worker() as it:
        text = _plain((await it.cell("x = 1\nprint(x, file=None)\nimport sys\nsys.stdout.write(5)")).error.traceback)
        assert "----> 4 sys.stdout.write(5)" in text
        assert "write() argument must be str" in text
        assert "capture_output" not in text


async def test_errors_before_a_cell_runs_are_its_errors() -> None:
    async with worker() as it:
        syntax = await it.cell("1 +")
        assert syntax.error.class_name == "builtins.SyntaxError"
        assert "1 +" in _plain(syntax.error.traceback)
        assert (await it.cell("return 5")).error.class_name == "builtins.SyntaxError"
        assert (await it.cell("%no_such_magic")).error.message.startswith("Line magic function")


async def test_leaving_a_cell_is_an_exception_like_others() -> None:
    async with worker() as it:
        for source in ("import sys\nsys.exit(3)", "exit", "quit()", "raise KeyboardInterrupt"):
            outcome = await it.cell(source)
            assert outcome.error.what == "exception", source
            assert outcome.text("stderr") == "", source
        assert (await it.cell("1")).value == 1
        assert it.deaths == []


async def test_input_says_that_nobody_is_there() -> None:
    async with worker() as it:
        outcome = await it.cell("input('name? ')")
        assert outcome.error.class_name == "builtins.EOFError"
        assert "runs on a worker" in outcome.error.message


async def test_nothing_leaks_from_one_cell_to_the_next() -> None:
    async with worker() as it:
        await it.cell(
            "import os, sys, warnings, io, builtins, logging, signal\n"
            "leaked = 1\n"
            "os.environ['LEAKED'] = '1'\n"
            "os.mkdir('below'); os.chdir('below')\n"
            "sys.path.insert(0, '/leaked'); sys.argv.append('leaked')\n"
            "warnings.simplefilter('error')\n"
            "logging.basicConfig(level=10)\n"
            "sys.stdout = io.StringIO(); sys.stderr = None\n"
            "builtins.input = None\n"
            "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "os.close(1)\n"
            "get_ipython().events.register('pre_run_cell', lambda info: print('leaked'))\n"
            "42"
        )
        after = await it.cell(
            "import __main__, os, sys, warnings, logging\n"
            "os.system('echo 1 is open')\n"
            "warnings.warn('shown')\n"
            "print(['leaked' in globals(), hasattr(__main__, 'leaked'), 'LEAKED' in os.environ, os.getcwd()[-4:],"
            " '/leaked' in sys.path, 'leaked' in sys.argv, logging.root.level, dict(Out), '_' in globals()])"
        )
        expected = "1 is open\n[False, False, False, 'home', False, False, 30, {}, False]\n"
        assert after.text() == expected
        assert "UserWarning: shown" in after.text("stderr")


@pytest.mark.parametrize(
    "broken",
    [
        "get_ipython().history_manager = None",
        "get_ipython().tempfiles.append('no path')",
        "del get_ipython()._main_mod_cache",
        "get_ipython().compile.forget = None",
        "import os, shutil\nshutil.rmtree(os.getcwd())",
        "import sys\nsys.path = None",
        "import logging\nlogging.root.handlers = None",
        "import threading\nthreading.active_count = None",
    ],
)
async def test_a_runner_that_can_not_be_put_back_answers_and_is_replaced(broken: str) -> None:
    async with worker() as it:
        await it.cell("import json\njson.left = 1")
        outcome = await it.cell(f"print('ran')\n{broken}\n7")
        assert (outcome.value, outcome.text(), outcome.death) == (7, "ran\n", None)
        for _ in range(2):
            after = await it.cell("print('next')\nimport json\nhasattr(json, 'left')")
            assert (after.value, after.text(), after.death) == (False, "next\n", None)
        assert it.deaths == []


DIES = """
import os, signal, sys
class Dies:
    def __del__(self, os=os, signal=signal):  # the cell's own names are gone by then
        {death}
"""


@pytest.mark.parametrize("death", ["os._exit(7)", "os.kill(os.getpid(), signal.SIGKILL)"])
@pytest.mark.parametrize("last", ["kept = Dies()\n'value'", "sys.argv = [Dies()]\n'value'", "kept = Dies()\n1 / 0"])
async def test_a_runner_that_dies_while_it_clears_up_takes_no_result_along(last: str, death: str) -> None:
    async with worker() as it:
        outcome = await it.cell(DIES.format(death=death) + last)
        if "1 / 0" in last:
            assert outcome.error.class_name == "builtins.ZeroDivisionError"
        else:
            assert outcome.value == "value"
        for number in range(3):  # nor is it said of a task that comes next
            assert (await it.cell(f"{number}")).value == number
        assert it.deaths == []


async def test_a_runner_that_hangs_while_it_clears_up_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "CLEAR_DEADLINE", 0.5)
    hangs = "def __del__(self, never=threading.Event()): never.wait()"
    source = f"import threading\nclass Hangs:\n    {hangs}\nkept = Hangs()\n'value'"
    async with worker() as it:
        pid = it.slot.pid
        assert (await it.cell(source)).value == "value"
        assert (await it.cell("1")).value == 1
        assert it.slot.pid != pid


async def test_a_shell_that_a_cell_has_broken_is_the_cells_error() -> None:
    async with worker() as it:
        assert (await it.cell("get_ipython().events = None")).error.class_name == "builtins.AttributeError"
        assert (await it.cell("1")).value == 1
        assert it.deaths == []


async def test_an_error_whose_class_is_frozen_ends_its_own_cell_only() -> None:
    async with worker() as it:
        source = "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass E(Exception):\n    x: int\nraise E(5)"
        for _ in range(2):
            assert (await it.cell(source, reply="safe")).error.class_name == "__main__.E"
        assert (await it.cell("1")).value == 1
        assert it.deaths == []


async def test_an_endless_recursion_is_described_by_few_of_its_frames() -> None:
    async with worker() as it:
        source = "import sys\nsys.setrecursionlimit(20_000)\ndef f(): f()\nf()"
        error = (await it.cell(source)).error
        assert error.class_name == "builtins.RecursionError"
        text = _plain(error.traceback)
        assert "----> 4 f()" in text
        assert "maximum recursion depth exceeded" in text
        assert "similar frames" in text


async def test_a_class_defined_in_the_cell_comes_back() -> None:
    async with worker() as it:
        outcome = await it.cell("class Point:\n    def __init__(self, x):\n        self.x = x\nPoint(3)")
        assert outcome.value.x == 3
        assert cloudpickle.dumps(outcome.value)


def _plain(text: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", text)
