"""The client's side of a task's life: every decision, no I/O.

A task goes through these states; the words are those that people read::

    waiting ──(a worker has room)──────────────► sent ──started──► running ──result──► done
       ▲                                          │                   │                failed
       ├──────────── nack: never started ─────────┤                   │
       └──── link lost, or runner killed: ────────┴───────────────────┘
             one loss more; after `attempts` losses, or at the first one
             of a `once` task, it is failed as WorkerLost
    waiting, sent, running ──cancel──► cancelled

Each time a task is sent its *attempt* rises. Everything that comes back names the attempt, and counts only if
it comes from the worker that the attempt was sent to: a late, repeated or forged result finds no task.

A nack means "never started", so it costs no loss. Hence executions ≤ losses + 1 ≤ ``attempts``.

A worker goes through: known (we heard its offer) → meeting → up ⇄ away → forgotten. One whose offer is paused, or isn't
for our member, is neither met nor given anything. Links deliver each frame
once and in order (link/base.py), so nothing here resends: a task is sent again only when its link is lost for
good, and the worker then ends what it was running for that link.

How many tasks a worker gets: as many as it has slots. Tasks of a function or cell that has been short so far
(``SHORT``) may be sent ahead, up to ``backlog`` a slot and not more than takes ``AHEAD``, so that slots need not wait
for the next one to travel. The worker hands back what it could not start within ``hold``, so that a wrong guess
costs a quarter of a second, for which the worker is then left alone; unless it says ``room``: it keeps a slot, because
it is this member's turn. It gets a task at once then, or a ``Pass``.

Pure: ``now`` is any clock that doesn't go back, seconds. Each event returns the actions that follow from it;
``deadline()`` says when ``tick`` is due.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from p2p_ipython.config import Settings
from p2p_ipython.errors import P2PError, PythonMismatch, TaskError, WorkerLost, WrongPeer
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Bye, Hello, Message, Request, Terms
from p2p_ipython.protocol.plain import plain

SHORT = 0.02
"""Seconds: tasks that run less than this may be sent ahead."""

AHEAD = 0.05
"""Seconds of work that is sent ahead to a slot, at most: what another worker might have done meanwhile."""

MAX_KINDS = 1000
"""Functions and cells whose usual time is remembered; beyond that the one heard of longest ago is forgotten."""

EAGER_LINKS = 8
"""Workers that are met as soon as they are heard, so that the first task finds a link; further ones when
there is more work than these can take."""

MEET_BACKOFF = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a worker that could not be met is tried again."""

SMALL = 64 << 10
"""Bytes of a task's large buffers up to which it may be sent ahead."""

MAX_SECONDS = 1e9
"""Seconds that a task may be said to have taken; more is not believed."""

MAX_HAVE = 100_000
"""Large buffers that a worker may say it has, beyond those that it was sent; more are sent again."""


class TaskState(enum.Enum):
    """Where a task stands."""

    WAITING = "waiting"
    SENT = "sent"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WorkerState(enum.Enum):
    """Where a worker stands, seen from a client."""

    KNOWN = "known"
    MEETING = "meeting"
    UP = "up"
    AWAY = "reconnecting"
    LEAVING = "leaving"


# --- actions ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """Post a message on the board."""

    message: Message


@dataclass(frozen=True)
class Meet:
    """Make a link to this worker; answer with ``link_up`` or ``meet_failed``."""

    worker: Certificate


@dataclass(frozen=True)
class Send:
    """Send the task to the worker, with those of its large buffers that the worker doesn't have."""

    sid: bytes
    task: str
    attempt: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class SendBuffers:
    """Send buffers of a task that the worker turned out not to have."""

    sid: bytes
    task: str
    refs: tuple[str, ...]


@dataclass(frozen=True)
class Recall:
    """Tell the worker to drop the task, or to stop it if it runs."""

    sid: bytes
    task: str
    attempt: int


@dataclass(frozen=True)
class Pass:
    """Tell the worker that nothing waits for the slots that it keeps for us."""

    sid: bytes


@dataclass(frozen=True)
class Settle:
    """The task is over: with the result that ``header`` describes, with ``error``, or (neither) cancelled."""

    task: str
    header: Mapping[str, Any] | None = None
    error: P2PError | None = None


@dataclass(frozen=True)
class Note:
    """The task has entered a state; ``detail`` is for people."""

    task: str
    state: TaskState
    detail: str = ""


