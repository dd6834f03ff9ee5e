"""The notebooks run from top to bottom, and their outputs are right: by the script that ``make demo`` uses."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

from p2p_ipython.board.server.opening import Speaks
from p2p_ipython.board.server.options import ServerOptions
from p2p_ipython.board.server.ports import Ports
from p2p_ipython.board.server.services import Services
from tests.board_support import pico_board

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PNG = b"\x89PNG\r\n\x1a\n"


def execute(notebook: Path, to: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, NOTEBOOKS / "execute.py", notebook, "--to", to, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, **environment},
    )


def cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def errors(executed: list[nbformat.NotebookNode]) -> list[tuple[str, str]]:
    """(source, exception) of each cell that failed."""
    return [(c.source, o.ename) for c in executed for o in c.outputs if o.output_type == "error"]


def shown(executed: list[nbformat.NotebookNode], source: str) -> str:
    """All text in the outputs of the one cell whose source contains ``source``."""
    (cell,) = [cell for cell in executed if source in cell.source]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_first_steps_shows_values_output_a_picture_and_a_remote_error(tmp_path: Path) -> None:
    done = execute(NOTEBOOKS / "01-first-steps.ipynb", tmp_path, "--picture", "mandelbrot.png")
    assert done.returncode == 0, done.stderr
    executed = cells(tmp_path / "01-first-steps.ipynb")
    assert errors(executed) == [("broken.result()", "ZeroDivisionError")]
    assert "42" in shown(executed, "await hello")
    assert "this is printed by process" in shown(executed, "hello.replay()")
    dry_run = shown(executed, "--dry-run")
    assert all(name in dry_run for name in ("mandelbrot", "np", "width", "height", "steps"))
    assert "worker" in shown(executed, "%p2p_status")
    assert "9 done, 1 failed" in shown(executed, "%p2p_panel")
    assert "busy" in shown(executed, "cluster.timeline()")
    picture = tmp_path / "mandelbrot.png"
    assert picture.read_bytes().startswith(PNG)
    assert _colours(picture) > 50  # an empty picture has one
    assert str(picture) in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_real_data_gives_on_workers_what_it_gives_here(tmp_path: Path) -> None:
    done = execute(NOTEBOOKS / "02-real-data.ipynb", tmp_path)
    assert done.returncode == 0, done.stderr
    executed = cells(tmp_path / "02-real-data.ipynb")
    assert errors(executed) == []
    assert "results are equal: True" in shown(executed, "results are equal")
    assert "of 1797 digits" in shown(executed, "await mistakes")
    assert "[1, 4, 9]" in shown(executed, "cluster.map")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_scikit_learn_finds_on_workers_what_it_finds_here(tmp_path: Path) -> None:
    done = execute(NOTEBOOKS / "06-scikit-learn.ipynb", tmp_path / "to", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    executed = cells(tmp_path / "to" / "06-scikit-learn.ipynb")
    assert errors(executed) == []
    assert "'gamma': 0.001" in shown(executed, "search.best_params_")
    assert "results are equal: True" in shown(executed, "results are equal")
    assert "the forest reads 9" in shown(executed, "forest.score")
    assert sorted(line.split()[0] for line in shown(executed, "spread").splitlines() if line) == [
        str(n) for n in range(10)
    ]
    assert ["computing 12" in shown(executed, f"%%p2p {name}") for name in ("first", "second")] == [True, False]
    assert "(True, 144)" in shown(executed, "check_call_in_cache")
    nothing_is_left(tmp_path, "tmp*")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_futures_give_lists_tables_and_bars(tmp_path: Path) -> None:
    done = execute(NOTEBOOKS / "05-futures.ipynb", tmp_path / "to", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    executed = cells(tmp_path / "to" / "05-futures.ipynb")
    assert errors(executed) == []
    assert "scores: 40 of 40 done in" in shown(executed, "%%p2p scores")
    assert "(40, {'wrong':" in shown(executed, "values = await scores")
    assert "degree 2 alpha 0.01" in shown(executed, "scores[7].replay()")
    assert "best: {'degree':" in shown(executed, "async for setting, value in scores")
    assert "['A', 'C']" in shown(executed, 'gather(texts, errors="skip")')
    assert "name='b': FileNotFoundError" in shown(executed, "texts.errors()")
    assert "['A', 'B', 'C']" in shown(executed, "texts.again_failed()")
    assert "[True, True]" in shown(executed, "places --all --wait")
    assert "(1999, 2000.0, 2000.0, 'walking')" in shown(executed, "walk.progress.done")
    assert "(278, 17673)" in shown(executed, "max(zip(")
    assert "([1, 2, 4, 8, 16], [1, 2, 4, 8, 16])" in shown(executed, "as_completed(futures)")
    assert "FileNotFoundError(2, 'No such file or directory'), 2)" in shown(executed, "retry_on=OSError")
    assert "TaskTimeout(" in shown(executed, "endless.exception()")
    assert "waiting for a worker with tag gpu; here: worker-" in shown(executed, "waiting.state_text")
    assert "True" in shown(executed, "drawn[0] == drawn[1]")
    assert "lazy: runs when its value is asked for" in shown(executed, "print(later)")
    assert "42" in shown(executed, "print(later)")
    assert "endless" in shown(executed, "%p2p_futures")
    nothing_is_left(tmp_path, "tmp*")


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_friends_share_a_cluster_over_a_board_of_their_own(tmp_path: Path) -> None:
    done = execute(NOTEBOOKS / "03-friends.ipynb", tmp_path / "to", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    friends_have_met(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_friends_share_a_cluster_over_a_board_with_the_weaknesses_of_the_public_one(tmp_path: Path) -> None:
    async with pico_board() as server:
        services = Services(ServerOptions())  # such a board has none
        door = Ports(ServerOptions(), services.take)
        port = await door.open("127.0.0.1", 0, {Speaks.MAILBOX, Speaks.RELAY})
        try:
            board = {
                "ssh": {"host": server.addresses.host, "port": server.addresses.port},
                "fingerprint": server.addresses.fingerprint,
                "mailbox": f"ws://127.0.0.1:{port}/v1",
                "relay": f"tcp:127.0.0.1:{port}",
            }
            environment = {"TMPDIR": str(tmp_path), "P2P_DEMO_BOARD": json.dumps(board)}
            notebook = NOTEBOOKS / "03-friends.ipynb"
            done = await asyncio.to_thread(lambda: execute(notebook, tmp_path / "to", **environment))
        finally:
            door.close()
            await services.close()
    assert done.returncode == 0, done.stderr
    friends_have_met(tmp_path)


def friends_have_met(folder: Path) -> None:
    """What the notebook of friends has to show, and that nothing is left of it."""
    executed = cells(folder / "to" / "03-friends.ipynb")
    assert errors(executed) == [("strange.result()", "NotTrusted")]
    assert "bob is in alice/friends" in shown(executed, "%p2p_approve bob")
    assert "9592" in shown(executed, "await primes")
    assert "on bob's machine" in shown(executed, "await primes")
    assert "mauve" in shown(executed, "%p2p_trust bob")
    assert "carol is in alice/friends" in shown(executed, "%p2p_approve carol")
    assert "alice has revoked your membership of alice/friends" in shown(executed, "%p2p_revoke friends bob")
    nothing_is_left(folder, "p2p-friends-*")


def nothing_is_left(folder: Path, stage: str) -> None:
    """Neither the stage of a notebook that had this folder for temporary ones, nor a process."""
    assert not list(folder.glob(stage))
    left = [process for process in psutil.process_iter(["environ"]) if str(folder) in str(process.info["environ"])]
    assert not psutil.wait_procs(left, timeout=30)[1]  # whose starter has ended, they end by themselves


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_attacks_on_a_lender_succeed_without_a_sandbox_and_fail_in_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    precious = {home / ".ssh" / "id_ed25519": "CANARY of the key", home / "thesis.txt": "CANARY of the thesis"}
    for file, text in precious.items():
        file.write_text(text)
    own = {"HOME": str(home), "P2P_DATA": str(tmp_path / "data"), "TMPDIR": str(tmp_path)}
    done = execute(NOTEBOOKS / "04-lending-safely.ipynb", tmp_path / "to", **own)
    assert done.returncode == 0, done.stderr
    executed = cells(tmp_path / "to" / "04-lending-safely.ipynb")

    files = "['.ssh/id_ed25519', '.ssh/id_ed25519.pub', 'photos/summer.jpg', 'thesis.txt']"
    thefts = [cell for cell in executed if "submit(steal" in cell.source]
    erasures = [cell for cell in executed if "submit(erase" in cell.source]
    looks = [cell.outputs[0]["data"]["text/plain"] for cell in executed if cell.source.endswith("files()")]
    assert thefts[0].outputs[0]["data"]["text/plain"] == "'-----BEGIN OPENSSH PRIVATE KEY-----'"
    assert looks == [files, "[]", files, files]  # at first, erased, from the backup, and after the second attack
    failures = errors(executed)
    assert [source for source, _ in failures] == [thefts[1].source, erasures[1].source]
    assert {name for _, name in failures} <= {"FileNotFoundError", "PermissionError"}
    assert "process is no protection" in shown(executed, '"--sandbox", "process"')
    assert "auto, the default for clusters of friends, is" in shown(executed, '"sandbox")')
    first, second = [cell.outputs[0]["data"]["text/plain"] for cell in executed if cell.source == "%p2p_status"]
    assert "no sandbox" in first
    assert "no sandbox" not in second

    assert {file: file.read_text() for file in precious} == precious  # the user's own home
    assert "CANARY" not in (tmp_path / "to" / "04-lending-safely.ipynb").read_text()
    nothing_is_left(tmp_path, "p2p-lending-*")


def test_a_notebook_that_fails_is_said_to_and_kept(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    source = tmp_path / "fails.ipynb"
    nbformat.write(notebook, source)
    done = execute(source, tmp_path / "to")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert errors(cells(tmp_path / "to" / "fails.ipynb")) == [("1 / 0", "ZeroDivisionError")]


def _colours(picture: Path) -> int:
    import matplotlib.image
    import numpy as np

    pixels = matplotlib.image.imread(picture)
    return len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0))
