"""The bridge: performs the client machine's actions on a board and on links.

It lives on the process's background loop (p2p_ipython/loop.py). Other threads reach it in two ways only: ``submit``
and ``withdraw`` put something into an inbox that the loop empties, and the machine answers questions (``why``).

The route of a task: ``submit`` → ``ClientMachine`` → ``Send`` → the link; of a result: the link → inflow.py (bytes land
in buffers) → ``ClientMachine`` (does it count?) → ``Settle`` → the future. The records follow the machine's actions.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Protocol

import psutil

from p2p_ipython.board.base import BoardReport
from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.display import harmless, is_value
from p2p_ipython.client.future import LEFT, Future, OutputMessage, OutputSink
from p2p_ipython.client.inflow import TaskOutput, WorkerEnd
from p2p_ipython.client.progress import reported
from p2p_ipython.client.records import Records
from p2p_ipython.config import Settings
from p2p_ipython.errors import LinkError, NotAdmitted, P2PError, UsageError
from p2p_ipython.jobs import Alarm, Complaints, Jobs
from p2p_ipython.link.base import HIGH_WATER, Linker, LinkState, Meeting, Secret
from p2p_ipython.members.membership import Membership
from p2p_ipython.protocol.client_machine import (
    ASKED,
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
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.identity import Certificate, check_link_proof, link_proof, seal
from p2p_ipython.protocol.messages import Accept, Bye, Hello, Message, Rendezvous, encode_rendezvous
from p2p_ipython.protocol.placement import TaskSpec
from p2p_ipython.protocol.task_frames import Output, Pass, Progress, Result, WorkerFrame
from p2p_ipython.protocol.task_frames import Task as TaskFrame
from p2p_ipython.protocol.tracing import traced
from p2p_ipython.task import warned
from p2p_ipython.task.safe import BUDGET
from p2p_ipython.task.task import Task
from p2p_ipython.tracing import trace_file

log = logging.getLogger(__name__)

_ANEW = "\n[The task begins anew: its worker was lost. What stands above is of the attempt before.]\n"


class BufferSource(Protocol):
    """Where the bytes of large buffers are: the cluster's store."""

    def get(self, ref: str) -> memoryview: ...
    def unpin(self, refs: Any) -> None: ...


class _Submission:
    """A task, its future, and where its output goes."""

    __slots__ = ("future", "output", "result", "sink", "task", "unsent")

    def __init__(self, task: Task, future: Future[Any], sink: OutputSink | None, limit: int) -> None:
        self.task = task
        self.future = future
        self.sink = sink
        self.output = TaskOutput(limit)
        self.result: Arrived | None = None
        self.unsent = False  # it was cancelled in the moment in which it was to be sent


