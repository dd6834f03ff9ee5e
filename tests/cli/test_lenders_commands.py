"""``p2p lending`` without workers: the policy is shown, checked and edited, the log is shown, members are welcomed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cli_support import Home

from p2p_ipython.lending.record import Entry, LendingLog


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def says(home: Home, *arguments: str, status: int = 0, **environment: str) -> str:
    done = home.run("lending", *arguments, **environment)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_a_policy_is_made_checked_and_shown_by_the_users_editor(home: Home, tmp_path: Path) -> None:
    policy = Path(home.environment["P2P_DATA"]) / "lending.toml"
    assert "no policy at" in says(home, "policy")
    assert "is the policy now" in says(home, "policy", "--edit", EDITOR="sed -i s/^#.idle/idle/")
    assert policy.stat().st_mode & 0o777 == 0o600
    assert says(home, "policy").endswith("idle = 600.0\n")
    before = policy.read_text()
    # A mistake is named, and changes nothing; nor does an editor that fails, or that changes nothing.
    said = says(home, "policy", "--edit", status=1, EDITOR="sed -i s/^idle/idel/")
    assert "there is no key 'idel'\nDid you mean idle?" in said
    assert "status 3: the policy is as before" in says(home, "policy", "--edit", status=1, EDITOR="sh -c 'exit 3'")
    assert "the policy is as before" in says(home, "policy", "--edit", VISUAL="true", EDITOR="false")
    assert policy.read_text() == before
    assert sorted(path.name for path in policy.parent.iterdir()) == ["lending.lock", "lending.toml"]

    wrong = tmp_path / "wrong.toml"
    wrong.write_text('\nhours = ["never"]')
    assert f"{wrong}, line 2, column 9: hours: 'never' are no hours" in says(
        home, "policy", "--check", str(wrong), status=1
    )
    assert "is a policy" in says(home, "policy", "--check", str(policy))


def test_the_log_shows_the_last_entries_as_text_that_does_no_harm(home: Home) -> None:
    assert "nothing of a friend's has run here" in says(home, "log")
    log = LendingLog(Path(home.environment["P2P_DATA"]) / "lending.log")
    for number in range(3):
        log.write(Entry(time.time(), "alice/friends", "carol", "SHA256:c", f"\x1b[2Jtask {number}", "ab", "done"))
    lines = says(home, "log", "-n", "2").splitlines()
    assert ["task 1" in lines[0], "task 2" in lines[1], len(lines)] == [True, True, 2]
    assert "\x1b" not in says(home, "log")
    assert len(says(home, "log", "--json").splitlines()) == 3
    assert "nothing of a friend's" in says(home, "log", "--cluster", "other")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 0, "no worker runs on this machine"),
        (("pause",), 1, "no worker runs on this machine"),
        (("pause", "carol"), 2, "pause takes no name"),
        (("log", "--edit"), 2, "are for the policy"),
        (("welcome",), 1, "you are in no cluster"),
    ],
)
def test_what_can_not_be_done_is_said(home: Home, arguments: tuple[str, ...], status: int, words: str) -> None:
    assert words in says(home, *arguments, status=status)
