"""The bridge: performs the client machine's actions on a board and on links.

It lives on the process's background loop (p2p_ipython/loop.py). Other threads reach it in two ways only: ``submit``
and ``withdraw`` put something into an inbox that the loop empties, and the machine answers questions (``why``).

The route of a task: ``submit`` → ``ClientMachine`` → ``Send`` → the link; of a result: the link →
``_WorkerLink`` (bytes land in buffers) → ``ClientMachine`` (does it count?) → ``Settle`` → the future.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

import psutil

from p2p_ipython.board.base import BoardReport
from p2p_ipython.client.display import harmless
from p2p_ipython.client.future import Arrived, Future, OutputMessage, OutputSink
from p2p_ipython.client.records import Records
from p2p_ipython.config import Settings
from p2p_ipython.errors import LinkError, NotAdmitted, P2PError, UsageError
from p2p_ipython.jobs import Alarm, Jobs
from p2p_ipython.link.base import Linker, LinkState, Meeting, Secret
from p2p_ipython.link.end import LinkEnd
from p2p_ipython.members.membership import Membership
from p2p_ipython.memory import fresh
from p2p_ipython.protocol.client_machine import (
    Action,
    ClientMachine,
    Meet,
    Note,
    Pass,
    Recall,
    Say,
    Send,
    SendBuffers,
    Settle,
    TaskSpec,
    TaskState,
)
from p2p_ipython.protocol.frames import MAX_BODY, Buffer, Header
from p2p_ipython.protocol.identity import Certificate, check_link_proof, link_proof, seal
from p2p_ipython.protocol.messages import Accept, Bye, Hello, Message, Rendezvous, encode_rendezvous
from p2p_ipython.task.task import Task

log = logging.getLogger(__name__)


MESSAGE = 256
"""Bytes that a message of output counts for besides its text: about what an empty one occupies here."""


class BufferSource(Protocol):
    """Where the bytes of large buffers are: the cluster's store."""

    def get(self, ref: str) -> memoryview: ...
    def unpin(self, refs: Any) -> None: ...


