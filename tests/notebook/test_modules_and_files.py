"""Modules and files beside the notebook, on a real personal cluster: as at home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernels import Notebook, connected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mymod.py").write_text("import helper\ndef f(): return helper.g()\nclass K:\n    size = 1\n")
    (tmp_path / "helper.py").write_text("def g(): return 1\n")
    (tmp_path / "data.csv").write_text("a\n1\n")
    package = tmp_path / "src" / "pack"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import one\n")
    (package / "one.py").write_text("from .inner import two\nvalue = two.value\n")
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "two.py").write_text("value = 7\n")
    return tmp_path


@pytest.fixture
def nb(folder: Path) -> Iterator[Notebook]:
    with connected(cwd=folder) as one:
        yield one


def test_modules_are_the_newest_in_each_task(nb: Notebook, folder: Path) -> None:
    nb.run("import mymod")
    assert nb.run("%%p2p --wait\nmymod.f(), mymod.K.size").value == "(1, 1)"
    (folder / "helper.py").write_text("def g(): return 2222\n")
    assert nb.run("%%p2p --wait\nmymod.f()").value == "2222"
    assert "mymod.K" in (nb.run("%%p2p --wait\nfrom mymod import K\nk = K()\nk").value or "")
    nb.run("import sys\nsys.path.append('src')\nfrom pack import one")
    assert nb.run("%%p2p --wait\none.value").value == "7"
    failed = nb.run("%%p2p --wait --no-modules\nimport pack").error
    assert failed is not None
    assert failed["ename"] == "ModuleNotFoundError"
    shown = nb.run("%%p2p --dry-run\nmymod.f(), one.value")
    table = shown.of("display_data")[0]["data"]["text/plain"]
    assert all(f"module: {name}" in table for name in ("mymod.py", "helper.py", "pack/inner/two.py"))
    trace = nb.run("%%p2p --wait\nmymod.nothing()\n").error
    assert trace is not None
    (folder / "mymod.py").write_text("def f():\n    return 1 / 0  # here\n")
    assert "return 1 / 0" in nb.run("%%p2p --wait\nmymod.f()").traceback


def test_the_notebooks_folder_is_the_tasks(nb: Notebook, folder: Path) -> None:
    assert nb.run("%%p2p --wait\nopen('data.csv').read()").value == "'a\\n1\\n'"
    assert nb.run("%%p2p tile --wait\nopen('out.txt', 'w').write('precious')").value == "8"
    assert (folder / "out.txt").read_text() == "precious"
    assert nb.run("dict(tile.files)").value == "{}"
    assert "data.csv" in nb.run("%%p2p --wait\n!ls").text
    nb.run("import os\nos.chdir('src')")
    assert nb.run("%%p2p --wait\nimport os\nos.listdir()").value == "['pack']"
    assert nb.run("cluster.submit(os.getcwd).result()").value == repr(str(folder / "src"))
