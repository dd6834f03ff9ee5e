"""Errors of tasks, as the notebook shows them: without our frames, also where IPython leaves the showing to Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.notebook.kernels import DEADLINE, Notebook, connected

DEFINED = """
def bad(x):
    raise ValueError(x)

def caught(x):
    try:
        bad(x)
    except ValueError as error:
        return error

def group(*errors):
    raise ExceptionGroup("g", errors)
"""


GROUPS = {
    "plain": "group(caught(7), KeyError('k'))",
    "in another": "raise ExceptionGroup('out', [ExceptionGroup('g', [caught(7)])])",
    "rethrown": "try:\n    group(caught(7), KeyError('k'))\nexcept* KeyError:\n    raise RuntimeError('again')",
    "a cause": "try:\n    group(caught(7))\nexcept ExceptionGroup as g:\n    raise RuntimeError('later') from g",
    "a context": "try:\n    group(caught(7))\nexcept ExceptionGroup:\n    raise RuntimeError('later')",
    "awaited": "import asyncio\nasync with asyncio.TaskGroup() as all:\n    all.create_task(asyncio.to_thread(bad, 7))",
    "by our pickler": (
        "import pickle\nclass Not:\n    def __reduce__(self): bad(7)\n"
        "try: pickle.dumps(Not())\nexcept ValueError as error: group(error)"
    ),
}


@pytest.fixture(scope="module")
def nb() -> Iterator[Notebook]:
    with connected(first=DEFINED) as one:
        yield one


def shown(nb: Notebook, source: str) -> str:
    """The traceback of a cell that fails. None is printed past it."""
    cell = nb.run(source)
    assert "Traceback" not in cell.text
    return cell.traceback


def has_no_frame_of_ours(text: str) -> bool:
    return not any(name in text for name in ("p2p_ipython", "interactiveshell.py", "cloudpickle"))


@pytest.mark.parametrize("source", GROUPS.values(), ids=GROUPS)
def test_a_group_that_a_cell_raises_shows_its_errors_and_no_frame_of_ours(nb: Notebook, source: str) -> None:
    text = shown(nb, f"%%p2p --wait\n{source}")
    assert has_no_frame_of_ours(text), text
    assert "Cell In[1], line 2, in bad\n" in text
    assert "raise ValueError(x)" in text
    assert "ValueError: 7" in text
    assert "ExceptionGroup: " in text


def test_a_call_has_its_line_in_a_groups_traceback(nb: Notebook) -> None:
    text = shown(nb, "cluster.submit(group, caught(7), KeyError('k')).result()")
    assert has_no_frame_of_ours(text), text
    assert "  |   Task group, line 1\n  |     group(" in text
    assert "  |   Cell In[1], line 11, in group\n" in text


def test_a_group_of_the_notebooks_own_shows_what_tasks_have_raised(nb: Notebook) -> None:
    source = """errors = []
for function in bad, group:
    try:
        cluster.submit(function, caught(7)).result()
    except Exception as error:
        errors.append(error)
raise ExceptionGroup("all", errors)"""
    text = shown(nb, source)
    assert has_no_frame_of_ours(text), text
    assert ", line 7\n" in text
    assert "    | Task bad, line 1\n" in text
    assert "    |   |   Task group, line 1\n" in text


@pytest.mark.parametrize("cause", [" from error", ""])
@pytest.mark.parametrize("function", ["bad", "group"])
def test_an_error_of_a_task_that_others_come_from_has_no_frame_of_ours(nb: Notebook, function: str, cause: str) -> None:
    source = f"try: cluster.submit({function}, caught(7)).result()\nexcept Exception as error:\n"
    text = shown(nb, f"{source}    raise RuntimeError('later'){cause}")
    assert not any(f"p2p_ipython/{part}" in text for part in ("client", "task", "notebook", "sandbox")), text
    assert f"Task {function}, line 1\n" in text
    assert "RuntimeError: later" in text


def test_an_error_that_is_shown_again_looks_the_same(nb: Notebook) -> None:
    first = shown(nb, "%%p2p --wait\ngroup(caught(7))")
    assert shown(nb, "%tb") == first


def test_a_terminal_shows_the_errors_of_a_group_and_no_frame_of_ours() -> None:
    raised = "raise ExceptionGroup('g', [ValueError(7)])"
    script = (
        "%load_ext p2p_ipython\n%p2p_connect --workers 1\n"
        f"_ = get_ipython().run_cell_magic('p2p', '--wait', {raised!r})\nprint('the', 'end')\n"
    )
    typed = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"]
    run = subprocess.run(typed, input=script, capture_output=True, text=True, timeout=DEADLINE, check=True)
    text = run.stdout + run.stderr
    assert "the end" in text
    assert f"  |     {raised}\n" in text
    assert "    | ValueError: 7\n" in text
    assert has_no_frame_of_ours(text.partition("Exception Group")[2]), text


def test_without_the_extension_ipython_shows_groups_as_ever(nb: Notebook) -> None:
    nb.done("%unload_ext p2p_ipython")
    assert "Exception Group Traceback" in nb.run("group(caught(7))").text
    assert nb.done("'showtraceback' in vars(get_ipython())").value == "False"