class _Submitted:
    """A task, its future, and where its output goes."""

    __slots__ = ("future", "line", "output", "partial", "result", "sink", "task")

    def __init__(self, task: Task, future: Future[Any], sink: OutputSink | None) -> None:
        self.task = task
        self.future = future
        self.sink = sink
        self.output = 0
        self.partial = bytearray()
        self.line = ""  # of its output, the last one if it is unfinished
        self.result: Arrived | None = None


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
        self.machine = ClientMachine(settings, now=self._loop.time(), me=membership.standing.me, own=membership.is_own)
        self.mailbox = ""
        self.relay = ""
        self._tasks: dict[str, _Submitted] = {}
        self.links: dict[bytes, _WorkerLink] = {}
        self._jobs = Jobs(log)
        self._inbox: deque[tuple[_Submitted | None, str]] = deque()
        self._woken = False
        self._alarm = Alarm(self._tick)
        self._hello_at = 0.0
        self._closed = False

    # -- from any thread --

    def submit(self, task: Task, future: Future[Any], sink: OutputSink | None) -> None:
        """Take a task; returns at once."""
        self._inbox.append((_Submitted(task, future, sink), ""))
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
        """Why tasks wait, in words, by what they need of Python ("" for any)."""
        return {python: self._troubled(self.machine.reason(python)) for python in self.machine.wanted()}

    def _troubled(self, words: str) -> str:
        trouble = self.membership.trouble or self.membership.silence
        return f"{words} ({trouble})" if trouble else words

    # -- on the loop: the beginning and the end --

    def open(self, mailbox: str, relay: str) -> None:
        """Say hello on the board, which is joined already; workers answer, and are met.

        ``mailbox`` and ``relay`` ("" for none) are where links are arranged.
        """
        self.mailbox, self.relay = mailbox, relay
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
        self._perform(self.machine.close(self._loop.time()))
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
        """A member has said something."""
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
        """We are no member any more: no task can run, so none may wait."""
        submitted, self._tasks = self._tasks, {}
        for one in submitted.values():
            # Nothing that follows from it needs to be done: all links end now.
            self.machine.cancel(one.task.id, self._loop.time())
            self._give_up(one, why)
        self._stands()
        self._workers_gone({*self.machine.workers, *self.links}, why)

    def _give_up(self, submitted: _Submitted, why: str) -> None:
        self._store.unpin(submitted.task.packed.large)
        words = f"{submitted.task.label} can't run: {why}"
        self.records.ended(submitted.task.id, TaskState.FAILED, error=words)
        submitted.future.failed(NotAdmitted(words, hint="Ask the owner to let you in again; then connect anew."))

    def worker_gone(self, sid: bytes, detail: str) -> None:
        """Somebody knows for certain that the worker's process has ended: don't wait for the lease."""
        self.records.gone(sid)
        self._workers_gone([sid], detail)

    def _workers_gone(self, sids: Collection[bytes], detail: str) -> None:
        for sid in sids:
            link = self.links.pop(sid, None)
            if link is not None and link.link is not None:
                link.link.abort()
            self.records.worker(sid)
        self._act(self.machine.links_lost(sids, detail, self._loop.time()))

    def _empty_inbox(self) -> None:
        self._woken = False
        while self._inbox:
            submitted, task_id = self._inbox.popleft()
            try:
                if submitted is None:
                    self._act(self.machine.cancel(task_id, self._loop.time()))
                else:
                    self._take(submitted)
            except Exception as error:  # one task's trouble must not keep the others
                log.exception("could not take a task")
                if submitted is not None:
                    submitted.future.failed(error)

    def _take(self, submitted: _Submitted) -> None:
        task = submitted.task
        if task.id in self._tasks:
            raise UsageError(f"the task {task.label!r} was submitted before", hint="Make a task of its own each time.")
        self.records.submitted(task, submitted.sink)
        if self._closed:
            submitted.future.withdrawn()
        if self._closed or submitted.future.cancelled():
            self.records.ended(task.id, TaskState.CANCELLED)
            self._store.unpin(task.packed.large)
            return
        if self.membership.machine.expelled:
            self._give_up(submitted, self.membership.machine.expelled)
            return
        refs = {ref: view.nbytes for ref, view in task.packed.large.items()}
        kind = f"{task.kind} {hash(task.source or task.label)}"
        spec = TaskSpec(task.id, python=task.needs_python or "", refs=refs, once=task.once, kind=kind)
        self._tasks[task.id] = submitted
        self._act(self.machine.submit(spec, self._loop.time()))

    def _tick(self) -> None:
        now = self._loop.time()
        if now >= self._hello_at:
            self._hello_at = now + self._settings.presence
            self.membership.say_hello()
        before = list(self.machine.workers) if self.records.feed.followers else ()
        actions = self.machine.tick(now)
        self.records.tick(now, before, self.machine, self._rtts() if before else {})
        self._act(actions)

    def _rtts(self) -> dict[bytes, float]:
        """Round trips of the links, in seconds, where they are known."""
        links = [(sid, end.link) for sid, end in self.links.items()]
        return {sid: link.rtt for sid, link in links if link is not None and link.rtt is not None}

    def _act(self, actions: list[Action]) -> None:
        if self._closed:
            return
        self._perform(actions)
        deadline = self.machine.deadline()
        self._alarm.set(self._hello_at if deadline is None else min(deadline, self._hello_at))

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Note(task=task_id, state=state, detail=detail):
                    submitted = self._tasks.get(task_id)
                    if submitted is not None:
                        submitted.future.started(state is TaskState.RUNNING)
                        if state is TaskState.RUNNING:
                            self.records.running(task_id)
                        elif state is TaskState.WAITING:
                            self.records.waiting(task_id, detail)
                            submitted.partial, submitted.line = bytearray(), ""
                            self._forget(task_id)
                case Send():
                    self._send(action)
                case Settle(task=task_id):
                    self._settle(action, self._tasks.pop(task_id, None))
                case SendBuffers(sid=sid, task=task_id, refs=refs):
                    if sid in self.links and task_id in self._tasks:
                        self._send_buffers(self.links[sid], self._tasks[task_id].task, refs)
                case Recall(sid=sid, task=task_id, attempt=attempt):
                    if sid in self.links:
                        self.links[sid].send({"t": "recall", "id": task_id, "attempt": attempt})
                case Pass(sid=sid):
                    if sid in self.links:
                        self.links[sid].send({"t": "pass"})
                case Meet(worker=worker):
                    self.records.worker(worker.sid)
                    self._jobs.start(self._meet(worker))
                case Say(message=message):
                    self.membership.say(message)

    # -- links --

    async def _meet(self, worker: Certificate) -> None:
        code = self._new_code()
        us, them = self._session.sid, worker.sid
        rendezvous = Rendezvous(code.reveal(), self.mailbox, self.relay)
        self.membership.say(Accept(to=them, box=seal(worker, encode_rendezvous(rendezvous))))
        meeting = Meeting(
            code=code,
            mailbox=self.mailbox,
            relay=self.relay or None,
            deadline=self._settings.meet,
            prove=lambda verifier: link_proof(self._session, verifier, us, them),
            check=lambda verifier, proof: check_link_proof(worker, verifier, us, them, proof),
        )
        handler = _WorkerLink(self, them)
        try:
            handler.link = await self._linker.open(meeting, handler)
        except P2PError as error:
            log.info("could not meet worker %s: %s", them.hex()[:8], error)
            self._not_met(them, error)
        except Exception as error:  # a bug must not leave the worker in "meeting" for ever
            log.exception("could not meet worker %s", them.hex()[:8])
            failure = LinkError(f"could not meet the worker ({type(error).__name__})")
            self._not_met(them, failure)
        else:
            if them not in self.machine.workers or not self.membership.admits(worker):  # since a moment ago
                handler.link.abort()
                self._link_lost(them, "is no member of the cluster any more")
                return
            self.links[them] = handler
            self._link_up(them)
            if handler.link.state is not LinkState.UP:  # it changed before anybody could be told
                self.link_changed(handler, handler.link.state, "")

    def _not_met(self, sid: bytes, error: P2PError) -> None:
        actions = self.machine.meet_failed(sid, error, self._loop.time())
        self.records.worker(sid)
        self._act(actions)

    def _link_up(self, sid: bytes) -> None:
        actions = self.machine.link_up(sid, self._loop.time())
        self.records.link(sid, self.machine)
        self._act(actions)

    def _link_lost(self, sid: bytes, detail: str) -> None:
        actions = self.machine.link_lost(sid, detail, self._loop.time())
        self.records.worker(sid)
        self._act(actions)

    def link_changed(self, handler: _WorkerLink, state: LinkState, detail: str) -> None:
        """A link says that its state has changed."""
        sid = handler.sid
        if self.links.get(sid) is not handler:
            return
        match state:
            case LinkState.UP:
                self._link_up(sid)
            case LinkState.RECONNECTING:
                actions = self.machine.link_away(sid, detail, self._loop.time())
                self.records.link(sid, self.machine)
                self._act(actions)
            case LinkState.CLOSED | LinkState.LOST:
                del self.links[sid]
                self._link_lost(sid, detail or state.value)

    # -- tasks out --

    def _send(self, action: Send) -> None:
        task = self._tasks[action.task].task
        link, worker = self.links[action.sid], self.machine.workers[action.sid]
        self.records.sent(task.id, worker, action.attempt)
        header: Header = {
            "t": "task",
            "id": task.id,
            "attempt": action.attempt,
            "kind": task.kind,
            "segments": task.packed.segments,
            "label": task.label[:100],
            "coming": action.missing,
        }
        if task.source is not None:
            header["source"] = task.source
        if not self.membership.trusts(worker.certificate.signer):
            header["reply"] = "safe"
        link.send(header, task.packed.inline)
        if action.missing:
            self._send_buffers(link, task, action.missing)

    def _send_buffers(self, link: _WorkerLink, task: Task, refs: tuple[str, ...]) -> None:
        for ref in refs:
            view = task.packed.large[ref]
            for start in range(0, view.nbytes, MAX_BODY):
                header: Header = {"t": "chunk", "ref": ref, "size": view.nbytes, "off": start}
                link.send(header, view[start : start + MAX_BODY], bulk=True)

    # -- results in --

    def result_came(self, handler: _WorkerLink, header: Header, body: Buffer) -> None:
        """A result, whole; the machine decides whether it counts."""
        task_id = header.get("id")
        if not self.machine.expects(handler.sid, task_id, header.get("attempt")):
            return
        submitted = self._tasks.get(str(task_id))
        worker = self.machine.workers[handler.sid]
        large = handler.take_buffers(str(task_id), header["attempt"])
        size = handler.no_room.pop((str(task_id), header["attempt"]), None)
        if size is not None:
            header = {**header, "ok": False, "segments": [], "error": _no_room(size)}
        if submitted is not None:
            submitted.result = Arrived(header, body, large, worker.name, worker.certificate.signer)
        self._act(self.machine.frame(handler.sid, header, self._loop.time()))

    def _settle(self, action: Settle, submitted: _Submitted | None) -> None:
        if submitted is None:
            return
        self._store.unpin(submitted.task.packed.large)
        self._forget(submitted.task.id)
        came = submitted.result if action.error is None else None
        self.records.settled(action, came.header if came is not None else None, came.size if came is not None else 0)
        if action.error is not None:
            submitted.future.failed(action.error)
        elif submitted.result is not None:
            submitted.future.arrived(submitted.result)
        else:
            submitted.future.withdrawn()

    def _forget(self, task_id: str) -> None:
        """Let go of what has come of a result that won't be whole."""
        for link in self.links.values():
            link.forget(task_id)

    def output_came(self, handler: _WorkerLink, header: Header, body: Buffer) -> None:
        """Output of a task: check it, keep it, show it."""
        if not self.machine.expects(handler.sid, header.get("id"), header.get("attempt")):
            return
        submitted = self._tasks[header["id"]]
        submitted.output += len(body) + MESSAGE
        if submitted.output > 2 * self._settings.output_limit + MAX_BODY:
            return  # the runner stops at the limit and says so; only a worker that misbehaves comes here
        if header.get("more") is True:
            submitted.partial += body
            return
        whole = bytes(submitted.partial) + bytes(body)
        submitted.partial = bytearray()
        message = _output(header, whole)
        worker = self.machine.workers[handler.sid]
        if message is not None and not self.membership.trusts(worker.certificate.signer):
            message = harmless(message, self.membership.machine.name_of(worker.certificate.signer) or worker.name)
        if message is None:
            return
        if message["kind"] == "stream":
            submitted.line = self.records.printed(submitted.task.id, message["text"], submitted.line)
        submitted.future.outputs.append(message)
        if submitted.sink is not None:
            try:
                submitted.sink(message)
            except Exception:  # what shows the output must not decide over the task
                log.exception("could not show a task's output")


