"""The agent: performs the worker machine's actions on a board, on links and on slots.

The agent holds the worker's keys and its network; tasks run in runners, child processes that have neither. The agent
never unpickles anything: a task's bytes go from the link to a runner, a result's from a runner to the link.

The route of a task: link → ``_ClientLink`` (buffers land in the cache) → ``WorkerMachine`` → ``Start`` → the
slot's runner, to which buffers stream while they still arrive; of a result: runner → slot → link.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from p2p_ipython.board.base import BoardReport
from p2p_ipython.config import Settings
from p2p_ipython.errors import P2PError, ProtocolError, RemoteProtocolError
from p2p_ipython.jobs import Alarm, Complaints, Jobs
from p2p_ipython.link.base import HIGH_WATER, Linker, LinkState, Meeting, Secret
from p2p_ipython.link.end import LinkEnd
from p2p_ipython.link.guard import Guard
from p2p_ipython.members.membership import Membership
from p2p_ipython.protocol.frames import Buffer, Header
from p2p_ipython.protocol.identity import BadIdentity, Certificate, check_link_proof, link_proof
from p2p_ipython.protocol.messages import BadMessage, Bye, Hello, Message, Terms, decode_rendezvous
from p2p_ipython.protocol.task_frames import (
    MAX_WORD,
    BufferChunk,
    Evicted,
    Nack,
    Output,
    Pass,
    Progress,
    Recall,
    Result,
    ResultChunk,
    Started,
    Task,
    Want,
    batches,
    read_client,
)
from p2p_ipython.protocol.tracing import traced
from p2p_ipython.protocol.turns import Job
from p2p_ipython.protocol.worker_machine import Action, Forget, Meet, Reply, Say, Start, Stop, WorkerMachine
from p2p_ipython.tracing import trace_file
from p2p_ipython.worker.cache import BufferCache, Inbound, Source
from p2p_ipython.worker.keeper import NoLender
from p2p_ipython.worker.slot_base import Death, TaskSlot

log = logging.getLogger(__name__)

MOST_WAITING_FOR_ONE = 64 << 20
"""Bytes of frames that may wait on all links of a member: twice as many as on one (see link/base.py)."""


_TIME_IS_UP = {"time": "task_time", "timeout": "timeout"}
"""The kinds of errors of tasks whose time was up, by the kinds of their runner's end."""


@dataclass
class _ArrivedTask:
    """A task as it came, until it is over."""

    task: Task
    body: Buffer
    sources: list[Source] = field(default_factory=list)
    refs: list[str] = field(default_factory=list)


