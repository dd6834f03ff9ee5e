"""Why tasks wait: the reason that all have who need the same, and what is peculiar to one."""

from __future__ import annotations

from people import certificate

from p2p_ipython.config import Settings
from p2p_ipython.errors import LinkTimeout
from p2p_ipython.protocol.client_machine import ClientMachine
from p2p_ipython.protocol.messages import Hello, Terms
from p2p_ipython.protocol.needs import ANY
from p2p_ipython.protocol.placement import TaskSpec

W0 = certificate("w0")


def machine(*tasks: tuple[str, str], up: bool = False, known: bool = False) -> ClientMachine:
    """A machine with these tasks (name and Python), after a worker with one slot and python 3.11 was heard or met."""
    made = ClientMachine(Settings(), now=0)
    if up or known:
        made.heard(W0, Hello("w0", 0, Terms(slots=1, free=1, python="3.11")), 0)
    if up:
        made.link_up(W0.sid, 0)
    for name, python in tasks:
        made.submit(TaskSpec(name, python=python), 0)
    return made


def reasons(made: ClientMachine) -> dict[str, str]:
    return {needs.key(): made.reason(needs) for needs in made.wanted()}


def test_without_tasks_that_wait_there_is_no_reason() -> None:
    assert reasons(machine()) == {}
    assert reasons(machine(("a", ""), up=True)) == {}  # it was sent


def test_each_version_that_is_needed_has_its_reason() -> None:
    made = machine(("a", ""), ("b", ""), ("c", "3.12"), up=True)
    assert reasons(made) == {
        "": "waiting for a free slot of 1",
        "3.12": "waiting for a worker with python 3.12 (here: 3.11)",
    }


def test_without_a_worker_all_wait_for_one() -> None:
    made = machine(("a", ""), ("b", "3.12"))
    assert set(reasons(made).values()) == {"waiting for a worker: none is here"}


def test_a_required_sandbox_is_a_reason_only_while_no_worker_for_us_has_one() -> None:
    made = ClientMachine(Settings(), now=0, walled=True)
    made.submit(TaskSpec("a"), 0)
    made.submit(TaskSpec("b", python="3.12"), 0)
    assert set(reasons(made).values()) == {"waiting for a worker: none is here"}
    made.heard(W0, Hello("w0", 0, Terms(slots=1, free=1, python="3.11")), 0)
    assert set(reasons(made).values()) == {"waiting for a worker: no worker here has a sandbox"}
    made.heard(certificate("w1"), Hello("w1", 0, Terms(slots=1, free=1, python="3.11", sandbox="bubblewrap")), 0)
    assert reasons(made) == {
        "": "waiting for a link to w1",
        "3.12": "waiting for a worker with python 3.12 (here: 3.11)",
    }


def test_a_link_that_could_not_be_made_is_named_with_its_trouble() -> None:
    made = machine(("a", ""), known=True)
    made.meet_failed(W0.sid, LinkTimeout("nobody came"), 0)
    assert reasons(made) == {"": "waiting for a link to w0: nobody came"}


def test_a_loss_is_peculiar_to_the_task_that_had_it() -> None:
    made = machine(("a", ""), ("b", ""), up=True)
    made.link_lost(W0.sid, "the link is gone", 1)
    assert made.why("a") == f"{made.reason(ANY)}, after losing w0: the link is gone"
    assert made.why("b") == made.reason(ANY)
