"""The client's machine, transition by transition: one event, and all that follows from it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from people import certificate

from p2p_ipython.config import Settings
from p2p_ipython.errors import (
    LinkTimeout,
    LocalProtocolError,
    NotAdmitted,
    P2PError,
    PythonMismatch,
    RemoteProtocolError,
    TaskTimeout,
    WorkerLost,
    WrongPeer,
)
from p2p_ipython.protocol.client_machine import (
    ASKED,
    MAX_WANTS,
    Action,
    Changed,
    ClientMachine,
    Meet,
    Note,
    Say,
    Send,
    SendBuffers,
    Settle,
    TaskState,
    Tell,
)
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.meetings import EAGER_LINKS, EAGER_LINKS_OF_ONE, MAX_WORKERS_OF_ONE, MEET_BACKOFF
from p2p_ipython.protocol.messages import Bye, Hello, Request, Terms
from p2p_ipython.protocol.patience import ANSWERS_WITHIN, LATE, SLOWEST
from p2p_ipython.protocol.placement import FREE_NACKS, SMALL, TaskSpec, WorkerState, WorkerView
from p2p_ipython.protocol.task_frames import (
    Evicted,
    Lost,
    Nack,
    Pass,
    Recall,
    Result,
    Room,
    Started,
    TaskFailure,
    Want,
    WorkerFrame,
)

SETTINGS = Settings()
CANCELLED = Settle("t", why=ASKED)
W0, W1 = certificate("w0"), certificate("w1")
TERMS = Terms(slots=1, free=1, python="3.11")


def hello(name: str = "w0", **terms: Any) -> Hello:
    return Hello(name, 0, replace(TERMS, **terms))


def machine(*, up: str = "", slots: int = 1, settings: Settings = SETTINGS, **terms: Any) -> ClientMachine:
    """A machine that knows the workers named in ``up`` and has links to them; it has asked the board already."""
    made = ClientMachine(settings, now=0)
    for name in up.split():
        worker = certificate(name)
        assert made.heard(worker, hello(name, slots=slots, free=slots, **terms), 0) == [Meet(worker)]
        assert made.link_up(worker.sid, 0) == [Changed(worker.sid)]
    return made


def sent(made: ClientMachine, *tasks: str, now: float = 0, **spec: Any) -> ClientMachine:
    """That machine, after these tasks were submitted and sent."""
    for task in tasks:
        assert made.submit(TaskSpec(task, **spec), now)[0] == Send(made.worker_of(task).sid, task, 1, ())  # type: ignore[union-attr]
    return made


def result(task: str = "t", attempt: int = 1, *, ok: bool = True, seconds: float | None = None) -> Result:
    return Result(task, attempt, ok, (), seconds, failure=None if ok else TaskFailure("exception"))


def nack(reason: str, attempt: int = 1) -> Nack:
    return Nack("t", attempt, reason)


def sends(actions: list[Action]) -> list[str]:
    """The tasks that these actions send."""
    return [action.task for action in actions if isinstance(action, Send)]


def settled(actions: list[Action]) -> P2PError:
    """The error of the one task that these actions settle."""
    (settle,) = (action for action in actions if isinstance(action, Settle))
    assert settle.error is not None
    return settle.error


# --- waiting ----------------------------------------------------------------------------------------


def test_a_task_without_workers_waits_and_asks_the_board() -> None:
    made = machine()
    assert made.submit(TaskSpec("t"), 0) == [Say(Request(""))]
    assert made.state("t") is TaskState.WAITING
    assert made.why("t") == "waiting for a worker: none is here"


def test_the_board_is_asked_again_only_after_a_while() -> None:
    made = machine()
    made.submit(TaskSpec("t"), 0)
    assert made.submit(TaskSpec("u"), 1) == []
    assert made.deadline() == SETTINGS.request_every
    assert made.tick(14.9) == []
    assert made.tick(15) == [Say(Request(""))]


def test_a_worker_that_is_heard_is_met_at_once_so_that_the_first_task_finds_a_link() -> None:
    assert machine().heard(W0, hello(), 0) == [Meet(W0)]


def test_of_many_workers_only_some_are_met_before_there_is_work() -> None:
    made = machine()
    met = [made.heard(certificate(f"w{n}"), hello(f"w{n}"), 0) for n in range(EAGER_LINKS + 2)]
    assert [bool(actions) for actions in met] == [True] * EAGER_LINKS + [False] * 2


def test_more_workers_are_met_when_there_is_more_work_than_the_linked_ones_take() -> None:
    made = machine()
    for number in range(EAGER_LINKS + 1):
        made.heard(certificate(f"w{number}"), hello(f"w{number}"), 0)
    for number in range(EAGER_LINKS):
        made.link_up(certificate(f"w{number}").sid, 0)
    sent(made, *(f"t{number}" for number in range(EAGER_LINKS)))
    assert Meet(certificate(f"w{EAGER_LINKS}")) in made.submit(TaskSpec("more"), 0)


def test_clients_and_bare_presence_make_no_worker() -> None:
    made = machine()
    assert made.heard(certificate("c1", "client"), hello(), 0) == []
    assert made.heard(W0, Hello("w0", 0), 0) == []
    assert made.heard(W0, Request(""), 0) == []
    assert made.workers == {}


def test_a_worker_without_slots_is_not_met() -> None:
    assert machine().heard(W0, hello(slots=0, free=0), 0) == []


def test_a_worker_that_is_not_linked_and_not_heard_any_more_is_dropped() -> None:
    made = machine()
    made.heard(W0, hello(), 0)
    made.meet_failed(W0.sid, LinkTimeout("nobody came"), 0)
    assert made.deadline() == 3 * SETTINGS.presence
    made.tick(3 * SETTINGS.presence)
    assert made.workers == {}
    assert made.deadline() is None


# --- waiting → sent ---------------------------------------------------------------------------------


def test_a_task_goes_to_a_worker_with_room_at_once() -> None:
    made = machine(up="w0")
    assert made.submit(TaskSpec("t"), 0) == [Send(W0.sid, "t", 1, ()), Note("t", TaskState.SENT, "on w0")]


def test_a_waiting_task_goes_out_when_a_link_comes_up() -> None:
    made = machine()
    made.submit(TaskSpec("t"), 0)
    made.heard(W0, hello(), 1)
    gone_out = [Send(W0.sid, "t", 1, ()), Note("t", TaskState.SENT, "on w0")]
    assert made.link_up(W0.sid, 2) == [Changed(W0.sid), *gone_out]


def test_a_pinned_task_goes_to_its_worker_alone_and_others_pass_it() -> None:
    made = sent(machine(up="w0 w1"), "busy")
    here, there = made.worker_of("busy"), next(w for w in made.workers.values() if not w.tasks)
    assert here is not None
    assert sends(made.submit(TaskSpec("pinned", pin=here.sid), 1)) == []
    assert made.why("pinned") == f"waiting for {here.name}"
    assert sends(made.submit(TaskSpec("other"), 1)) == ["other"]
    assert made.worker_of("other") is there
    assert sends(made.frame(here.sid, result("busy"), 2)) == ["pinned"]


def test_a_pinned_task_is_lost_with_its_worker_whether_it_has_begun_or_not() -> None:
    made = machine(up="w0 w1")
    assert sends(made.submit(TaskSpec("begun", pin=W0.sid), 1)) == ["begun"]
    made.submit(TaskSpec("waits", pin=W0.sid), 1)
    gone = {action.task: action.error for action in made.link_lost(W0.sid, "is gone", 2) if isinstance(action, Settle)}
    assert {name: type(error) for name, error in gone.items()} == {"begun": WorkerLost, "waits": WorkerLost}
    assert isinstance(settled(made.submit(TaskSpec("late", pin=W0.sid), 3)), WorkerLost)


def test_a_pinned_task_is_lost_when_its_worker_takes_its_leave_before_it_begins() -> None:
    made = sent(machine(up="w0"), "busy")
    made.submit(TaskSpec("waits", pin=W0.sid), 1)
    assert isinstance(settled(made.heard(W0, Bye(), 2)), WorkerLost)


def test_the_worker_of_a_pinned_task_is_met() -> None:
    made = machine()
    for number in range(EAGER_LINKS + 2):
        made.heard(certificate(f"w{number}"), hello(f"w{number}"), 0)
    known = next(w for w in made.workers.values() if w.state is WorkerState.KNOWN)
    assert Meet(known.certificate) in made.submit(TaskSpec("t", pin=known.sid), 1)


def test_tasks_spread_over_workers_by_load() -> None:
    made = sent(machine(up="w0 w1", slots=2), "a", "b", "c", "d")
    assert [len(worker.tasks) for worker in made.workers.values()] == [2, 2]


def test_no_worker_gets_more_tasks_than_slots() -> None:
    made = sent(machine(up="w0"), "t")
    assert made.submit(TaskSpec("u"), 0) == []
    assert made.state("u") is TaskState.WAITING


def test_a_large_buffer_travels_once_to_each_worker() -> None:
    made = machine(up="w0", slots=3)
    assert made.submit(TaskSpec("t", refs={"a": 9, "b": 9}), 0)[0] == Send(W0.sid, "t", 1, ("a", "b"))
    assert made.submit(TaskSpec("u", refs={"a": 9, "c": 9}), 0)[0] == Send(W0.sid, "u", 1, ("c",))


def test_a_task_goes_where_its_buffers_are() -> None:
    made = machine(up="w0 w1", slots=2)
    made.workers[W1.sid].have.add("a")
    assert made.submit(TaskSpec("t", refs={"a": 9}), 0)[0] == Send(W1.sid, "t", 1, ())
    made.frame(W1.sid, Evicted(("a",)), 0)
    assert made.submit(TaskSpec("u", refs={"a": 9}), 0)[0] == Send(W0.sid, "u", 1, ("a",))


def test_what_a_worker_wants_is_sent_once_and_only_what_its_task_has() -> None:
    made = machine(up="w0")
    made.submit(TaskSpec("t", refs={"a": 9}), 0)
    assert made.frame(W0.sid, Want("t", 1, ("a", "b", "a")), 0) == [SendBuffers(W0.sid, "t", ("a",))]
    assert made.frame(W0.sid, Want("t", 1, ("b",)), 0) == []


def test_a_worker_that_wants_a_buffer_on_and_on_breaks_the_protocol_and_each_attempt_begins_anew() -> None:
    made = machine(up="w0 w1")
    made.submit(TaskSpec("t", refs={"a": 9}), 0)
    for _ in range(MAX_WANTS):
        assert made.frame(W0.sid, Want("t", 1, ("a",)), 0) == [SendBuffers(W0.sid, "t", ("a",))]
    with pytest.raises(RemoteProtocolError, match="more than 8 times"):
        made.frame(W0.sid, Want("t", 1, ("a",)), 0)
    made.link_lost(W0.sid, "broke the protocol", 1)
    assert made.frame(W1.sid, Want("t", 2, ("a",)), 1) == [SendBuffers(W1.sid, "t", ("a",))]


@pytest.mark.parametrize("attempt", [0, 1, 2])
def test_what_a_worker_wanted_for_a_task_that_is_over_is_sent_with_the_next(attempt: int) -> None:
    """It doesn't have them, whatever task it asked for."""
    made = machine(up="w0")
    made.submit(TaskSpec("t", refs={"a": 9, "b": 9}), 0)
    made.cancel("t", 0)
    made.frame(W0.sid, result(), 0)
    assert made.frame(W0.sid, Want("t", attempt, ("a",)), 0) == []
    assert made.submit(TaskSpec("u", refs={"a": 9, "b": 9}), 0)[0] == Send(W0.sid, "u", 1, ("a",))


