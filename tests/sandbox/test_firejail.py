"""The profile that firejail gets, as text. That it holds is in tests/attacks."""

from __future__ import annotations

import pytest

from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.mechanisms.firejail import profile

ROOT = ("bin", "home", "lib64", "opt", "proc", "run", "srv", "tmp", "usr", "work")


def lines(*shown: str, written: str = "/tmp/p2p-1/home", homes: tuple[str, ...] = ("/home/alice",)) -> list[str]:
    return profile(shown, (written,), homes, ROOT).splitlines()


def test_all_of_the_root_is_hidden_but_programs_and_what_holds_something_that_is_shown() -> None:
    hidden = {line.split()[1] for line in lines("/opt/python") if line.startswith("blacklist")}
    assert hidden == {"/home", "/home/alice", "/srv", "/work", "/dev/shm", "/sys"}


def test_what_holds_something_that_is_shown_can_be_written_to_in_the_scratch_folder_only() -> None:
    found = lines("/opt/python")
    assert [line for line in found if line.startswith("read-")] == [
        "read-only /opt",
        "read-only /tmp",
        "read-write /tmp/p2p-1/home",
    ]
    assert {"whitelist /opt/python", "whitelist /tmp/p2p-1/home"} < set(found)


def test_a_python_in_the_home_shows_nothing_else_of_the_home() -> None:
    found = lines("/home/alice/p2p")
    assert "whitelist /home/alice/p2p" in found
    assert not any(line in found for line in ("blacklist /home", "blacklist /home/alice", "whitelist /home/alice"))


def test_a_home_elsewhere_is_hidden_too() -> None:
    assert "blacklist /tmp/alice" in lines(homes=("/tmp/alice",))


def test_the_systems_own_is_not_named() -> None:
    assert not any("/usr/lib/python3" in line for line in lines("/usr/lib/python3", "/usr"))


@pytest.mark.parametrize("name", ["a*", "a?", "[a]", "${HOME}", "a\nwhitelist /home", "a,b", "~"])
def test_a_path_that_means_more_than_itself_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="firejail can't show"):
        lines(f"/opt/{name}")
