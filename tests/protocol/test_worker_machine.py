"""The worker's machine, transition by transition: one event, and all that follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from people import certificate

from p2p_ipython.config import Settings
from p2p_ipython.errors import LocalProtocolError
from p2p_ipython.protocol import worker_machine
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Accept, Bye, Hello, Message, Request, Terms
from p2p_ipython.protocol.task_frames import Lost, Nack, Result, Room, Started, TaskFailure
from p2p_ipython.protocol.turns import MAX_HELD, MAX_HELD_PER_MEMBER, WAIT, Job
from p2p_ipython.protocol.worker_machine import (
    ANNOUNCE,
    ANSWER_EVERY,
    MAX_LINKS_PER_MEMBER,
    START_GRACE,
    Forget,
    JobState,
    Meet,
    Reply,
    Say,
    Start,
    Stop,
    WorkerMachine,
)

SETTINGS = Settings()
ME = certificate("w0")
C0, C1 = certificate("c0", "client"), certificate("c1", "client")
C0_TOO = certificate("another of c0's", "client", member="c0")
WALL = 1000.0
RESULT = Result("t", 1, True, ())


def machine(slots: int = 1, *, ready: int | None = None, links: int = 2) -> WorkerMachine:
    """A worker that has said hello, has links 1 and 2 to two clients, and fresh runners in ``ready`` slots."""
    terms = Terms(slots=slots, free=slots, python="3.11")
    made = WorkerMachine(SETTINGS, sid=ME.sid, name="w0", terms=terms, now=0)
    for number in range(slots if ready is None else ready):
        made.slot_ready(number, 0)
    made.tick(0, WALL)
    for number in range(1, links + 1):
        made.heard(C0 if number == 1 else C1, Accept(ME.sid, b"box"), 0, WALL)
        assert made.link_up(number, C0 if number == 1 else C1) == []
    return made


def join(made: WorkerMachine, link: int, client: Certificate, now: float = 0) -> None:
    """Another client's link is made."""
    assert made.heard(client, Accept(ME.sid, b"box"), now, WALL) == [Meet(client, b"box")]
    assert made.link_up(link, client) == []


def ends(made: WorkerMachine, now: float, slot: int = 0) -> list[Any]:
    """The task in the slot ends; what is done then, but for forgetting it."""
    answer, *rest = results(made, now, slot)
    assert isinstance(answer, Reply)
    return [action for action in rest if not isinstance(action, Forget)]


def results(made: WorkerMachine, now: float, slot: int = 0) -> list[Any]:
    """The slot's runner says a result; all that is done then."""
    return made.slot_result(slot, RESULT, b"a value", now)


def answered(link: int = 1) -> Reply:
    return Reply(link, RESULT, b"a value")


def order_of(made: WorkerMachine, count: int, seconds: float = 0.1) -> list[str]:
    """Let the only slot's tasks end, each after so many seconds, until ``count`` have started; which ones."""
    order = []
    for number in range(count):
        (start,) = ends(made, (number + 1) * seconds)
        order.append(start.task)
    return order


def hello(free: int, slots: int = 1, wall: float = WALL) -> Hello:
    return Hello("w0", int(wall), Terms(slots=slots, free=free, python="3.11"))


def nack(task: str, reason: str, link: int = 1, attempt: int = 1) -> list[Any]:
    return [Reply(link, Nack(task, attempt, reason)), Forget(link, task, attempt)]


def running(*tasks: str, slots: int = 1) -> WorkerMachine:
    made = machine(slots)
    for number, task in enumerate(tasks):
        made.task(1, task, 1, 0)
        assert made.current(number) == Job(1, task, 1)
    return made


# --- the board --------------------------------------------------------------------------------------


def test_a_worker_says_hello_when_it_comes_and_again_every_presence_period() -> None:
    made = WorkerMachine(SETTINGS, sid=ME.sid, name="w0", terms=Terms(1, 1, "3.11"), now=5)
    assert made.deadline() == 5
    assert made.tick(5, WALL) == [Say(hello(free=0))]
    assert made.deadline() == 5 + SETTINGS.presence
    assert made.tick(34.9, WALL) == []
    assert made.tick(35, WALL + 30) == [Say(hello(free=0, wall=WALL + 30))]


