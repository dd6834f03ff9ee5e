"""Groups of tasks: what they count and estimate, by hand-driven time, and what is kept of them."""

from __future__ import annotations

import gc

import pytest

from p2p_ipython.client.groups import MOST, Groups, remaining, rough


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def groups(slots: int = 2) -> tuple[Groups, Clock, list[str]]:
    clock, touched = Clock(), list[str]()
    return Groups(touched.append, lambda: slots, clock), clock, touched


def test_an_estimate_is_made_of_what_tasks_take_and_of_how_fast_they_come_back() -> None:
    assert remaining(0, 5, 2.0, 2, 10.0) == 0
    assert remaining(10, 0, None, 2, 10.0) is None
    assert remaining(10, 1, None, 2, 10.0) is None
    assert remaining(10, 1, 4.0, 2, 4.0) == 20  # each slot has five of them
    assert remaining(1, 1, 4.0, 8, 4.0) == 4  # one takes as long as it takes, whatever there is besides
    assert remaining(10, 4, 4.0, 2, 20.0) == 50  # they come back every 5 s
    assert remaining(10, 1, 4.0, 0, 4.0) == 40  # nobody is here now


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.1, "1 s"), (9.4, "9 s"), (12, "10 s"), (41, "40 s"), (59, "1 min"), (600, "10 min"), (9000, "2 hours")],
)
def test_an_estimate_is_rough(seconds: float, words: str) -> None:
    assert rough(seconds) == words


def test_a_group_says_how_far_it_is_and_how_it_ended() -> None:
    all_of_them, clock, _ = groups(slots=2)
    group = all_of_them.new("scores", 20)
    assert group.standing.words == "0 of 20 done"
    assert group.standing.state == "running"
    clock.now += 28
    for _ in range(7):
        group.over(seconds=8.0)
    group.over(2, failed=2, seconds=16.0)
    standing = group.standing
    assert (standing.done, standing.failed, standing.over, standing.part) == (7, 2, 9, 0.45)
    assert standing.words == "7 of 20 done, 2 failed, about 45 s"
    clock.now += 40
    group.over(11, cancelled=1, seconds=80.0)
    standing = group.standing
    assert standing.words == "17 of 20 done, 2 failed, 1 cancelled"
    assert (standing.state, standing.ended) == ("failed", clock.now)


def test_those_that_run_again_are_no_longer_counted_and_the_group_goes_on() -> None:
    all_of_them, clock, _ = groups()
    group = all_of_them.new("scores", 4)
    group.over(4, failed=1, cancelled=1, seconds=4.0)
    assert group.ended
    clock.now += 100
    group.anew(failed=1, cancelled=1)
    assert not group.ended
    assert group.standing.words == "2 of 4 done"
    group.over(2, seconds=2.0)
    assert group.standing.state == "done"


def test_of_a_group_without_a_total_only_the_count_is_known() -> None:
    all_of_them, _, _ = groups()
    group = all_of_them.new("lines", None)
    group.over(3, seconds=1.0)
    assert (group.standing.words, group.standing.part, group.standing.left) == ("3 done", None, None)
    group.end()
    assert group.standing.state == "done"


def test_each_change_of_a_group_that_is_shown_is_noted_and_of_others_none() -> None:
    all_of_them, _, touched = groups()
    hidden = all_of_them.new("quick", 1, shown=False)
    hidden.over(1)
    assert touched == []
    group = all_of_them.new("slow", 2)
    group.over(1)
    group.over(1)
    assert touched == [group.id] * 3
    all_of_them.show(hidden)
    assert [each.label for each in all_of_them.all()] == ["slow", "quick"]


def test_only_so_many_groups_are_shown_and_those_that_are_over_go_first() -> None:
    all_of_them, _, touched = groups()
    first = all_of_them.new("first", 1)
    made = [all_of_them.new(f"group {number}", 1) for number in range(MOST - 1)]
    made[4].over(1)
    all_of_them.new("one more", 1)
    assert len(all_of_them.all()) == MOST
    assert all_of_them.get(made[4].id) is None
    assert touched[-1] == made[4].id
    assert all_of_them.get(first.id) is first
    all_of_them.new("and another", 1)
    assert all_of_them.get(first.id) is None


def test_a_row_of_a_group_keeps_its_owner_not_alive() -> None:
    class Owner:
        def __init__(self, all_of_them: Groups) -> None:
            self.done: list[str] = []
            self.group = all_of_them.new("mine", 2, cancel=self.cancel, again=self.again)

        def cancel(self) -> None:
            self.done.append("cancel")

        def again(self) -> None:
            self.done.append("again")

    all_of_them, _, _ = groups()
    owner = Owner(all_of_them)
    group = owner.group
    assert (group.may_cancel, group.may_again) == (True, False)
    group.cancel()
    group.over(2, failed=1)
    assert (group.may_cancel, group.may_again) == (False, True)
    group.again()
    assert owner.done == ["cancel", "again"]
    del owner
    gc.collect()
    assert (group.may_cancel, group.may_again) == (False, False)
    group.again()
