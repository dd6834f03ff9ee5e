"""What is said of a worker that a notebook has started, and what such a worker says of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2p_ipython import errors
from p2p_ipython.client.lending import _failure
from p2p_ipython.client.lending_state import LIVE, LendingState, lending_text
from p2p_ipython.errors import NoKey, P2PError

STATE = LendingState("lend-1", "alice/friends", "desk", "lending")


@pytest.mark.parametrize("state", [state for state in LIVE if state in ("lending", "paused")])
def test_who_lends_reads_what_it_means_and_how_to_end_it(state: str) -> None:
    text = lending_text(replace(STATE, state=state))
    assert "Tasks run as you, with your files in reach" in text
    assert "%p2p_lend --stop" in text
    assert ("%p2p_lend --resume" if state == "paused" else "%p2p_lend --pause") in text


def test_conditions_and_use_are_said_where_there_are_any() -> None:
    assert lending_text(STATE).startswith("desk lends 1 slot to alice/friends; nothing runs now.\n")
    usage = {"SHA256:a": (2, 3.4), "SHA256:b": (1, 1.0)}
    full = replace(STATE, slots=3, busy=1, only=("bob", "carol"), tags=("gpu",), usage=usage, words="nobody is here")
    first, second, *_ = lending_text(full).split("\n")
    assert first == (
        "desk (gpu) lends 3 slots to alice/friends, to bob, carol only; 1 runs now. Run so far: 3 tasks, 4 s."
    )
    assert second == "(nobody is here)"
    assert ", until " in lending_text(replace(STATE, until=1e9))


def test_what_is_shared_is_said_beside_what_is_out_of_reach() -> None:
    walled = replace(STATE, sandbox="bubblewrap")
    assert "your files, keys and network are out of their reach.\n" in lending_text(walled)
    shared = lending_text(replace(walled, mounts="/data (to read and write, shared by all who are lent to)"))
    assert "out of their reach, but for /data (to read and write, shared by all who are lent to).\n" in shared
    assert "out of their reach. They have the internet.\n" in lending_text(replace(walled, network=True))
    both = replace(walled, network=True, cards="2 × NVIDIA A40")
    assert "out of their reach. They have the internet and 2 × NVIDIA A40.\n" in lending_text(both)


def test_what_is_over_says_why() -> None:
    failed = replace(STATE, state="failed", words="alice has taken you out")
    assert failed.is_over
    assert lending_text(failed) == "This machine is not lent to alice/friends any more: alice has taken you out"
    assert "not lent to alice/friends any more" in lending_text(replace(STATE, state="ended"))
    assert "takes no more tasks" in lending_text(replace(STATE, state="ending", busy=2))


def test_an_error_of_a_worker_is_the_one_that_it_raised() -> None:
    error = _failure({"failed": {"kind": "NoKey", "message": "no key", "hint": "make one"}})
    assert isinstance(error, NoKey)
    assert (error.message, error.hint) == ("no key", "make one")
    assert _failure({"state": "lending"}) is None


@pytest.mark.parametrize("kind", [*errors.__dict__, "", "no such thing", None])
def test_whatever_a_worker_calls_its_error_one_of_ours_is_raised(kind: str | None) -> None:
    assert isinstance(_failure({"failed": {"kind": kind, "message": "m", "hint": ""}}), P2PError)
