"""Tasks with needs of their own are sent to those who have them, by priority, and again after errors of their own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from people import certificate

from p2p_ipython.config import Settings
from p2p_ipython.protocol.client_machine import Action, ClientMachine, Note, Say, Send, Settle, TaskState
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import CardKind, Hello, Request, Terms
from p2p_ipython.protocol.needs import ANY, Needs, Queue
from p2p_ipython.protocol.placement import TaskSpec
from p2p_ipython.protocol.retries import error_words, is_among
from p2p_ipython.protocol.task_frames import Lost, Result, Room, TaskFailure

ALICE, BOB, BOBS_OTHER = certificate("alice"), certificate("bob"), certificate("bobs other")
GIB = 1 << 30


def machine(**offers: dict[str, Any]) -> ClientMachine:
    """A machine of a shared cluster with links to these workers, each its member's; each has one slot."""
    certificates = {"alice": ALICE, "bob": BOB, "bobs": BOBS_OTHER}
    names = {each.signer: name.rstrip("s") for name, each in certificates.items()}
    made = ClientMachine(Settings(), now=0, named=lambda signer: names.get(signer, ""))
    for name, terms in offers.items():
        who = certificates[name]
        called = "bob (desktop)" if name == "bobs" else name
        made.heard(who, Hello(called, 0, Terms(**({"slots": 1, "free": 1, "python": "3.11"} | terms))), 0)
        made.link_up(who.sid, 0)
    return made


def sent(actions: list[Action]) -> dict[str, bytes]:
    return {action.task: action.sid for action in actions if isinstance(action, Send)}


# --- needs and offers ---


@pytest.mark.parametrize(
    ("needs", "worker"),
    [
        ({"tags": ("gpu",)}, BOB),
        ({"tags": ("gpu", "home")}, BOB),
        ({"on": ("alice",)}, ALICE),
        ({"on": ("bob",)}, BOB),
        ({"memory": 4 * GIB}, BOB),
        ({"gpus": 2}, BOB),
        ({"on": ("nobody", "alice")}, ALICE),
    ],
)
def test_a_task_goes_to_the_worker_that_has_its_needs(needs: dict[str, Any], worker: Certificate) -> None:
    cards = (CardKind(3, "A40"), CardKind(1, "K80"))
    made = machine(
        alice={"slots": 9, "task_memory": 2 * GIB},  # which has more room
        bob={"tags": ("gpu", "home"), "task_memory": 4 * GIB, "cards": cards, "slots": 2},
    )
    assert sent(made.submit(TaskSpec("t", **needs), 0)) == {"t": worker.sid}


def test_a_worker_may_be_named_as_the_status_shows_it() -> None:
    made = machine(bob={}, bobs={})
    for number in range(2):
        made.submit(TaskSpec(f"t{number}", on=("bob (desktop)",)), 0)
    assert [made.state(f"t{number}") for number in range(2)] == [TaskState.SENT, TaskState.WAITING]
    assert made.worker_of("t0") is made.workers[BOBS_OTHER.sid]


def test_a_name_that_a_worker_gives_itself_is_no_members() -> None:
    """A stranger whose worker is called bob gets none of the tasks for bob."""
    made = machine(alice={})
    made.heard(ALICE, Hello("alice (bob)", 0, Terms(1, 1, "3.11")), 0)
    made.submit(TaskSpec("t", on=("bob",)), 0)
    assert made.state("t") is TaskState.WAITING


def test_an_offer_that_does_not_say_how_much_memory_a_task_gets_has_enough() -> None:
    assert sent(machine(bob={}).submit(TaskSpec("t", memory=1 << 50), 0)) == {"t": BOB.sid}


def test_tasks_that_nobody_can_take_keep_none_of_the_others_waiting() -> None:
    made = machine(bob={})
    for number in range(200):
        made.submit(TaskSpec(f"t{number}", tags=(f"tag{number % 150}",)), 0)
    assert sent(made.submit(TaskSpec("u"), 0)) == {"u": BOB.sid}


def test_the_queues_of_needs_that_nothing_has_any_more_are_forgotten() -> None:
    made = machine(bob={"tags": ("a",)})
    for number in range(1000):
        made.submit(TaskSpec("t", tags=(f"b{number}",)), 0)
        made.cancel("t", 0)
    assert len(made._queues) <= 64


