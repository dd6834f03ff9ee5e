"""The client's side of a task's life: every decision, no I/O.

A task goes through these states; the words are those that people read::

    waiting ──(a worker has room)──────────────► sent ──started──► running ──result──► done
       ▲                                          │                   │                failed
       ├──────────── nack: never started ─────────┤                   │
       └──── link lost, or runner killed: ────────┴───────────────────┘
             one loss more; after `attempts` losses, or at the first one
             of a `once` task, it is failed as WorkerLost
    sent, running ──raised, and may be retried──► waiting
    waiting ──cancel──► cancelled
    sent, running ──cancel──► stopping ──its worker has said that it has ended, or is lost──► cancelled

Each time a task is sent its *attempt* rises. Everything that comes back names the attempt, and counts only if
it comes from the worker that the attempt was sent to: a late, repeated or forged result finds no task.

The result of a task that is *stopping* only says that it has ended: it is cancelled whatever it has come to. A worker
that doesn't say so in time is waited for no longer (patience.py).

A nack means "never started", so it costs no loss. Hence executions ≤ losses + 1 ≤ ``attempts``, and as many more as
the task's user allows retries after errors of its own (retries.py); losses and retries are counted apart.

A worker goes through: known (its offer was heard) → meeting → up ⇄ away → forgotten. A worker whose offer is paused,
isn't for our member, or lacks a sandbox that we require, is neither met nor given anything. Links deliver each frame
once and in order (link/base.py), so nothing here resends. A task is sent again only when its link is lost for good,
and the worker then ends what it was running for that link.

Which worker gets a task, and how many: placement.py. A worker that handed a task back is left alone for ``hold``
seconds, unless it says ``room``: it keeps a slot, because it is this member's turn. It gets a task at once then, or a
``Pass``. One that hands back task after task is left alone for longer each time,
whatever it says.

Pure: ``now`` is any clock that doesn't go back, seconds. Each event returns the actions that follow from it;
``deadline()`` says when ``tick`` is due.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from p2p_ipython.config import Settings
from p2p_ipython.errors import P2PError, PythonMismatch, RemoteProtocolError, TaskTimeout, WorkerLost, WrongPeer
from p2p_ipython.protocol.client_actions import (
    ASKED,
    TRANSITIONS,
    Action,
    Changed,
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
from p2p_ipython.protocol.meetings import Meetings
from p2p_ipython.protocol.messages import Bye, Hello, Message, Request, Terms, why_words
from p2p_ipython.protocol.needs import ANY, Needs, Queue
from p2p_ipython.protocol.patience import Patience
from p2p_ipython.protocol.placement import (
    Placement,
    Refused,
    TaskSpec,
    WorkerState,
    WorkerView,
    fits,
    handed_back,
    has_room,
    pythons,
    stays,
    takes,
)
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.reasons import reason, refused, too_large, without_packages
from p2p_ipython.protocol.retries import error_words, is_among
from p2p_ipython.protocol.task_frames import (
    RECALLED,
    Evicted,
    Lost,
    Nack,
    Pass,
    Recall,
    Result,
    Room,
    Started,
    Want,
    WorkerFrame,
)
from p2p_ipython.protocol.transitions import check

__all__ = [
    "ASKED",
    "MAX_WANTS",
    "TRANSITIONS",
    "Action",
    "Changed",
    "ClientMachine",
    "Meet",
    "Note",
    "Say",
    "Send",
    "SendBuffers",
    "Settle",
    "TaskState",
    "Tell",
]

MAX_WANTS = 8
"""How often a worker may ask for one buffer of an attempt: once, and when runners that held it have died. Each time its
bytes are queued anew, so a worker that asks on and on, and reads nothing, would fill the client."""

REFUSED_MOST = 8.0
"""Seconds, at most, for which a worker that has refused a task again and again doesn't get it, whatever it offers."""

DETAIL_EVERY = 0.5
"""Seconds between two changes of what a worker says comes before a task runs."""

MAX_PASSED_OVER = 64
"""Tasks that no worker with room takes, and that the next ones pass over, in one event: of all queues."""