Action = Say | Meet | Send | SendBuffers | Recall | Pass | Settle | Note


# --- state ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskSpec:
    """What the machine needs to know of a task: no bytes.

    ``python`` is the minor version it needs ("" for any), ``refs`` its large buffers by size in bytes,
    ``once``: never start it a second time. ``kind`` says which function or cell it runs: what took little time
    is likely to take little time again.
    """

    id: str
    python: str = ""
    refs: Mapping[str, int] = field(default_factory=dict)
    once: bool = False
    kind: str = ""


@dataclass
class _Task:
    spec: TaskSpec
    state: TaskState = TaskState.WAITING
    attempt: int = 0
    losses: int = 0
    sid: bytes | None = None
    last_loss: str = ""


@dataclass
class WorkerView:
    """A worker as the client knows it. Read it, don't write it."""

    certificate: Certificate
    name: str
    terms: Terms
    heard: float
    state: WorkerState = WorkerState.KNOWN
    tasks: dict[str, None] = field(default_factory=dict)
    have: set[str] = field(default_factory=set)
    full_until: float = 0.0
    meet_after: float = 0.0
    failures: int = 0
    done: int = 0
    detail: str = ""
    for_us: bool = True

    @property
    def sid(self) -> bytes:
        return self.certificate.sid

    @property
    def word(self) -> str:
        """Its state as people read it."""
        here = self.state in (WorkerState.KNOWN, WorkerState.UP)
        return "paused" if here and self.terms.paused else self.state.value


def _nobody(_signer: str) -> bool:
    return False