def test_short_tasks_are_sent_ahead_once_one_has_shown_that_they_are_short() -> None:
    made = sent(machine(up="w0", settings=Settings(backlog=2)), "t")
    for task in "uvwx":
        assert made.submit(TaskSpec(task), 0) == []
    actions = made.frame(W0.sid, result(seconds=0.001), 1)
    assert [action.task for action in actions if isinstance(action, Send)] == ["u", "v", "w"]


def test_what_is_sent_ahead_is_at_most_fifty_milliseconds_of_work() -> None:
    made = sent(machine(up="w0", settings=Settings(backlog=16)), "t")
    for task in "uvwxyz":
        made.submit(TaskSpec(task), 0)
    actions = made.frame(W0.sid, result(seconds=0.02), 1)
    assert [action.task for action in actions if isinstance(action, Send)] == ["u", "v", "w"]


def test_a_short_function_says_nothing_about_another_one() -> None:
    made = sent(machine(up="w0"), "t")
    for task in "uvw":
        assert made.submit(TaskSpec(task, kind="another"), 0) == []
    actions = made.frame(W0.sid, result(seconds=0.001), 1)
    assert [action.task for action in actions if isinstance(action, Send)] == ["u"]


def test_slow_tasks_and_large_ones_are_not_sent_ahead() -> None:
    made = sent(machine(up="w0"), "t")
    made.submit(TaskSpec("u", refs={"a": SMALL + 1}), 0)
    made.submit(TaskSpec("v", refs={"a": SMALL + 1}), 0)
    actions = made.frame(W0.sid, result(seconds=0.001), 1)
    assert [action.task for action in actions if isinstance(action, Send)] == ["u"]
    slow = sent(machine(up="w0"), "t")
    slow.submit(TaskSpec("u"), 0)
    slow.submit(TaskSpec("v"), 0)
    actions = slow.frame(W0.sid, result(seconds=3), 1)
    assert [action.task for action in actions if isinstance(action, Send)] == ["u"]


# --- sent → running → done or failed ----------------------------------------------------------------


def test_a_started_task_runs_and_that_is_said_once() -> None:
    made = sent(machine(up="w0"), "t")
    assert made.frame(W0.sid, Started("t", 1), 0) == [Note("t", TaskState.RUNNING, "on w0")]
    assert made.frame(W0.sid, Started("t", 1), 0) == []
    assert made.counts()[TaskState.RUNNING] == 1