MAX_EMPTY = 64
"""Needs whose queues are kept although no task waits there any more: each event looks at all queues."""


# --- state ------------------------------------------------------------------------------------------


@dataclass
class _Tracked:
    """A task that isn't over."""

    spec: TaskSpec
    number: int  # of its submission
    state: TaskState = TaskState.WAITING
    attempt: int = 0
    losses: int = 0
    retried: int = 0
    sid: bytes | None = None
    last_loss: str = ""
    asked: str = ""  # whose yes it waits for, in words
    detail: str = ""  # what comes before it runs, in its worker's words
    detailed: float = 0.0  # when its worker said so
    refused: dict[bytes, Refused] = field(default_factory=dict)  # by worker
    wanted: dict[str, int] = field(default_factory=dict)  # how often this attempt's worker asked, by ref
    story: list[str] = field(default_factory=list)


def _pinned_lost(what: str) -> WorkerLost:
    return WorkerLost(
        f"the worker of this task {what}",
        hint="It was submitted to run on this worker only, so it was not given to another one.",
    )


def _nobody(_signer: str) -> bool:
    return False


def _nameless(_signer: str) -> str:
    return ""


class ClientMachine:
    """Decides which worker gets which task, and what becomes of it.

    ``me`` is the fingerprint of our member's key. ``own`` says whether a fingerprint belongs to our member: such offers
    are for us whatever they say. ``walled``: workers without a sandbox get nothing, our member's own neither.
    ``named`` returns the roster's name of a member by fingerprint, "" in a personal cluster.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now: float,
        me: str = "",
        own: Callable[[str], bool] = _nobody,
        walled: bool = False,
        named: Callable[[str], str] = _nameless,
    ) -> None:
        self._settings = settings
        self._me = me
        self._own = own
        self._walled = walled
        self._named = named
        self._tasks: dict[str, _Tracked] = {}
        self._numbers = itertools.count()
        self._queues: dict[Needs, Queue] = {}
        self._unfit_since: dict[Needs, float] = {}  # queues that only workers of other Pythons are here for
        self.workers: dict[bytes, WorkerView] = {}
        self._request_at = now
        self._closed = False
        self._hopeless: Callable[[str], P2PError] | None = None
        self._actions: list[Action] = []
        self._placement = Placement(settings)
        self._meetings = Meetings(own)
        self._patience = Patience(settings)

    # -- what the user does --

    def submit(self, spec: TaskSpec, now: float) -> list[Action]:
        """Take a new task. After ``close`` it is cancelled at once, after ``give_up`` it fails at once."""
        if spec.id in self._tasks:
            raise ValueError(f"task {spec.id} was submitted before")
        task = self._tasks[spec.id] = _Tracked(spec, next(self._numbers))
        self._queue(spec.needs).add(spec.id, spec.priority, task.number)
        if self._closed:
            self._end(task, "close", state=TaskState.CANCELLED)
        elif self._hopeless is not None:
            self._end(task, "hopeless", error=self._hopeless(spec.id))
        return self._next(now)

    def cancel(self, task_id: str, now: float, *, unsent: bool = False) -> list[Action]:
        """Withdraw a task: nothing will be delivered for it from now on.

        It is over at once if no worker has it, else when its worker has said that it has ended. ``unsent``: the caller
        has not performed its last ``Send``.
        """
        task = self._tasks.get(task_id)
        if task is None or task.state is TaskState.STOPPING:
            return []
        if task.state is TaskState.WAITING or unsent:
            event = "cancel" if task.state is TaskState.WAITING else "unsent"
            if (worker := self.worker_of(task_id)) is not None:
                worker.have.difference_update(task.spec.refs)
            self._end(task, event, state=TaskState.CANCELLED, why=ASKED)
        elif (worker := self.worker_of(task_id)) is not None:
            self._actions.append(Tell(worker.sid, Recall(task_id, task.attempt)))
            self._patience.stops(task_id, now)
            self._enter(task, "cancel", TaskState.STOPPING, f"on {worker.name}")
        return self._next(now)

    def close(self, now: float) -> list[Action]:
        """Cancel every task; from now on nothing is given out, and nobody is met or asked. Idempotent."""
        self._closed = True
        for task in list(self._tasks.values()):
            why = ASKED if task.state is TaskState.STOPPING else ""
            self._end(task, "close", state=TaskState.CANCELLED, why=why)
        return self._next(now)

    def give_up(self, error: Callable[[str], P2PError], now: float) -> list[Action]:
        """Let every task fail with ``error(id)``, those that are submitted later, too: no worker will serve us."""
        self._hopeless = error
        for task_id, task in list(self._tasks.items()):
            if task.state is TaskState.STOPPING:
                self._end(task, "hopeless", state=TaskState.CANCELLED, why=ASKED)
            else:
                self._end(task, "hopeless", error=error(task_id))
        return self._next(now)

    # -- what the board says --

    def heard(self, certificate: Certificate, message: Message, now: float) -> list[Action]:
        """Note that another session of this cluster has said something; ``message`` is authentic."""
        sid = certificate.sid
        worker = self.workers.get(sid)
        if certificate.role != "worker" or self._meetings.is_banned(sid):
            return []
        match message:
            case Hello(offer=Terms() as terms):
                is_new = worker is None
                if worker is None:
                    if not self._meetings.hears(certificate):
                        return []
                    worker = self.workers[sid] = WorkerView(certificate, message.name, terms, now)
                    self._meetings.came(worker)
                worker.name, worker.terms, worker.heard = message.name, terms, now
                worker.member = self._named(certificate.signer)
                worker.for_us = self._is_for_us(certificate, terms)
                worker.own = self._own(certificate.signer)
                worker.too_bare = self._walled and not terms.walled
                may_meet = is_new and not self._closed and fits(worker, ANY)
                if may_meet and self._meetings.is_eager(worker, self.workers.values()):
                    self._meet(worker)
                if terms.slots == 0 and worker.state is WorkerState.UP:
                    worker.state = WorkerState.LEAVING
            case Bye():
                if worker is not None and worker.state is WorkerState.KNOWN:
                    self._drop(sid)
                elif worker is not None:  # also while meeting: the answer to that is still to come
                    worker.state, worker.detail = WorkerState.LEAVING, "has said good-bye"
            case _:
                pass
        return self._next(now)

    # -- what links do --

    def link_up(self, sid: bytes, now: float) -> list[Action]:
        """Note that the link to this worker is made, or is back."""
        worker = self.workers.get(sid)
        if worker is not None and worker.state is not WorkerState.LEAVING:
            worker.state, worker.detail = WorkerState.UP, ""
            self._meetings.met(worker)
            self._patience.is_back(worker.tasks, now)
            self._actions.append(Changed(sid))
        return self._next(now)

    def link_away(self, sid: bytes, detail: str, now: float) -> list[Action]:
        """Note that the link is reconnecting: what is there stays there, nothing new is sent."""
        worker = self.workers.get(sid)
        if worker is not None and worker.state is WorkerState.UP:
            worker.state, worker.detail = WorkerState.AWAY, detail
            self._actions.append(Changed(sid))
        return self._next(now)

    def meet_failed(self, sid: bytes, error: Exception, now: float) -> list[Action]:
        """Note that the worker could not be met. It is tried again later, unless it is not who it says it is."""
        worker = self.workers.get(sid)
        if worker is None:
            return self._next(now)
        self._actions.append(Changed(sid))
        self._meetings.failed(worker, now)
        if isinstance(error, WrongPeer):
            self._meetings.ban(sid)
            self._drop(sid)
        elif worker.state is WorkerState.LEAVING:
            self._drop(sid)
        else:
            worker.state = WorkerState.KNOWN
            worker.detail = getattr(error, "message", "") or type(error).__name__
        return self._next(now)

    def link_lost(self, sid: bytes, detail: str, now: float) -> list[Action]:
        """Note that the link is gone for good, and with it whatever the worker was doing for us."""
        return self.links_lost([sid], detail, now)

    def links_lost(self, sids: Iterable[bytes], detail: str, now: float) -> list[Action]:
        """Note that several links are gone at once: none of them gets a task of another."""
        gone = [worker for sid in sids if (worker := self._drop(sid)) is not None]
        for worker in gone:
            self._actions.append(Changed(worker.sid))
            for task_id in reversed(list(worker.tasks)):
                self._lost(self._tasks[task_id], f"{worker.name}: {detail}")
        return self._next(now) if gone else []

    def frame(self, sid: bytes, frame: WorkerFrame, now: float) -> list[Action]:
        """Note that a worker has said something on its link. What it says of an attempt that it hasn't is ignored.

        Raises ``RemoteProtocolError`` for a worker that asks for too much.
        """
        worker = self.workers.get(sid)
        if worker is None:
            return []
        match frame:
            case Room():
                has_room(worker, now)
                before = len(worker.tasks)
                actions = self._next(now)
                if len(worker.tasks) > before:
                    worker.room_at = now
                if not any(queue and fits(worker, needs) for needs, queue in self._queues.items()):
                    actions.append(Tell(sid, Pass()))
                return actions
            case Evicted(refs=refs):
                worker.have.difference_update(refs)
            case Started() | Result() | Nack() | Lost() | Want():
                if isinstance(frame, Want):  # also for a task that is over: the worker doesn't have them
                    worker.have.difference_update(frame.refs)
                task = self._tasks.get(frame.id)
                if task is not None and task.sid == sid and task.attempt == frame.attempt:
                    self._about(task, worker, frame, now)
            case _:
                pass  # output and chunks of results decide nothing
        return self._next(now)

    def _about(
        self, task: _Tracked, worker: WorkerView, frame: Started | Result | Nack | Lost | Want, now: float
    ) -> None:
        if task.state is TaskState.STOPPING:
            if isinstance(frame, Nack):
                self._handed_back(worker, frame, now)
            if isinstance(frame, Result | Nack | Lost):
                self._end(task, "stopped", state=TaskState.CANCELLED, why=ASKED)
            return
        match frame:
            case Started():
                takes(worker, self._settings.hold, now)
                if task.state is TaskState.SENT:
                    self._enter(task, "started", TaskState.RUNNING, f"on {worker.name}")
                self._detail(task, worker, frame.detail, now)
            case Result():
                takes(worker, self._settings.hold, now)
                self._result(task, worker, frame)
            case Nack(reason=reason) if task.state is TaskState.SENT and reason != "refused":
                self._nack(task, worker, frame, now)
            case Nack(why=why) if task.state is TaskState.SENT and why:
                self._refused(task, worker, frame, now)
            case Nack() | Lost():
                # A worker that hands back what it has started has lost it: that it never ran is not true. One that
                # refuses this very task would refuse it again and again.
                if isinstance(frame, Lost):
                    detail = plain(frame.detail, 200)
                else:
                    detail = "it refused the task" if task.state is TaskState.SENT else ""
                self._leave(task)
                self._lost(task, f"{worker.name}: {detail}")
            case Want(refs=refs):
                wanted = tuple(dict.fromkeys(ref for ref in refs if ref in task.spec.refs))
                task.wanted |= {ref: task.wanted.get(ref, 0) + 1 for ref in wanted}
                if any(task.wanted[ref] > MAX_WANTS for ref in wanted):
                    raise RemoteProtocolError(f"a worker asks for a buffer of one task more than {MAX_WANTS} times")
                worker.have.update(wanted)
                if wanted:
                    self._actions.append(SendBuffers(worker.sid, task.spec.id, wanted))

    # -- time --

    def deadline(self) -> float | None:
        """Return when ``tick`` is due; None: not before the next event."""
        if self._closed:
            return None
        known = [w for w in self.workers.values() if w.state is WorkerState.KNOWN]
        times = [w.heard + 3 * self._settings.presence for w in known]
        if (overdue := self._patience.deadline(self._is_away)) is not None:
            times.append(overdue)
        if any(self._queues.values()):
            times.append(self._request_at)
            times += [w.meet_after for w in known if w.meet_after]
            times += [w.full_until for w in self.workers.values() if w.full_until]
            times += [since + self._settings.request_every for since in self._unfit_since.values()]
        return min(times, default=None)

    def tick(self, now: float) -> list[Action]:
        """Note that time has passed: at ``deadline()``, or at any other moment."""
        for worker in list(self.workers.values()):
            if worker.state is WorkerState.KNOWN and now >= worker.heard + 3 * self._settings.presence:
                self._drop(worker.sid)
                self._actions.append(Changed(worker.sid))
            if worker.full_until and now >= worker.full_until:
                worker.full_until = 0.0
            if worker.meet_after and now >= worker.meet_after:
                worker.meet_after = 0.0
        for needs, since in list(self._unfit_since.items()):
            if self._nobody_fits(needs.python) and now >= since + self._settings.request_every:
                for task_id in list(self._queues[needs]):
                    self._end(self._tasks[task_id], "hopeless", error=self._mismatch(needs.python))
        for task_id in self._patience.due(now, self._is_away):
            self._overdue(self._tasks[task_id])
        return self._next(now)

    # -- questions: also for other threads than that of the events, while these go on --

    def state(self, task_id: str) -> TaskState | None:
        """Return the state of a task that isn't over, else None."""
        task = self._tasks.get(task_id)
        return task.state if task else None

    def worker_of(self, task_id: str) -> WorkerView | None:
        """Return the worker that has the task now."""
        task = self._tasks.get(task_id)
        sid = task.sid if task else None
        return self.workers.get(sid) if sid is not None else None

    def expects(self, sid: bytes, task_id: str, attempt: int) -> bool:
        """Return whether this worker has this attempt now: what it says about anything else is dropped."""
        task = self._tasks.get(task_id)
        return task is not None and task.sid == sid and task.attempt == attempt

    def why(self, task_id: str) -> str:
        """Say in words why a task waits, or where it is."""
        task = self._tasks.get(task_id)
        if task is None:
            return ""
        worker = self.worker_of(task_id)
        if worker is not None:
            where = f"stopping on {worker.name}" if task.state is TaskState.STOPPING else f"on {worker.name}"
            if worker.state is WorkerState.AWAY:
                return f"{where}, whose link is reconnecting ({worker.detail})"
            return f"{where}{f': {task.detail}' if task.detail else ''}"
        again = f", after {task.last_loss}" if task.last_loss else ""
        workers = list(self.workers.values())
        if refused(workers, task.spec, task.refused):
            return f"{task.asked or 'waiting for another worker'}{again}"
        return f"{too_large(workers, task.spec) or self.reason(task.spec.needs)}{again}"

    def peculiar(self, task_id: str) -> str:
        """Say of a waiting task what is peculiar to it; the whole reason if no worker here takes this very task."""
        task = self._tasks.get(task_id)
        if task is None or task.sid is not None:
            return ""
        workers = list(self.workers.values())
        if task.refused and refused(workers, task.spec, task.refused):
            return self.why(task_id)
        if any(worker.terms.input for worker in workers) and too_large(workers, task.spec):
            return self.why(task_id)
        if without_packages(workers, task.spec.needs):
            return self.why(task_id)
        return f"after {task.last_loss}" if task.last_loss else ""

    def reason(self, needs: Needs) -> str:
        """Say in words why tasks with these needs wait, all of them for the same reason."""
        return reason(list(self.workers.values()), needs, by_member=self._named is not _nameless)

    def wanted(self) -> list[Needs]:
        """Return what the tasks that wait need."""
        return [needs for needs, queue in list(self._queues.items()) if queue]

    def usual(self, kind: str) -> float | None:
        """Return the seconds that tasks of a kind have taken lately; None while that isn't known."""
        return self._placement.usual(kind)

    def counts(self) -> dict[TaskState, int]:
        """Count the tasks in each state that isn't terminal."""
        found = {TaskState.WAITING: 0, TaskState.SENT: 0, TaskState.RUNNING: 0, TaskState.STOPPING: 0}
        for task in list(self._tasks.values()):  # at one go: another thread may add some meanwhile
            if task.state in found:  # one may just have ended
                found[task.state] += 1
        return found

    # -- inside --

    def _queue(self, needs: Needs) -> Queue:
        queue = self._queues.get(needs)
        if queue is None:
            if len(self._queues) >= MAX_EMPTY:
                self._queues = {needs: queue for needs, queue in self._queues.items() if queue}
            queue = self._queues[needs] = Queue()
        return queue

    def _nobody_fits(self, python: str) -> bool:
        """Return whether workers are here, and all of them have the wrong Python.

        Those that leave don't count. Those that are paused do: they may go on.
        """
        if not python:
            return False
        pythons = (w.terms.python for w in self.workers.values() if stays(w))
        first = next(pythons, python)  # asked for each task while some wait: the first worker often is a right one
        return first != python and python not in pythons

    def _is_for_us(self, worker: Certificate, terms: Terms) -> bool:
        wanted = (not terms.only or self._me in terms.only) and self._me not in terms.not_for
        return wanted or self._own(worker.signer)

    def _drop(self, sid: bytes) -> WorkerView | None:
        """Forget a worker, if it is known; return it."""
        worker = self.workers.pop(sid, None)
        if worker is not None:
            self._meetings.went(worker)
        return worker

    def _meet(self, worker: WorkerView) -> None:
        worker.state, worker.meet_after = WorkerState.MEETING, 0.0
        self._actions.append(Meet(worker.certificate))

    def _leave(self, task: _Tracked) -> None:
        """Take the task off its worker."""
        if task.sid is not None and task.sid in self.workers:
            self.workers[task.sid].tasks.pop(task.spec.id, None)
        self._patience.ends(task.spec.id)
        task.sid = None

    def _is_away(self, task_id: str) -> bool:
        worker = self.worker_of(task_id)
        return worker is not None and worker.state is WorkerState.AWAY

    def _enter(self, task: _Tracked, event: str, state: TaskState, detail: str = "", retry: str = "") -> None:
        """Change a task's state, and note it. Raises ``LocalProtocolError`` where that can't be: a bug of ours."""
        check(TRANSITIONS, task.spec.id, task.story, event, before=task.state, after=state)
        task.state = state
        self._actions.append(Note(task.spec.id, state, detail, retry))

    def _end(
        self,
        task: _Tracked,
        event: str,
        *,
        state: TaskState = TaskState.FAILED,
        detail: str = "",
        result: Result | None = None,
        error: P2PError | None = None,
        why: str = "",
    ) -> None:
        """Settle a task, wherever it is."""
        spec = task.spec
        del self._tasks[spec.id]
        if task.state is TaskState.WAITING:
            self._queue(spec.needs).remove(spec.id, spec.priority)
        elif result is None and task.sid is not None and task.state is not TaskState.STOPPING and event != "unsent":
            self._actions.append(Tell(task.sid, Recall(spec.id, task.attempt)))
        self._leave(task)
        self._enter(task, event, state, error.message if error is not None else detail)
        self._actions.append(Settle(spec.id, result, error, why))

    def _overdue(self, task: _Tracked) -> None:
        """Wait no longer for a worker that has not said that a task has ended."""
        worker = self.worker_of(task.spec.id)
        name = worker.name if worker is not None else "its worker"
        if task.state is TaskState.STOPPING:
            why = f"{ASKED}, and {name} has not said within {self._patience.answer:g} s that it has ended"
            self._end(task, "overdue", state=TaskState.CANCELLED, why=why)
        else:
            error = TaskTimeout(
                f"the task was to be ended after {task.spec.timeout:g} s, its timeout, and {name} has not done so",
                hint="It was withdrawn there. That worker may be stuck, or have an earlier version of p2p_ipython.",
            )
            self._end(task, "overdue", error=error)

    def _result(self, task: _Tracked, worker: WorkerView, result: Result) -> None:
        if result.seconds is not None:
            self._placement.took(task.spec.kind, result.seconds)
        worker.done += 1
        failure, spec = result.failure, task.spec
        wanted = task.state in (TaskState.SENT, TaskState.RUNNING) and task.retried < spec.retries
        if failure is not None and wanted and is_among(failure, spec.retry_on):
            self._retry(task, error_words(failure))
            return
        state = TaskState.DONE if result.ok else TaskState.FAILED
        self._end(task, "result", state=state, detail=f"on {worker.name}", result=result)

    def _retry(self, task: _Tracked, error: str) -> None:
        """Let a task that has raised run again, on any worker."""
        task.retried += 1
        number = f"{task.retried} of {task.spec.retries}"
        task.last_loss = f"{error} (retry {number})"
        self._leave(task)
        self._requeue(task, "retry", retry=f"retry {number} after {error}")

    def _refused(self, task: _Tracked, worker: WorkerView, nack: Nack, now: float) -> None:
        """Note that a worker's policy doesn't take this task. It has never run there, and may go to another worker."""
        task.refused = {sid: no for sid, no in task.refused.items() if sid in self.workers}
        times = task.refused[worker.sid].times + 1 if worker.sid in task.refused else 1
        pause = min(REFUSED_MOST, self._settings.hold * 2.0 ** min(times - 1, 20))
        task.refused[worker.sid] = Refused(nack.edition, now + pause, times)
        if nack.why == "asking":
            task.asked, task.last_loss = f"waiting for {worker.name}'s yes", ""
        else:
            task.asked = ""
            task.last_loss = f"{worker.name} refused it: {plain(nack.detail, 200) or why_words(nack.why)}"
        worker.have.difference_update(task.spec.refs)  # what was on its way there has been dropped
        self._leave(task)
        self._requeue(task, "refused")

    def _detail(self, task: _Tracked, worker: WorkerView, detail: str, now: float) -> None:
        """Note what a worker says comes before a task runs; not more often than people read."""
        if detail != task.detail and (not detail or now >= task.detailed + DETAIL_EVERY):
            task.detail, task.detailed = plain(detail, 200), now
            self._actions.append(Changed(worker.sid))

    def _nack(self, task: _Tracked, worker: WorkerView, nack: Nack, now: float) -> None:
        self._handed_back(worker, nack, now)
        if nack.reason not in ("closing", "paused"):
            self._placement.forget(task.spec.kind)
        self._leave(task)
        self._requeue(task, "nack")

    def _handed_back(self, worker: WorkerView, nack: Nack, now: float) -> None:
        """Learn from a nack how the worker is."""
        if nack.reason == "closing":
            worker.state, worker.detail = WorkerState.LEAVING, "is closing"
        elif nack.reason == "paused":
            handed_back(worker, self._settings.hold, now)
            worker.terms = replace(worker.terms, free=0, paused=True, why=plain(nack.why, 16))  # until its next hello
        elif nack.reason not in (RECALLED, "refused"):
            handed_back(worker, self._settings.hold, now)

    def _lost(self, task: _Tracked, detail: str) -> None:
        """Count an attempt that may have run, and of which nothing will come."""
        task.losses += 1
        task.last_loss = f"losing {detail}"
        task.sid = None
        self._patience.ends(task.spec.id)
        if task.state is TaskState.STOPPING:
            why = f"{ASKED}, and its worker was lost before it had said that it has ended ({detail})"
            self._end(task, "lost", state=TaskState.CANCELLED, why=why)
        elif task.spec.once:
            error = WorkerLost(
                f"maybe ran: the worker of this task went away ({detail}), and may have run it before",
                hint="It was submitted to run once at most, so it was not given to another worker. Look whether its"
                " work is done; if not, future.again() runs it.",
                maybe_ran=True,
            )
            self._end(task, "lost", error=error)
        elif task.spec.pin is not None:
            self._end(task, "lost", error=_pinned_lost(f"went away ({detail})"))
        elif task.losses >= self._settings.attempts:
            error = WorkerLost(
                f"the task lost its worker {task.losses} times, the last time {detail}",
                hint="Does the task itself bring its worker down (memory)? Submit it again once that is mended.",
            )
            self._end(task, "lost", error=error)
        else:
            self._requeue(task, "lost")

    def _requeue(self, task: _Tracked, event: str, *, retry: str = "") -> None:
        self._queue(task.spec.needs).add(task.spec.id, task.spec.priority, task.number, first=True)
        self._enter(task, event, TaskState.WAITING, task.last_loss, retry)

    def _mismatch(self, python: str) -> PythonMismatch:
        return PythonMismatch(
            f"no worker has python {python}, which this task needs (here: {pythons(self.workers.values())})",
            hint="Start a worker with that version. If functions need it, write the work as a %%p2p cell without"
            " functions of the notebook: a cell travels as source and runs on any version.",
        )

    def _next(self, now: float) -> list[Action]:
        """Give out what can be given out, and return all actions of this event."""
        self._look_after_pinned(now)
        self._give_out(now)
        wanted = self.wanted()
        if wanted:
            self._widen(wanted, now)
        unfit = (needs for needs in wanted if self._nobody_fits(needs.python))
        self._unfit_since = {needs: self._unfit_since.get(needs, now) for needs in unfit}
        actions, self._actions = self._actions, []
        return actions

    def _look_after_pinned(self, now: float) -> None:
        """Meet workers that tasks wait for and no other may run; end those tasks if such a worker is gone."""
        for needs, queue in [each for each in self._queues.items() if each[0].pin is not None and each[1]]:
            worker = self.workers.get(needs.pin or b"")
            if worker is None or not stays(worker):
                for task_id in list(queue):
                    self._end(self._tasks[task_id], "hopeless", error=_pinned_lost("went away before it began"))
            elif worker.state is WorkerState.KNOWN and now >= worker.meet_after:
                self._meet(worker)

    def _give_out(self, now: float) -> None:
        """Give out what can be given out: of several queues, the one whose first task has the highest priority.

        Among those it is the one whose first task came first.
        """
        waiting = [queue for queue in self._queues.values() if queue]
        passed_over: list[_Tracked] = []
        while waiting:
            queue = waiting[0] if len(waiting) == 1 else max(waiting, key=Queue.turn)
            task = self._tasks[queue.first()]
            spec = task.spec
            worker = self._placement.choose(self.workers.values(), spec, now, task.refused)
            if worker is not None:
                queue.remove(spec.id, spec.priority)
                self._give(task, worker, now)
            elif len(passed_over) < MAX_PASSED_OVER and len(queue) > 1 and self._is_turned_away(task, now):
                queue.remove(spec.id, spec.priority)  # the room that there is may be right for the next one
                passed_over.append(task)
            else:
                waiting.remove(queue)
                continue
            if not queue:
                waiting.remove(queue)
        for task in passed_over:
            self._queue(task.spec.needs).add(task.spec.id, task.spec.priority, task.number)

    def _is_turned_away(self, task: _Tracked, now: float) -> bool:
        """Return whether there is room, but not for this task: it is too large, or was refused."""
        if not task.refused and not any(0 < w.terms.input < task.spec.size for w in self.workers.values()):
            return False
        return self._placement.choose(self.workers.values(), replace(task.spec, size=0), now) is not None

    def _give(self, task: _Tracked, worker: WorkerView, now: float) -> None:
        spec = task.spec
        task.attempt += 1
        task.detail = ""
        task.wanted.clear()
        task.sid = worker.sid
        missing = tuple(ref for ref in spec.refs if ref not in worker.have)
        worker.have.update(missing)
        worker.tasks[spec.id] = None
        self._actions.append(Send(worker.sid, spec.id, task.attempt, missing))
        if spec.timeout:
            self._patience.begins(spec.id, spec.timeout, spec.size, now)
        self._enter(task, "room", TaskState.SENT, f"on {worker.name}")

    def _widen(self, wanted: list[Needs], now: float) -> None:
        """There is more work than the linked workers take: meet another known one, or ask the board for some."""
        while (worker := self._meetings.next(self.workers.values(), wanted, now)) is not None:
            self._meet(worker)
        if now < self._request_at:
            return
        met = [worker for worker in self.workers.values() if worker.state is not WorkerState.KNOWN]
        alone = [needs for needs in wanted if not any(fits(worker, needs) for worker in met)]
        for python in dict.fromkeys(needs.python for needs in alone):
            self._actions.append(Say(Request(python=python)))
            self._request_at = now + self._settings.request_every
        # Workers that are there but full need no question; look again later all the same.
        self._request_at = max(self._request_at, now + 1.0)