class _WorkerLink(LinkEnd):
    """The client's end of a link to one worker: the bytes of results land here."""

    def __init__(self, bridge: Bridge, sid: bytes) -> None:
        super().__init__()
        self.sid = sid
        self._bridge = bridge
        self._incoming: dict[tuple[str, int], dict[str, _Incoming]] = {}  # by task and attempt, by ref
        self.no_room: dict[tuple[str, int], int] = {}  # size of what was too large, by task and attempt

    def take_buffers(self, task_id: str, attempt: int) -> dict[str, Buffer]:
        """The large segments that have come for an attempt of a task."""
        found = self._incoming.pop((task_id, attempt), {})
        return {ref: part.data for ref, part in found.items() if part.filled == len(part.data)}

    def promised(self) -> int:
        """Bytes that were made room for and have not come yet."""
        return sum(len(one.data) - one.filled for parts in self._incoming.values() for one in parts.values())

    def forget(self, task_id: str) -> None:
        """Drop the segments that have come for a task."""
        if self._incoming or self.no_room:
            self._incoming = {key: parts for key, parts in self._incoming.items() if key[0] != task_id}
        self.no_room = {key: size for key, size in self.no_room.items() if key[0] != task_id}

    # -- LinkHandler --

    def buffer_for(self, header: Header, size: int) -> memoryview | None:
        if header.get("t") != "chunk":
            return None
        incoming = self._part(header)
        if incoming is None:
            return None
        return incoming.data[incoming.filled : incoming.filled + size]

    def on_frame(self, header: Header, body: Buffer) -> None:
        bridge = self._bridge
        match header["t"]:
            case "result":
                bridge.result_came(self, header, body)
            case "output":
                bridge.output_came(self, header, body)
            case "chunk":
                incoming = self._part(header)
                if incoming is not None:
                    incoming.land(body)
            case _:
                bridge._act(bridge.machine.frame(self.sid, header, bridge._loop.time()))

    def on_link(self, state: LinkState, detail: str) -> None:
        self._bridge.link_changed(self, state, detail)

    def on_drain(self) -> None:
        pass  # what is sent lies in the store anyway: nothing grows while it waits

    def _part(self, header: Header) -> _Incoming | None:
        """The buffer that a chunk belongs to; None for a chunk that nobody asked for or that doesn't fit."""
        task_id, ref, size, offset = (header.get(name) for name in ("id", "ref", "size", "off"))
        if not (isinstance(task_id, str) and isinstance(ref, str) and isinstance(size, int) and len(ref) <= 128):
            return None
        attempt = header.get("attempt")
        if not (isinstance(attempt, int) and self._bridge.machine.expects(self.sid, task_id, attempt)):
            return None
        if (task_id, attempt) not in self._incoming:
            # Whatever came of attempts that were withdrawn meanwhile is let go here.
            self._incoming = {k: v for k, v in self._incoming.items() if self._bridge.machine.expects(self.sid, *k)}
        parts = self._incoming.setdefault((task_id, attempt), {})
        incoming = parts.get(ref)
        if incoming is None:
            if offset != 0 or size <= 0 or len(parts) >= 1024:
                return None
            try:
                incoming = parts[ref] = _Incoming(size, sum(link.promised() for link in self._bridge.links.values()))
            except (MemoryError, OSError, OverflowError):
                self.no_room[task_id, attempt] = size
                return None
        if offset != incoming.filled or size != len(incoming.data):
            return None
        return incoming