def test_a_slot_that_is_ready_after_the_first_hello_is_told_of_soon_and_its_next_runners_are_not() -> None:
    made = machine(slots=1, ready=0)
    made.slot_ready(0, 0.4)
    assert made.deadline() == 1
    assert made.tick(1, WALL) == [Say(hello(free=1))]
    made.slot_died(0, killed=False, detail="", now=2)
    made.slot_ready(0, 3)
    assert made.deadline() == 1 + SETTINGS.presence


def test_the_offer_counts_slots_that_are_ready_and_idle() -> None:
    made = machine(3, ready=2)
    assert made.terms().free == 2
    made.task(1, "t", 1, 0)
    assert made.terms().free == 1


@pytest.mark.parametrize("message", [Hello("ada", 0), Request(""), Request("3.11")])
def test_a_newcomer_and_one_who_asks_are_shown_the_offer(message: Message) -> None:
    assert machine().heard(C0, message, 5, WALL) == [Say(hello(free=1))]


@pytest.mark.parametrize("message", [Request("3.12"), Bye(), hello(free=1)])
def test_others_are_not_answered(message: Message) -> None:
    made = machine()
    assert made.heard(C0, message, 5, WALL) == []
    assert made.deadline() == SETTINGS.presence


def test_a_crowd_gets_one_answer_a_second_and_nobody_is_left_out() -> None:
    made = machine()
    assert made.heard(C0, Request(""), 5, WALL) == [Say(hello(free=1))]
    for _ in range(50):
        assert made.heard(C1, Request(""), 5.5, WALL) == []
    assert made.deadline() == 5 + ANSWER_EVERY
    assert made.tick(6, WALL) == [Say(hello(free=1))]
    assert made.deadline() == 6 + SETTINGS.presence


def test_an_accept_leads_to_a_meeting() -> None:
    assert machine().heard(C0, Accept(ME.sid, b"box"), 1, WALL) == [Meet(C0, b"box")]


@pytest.mark.parametrize(
    ("who", "to"),
    [
        pytest.param(C0, certificate("w1").sid, id="for another"),
        pytest.param(certificate("w1"), ME.sid, id="by a worker"),
    ],
)
def test_other_accepts_are_ignored(who: Any, to: bytes) -> None:
    assert machine().heard(who, Accept(to, b"box"), 1, WALL) == []


def test_accepts_beyond_the_links_that_a_worker_may_have_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_machine, "MAX_LINKS", 3)
    made = machine(links=2)
    assert made.heard(C0, Accept(ME.sid, b"box"), 1, WALL) == [Meet(C0, b"box")]
    assert made.heard(C0, Accept(ME.sid, b"box"), 1, WALL) == []
    made.meet_failed(C0)
    assert made.heard(C0, Accept(ME.sid, b"box"), 1, WALL) == [Meet(C0, b"box")]


def test_one_member_has_a_part_of_the_links_only_and_others_are_still_met() -> None:
    made = machine(links=0)
    for number in range(MAX_LINKS_PER_MEMBER - 1):
        join(made, number, C0)
    assert made.heard(C0_TOO, Accept(ME.sid, b"box"), 1, WALL) == [Meet(C0_TOO, b"box")]
    for client in (C0, C0_TOO):
        assert made.heard(client, Accept(ME.sid, b"box"), 1, WALL) == []
    join(made, 99, C1)
    made.meet_failed(C0_TOO)
    assert made.heard(C0, Accept(ME.sid, b"box"), 1, WALL) == [Meet(C0, b"box")]
    made.link_up(98, C0)
    assert made.heard(C0, Accept(ME.sid, b"box"), 1, WALL) == []
    made.link_lost(3, 1)
    assert made.heard(C0, Accept(ME.sid, b"box"), 1, WALL) == [Meet(C0, b"box")]


# --- arrives → running, or held ---------------------------------------------------------------------


def test_a_task_starts_at_once_in_a_free_slot() -> None:
    made = machine()
    assert made.task(1, "t", 1, 0) == [Start(0, 1, "t", 1)]
    assert made.busy()


def test_a_task_waits_for_a_slot_and_starts_when_one_is_free() -> None:
    made = running("t")
    assert made.task(1, "u", 1, 0) == []
    assert results(made, 0.1) == [answered(), Forget(1, "t", 1), Start(0, 1, "u", 1)]


def test_a_task_waits_for_a_runner_and_starts_when_it_is_there() -> None:
    made = machine(ready=0)
    assert made.task(1, "t", 1, 0) == []
    assert made.slot_ready(0, 3) == [Start(0, 1, "t", 1)]