@pytest.mark.parametrize(("ok", "state"), [(True, TaskState.DONE), (False, TaskState.FAILED)])
def test_a_result_settles_its_task(ok: bool, state: TaskState) -> None:
    made = sent(machine(up="w0"), "t")
    header = result(ok=ok, seconds=1)
    assert made.frame(W0.sid, header, 0) == [Note("t", state, "on w0"), Settle("t", header)]
    assert made.state("t") is None
    assert made.why("t") == ""


def test_the_next_task_goes_out_with_the_result_of_the_last() -> None:
    made = sent(machine(up="w0"), "t")
    made.submit(TaskSpec("u"), 0)
    header = result(seconds=1)
    assert made.frame(W0.sid, header, 1) == [
        Note("t", TaskState.DONE, "on w0"),
        Settle("t", header),
        Send(W0.sid, "u", 1, ()),
        Note("u", TaskState.SENT, "on w0"),
    ]


@pytest.mark.parametrize("kind", [Started, Result, Nack, Lost, Want])
@pytest.mark.parametrize(
    ("sid", "task", "attempt"),
    [
        pytest.param(W1.sid, "t", 1, id="another worker's"),
        pytest.param(W0.sid, "t", 2, id="another attempt's"),
        pytest.param(W0.sid, "t", 0, id="an earlier attempt's"),
        pytest.param(W0.sid, "u", 1, id="another task's"),
        pytest.param(b"stranger", "t", 1, id="a stranger's"),
    ],
)
def test_only_the_current_attempt_at_its_worker_counts(
    kind: type[WorkerFrame], sid: bytes, task: str, attempt: int
) -> None:
    made = sent(machine(up="w0 w1"), "t")
    rest = {Result: (True, ()), Nack: ("busy",), Want: (("a",),)}.get(kind, ())
    assert made.frame(sid, kind(task, attempt, *rest), 0) == []  # type: ignore[arg-type,call-arg]
    assert not made.expects(sid, task, attempt)
    assert made.state("t") is TaskState.SENT
    assert made.expects(W0.sid, "t", 1)


def test_a_result_counts_once() -> None:
    made = sent(machine(up="w0"), "t")
    made.frame(W0.sid, result(), 0)
    assert made.frame(W0.sid, result(), 0) == []


# --- sent → waiting: nack ---------------------------------------------------------------------------


def test_a_nack_costs_no_attempt_and_the_worker_is_left_alone_for_a_moment() -> None:
    made = sent(machine(up="w0"), "t")
    now = 0.0
    for attempt in range(1, FREE_NACKS + 1):
        assert made.frame(W0.sid, nack("busy", attempt), now) == [Note("t", TaskState.WAITING, "")]
        due = made.deadline()
        assert due == now + SETTINGS.hold
        now = due
        again = [Send(W0.sid, "t", attempt + 1, ()), Note("t", TaskState.SENT, "on w0")]
        assert [action for action in made.tick(now) if not isinstance(action, Say)] == again


def test_a_worker_with_room_gets_a_task_at_once_although_it_was_left_alone() -> None:
    made = sent(machine(up="w0", slots=2), "t")
    made.frame(W0.sid, nack("busy"), 1)
    made.submit(TaskSpec("u"), 1.1)
    assert sends(made.frame(W0.sid, Room(1), 1.1)) == ["t", "u"]
    assert made.deadline() is None


@pytest.mark.parametrize("said", ["room", "nothing", "a pause and its end"])
def test_a_worker_that_hands_back_task_after_task_is_left_alone_for_longer_whatever_it_says(said: str) -> None:
    made = sent(machine(up="w0"), "t")
    now, attempt, times = 0.0, 1, []
    while now < 600:
        actions = made.frame(W0.sid, nack("paused" if said == "a pause and its end" else "busy", attempt), now)
        while not sends(actions):
            if said == "room":
                actions = made.frame(W0.sid, Room(1), now)
            elif said == "a pause and its end":
                actions = made.heard(W0, hello(), now)
            if not sends(actions):
                deadline = made.deadline()
                assert deadline is not None
                now = max(now + 0.001, deadline)
                actions = made.tick(now)
        attempt += 1
        times.append(now)
    assert len(times) < 700, "and not 1,900 a second"
    made.frame(W0.sid, result(attempt=attempt), now)
    made.submit(TaskSpec("u"), now)
    assert made.state("u") is TaskState.SENT, "it has taken one: all is well again"


def test_a_worker_that_hands_back_all_it_gets_gets_one_task_at_a_time_until_it_takes_one() -> None:
    made = sent(machine(up="w0", slots=4), "t", "u", "v")
    now = 0.0
    for attempt in range(1, FREE_NACKS + 2):
        for task in ("t", "u", "v"):
            made.frame(W0.sid, Nack(task, attempt, "busy"), now)
        now += 10
        actions = made.tick(now)
        assert len(sends(actions)) == (1 if attempt > FREE_NACKS else 3)
    (task,) = sends(actions)
    actions = made.frame(W0.sid, Started(task, FREE_NACKS + 2), now + 1)
    assert len(sends(actions)) == 2


@pytest.mark.parametrize("python", ["", "3.12"])
def test_who_has_nothing_for_a_worker_with_room_says_so(python: str) -> None:
    made = machine(up="w0")
    if python:
        made.submit(TaskSpec("of another version", python=python), 0)
    assert made.frame(W0.sid, Room(1), 1) == [Tell(W0.sid, Pass())]


def test_the_last_task_goes_out_before_the_pass() -> None:
    made = sent(machine(up="w0"), "t")
    made.frame(W0.sid, nack("busy"), 1)
    actions = made.frame(W0.sid, Room(2), 1.1)
    assert [type(action) for action in actions] == [Send, Note, Tell]
    assert actions[-1] == Tell(W0.sid, Pass())


def test_who_has_work_but_has_sent_all_he_may_doesnt_pass() -> None:
    made = sent(machine(up="w0"), "t")
    made.submit(TaskSpec("u"), 0)
    assert made.frame(W0.sid, Room(1), 1) == []


def test_room_at_a_worker_that_leaves_is_passed() -> None:
    made = machine(up="w0")
    made.heard(W0, Bye(), 0)
    made.submit(TaskSpec("t"), 0)
    assert Tell(W0.sid, Pass()) in made.frame(W0.sid, Room(1), 1)


def test_room_at_another_worker_doesnt_end_the_pause() -> None:
    made = sent(machine(up="w0"), "t")
    made.frame(W0.sid, nack("busy"), 1)
    assert made.frame(W1.sid, Room(1), 1.1) == []
    assert made.deadline() == 1 + SETTINGS.hold


def test_after_a_nack_the_task_goes_to_another_worker_at_once() -> None:
    made = sent(machine(up="w0 w1"), "t")
    assert made.frame(W0.sid, nack("busy"), 0) == [
        Note("t", TaskState.WAITING, ""),
        Send(W1.sid, "t", 2, ()),
        Note("t", TaskState.SENT, "on w1"),
    ]


