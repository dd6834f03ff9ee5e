"""A personal cluster whose tasks run in a sandbox: they see the notebook's folder, and little of what is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import p2p_ipython
from p2p_ipython.errors import ConfigError, UsageError
from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.sandbox.launch import MECHANISMS, mechanism
from p2p_ipython.worker.mounts import own_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    made.chmod(0o777)  # root's workers run tasks as somebody else
    (made / "data.txt").write_text("data")
    (made / ".env").write_text("TOKEN=1")
    (made / ".git").mkdir()
    (made / ".git" / "config").write_text("url")
    monkeypatch.chdir(made)
    return made


def attempt(folder: str, outside: str) -> dict[str, str]:
    found = {}
    for name in ("data.txt", ".env", ".git/config", outside):
        try:
            with open(os.path.join(folder, name)) as file:
                found[name] = file.read()
        except OSError as error:
            found[name] = type(error).__name__
    with open(os.path.join(folder, "made.txt"), "w") as file:
        file.write("made")
    return found


@pytest.mark.parametrize("asked", ["auto", "podman"])
def test_tasks_see_the_notebooks_folder_without_dot_files_and_nothing_else(folder: Path, asked: str) -> None:
    names = [name for name in MECHANISMS if name != NO_WALL] if asked == "auto" else [asked]
    if all(mechanism(name).available() is not None for name in names):
        pytest.skip("no such sandbox is installed")
    secret = folder.parent / "secret"
    secret.write_text("x")
    with p2p_ipython.connect(workers=1, sandbox=asked) as cluster:
        found = cluster.submit(attempt, str(folder), str(secret)).result(60)
    assert found.pop("data.txt") == "data"
    assert set(found.values()) <= {"PermissionError", "FileNotFoundError"}
    assert (folder / "made.txt").read_text() == "made"
    assert (folder / ".env").read_text() == "TOKEN=1"


def squares(n: int) -> tuple[list[int], int, str | None, bool]:
    with p2p_ipython.connect("alice/friends") as own:
        values = [own.submit(pow, each, 2).result() for each in range(n)]
        return values, own.slots, os.environ.get("OMP_NUM_THREADS"), own.submit(os.getpid).result() == os.getpid()


@pytest.mark.parametrize("asked", ["bubblewrap", NO_WALL])
def test_a_task_that_connects_gets_its_own_slot_and_one_thread(folder: Path, asked: str) -> None:
    if mechanism(asked).available() is not None:
        pytest.skip("no such sandbox is installed")
    with p2p_ipython.connect(workers=1, sandbox=asked) as cluster:
        future = cluster.submit(squares, 4)
        assert future.result(60) == ([0, 1, 4, 9], 1, "1", True)
        assert future.stderr.count("gives the one slot that the task has") == 1
        assert cluster.submit(sum, [1, 2]).result(60) == 3


def test_a_home_folder_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("P2P_DATA", str(tmp_path / "data"))
    assert own_folder(str(tmp_path)) == ()
    assert own_folder(str(tmp_path.parent)) == ()


def test_a_sandbox_that_nobody_knows_or_of_somebody_elses_worker_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no sandbox called 'jail'"):
        p2p_ipython.connect(workers=1, sandbox="jail")
    with pytest.raises(UsageError, match="workers elsewhere have their own"):
        p2p_ipython.connect("alice/friends", sandbox="auto")