def test_slots_are_never_exceeded() -> None:
    made = machine(2)
    started = [made.task(1, f"t{n}", 1, 0) for n in range(5)]
    assert [len(actions) for actions in started] == [1, 1, 0, 0, 0]


def test_waiting_tasks_of_one_member_start_in_turn_by_link() -> None:
    made = machine()
    join(made, 3, C0_TOO)
    made.task(1, "first", 1, 0)
    for task in ("a", "b", "c"):
        made.task(1, task, 1, 0)
    made.task(3, "x", 1, 0)
    assert order_of(made, 4) in (["a", "x", "b", "c"], ["x", "a", "b", "c"])


def test_a_task_that_comes_twice_is_there_once() -> None:
    made = running("t")
    made.task(1, "u", 1, 0)
    assert made.task(1, "t", 1, 0) == made.task(1, "u", 1, 0) == []
    assert results(made, 0) == [answered(), Forget(1, "t", 1), Start(0, 1, "u", 1)]
    assert results(made, 0) == [answered(), Forget(1, "u", 1)]


def test_tasks_of_two_clients_may_have_the_same_id() -> None:
    made = running("t", slots=2)
    assert made.task(2, "t", 1, 0) == [Start(1, 2, "t", 1)]
    assert made.recall(2, "t", 1, 0) == [Stop(1, "t")]
    assert made.current(0) == Job(1, "t", 1)


def test_a_task_by_a_link_that_is_gone_is_dropped() -> None:
    made = machine()
    made.link_lost(1, 0)
    assert made.task(1, "t", 1, 0) == []


# --- held → nack ------------------------------------------------------------------------------------


def test_what_could_not_start_in_time_is_handed_back() -> None:
    made = running("t")
    made.task(1, "u", 1, 1)
    made.task(1, "v", 1, 1.1)
    made.tick(1, WALL)  # "t" is announced
    assert made.deadline() == 1 + SETTINGS.hold
    assert made.tick(1.2, WALL) == []
    assert made.tick(1.25, WALL) == nack("u", "busy")
    assert made.deadline() == 1.1 + SETTINGS.hold
    assert made.tick(2, WALL) == nack("v", "busy")


def test_while_a_runner_starts_tasks_are_kept() -> None:
    made = machine(ready=0)
    made.task(1, "t", 1, 0)
    assert made.tick(SETTINGS.hold, WALL) == []
    assert made.deadline() == 2 * SETTINGS.hold


def test_more_tasks_than_one_link_may_have_waiting_are_handed_back_at_once() -> None:
    made = machine(ready=0)
    for number in range(MAX_HELD):
        assert made.task(1, f"t{number}", 1, 0) == []
    assert made.task(1, "one more", 1, 0) == nack("one more", "busy")
    assert made.task(2, "another's", 1, 0) == []


