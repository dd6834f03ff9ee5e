"""``p2p run`` and ``%%p2p`` with packages: options, a script's metadata, and what an error says of a missing one."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import Home
from packages_support import Index, needs_uv

SCRIPT = """# /// script
# requires-python = ">=3.11"
# dependencies = ["tiny<2"]
# ///
import tiny
print(tiny.version)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    needs_uv()
    index = Index(tmp_path / "index")
    for version in ("1.0", "2.0"):
        index.wheel("tiny", version)
    made = Home(tmp_path)
    made.environment |= {**index.environment, "P2P_CACHE": str(tmp_path / "cache")}
    return made


def test_a_script_has_the_packages_that_it_and_its_starter_ask_for(home: Home) -> None:
    work = home.folder / "work.py"
    work.write_text(SCRIPT)
    ran = home.run("run", str(work))
    assert (ran.stdout, ran.returncode) == ("1.0\n", 0), ran.stderr
    ran = home.run("run", "--with", "tiny>=1.5,<3", str(work))  # the option's wins
    assert (ran.stdout, ran.returncode) == ("2.0\n", 0), ran.stderr
    assert not list(home.folder.glob("cache/environments/*/*.new"))


def test_a_script_that_lacks_a_package_says_how_it_is_had(home: Home) -> None:
    work = home.folder / "work.py"
    work.write_text("import tiny\nimport absent_here\n")
    ran = home.run("run", str(work))
    assert "ModuleNotFoundError: No module named 'tiny'" in ran.stderr
    assert "p2p: tiny is not installed there: p2p run --with tiny has it installed first." in ran.stderr
    ran = home.run("run", "--with", "absent-here", str(work))
    assert ran.returncode == 1
    assert "packages of the task could not be installed on worker-1: absent-here: Because " in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--with", "tiny @ https://example.org/x.whl"],
            "names a place, and packages come from the lender's own index",
        ),
        (["--with=-e ."], "is an option, and no package"),
        (["--python", "four"], "is no version of Python"),
    ],
)
def test_what_can_not_be_asked_for_is_said_before_anything_starts(home: Home, arguments: list[str], words: str) -> None:
    (home.folder / "work.py").write_text("1")
    ran = home.run("run", *arguments, str(home.folder / "work.py"))
    assert ran.returncode != 0
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_python_that_no_worker_has_is_said_with_those_that_are_there(home: Home) -> None:
    (home.folder / "work.py").write_text("1")
    ran = home.run("run", "--python", "3.99", str(home.folder / "work.py"), P2P_REQUEST_EVERY="0.2")
    assert ran.returncode == 1
    assert "no worker has python 3.99, which this task needs (here: 3." in ran.stderr