def test_one_task_without_a_worker_never_fails_for_want_of_a_tag() -> None:
    made = machine(bob={})
    made.submit(TaskSpec("t", tags=("gpu",)), 0)
    for now in range(0, 4000, 40):
        made.heard(BOB, Hello("bob", 0, Terms(1, 1, "3.11")), now)
        assert not [action for action in made.tick(now) if isinstance(action, Settle)]
    assert sent(made.heard(BOB, Hello("bob", 0, Terms(1, 1, "3.11", tags=("gpu",))), 4000)) == {"t": BOB.sid}


def test_a_worker_with_room_hears_that_nothing_is_for_it() -> None:
    made = machine(bob={})
    made.submit(TaskSpec("t", tags=("gpu",)), 0)
    assert [type(action).__name__ for action in made.frame(BOB.sid, Room(1), 0)] == ["Tell"]


def test_the_board_is_asked_once_for_all_needs() -> None:
    made = machine()
    made.submit(TaskSpec("a", tags=("gpu",)), 0)
    asked = made.submit(TaskSpec("b", on=("bob",)), 0) + made.tick(60)
    assert [action for action in asked if isinstance(action, Say)] == [Say(Request(""))]


# --- what is said meanwhile ---


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"tags": ("gpu",)}, "waiting for a worker with tag gpu; here: alice (no tags), bob (tags: home)"),
        ({"tags": ("home", "gpu", "ssd")}, "with tags home, gpu, ssd; here: alice (no tags), bob (tags: home)"),
        ({"on": ("bob",), "tags": ("home", "gpu")}, "waiting for bob's worker with tag gpu; here: bob (tags: home)"),
        ({"on": ("carol",)}, "waiting for carol's worker; here: alice, bob"),
        ({"on": ("carol", "bob (desktop)")}, "waiting for carol's worker or bob (desktop); here: alice, bob"),
        ({"memory": 8 * GIB}, "a worker with 8 GiB of memory for a task; here: alice (4 GiB of memory), bob (2 GiB"),
        ({"gpus": 1}, "with 1 graphics card for a task; here: alice (no graphics card), bob (no graphics card)"),
        (
            {"python": "3.12", "tags": ("home",)},
            "with python 3.12 and tag home; here: alice (python 3.11; no tags), bob (python 3.11; tags: home)",
        ),
        ({"python": "3.12"}, "waiting for a worker with python 3.12 (here: 3.11)"),
    ],
)
def test_a_task_that_nobody_can_take_says_what_is_missing(needs: dict[str, Any], words: str) -> None:
    made = machine(alice={"task_memory": 4 * GIB}, bob={"tags": ("home",), "task_memory": 2 * GIB})
    made.submit(TaskSpec("t", **needs), 0)
    assert words in made.why("t")
    assert [needs.key() for needs in made.wanted()] == [TaskSpec("t", **needs).needs.key()]


def test_in_a_personal_cluster_workers_have_names_of_their_own() -> None:
    made = ClientMachine(Settings(), now=0)
    made.submit(TaskSpec("t", on=("worker-1", "worker-2")), 0)
    assert made.why("t") == "waiting for worker-1 or worker-2: none is here"


def test_few_of_many_names_are_said() -> None:
    made = machine()
    made.submit(TaskSpec("t", on=tuple("abcdef")), 0)
    assert made.why("t") == (
        "waiting for a's worker or b's worker or c's worker or d's worker or 2 others: none is here"
    )


def test_few_of_many_workers_are_named() -> None:
    made = ClientMachine(Settings(), now=0)
    for number in range(10):
        who = certificate(f"w{number}")
        made.heard(who, Hello(f"w{number}", 0, Terms(1, 1, "3.11")), 0)
    made.submit(TaskSpec("t", tags=("gpu",)), 0)
    assert made.why("t").endswith("w3 (no tags), and 6 more")


def test_a_paused_worker_that_has_what_is_needed_is_waited_for() -> None:
    made = machine(alice={}, bob={"tags": ("gpu",), "paused": True, "why": "hours"})
    made.submit(TaskSpec("t", tags=("gpu",)), 0)
    assert made.why("t") == "waiting for a worker: those that are here with tag gpu are paused (outside its hours)"