class ClientMachine:
    """Which worker gets which task, and what becomes of it.

    ``me`` is the fingerprint of our member's key; ``own`` says whether somebody, by his, is our member: then his offers
    are for us whatever they say.
    """

    def __init__(self, settings: Settings, *, now: float, me: str = "", own: Callable[[str], bool] = _nobody) -> None:
        self._settings = settings
        self._me = me
        self._own = own
        self._tasks: dict[str, _Task] = {}
        # By the Python version that is needed. Ordered sets: tasks come and go at both ends, and in the middle.
        self._queues: dict[str, OrderedDict[str, None]] = {}
        self._unfit_since: dict[str, float] = {}  # queues that only workers of other versions are here for
        self.workers: dict[bytes, WorkerView] = {}
        self._banned: set[bytes] = set()
        self._request_at = now
        self._closed = False
        self._actions: list[Action] = []
        self._usual: dict[str, float] = {}  # seconds, by kind

    # -- what the user does --

    def submit(self, spec: TaskSpec, now: float) -> list[Action]:
        """A new task. After ``close`` it is cancelled at once."""
        if spec.id in self._tasks:
            raise ValueError(f"task {spec.id} was submitted before")
        self._tasks[spec.id] = _Task(spec)
        self._queue(spec.python)[spec.id] = None
        if self._closed:
            self._cancel(spec.id)
        return self._next(now)

    def cancel(self, task_id: str, now: float) -> list[Action]:
        """Nothing will be delivered for this task from now on."""
        if task_id not in self._tasks:
            return []
        self._cancel(task_id)
        return self._next(now)

    def close(self, now: float) -> list[Action]:
        """Cancel every task; from now on nothing is given out, and nobody is met or asked. Idempotent."""
        self._closed = True
        for task_id in list(self._tasks):
            self._cancel(task_id)
        return self._next(now)

    # -- what the board says --

    def heard(self, certificate: Certificate, message: Message, now: float) -> list[Action]:
        """An authentic message of another session of this cluster."""
        sid = certificate.sid
        worker = self.workers.get(sid)
        if certificate.role != "worker" or sid in self._banned:
            return []
        match message:
            case Hello(offer=Terms() as terms):
                if worker is None:
                    worker = WorkerView(
                        certificate, message.name, terms, now, for_us=self._is_for_us(certificate, terms)
                    )
                    self.workers[sid] = worker
                    if _fits(worker, "") and self._linked() < EAGER_LINKS and not self._closed:
                        self._meet(worker)
                worker.name, worker.terms, worker.heard = message.name, terms, now
                worker.for_us = self._is_for_us(certificate, terms)
                if terms.slots == 0 and worker.state is WorkerState.UP:
                    worker.state = WorkerState.LEAVING
            case Bye():
                if worker is not None and worker.state is WorkerState.KNOWN:
                    del self.workers[sid]
                elif worker is not None:  # also while meeting: the answer to that is still to come
                    worker.state, worker.detail = WorkerState.LEAVING, "has said good-bye"
            case _:
                pass
        return self._next(now)

    # -- what links do --

    def link_up(self, sid: bytes, now: float) -> list[Action]:
        """The link to this worker is made, or is back."""
        worker = self.workers.get(sid)
        if worker is not None and worker.state is not WorkerState.LEAVING:
            worker.state, worker.failures, worker.detail = WorkerState.UP, 0, ""
        return self._next(now)

    def link_away(self, sid: bytes, detail: str, now: float) -> list[Action]:
        """The link is reconnecting: what is there stays there, nothing new is sent."""
        worker = self.workers.get(sid)
        if worker is not None and worker.state is WorkerState.UP:
            worker.state, worker.detail = WorkerState.AWAY, detail
        return self._next(now)

    def meet_failed(self, sid: bytes, error: Exception, now: float) -> list[Action]:
        """The worker could not be met. It is tried again later, unless it is not who it says it is."""
        worker = self.workers.get(sid)
        if worker is None:
            return self._next(now)
        if isinstance(error, WrongPeer):
            self._banned.add(sid)
            del self.workers[sid]
        elif worker.state is WorkerState.LEAVING:
            del self.workers[sid]
        else:
            worker.state = WorkerState.KNOWN
            worker.meet_after = now + MEET_BACKOFF[min(worker.failures, len(MEET_BACKOFF) - 1)]
            worker.failures += 1
            worker.detail = getattr(error, "message", "") or type(error).__name__
        return self._next(now)

    def link_lost(self, sid: bytes, detail: str, now: float) -> list[Action]:
        """The link is gone for good, and with it whatever the worker was doing for us."""
        return self.links_lost([sid], detail, now)

    def links_lost(self, sids: Iterable[bytes], detail: str, now: float) -> list[Action]:
        """The same of several at once: none of them gets a task of another."""
        gone = [worker for sid in sids if (worker := self.workers.pop(sid, None)) is not None]
        for worker in gone:
            for task_id in reversed(list(worker.tasks)):
                self._lost(self._tasks[task_id], f"{worker.name}: {detail}")
        return self._next(now) if gone else []

    def frame(self, sid: bytes, header: Mapping[str, Any], now: float) -> list[Action]:
        """A frame that concerns the machine: started, result, nack, lost, room, evicted, want, have.

        ``header`` is a stranger's: what doesn't fit is ignored.
        """
        worker = self.workers.get(sid)
        if worker is None:
            return []
        kind = header["t"]
        if kind == "room":
            worker.full_until = 0.0
            actions = self._next(now)
            if not any(queue and _fits(worker, python) for python, queue in self._queues.items()):
                actions.append(Pass(sid))
            return actions
        if kind in ("evicted", "have"):
            refs = set(_refs(header))
            if kind == "evicted":
                worker.have -= refs
            elif len(worker.have) < MAX_HAVE:
                worker.have |= refs
            return self._next(now)
        if kind == "want":  # whatever task it is for, also one that is over: the worker doesn't have them
            worker.have.difference_update(_refs(header))
        task = self._tasks.get(str(header.get("id")))
        if task is None or task.sid != sid or task.attempt != header.get("attempt"):
            return self._next(now)
        match kind:
            case "started":
                if task.state is TaskState.SENT:
                    task.state = TaskState.RUNNING
                    self._actions.append(Note(task.spec.id, TaskState.RUNNING, f"on {worker.name}"))
            case "result":
                self._result(task, worker, header)
            case "nack" if task.state is TaskState.SENT:
                self._nack(task, worker, header, now)
            case "nack" | "lost":  # who hands back what it has started has lost it: that it never ran is not true
                detail = header.get("detail")
                reason = plain(detail, 200) if isinstance(detail, str) else ""
                self._leave(task)
                self._lost(task, f"{worker.name}: {reason}")
            case "want":
                wanted = tuple(dict.fromkeys(ref for ref in _refs(header) if ref in task.spec.refs))
                worker.have.update(wanted)
                if wanted:
                    self._actions.append(SendBuffers(sid, task.spec.id, wanted))
            case _:
                pass
        return self._next(now)

    # -- time --

    def deadline(self) -> float | None:
        """When ``tick`` is due; None: not before the next event."""
        if self._closed:
            return None
        known = [w for w in self.workers.values() if w.state is WorkerState.KNOWN]
        times = [w.heard + 3 * self._settings.presence for w in known]
        if self._waiting():
            times.append(self._request_at)
            times += [w.meet_after for w in known if w.meet_after]
            times += [w.full_until for w in self.workers.values() if w.full_until]
            times += [since + self._settings.request_every for since in self._unfit_since.values()]
        return min(times, default=None)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        for worker in list(self.workers.values()):
            if worker.state is WorkerState.KNOWN and now >= worker.heard + 3 * self._settings.presence:
                del self.workers[worker.sid]
            if worker.full_until and now >= worker.full_until:
                worker.full_until = 0.0
            if worker.meet_after and now >= worker.meet_after:
                worker.meet_after = 0.0
        for python, since in list(self._unfit_since.items()):
            if self._nobody_fits(python) and now >= since + self._settings.request_every:
                queue = self._queues[python]
                while queue:
                    self._fail(self._tasks[queue.popitem(last=False)[0]], self._mismatch(python))
        return self._next(now)

    # -- questions: also for other threads than that of the events, while these go on --

    def state(self, task_id: str) -> TaskState | None:
        """The state of a task that isn't over, else None."""
        task = self._tasks.get(task_id)
        return task.state if task else None

    def worker_of(self, task_id: str) -> WorkerView | None:
        """The worker that has the task now."""
        task = self._tasks.get(task_id)
        sid = task.sid if task else None
        return self.workers.get(sid) if sid is not None else None

    def expects(self, sid: bytes, task_id: object, attempt: object) -> bool:
        """Whether this worker has this attempt now: what it says about anything else is dropped."""
        task = self._tasks.get(task_id) if isinstance(task_id, str) else None
        return task is not None and task.sid == sid and task.attempt == attempt

    def why(self, task_id: str) -> str:
        """In words, why a task waits, or where it is."""
        task = self._tasks.get(task_id)
        if task is None:
            return ""
        worker = self.worker_of(task_id)
        if worker is not None:
            if worker.state is WorkerState.AWAY:
                return f"on {worker.name}, whose link is reconnecting ({worker.detail})"
            return f"on {worker.name}"
        again = f", after {task.last_loss}" if task.last_loss else ""
        return f"{self.reason(task.spec.python)}{again}"

    def reason(self, python: str) -> str:
        """In words, why tasks that need ``python`` ("" for any) wait, all of them for the same reason."""
        workers = [worker for worker in list(self.workers.values()) if worker.for_us]
        if not workers:
            others = "those that are here are for others" if self.workers else "none is here"
            return f"waiting for a worker: {others}"
        able = [worker for worker in workers if not python or worker.terms.python == python]
        if able and all(worker.terms.paused for worker in able):
            version = f" with python {python}" if len(able) < len(workers) else ""
            return f"waiting for a worker: those that are here{version} are paused"
        fitting = [w for w in workers if _fits(w, python)]
        if not fitting:
            return f"waiting for a worker with python {python} (here: {_pythons(workers)})"
        if any(w.state is WorkerState.UP for w in fitting):
            return f"waiting for a free slot of {sum(w.terms.slots for w in fitting)}"
        problem = next((w.detail for w in fitting if w.detail), "")
        return f"waiting for a link to {fitting[0].name}{': ' + problem if problem else ''}"

    def wanted(self) -> list[str]:
        """What the tasks that wait need: versions of Python, "" for any."""
        return [python for python, queue in list(self._queues.items()) if queue]

    def usual(self, kind: str) -> float | None:
        """Seconds that tasks of a kind have taken lately; None while that isn't known."""
        return self._usual.get(kind)

    def counts(self) -> dict[TaskState, int]:
        """How many tasks are in each state that isn't terminal."""
        found = {TaskState.WAITING: 0, TaskState.SENT: 0, TaskState.RUNNING: 0}
        for task in list(self._tasks.values()):  # at one go: another thread may add some meanwhile
            found[task.state] += 1
        return found

    # -- inside --

    def _queue(self, python: str) -> OrderedDict[str, None]:
        return self._queues.setdefault(python, OrderedDict())

    def _waiting(self) -> bool:
        return any(self._queues.values())

    def _nobody_fits(self, python: str) -> bool:
        """Whether workers are here, and all of them have the wrong Python. Those that leave don't count, and those that
        are paused do: they may go on."""
        if not python:
            return False
        pythons = (w.terms.python for w in self.workers.values() if _stays(w))
        first = next(pythons, python)  # asked for each task while some wait: the first worker often is a right one
        return first != python and python not in pythons

    def _is_for_us(self, worker: Certificate, terms: Terms) -> bool:
        return not terms.only or self._me in terms.only or self._own(worker.signer)

    def _linked(self) -> int:
        return sum(w.state is not WorkerState.KNOWN for w in self.workers.values())

    def _meet(self, worker: WorkerView) -> None:
        worker.state, worker.meet_after = WorkerState.MEETING, 0.0
        self._actions.append(Meet(worker.certificate))

    def _leave(self, task: _Task) -> None:
        """Take the task off its worker."""
        if task.sid is not None and task.sid in self.workers:
            self.workers[task.sid].tasks.pop(task.spec.id, None)
        task.sid = None

    def _cancel(self, task_id: str) -> None:
        task = self._tasks.pop(task_id)
        if task.sid is None:
            del self._queue(task.spec.python)[task_id]
        else:
            self._actions.append(Recall(task.sid, task_id, task.attempt))
            self._leave(task)
        self._actions.append(Note(task_id, TaskState.CANCELLED))
        self._actions.append(Settle(task_id))

    def _result(self, task: _Task, worker: WorkerView, header: Mapping[str, Any]) -> None:
        seconds = header.get("seconds")
        if isinstance(seconds, int | float) and 0 <= seconds < MAX_SECONDS:
            before = self._usual.pop(task.spec.kind, None)
            self._usual[task.spec.kind] = seconds if before is None else 0.8 * before + 0.2 * seconds
            if len(self._usual) > MAX_KINDS:
                del self._usual[next(iter(self._usual))]
        worker.done += 1
        self._leave(task)
        del self._tasks[task.spec.id]
        state = TaskState.DONE if header.get("ok") is True else TaskState.FAILED
        self._actions.append(Note(task.spec.id, state, f"on {worker.name}"))
        self._actions.append(Settle(task.spec.id, header=header))

    def _nack(self, task: _Task, worker: WorkerView, header: Mapping[str, Any], now: float) -> None:
        if header.get("reason") == "refused":
            # It can't take this very task; asking again and again would not end.
            self._leave(task)
            self._lost(task, f"{worker.name}: it refused the task")
            return
        if header.get("reason") == "closing":
            worker.state, worker.detail = WorkerState.LEAVING, "is closing"
        else:
            worker.full_until = now + self._settings.hold
            if header.get("reason") == "paused":
                worker.terms = replace(worker.terms, free=0, paused=True)  # until its next hello
            else:
                self._usual.pop(task.spec.kind, None)  # send nothing ahead until a short one has come back
        self._leave(task)
        self._requeue(task)

    def _lost(self, task: _Task, detail: str) -> None:
        """An attempt may have run, and nothing will come of it."""
        task.losses += 1
        task.last_loss = f"losing {detail}"
        task.sid = None
        if task.spec.once:
            self._fail(
                task,
                WorkerLost(
                    f"the worker of this task went away ({detail}); it may have run",
                    hint="It was submitted to run once at most, so it was not given to another worker.",
                ),
            )
        elif task.losses >= self._settings.attempts:
            self._fail(
                task,
                WorkerLost(
                    f"the task lost its worker {task.losses} times, the last time {detail}",
                    hint="Does the task itself bring its worker down (memory)? Submit it again once that is mended.",
                ),
            )
        else:
            self._requeue(task)

    def _requeue(self, task: _Task) -> None:
        task.state = TaskState.WAITING
        queue = self._queue(task.spec.python)
        queue[task.spec.id] = None
        queue.move_to_end(task.spec.id, last=False)
        self._actions.append(Note(task.spec.id, TaskState.WAITING, task.last_loss))

    def _fail(self, task: _Task, error: TaskError) -> None:
        del self._tasks[task.spec.id]
        self._actions.append(Note(task.spec.id, TaskState.FAILED, error.message))
        self._actions.append(Settle(task.spec.id, error=error))

    def _mismatch(self, python: str) -> PythonMismatch:
        return PythonMismatch(
            f"no worker has python {python}, which the functions of this task need"
            f" (here: {_pythons(self.workers.values())})",
            hint="Start a worker with that version, or write the work as a %%p2p cell without functions of"
            " the notebook: a cell travels as source and runs on any version.",
        )

    def _next(self, now: float) -> list[Action]:
        """Give out what can be given out, and return all actions of this event."""
        for python, queue in self._queues.items():
            while queue:
                task = self._tasks[next(iter(queue))]
                worker = self._choose(task.spec, python, now)
                if worker is None:
                    break
                del queue[task.spec.id]
                self._give(task, worker)
        if self._waiting():
            self._widen(now)
        self._unfit_since = {
            python: self._unfit_since.get(python, now)
            for python, queue in self._queues.items()
            if queue and self._nobody_fits(python)
        }
        actions, self._actions = self._actions, []
        return actions

    def _choose(self, spec: TaskSpec, python: str, now: float) -> WorkerView | None:
        """The worker to give the task to: one with a free slot, which has most of its buffers already, and least
        to do; else one that may be sent short tasks ahead; else None."""
        ahead = self._ahead(spec)
        best: WorkerView | None = None
        best_rank: tuple[bool, int, float] = (True, 0, 0.0)
        for worker in self.workers.values():
            if worker.state is not WorkerState.UP or not _fits(worker, python):
                continue
            load = len(worker.tasks)
            busy = load >= worker.terms.slots
            if now < worker.full_until or load >= worker.terms.slots * (1 + ahead):
                continue
            missing = sum(size for ref, size in spec.refs.items() if ref not in worker.have)
            rank = (busy, missing, load / max(1, worker.terms.slots))
            if best is None or rank < best_rank:
                best, best_rank = worker, rank
        return best

    def _ahead(self, spec: TaskSpec) -> int:
        """How many tasks like this one may wait at a worker for each of its slots."""
        usual = self._usual.get(spec.kind)
        if usual is None or usual > SHORT or sum(spec.refs.values()) > SMALL:
            return 0
        return min(self._settings.backlog, int(AHEAD / max(usual, 1e-6)))

    def _give(self, task: _Task, worker: WorkerView) -> None:
        spec = task.spec
        task.attempt += 1
        task.sid = worker.sid
        task.state = TaskState.SENT
        missing = tuple(ref for ref in spec.refs if ref not in worker.have)
        worker.have.update(missing)
        worker.tasks[spec.id] = None
        self._actions.append(Send(worker.sid, spec.id, task.attempt, missing))
        self._actions.append(Note(spec.id, TaskState.SENT, f"on {worker.name}"))

    def _widen(self, now: float) -> None:
        """There is more work than the linked workers take: meet another known one, or ask the board for some."""
        wanted = [python for python, queue in self._queues.items() if queue]
        meeting = sum(w.state is WorkerState.MEETING for w in self.workers.values())
        for worker in self.workers.values():
            if meeting >= EAGER_LINKS:
                break
            if (
                worker.state is WorkerState.KNOWN
                and now >= worker.meet_after
                and any(_fits(worker, python) for python in wanted)
            ):
                self._meet(worker)
                meeting += 1
        if now < self._request_at:
            return
        for python in wanted:
            if not any(_fits(w, python) and w.state is not WorkerState.KNOWN for w in self.workers.values()):
                self._actions.append(Say(Request(python=python)))
                self._request_at = now + self._settings.request_every
        # Workers that are there but full need no question; look again later all the same.
        self._request_at = max(self._request_at, now + 1.0)


def _stays(worker: WorkerView) -> bool:
    """Whether it may have tasks of ours, now or later."""
    return worker.state is not WorkerState.LEAVING and worker.terms.slots > 0 and worker.for_us


def _fits(worker: WorkerView, python: str) -> bool:
    terms = worker.terms  # and _stays, written out: this is asked several times for each task
    return (
        worker.state is not WorkerState.LEAVING
        and terms.slots > 0
        and worker.for_us
        and not terms.paused
        and (not python or terms.python == python)
    )


def _pythons(workers: Iterable[WorkerView]) -> str:
    return ", ".join(sorted({w.terms.python for w in workers})) or "none"


def _refs(header: Mapping[str, Any]) -> Iterator[str]:
    refs = header.get("refs")
    for ref in refs[:10_000] if isinstance(refs, list) else ():
        if isinstance(ref, str) and len(ref) <= 128:
            yield ref