def test_a_worker_that_is_closing_gets_nothing_more() -> None:
    made = sent(machine(up="w0"), "t")
    assert made.frame(W0.sid, nack("closing"), 0) == [
        Note("t", TaskState.WAITING, ""),
        Say(Request("")),
    ]
    assert made.workers[W0.sid].state is WorkerState.LEAVING
    assert [action for action in made.tick(9) if isinstance(action, Send)] == []


def test_who_hands_back_what_he_has_started_has_lost_it() -> None:
    """Else a task that may run once could run twice, by a worker that doesn't keep the protocol."""
    made = sent(machine(up="w0 w1"), "t", once=True)
    made.frame(W0.sid, Started("t", 1), 0)
    assert isinstance(settled(made.frame(W0.sid, nack("busy"), 0)), WorkerLost)


# --- losses -----------------------------------------------------------------------------------------


def test_a_lost_link_gives_its_tasks_back_in_their_order() -> None:
    made = sent(machine(up="w0", slots=2), "t", "u")
    made.submit(TaskSpec("v"), 0)
    made.link_lost(W0.sid, "gone", 1)
    made.heard(W1, hello("w1", slots=3, free=3), 2)
    actions = made.link_up(W1.sid, 3)
    assert [(a.task, a.attempt) for a in actions if isinstance(a, Send)] == [("t", 2), ("u", 2), ("v", 1)]


def test_after_its_last_attempt_a_task_fails_as_worker_lost() -> None:
    made = machine(up="w0", settings=Settings(attempts=2))
    sent(made, "t")
    made.link_lost(W0.sid, "gone", 1)
    made.heard(W0, hello(), 2)
    made.link_up(W0.sid, 2)
    error = settled(made.link_lost(W0.sid, "gone again", 3))
    assert isinstance(error, WorkerLost)
    assert "2 times" in error.message
    assert "gone again" in error.message
    assert error.hint


def test_a_killed_runner_is_a_loss_too() -> None:
    made = sent(machine(up="w0 w1", settings=Settings(attempts=2)), "t")
    assert made.frame(W0.sid, Lost("t", 1, "killed\x1b[31m"), 0) == [
        Note("t", TaskState.WAITING, "losing w0: killed[31m"),
        Send(W0.sid, "t", 2, ()),
        Note("t", TaskState.SENT, "on w0"),
    ]
    assert isinstance(settled(made.frame(W0.sid, Lost("t", 2), 0)), WorkerLost)


def test_a_once_task_fails_at_its_first_loss() -> None:
    made = sent(machine(up="w0 w1"), "t", once=True)
    error = settled(made.link_lost(W0.sid, "gone", 1))
    assert isinstance(error, WorkerLost)
    assert error.message.startswith("maybe ran: ")
    assert isinstance(error, WorkerLost)
    assert error.maybe_ran
    assert made.state("t") is None


def test_a_once_task_survives_nacks() -> None:
    made = sent(machine(up="w0 w1"), "t", once=True)
    assert Send(W1.sid, "t", 2, ()) in made.frame(W0.sid, nack("busy"), 0)


def test_a_link_that_is_away_keeps_its_tasks_and_gets_no_more() -> None:
    made = sent(machine(up="w0", slots=2), "t")
    assert made.link_away(W0.sid, "cut", 1) == [Changed(W0.sid)]
    assert made.why("t") == "on w0, whose link is reconnecting (cut)"
    assert [a for a in made.submit(TaskSpec("u"), 1) if isinstance(a, Send)] == []
    gone_out = [Send(W0.sid, "u", 1, ()), Note("u", TaskState.SENT, "on w0")]
    assert made.link_up(W0.sid, 2) == [Changed(W0.sid), *gone_out]
    assert made.state("t") is TaskState.SENT


# --- cancel -----------------------------------------------------------------------------------------


def test_a_waiting_task_is_cancelled_without_a_word_to_anybody() -> None:
    made = machine()
    made.submit(TaskSpec("t"), 0)
    assert made.cancel("t", 1) == [Note("t", TaskState.CANCELLED), CANCELLED]


@pytest.mark.parametrize("state", ["sent", "running"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda: result(), id="its result, which had crossed"),
        pytest.param(lambda: result(ok=False), id="that it was interrupted"),
        pytest.param(lambda: nack("recalled"), id="that it was never started"),
        pytest.param(lambda: nack("busy"), id="that it was handed back"),
        pytest.param(lambda: Lost("t", 1, "killed"), id="that its process was killed"),
    ],
)
def test_a_task_that_a_worker_has_is_over_when_that_says_that_it_has_ended(
    state: str, answer: Callable[[], WorkerFrame]
) -> None:
    made = sent(machine(up="w0"), "t")
    if state == "running":
        made.frame(W0.sid, Started("t", 1), 0)
    assert made.cancel("t", 1) == [Tell(W0.sid, Recall("t", 1)), Note("t", TaskState.STOPPING, "on w0")]
    assert (made.state("t"), made.why("t")) == (TaskState.STOPPING, "stopping on w0")
    assert made.counts()[TaskState.STOPPING] == 1
    assert made.cancel("t", 2) == []
    assert made.frame(W0.sid, Started("t", 1), 2) == []
    assert made.frame(W0.sid, Want("t", 1, ("a",)), 2) == []
    assert made.frame(W0.sid, answer(), 3) == [Note("t", TaskState.CANCELLED), CANCELLED]
    assert set(made.counts().values()) == {0}


def test_the_next_task_is_sent_when_a_stop_is_confirmed_and_no_sooner() -> None:
    made = sent(machine(up="w0"), "t")
    made.submit(TaskSpec("u"), 0)
    assert sends(made.cancel("t", 1)) == []
    assert sends(made.frame(W0.sid, result(ok=False), 2)) == ["u"]


def test_a_task_that_is_being_stopped_is_over_when_its_worker_is_lost_and_goes_to_no_other() -> None:
    made = sent(machine(up="w0 w1"), "t")
    made.cancel("t", 1)
    *actions, settle = made.link_lost(W0.sid, "the link is gone", 2)
    assert isinstance(settle, Settle)
    assert (settle.result, settle.error, sends(actions)) == (None, None, [])
    assert settle.why == (
        "its cancel() was called, and its worker was lost before it had said that it has ended (w0: the link is gone)"
    )


def test_a_worker_that_never_says_that_a_task_has_ended_is_not_waited_for_for_ever() -> None:
    """As one of an earlier version."""
    made = sent(machine(up="w0"), "t")
    made.cancel("t", 1)
    due = 1 + SETTINGS.cancel_grace + ANSWERS_WITHIN
    assert made.deadline() == due
    assert made.tick(due - 0.1) == []
    made.submit(TaskSpec("u"), due - 0.1)
    note, settle, *rest = made.tick(due)
    why = "its cancel() was called, and w0 has not said within 10 s that it has ended"
    assert (note, settle, sends(rest)) == (Note("t", TaskState.CANCELLED), Settle("t", why=why), ["u"])
    assert made.frame(W0.sid, result(), due + 1) == []