def test_what_is_needed_has_a_key_of_its_own() -> None:
    each = [
        ANY, Needs("3.11"), Needs(on=("a",)), Needs(tags=("a",)), Needs(memory=1), Needs(gpus=1), Needs("3.11", ("a",)),
    ]  # fmt: skip
    assert len({needs.key() for needs in each}) == len(each)
    long = [Needs(on=tuple(f"{'x' * 900}{number}" for number in range(some))) for some in (50, 60)]
    assert len({needs.key() for needs in long}) == 2
    assert all(len(needs.key()) <= 100 for needs in long)
    assert (ANY.key(), Needs("3.11").key()) == ("", "3.11")


# --- priorities ---


def test_the_higher_priority_comes_first_and_among_equal_ones_the_order() -> None:
    made = machine(bob={})
    made.submit(TaskSpec("first"), 0)
    for name, priority in (("a", 0), ("b", 0), ("low", -1), ("high", 7), ("high too", 7)):
        made.submit(TaskSpec(name, priority=priority), 0)
    order, last = [], "first"
    for _ in range(5):
        (last,) = sent(made.frame(BOB.sid, Result(last, 1, True, ()), 1))
        order.append(last)
    assert order == ["high", "high too", "a", "b", "low"]


def test_a_priority_counts_among_tasks_of_other_needs() -> None:
    made = machine(bob={"tags": ("gpu",)})
    made.submit(TaskSpec("first"), 0)
    made.submit(TaskSpec("a"), 0)
    made.submit(TaskSpec("b", tags=("gpu",), priority=1), 0)
    assert sent(made.frame(BOB.sid, Result("first", 1, True, ()), 1)) == {"b": BOB.sid}


def test_of_equal_priority_the_one_that_came_first_goes_whatever_others_need() -> None:
    made = machine(bob={"tags": ("gpu",), "packages": "any"})
    made.submit(TaskSpec("a"), 0)
    needs: list[dict[str, Any]] = [{"tags": ("gpu",)}, {}, {"packages": ("six",)}, {"pin": BOB.sid}, {}]
    for name, each in zip("bcdef", needs, strict=True):
        made.submit(TaskSpec(name, **each), 0)
    order, last = "", "a"
    for _ in range(5):
        (last,) = sent(made.frame(BOB.sid, Result(last, 1, True, ()), 1))
        order += last
    assert order == "bcdef"


def test_the_board_is_asked_for_a_worker_that_installs_while_those_that_are_met_do_not() -> None:
    made = machine(bob={})
    asked = made.submit(TaskSpec("t", packages=("six",)), 0) + made.tick(60)
    assert Say(Request("")) in asked
    room = made.frame(BOB.sid, Room(1), 61)
    assert [type(action).__name__ for action in room] == ["Tell"], "and its slot is kept for nothing"


def test_an_important_task_that_is_too_large_for_the_room_keeps_no_other_back() -> None:
    made = machine(bob={"input": 10})
    made.submit(TaskSpec("first"), 0)
    made.submit(TaskSpec("large", size=11, priority=1), 0)
    made.submit(TaskSpec("small"), 0)
    assert sent(made.frame(BOB.sid, Result("first", 1, True, ()), 1)) == {"small": BOB.sid}
    assert made.state("large") is TaskState.WAITING


def test_a_lost_task_is_the_first_of_its_priority_again() -> None:
    made = machine(bob={})
    made.submit(TaskSpec("lost"), 0)
    made.submit(TaskSpec("same"), 0)
    made.submit(TaskSpec("higher", priority=1), 0)
    assert sent(made.frame(BOB.sid, Lost("lost", 1, "killed"), 1)) == {"higher": BOB.sid}
    assert sent(made.frame(BOB.sid, Result("higher", 1, True, ()), 1)) == {"lost": BOB.sid}


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(-2, 2), st.sampled_from(["add", "first", "remove"]))))
def test_a_queue_is_as_a_sorted_list(steps: list[tuple[int, int, str]]) -> None:
    queue, model = Queue(), list[tuple[int, str]]()
    placed: dict[str, int] = {}
    for number, priority, step in steps:
        name = f"t{number}"
        if step == "remove":
            queue.remove(name, placed.get(name, priority))
            model = [(at, each) for at, each in model if each != name]
            placed.pop(name, None)
        elif name not in placed:
            placed[name] = priority
            queue.add(name, priority, first=step == "first")
            model.insert(0 if step == "first" else len(model), (priority, name))
    expected = [name for _, name in sorted(model, key=lambda each: -each[0])]
    assert list(queue) == expected
    assert (len(queue), bool(queue)) == (len(expected), bool(expected))
    if expected:
        assert (queue.first(), queue.top()) == (expected[0], placed[expected[0]])