def test_a_members_links_together_may_have_only_so_many_waiting() -> None:
    made = machine(ready=0)
    links = range(10, 10 + MAX_HELD_PER_MEMBER // MAX_HELD + 1)
    for link in links:
        join(made, link, C0)
    for link in links[:-1]:
        for number in range(MAX_HELD):
            assert made.task(link, f"t{number}", 1, 0) == []
    assert made.task(links[-1], "one more", 1, 0) == nack("one more", "busy", links[-1])
    assert made.task(2, "another's", 1, 0) == []


# --- whose turn it is -------------------------------------------------------------------------------


def room(link: int, free: int = 1) -> Reply:
    return Reply(link, Room(free))


def waiting(*, at: float = 1, slots: int = 1) -> WorkerMachine:
    """A worker whose slots all run tasks of link 1 since 0; link 2 has got one back at ``at``."""
    made = running(*(f"t{number}" for number in range(slots)), slots=slots)
    made.tick(0.5, WALL)  # announced
    assert made.task(2, "x", 1, at - SETTINGS.hold) == []
    assert made.tick(at, WALL) == nack("x", "busy", 2)
    return made


def test_a_slot_goes_to_the_member_who_has_had_least() -> None:
    made = running("t")
    made.task(1, "u", 1, 0)
    made.task(1, "v", 1, 0)
    for task in ("x", "y", "z"):
        made.task(2, task, 1, 0)
    assert ends(made, 1) == [Start(0, 2, "x", 1)]
    assert ends(made, 1.3) == [Start(0, 2, "y", 1)]  # after 0.3 s, the other one has had 1
    assert ends(made, 2.5) == [Start(0, 1, "u", 1)]
    assert ends(made, 2.6) == [Start(0, 1, "v", 1)]  # 1.1 s and 1.5
    assert ends(made, 3.6) == [Start(0, 2, "z", 1)]


def test_who_comes_is_not_ahead_of_one_who_has_used_what_nobody_wanted() -> None:
    made = running("t")
    for task in ("u", "v"):
        made.task(1, task, 1, 100)
    for task in ("x", "y"):
        made.task(2, task, 1, 100)
    assert ends(made, 101) == [Start(0, 2, "x", 1)]
    assert ends(made, 103) == [Start(0, 1, "u", 1)]


def test_a_member_with_many_links_has_no_more_turns() -> None:
    made = machine()
    join(made, 3, C0_TOO)
    made.task(1, "first", 1, 0)
    for task in ("a", "b", "c"):
        made.task(1, task, 1, 0)
        made.task(3, task.upper(), 1, 0)
        made.task(2, f"his {task}", 1, 0)
    order = order_of(made, 6)
    assert order[::2] == ["his a", "his b", "his c"]
    assert order[1::2] in (["a", "A", "b"], ["A", "a", "B"])


def test_for_whom_it_is_his_turn_a_slot_is_kept_and_he_is_told() -> None:
    made = waiting()
    made.task(1, "u", 1, 1.1)
    assert ends(made, 1.2) == [room(2)]
    assert made.terms().free == 0
    assert made.task(1, "v", 1, 1.25) == []
    assert made.task(2, "x", 2, 1.3) == [Start(0, 2, "x", 2)]


def test_a_kept_slot_may_be_used_by_any_client_of_the_member() -> None:
    made = waiting()
    join(made, 3, certificate("another of c1's", "client", member="c1"))
    made.task(1, "u", 1, 1.1)
    assert ends(made, 1.2) == [room(2)]
    assert made.task(3, "his", 1, 1.3) == [Start(0, 3, "his", 1)]


def test_a_kept_slot_goes_to_others_when_nobody_comes() -> None:
    made = waiting()
    made.task(1, "u", 1, 1.2)
    assert ends(made, 1.2) == [room(2)]
    assert made.deadline() == 1.2 + SETTINGS.hold
    assert made.tick(1.4, WALL) == []
    assert made.tick(1.2 + SETTINGS.hold, WALL) == [Start(0, 1, "u", 1)]


def test_who_passes_gives_the_slot_to_others_at_once() -> None:
    made = waiting()
    made.task(1, "u", 1, 1.1)
    assert ends(made, 1.2) == [room(2)]
    assert made.passed(2, 1.21) == [Start(0, 1, "u", 1)]
    assert made.passed(2, 1.22) == made.passed(9, 1.22) == []


@pytest.mark.parametrize("how", ["passes", "is silent"])
def test_who_did_not_come_waits_no_more_until_he_sends_a_task(how: str) -> None:
    made = waiting()
    for task in ("u", "v"):
        made.task(1, task, 1, 1.25)
    assert ends(made, 1.2) == [room(2)]
    if how == "passes":
        assert made.passed(2, 1.3) == [Start(0, 1, "u", 1)]
    else:
        assert made.tick(1.45, WALL)[0] == Start(0, 1, "u", 1)
    assert ends(made, 1.5) == [Start(0, 1, "v", 1)]
    made.task(2, "x", 2, 1.6)
    assert ends(made, 1.7) == [Start(0, 2, "x", 2)]


def test_a_slot_that_is_kept_counts_as_used() -> None:
    made = waiting()
    made.task(1, "u", 1, 1.2)
    ends(made, 1.2)
    before = made._turns._shares.order(C1.signer, 1.2)[0]
    made.tick(1.2 + SETTINGS.hold, WALL)
    assert made._turns._shares.order(C1.signer, 1.45)[0] == pytest.approx(before - 1 + SETTINGS.hold, rel=1e-2)


def test_a_slot_is_not_kept_for_a_difference_that_is_less_than_its_price() -> None:
    made = running("t")
    made.task(1, "u", 1, 0)
    made.task(2, "x", 1, 0)
    assert ends(made, 0.2) == [Start(0, 2, "x", 1)]
    assert ends(made, 0.3) == [Start(0, 1, "u", 1)]  # link 2 has had 0.1 s, and its next task is on its way


def test_a_member_waits_for_his_next_task_to_come_when_its_turn_is_plain() -> None:
    made = running("t")
    made.task(2, "x", 1, 0)
    ends(made, 5)
    made.task(1, "u", 1, 5)
    assert ends(made, 5.1) == [room(2)]
    assert made.task(2, "y", 1, 5.11) == [Start(0, 2, "y", 1)]


def test_who_waits_is_forgotten_after_a_while() -> None:
    made = waiting(at=1)
    made.tick(1 + WAIT, WALL)
    made.task(1, "u", 1, 1 + WAIT)
    assert ends(made, 1 + WAIT) == [Start(0, 1, "u", 1)]


def test_who_waits_alone_is_told_so_as_not_to_pause_in_vain() -> None:
    made = waiting()
    assert ends(made, 1.1) == [room(2)]


def test_of_several_slots_that_fall_free_each_is_told() -> None:
    made = waiting(slots=3)
    told = [ends(made, 1.1, number) for number in range(3)]
    assert told == [[room(2)], [room(2)], [room(1)]]


def test_a_lost_link_frees_what_was_kept_for_it() -> None:
    made = waiting()
    made.task(1, "u", 1, 1.1)
    assert ends(made, 1.2) == [room(2)]
    assert made.link_lost(2, 1.25) == [Start(0, 1, "u", 1)]


def test_a_runner_that_dies_while_its_slot_is_kept_leaves_nothing_kept() -> None:
    made = waiting()
    made.task(1, "u", 1, 1.1)
    assert ends(made, 1.2) == [room(2)]
    assert made.slot_died(0, killed=True, detail="", now=1.21) == []
    assert made.slot_ready(0, 1.25) == [room(2)]


def test_a_worker_that_closes_keeps_no_slot() -> None:
    made = waiting()
    assert ends(made, 1.2) == [room(2)]
    made.close(1.3)
    assert made.tick(1.5, WALL) == []


def test_a_member_by_himself_is_never_told_of_room() -> None:
    made = machine(links=1)
    join(made, 3, C0_TOO)
    made.task(1, "t", 1, 0)
    made.task(3, "x", 1, 0)
    made.tick(SETTINGS.hold, WALL)
    assert ends(made, 1) == []
    assert made.terms().free == 1


def test_a_member_whose_friends_are_idle_is_not_told_of_room_either() -> None:
    made = running("t")
    made.task(1, "u", 1, 0)
    made.tick(SETTINGS.hold, WALL)
    assert ends(made, 1) == []


# --- running → over ---------------------------------------------------------------------------------


def test_a_task_that_runs_for_long_is_announced_once() -> None:
    made = running("t")
    assert made.deadline() == ANNOUNCE
    assert made.tick(ANNOUNCE, WALL) == [Reply(1, Started("t", 1))]
    assert made.tick(1, WALL) == []


def test_deadlines_are_met_by_their_own_tick_whatever_the_clock_says() -> None:
    """0.1 + 0.25 - 0.1 is less than 0.25 for some clocks: the tick must not come to nothing and be asked for again."""
    for clock in range(1000):
        now = clock / 7
        made = machine()
        made.tick(now, WALL)
        made.task(1, "t", 1, now)
        made.task(1, "u", 1, now)
        for _ in range(3):
            due = made.deadline()
            assert made.tick(due, WALL)
            assert made.deadline() > due


def test_a_result_goes_to_who_sent_the_task() -> None:
    made = machine(2)
    made.task(2, "t", 7, 0)
    assert results(made, 1) == [answered(2), Forget(2, "t", 7)]
    assert made.terms().free == 2


def test_a_task_that_ends_its_process_has_that_for_a_result() -> None:
    made = running("t")
    frame = Result("t", 1, False, (), failure=TaskFailure("died", message="exit code 3"))
    assert made.slot_died(0, killed=False, detail="exit code 3", now=1) == [Reply(1, frame), Forget(1, "t", 1)]


def test_a_task_whose_process_was_killed_is_lost() -> None:
    made = running("t")
    frame = Lost("t", 1, "signal 9")
    assert made.slot_died(0, killed=True, detail="signal 9", now=1) == [Reply(1, frame), Forget(1, "t", 1)]


def test_a_slot_without_a_runner_starts_nothing_until_it_has_one() -> None:
    made = running("t")
    made.slot_died(0, killed=True, detail="", now=1)
    assert made.task(1, "u", 1, 1) == []
    assert made.terms().free == 0
    assert made.slot_ready(0, 2) == [Start(0, 1, "u", 1)]


def test_an_idle_runner_that_dies_concerns_nobody() -> None:
    assert machine().slot_died(0, killed=True, detail="", now=1) == []
    assert results(machine(), 1) == []


# --- recall, and links that are lost ----------------------------------------------------------------


def stopped(task: str = "t", seconds: float | None = None) -> Reply:
    """The word that a recalled task has ended."""
    failure = TaskFailure("interrupted", message="its client has recalled it")
    return Reply(1, Result(task, 1, False, (), seconds, failure=failure))


def test_a_recalled_task_that_waits_is_handed_back() -> None:
    made = running("t")
    made.task(1, "u", 1, 0)
    assert made.recall(1, "u", 1, 0) == [Reply(1, Nack("u", 1, "recalled")), Forget(1, "u", 1)]
    assert made.recall(1, "u", 1, 0) == []
    assert results(made, 0) == [answered(), Forget(1, "t", 1)]


def test_a_recalled_task_that_runs_is_stopped_and_its_result_is_dropped() -> None:
    made = running("t")
    assert made.recall(1, "t", 1, 0) == [Stop(0, "t")]
    assert made.recall(1, "t", 1, 0) == []
    assert (made.current(0), made.busy()) == (None, False)
    assert results(made, 1) == [stopped(), Forget(1, "t", 1)], "the word that it has ended, and nothing of its value"


@pytest.mark.parametrize("killed", [True, False])
def test_a_recalled_task_whose_process_had_to_be_killed_has_ended_then(killed: bool) -> None:
    made = running("t")
    made.recall(1, "t", 1, 0)
    assert made.slot_died(0, killed=killed, detail="", now=1) == [stopped(), Forget(1, "t", 1)]


def test_a_task_that_its_lender_has_stopped_is_spoken_of_once() -> None:
    made = running("t")
    made.stop_all(0)
    assert made.recall(1, "t", 1, 0) == []
    assert results(made, 1) == [Forget(1, "t", 1)]


def test_the_place_of_a_recalled_task_is_free_for_its_clients_next_one() -> None:
    made = running("t")
    made.task(2, "o", 1, 0)
    made.recall(1, "t", 1, 0)
    made.task(1, "u", 1, 0)
    assert results(made, 1)[:2] == [stopped(), Forget(1, "t", 1)]
    assert made.busy()


@pytest.mark.parametrize("what", ["timeout", "task_time"])
def test_a_task_whose_time_was_up_has_failed_with_an_error_of_its_own_kind(what: str) -> None:
    made = running("t")
    detail = "it ran for 5 s"
    failure = TaskFailure(what, "builtins.TimeoutError", message=detail)
    reply, _ = made.slot_died(0, killed=False, detail=detail, now=1, what=what)
    assert reply == Reply(1, Result("t", 1, False, (), failure=failure))


def test_a_slot_is_busy_until_a_recalled_task_has_really_ended() -> None:
    made = running("t")
    made.recall(1, "t", 1, 0)
    assert made.task(1, "u", 1, 0) == []
    assert made.terms().free == 0
    assert results(made, 1) == [stopped(), Forget(1, "t", 1), Start(0, 1, "u", 1)]


def test_a_stopped_task_is_not_announced() -> None:
    made = running("t")
    made.recall(1, "t", 1, 0)
    assert made.tick(1, WALL) == []


@pytest.mark.parametrize(("link", "task", "attempt"), [(2, "t", 1), (1, "u", 1), (1, "t", 2), (9, "t", 1)])
def test_a_recall_of_anything_else_stops_nothing(link: int, task: str, attempt: int) -> None:
    made = running("t")
    assert made.recall(link, task, attempt, 0) == []
    assert made.busy()


def test_a_lost_link_stops_its_tasks_and_no_others() -> None:
    made = machine(2)
    made.task(1, "t", 1, 0)
    made.task(2, "x", 1, 0)
    made.task(1, "u", 1, 0)
    made.task(2, "y", 1, 0)
    assert made.link_lost(1, 1) == [Forget(1, "u", 1), Stop(0, "t")]
    assert made.link_lost(1, 1) == []
    assert made.owner_of(1) is None
    assert made.owner_of(2) == C1
    assert results(made, 2) == [Forget(1, "t", 1), Start(0, 2, "y", 1)]


# --- closing ----------------------------------------------------------------------------------------


def test_a_worker_that_closes_hands_back_what_waits_and_goes_on_with_what_runs() -> None:
    made = running("t")
    made.task(1, "u", 1, 0)
    assert made.close(1) == [Say(Bye()), *nack("u", "closing")]
    assert made.close(1) == []
    assert made.busy()
    assert results(made, 2) == [answered(), Forget(1, "t", 1)]


def test_a_worker_that_closes_takes_nothing_and_offers_nothing() -> None:
    made = machine()
    made.close(1)
    assert made.task(1, "t", 1, 1) == nack("t", "closing")
    assert made.heard(C0, Accept(ME.sid, b"box"), 1, WALL) == []
    assert made.heard(C0, Request(""), 9, WALL) == []
    assert (made.terms().slots, made.terms().free) == (0, 0)
    assert made.tick(made.deadline(), WALL) == []
    assert made.deadline() > SETTINGS.presence


def test_held_tasks_wait_for_a_runner_that_starts_but_not_for_one_that_never_does() -> None:
    made = machine(ready=0)
    made.task(1, "t", 1, 0)
    assert made.tick(SETTINGS.hold, WALL) == []
    assert made.tick(START_GRACE - 0.1, WALL) == []
    assert made.tick(START_GRACE + SETTINGS.hold, WALL) == nack("t", "busy")


# --- pauses -----------------------------------------------------------------------------------------


def test_a_worker_that_pauses_hands_back_what_waits_and_what_runs_goes_on() -> None:
    made = running("t")
    made.task(1, "u", 1, 0)
    assert made.pause(1) == nack("u", "paused")
    assert made.current(0) == Job(1, "t", 1)
    assert results(made, 2) == [answered(), Forget(1, "t", 1)]
    assert made.task(2, "v", 1, 3) == nack("v", "paused", link=2)


def test_a_pause_and_its_end_are_said_at_once() -> None:
    made = machine(2)
    assert made.pause(5) == []
    assert made.deadline() == 5
    paused = Terms(slots=2, free=0, python="3.11", paused=True)
    assert made.tick(5, WALL) == [Say(Hello("w0", int(WALL), paused))]
    assert made.resume(6) == []
    assert made.tick(6, WALL) == [Say(hello(free=2, slots=2))]
    assert made.task(1, "t", 1, 7) == [Start(0, 1, "t", 1)]


def test_to_pause_twice_or_to_go_on_without_a_pause_says_nothing_more() -> None:
    made = machine()
    assert made.resume(1) == []
    made.pause(2)
    made.tick(2, WALL)
    assert made.pause(3) == []
    assert made.deadline() == 2 + SETTINGS.presence


def test_a_worker_that_is_paused_still_meets_who_accepts_and_answers_who_asks() -> None:
    made = machine(links=0)
    made.pause(1)
    made.tick(1, WALL)
    assert made.heard(C0, Accept(ME.sid, b"box"), 2, WALL) == [Meet(C0, b"box")]
    (said,) = made.heard(C1, Request("3.11"), 3, WALL)
    assert isinstance(said, Say)
    assert made.terms().paused


def test_a_slot_that_was_kept_for_somebody_is_not_kept_through_a_pause() -> None:
    made = waiting()
    made.task(1, "u", 1, 1.1)
    assert ends(made, 1.2) == [room(2)]
    made.pause(1.3)
    made.resume(1.4)
    assert made.terms().free == 1
    assert made.task(1, "v", 1, 1.5) == [Start(0, 1, "v", 1)]


def test_who_closes_while_he_is_paused_is_closing() -> None:
    made = machine()
    made.pause(1)
    assert made.close(2) == [Say(Bye())]
    assert made.resume(3) == []
    assert made.task(1, "t", 1, 4) == nack("t", "closing")


# --- for whom ---------------------------------------------------------------------------------------


def test_an_offer_for_some_is_taken_up_by_them_and_by_the_workers_own_member_only() -> None:
    mine, friend, stranger = (certificate(name, "client") for name in ("me", "friend", "stranger"))
    terms = Terms(slots=1, free=1, python="3.11", only=(friend.signer,))
    made = WorkerMachine(SETTINGS, sid=ME.sid, name="w0", terms=terms, now=0, own=lambda signer: signer == mine.signer)
    accept = Accept(ME.sid, b"box")
    assert [made.heard(one, accept, 0, WALL) for one in (mine, friend)] == [
        [Meet(mine, b"box")],
        [Meet(friend, b"box")],
    ]
    assert made.heard(stranger, accept, 0, WALL) == []
    assert made.terms().only == (friend.signer,)


# --- what is said to who lends ----------------------------------------------------------------------


def test_tasks_and_seconds_are_counted_by_member_whatever_becomes_of_them() -> None:
    made = machine(2)
    made.task(1, "t", 1, 10)
    made.task(2, "u", 1, 10)
    results(made, 13)
    made.recall(2, "u", 1, 14)
    assert made.usage == {C0.signer: (1, 3.0)}
    made.slot_died(1, killed=False, detail="told to", now=15)
    assert made.usage == {C0.signer: (1, 3.0), C1.signer: (1, 5.0)}


def test_use_is_counted_for_a_bounded_number_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_machine, "MAX_USERS", 1)
    made = machine()
    for number, link in enumerate([1, 2]):
        made.task(link, "t", 1, number)
        results(made, number)
    assert list(made.usage) == [C1.signer]