def test_while_its_link_is_away_a_worker_can_say_nothing_and_is_waited_for() -> None:
    made = sent(machine(up="w0"), "t")
    made.cancel("t", 0)
    made.link_away(W0.sid, "no answer", 1)
    assert made.why("t") == "stopping on w0, whose link is reconnecting (no answer)"
    assert made.tick(SETTINGS.cancel_grace + ANSWERS_WITHIN) == []
    made.link_up(W0.sid, 25)
    assert made.tick(34.9) == [], "it gets the time for an answer"
    assert Note("t", TaskState.CANCELLED) in made.tick(35)


def test_a_link_that_comes_and_goes_keeps_a_cancelled_task_open_for_a_bounded_time() -> None:
    made = sent(machine(up="w0"), "t")
    made.cancel("t", 0)
    most = SETTINGS.cancel_grace + ANSWERS_WITHIN + SETTINGS.lease
    for now in range(1, int(most)):
        made.link_away(W0.sid, "again", now)
        made.link_up(W0.sid, now)
        assert made.tick(now) == []
    assert Note("t", TaskState.CANCELLED) in made.tick(most)


def test_a_task_that_was_cancelled_before_it_left_is_over_at_once() -> None:
    made = machine(up="w0")
    made.submit(TaskSpec("t", refs={"a": 9}), 0)
    assert made.cancel("t", 0, unsent=True) == [Note("t", TaskState.CANCELLED), CANCELLED]
    assert made.submit(TaskSpec("u", refs={"a": 9}), 0)[0] == Send(W0.sid, "u", 1, ("a",)), "its buffers never left"


def test_whoever_is_no_member_any_more_waits_for_no_confirmation() -> None:
    made = sent(machine(up="w0"), "t")
    made.cancel("t", 0)
    assert made.give_up(lambda _task: NotAdmitted("removed"), 1) == [Note("t", TaskState.CANCELLED), CANCELLED]


# --- timeouts ---------------------------------------------------------------------------------------


def test_a_worker_that_does_not_end_a_task_at_its_timeout_is_not_waited_for_for_ever() -> None:
    made = machine(up="w0")
    made.submit(TaskSpec("t", timeout=5, size=SLOWEST), 0)
    made.frame(W0.sid, Started("t", 1), 1)
    due = 5 + LATE + 1
    assert made.deadline() == due
    made.submit(TaskSpec("u"), due - 1)
    recall, note, settle, *rest = made.tick(due)
    assert recall == Tell(W0.sid, Recall("t", 1))
    error = settled([settle])
    assert isinstance(error, TaskTimeout)
    assert isinstance(error, TimeoutError)
    assert error.message == "the task was to be ended after 5 s, its timeout, and w0 has not done so"
    assert note == Note("t", TaskState.FAILED, error.message)
    assert sends(rest) == ["u"]


def test_a_timeout_counts_for_each_attempt_and_not_while_a_task_waits() -> None:
    made = machine()
    made.submit(TaskSpec("t", timeout=5), 0)
    assert made.tick(1000) == [Say(Request(""))]
    assert made.heard(W0, hello(), 1000) == [Meet(W0)]
    assert sends(made.link_up(W0.sid, 1000)) == ["t"]
    made.frame(W0.sid, nack("busy"), 1050)
    assert sends(made.tick(1051)) == ["t"]
    assert made.tick(1051 + 5 + LATE - 1) == []
    assert isinstance(settled(made.tick(1051 + 5 + LATE)), TaskTimeout)


def test_a_task_that_is_over_in_time_leaves_no_deadline() -> None:
    made = machine(up="w0")
    made.submit(TaskSpec("t", timeout=5), 0)
    made.frame(W0.sid, result(), 1)
    assert made.deadline() is None


def test_cancelling_what_is_over_does_nothing() -> None:
    made = sent(machine(up="w0"), "t")
    made.frame(W0.sid, result(), 1)
    assert made.cancel("t", 2) == []
    assert made.cancel("never seen", 2) == []


def test_waiting_tasks_can_be_cancelled_in_any_order_without_a_search() -> None:
    """Each removal is one step, or 100 000 of them from the end would take minutes."""
    made = machine()
    for number in range(5):
        made.submit(TaskSpec(f"t{number}"), 0)
    for number in (4, 2, 0):
        made.cancel(f"t{number}", 0)
    (queue,) = made._queues.values()
    assert list(queue) == ["t1", "t3"]
    assert all(isinstance(level, dict) for level in queue._levels.values())


def test_a_task_that_comes_back_is_the_first_again() -> None:
    made = sent(machine(up="w0"), "t")
    made.submit(TaskSpec("u"), 0)
    made.frame(W0.sid, nack("busy"), 0)
    assert [a.task for a in made.tick(1) if isinstance(a, Send)] == ["t"]


def test_closing_cancels_every_task_and_recalls_those_that_were_sent() -> None:
    made = sent(machine(up="w0"), "t")
    made.submit(TaskSpec("u"), 0)
    made.submit(TaskSpec("v", python="3.12"), 0)
    assert made.close(1) == [
        Tell(W0.sid, Recall("t", 1)),
        Note("t", TaskState.CANCELLED),
        Settle("t"),
        Note("u", TaskState.CANCELLED),
        Settle("u"),
        Note("v", TaskState.CANCELLED),
        Settle("v"),
    ]
    assert set(made.counts().values()) == {0}
    assert made.close(2) == []


def test_after_closing_nothing_is_given_out_and_nobody_is_met() -> None:
    made = sent(machine(up="w0"), "t")
    made.close(1)
    assert made.submit(TaskSpec("u"), 2) == [Note("u", TaskState.CANCELLED), Settle("u")]
    assert made.frame(W0.sid, result(), 2) == []
    assert made.heard(W1, hello("w1"), 2) == []
    assert made.link_lost(W0.sid, "gone", 3) == [Changed(W0.sid)]
    assert made.tick(100) == [Changed(W1.sid)]
    assert made.deadline() is None


def test_other_threads_may_ask_while_tasks_and_workers_come_and_go() -> None:
    made = machine()
    done = threading.Event()

    def events() -> None:
        try:
            for now in range(150):
                made.heard(W0, hello(), now)
                made.link_up(W0.sid, now)
                for number in range(50):
                    made.submit(TaskSpec(f"{now}/{number}"), now)
                made.submit(TaskSpec(f"t{now}"), now)
                made.link_lost(W0.sid, "gone", now)
        finally:
            done.set()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=events)
    try:
        thread.start()
        while not done.is_set():
            made.counts()
            for task in ("0/0", "0/1"):
                made.why(task)
                made.worker_of(task)
                made.state(task)
    finally:
        sys.setswitchinterval(before)
        thread.join()
    assert made.counts()[TaskState.WAITING] > 5_000


def test_a_worker_that_goes_while_one_asks_where_a_task_is_is_no_error() -> None:
    class Going(dict[bytes, WorkerView]):
        """Its worker goes right after one has looked whether it is there."""

        def __contains__(self, sid: object) -> bool:
            found = super().__contains__(sid)
            self.clear()
            return found

    made = sent(machine(up="w0"), "t")
    made.workers = Going(made.workers)
    assert made.why("t") == "on w0"


