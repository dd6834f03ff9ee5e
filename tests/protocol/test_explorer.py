"""Every order of events in small clusters keeps the invariants; and the search finds machines that don't."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from explorer import explore
from simulation import World

from p2p_ipython.config import Settings
from p2p_ipython.protocol import client_machine as cm
from p2p_ipython.protocol import worker_machine as wm
from p2p_ipython.protocol.client_machine import ClientMachine, TaskState
from p2p_ipython.protocol.placement import TaskSpec
from p2p_ipython.protocol.task_frames import Nack, Result, Room, Started, Want, WorkerFrame
from p2p_ipython.protocol.turns import Job, Turns
from p2p_ipython.protocol.worker_machine import WorkerMachine

SETTINGS = Settings(presence=1e5, attempts=2)


def linked(
    *,
    tasks: int = 1,
    once: bool = False,
    refs: int = 0,
    faults: int,
    workers: int = 2,
    attempts: int = 2,
    **classes: Any,
) -> World:
    """A client with links to all workers, and tasks, each with the same large buffers, that it has just submitted."""
    world = World(workers=workers, settings=replace(SETTINGS, attempts=attempts), faults=faults, **classes)
    world.link_all()
    for number in range(tasks):
        world.submit(0, TaskSpec(f"t{number}", refs={f"ref{ref}": 9 for ref in range(refs)}, once=once))
    return world


def friends(*, tasks: int = 1, faults: int, attempts: int = 2, **classes: Any) -> World:
    """Two members' clients with links to a worker of one slot, where the second one's task has just been handed back:
    the first one's runs, and each has ``tasks`` more."""
    settings = replace(SETTINGS, attempts=attempts)
    world = World(clients=2, workers=1, settings=settings, faults=0, **classes)
    world.link_all()
    world.submit(0, TaskSpec("a"))
    world.step(("to worker", 1))
    world.submit(1, TaskSpec("b"))
    world.step(("to worker", 2))
    while world.links[2].to_client == []:
        world.step(("time",))
    for number in range(tasks):
        world.submit(0, TaskSpec(f"a{number}"))
    world.faults = faults
    return world


def strangers(*, faults: int, workers: int = 1) -> World:
    """A client and workers that have yet to hear of each other."""
    world = World(workers=workers, settings=SETTINGS, faults=faults)
    world.submit(0, TaskSpec("t0"))
    return world


def test_one_task_that_may_run_once_and_any_two_faults() -> None:
    report = explore(linked(once=True, faults=2), limit=20_000, complete_every=40)
    assert (report.violation, report.story, report.exhausted) == ("", [], True)
    assert report.states > 5_000


def test_two_tasks_and_one_worker_without_faults() -> None:
    report = explore(linked(tasks=2, faults=0, workers=1), limit=5_000, complete_every=1)
    assert (report.violation, report.story, report.exhausted) == ("", [], True)


def test_two_tasks_and_a_worker_that_is_paused_whenever() -> None:
    world = linked(tasks=2, faults=0, workers=1)
    world.pauses = 2
    report = explore(world, limit=5_000, complete_every=20)
    assert (report.violation, report.story) == ("", [])
    assert report.states == 5_000


def test_two_tasks_and_lenders_that_refuse_and_stop_whenever() -> None:
    world = linked(tasks=2, faults=0)
    world.says = 3
    report = explore(world, limit=5_000, complete_every=20)
    assert (report.violation, report.story) == ("", [])
    assert report.states == 5_000


class _Insistent(ClientMachine):
    def _refused(self, task: Any, worker: Any, nack: Nack, now: float) -> None:
        super()._refused(task, worker, nack, now)
        task.refused.clear()


class _Silent(WorkerMachine):
    def stop_all(self, now: float) -> list[wm.Action]:
        return [action for action in super().stop_all(now) if not isinstance(action, wm.Reply)]


@pytest.mark.parametrize(
    ("classes", "violation"),
    [
        ({"client_class": _Insistent}, "a task was sent again to a worker that has refused it"),
        ({"worker_class": _Silent}, "a task was never settled"),
    ],
)
def test_the_search_finds_machines_that_insist_or_keep_a_stop_to_themselves(
    classes: dict[str, Any], violation: str
) -> None:
    world = linked(tasks=1, faults=0, workers=1, **classes)
    world.says = 1
    assert explore(world, limit=5_000, complete_every=1).violation == violation


