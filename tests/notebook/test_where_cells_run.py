"""Where cells run: notebooks that a program executes, terminals, and shells that aren't ipykernel's."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from p2p_ipython.notebook.output import CellOutput, CurrentCell
from p2p_ipython.notebook.status_line import UNWATCHED
from tests.notebook.kernels import DEADLINE, Notebook, connected, executed

CONNECT = "%load_ext p2p_ipython\n%p2p_connect --workers 1"


def line_of(outputs: list[Any]) -> str:
    (line,) = (each["data"]["text/plain"] for each in outputs if each["output_type"] == "display_data")
    return str(line)


def test_a_program_saves_that_what_is_not_waited_for_is_lost(tmp_path: Path) -> None:
    *_, waits = executed(tmp_path, CONNECT, "%%p2p tile\nimport time\ntime.sleep(600)")
    assert line_of(waits).endswith(UNWATCHED)


def test_the_end_of_a_kernel_that_nobody_watches_waits_for_tasks(tmp_path: Path) -> None:
    source = "%%p2p\nimport pathlib, time\ntime.sleep(0.5)\npathlib.Path('left').write_text('done')"
    executed(tmp_path, CONNECT, "%%p2p --wait\n1", source)
    assert (tmp_path / "left").read_text() == "done"


def test_the_wait_can_be_turned_off(tmp_path: Path) -> None:
    source = "%%p2p\nimport pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(1.5)\npathlib.Path('left').touch()"
    begun = "import pathlib, threading\nwhile not pathlib.Path('begun').exists(): threading.Event().wait(0.01)"
    executed(tmp_path, f"{CONNECT}\n%config P2PMagics.wait_at_end = 0", source, begun)
    assert not (tmp_path / "left").exists()


@pytest.fixture(scope="module")
def nb() -> Iterator[Notebook]:
    with connected() as one:
        yield one


def test_the_first_line_says_how_to_look_for_front_ends_that_show_no_other(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile\n1")
    first, *_ = cell.of("display_data")
    assert first["data"]["text/plain"] == "tile: submitted (%p2p_status says what becomes of it)"
    nb.until(lambda: "done" in (cell.status_line or ""))


def test_nothing_is_said_to_be_lost_of_a_cell_that_waits(nb: Notebook) -> None:
    cell = nb.run("%%p2p --wait tile\n1", cell_id=None)  # as programs run it
    lines = [shown["data"]["text/plain"] for kind in ("display_data", "update_display_data") for shown in cell.of(kind)]
    assert lines[0] == "tile: submitted"
    assert not [line for line in lines if line.endswith(UNWATCHED)]


@pytest.mark.parametrize(("source", "line"), [("1", "tile: done"), ("1 / 0", "tile: failed – ZeroDivisionError: ")])
def test_stable_lines_are_the_same_in_each_run(nb: Notebook, source: str, line: str) -> None:
    nb.run("%config P2PMagics.stable = True")
    cell = nb.run(f"%%p2p tile\n{source}")
    nb.until(lambda: "done" in (cell.status_line or "") or "failed" in (cell.status_line or ""))
    nb.run("%config P2PMagics.stable = False")
    assert (cell.status_line or "").startswith(line)
    assert not re.search(r"\d (ms|s)\b|worker", cell.status_line or "")


def test_a_terminal_names_a_failed_task_at_the_next_prompt_unless_it_was_asked_for() -> None:
    script = (
        "%load_ext p2p_ipython\n%p2p_connect --workers 1\n"
        "tile = %p2p 1 / 0\nimport concurrent.futures\n_ = concurrent.futures.wait([tile])\nprint('next', 'prompt')\n"
        # Asked for before the next prompt.
        "asked = get_ipython().run_line_magic('p2p', '1 / 0'); _ = asked.exception()\nprint('the', 'end')\n"
    )
    typed = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"]
    shown = subprocess.run(typed, input=script, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
    said = "1 / 0: failed on worker-1 – ZeroDivisionError: division by zero (its result() shows where)"
    assert shown.count(said) == 1, shown
    assert shown.index(said) < shown.index("the end")


def test_a_kernel_that_does_not_tell_cells_apart_is_taken_for_a_terminal() -> None:
    shell = InteractiveShell()
    shell.kernel = SimpleNamespace(comm_manager=None)  # as xeus-python's: no get_parent, no session
    current = CurrentCell(shell)
    try:
        output = CellOutput(shell, current)
        assert not output.has_status
        assert not output.interactive
        output.show("nowhere")
    finally:
        current.close()
        shell.history_manager.end_session()


@pytest.mark.parametrize(("line", "meant"), [("%%p2p --wiat\n1", "--wait"), ("%p2p_lend --taag fast", "--tag")])
def test_an_option_that_is_misspelt_names_the_one_it_is_like(nb: Notebook, line: str, meant: str) -> None:
    assert nb.run(line).text.endswith(f"(did you mean {meant}?)\n")