def test_a_task_is_submitted_once() -> None:
    made = sent(machine(up="w0"), "t")
    with pytest.raises(ValueError, match="before"):
        made.submit(TaskSpec("t"), 1)


# --- workers: known → meeting → up ⇄ away → forgotten -----------------------------------------------


def test_a_worker_that_was_not_met_is_tried_again_later_and_later() -> None:
    made = machine()
    made.submit(TaskSpec("t"), 0)
    made.heard(W0, hello(), 0)
    now = 0.0
    for pause in (*MEET_BACKOFF, MEET_BACKOFF[-1]):
        made.meet_failed(W0.sid, LinkTimeout("nobody came"), now)
        made.heard(W0, hello(), now)
        assert Meet(W0) not in made.tick(now + pause - 0.01)
        now += pause
        assert Meet(W0) in made.tick(now)
    assert "w0" in made.why("t")


def test_a_worker_that_could_not_be_met_leaves_no_deadline_in_the_past() -> None:
    made = machine()
    made.heard(W0, hello(), 0)
    made.meet_failed(W0.sid, LinkTimeout("nobody came"), 0.1)
    due = made.deadline()
    assert due is not None
    made.tick(2)
    assert made.deadline() == due > 2


def of_bob(number: int) -> Certificate:
    return certificate(f"b{number}", member="bob")


def test_workers_of_one_member_do_not_take_all_eager_links() -> None:
    made = machine()
    met = [bool(made.heard(of_bob(number), hello(), 0)) for number in range(EAGER_LINKS)]
    assert met == [True] * EAGER_LINKS_OF_ONE + [False] * EAGER_LINKS_OF_ONE
    assert made.heard(W0, hello(), 0) == [Meet(W0)]


def test_ones_own_workers_may_take_all_eager_links() -> None:
    made = ClientMachine(SETTINGS, now=0, own=lambda signer: signer == of_bob(0).signer)
    assert [made.heard(of_bob(number), hello(), 0) for number in range(EAGER_LINKS + 1)] == [
        *([Meet(of_bob(number))] for number in range(EAGER_LINKS)),
        [],
    ]


def test_an_honest_worker_is_met_before_further_ones_of_a_member_whose_workers_never_come() -> None:
    made = machine()
    for number in range(3 * EAGER_LINKS):
        made.heard(of_bob(number), hello(), 0)
    made.submit(TaskSpec("t"), 0)
    honest = [certificate(name) for name in ("w0", "w1", "w2", "w3", "w4")]
    met = [bool(made.heard(worker, hello(), 1)) for worker in honest]
    assert met == [True] * 4 + [False], "as many as there is room for"
    actions = made.meet_failed(of_bob(0).sid, LinkTimeout("nobody came"), 20)
    assert Meet(honest[4]) in actions
    assert [action for action in actions if isinstance(action, Meet)] == [Meet(honest[4])]


def test_workers_of_one_member_take_bounded_memory() -> None:
    made = machine()
    for number in range(MAX_WORKERS_OF_ONE + 5):
        made.heard(replace(of_bob(0), sid=number.to_bytes(16, "big")), hello(), 0)
    assert len(made.workers) == MAX_WORKERS_OF_ONE
    assert made.heard(W0, hello(), 0) == [Meet(W0)]
    made.tick(3 * SETTINGS.presence)
    made.heard(of_bob(1), hello(), 100)
    assert of_bob(1).sid in made.workers, "they were silent for long, so there is room again"


def test_a_worker_that_is_somebody_else_is_never_met_again() -> None:
    made = machine()
    made.submit(TaskSpec("t"), 0)
    made.heard(W0, hello(), 0)
    assert made.meet_failed(W0.sid, WrongPeer("not they"), 1) == [Changed(W0.sid)]
    assert made.heard(W0, hello(), 2) == []
    assert made.workers == {}


def test_a_worker_that_says_bye_keeps_its_tasks_to_the_end_and_gets_no_more() -> None:
    made = sent(machine(up="w0", slots=2), "t")
    assert made.heard(W0, Bye(), 1) == []
    assert made.workers[W0.sid].state is WorkerState.LEAVING
    assert [a for a in made.submit(TaskSpec("u"), 1) if isinstance(a, Send)] == []
    assert Settle("t", result()) in made.frame(W0.sid, result(), 2)


def test_an_old_hello_after_bye_does_not_bring_a_worker_back() -> None:
    """Lines may come in any order. A second meeting beside the first one would leave two links for one worker."""
    made = machine()
    made.heard(W0, hello(), 0)
    made.heard(W0, Bye(), 1)
    assert made.heard(W0, hello(), 2) == []
    made.link_up(W0.sid, 3)
    assert [a for a in made.submit(TaskSpec("t"), 3) if isinstance(a, Send)] == []


def test_a_leaving_worker_that_was_not_met_is_forgotten() -> None:
    made = machine()
    made.heard(W0, hello(), 0)
    made.heard(W0, Bye(), 1)
    made.meet_failed(W0.sid, LinkTimeout("nobody came"), 2)
    assert made.workers == {}


def test_a_known_worker_that_says_bye_is_forgotten() -> None:
    made = machine()
    made.heard(W0, hello(), 0)
    made.meet_failed(W0.sid, LinkTimeout("nobody came"), 0)
    made.heard(W0, Bye(), 1)
    assert made.workers == {}


def test_a_worker_that_offers_no_slots_any_more_is_leaving() -> None:
    made = machine(up="w0")
    made.heard(W0, hello(slots=0, free=0), 1)
    assert made.submit(TaskSpec("t"), 1) == [Say(Request(""))]


def test_events_of_workers_that_nobody_knows_do_nothing() -> None:
    made = machine()
    assert made.link_up(W0.sid, 0) == made.link_away(W0.sid, "", 0) == made.link_lost(W0.sid, "", 0) == []
    assert made.meet_failed(W0.sid, LinkTimeout("x"), 0) == made.frame(W0.sid, result(), 0) == []


# --- Python versions --------------------------------------------------------------------------------


def test_a_task_goes_to_a_worker_with_its_python_only() -> None:
    made = machine(up="w0", python="3.12")
    made.submit(TaskSpec("t", python="3.11"), 0)
    assert made.why("t") == "waiting for a worker with python 3.11 (here: 3.12)"
    made.heard(W1, hello("w1", python="3.11"), 1)
    assert made.link_up(W1.sid, 1)[1] == Send(W1.sid, "t", 1, ())


def test_a_task_that_waits_for_its_python_holds_up_no_other() -> None:
    made = machine(up="w0", python="3.12")
    assert made.submit(TaskSpec("t", python="3.11"), 0) == [Say(Request("3.11"))]
    assert made.submit(TaskSpec("u"), 0)[0] == Send(W0.sid, "u", 1, ())