def test_two_members_and_one_slot_without_faults() -> None:
    report = explore(friends(faults=0), limit=5_000, complete_every=20)
    assert (report.violation, report.story) == ("", [])
    assert report.states == 5_000


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(lambda: linked(faults=2), id="one task that may be tried again, two faults"),
        pytest.param(lambda: linked(tasks=2, faults=2, workers=1), id="two tasks for one slot, two faults"),
        pytest.param(lambda: linked(tasks=2, refs=1, faults=2, workers=1), id="two tasks with a buffer, two faults"),
        pytest.param(lambda: friends(faults=2), id="two members for one slot, two faults"),
        pytest.param(lambda: strangers(faults=1), id="a first meeting, one fault"),
        pytest.param(lambda: strangers(faults=0, workers=2), id="two first meetings"),
    ],
)
def test_larger_searches_as_far_as_they_get(world: Callable[[], World]) -> None:
    report = explore(world(), limit=2_500, complete_every=40)
    assert (report.violation, report.story) == ("", [])
    assert report.states == 2_500


# --- machines with a mistake in them: each must be found --------------------------------------------


class IgnoresTheAttempt(ClientMachine):
    def frame(self, sid: bytes, frame: WorkerFrame, now: float) -> list[cm.Action]:
        task = self._tasks.get(getattr(frame, "id", ""))
        return super().frame(sid, replace(frame, attempt=task.attempt) if task else frame, now)  # type: ignore[call-arg]


class SettlesTwice(ClientMachine):
    def _result(self, task: Any, worker: Any, result: Result) -> None:
        super()._result(task, worker, result)
        self._actions.append(cm.Settle(task.spec.id, result))


class DeliversWhatWasCancelled(ClientMachine):
    def _about(self, task: Any, worker: Any, frame: Any, now: float) -> None:
        if task.state is TaskState.STOPPING and isinstance(frame, Result) and frame.ok:
            task.state = TaskState.RUNNING
        super()._about(task, worker, frame, now)


class DoesNotWaitForItsEnd(ClientMachine):
    def cancel(self, task_id: str, now: float, *, unsent: bool = False) -> list[cm.Action]:
        actions = super().cancel(task_id, now, unsent=unsent)
        if (task := self._tasks.get(task_id)) is not None and task.state is TaskState.STOPPING:
            self._end(task, "stopped", state=TaskState.CANCELLED, why=cm.ASKED)
        return actions + self._next(now)


class KeepsItsClientWaiting(WorkerMachine):
    def _say_stopped(self, slot: Any, seconds: float | None) -> None:
        pass


class SaysTooEarlyThatItHasStopped(WorkerMachine):
    def recall(self, link: int, task: str, attempt: int, now: float) -> list[wm.Action]:
        return [*super().recall(link, task, attempt, now), wm.Reply(link, Nack(task, attempt, "recalled"))]


class ForgetsTheTasksOfALostLink(ClientMachine):
    def link_lost(self, sid: bytes, detail: str, now: float) -> list[cm.Action]:
        self.workers.pop(sid, None)
        return self._next(now)


class RunsOnceTasksAgain(ClientMachine):
    def _lost(self, task: Any, detail: str) -> None:
        task.sid = None
        self._requeue(task, "lost")


class CountsNoLosses(ClientMachine):
    def _lost(self, task: Any, detail: str) -> None:
        task.losses -= 1
        super()._lost(task, detail)


class KeepsADeadlineInThePast(ClientMachine):
    def deadline(self) -> float | None:
        return self._request_at


class SendsNothingAgain(ClientMachine):
    def frame(self, sid: bytes, frame: WorkerFrame, now: float) -> list[cm.Action]:
        return [] if isinstance(frame, Want) else super().frame(sid, frame, now)


class NacksWhatItHasStarted(WorkerMachine):
    def tick(self, now: float, wall: float) -> list[wm.Action]:
        actions = super().tick(now, wall)
        return [
            wm.Reply(a.link, Nack(a.frame.id, a.frame.attempt, "busy"))
            if isinstance(a, wm.Reply) and isinstance(a.frame, Started)
            else a
            for a in actions
        ]


class StartsInBusySlots(WorkerMachine):
    def recall(self, link: int, task: str, attempt: int, now: float) -> list[wm.Action]:
        actions = super().recall(link, task, attempt, now)
        for slot in self._slots:
            if not slot.wanted:
                slot.job, slot.wanted = None, True
        return actions + self._fill(now)


class LeaksASlot(WorkerMachine):
    def _vacate(self, number: int, event: str, now: float) -> None:
        slot = self._slots[number]
        slot.ready = slot.ready and slot.wanted
        super()._vacate(number, event, now)


class NeverUsesASecondRunner(WorkerMachine):
    def slot_ready(self, number: int, now: float) -> list[wm.Action]:
        if self._slots[number].since:
            return []
        return super().slot_ready(number, now)

    def slot_died(self, number: int, **how: Any) -> list[wm.Action]:
        actions = super().slot_died(number, **how)
        self._slots[number].since = 1.0
        return actions


