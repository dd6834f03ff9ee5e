"""A personal cluster keeps nothing, so it needs no home folder; what must keep something says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_ipython.config import data_dir
from p2p_ipython.errors import ConfigError
from p2p_ipython.members.profiles import Profiles
from tests.notebook.kernels import connected

CLUSTER = """
import p2p_ipython
with p2p_ipython.connect(workers=1) as cluster:
    print(cluster.submit(pow, 2, 5).result(120))
"""

# Another user's id that the system doesn't know. It may read all, so as to find this Python, and write nothing.
CAPABILITY = "+dac_read_search"
AS_NOBODY = (
    *("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"),
    *("--inh-caps", CAPABILITY, "--ambient-caps", CAPABILITY),
)


def may_become_nobody() -> bool:
    return shutil.which("setpriv") is not None and not subprocess.call([*AS_NOBODY, "true"], stderr=subprocess.DEVNULL)


as_nobody = pytest.mark.skipif(not may_become_nobody(), reason="needs root, and setpriv")


def run(*command: str, home: Path | str | None, temporary: Path) -> subprocess.CompletedProcess[str]:
    left_out = ("P2P_", "XDG_", "HOME", "USER", "LOGNAME", "SSH_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    env |= {"TMPDIR": str(temporary)} | ({"HOME": str(home)} if home is not None else {})
    return subprocess.run(command, env=env, cwd=temporary, capture_output=True, text=True, timeout=180)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.mark.parametrize(
    ("home", "prefix"),
    [
        pytest.param("/dev/null/none", (), id="that isn't there"),
        pytest.param(None, AS_NOBODY, id="of nobody", marks=as_nobody),
        pytest.param("mine", AS_NOBODY, id="of somebody else", marks=as_nobody),
    ],
)
def test_a_personal_cluster_works_without_a_home(
    home: str | None, prefix: tuple[str, ...], tmp_path: Path, temporary: Path
) -> None:
    if home == "mine":
        (tmp_path / "mine" / ".ssh").mkdir(mode=0o700, parents=True)
        (tmp_path / "mine").chmod(0o700)
        home = str(tmp_path / "mine")
    done = run(*prefix, sys.executable, "-c", CLUSTER, home=home, temporary=temporary)
    assert (done.stdout, done.stderr, done.returncode) == ("32\n", "", 0)
    assert not list(temporary.iterdir())


def test_a_personal_cluster_reads_no_ssh_configuration_and_leaves_the_home_as_it_was(
    tmp_path: Path, temporary: Path
) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    (home / ".ssh" / "config").write_text("Host *\n  ProxyJump nowhere.invalid\n")
    done = run(sys.executable, "-c", CLUSTER, home=home, temporary=temporary)
    assert (done.stdout, done.stderr, done.returncode) == ("32\n", "", 0)
    assert [str(path.relative_to(home)) for path in sorted(home.rglob("*"))] == [".ssh", ".ssh/config"]


def test_a_notebook_connects_without_a_home() -> None:
    with connected(environment={"HOME": "/dev/null/none", "PATH": os.environ["PATH"]}) as book:
        assert book.run("%%p2p --wait\n6 * 7").value == "42"


@pytest.mark.parametrize(
    ("home", "prefix", "said"),
    [
        pytest.param("/dev/null/none", (), "/dev/null/none", id="that isn't there"),
        pytest.param(None, AS_NOBODY, "Set P2P_DATA to a folder of yours", id="of nobody", marks=as_nobody),
    ],
)
@pytest.mark.parametrize("command", [("board", "--port", "0"), ("members", "alice/friends")], ids=" ".join)
def test_what_must_be_kept_needs_a_place_and_says_so(
    command: tuple[str, ...], home: str | None, prefix: tuple[str, ...], said: str, temporary: Path
) -> None:
    done = run(*prefix, sys.executable, "-m", "p2p_ipython.cli", *command, home=home, temporary=temporary)
    assert done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(("name", "variable"), [("data_dir", "P2P_DATA"), ("cache_dir", "P2P_CACHE")])
@as_nobody
def test_each_folder_of_a_user_without_a_home_is_asked_for_by_its_variable(
    name: str, variable: str, temporary: Path
) -> None:
    look = (
        f"from p2p_ipython import config\ntry: config.{name}()\nexcept config.ConfigError as error: print(error.hint)"
    )
    done = run(*AS_NOBODY, sys.executable, "-c", look, home=None, temporary=temporary)
    assert (done.stdout, done.stderr) == (f"Set {variable} to a folder of yours.\n", "")


def test_the_data_folder_is_made_when_something_is_kept_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2P_DATA", str(tmp_path / "data"))
    assert data_dir() == tmp_path / "data"
    assert Profiles().all() == []
    assert not data_dir().exists()
    with pytest.raises(ConfigError):
        Profiles().load("alice/friends")
    assert data_dir().stat().st_mode & 0o777 == 0o700
