"""``p2p run``: a script runs on a worker as it does at home."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest
from cli_support import Home, end

SCRIPT = """
import sys
from beside import word

def part(x):
    return 1 / x

print(__name__, sys.argv[1:], word)
print("to stderr", file=sys.stderr)
match sys.argv[1]:
    case "status":
        sys.exit(3)
    case "words":
        sys.exit("no good")
    case "fails":
        part(0)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "beside.py").write_text("word = 'from a module'\n")
    (tmp_path / "work.py").write_text(SCRIPT)
    return Home(tmp_path)


@pytest.mark.parametrize(
    ("argument", "status", "errors"),
    [("ends", 0, []), ("status", 3, []), ("words", 1, ["no good"])],
)
def test_output_arguments_and_exit_status_are_the_scripts(
    home: Home, argument: str, status: int, errors: list[str]
) -> None:
    ran = home.run("run", str(home.folder / "work.py"), argument, "--board", "x")
    assert ran.stdout == f"__main__ {[argument, '--board', 'x']!r} from a module\n"
    assert (ran.returncode, ran.stderr.splitlines()) == (status, ["to stderr", *errors])


def test_an_error_shows_the_scripts_own_lines(home: Home) -> None:
    ran = home.run("run", str(home.folder / "work.py"), "fails")
    assert ran.returncode == 1
    assert "ZeroDivisionError: division by zero" in ran.stderr
    assert "return 1 / x" in ran.stderr
    assert "run_script" not in ran.stderr


def test_ctrl_c_ends_the_script_and_what_was_started_for_it(home: Home) -> None:
    (home.folder / "long.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    with home.running("run", str(home.folder / "long.py")) as ran:
        assert ran.stdout is not None
        assert ran.stdout.readline() == "begun\n"
        started = psutil.Process(ran.pid).children(recursive=True)
        status, out, _ = end(ran, signal.SIGINT)
        assert (status, out) == (130, "")
        _, alive = psutil.wait_procs(started, timeout=60)
        assert alive == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("gone.py", None, "gone.py can't be read: No such file"), ("bad.py", "x = = 1", "bad.py is no Python that this")],
)
def test_what_is_no_script_is_refused_before_anything_starts(
    home: Home, name: str, text: str | None, words: str
) -> None:
    if text is not None:
        (home.folder / name).write_text(text)
    ran = home.run("run", str(home.folder / name))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert words in ran.stderr