class Agent:
    """One worker on one cluster. Make it and use it on the process's loop."""

    def __init__(
        self,
        *,
        settings: Settings,
        name: str,
        terms: Terms,
        membership: Membership,
        linker: Linker,
        make_slot: Callable[[Agent], TaskSlot],
        on_expelled: Callable[[str], None] | None = None,
        keeper: NoLender | None = None,
    ) -> None:
        self._settings = settings
        self._session = membership.session
        self._linker = linker
        self._loop = asyncio.get_running_loop()
        self.membership = membership
        membership.speaker = self
        self.machine = WorkerMachine(
            settings,
            sid=membership.session.sid,
            name=name,
            terms=terms,
            now=self._loop.time(),
            own=membership.is_own,
        )
        if (trace := trace_file()) is not None:
            traced(self.machine, "worker", membership.session.sid, trace.write)
        self._slots = [make_slot(self) for _ in range(terms.slots)]
        self._numbers = {slot: number for number, slot in enumerate(self._slots)}
        self._cache = BufferCache(settings.worker_cache, on_evict=self._evicted)
        # Bytes of large buffers that the tasks of one member may have here at a time.
        self._most_pinned = max(settings.worker_cache, terms.memory // 4)
        self._links: dict[int, _ClientLink] = {}
        self._arrived: dict[Job, _ArrivedTask] = {}
        self._wanted: dict[tuple[int, str], Job] = {}  # buffers that were asked for, by link and ref
        self._preparing: dict[int, str] = {}  # what comes before the task begins, by slot
        self._jobs = Jobs(log)
        self.complaints = Complaints(log, self._loop.time)
        self._next_link = 0
        self._alarm = Alarm(self._tick)
        self._idle = asyncio.Event()
        self._closed = False
        self._on_expelled = on_expelled
        self._keeper = keeper or NoLender()
        self._lender_pauses: str | None = None  # why; None: nothing does
        self._engine_pauses: str | None = None

    # -- the beginning and the end --

    async def start_slots(self) -> None:
        """Start the runners; needs no board."""
        await asyncio.gather(*(slot.start() for slot in self._slots))

    def begin(self) -> None:
        """Say hello on the board, which is joined already."""
        self.membership.begin(hello=False)
        self._keeper.begin(self)
        self._jobs.start(self._keeper.keep())
        self._act(self.machine.tick(self._loop.time(), time.time()))

    def pause(self, why: str = "") -> None:
        """Take no task until ``resume``; what runs goes on. The others hear of it, and of the reason, at once."""
        self._lender_pauses = why
        self._pause_or_resume()

    def resume(self) -> None:
        """Take tasks again, unless the engine can't."""
        self._lender_pauses = None
        self._pause_or_resume()

    def engine_changed(self, slots: int, **conditions: Any) -> None:
        """Note how many slots the engine behind this worker has now; 0: it can take nothing."""
        self._engine_pauses = "engine" if not slots else None
        self.amend(slots=max(1, slots), **conditions)
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        why = self._lender_pauses if self._lender_pauses is not None else self._engine_pauses
        now = self._loop.time()
        self._act(self.machine.pause(now, why) if why is not None else self.machine.resume(now))

    def amend(self, **conditions: Any) -> None:
        """Change conditions of the offer, and cut the links of clients whom it is no longer for."""
        self._act(self.machine.amend(self._loop.time(), **conditions))
        self._cut()

    async def stop_now(self, grace: float) -> None:
        """Take no more tasks, and end those that run, by the lender's hand; their owners hear of it.

        Returns when that has been sent, after ``grace`` seconds at most.
        """
        now = self._loop.time()
        for number in range(len(self._slots)):
            if self.machine.current(number) is not None:
                self._keeper.stopping(number, "stopped")
        self._act(self.machine.close(now))
        self._act(self.machine.stop_all(now))
        await self._delivered(grace)

    async def drain(self, grace: float | None, delivery: float) -> None:
        """Take no more tasks and wait until those that run are over, at most ``grace`` seconds (None: for ever).

        Waits ``delivery`` seconds at most until their results have been sent.
        """
        self._idle.clear()
        self._act(self.machine.close(self._loop.time()))
        try:
            await asyncio.wait_for(self._idle.wait(), grace)
        except TimeoutError:
            log.warning("tasks that still run after %.0f s are ended", grace)
        await self._delivered(delivery)

    async def _delivered(self, grace: float) -> None:
        # A result that is still on its way would be lost with the link, and its task run again elsewhere.
        end = self._loop.time() + grace
        while any(link.pending for link in self._links.values()) and self._loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def close(self, *, farewell: bool = True) -> None:
        """Say good-bye (unless nobody is left to hear it), end links and runners. Idempotent."""
        if self._closed:
            return
        self._act([a for a in self.machine.close(self._loop.time()) if not isinstance(a, Say)])
        self._closed = True
        self._alarm.stop()
        await self._jobs.end()
        endings: list[Coroutine[Any, Any, None]] = [link.close() for link in self._links.values()]
        endings += [slot.close() for slot in self._slots]
        endings.append(self.membership.close(Bye() if farewell else None))
        await asyncio.gather(*endings, return_exceptions=True)
        self._keeper.end()
        await self._linker.close()

    # -- Speaker --

    def hello(self) -> Hello:
        """Return what to say of this worker: its offer."""
        return self.machine.hello(time.time())

    def heard(self, certificate: Certificate, message: Message) -> None:
        """Note what a member has said."""
        self._act(self.machine.heard(certificate, message, self._loop.time(), time.time()))

    def board_changed(self, report: BoardReport) -> None:
        """Ignore the board's state: links go on without it."""

    def members_changed(self) -> None:
        """Cut the links, and stop the tasks, of clients who are no longer members or to whom we no longer lend."""
        self._keeper.members_changed(self.membership.machine.roster)
        self._cut()

    def _cut(self) -> None:
        for number, link in list(self._links.items()):
            client = self.machine.owner_of(number)
            if client is not None and not self._serves(client):
                if link.link is not None:
                    link.link.abort()
                self.link_ended(number, "its client may not have tasks run here any more")

    def expelled(self, why: str) -> None:
        """Cut all links: this worker's member was revoked, so there is nobody to work for."""
        for number, link in list(self._links.items()):
            if link.link is not None:
                link.link.abort()
            self.link_ended(number, why)
        if self._on_expelled is not None:
            self._on_expelled(why)

    def _member(self, link: int) -> str:
        """Return the fingerprint of the member at the other end of a link; "" if it is gone."""
        client = self.machine.owner_of(link)
        return client.signer if client is not None else ""

    def _serves(self, client: Certificate) -> bool:
        welcome = self.machine.welcomes(client.signer) and self._keeper.welcomes(client.signer)
        return welcome and self.membership.admits(client)

    # -- SlotListener --

    def on_ready(self, slot: TaskSlot) -> None:
        self._act(self.machine.slot_ready(self._numbers[slot], self._loop.time()))

    def on_output(self, slot: TaskSlot, output: Output | Progress, body: Buffer) -> None:
        self._pass_on(slot, output, body, bulk=False)

    def on_chunk(self, slot: TaskSlot, chunk: ResultChunk, body: Buffer) -> None:
        self._pass_on(slot, chunk, body, bulk=True)

    def on_result(self, slot: TaskSlot, result: Result, body: Buffer) -> None:
        self._keeper.sent(self._numbers[slot], len(body))
        self._keeper.over(self._numbers[slot], "done" if result.ok else "failed", slot.used)
        self._act(self.machine.slot_result(self._numbers[slot], result, body, self._loop.time()))

    def on_died(self, slot: TaskSlot, task_id: str | None, death: Death) -> None:
        if task_id is not None:
            job = self.machine.current(self._numbers[slot])
            whose = f"runner {self._member(job.link)}" if job is not None else "runner"
            self.complaints.about(whose, "a runner ended while it ran a task: %s", death.detail)
        # Signal 9 comes from outside the task, and a runner that broke the protocol or never started is ours to
        # answer for: another worker may do better. What the task does by itself, it would do there, too.
        killed = death.kind in ("protocol", "start", "engine") or (
            death.kind == "signal" and death.code == signal.SIGKILL
        )
        self._keeper.over(self._numbers[slot], "lost" if killed else "died")
        number, now, what = self._numbers[slot], self._loop.time(), _TIME_IS_UP.get(death.kind, "died")
        self._act(self.machine.slot_died(number, killed=killed, detail=death.detail, now=now, what=what))

    def on_preparing(self, slot: TaskSlot, words: str) -> None:
        number = self._numbers[slot]
        job, words = self.machine.current(number), words[:MAX_WORD]
        if self._preparing.get(number, "") == words:
            return
        self._preparing[number] = words
        if job is not None and job.link in self._links:
            self._links[job.link].send(Started(job.task, job.attempt, words).header())

    def on_dropped(self, _slot: TaskSlot, refs: Sequence[str]) -> None:
        for ref in refs:
            for owner in self._cache.lost(ref):
                self._want_again(int(owner), ref)

    def _want_again(self, link: int, ref: str) -> None:
        """Ask for a buffer on behalf of a task that needs it; without one, forget that it was to come."""
        job = next((job for job, task in self._arrived.items() if job.link == link and ref in task.refs), None)
        if job is not None and link in self._links:
            self._want(job, [ref])
        else:
            self._cache.abort(str(link), ref, "nobody needs it")

    def _want(self, job: Job, refs: list[str]) -> None:
        for ref in refs:
            self._wanted[job.link, ref] = job
        self._links[job.link].send(Want(job.task, job.attempt, tuple(refs)).header())

    def _is_over(self, job: Job) -> None:
        """Drop what a task needed."""
        link, owner = job.link, str(job.link)
        over = self._arrived.pop(job, None)
        for ref in over.refs if over else ():
            self._cache.unpin(owner, ref)
            # With one slot, what its runner holds need not be kept here, too.
            if len(self._slots) == 1 and self._slots[0].holds(ref):
                self._cache.hand_over(owner, ref)
            if self._wanted.get((link, ref)) == job:
                # The client may have withdrawn the task before it was asked, and then sends nothing.
                del self._wanted[link, ref]
                source = self._cache.get(owner, ref)
                if source is not None and not source.complete and not source.received:
                    self._want_again(link, ref)

    def _pass_on(self, slot: TaskSlot, frame: Output | Progress | ResultChunk, body: Buffer, *, bulk: bool) -> None:
        job = self.machine.current(self._numbers[slot])
        if job is None or (frame.id, frame.attempt) != (job.task, job.attempt):
            return
        link = self._links.get(job.link)
        if link is None:
            return
        link.send(frame.header(), body, bulk=bulk)
        self._keeper.sent(self._numbers[slot], len(body))
        if link.pending > HIGH_WATER:  # the runner isn't read meanwhile
            slot.pause()
            link.paused.add(slot)

    # -- what links bring --

    def task_came(self, link: int, task: Task, body: Buffer) -> None:
        """Note that a client has sent a task."""
        job = Job(link, task.id, task.attempt)
        if job in self._arrived:
            return
        client = self.machine.owner_of(link)
        if client is not None and (refusal := self._keeper.check(client, task, body)) is not None:
            self._keeper.refused(task, client, refusal)
            self._act(self.machine.refuse(link, task.id, task.attempt, refusal.why, refusal.words))
            return
        if not self._has_room(link, task):
            self._act([Reply(link, Nack(task.id, task.attempt, "busy"))])
            return
        arrived = self._arrived[job] = _ArrivedTask(replace(task, coming=()) if task.coming else task, body)
        try:
            self._gather(job, arrived, set(task.coming))
        except RemoteProtocolError as error:
            words = "a client sent a task with a buffer that can't be taken: %s"
            self.complaints.about(self._member(link), words, error)
            self._act([Forget(link, task.id, task.attempt), Reply(link, Nack(task.id, task.attempt, "refused"))])
            return
        self._act(self.machine.task(link, task.id, task.attempt, self._loop.time()))

    def _has_room(self, link: int, task: Task) -> bool:
        """Return whether the member may have the large buffers of one more task here, pinned as long as it lasts.

        A member's only task may: how large it may be is for its slot to say.
        """
        owner, member = str(link), self._member(link)
        sizes = {ref: size for size, ref in task.all_segments if ref is not None}
        more = sum(size for ref, size in sizes.items() if not self._cache.is_pinned(owner, ref))
        if not more:
            return True
        theirs = [number for number in self._links if self._member(number) == member]
        pinned = sum(self._cache.pinned(str(number)) for number in theirs)
        return not pinned or pinned + more <= self._most_pinned

    def _gather(self, job: Job, arrived: _ArrivedTask, coming: set[str]) -> None:
        """Find the task's large buffers: in the cache, on their way, or to be asked for.

        Raises ``RemoteProtocolError`` for one that there is no room for.
        """
        owner = str(job.link)
        wanted = []
        for size, ref in arrived.task.all_segments:
            if ref is None or ref in arrived.refs:
                continue
            source = self._cache.get(owner, ref)
            if source is None:
                source = self._cache.begin(owner, ref, size)
                if ref not in coming:
                    wanted.append(ref)
            self._cache.pin(owner, ref)
            arrived.refs.append(ref)
            arrived.sources.append(source)
        if wanted:
            self._want(job, wanted)

    def inbound(self, link: int, chunk: BufferChunk, size: int) -> Inbound | None:
        """Return where a chunk of a large buffer belongs; None if nobody waits for just this one."""
        source = self._cache.get(str(link), chunk.ref)
        if source is None or source.complete or source.size != chunk.size or source.received != chunk.offset:
            return None
        return source if source.received + size <= source.size else None

    def has(self, link: int, recall: Recall) -> bool:
        """Return whether a task that its client doesn't want any more is here."""
        return Job(link, recall.id, recall.attempt) in self._arrived

    def recalled(self, link: int, recall: Recall) -> None:
        """Note that the client doesn't want a task any more."""
        self._act(self.machine.recall(link, recall.id, recall.attempt, self._loop.time()))

    def passed(self, link: int) -> None:
        """Note that the client has no task for us now."""
        self._act(self.machine.passed(link, self._loop.time()))

    def link_ended(self, link: int, detail: str) -> None:
        """Note that a link is gone for good. Nothing that came by it stays."""
        if self._links.pop(link, None) is None:
            return
        log.info("a client's link has ended: %s", detail)
        self._act(self.machine.link_lost(link, self._loop.time()))
        self._cache.forget(str(link))
        self._wanted = {key: job for key, job in self._wanted.items() if key[0] != link}
        self._arrived = {job: task for job, task in self._arrived.items() if job.link != link}

    def _evicted(self, owner: str, refs: Sequence[str]) -> None:
        link = self._links.get(int(owner))
        if link is not None:
            for some in batches(tuple(refs)):
                link.send(Evicted(some).header())

    # -- actions --

    def _run(self, number: int, job: Job) -> list[Action]:
        """Have a slot run a task; a slot that can't take it is free again, and the task goes elsewhere."""
        arrived, owner = self._arrived[job], self._member(job.link)
        self._preparing.pop(number, None)
        try:
            client = self.machine.owner_of(job.link)
            if client is not None:
                self._keeper.begun(number, arrived.task, client)
            self._slots[number].run(arrived.task, arrived.body, arrived.sources, owner=owner)
        except Exception as error:
            self.complaints.about(f"slot {owner}", "a slot could not take a task", error=error)
            self._keeper.over(number, "lost")
            now, detail = self._loop.time(), "the worker could not start it"
            return [
                *self.machine.slot_died(number, killed=True, detail=detail, now=now),
                *self.machine.slot_ready(number, now),
            ]
        return []

    def _act(self, actions: list[Action]) -> None:
        if self._closed:
            return
        actions = list(actions)
        for action in actions:  # performing one may add others at the end
            match action:
                case Start(slot=number, link=link, task=task_id, attempt=attempt):
                    actions += self._run(number, Job(link, task_id, attempt))
                case Reply(link=link, frame=frame, body=body):
                    if link in self._links:
                        if isinstance(frame, Started):
                            frame = self._with_detail(link, frame)
                        # A result with large segments must not overtake them.
                        bulk = isinstance(frame, Result) and frame.has_chunks
                        self._links[link].send(frame.header(), body, bulk=bulk)
                        self._check_waiting(link)
                case Forget(link=link, task=task_id, attempt=attempt):
                    self._is_over(Job(link, task_id, attempt))
                case Stop(slot=number, task=task_id):
                    self._keeper.stopping(number, "recalled")
                    self._slots[number].cancel(task_id)
                case Meet(client=client, box=box):
                    self._jobs.start(self._meet(client, box))
                case Say(message=message):
                    self._say(message)
        if not self.machine.busy():
            self._idle.set()
        self._alarm.set(self.machine.deadline())

    def _with_detail(self, link: int, frame: Started) -> Started:
        """Return what is said of a task that runs, with what comes before it begins."""
        job = Job(link, frame.id, frame.attempt)
        words = (words for number, words in self._preparing.items() if self.machine.current(number) == job)
        return replace(frame, detail=next(words, ""))

    def _check_waiting(self, number: int) -> None:
        """End a link if too much waits on it and the other links of its member, who doesn't read what they ask for."""
        link, member = self._links[number], self._member(number)
        if link.pending <= HIGH_WATER or link.link is None:
            return
        waiting = sum(each.pending for other, each in self._links.items() if self._member(other) == member)
        if waiting > MOST_WAITING_FOR_ONE:
            self.complaints.about(member, "a client doesn't read what it asked for: %d MiB wait for it", waiting >> 20)
            link.link.abort()
            self._loop.call_soon(self.link_ended, number, "it didn't read what it asked for")

    def _tick(self) -> None:
        self._act(self.machine.tick(self._loop.time(), time.time()))

    def _say(self, message: Message) -> None:
        if isinstance(message, Hello):
            self.membership.say_hello()
        else:
            self.membership.say(message)

    async def _meet(self, client: Certificate, box: bytes) -> None:
        us, them = self._session.sid, client.sid
        try:
            where = decode_rendezvous(self._session.unseal(box))
            handler = _ClientLink(self, self._next_link)
            self._next_link += 1
            meeting = Meeting(
                code=Secret(where.code),
                mailbox=where.mailbox,
                relay=where.relay or None,
                own=where.own,
                deadline=self._settings.meet,
                prove=lambda verifier: link_proof(self._session, verifier, them, us),
                check=lambda verifier, proof: check_link_proof(client, verifier, them, us, proof),
                peer="" if self.membership.is_own(client.signer) else client.signer,
            )
            link = await handler.meet(self._linker, meeting)
        except (BadIdentity, BadMessage, P2PError) as error:
            log.info("could not meet client %s: %s", them.hex()[:8], error)
            self._act(self.machine.meet_failed(client))
        except Exception as error:
            self.complaints.about(f"meet {client.signer}", "could not meet client %s", them.hex()[:8], error=error)
            self._act(self.machine.meet_failed(client))
        else:
            if not self._serves(client):  # since a moment ago: nothing of theirs is begun
                link.abort()
                self._act(self.machine.meet_failed(client))
                return
            self._links[handler.number] = handler
            self._act(self.machine.link_up(handler.number, client))
            handler.begin()


class _ClientLink(LinkEnd):
    """The worker's end of a link to one client."""

    def __init__(self, agent: Agent, number: int) -> None:
        super().__init__()
        self.number = number
        self.paused: set[TaskSlot] = set()
        self._agent = agent
        self._landing: memoryview | None = None
        self._early: list[tuple[Header, Buffer]] | None = []

    def begin(self) -> None:
        """Take what arrived before the link was known to the machine."""
        early, self._early = self._early or [], None
        member = self._agent._member(self.number)
        guard = Guard(self, self.link, self._agent.complaints, member)
        try:
            for header, body in early:
                guard.on_frame(header, body)
        except ProtocolError as error:
            self._agent.complaints.about(member, "a client broke the protocol: %s", error.message)
            if self.link is not None:
                self.link.abort()
            self._agent.link_ended(self.number, error.message)
            return
        if self.link is not None and self.link.state in (LinkState.CLOSED, LinkState.LOST):
            self._agent.link_ended(self.number, self.link.state.value)

    # -- LinkHandler --

    def buffer_for(self, header: Header, size: int) -> memoryview | None:
        if header["t"] != BufferChunk.kind or self._early is not None:
            return None
        inbound = self._agent.inbound(self.number, BufferChunk.read(header), size)
        self._landing = inbound.buffer_at(inbound.received, size) if inbound is not None else None
        return self._landing

    def on_frame(self, header: Header, body: Buffer) -> bool:
        if self._early is not None:
            self._early.append((header, body))
            return False
        idle = False
        match read_client(header):
            case Task() as task:
                self._agent.task_came(self.number, task, body)
            case BufferChunk() as chunk:
                inbound = self._agent.inbound(self.number, chunk, len(body))
                if inbound is not None and body is self._landing:
                    inbound.advance(len(body))
                elif inbound is not None:
                    inbound.feed(body)
                self._landing, idle = None, inbound is None
            case Recall() as recall:
                idle = not self._agent.has(self.number, recall)
                self._agent.recalled(self.number, recall)
            case Pass():
                idle = True
                self._agent.passed(self.number)
            case None:
                idle = True  # a later version's; what it must not miss, it says in its hello
        return idle

    def on_link(self, state: LinkState, detail: str) -> None:
        if state in (LinkState.CLOSED, LinkState.LOST):
            self._resume()
            self._agent.link_ended(self.number, detail or state.value)

    def on_drain(self) -> None:
        self._resume()

    def _resume(self) -> None:
        for slot in self.paused:
            slot.resume()
        self.paused.clear()