def _no_room(size: int) -> dict[str, Any]:
    """The error of a task whose result doesn't fit into this machine, in the words of a worker's."""
    message = f"the result has a part of {size:,} bytes, and this machine has no room for it; return less at a time"
    return {"kind": "exception", "class": "builtins.MemoryError", "message": message, "traceback": "", "bases": []}


class _Incoming:
    """A large segment of a result while it arrives."""

    __slots__ = ("data", "filled")

    def __init__(self, size: int, promised: int) -> None:
        """Make room, besides what is ``promised`` and not filled yet, in bytes. Raises ``MemoryError`` without any.

        Asking the system would succeed, for any number of buffers, and filling them would not.
        """
        if size + promised > psutil.virtual_memory().available:
            raise MemoryError
        self.data = fresh(size)
        self.filled = 0

    def land(self, body: Buffer) -> None:
        if not (isinstance(body, memoryview) and body.obj is self.data.obj):
            self.data[self.filled : self.filled + len(body)] = body
        self.filled += len(body)


def _output(header: Mapping[str, Any], body: bytes) -> OutputMessage | None:
    """A message for a sink, from a frame that a worker sent; None if it is not one."""
    kind = header.get("kind")
    if kind == "stream":
        name = "stderr" if header.get("name") == "stderr" else "stdout"
        return {"kind": "stream", "name": name, "text": body.decode("utf-8", "replace")}
    if kind in ("display_data", "update_display_data", "clear_output"):
        try:
            content = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            return None
        return {"kind": kind, "content": content} if isinstance(content, dict) else None
    return None