class _OtherTurns(WorkerMachine):
    turns: type[Turns]

    def __init__(self, settings: Settings, **rest: Any) -> None:
        super().__init__(settings, **rest)
        self._turns = self.turns(settings.hold)


class _KeepsWhatIsDropped(Turns):
    def drop(self, job: Job) -> bool:
        return self.is_held(job)


class KeepsATaskThatWasRecalled(_OtherTurns):
    turns = _KeepsWhatIsDropped


class _KeepsForEver(Turns):
    def deadline(self) -> float:
        kept, self._reserves = self._reserves, {}
        found = super().deadline()
        self._reserves = kept
        return found

    def end_reserves(self, now: float) -> None:
        pass


class KeepsASlotForEver(_OtherTurns):
    turns = _KeepsForEver


class _KeepsForLostLinks(Turns):
    def leave(self, link: int, now: float) -> None:
        self._places.pop(link, None)


class KeepsASlotForALostLink(_OtherTurns):
    turns = _KeepsForLostLinks


class LeavesASlotIdleThatWasPassed(WorkerMachine):
    def passed(self, link: int, now: float) -> list[wm.Action]:
        self._turns.leave(link, now)
        return []


class RunsOthersAheadInAKeptSlot(WorkerMachine):
    def _assign(self, now: float) -> None:
        kept, self._turns._reserves = self._turns._reserves, {}
        super()._assign(now)
        self._turns._reserves |= kept


class TakesRoomForANack(ClientMachine):
    def frame(self, sid: bytes, frame: WorkerFrame, now: float) -> list[cm.Action]:
        if isinstance(frame, Room):
            for task in self.workers[sid].tasks:
                self._requeue(self._tasks[task], "nack")
        return super().frame(sid, frame, now)


@pytest.mark.parametrize(
    ("mistaken", "faults", "found"),
    [
        (KeepsASlotForEver, 1, "kept for too long"),
        (KeepsASlotForALostLink, 1, "for a link that is gone"),
        (LeavesASlotIdleThatWasPassed, 0, "although a slot is free"),
        (RunsOthersAheadInAKeptSlot, 1, "kept that isn't free"),
        (TakesRoomForANack, 1, "in two places"),
    ],
)
def test_a_mistake_with_kept_slots_is_found(mistaken: type, faults: int, found: str) -> None:
    kind = "client_class" if issubclass(mistaken, ClientMachine) else "worker_class"
    report = explore(friends(tasks=2, faults=faults, **{kind: mistaken}), limit=20_000)
    assert found in report.violation
    assert report.story


@pytest.mark.parametrize(
    ("mistaken", "world", "found"),
    [
        (IgnoresTheAttempt, {"faults": 2, "workers": 1, "attempts": 3}, "another worker has it"),
        (SettlesTwice, {"faults": 0}, "settled twice"),
        (DeliversWhatWasCancelled, {"faults": 1}, "delivered after it was cancelled"),
        (DoesNotWaitForItsEnd, {"faults": 1}, "over before its end"),
        (KeepsItsClientWaiting, {"faults": 1}, "keeps a client waiting"),
        (SaysTooEarlyThatItHasStopped, {"faults": 1}, "said to have ended, and runs"),
        (ForgetsTheTasksOfALostLink, {"faults": 1}, "forgotten"),
        (RunsOnceTasksAgain, {"faults": 1, "once": True}, "ran twice"),
        (CountsNoLosses, {"faults": 2}, "more often than allowed"),
        (KeepsADeadlineInThePast, {"faults": 0}, "deadline has passed"),
        (SendsNothingAgain, {"faults": 1, "refs": 1, "workers": 1}, "never settled"),
        (NacksWhatItHasStarted, {"faults": 0, "once": True}, "ran twice"),
        (StartsInBusySlots, {"faults": 1, "tasks": 2, "workers": 1}, "lost or kept"),
        (LeaksASlot, {"faults": 1}, "leaked"),
        (NeverUsesASecondRunner, {"faults": 1, "workers": 1}, "leaked"),
        (KeepsATaskThatWasRecalled, {"faults": 2, "tasks": 2, "workers": 1}, "lost or kept"),
    ],
)
def test_a_mistake_is_found(mistaken: type, world: dict[str, Any], found: str) -> None:
    kind = "client_class" if issubclass(mistaken, ClientMachine) else "worker_class"
    report = explore(linked(**world, **{kind: mistaken}), limit=20_000, complete_every=3)
    assert found in report.violation
    assert report.story
