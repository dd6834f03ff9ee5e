"""How front ends run kernels: under a JupyterHub, without names of cells, in subshells, side by side, and anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.notebook.kernels import DEADLINE, Notebook, connected

HUB = {
    "JUPYTERHUB_API_TOKEN": "a-token-of-the-hub",
    "JPY_API_TOKEN": "a-token-of-the-hub",
    "JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api",
    "JUPYTERHUB_BASE_URL": "/",
    "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ada",
    "JUPYTERHUB_HOST": "",
    "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/",
    "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:9/user/ada/",
    "JUPYTERHUB_USER": "ada",
}


def waits_for(go: Path) -> str:
    return f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)"


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Notebook, Notebook]]:
    """Two kernels at a time, each with a cluster of its own; the second one is a JupyterHub's."""
    with connected() as one, connected(environment={**os.environ, **HUB}) as other:
        yield one, other


@pytest.fixture
def nb(pair: tuple[Notebook, Notebook]) -> Notebook:
    return pair[0]


def test_cells_run_under_a_jupyterhub_whose_tokens_no_worker_shows(pair: tuple[Notebook, Notebook]) -> None:
    _, nb = pair
    cell = nb.done("%%p2p tile\n6 * 7")
    assert nb.done("tile.result()").value == "42"
    nb.until(lambda: (cell.status_line or "").startswith("tile: done"))
    look = "import os\n[name for name, text in os.environ.items() if 'a-token-of' in text]"
    assert nb.done(look).value == "['JUPYTERHUB_API_TOKEN', 'JPY_API_TOKEN']"
    assert nb.done(f"%%p2p --wait\n{look}").value == "[]"


def test_a_front_end_that_does_not_name_cells_shows_output_in_the_cell_that_waits(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile\nprint('seen')\n6 * 7", cell_id=None)  # as the classic notebook does
    assert (cell.status_line or "").startswith("tile: submitted")
    waits = nb.run("tile.result()", cell_id=None)
    assert (waits.text, waits.value) == ("seen\n", "42")
    assert (waits.status_line or "").startswith("tile: done on worker-1")  # an update: it is shown in the first cell
    waited = nb.run("%%p2p --wait\nprint('seen')\n6 * 7", cell_id=None)
    assert (waited.text, waited.value) == ("seen\n", "42")
    failed = nb.run("%%p2p --wait\n1 / 0", cell_id=None)
    assert "----> 1 1 / 0" in failed.traceback


def test_the_classic_notebook_has_a_person_before_it(nb: Notebook, tmp_path: Path) -> None:
    # It names no cells, as programs that execute notebooks, but lets them ask for input. So do consoles, which don't
    # update what they have shown: the next cell says what has failed.
    classic: dict[str, Any] = {"cell_id": None, "asks": True}
    failing = nb.run(f"%%p2p tile\n{waits_for(tmp_path / 'go')}\n1 / 0", **classic)
    first, *_ = failing.of("display_data")
    assert first["data"]["text/plain"] == "tile: submitted (%p2p_status says what becomes of it)"
    (tmp_path / "go").touch()
    shown = nb.run("import concurrent.futures\n_ = concurrent.futures.wait([tile])", **classic).text
    said = "tile: failed on worker-1 – ZeroDivisionError: division by zero (its result() shows where)\n"
    while said not in shown:  # pytest's deadline ends it
        shown += nb.run("None", **classic).text
    waits = nb.run("%%p2p --wait\n1 / 0", **classic)
    assert "----> 1 1 / 0" in waits.traceback
    assert nb.run("None", **classic).text == ""


def test_a_subshell_waits_for_its_task_while_the_shell_computes(nb: Notebook, tmp_path: Path) -> None:
    subshell = nb.subshell()
    if subshell is None:
        pytest.skip("this kernel has no subshells")
    busy = nb.start(f"{waits_for(tmp_path / 'free')}\nprint('free')")
    cell = nb.start("%%p2p --wait\nprint('aside')\n6 * 7", subshell=subshell)
    nb.until(lambda: cell.idle)
    assert (cell.text, cell.value, busy.idle) == ("aside\n", "42", False)
    failed = nb.start("%%p2p --wait\n1 / 0", subshell=subshell)
    nb.until(lambda: failed.idle)
    assert "----> 1 1 / 0" in failed.traceback
    (tmp_path / "free").touch()
    nb.until(lambda: busy.idle)
    assert busy.text == "free\n"


def test_two_kernels_have_a_cluster_each_at_the_same_time(pair: tuple[Notebook, Notebook], tmp_path: Path) -> None:
    source = "%%p2p tile\nimport pathlib, time\npathlib.Path({here!r}).touch()\n{wait}\nprint({name!r})\nname"
    cells = []
    for number, (nb, there) in enumerate(zip(pair, reversed(pair), strict=True)):
        assert nb is not there
        nb.done(f"name = 'kernel {number}'")
        here, other = (str(tmp_path / f"begun {each}") for each in (number, 1 - number))
        cells.append(nb.run(source.format(here=here, wait=waits_for(Path(other)), name=f"of {number}")))
    for number, (nb, cell) in enumerate(zip(pair, cells, strict=True)):
        assert nb.done("tile.result()").value == f"'kernel {number}'"
        nb.until(lambda number=number, cell=cell: cell.text == f"of {number}\n")


@pytest.mark.parametrize("now", [False, True], ids=["asked to end", "killed"])
def test_a_restart_with_tasks_leaves_no_process_and_the_kernel_connects_anew(
    pair: tuple[Notebook, Notebook], tmp_path: Path, now: bool
) -> None:
    nb = pair[now]
    begun = tmp_path / "begun"
    nb.done(f"%%p2p running\nimport pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)")
    nb.done("%%p2p waiting\nimport time\ntime.sleep(600)")
    nb.done(waits_for(begun))
    started = psutil.Process(int(nb.done("import os\nos.getpid()").value or 0)).children(recursive=True)
    assert started
    nb.manager.restart_kernel(now=now)
    _, left = psutil.wait_procs(started, timeout=DEADLINE)
    assert not left
    nb.client.wait_for_ready(timeout=DEADLINE)
    nb.done("%load_ext p2p_ipython\n%p2p_connect --workers 1")
    assert nb.done("%%p2p --wait\n6 * 7").value == "42"