class Bridge:
    """One client session on one cluster. Make it and use it on the background loop."""

    def __init__(
        self,
        *,
        settings: Settings,
        name: str,
        membership: Membership,
        linker: Linker,
        store: BufferSource,
        new_code: Callable[[], Secret],
        records: Records | None = None,
        walled: bool = False,
    ) -> None:
        self._settings = settings
        self._name = name
        self._session = membership.session
        self._linker = linker
        self._store = store
        self._new_code = new_code
        self._loop = asyncio.get_running_loop()
        self.membership = membership
        membership.speaker = self
        self.records = records or Records(settings)
        membership.stands = self._stands
        now, me = self._loop.time(), membership.standing.me
        more = {"named": membership.machine.name_of} if membership.standing.shared else {}
        self.machine = ClientMachine(settings, now=now, me=me, own=membership.is_own, walled=walled, **more)
        if (trace := trace_file()) is not None:
            traced(self.machine, "client", membership.session.sid, trace.write)
        self.mailbox = ""
        self.relay = ""
        self._own = False
        self._tasks: dict[str, _Submission] = {}
        self.links: dict[bytes, WorkerEnd] = {}
        self._jobs = Jobs(log)
        self._complaints = Complaints(log, self._loop.time)
        self._inbox: deque[tuple[_Submission | None, str]] = deque()
        self._woken = False
        self._alarm = Alarm(self._tick)
        self._hello_at = 0.0
        self._closed = False

    # -- from any thread --

    def submit(self, task: Task, future: Future[Any], sink: OutputSink | None) -> None:
        """Take a task; returns at once."""
        self._inbox.append((_Submission(task, future, sink, self._settings.output_limit), ""))
        self._wake()

    def withdraw(self, task_id: str) -> None:
        """Cancel a task; returns at once."""
        self._inbox.append((None, task_id))
        self._wake()

    def _wake(self) -> None:
        # One wake-up for however many tasks: it costs a system call and a switch of threads.
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._empty_inbox)

    def open_tasks(self, limit: int) -> list[tuple[str, str]]:
        """Label and state in words of tasks that aren't over, at most ``limit``, the oldest first."""
        first = list(self._tasks.values())[:limit]
        return [(s.task.label, self.why(s.task.id)) for s in first]

    def why(self, task_id: str) -> str:
        """Where a task is, or why it waits, in words; "" when it is over."""
        words = self.machine.why(task_id)
        return self._troubled(words) if self.machine.state(task_id) is TaskState.WAITING else words

    def reasons(self) -> dict[str, str]:
        """Why tasks wait, in words, by what they need (``Needs.key``; "" for nothing)."""
        return {needs.key(): self._troubled(self.machine.reason(needs)) for needs in self.machine.wanted()}

    def _troubled(self, words: str) -> str:
        clock = self.membership.clock
        if clock and words.endswith("none is here"):
            return words.replace("none is here", clock)
        trouble = self.membership.trouble or clock or self.membership.silence
        return f"{words} ({trouble})" if trouble else words

    # -- on the loop: the beginning and the end --

    def open(self, mailbox: str, relay: str, own: bool = False) -> None:
        """Say hello on the board, which is joined already; workers answer, and are met.

        ``mailbox`` and ``relay`` ("" for none) are where links are arranged; ``own``: they are the board's own.
        """
        self.mailbox, self.relay, self._own = mailbox, relay, own
        self.membership.begin()
        self._stands()
        self._hello_at = self._loop.time() + self._settings.presence
        self._act([])

    async def close(self, *, farewell: bool = True) -> None:
        """Cancel what isn't over, leave the board (with a word, if somebody may hear it), end the links. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._alarm.stop()
        self._act(self.machine.close(self._loop.time()))
        self._empty_inbox()
        await self._jobs.end()
        await self.membership.close(Bye() if farewell else None)
        await asyncio.gather(*(link.close() for link in list(self.links.values())), return_exceptions=True)
        await self._linker.close()

    # -- on the loop: what happens --

    def hello(self) -> Hello:
        """For the membership: what to say of ourselves."""
        return Hello(name=self._name, time=int(time.time()))

    def heard(self, certificate: Certificate, message: Message) -> None:
        """Note what a member has said."""
        if self._closed:
            return
        if isinstance(message, Hello):
            message = replace(message, name=self.membership.called(certificate, message.name))
            if message.offer is not None:
                log.debug("%s offers %d slots", message.name, message.offer.slots)
        now = self._loop.time()
        actions = self.machine.heard(certificate, message, now)
        called = message.name if isinstance(message, Hello) else ""
        self.records.heard(certificate, message, called, now)
        self._act(actions)

    def board_changed(self, report: BoardReport) -> None:
        """For the membership; links go on without the board."""
        self._stands()

    def _stands(self) -> None:
        membership = self.membership
        state = membership.board.report.state if membership.board is not None else None
        self.records.stands((state, membership.trouble or membership.silence, membership.answered))

    def members_changed(self) -> None:
        """Workers of who is no member any more are left at once; their tasks go to others."""
        self.records.feed.facts()
        workers = self.machine.workers.values()
        gone = [worker.sid for worker in workers if not self.membership.admits(worker.certificate)]
        self._workers_gone(gone, "is no member of the cluster any more")

    def expelled(self, why: str) -> None:
        """Note that we are no member any more: no task can run, so none may wait."""

        def refused(task_id: str) -> P2PError:
            words = f"{self._tasks[task_id].task.label} can't run: {why}"
            return NotAdmitted(words, hint="Ask the owner to let you in again; then connect anew.")

        self._act(self.machine.give_up(refused, self._loop.time()))
        self._stands()
        self._workers_gone({*self.machine.workers, *self.links}, why)

    def worker_gone(self, sid: bytes, detail: str) -> None:
        """Somebody knows for certain that the worker's process has ended: don't wait for the lease."""
        self.records.gone(sid)
        self._workers_gone([sid], detail)

    def _workers_gone(self, sids: Collection[bytes], detail: str) -> None:
        self._act(self.machine.links_lost(sids, detail, self._loop.time()))
        for sid in sids:
            link = self.links.pop(sid, None)
            if link is not None and link.link is not None:
                link.link.abort()

    def _empty_inbox(self) -> None:
        self._woken = False
        while self._inbox:
            submitted, task_id = self._inbox.popleft()
            try:
                if submitted is None:
                    has = self._tasks.get(task_id)
                    unsent = has is not None and has.unsent
                    self._act(self.machine.cancel(task_id, self._loop.time(), unsent=unsent))
                else:
                    self._take(submitted)
            except Exception as error:  # one task's trouble must not keep the others
                log.exception("could not take a task")
                if submitted is not None:
                    submitted.future._promise.failed(error)

    def _take(self, submitted: _Submission) -> None:
        task = submitted.task
        if task.id in self._tasks:
            raise UsageError(f"the task {task.label!r} was submitted before", hint="Make a task of its own each time.")
        refs = {ref: view.nbytes for ref, view in task.large.items()}
        kind = f"{task.kind} {hash(task.source or task.label)}"
        options = submitted.future._options
        spec = TaskSpec(
            task.id,
            python=task.needs_python or "",
            refs=refs,
            once=task.once,
            kind=kind,
            size=task.size,
            on=options.on,
            tags=options.tags,
            memory=options.memory,
            gpus=options.gpus,
            priority=options.priority,
            retries=options.attempts_after_errors(self._settings.retries),
            retry_on=options.retry_on,
            timeout=task.timeout,
            packages=task.packages,
            pin=task.pin,
        )
        self.records.submitted(task, submitted.sink, spec.needs.key())
        self._tasks[task.id] = submitted
        if submitted.future._promise.cancelled():
            self._act([Settle(task.id, why=ASKED)])
            return
        self._act(self.machine.submit(spec, self._loop.time()))
        self.records.look(task.id, self.machine)

    def _tick(self) -> None:
        now = self._loop.time()
        if now >= self._hello_at:
            self._hello_at = now + self._settings.presence
            self.membership.say_hello()
        self.records.tick(now, self._rtts() if self.records.feed.followers else {})
        self._act(self.machine.tick(now))

    def _rtts(self) -> dict[bytes, float]:
        """Round trips of the links, in seconds, where they are known."""
        links = [(sid, end.link) for sid, end in self.links.items()]
        return {sid: link.rtt for sid, link in links if link is not None and link.rtt is not None}

    def _act(self, actions: list[Action]) -> None:
        self.records.follow(actions, self.machine)
        self._perform(actions)
        if not self._closed:
            deadline = self.machine.deadline()
            self._alarm.set(self._hello_at if deadline is None else min(deadline, self._hello_at))

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Note(task=task_id, state=state, retry=retry):
                    submitted = self._tasks.get(task_id)
                    if submitted is not None and state is TaskState.RUNNING:
                        submitted.future._promise.started()
                    elif submitted is not None and state is TaskState.WAITING:
                        submitted.future._promise.handed_back()
                        self._restart(submitted, f"\n[{retry}]\n" if retry else _ANEW)
                        self._forget(task_id)
                case Send():
                    self._send(action)
                case Settle(task=task_id):
                    self._settle(action, self._tasks.pop(task_id, None))
                case SendBuffers(sid=sid, task=task_id, refs=refs):
                    if sid in self.links and task_id in self._tasks:
                        self._send_buffers(self.links[sid], self._tasks[task_id].task, refs)
                case Tell(sid=sid, frame=frame):
                    link = self.links.get(sid)
                    # A pass that waits for long says nothing any more: the worker keeps no slot for so long.
                    if link is not None and not (isinstance(frame, Pass) and link.pending > 2 * HIGH_WATER):
                        link.send(frame.header())
                case Meet(worker=worker):
                    self._jobs.start(self._meet(worker))
                case Say(message=message):
                    self.membership.say(message)
                case Changed():
                    pass  # for the records

    # -- links --

    async def _meet(self, worker: Certificate) -> None:
        handler, them = WorkerEnd(self, worker.sid), worker.sid
        try:
            link = await handler.meet(self._linker, self._meeting(worker))
        except P2PError as error:
            log.info("could not meet worker %s: %s", them.hex()[:8], error)
            self._not_met(them, error)
        except Exception as error:  # a bug must not leave the worker in "meeting" for ever
            self._complaints.about(worker.signer, "could not meet worker %s", them.hex()[:8], error=error)
            failure = LinkError(f"could not meet the worker ({type(error).__name__})")
            self._not_met(them, failure)
        else:
            if them not in self.machine.workers or not self.membership.admits(worker):  # since a moment ago
                link.abort()
                self._link_lost(them, "is no member of the cluster any more")
                return
            self.links[them] = handler
            self._link_up(them)
            if link.state is not LinkState.UP:  # it changed before anybody could be told
                self.link_changed(handler, link.state, "")

    def _meeting(self, worker: Certificate) -> Meeting:
        """Ask a worker to a meeting."""
        code = self._new_code()
        us, them = self._session.sid, worker.sid
        rendezvous = Rendezvous(code.reveal(), self.mailbox, self.relay, self._own)
        self.membership.say(Accept(to=them, box=seal(worker, encode_rendezvous(rendezvous))))
        return Meeting(
            code=code,
            mailbox=self.mailbox,
            relay=self.relay or None,
            deadline=self._settings.meet,
            prove=lambda verifier: link_proof(self._session, verifier, us, them),
            check=lambda verifier, proof: check_link_proof(worker, verifier, us, them, proof),
            peer="" if self.membership.is_own(worker.signer) else worker.signer,
        )

    def _not_met(self, sid: bytes, error: P2PError) -> None:
        self._act(self.machine.meet_failed(sid, error, self._loop.time()))

    def _link_up(self, sid: bytes) -> None:
        self._act(self.machine.link_up(sid, self._loop.time()))

    def _link_lost(self, sid: bytes, detail: str) -> None:
        self._act(self.machine.link_lost(sid, detail, self._loop.time()))

    # -- Receiver --

    def expects(self, sid: bytes, task_id: str, attempt: int) -> bool:
        """See ``Receiver``."""
        return self.machine.expects(sid, task_id, attempt)

    def promised(self) -> int:
        """See ``Receiver``."""
        return sum(end.promised() for end in self.links.values())

    def most_of(self, sid: bytes) -> int:
        """See ``Receiver``."""
        if self.membership.trusts(self.machine.workers[sid].certificate.signer):
            return sys.maxsize
        return min(BUDGET, int(psutil.virtual_memory().available) // 4)

    def said(self, end: WorkerEnd, frame: WorkerFrame) -> None:
        """See ``Receiver``."""
        self._act(self.machine.frame(end.sid, frame, self._loop.time()))

    def link_changed(self, end: WorkerEnd, state: LinkState, detail: str) -> None:
        """See ``Receiver``."""
        sid = end.sid
        if self.links.get(sid) is not end:
            return
        match state:
            case LinkState.UP:
                self._link_up(sid)
            case LinkState.RECONNECTING:
                self._act(self.machine.link_away(sid, detail, self._loop.time()))
            case LinkState.CLOSED | LinkState.LOST:
                self._link_lost(sid, detail or state.value)
                del self.links[sid]  # not before: what has come of its tasks' results is dropped there

    # -- tasks out --

    def _send(self, action: Send) -> None:
        submitted = self._tasks[action.task]
        if not submitted.future._promise.sent():
            submitted.unsent = True  # and its withdrawal is in the inbox
            return
        task = submitted.task
        link, worker = self.links[action.sid], self.machine.workers[action.sid]
        frame = TaskFrame(
            task.id,
            action.attempt,
            task.kind,
            task.packed.segments,
            task.label[:100],
            action.missing,
            task.source or "",
            "" if self.membership.trusts(worker.certificate.signer) else "safe",
            task.names,
            task.bind,
            task.around.segments if task.around is not None else (),
            task.data.segments if task.data is not None else (),
            task.timeout,
            task.packages,
            task.once,
        )
        link.send(frame.header(), task.inline)
        if action.missing:
            self._send_buffers(link, task, action.missing)

    def _send_buffers(self, link: WorkerEnd, task: Task, refs: tuple[str, ...]) -> None:
        large = task.large
        for ref in refs:
            link.feed.add(ref, large[ref])

    # -- results in --

    def result_came(self, end: WorkerEnd, result: Result, body: Buffer) -> None:
        """See ``Receiver``."""
        large = end.take(result)
        submitted = self._tasks.get(result.id)
        worker = self.machine.workers[end.sid]
        if submitted is not None:
            submitted.result = Arrived(result, body, large, worker.name, worker.certificate.signer)
        self._act(self.machine.frame(end.sid, result, self._loop.time()))

    def _settle(self, action: Settle, submitted: _Submission | None) -> None:
        if submitted is None:
            return
        self._store.unpin(submitted.task.large)
        self._forget(submitted.task.id)
        submitted.future._relayed.over()
        if action.error is not None:
            submitted.future._promise.failed(action.error)
        elif action.result is not None and submitted.result is not None:
            submitted.future._promise.arrived(submitted.result)
        else:
            submitted.future._promise.withdrawn(action.why or LEFT)

    def _forget(self, task_id: str) -> None:
        """Drop the partial result of a task that will never complete."""
        for link in self.links.values():
            link.forget(task_id)

    def output_came(self, end: WorkerEnd, output: Output, body: Buffer) -> None:
        """See ``Receiver``: check the output, keep it, show it."""
        submitted = self._tasks[output.id]
        message = submitted.output.take(output, body)
        worker = self.machine.workers[end.sid]
        if message is not None and not self.membership.trusts(worker.certificate.signer):
            message = harmless(message, self.membership.machine.name_of(worker.certificate.signer) or worker.name)
        if message is None:
            return
        if message["kind"] == "display_data" and is_value(message):
            submitted.future._shown_value = message
            return
        if message["kind"] == "log":
            name = self.membership.machine.name_of(worker.certificate.signer) or worker.name
            submitted.future._relayed.take(message["content"], name)
            return
        if message["kind"] == "warning":
            found = warned.read(message["content"])
            if found is None:
                return
            submitted.future._promise.warned(found[0])
            message = {"kind": "stream", "name": "stderr", "text": found[1]}
        if message["kind"] == "stream":
            unfinished = submitted.output.line
            submitted.output.line = self.records.printed(output.id, message["text"], unfinished)
        self._show(submitted, message)

    def progress_came(self, progress: Progress) -> None:
        """See ``Receiver``."""
        self._tasks[progress.id].future._promise.is_at(told := reported(progress))
        self.records.progress(progress.id, told)

    def _restart(self, submitted: _Submission, line: str) -> None:
        """Drop what has come of an attempt that came to nothing; what it has printed stands, and a line says so."""
        submitted.output.restart()
        submitted.result = None
        submitted.future._promise.is_at(None)
        self.records.progress(submitted.task.id, None)
        outputs = submitted.future.outputs
        if line != _ANEW or (outputs and outputs[-1].get("text") != _ANEW):
            self._show(submitted, {"kind": "stream", "name": "stderr", "text": line})

    def _show(self, submitted: _Submission, message: OutputMessage) -> None:
        submitted.future.outputs.append(message)
        if submitted.sink is not None:
            try:
                submitted.sink(message)
            except Exception as error:  # what shows the output must not decide over the task
                self._complaints.about("output", "could not show a task's output", error=error)
