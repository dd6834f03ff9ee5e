"""``p2p join`` and ``p2p leave`` as programs: what interrupts them, and what they ask before something is lost."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from board_support import make_key
from cli_support import Home, terminal

from p2p_ipython.board.client.address import SSHFiles
from p2p_ipython.board.client.keys import choose_among
from p2p_ipython.members.owner import found
from p2p_ipython.members.profiles import Profiles

JOIN = ("join", "7-guitarist-snowcap-hamburger", "--mailbox", "ws://127.0.0.1:1/v1")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_ctrl_c_ends_join_while_it_offers_to_make_a_key(home: Home) -> None:
    home.key_file.unlink()
    with terminal(home, *JOIN) as shown:
        shown.expect("Make one now")
        shown.type("\x03")
        assert shown.wait() == 130
    assert not home.key_file.exists()


def test_ctrl_c_ends_join_while_it_asks_for_a_passphrase(home: Home) -> None:
    home.key_file.unlink()
    make_key(home.key_file.parent, "id_ed25519", passphrase="the secret")
    with terminal(home, *JOIN) as shown:
        shown.expect("Passphrase of")
        shown.type("\x03")
        assert shown.wait() == 130


def test_a_code_may_be_typed_as_it_is_said_and_a_mailbox_that_has_no_address_is_named(home: Home) -> None:
    done = home.run("join", "7", "guitarist", "snowcap", "hamburgr")
    assert "'hamburgr' is not a word" in done.stderr
    done = home.run("join", "7", "guitarist", "snowcap", "hamburger", "--mailbox", "board.example.org:4000")
    assert "ws://HOST:PORT/v1" in done.stderr


def test_who_is_not_there_is_not_asked_about(home: Home) -> None:
    profiles = Profiles(home.folder / "data" / "clusters")
    files = SSHFiles(folder=home.key_file.parent, config=None, known_hosts=(), accepted=None, agent=False)
    key = choose_among(files, identity=home.key_file)
    profiles.save(found("alice/friends", key, board="localhost:1", host_key="", until=int(time.time()) + 1000))
    done = home.run("revoke", "friends", "bob")
    assert "bob is not in alice/friends" in done.stderr
    assert "nobody to answer" not in done.stderr
    assert "nothing listens" in home.run("doctor", "--cluster", "friends").stdout
    assert "Is it alice/friends" in home.run("worker", "--cluster", "alice/freinds").stderr
    profiles.save(found("alice/localhost", key, board="localhost:1", host_key="", until=int(time.time()) + 1000))
    (home.folder / ".ssh" / "config").write_text("Host localhost\nPort 1\n")
    connecting = [sys.executable, "-c", "import p2p_ipython; p2p_ipython.connect('localhost')"]
    said = subprocess.run(connecting, env=home.environment, capture_output=True, text=True, timeout=60, check=False)
    assert "%p2p_connect alice/localhost" in said.stderr


def test_a_worker_for_no_cluster_in_particular_is_told_to_name_one(home: Home) -> None:
    done = home.run("worker")
    assert done.returncode == 1
    assert "--cluster alice/friends" in done.stderr


def test_who_owns_a_cluster_is_asked_before_it_is_forgotten(home: Home) -> None:
    profiles = Profiles(home.folder / "data" / "clusters")
    files = SSHFiles(folder=home.key_file.parent, config=None, known_hosts=(), accepted=None, agent=False)
    key = choose_among(files, identity=home.key_file)
    profiles.save(found("alice/friends", key, board="localhost:1", host_key="", until=int(time.time()) + 1000))
    with terminal(home, "leave", "friends") as shown:
        shown.expect("can't be hosted again")
        shown.type("\n")
        assert shown.wait() == 1
    assert "--yes" in home.run("leave", "friends").stderr
    assert profiles.find("alice/friends") is not None
    done = home.run("leave", "friends", "--yes")
    assert done.returncode == 0, done.stderr
    assert "alice/friends is forgotten" in done.stdout
    assert profiles.find("alice/friends") is None


def test_a_code_that_is_not_given_is_asked_for_so_that_no_list_of_processes_has_it(home: Home) -> None:
    with terminal(home, "join") as shown:
        shown.expect("the code that you were told: ")
        shown.type("7-guitarist-snowcap-hamburgr\n")
        shown.expect("hamburger")
        assert shown.wait() == 1
    done = home.run("join")
    assert done.returncode == 1
    assert "nothing was answered" in done.stderr
