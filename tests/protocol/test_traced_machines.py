"""Machines that are traced: what a task's story says of its links, its end, and events that raise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from people import certificate

from p2p_ipython.config import Settings
from p2p_ipython.errors import NotAdmitted, RemoteProtocolError
from p2p_ipython.protocol.client_machine import MAX_WANTS, ClientMachine
from p2p_ipython.protocol.messages import Accept, Hello, Terms
from p2p_ipython.protocol.placement import TaskSpec
from p2p_ipython.protocol.task_frames import FAILURES, Lost, Nack, Result, TaskFailure, Want
from p2p_ipython.protocol.tracing import Line, events_of, story, traced
from p2p_ipython.protocol.worker_machine import WorkerMachine

ME = certificate("c0", "client")
W0, W1 = certificate("w0"), certificate("w1")
CANARY = "CANARY-0123456789"
TERMS = Terms(slots=1, free=1, python="3.11")


def told(lines: list[Line], task: str = "t") -> list[str]:
    """The story, of lines that went through a file, without the actor."""
    read = json.loads(json.dumps([{"at": number, **line} for number, line in enumerate(lines)]))
    return [sentence.split(" ", 2)[2] for _, sentence in story(read, task)]


def client(lines: list[Line], **settings: Any) -> ClientMachine:
    """A traced client that has sent the tasks "t" to W0, and "other" to W1."""
    machine = traced(ClientMachine(Settings(**settings), now=0), "client", ME.sid, lines.append)
    for worker, task in ((W0, "t"), (W1, "other")):
        machine.heard(worker, Hello("name", 0, TERMS), 0)
        machine.link_up(worker.sid, 0)
        machine.submit(TaskSpec(task, refs={CANARY: 3}), 0)
        assert machine.worker_of(task) is machine.workers[worker.sid]
    return machine


def w(sid: bytes) -> str:
    return f"worker {sid.hex()[:8]}"


@pytest.mark.parametrize("at_once", [False, True])
def test_a_clients_story_says_when_the_tasks_link_is_away_back_and_lost(*, at_once: bool) -> None:
    lines: list[Line] = []
    machine = client(lines)
    machine.link_away(W0.sid, CANARY, 1)
    machine.link_up(W0.sid, 2)
    if at_once:
        machine.links_lost({W0.sid}, CANARY, 3)
    else:
        machine.link_lost(W0.sid, CANARY, 3)
    machine.link_lost(W0.sid, CANARY, 4)  # the task is no longer there
    about = [sentence for sentence in told(lines) if "link" in sentence]
    assert about == [
        f"waits for its link to {w(W0.sid)} to come back",
        f"has its link to {w(W0.sid)} back",
        f"loses its link to {w(W0.sid)}",
    ]
    assert not any("link" in sentence for sentence in told(lines, "other"))
    assert CANARY not in json.dumps(lines)


def test_links_that_are_lost_at_once_are_told_to_the_tasks_of_each() -> None:
    lines: list[Line] = []
    client(lines).links_lost([W0.sid, W1.sid], "", 1)
    assert f"loses its link to {w(W0.sid)}" in told(lines)
    assert f"loses its link to {w(W1.sid)}" in told(lines, "other")
    assert sum("link" in sentence for task in ("t", "other") for sentence in told(lines, task)) == 2


def test_a_task_that_was_handed_back_or_is_over_has_no_link_to_lose() -> None:
    lines: list[Line] = []
    machine = client(lines)
    machine.frame(W0.sid, Nack("t", 1, "busy"), 1)
    machine.frame(W1.sid, Result("other", 1, True, ()), 1)
    assert machine.worker_of("t") is machine.workers[W1.sid], "the nacked task goes on to the free worker"
    machine.link_lost(W0.sid, "", 2)
    assert not any("link" in sentence for task in ("t", "other") for sentence in told(lines, task))
    machine.link_lost(W1.sid, "", 3)
    assert f"loses its link to {w(W1.sid)}" in told(lines)
    assert not any("link" in sentence for sentence in told(lines, "other"))


def test_a_workers_story_says_when_the_tasks_link_is_lost() -> None:
    lines: list[Line] = []
    made = WorkerMachine(Settings(), sid=W0.sid, name="w0", terms=TERMS, now=0)
    machine = traced(made, "worker", W0.sid, lines.append)
    machine.slot_ready(0, 0)
    for link in (1, 2):
        machine.heard(ME, Accept(W0.sid, b"box"), 0, 0)
        machine.link_up(link, ME)
    machine.task(1, "t", 1, 0)
    machine.task(1, "held", 1, 0)
    machine.task(2, "other", 1, 0)
    machine.link_lost(1, 1)
    for task in ("t", "held"):
        assert "loses link 1" in told(lines, task)
    machine.slot_result(0, Result("t", 1, True, ()), b"", 2)
    machine.slot_result(0, Result("other", 1, True, ()), b"", 3)
    machine.link_lost(2, 4)
    assert not any("loses" in sentence for sentence in told(lines, "other"))


def test_lines_of_links_that_somebody_else_wrote_neither_end_the_story_nor_join_it() -> None:
    odd: list[Any] = [7, None, "x", [[]], {"a": []}]
    lines = [{"who": "client", "own": "aa", "action": "Send", "task": "t", "sid": [], "attempt": {}}]
    lines += [{"who": one, "own": one, "event": "links_lost", "sids": one, "link": one} for one in odd]
    assert len(told(lines)) == 1


def failed(what: str) -> Result:
    return Result("t", 1, False, (), failure=TaskFailure(what, CANARY, (), CANARY, CANARY, CANARY))


OUTCOMES: dict[str, Callable[[ClientMachine], Any]] = {
    "result": lambda machine: machine.frame(W0.sid, Result("t", 1, True, ()), 1),
    "error": lambda machine: machine.frame(W0.sid, failed(CANARY), 1),
    "cancelled": lambda machine: [machine.cancel("t", 1), machine.frame(W0.sid, failed("interrupted"), 1)],
    "lost": lambda machine: machine.frame(W0.sid, Lost("t", 1, CANARY), 1),
    "error NotAdmitted": lambda machine: machine.give_up(lambda task: NotAdmitted(CANARY), 1),
    **{f"error {what}": lambda machine, what=what: machine.frame(W0.sid, failed(what), 1) for what in FAILURES},
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_story_ends_with_the_tasks_outcome_and_none_of_its_words(outcome: str) -> None:
    lines: list[Line] = []
    OUTCOMES[outcome](client(lines, attempts=1))
    assert told(lines)[-1] == f"settles the future: {outcome}"
    assert CANARY not in json.dumps(lines)


def test_an_event_that_raises_is_told_by_its_errors_class_and_raises() -> None:
    lines: list[Line] = []
    machine = client(lines)
    want = Want("t", 1, (CANARY,))
    for _ in range(MAX_WANTS):
        machine.frame(W0.sid, want, 1)
    before = len(lines)
    with pytest.raises(RemoteProtocolError):
        machine.frame(W0.sid, want, 1)
    (line,) = lines[before:]
    assert (line["event"], line["frame"]["id"], line["raises"]) == ("frame", "t", "RemoteProtocolError")
    assert told(lines)[-1] == "hears want of attempt 1 (refs 1), and raises RemoteProtocolError"
    machine.tick(2)
    assert lines[-1]["event"] == "tick" or "action" in lines[-1], "events after it are still written"
    assert CANARY not in json.dumps(lines)


def test_a_machine_that_is_not_traced_has_its_own_methods() -> None:
    """So an event costs what it costs: ``traced`` puts a wrapper into the machine, and nothing else looks for it."""
    plain, watched = ClientMachine(Settings(), now=0), client([])
    assert not vars(plain).keys() & set(events_of(ClientMachine))
    assert vars(watched).keys() >= set(events_of(ClientMachine))