def test_an_impossible_step_is_an_error_that_tells_what_came_before() -> None:
    made = machine()
    made.task(1, "t", 1, 0)
    with pytest.raises(LocalProtocolError, match=r"nack leads from running to no over \(after held → slot → nack\)"):
        made._enter(Job(1, "t", 1), JobState.RUNNING, "nack", JobState.OVER)


def test_a_task_that_is_over_leaves_no_story() -> None:
    made = machine()
    for attempt, task in enumerate("abcd", 1):
        made.task(1, task, attempt, 0)
    assert len(made._stories) == 4
    made.recall(1, "b", 2, 0)
    made.link_lost(1, 0)
    made.task(2, "e", 1, 0)
    made.pause(0)
    made.task(2, "f", 1, 0)
    assert [job.task for job in made._stories] == ["a"], "the one that the runner is still ending"
    made.slot_died(0, killed=True, detail="", now=1)
    assert made._stories == {}


# --- the lender's say -------------------------------------------------------------------------------


def test_a_pause_says_its_reason_in_the_offer_and_to_tasks_that_come_all_the_same() -> None:
    made = machine()
    assert made.pause(1, "hours") == []
    assert (made.terms().paused, made.terms().why) == (True, "hours")
    assert made.deadline() == 1  # a hello is due
    assert Reply(1, Nack("t", 1, "paused", "hours")) in made.task(1, "t", 1, 2)
    made.tick(2, WALL)
    made.pause(3)  # by hand, too
    assert (made.terms().why, made.deadline()) == ("", 3)
    made.resume(4)
    assert (made.terms().paused, made.terms().why) == (False, "")