def test_a_task_whose_python_nobody_has_fails_after_a_while_and_says_what_to_do() -> None:
    made = machine(up="w0", python="3.12")
    made.submit(TaskSpec("t", python="3.11"), 1)
    assert [a for a in made.tick(15.9) if isinstance(a, Settle)] == []
    error = settled(made.tick(16))
    assert isinstance(error, PythonMismatch)
    assert "3.11" in error.message
    assert "3.12" in error.message
    assert "%%p2p" in error.hint


def test_the_wait_for_a_python_begins_when_nobody_has_it_any_more() -> None:
    """A task that has waited, or run, for long must not fail the moment its last fitting worker is lost."""
    made = sent(machine(up="w0"), "t", python="3.11")
    made.heard(W1, hello("w1", python="3.12"), 100)
    made.link_up(W1.sid, 100)
    made.link_lost(W0.sid, "gone", 100)
    assert [a for a in made.tick(114) if isinstance(a, Settle)] == []
    assert isinstance(settled(made.tick(115)), PythonMismatch)


def test_a_worker_that_leaves_is_no_python_mismatch() -> None:
    made = sent(machine(up="w0"), "t", python="3.11")
    made.submit(TaskSpec("u", python="3.11"), 0)
    made.heard(W0, Bye(), 1)
    assert [a for a in made.tick(60) if isinstance(a, Settle)] == []
    assert made.state("u") is TaskState.WAITING


def test_with_nobody_here_a_task_waits_for_its_python_as_long_as_it_takes() -> None:
    made = machine()
    made.submit(TaskSpec("t", python="3.11"), 0)
    assert made.tick(1000) == [Say(Request("3.11"))]


# --- offers with conditions -------------------------------------------------------------------------


def test_a_worker_that_is_paused_is_not_met_until_it_goes_on() -> None:
    made = machine()
    assert made.submit(TaskSpec("t"), 0) == [Say(Request(""))]
    assert made.heard(W0, hello(paused=True, free=0), 1) == []
    assert made.workers[W0.sid].word == "paused"
    assert made.why("t") == "waiting for a worker: those that are here are paused"
    assert made.heard(W0, hello(), 2) == [Meet(W0)]


def test_a_linked_worker_that_pauses_keeps_its_tasks_and_gets_no_more_until_it_goes_on() -> None:
    made = sent(machine(up="w0", slots=2), "t")
    made.heard(W0, hello(slots=2, free=0, paused=True), 1)
    assert sends(made.submit(TaskSpec("u"), 1)) == []
    assert made.state("t") is TaskState.SENT
    assert made.workers[W0.sid].word == "paused"
    assert sends(made.frame(W0.sid, result(), 2)) == []
    assert sends(made.heard(W0, hello(slots=2, free=2), 3)) == ["u"]


def test_tasks_that_a_paused_worker_hands_back_cost_no_loss_and_go_elsewhere_at_once() -> None:
    made = sent(machine(up="w0 w1"), "t")
    (first,) = [worker for worker in made.workers.values() if worker.tasks]
    other = next(worker for worker in made.workers.values() if worker is not first)
    actions = made.frame(first.sid, nack("paused"), 1)
    assert [action for action in actions if isinstance(action, Send)] == [Send(other.sid, "t", 2, ())]
    assert first.word == "paused"
    assert made._tasks["t"].losses == 0


def test_a_task_of_once_survives_a_pause() -> None:
    made = sent(machine(up="w0"), "t", once=True)
    made.frame(W0.sid, nack("paused"), 1)
    assert made.why("t") == "waiting for a worker: those that are here are paused"
    assert sends(made.heard(W0, hello(), 2)) == ["t"]


def test_a_paused_worker_with_the_right_python_is_waited_for() -> None:
    made = machine(up="w0")
    made.heard(W1, hello("w1", python="3.12", paused=True), 0)
    made.submit(TaskSpec("t", python="3.12"), 0)
    assert made.why("t") == "waiting for a worker: those that are here with python 3.12 are paused"
    made.tick(100)
    assert made.state("t") is TaskState.WAITING


ME, FRIEND = certificate("me", "client"), certificate("friend", "client")


def test_an_offer_that_is_for_others_is_neither_met_nor_waited_for() -> None:
    made = ClientMachine(SETTINGS, now=0, me=ME.signer)
    assert made.heard(W0, hello(only=(FRIEND.signer,)), 0) == []
    assert made.submit(TaskSpec("t"), 0) == [Say(Request(""))]
    assert made.why("t") == "waiting for a worker: those that are here are for others"
    assert made.heard(W1, hello("w1", only=(FRIEND.signer, ME.signer)), 1) == [Meet(W1)]


def test_ones_own_workers_are_for_oneself_whatever_they_say() -> None:
    made = ClientMachine(SETTINGS, now=0, me=ME.signer, own=lambda signer: signer == W0.signer)
    assert made.heard(W0, hello(only=(FRIEND.signer,)), 0) == [Meet(W0)]


def test_a_worker_of_others_with_another_python_fails_no_task() -> None:
    made = ClientMachine(SETTINGS, now=0, me=ME.signer)
    made.heard(W0, hello(only=(FRIEND.signer,), python="3.12"), 0)
    made.submit(TaskSpec("t", python="3.11"), 0)
    made.heard(W0, hello(only=(FRIEND.signer,), python="3.12"), 60)
    made.tick(60)
    assert made.state("t") is TaskState.WAITING


def test_a_worker_that_is_for_others_from_now_on_gets_no_more() -> None:
    made = sent(machine(up="w0"), "t")
    made.heard(W0, hello(only=(FRIEND.signer,)), 1)
    made.submit(TaskSpec("u"), 1)
    assert sends(made.frame(W0.sid, result(), 2)) == []


WALLED = {"sandbox": "bubblewrap"}


def test_who_requires_a_sandbox_gives_nothing_to_workers_without_one_also_to_their_own() -> None:
    made = ClientMachine(SETTINGS, now=0, own=lambda signer: signer == W0.signer, walled=True)
    assert made.heard(W0, hello(), 0) == []
    assert made.submit(TaskSpec("t"), 0) == [Say(Request(""))]
    assert made.why("t") == "waiting for a worker: no worker here has a sandbox"
    assert made.heard(W1, hello("w1", **WALLED), 1) == [Meet(W1)]
    assert sends(made.link_up(W1.sid, 2)) == ["t"]


def test_who_requires_no_sandbox_gives_tasks_to_workers_with_and_without_one() -> None:
    sent(machine(up="w0", slots=1), "t")
    sent(machine(up="w0", slots=1, **WALLED), "t")


def test_a_worker_without_the_required_sandbox_and_with_another_python_fails_no_task() -> None:
    made = ClientMachine(SETTINGS, now=0, walled=True)
    made.submit(TaskSpec("t", python="3.11"), 0)
    for now in (0, 60):
        made.heard(W0, hello(python="3.12"), now)
        made.tick(now)
    assert made.state("t") is TaskState.WAITING


def test_a_worker_that_gives_up_its_sandbox_gets_no_more_from_who_requires_one() -> None:
    made = ClientMachine(SETTINGS, now=0, walled=True)
    made.heard(W0, hello(**WALLED), 0)
    made.link_up(W0.sid, 0)
    made.heard(W0, hello(), 1)
    assert sends(made.submit(TaskSpec("t"), 1)) == []


