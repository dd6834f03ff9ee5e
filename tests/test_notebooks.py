"""The notebooks run from top to bottom, and their outputs are right: by the script that ``make demo`` uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PNG = b"\x89PNG\r\n\x1a\n"


def execute(notebook: Path, to: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, NOTEBOOKS / "execute.py", notebook, "--to", to, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
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
