"""What a lender may share with tasks, and what is refused. That tasks see it is in tests/attacks."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.launch import LaunchOptions, Mount
from p2p_ipython.sandbox.mechanisms.python_files import python_files
from p2p_ipython.worker.mounts import mounts_text, read_mounts
from p2p_ipython.worker.sandboxes import choose


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a home folder with keys, data of ours and a project."""
    home = tmp_path / "people" / "alice"
    for folder in (".ssh/keys", ".local/share/p2p_ipython/clusters", "project/data"):
        (home / folder).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("P2P_DATA", str(home / ".local/share/p2p_ipython"))
    return home


def test_a_mount_is_read_only_unless_it_says_otherwise(home: Path) -> None:
    project, one = home / "project", home / "one:file"
    project.chmod(0o777)
    one.write_text("")
    assert read_mounts([f"{project}"]) == read_mounts([f"{project}:ro"]) == (Mount(str(project)),)
    assert read_mounts(["~/project:rw", str(one)]) == (Mount(str(project), writable=True), Mount(str(one)))
    text = mounts_text(read_mounts(["~/project:rw", str(one)]))
    assert text == f"{project} (to read and write, shared by all who are lent to) and {one} (to read)"


def test_a_link_stands_for_the_place_that_it_leads_to(home: Path) -> None:
    (home / "link").symlink_to("project")
    assert read_mounts([f"{home}/link"]) == (Mount(str(home / "project")),)
    (home / "keys").symlink_to(".ssh")
    with pytest.raises(ConfigError, match="SSH keys"):
        read_mounts([f"{home}/keys"])


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("~/nothing", "there is no"),
        ("~", "is your home folder"),
        ("~/..", "home folder, with your keys, is in it"),
        ("/", "home folder, with your keys, is in it"),
        ("~/.ssh", "your SSH keys are in"),
        ("~/.ssh/keys", "your SSH keys are in"),
        ("~/.local/share/p2p_ipython", "p2p keeps its keys"),
        ("~/.local/share/p2p_ipython/clusters", "p2p keeps its keys"),
        ("~/.local", "p2p keeps its keys"),
        ("/proc", "the system's own"),
        ("/usr/lib", "the system's own"),
        ("/dev/null", "neither a folder nor a file"),
    ],
)
@pytest.mark.parametrize("how", ["", ":ro", ":rw"])
def test_what_no_lender_can_mean_to_share_is_refused(home: Path, place: str, why: str, how: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        read_mounts([place + how])
    assert "can't be shared" in caught.value.message or caught.value.hint


def test_the_folder_of_all_sockets_of_agents_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/var/nobody")
    monkeypatch.setenv("P2P_DATA", "/var/nobody/p2p")
    with pytest.raises(ConfigError, match="the system's own"):
        read_mounts(["/tmp"])


def test_a_socket_is_no_mount(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind("agent")
        with pytest.raises(ConfigError, match="neither a folder nor a file"):
            read_mounts([f"{home}/agent"])


def test_no_mount_lies_in_another(home: Path) -> None:
    (home / "project").chmod(0o777)
    for texts in (["~/project:rw", "~/project/data"], ["~/project/data", "~/project"], ["~/project", "~/project:rw"]):
        with pytest.raises(ConfigError, match="one is in the other"):
            read_mounts(texts)


def test_tasks_get_no_hand_on_the_workers_python(home: Path) -> None:
    package = python_files().package
    with pytest.raises(ConfigError, match="the worker's own Python"):
        read_mounts([f"{package}:rw"])
    with pytest.raises(ConfigError, match="the worker's own Python"):
        read_mounts([f"{package / 'task'}:rw"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's tasks run as another user")
def test_root_learns_what_its_tasks_may_not_do(home: Path) -> None:
    (home / "project").chmod(0o755)
    assert read_mounts(["~/project"])
    with pytest.raises(ConfigError, match="may not write to it") as caught:
        read_mounts(["~/project:rw"])
    assert "chmod o+rwx" in caught.value.hint
    (home / "project").chmod(0o750)
    with pytest.raises(ConfigError, match="may not read it"):
        read_mounts(["~/project"])


@pytest.mark.parametrize(("asked", "friends"), [("process", True), ("process", False), ("", False)])
async def test_without_walls_a_mount_is_refused(asked: str, friends: bool, tmp_path: Path) -> None:
    options = LaunchOptions(mounts=(Mount(str(tmp_path)),))
    with pytest.raises(ConfigError, match="your files are in reach anyway"):
        await choose(asked, lends_to_others=friends, options=options, settings=Settings())
