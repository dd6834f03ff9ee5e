"""The two machines, real, in a world that isn't: a board, links and runners under virtual time.

``World`` holds clients, workers and everything between them. ``enabled()`` lists what may happen next,
``step(event)`` makes one of these happen, performs the actions that follow, and raises ``Violation`` when an
invariant no longer holds. It decides nothing: test_simulation.py draws events by a seed, test_explorer.py tries
them all. Faults (see ``FAULTS``) are events like others; ``faults`` says how many may still happen.

Large buffers are those of the agent: each is asked for once by a link, for one of the tasks that need it, and again
for another one when that task is over; what nobody needs when it comes is dropped. They travel as bulk: what is
small may overtake them, and is never overtaken.

What the links promise (link/base.py) holds here: frames arrive once and in order, also over a reconnect; those
under way when a link is lost are gone; each end learns of the loss in its own time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from people import CLUSTER, NOW, certificate, reader, stream
from people import session as session_of

from p2p_ipython.config import Settings
from p2p_ipython.errors import LinkTimeout
from p2p_ipython.protocol import client_machine as cm
from p2p_ipython.protocol import worker_machine as wm
from p2p_ipython.protocol.client_machine import ClientMachine
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Accept, Message, Terms
from p2p_ipython.protocol.placement import TaskSpec
from p2p_ipython.protocol.retries import ANY_ERROR
from p2p_ipython.protocol.task_frames import (
    ClientFrame,
    Evicted,
    Lost,
    Nack,
    Pass,
    Recall,
    Result,
    TaskFailure,
    Want,
    WorkerFrame,
)
from p2p_ipython.protocol.wire import LineReader, LineWriter
from p2p_ipython.protocol.worker_machine import WorkerMachine

Event = tuple[Any, ...]
Job = tuple[int, str, int]  # link, task, attempt

FAULTS = {
    "line lost",
    "line twice",
    "late meeting",
    "away",
    "link lost",
    "killed",
    "exits",
    "crash",
    "close",
    "cancel",
    "said twice",
    "lie",
    "evict",
}
"""Events that use up the world's faults: what goes wrong, and what users do in the middle."""


class Violation(AssertionError):
    """An invariant does not hold."""