def test_an_offer_that_is_amended_is_said_at_once_and_holds() -> None:
    made = machine()
    assert made.amend(1, not_for=(C1.signer,), input=5) == []
    assert made.deadline() == 1
    (said,) = [action for action in made.tick(1, WALL) if isinstance(action, Say)]
    assert isinstance(said.message, Hello)
    assert said.message.offer is not None
    assert (said.message.offer.not_for, said.message.offer.input) == ((C1.signer,), 5)
    assert made.welcomes(C0.signer)
    assert not made.welcomes(C1.signer)
    made.amend(2, input=5)
    assert made.deadline() > 2  # nothing has changed


def test_a_task_that_the_policy_does_not_take_is_refused_and_forgotten() -> None:
    made = machine()
    assert made.refuse(1, "t", 1, "input", "too large") == [
        Reply(1, Nack("t", 1, "refused", "input", "too large")),
        Forget(1, "t", 1),
    ]


def test_what_runs_is_stopped_by_hand_and_its_owner_hears_of_it_once() -> None:
    made = machine(slots=2)
    made.task(1, "t", 1, 0)
    made.task(2, "u", 1, 0)
    actions = made.stop_all(1)
    stops = [action for action in actions if isinstance(action, Stop)]
    said = {action.link: action.frame for action in actions if isinstance(action, Reply)}
    assert stops == [Stop(0, "t"), Stop(1, "u")]
    assert all(
        isinstance(frame, Result) and frame.failure and frame.failure.what == "stopped" for frame in said.values()
    )
    assert (set(said), made.busy()) == ({1, 2}, 0)
    assert not [action for action in results(made, 2) if isinstance(action, Reply)]
    assert made.stop_all(3) == []
