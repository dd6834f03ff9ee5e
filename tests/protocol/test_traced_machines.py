"""Machines that are traced: what a task's story says of its end, and events that raise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from people import certificate

from p2p_ipython.config import Settings
from p2p_ipython.errors import NotAdmitted, RemoteProtocolError
from p2p_ipython.protocol.client_machine import MAX_WANTS, ClientMachine
from p2p_ipython.protocol.messages import Hello, Terms
from p2p_ipython.protocol.placement import TaskSpec
from p2p_ipython.protocol.task_frames import FAILURES, Lost, Result, TaskFailure, Want
from p2p_ipython.protocol.tracing import Line, events_of, story, traced

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


def failed(what: str) -> Result:
    return Result("t", 1, False, (), failure=TaskFailure(what, CANARY, (), CANARY, CANARY, CANARY))


OUTCOMES: dict[str, Callable[[ClientMachine], Any]] = {
    "result": lambda machine: machine.frame(W0.sid, Result("t", 1, True, ()), 1),
    "error": lambda machine: machine.frame(W0.sid, failed(CANARY), 1),
    "cancelled": lambda machine: machine.cancel("t", 1),
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