def must(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


@dataclass
class Link:
    """A link between a client and a worker, and the frames that are under way on it."""

    number: int
    client: int
    worker: int
    up: bool = True
    dead: bool = False
    in_order: bool = False  # dead because the worker closed it, after all that it had said
    client_knows: bool = False
    worker_knows: bool = False
    to_worker: list[dict[str, Any]] = field(default_factory=list)
    to_client: list[dict[str, Any]] = field(default_factory=list)
    bulk: list[tuple[str, int]] = field(default_factory=list)  # to the worker: refs, and how many frames come first


@dataclass
class ClientSide:
    machine: ClientMachine
    certificate: Certificate
    links: dict[bytes, int] = field(default_factory=dict)


@dataclass
class WorkerSide:
    machine: WorkerMachine
    certificate: Certificate
    slots: int
    alive: bool = True
    closing: bool = False
    paused: bool = False
    ready: set[int] = field(default_factory=set)
    running: dict[int, Job] = field(default_factory=dict)  # by slot: what its runner does, wanted or not
    known: set[Job] = field(default_factory=set)  # has arrived and is not forgotten
    cache: set[tuple[int, str]] = field(default_factory=set)  # by link: (link, ref)
    awaited: dict[tuple[int, str], Job | None] = field(default_factory=dict)  # with the task it was asked for, if any


class World:
    """Some clients, some workers, and all that is between them."""

    def __init__(
        self,
        *,
        clients: int = 1,
        members: int = 0,
        workers: int = 2,
        slots: int = 1,
        settings: Settings | None = None,
        faults: int = 0,
        pauses: int = 0,
        says: int = 0,
        wired: bool = False,
        client_class: type[ClientMachine] = ClientMachine,
        worker_class: type[WorkerMachine] = WorkerMachine,
    ) -> None:
        """``members``: to how many people the clients belong; 0: each to another one.

        ``pauses``: how often a worker may still be paused; it may go on at any time. ``says``: how often a lender may
        still refuse a task that arrives, or stop by hand what runs.

        ``wired``: messages really become board lines, encrypted and signed, and are read as such.
        """
        self.settings = settings or Settings()
        self.faults = faults
        self.pauses, self.says = pauses, says
        self.refusals: set[tuple[str, bytes]] = set()
        self.now = 0.0
        self.codes = 0
        self.link_count = 0
        self.inboxes: dict[tuple[str, int], list[Any]] = {}
        self.asking: dict[int, tuple[int, int]] = {}  # by code: (client, worker), while the client waits
        self.answering: dict[int, int] = {}  # by code: worker, while it waits
        self.callers: dict[int, int] = {}  # by code: client
        self.links: dict[int, Link] = {}
        self.clients: list[ClientSide] = []
        self.workers: list[WorkerSide] = []
        self.writers: dict[tuple[str, int], LineWriter] = {}
        self.readers: dict[tuple[str, int], LineReader] = {}
        self.wired = wired
        self._client_class, self._worker_class = client_class, worker_class
        # What really happened, for the invariants.
        self.specs: dict[str, tuple[int, TaskSpec]] = {}
        self.granted: dict[str, tuple[bytes, int]] = {}
        self.attempts: dict[str, int] = {}
        self.executions: dict[str, int] = {}
        self.settled: dict[str, str] = {}
        self.withdrawn: set[str] = set()  # by their user
        self.stopping: set[str] = set()  # a worker had it then
        self.stopped: set[str] = set()  # by a lender, who says so at once: their process may end later
        self.settling = False
        for number in range(clients):
            member = f"c{number % members}" if members else ""
            self._add(("c", number), member)
            machine = client_class(self.settings, now=self.now)
            self.clients.append(ClientSide(machine, certificate(f"c{number}", "client", member)))
        for _ in range(workers):
            self.start_worker(slots)

    # -- what tests do --

    def start_worker(self, slots: int = 1) -> None:
        number = len(self.workers)
        self._add(("w", number))
        vouched = certificate(f"w{number}", "worker")
        terms = Terms(slots=slots, free=slots, python="3.11")
        machine = self._worker_class(self.settings, sid=vouched.sid, name=f"w{number}", terms=terms, now=self.now)
        self.workers.append(WorkerSide(machine, vouched, slots))
        self._worker(number, machine.tick(self.now, NOW + self.now))

    def submit(self, client: int, spec: TaskSpec) -> None:
        self.specs[spec.id] = (client, spec)
        self._client(client, self.clients[client].machine.submit(spec, self.now))
        self.check()

    def link_all(self) -> None:
        """Go on without faults until all links are up, all runners ready, and all offers count these."""
        faults, self.faults = self.faults, 0
        self._until_it_is_quiet()
        self.now += wm.ANSWER_EVERY
        for number, worker in enumerate(self.workers):
            self._worker(number, worker.machine.tick(self.now, NOW + self.now))
        self._until_it_is_quiet()
        self.faults = faults

    def _until_it_is_quiet(self) -> None:
        while events := [event for event in self.enabled() if event[0] != "time"]:
            self.step(events[0])

    # -- what may happen --

    def enabled(self) -> list[Event]:
        """Everything that may happen now, in a fixed order."""
        found = list(self._enabled())
        return found if self.faults else [event for event in found if event[0] not in FAULTS]

    def _enabled(self) -> Iterable[Event]:
        for link in self.links.values():
            flows = link.up and not link.dead
            if link.to_client and not link.client_knows and (flows or link.in_order):
                yield ("to client", link.number)
                yield ("said twice", link.number)
            if link.to_worker and flows:
                yield ("to worker", link.number)
                if self.says and isinstance(link.to_worker[0], cm.Send):
                    yield ("refused", link.number)
            if link.bulk and not link.bulk[0][1] and flows:
                yield ("bulk", link.number)
            if flows:
                yield ("away", link.number)
            if not link.up and not link.dead:
                yield ("back", link.number)
            if not link.dead:
                yield ("link lost", link.number)
            if link.dead and not link.client_knows and not (link.in_order and link.to_client):
                yield ("client learns", link.number)
            if link.dead and not link.worker_knows:
                yield ("worker learns", link.number)
        for address, lines in self.inboxes.items():
            for place in range(len(lines)):
                yield ("line", address, place)
                yield ("line lost", address, place)
                if self.wired:  # readers see to it that a line counts once (wire.py)
                    yield ("line twice", address, place)
        for code, (_, worker) in self.asking.items():
            possible = code in self.answering
            if possible:
                yield ("meeting", code)
            coming = possible or (self.workers[worker].alive and self._accept_under_way(code))
            yield ("late meeting" if coming else "meeting fails", code)
        for code in self.answering:
            if code not in self.asking:
                yield ("nobody comes", code)
        for number, side in enumerate(self.workers):
            if side.alive:
                yield from self._enabled_at(number, side)
        for task in self.specs:
            if task not in self.settled and task not in self.withdrawn:
                yield ("cancel", task)
        if self._next_deadline() is not None:
            yield ("time",)

    def _enabled_at(self, number: int, side: WorkerSide) -> Iterable[Event]:
        for slot in range(side.slots):
            if slot not in side.ready:
                yield ("ready", number, slot)
        for slot, (link, task, _) in side.running.items():
            whole = all((link, ref) in side.cache for ref in self.specs[task][1].refs)
            if whole or not side.machine._slots[slot].wanted:  # who was told to stop waits for nothing
                yield ("finish", number, slot)
            yield ("killed", number, slot)
            yield ("exits", number, slot)
        for link, ref in sorted(side.cache):
            yield ("evict", number, link, ref)
        yield ("crash", number)
        if side.paused:
            yield ("resume", number)
        elif self.pauses and not side.closing:
            yield ("pause", number)
        if self.says and side.machine.busy():
            yield ("stopped", number)
        if not side.closing:
            yield ("close", number)
        elif not side.machine.busy():
            yield ("leave", number)

    def _accept_under_way(self, code: int) -> bool:
        return any(_code_of(line) == code for lines in self.inboxes.values() for line in lines)

    def _next_deadline(self) -> float | None:
        times = [side.machine.deadline() for side in self.clients]
        times += [side.machine.deadline() for side in self.workers if side.alive]
        return min((time for time in times if time is not None), default=None)

    # -- what happens --

    def step(self, event: Event) -> None:
        """Let ``event``, one of ``enabled()``, happen."""
        kind, *arguments = event
        if kind in FAULTS:
            self.faults -= 1
        _STEPS[kind](self, *arguments)
        self.check()

    def _line(self, address: tuple[str, int], place: int, *, keep: bool = False) -> None:
        lines = self.inboxes[address]
        line = lines[place]
        if not keep:
            del lines[place]
        kind, number = address
        if self.wired:
            heard = self.readers[address].read(line[0], NOW + self.now)
            if heard is None:
                return
            who, message = heard.certificate, heard.message
        else:
            who, message, _ = line
        if kind == "c":
            self._client(number, self.clients[number].machine.heard(who, message, self.now))
        elif self.workers[number].alive:
            self._worker(number, self.workers[number].machine.heard(who, message, self.now, NOW + self.now))

    def _line_twice(self, address: tuple[str, int], place: int) -> None:
        self._line(address, place, keep=True)

    def _line_lost(self, address: tuple[str, int], place: int) -> None:
        del self.inboxes[address][place]

    def _meeting(self, code: int) -> None:
        client, worker = self.asking.pop(code)
        del self.answering[code]
        self.link_count += 1
        link = self.links[self.link_count] = Link(self.link_count, client, worker)
        side = self.workers[worker]
        self.clients[client].links[side.certificate.sid] = link.number
        self._client(client, self.clients[client].machine.link_up(side.certificate.sid, self.now))
        self._worker(worker, side.machine.link_up(link.number, self.clients[client].certificate))

    def _meeting_fails(self, code: int) -> None:
        client, worker = self.asking.pop(code)
        sid = self.workers[worker].certificate.sid
        self._client(client, self.clients[client].machine.meet_failed(sid, LinkTimeout("nobody came"), self.now))

    def _nobody_comes(self, code: int) -> None:
        worker = self.answering.pop(code)
        client = self.clients[self.callers[code]].certificate
        self._worker(worker, self.workers[worker].machine.meet_failed(client))

    def _to_worker(self, number: int) -> None:
        link = self.links[number]
        said = link.to_worker.pop(0)
        link.bulk = [(ref, max(0, first - 1)) for ref, first in link.bulk]
        side = self.workers[link.worker]
        match said:
            case cm.Send(task=task, attempt=attempt, missing=missing):
                job = (number, task, attempt)
                for ref in sorted(self.specs[task][1].refs):
                    if (number, ref) in side.cache or (number, ref) in side.awaited:
                        continue
                    side.awaited[number, ref] = None
                    if ref not in missing:
                        self._want(side, job, ref)
                side.known.add(job)
                self._worker(link.worker, side.machine.task(number, task, attempt, self.now))
            case Recall(id=task, attempt=attempt):
                self._worker(link.worker, side.machine.recall(number, task, attempt, self.now))
            case Pass():
                self._worker(link.worker, side.machine.passed(number, self.now))

    def _refused(self, number: int) -> None:
        """Let a task arrive that the lender's policy doesn't take."""
        self.says -= 1
        link = self.links[number]
        said = link.to_worker.pop(0)
        assert isinstance(said, cm.Send)
        link.bulk = [(ref, max(0, first - 1)) for ref, first in link.bulk]
        side = self.workers[link.worker]
        side.known.add((number, said.task, said.attempt))
        self.refusals.add((said.task, side.certificate.sid))
        self._worker(link.worker, side.machine.refuse(number, said.task, said.attempt, "input", "too large"))

    def _stopped(self, number: int) -> None:
        self.says -= 1
        side = self.workers[number]
        self.stopped |= {task for _, task, _ in side.running.values()}
        self._worker(number, side.machine.stop_all(self.now))
        must(not side.machine.busy(), "something runs on after its lender has stopped it")

    def _bulk(self, number: int) -> None:
        link = self.links[number]
        ref, _ = link.bulk.pop(0)
        side = self.workers[link.worker]
        if (number, ref) in side.awaited:
            del side.awaited[number, ref]
            side.cache.add((number, ref))

    def _want(self, side: WorkerSide, job: Job, ref: str) -> None:
        side.awaited[job[0], ref] = job
        self._say(job[0], Want(job[1], job[2], (ref,)))

    def _want_again(self, side: WorkerSide, number: int, ref: str) -> None:
        jobs = [job for job in sorted(side.known) if job[0] == number and ref in self.specs[job[1]][1].refs]
        if jobs:
            self._want(side, jobs[0], ref)
        else:
            del side.awaited[number, ref]

    def _to_client(self, number: int) -> None:
        link = self.links[number]
        frame = link.to_client.pop(0)
        sid = self.workers[link.worker].certificate.sid
        ends = isinstance(frame, Nack | Lost) and self.granted.get(frame.id) == (sid, frame.attempt)
        if ends and self.specs[frame.id][0] == link.client:
            del self.granted[frame.id]
        self._client(link.client, self.clients[link.client].machine.frame(sid, frame, self.now), said_by=sid)

    def _said_twice(self, number: int) -> None:
        """Not the link's doing, which delivers once, but a worker's that doesn't keep to the protocol."""
        said = self.links[number].to_client
        said.append(said[0])

    def _away(self, number: int) -> None:
        link = self.links[number]
        link.up = False
        sid = self.workers[link.worker].certificate.sid
        self._client(link.client, self.clients[link.client].machine.link_away(sid, "cut", self.now))

    def _back(self, number: int) -> None:
        link = self.links[number]
        link.up = True
        sid = self.workers[link.worker].certificate.sid
        self._client(link.client, self.clients[link.client].machine.link_up(sid, self.now))

    def _link_lost(self, number: int) -> None:
        self.links[number].dead = True

    def _client_learns(self, number: int) -> None:
        link = self.links[number]
        link.client_knows = True
        sid = self.workers[link.worker].certificate.sid
        client = self.clients[link.client]
        client.links.pop(sid)
        self.granted = {task: given for task, given in self.granted.items() if not self._of(task, link.client, sid)}
        self._client(link.client, client.machine.link_lost(sid, "lost", self.now))
        self._tidy(link)

    def _of(self, task: str, client: int, sid: bytes) -> bool:
        return self.specs[task][0] == client and self.granted[task][0] == sid

    def _worker_learns(self, number: int) -> None:
        link = self.links[number]
        link.worker_knows = True
        side = self.workers[link.worker]
        self._worker(link.worker, side.machine.link_lost(number, self.now))
        side.cache = {place for place in side.cache if place[0] != number}
        side.awaited = {place: job for place, job in side.awaited.items() if place[0] != number}
        self._tidy(link)

    def _tidy(self, link: Link) -> None:
        if link.client_knows and link.worker_knows:
            del self.links[link.number]

    def _ready(self, number: int, slot: int) -> None:
        side = self.workers[number]
        side.ready.add(slot)
        self._worker(number, side.machine.slot_ready(slot, self.now))

    def _finish(self, number: int, slot: int) -> None:
        side = self.workers[number]
        job = side.running.pop(slot)
        failed = self.executions[job[1]] <= self.specs[job[1]][1].retries  # and runs again, unless its result is lost
        error = TaskFailure("exception", "builtins.ValueError", ANY_ERROR) if failed else None
        result = Result(job[1], job[2], not failed, (), 0.001, failure=error)
        actions = side.machine.slot_result(slot, result, b"", self.now)
        for action in actions:
            if isinstance(action, wm.Reply) and isinstance(action.frame, Result):
                must(action.link == job[0], "a result would go to another link than its task came by")
        self._worker(number, actions)

    def _killed(self, number: int, slot: int) -> None:
        self._ended(number, slot, killed=True)

    def _exits(self, number: int, slot: int) -> None:
        self._ended(number, slot, killed=False)

    def _ended(self, number: int, slot: int, *, killed: bool) -> None:
        side = self.workers[number]
        del side.running[slot]
        side.ready.discard(slot)
        self._worker(number, side.machine.slot_died(slot, killed=killed, detail="ended", now=self.now))

    def _evict(self, number: int, link: int, ref: str) -> None:
        """Bytes are gone: for want of room, or with the runner that held them, though a task needs them."""
        side = self.workers[number]
        side.cache.discard((link, ref))
        if any(job[0] == link and ref in self.specs[job[1]][1].refs for job in side.known):
            side.awaited[link, ref] = None
            self._want_again(side, link, ref)
        else:
            self._say(link, Evicted((ref,)))

    def _crash(self, number: int) -> None:
        self._gone(number, in_order=False)

    def _leave(self, number: int) -> None:
        self._gone(number, in_order=True)

    def _gone(self, number: int, *, in_order: bool) -> None:
        side = self.workers[number]
        side.alive = False
        side.running.clear()
        side.known.clear()
        self.inboxes[("w", number)].clear()
        self.answering = {code: worker for code, worker in self.answering.items() if worker != number}
        for link in list(self.links.values()):
            if link.worker == number:
                link.in_order = in_order and not link.dead and link.up
                link.dead = link.worker_knows = True
                self._tidy(link)

    def _pause(self, number: int) -> None:
        side = self.workers[number]
        self.pauses -= 1
        side.paused = True
        self._worker(number, side.machine.pause(self.now))

    def _resume(self, number: int) -> None:
        side = self.workers[number]
        side.paused = False
        self._worker(number, side.machine.resume(self.now))

    def _close(self, number: int) -> None:
        side = self.workers[number]
        side.closing, side.paused = True, False
        self._worker(number, side.machine.close(self.now))

    def _cancel(self, task: str) -> None:
        client = self.specs[task][0]
        self.withdrawn.add(task)
        machine, has_it = self.clients[client].machine, task in self.granted
        self._client(client, machine.cancel(task, self.now))
        stopping = machine.state(task) is cm.TaskState.STOPPING
        must(stopping or self.settled.get(task) == "cancelled", "a cancelled task is neither over nor being stopped")
        if stopping:
            self.stopping.add(task)
        must(stopping == has_it, "a cancelled task is over before its end, or waits for nobody")

    def _lie(self, number: int, frame: WorkerFrame) -> None:
        self._say(number, frame)

    def _time(self) -> None:
        deadline = self._next_deadline()
        assert deadline is not None
        self.pass_time(max(0.0, deadline - self.now))

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and tick those machines whose deadline has come."""
        self.now += seconds
        for number, side in enumerate(self.clients):
            due = side.machine.deadline()
            if due is not None and due <= self.now:
                self._client(number, side.machine.tick(self.now))
                later = side.machine.deadline()
                must(later is None or later > self.now, "a client's deadline has passed, after its tick")
        for number, worker in enumerate(self.workers):
            if worker.alive and worker.machine.deadline() <= self.now:
                self._worker(number, worker.machine.tick(self.now, NOW + self.now))
                must(worker.machine.deadline() > self.now, "a worker's deadline has passed, after its tick")

    # -- performing the machines' actions --

    def _client(self, number: int, actions: list[cm.Action], said_by: bytes | None = None) -> None:
        side = self.clients[number]
        for action in actions:
            match action:
                case cm.Say(message):
                    self._post(("c", number), message)
                case cm.Meet(worker):
                    must(worker.sid not in side.links, "a worker is met although there is a link to it")
                    target = self._worker_number(worker.sid)
                    must((number, target) not in self.asking.values(), "a worker is met twice at a time")
                    self.codes += 1
                    self.asking[self.codes] = (number, target)
                    self.callers[self.codes] = number
                    self._post(("c", number), Accept(to=worker.sid, box=str(self.codes).encode()))
                case cm.Send(sid, task, attempt, missing):
                    must(task not in self.settled, "a task was sent after it was over")
                    must(task not in self.granted, "a task was sent while another worker has it")
                    must((task, sid) not in self.refusals, "a task was sent again to a worker that has refused it")
                    self.granted[task] = (sid, attempt)
                    self.attempts[task] = attempt
                    self._tell(side, sid, action)
                    self._tell_bulk(side, sid, missing)
                case cm.SendBuffers(sid, task, refs):
                    must(task not in self.settled, "buffers were sent for a task that is over")
                    self._tell_bulk(side, sid, refs)
                case cm.Tell(sid, frame):
                    self._tell(side, sid, frame)
                case cm.Settle(task, result, error, why):
                    must(task not in self.settled, "a task was settled twice")
                    if task in self.withdrawn:
                        must(not (result or error), "a task was delivered after it was cancelled")
                        self._check_stopped(task, why)
                    if result is not None:
                        current = self.granted.get(task) == (said_by, result.attempt)
                        must(current, "a result counted that is not the current attempt's")
                    self.settled[task] = "result" if result else "error" if error else "cancelled"
                    self.granted.pop(task, None)
                case cm.Note(task=task, retry=retry) if retry:
                    must(self.granted.get(task, (b"",))[0] == said_by, "a task is retried that its worker hasn't")
                    del self.granted[task]
                case cm.Note() | cm.Changed():
                    pass

    def _check_stopped(self, task: str, why: str) -> None:
        """Check that a cancelled task has really ended where its worker has said so."""
        must(not (self.settling and "has not said" in why), "a worker keeps a client waiting that has recalled a task")
        if why == cm.ASKED and task in self.stopping - self.stopped:
            jobs = [job for side in self.workers for job in side.running.values()]
            must(
                (task, self.attempts.get(task)) not in [job[1:] for job in jobs],
                "a cancelled task was said to have ended, and runs",
            )

    def _worker(self, number: int, actions: list[wm.Action]) -> None:
        side = self.workers[number]
        for action in actions:
            match action:
                case wm.Say(message):
                    self._post(("w", number), message)
                case wm.Meet(_, box):
                    self.answering[int(box)] = number
                case wm.Start(slot, link, task, attempt):
                    must(not side.paused, "a task was started by a worker that is paused")
                    must(slot in side.ready, "a task was started without a runner")
                    must(slot not in side.running, "a task was started in a slot that is busy")
                    must((link, task, attempt) in side.known, "a task was started that is not there")
                    side.running[slot] = (link, task, attempt)
                    self.executions[task] = self.executions.get(task, 0) + 1
                    spec = self.specs[task][1]
                    must(not spec.once or self.executions[task] <= 1, "a task that may run once ran twice")
                    most = self.settings.attempts + spec.retries
                    must(self.executions[task] <= most, "a task ran more often than allowed")
                case wm.Stop(slot, task):
                    must(side.running.get(slot, (0, "", 0))[1] == task, "a task was stopped that the slot doesn't run")
                case wm.Forget(link, task, attempt):
                    must((link, task, attempt) in side.known, "a task was forgotten twice")
                    side.known.remove((link, task, attempt))
                    for ref in sorted(self.specs[task][1].refs):
                        if side.awaited.get((link, ref)) == (link, task, attempt):
                            self._want_again(side, link, ref)
                case wm.Reply(link, frame):
                    self._say(link, frame)

    def _tell(self, side: ClientSide, sid: bytes, said: cm.Send | ClientFrame) -> None:
        must(sid in side.links, "a frame was sent without a link")
        link = self.links[side.links[sid]]
        if not link.dead:
            link.to_worker.append(said)

    def _tell_bulk(self, side: ClientSide, sid: bytes, refs: Iterable[str]) -> None:
        link = self.links[side.links[sid]]
        if not link.dead:
            link.bulk += [(ref, len(link.to_worker)) for ref in refs]

    def _say(self, number: int, frame: WorkerFrame) -> None:
        link = self.links.get(number)
        if link is not None and not link.dead:
            link.to_client.append(frame)

    def _post(self, sender: tuple[str, int], message: Message) -> None:
        sides: list[ClientSide] | list[WorkerSide] = self.clients if sender[0] == "c" else self.workers
        vouched = sides[sender[1]].certificate
        if self.wired:
            line = (self.writers[sender].write(message, introduce=True), message)
        else:
            line = (vouched, message, sender)  # type: ignore[assignment]
        for address, inbox in self.inboxes.items():
            alive = address[0] == "c" or (address[1] < len(self.workers) and self.workers[address[1]].alive)
            if address != sender and alive and self._concerns(address, sender, message):
                inbox.append(line)

    def _concerns(self, address: tuple[str, int], sender: tuple[str, int], message: Message) -> bool:
        """Whom a message concerns. Others ignore it (test_worker_machine.py): it need not multiply the states."""
        if isinstance(message, Accept):
            return address[0] == "w" and self.workers[address[1]].certificate.sid == message.to
        return address[0] != sender[0]

    def _worker_number(self, sid: bytes) -> int:
        return next(n for n, side in enumerate(self.workers) if side.certificate.sid == sid)

    def _add(self, address: tuple[str, int], member: str = "") -> None:
        self.inboxes[address] = []
        if self.wired:
            name, role = f"{address[0]}{address[1]}", "client" if address[0] == "c" else "worker"
            self.writers[address] = LineWriter(session_of(name, role, member=member), CLUSTER, stream(name))
            self.readers[address] = reader()

    # -- invariants --

    def check(self) -> None:
        """Raise ``Violation`` unless all that must hold at any time does."""
        for number, side in enumerate(self.clients):
            machine = side.machine
            places: dict[str, int] = {}
            for queue in machine._queues.values():
                for task in queue:
                    places[task] = places.get(task, 0) + 1
            for worker in machine.workers.values():
                for task in worker.tasks:
                    places[task] = places.get(task, 0) + 1
                    must(self.granted.get(task, (b"",))[0] == worker.sid, "a task is at a worker it wasn't sent to")
            open_tasks = {task for task, (owner, _) in self.specs.items() if owner == number} - set(self.settled)
            must(set(places) == open_tasks, "a task was forgotten, or is kept after its end")
            must(all(count == 1 for count in places.values()), "a task is in two places")
            must(sum(machine.counts().values()) == len(open_tasks), "the counts are not the tasks'")
        for side_ in self.workers:
            if side_.alive:
                turns = side_.machine._turns
                held = {job for jobs in turns._held.values() for job in jobs}
                jobs = {(job.link, job.task, job.attempt) for job in held} | set(side_.running.values())
                must(jobs == side_.known, "a worker has lost or kept a task")
                must(not (side_.paused and (held or turns._reserves)), "a paused worker keeps what waits")
                self._check_shares(side_)
                terms = side_.machine.terms()
                must(0 <= terms.free <= terms.slots <= side_.slots, "a worker offers slots that it hasn't")

    def _check_shares(self, side: WorkerSide) -> None:
        machine = side.machine
        turns = machine._turns
        for slot, reserve in turns._reserves.items():
            must(slot in side.ready and slot not in side.running, "a slot is kept that isn't free")
            must(reserve.link in machine._links, "a slot is kept for a link that is gone")
            must(self.now <= reserve.since + self.settings.hold, "a slot is kept for too long")
            held = [link for link, jobs in turns._held.items() if jobs]
            must(not any(machine._links[link].signer == reserve.member for link in held), "a kept slot is not used")
        must(set(turns._places) <= set(machine._links), "a link waits that is gone")
        idle = side.ready - set(side.running) - set(turns._reserves)
        must(not (idle and any(turns._held.values())), "a task waits although a slot is free")

    def check_quiet(self) -> None:
        """Raise ``Violation`` unless nothing is left: to be called when all tasks are over and all is delivered."""
        must(set(self.settled) == set(self.specs), "a task was never settled")
        for side in self.workers:
            if side.alive:
                must(not side.known, "a worker keeps a task that is over")
                if not side.closing:
                    must(side.machine.terms().free == side.slots, "a slot has leaked")

    def settle(self, limit: int = 2000) -> None:
        """Go on without further faults, and with a worker, until all is quiet; raise ``Violation`` if it won't be."""
        self.faults = self.pauses = self.says = 0
        self.settling = True
        if self.refusals:  # by all that there were
            self.start_worker()
        if not any(side.alive and not side.closing for side in self.workers):
            self.start_worker()
        for _ in range(limit):
            events = self.enabled()
            moving = [event for event in events if event[0] not in ("finish", "leave", "time")]
            ending = [event for event in events if event[0] in ("finish", "leave")]
            if moving:
                self.step(moving[0])
            elif ending:
                self.step(ending[0])
            elif len(self.settled) == len(self.specs) and not any(side.machine._turns.kept for side in self.workers):
                break
            else:
                self.step(("time",))
        self.check_quiet()


_STEPS: dict[str, Callable[..., None]] = {
    "line": World._line,
    "line lost": World._line_lost,
    "line twice": World._line_twice,
    "meeting": World._meeting,
    "meeting fails": World._meeting_fails,
    "late meeting": World._meeting_fails,
    "nobody comes": World._nobody_comes,
    "to worker": World._to_worker,
    "to client": World._to_client,
    "bulk": World._bulk,
    "away": World._away,
    "back": World._back,
    "link lost": World._link_lost,
    "client learns": World._client_learns,
    "worker learns": World._worker_learns,
    "ready": World._ready,
    "finish": World._finish,
    "killed": World._killed,
    "exits": World._exits,
    "evict": World._evict,
    "crash": World._crash,
    "refused": World._refused,
    "stopped": World._stopped,
    "pause": World._pause,
    "resume": World._resume,
    "close": World._close,
    "leave": World._leave,
    "cancel": World._cancel,
    "lie": World._lie,
    "said twice": World._said_twice,
    "time": World._time,
}


def _code_of(line: Any) -> int | None:
    """The code of an accept that is under way."""
    message = line[1]
    return int(message.box) if isinstance(message, Accept) else None