def test_an_impossible_step_is_an_error_that_tells_what_came_before() -> None:
    made = sent(machine(up="w0"), "t")
    made.frame(W0.sid, Started("t", 1), 0)
    task = made._tasks["t"]
    with pytest.raises(LocalProtocolError, match=r"started leads from running to no running \(after room → started"):
        made._enter(task, "started", TaskState.RUNNING)


# --- the lender's say -------------------------------------------------------------------------------


def test_a_task_that_a_policy_refuses_goes_elsewhere_and_loses_nothing() -> None:
    made = sent(machine(up="w0 w1"), "t")
    actions = made.frame(W0.sid, Nack("t", 1, "refused", "packages", "no polars here"), 1)
    assert [a for a in actions if isinstance(a, Send)] == [Send(W1.sid, "t", 2, ())]
    made.frame(W1.sid, Nack("t", 2, "refused", "who"), 2)
    assert made.state("t") is TaskState.WAITING
    assert made.why("t").endswith("after w1 refused it: it is lent to others")
    assert not sends(made.heard(W0, hello("w0"), 3))  # its conditions are those of before
    assert sends(made.heard(W0, hello("w0", input=10, edition=1), 4)) == ["t"]


def test_what_is_peculiar_to_a_task_is_all_there_is_to_say_where_no_worker_takes_it() -> None:
    made = sent(machine(up="w0"), "t")
    assert made.peculiar("t") == ""
    made.frame(W0.sid, Nack("t", 1, "refused", "asking"), 1)
    assert made.peculiar("t") == made.why("t") == "waiting for w0's yes"
    made.heard(W0, hello("w0", edition=1), 9)
    made.frame(W0.sid, Nack("t", 2, "refused", "no", "its lender has said no", edition=1), 9)
    refused = "after w0 refused it: its lender has said no"
    assert made.peculiar("t") == f"waiting for another worker, {refused}"
    made.heard(W0, hello("w0", edition=2, input=1), 9)
    assert made.peculiar("t") == refused  # it waits as others do
    made.submit(TaskSpec("large", size=2), 9)
    assert made.peculiar("large").startswith("waiting for a worker that takes 2 bytes: ")
    assert made.peculiar("none") == ""


def test_a_task_that_asks_for_packages_goes_to_workers_that_install_some_and_keeps_no_other_waiting() -> None:
    made = machine(up="w0 w1")
    assert not sends(made.submit(TaskSpec("p", packages=("numpy>=2",)), 0))
    assert made.why("p") == "waiting for a worker that installs numpy>=2: those that are here install nothing"
    assert made.peculiar("p") == made.why("p")
    assert sends(made.submit(TaskSpec("t"), 0)) == ["t"]  # behind it
    assert not sends(made.heard(W1, hello("w1", packages="own"), 1))  # for the lender's own tasks
    assert not sends(made.heard(W1, hello("w1", packages="later"), 1))  # a word of a later version
    assert sends(made.heard(W1, hello("w1", packages="ask"), 1)) == ["p"]


def test_packages_for_a_lenders_own_tasks_are_for_ours_if_it_is_us() -> None:
    made = machine(up="w0")
    made._own = lambda signer: signer == W0.signer
    made.submit(TaskSpec("p", packages=("numpy",)), 0)
    assert sends(made.heard(W0, hello("w0", packages="own"), 1)) == ["p"]


def test_what_comes_before_a_task_is_said_but_not_more_often_than_people_read() -> None:
    made = sent(machine(up="w0"), "t")
    changes = []
    for number in range(100):
        actions = made.frame(W0.sid, Started("t", 1, f"installing numpy ({number} s)"), number / 100)
        changes += [a for a in actions if isinstance(a, Changed)]
    assert made.why("t").startswith("on w0: installing numpy (")
    assert len(changes) <= 3
    made.frame(W0.sid, Started("t", 1), 1)
    assert made.why("t") == "on w0"


def test_an_offer_that_comes_before_the_refusal_that_it_takes_back_counts() -> None:
    made = sent(machine(up="w0"), "t")
    made.heard(W0, hello("w0", edition=1), 1)  # by the board, quicker than the link
    made.frame(W0.sid, Nack("t", 1, "refused", "asking", edition=0), 1)
    assert sends(made.tick(2)) == ["t"]


def test_a_worker_that_refuses_and_offers_in_turns_causes_few_sendings() -> None:
    made, sendings, now = sent(machine(up="w0"), "t"), 1, 0.0
    for turn in range(1000):
        now += 0.1
        task = made._tasks["t"]
        if task.state is TaskState.SENT:
            made.frame(W0.sid, Nack("t", task.attempt, "refused", "asking", edition=turn), now)
        sendings += len(sends(made.heard(W0, hello("w0", edition=turn + 1), now)))
    assert 10 < sendings < 30  # in 100 s


def test_tasks_pass_over_one_that_no_worker_with_room_takes() -> None:
    made = sent(machine(up="w0"), "t")
    for number in range(3):
        made.submit(TaskSpec(f"u{number}"), 0)
    actions = made.frame(W0.sid, Nack("t", 1, "refused", "input"), 1)
    assert sends(actions) == ["u0"]
    assert sends(made.frame(W0.sid, Result("u0", 1, True, ()), 2)) == ["u1"]
    assert made.state("t") is TaskState.WAITING


def test_a_task_larger_than_the_offer_takes_is_not_sent_and_says_why() -> None:
    made = machine(up="w0", input=1 << 20)
    made.submit(TaskSpec("large", size=1 << 21), 0)
    assert made.state("large") is TaskState.WAITING
    assert made.why("large") == "waiting for a worker that takes 2 MiB: those that are here take at most 1 MiB a task"
    assert sends(made.submit(TaskSpec("small", size=1 << 20), 0)) == ["small"]
    made.frame(W0.sid, Result("small", 1, True, ()), 1)
    assert sends(made.heard(W0, hello("w0", input=1 << 21), 2)) == ["large"]


def test_an_offer_that_is_not_for_our_member_is_not_taken_up() -> None:
    made = ClientMachine(SETTINGS, now=0, me="SHA256:me")
    assert made.heard(W0, hello("w0", not_for=("SHA256:me",)), 0) == []
    assert not made.workers[W0.sid].for_us


def test_a_pause_is_shown_with_its_reason() -> None:
    made = machine(up="w0")
    made.heard(W0, hello("w0", paused=True, why="battery"), 0)
    made.submit(TaskSpec("t"), 0)
    assert made.why("t") == "waiting for a worker: those that are here are paused (on battery)"
    assert made.workers[W0.sid].word == "paused: on battery"


def test_a_task_stopped_by_hand_is_over_whatever_its_attempts() -> None:
    made = sent(machine(up="w0 w1"), "t")
    actions = made.frame(W0.sid, Result("t", 1, False, (), failure=TaskFailure("stopped")), 1)
    assert not sends(actions)
    assert made.state("t") is None
