"""Who watches is woken once, and finds what has changed since he looked last."""

from __future__ import annotations

import logging

import pytest

from p2p_ipython.client.follow import Changes, Feed

NOTHING = Changes(frozenset(), frozenset(), facts=False)


def test_a_follower_is_woken_by_the_first_change_only_until_he_looks() -> None:
    woken: list[int] = []
    feed = Feed()
    follower = feed.follow(lambda: woken.append(1))
    feed.task("a")
    feed.task("b")
    feed.session(b"s")
    feed.facts()
    assert len(woken) == 1
    assert follower.take() == Changes(frozenset("ab"), frozenset([b"s"]), facts=True)
    feed.facts()
    assert len(woken) == 2


def test_there_is_nothing_after_it_was_taken() -> None:
    feed = Feed()
    follower = feed.follow(lambda: None)
    feed.task("a")
    follower.take()
    assert follower.take() == NOTHING
    assert not follower.take()


def test_each_follower_has_his_own() -> None:
    feed = Feed()
    one = feed.follow(lambda: None)
    feed.task("a")
    other = feed.follow(lambda: None)
    feed.task("b")
    one.take()
    assert other.take().tasks == frozenset("b")


def test_what_happened_before_is_not_told() -> None:
    feed = Feed()
    feed.task("a")
    assert feed.follow(lambda: None).take() == NOTHING


def test_who_has_closed_is_told_nothing_any_more() -> None:
    woken: list[int] = []
    feed = Feed()
    follower = feed.follow(lambda: woken.append(1))
    follower.close()
    follower.close()
    feed.task("a")
    feed.session(b"s")
    feed.facts()
    assert not woken
    assert follower.take() == NOTHING


def test_a_follower_that_fails_keeps_nobody_else_from_being_woken(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise RuntimeError("a bug of whoever watches")

    woken: list[int] = []
    feed = Feed()
    feed.follow(fails)
    feed.follow(lambda: woken.append(1))
    with caplog.at_level(logging.ERROR):
        feed.task("a")
    assert woken
    assert "could not tell a follower" in caplog.text


def test_a_follower_may_close_while_he_is_woken() -> None:
    feed = Feed()
    follower = feed.follow(lambda: follower.close())
    feed.task("a")
    assert feed.followers == ()