# --- retries ---


def failed(task: str, attempt: int, error: str = "builtins.ValueError", what: str = "exception") -> Result:
    bases = (error, "builtins.Exception", "builtins.BaseException", "builtins.object")
    return Result(task, attempt, False, (), 0.1, failure=TaskFailure(what, error, bases, "bad\nluck"))


def test_a_task_that_raises_runs_again_as_often_as_it_may() -> None:
    made = machine(bob={})
    made.submit(TaskSpec("t", retries=2), 0)
    for attempt, retry in ((1, "retry 1 of 2 after ValueError: bad"), (2, "retry 2 of 2 after ValueError: bad")):
        actions = made.frame(BOB.sid, failed("t", attempt), 1)
        assert [action.retry for action in actions if isinstance(action, Note)] == [retry, ""]
        assert sent(actions) == {"t": BOB.sid}
    (settle,) = (action for action in made.frame(BOB.sid, failed("t", 3), 1) if isinstance(action, Settle))
    assert settle.result is not None


def test_a_task_that_waits_for_its_retry_says_after_which_error() -> None:
    made = machine(bob={})
    made.submit(TaskSpec("t", retries=2), 0)
    made.submit(TaskSpec("u", priority=1), 0)
    made.frame(BOB.sid, failed("t", 1), 1)
    assert made.why("t") == "waiting for a free slot of 1, after ValueError: bad (retry 1 of 2)"


def test_losses_and_retries_are_counted_apart() -> None:
    made = machine(bob={})
    made.submit(TaskSpec("t", retries=1), 0)
    made.frame(BOB.sid, Lost("t", 1, "killed"), 1)
    made.frame(BOB.sid, failed("t", 2), 1)
    made.frame(BOB.sid, Lost("t", 3, "killed"), 1)
    assert made.state("t") is TaskState.SENT
    made.frame(BOB.sid, Lost("t", 4, "killed"), 1)
    assert made.state("t") is None


def test_a_late_result_of_an_attempt_before_costs_no_retry() -> None:
    made = machine(bob={})
    made.submit(TaskSpec("t", retries=1), 0)
    made.frame(BOB.sid, failed("t", 1), 1)
    made.frame(BOB.sid, failed("t", 1), 1)
    assert made.state("t") is TaskState.SENT


@pytest.mark.parametrize(
    ("what", "error", "retry_on", "again"),
    [
        ("exception", "builtins.ValueError", ("builtins.Exception",), True),
        ("exception", "builtins.ValueError", ("builtins.ValueError",), True),
        ("exception", "builtins.ValueError", ("builtins.KeyError",), False),
        ("exception", "__main__.Flaky", ("builtins.KeyError", "__main__.Flaky"), True),
        ("died", "", ("builtins.Exception",), False),
        ("died", "", ("p2p_ipython.errors.TaskDied",), True),
        ("stopped", "p2p_ipython.errors.StoppedByLender", ("builtins.Exception",), False),
        ("died", "", ("p2p_ipython.errors.TaskError",), True),
        ("timeout", "", ("builtins.TimeoutError",), True),
        ("timeout", "", ("builtins.Exception",), False),
        ("something of a later version", "", ("builtins.Exception",), False),
    ],
)
def test_the_names_in_a_failure_decide(what: str, error: str, retry_on: tuple[str, ...], again: bool) -> None:
    assert is_among(TaskFailure(what, error, ("builtins.Exception",)), retry_on) is again


def test_a_strangers_words_are_one_plain_line() -> None:
    hostile = TaskFailure("exception", "a.\x1b[31mBad" + "x" * 500, (), "\x1b]0;title\x07one\u202e\ntwo" + "y" * 9999)
    words = error_words(hostile)
    assert words.isprintable()
    assert "two" not in words
    assert len(words) < 310
