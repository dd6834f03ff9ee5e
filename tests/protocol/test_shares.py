"""Whose turn it is: members by their recent use of a worker's slots."""

from __future__ import annotations

import pytest

from p2p_ipython.protocol import shares
from p2p_ipython.protocol.shares import AT_LEAST, HALF_LIFE, Shares


def used(**seconds: float) -> Shares:
    """Members who have had one slot for so long, each until now (0)."""
    made = Shares()
    for member, time in seconds.items():
        made.begin(member, -time)
    for member, time in seconds.items():
        made.end(member, -time, 0)
    return made


def turns(made: Shares, *members: str, now: float = 0) -> list[str]:
    return sorted(members, key=lambda member: made.order(member, now))


def test_who_has_used_least_is_first() -> None:
    assert turns(used(a=5, b=3, c=4), "a", "b", "c", "d") == ["d", "b", "c", "a"]


def test_of_equals_who_was_served_longest_ago_is_first() -> None:
    made = used(a=0, b=0, c=0)
    assert turns(made, "c", "b", "a") == ["a", "b", "c"]
    made.begin("a", 0)
    made.end("a", 0, 0)
    assert turns(made, "c", "b", "a") == ["b", "c", "a"]


def test_a_slot_that_is_his_counts_with_the_time_that_has_passed() -> None:
    made = used(a=5)
    made.begin("b", 0)
    assert turns(made, "a", "b", now=4) == ["b", "a"]
    assert turns(made, "a", "b", now=6) == ["a", "b"]


def test_slots_that_fall_free_together_are_not_all_one_members() -> None:
    made, got = used(a=0.3, b=0.2), []
    for _ in range(4):
        (member, _) = turns(made, "a", "b")
        made.begin(member, 0)
        got.append(member)
    assert got == ["b", "a", "b", "a"]
    assert made.order("a", 0)[0] == pytest.approx(0.3 + 2 * AT_LEAST, rel=1e-3)


def test_two_slots_for_a_second_are_one_for_two() -> None:
    made = used(b=2)
    made.begin("a", -1)
    made.begin("a", -1)
    made.end("a", -1, 0)
    made.end("a", -1, 0)
    assert made.order("a", 0)[0] == pytest.approx(made.order("b", 0)[0], rel=1e-2)


def test_half_of_a_use_is_forgotten_in_its_time() -> None:
    made = used(a=10)
    assert made.order("a", HALF_LIFE)[0] == pytest.approx(made.order("a", 0)[0] / 2)


def test_however_long_a_task_ran_nobody_waits_for_longer_than_is_remembered() -> None:
    made = used(a=30 * 24 * 3600)
    made.begin("b", 0)
    assert turns(made, "a", "b", now=0.9 * HALF_LIFE) == ["b", "a"]
    assert turns(made, "a", "b", now=1.1 * HALF_LIFE) == ["a", "b"]


def test_who_comes_starts_level_with_the_first_of_those_who_wait() -> None:
    made = used(a=100, b=50)
    made.level("c", {"a", "b"}, 0)
    assert made.order("c", 0)[0] == pytest.approx(made.order("b", 0)[0])
    assert turns(made, "a", "b", "c") == ["c", "b", "a"]


def test_nobody_is_owed_anything_where_nobody_waited() -> None:
    made = used(a=100, b=50)
    made.level("c", set(), 0)
    uses = [made.order(member, 0)[0] for member in "abc"]
    assert uses == pytest.approx([uses[0]] * 3)


def test_who_comes_keeps_what_he_has_used_above_that() -> None:
    made = used(a=100, b=50)
    before = made.order("a", 0)
    made.level("a", {"b"}, 0)
    assert made.order("a", 0) == before


def test_level_counts_what_runs_by_its_time_only() -> None:
    """A short task that has just begun must not put who comes a second behind."""
    made = Shares()
    made.begin("a", 0)
    made.level("b", {"a"}, 0.1)
    assert made.order("b", 0.1)[0] == pytest.approx(0.1, rel=1e-3)


def test_members_of_long_ago_are_forgotten_but_never_one_who_has_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MAX_REMEMBERED", 3)
    made = Shares()
    made.begin("runs", 0)
    for number in range(10):
        made.begin(f"m{number}", 0)
        made.end(f"m{number}", 0, 1)
    assert list(made._accounts) == ["runs", "m7", "m8", "m9"]
