"""Files and modules that go with a task to a friend's worker, and files that come back from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from friends_support import Notebook, Village, village

TITLE = "alice/friends"
CELLS = """
import os, p2p_ipython
from IPython.core.interactiveshell import InteractiveShell
ip = InteractiveShell.instance()
ip.run_line_magic("load_ext", "p2p_ipython")
ip.run_line_magic("p2p_connect", "alice/friends --as c")
def cell(line, source):
    ip.run_cell_magic("p2p", line, source)
    return ip.user_ns["_p2p"]
"""


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Notebook]:
    with village(tmp_path) as here:
        here.found("bob")
        here.person("bob").worker(TITLE)
        folder = tmp_path / "notebooks"
        (folder / "sub").mkdir(parents=True)
        (folder / "data.csv").write_text("a\n1\n")
        (folder / "sub" / "more.txt").write_text("more")
        (folder / "beside.py").write_text("def f(): return 'beside', __file__\n")
        yield made(here, folder)


def made(here: Village, folder: Path) -> Notebook:
    return here.person("alice").notebook(f"import os; os.chdir({str(folder)!r})\n{CELLS}")


def test_files_and_modules_go_along_and_files_come_back(alice: Notebook) -> None:
    alice.run("f = cell('--file data.csv,sub/more.txt', 'open(\"data.csv\").read() + open(\"sub/more.txt\").read()')")
    assert alice.run("answer = f.result(60)") == repr("a\n1\nmore")
    assert alice.run("answer = dict(f.files)") == "{}", "what it brought along is not what it has left"
    assert alice.run("f = cell('', 'import beside; beside.f()'); answer = f.result(60)") == "('beside', 'beside.py')"
    alice.run(
        'f = cell(\'--label tile\', \'import os; os.makedirs("d"); open("d/x.bin", "wb").write(bytes(300_000)); '
        'open("run.py", "w").write("1"); open(".hidden", "w").write("1"); os.symlink("/etc/passwd", "link")\')'
    )
    assert (
        alice.run("f.result(60); answer = sorted(f.files), len(f.files['d/x.bin'])")
        == "(['d/x.bin', 'run.py'], 300000)"
    )
    assert alice.run("answer = str(f.files['d/x.bin'].save())") == repr("p2p-files/tile/d/x.bin")
    assert "FileExistsError" in alice.fails("f.files['d/x.bin'].save()")
    assert "is not saved unasked" in alice.fails("f.files['run.py'].save()")
    assert alice.run("answer = str(f.files['run.py'].save('here.py')), open('here.py').read()") == "('here.py', '1')"
    assert alice.run("f = cell('', 'import os; sorted(os.listdir())'); answer = 'run.py' in f.result(60)") == "False", (
        "the next task finds an empty folder"
    )


def test_a_file_that_is_beside_the_notebook_is_named(alice: Notebook) -> None:
    alice.run("f = cell('', 'open(\"data.csv\")')")
    assert "data.csv is beside this notebook, and a worker doesn't have it: --file data.csv sends it." in alice.run(
        "try: f.result(60)\nexcept FileNotFoundError as e: answer = e.__notes__"
    )
    alice.run("f = cell('', 'import pandas; pandas.read_csv(\"data.csv\")')")
    assert "--file data.csv" in alice.run("try: f.result(60)\nexcept FileNotFoundError as e: answer = e.__notes__")
    alice.run("f = cell('', 'open(\"nowhere.csv\")')")
    assert alice.run("try: f.result(60)\nexcept OSError as e: answer = getattr(e, '__notes__', [])") == "[]"
    assert "is not below the notebook's folder" in alice.fails("cell('--file ../../x', '1')")
    assert "can't be sent: No such file" in alice.fails("cell('--file gone.csv', '1')")


def test_too_many_files_are_said_to_have_been_left_behind(alice: Notebook) -> None:
    alice.run('f = cell(\'\', \'for n in range(103): open(f"{n:03}", "w").write("x")\')')
    alice.run("f.result(60)")
    assert alice.run("answer = len(f.files)") == "101"
    assert "stayed behind" in alice.fails("f.files['100']")
