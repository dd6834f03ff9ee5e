"""The records of a bridge: tasks in the journal, sessions in the presence, changes for followers.

The records follow the actions of the client's machine, on the loop's thread. They decide nothing, cost a few
microseconds, and bring what strangers have said into the form in which people read it: one line of plain text, of
bounded length.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from p2p_ipython.client.follow import Feed
from p2p_ipython.client.journal import Journal, last_line
from p2p_ipython.client.progress import Progress
from p2p_ipython.client.status import WHOLE
from p2p_ipython.client.words import ERROR, LINE, as_line, error_line, failed_word
from p2p_ipython.config import Settings
from p2p_ipython.loop import background
from p2p_ipython.protocol.client_machine import Action, Changed, ClientMachine, Meet, Note, Send, Settle, TaskState
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Message
from p2p_ipython.protocol.presence import Presence
from p2p_ipython.task.task import Task


class Records:
    """The journal, the presence and the feed of one session on a cluster; ``settings`` bound them."""

    def __init__(self, settings: Settings) -> None:
        self.feed = Feed()
        self.journal = Journal(attempts=settings.attempts, touched=self.feed.task)
        self.presence = Presence(settings.presence)
        self.since = time.time()
        """Since when the connection is as it is, Unix time."""
        self._state: object = None
        self._whole: set[str] = set()  # tasks that all workers here had refused
        self._rtts: dict[bytes, float] = {}

    # -- tasks --

    def submitted(self, task: Task, sink: object, needs: str = "") -> None:
        """Note a new task; ``needs``: ``Needs.key`` of what it needs of its worker."""
        source = task.source or ""
        self.journal.submitted(
            task.id,
            as_line(task.label, LINE),
            task.kind,
            time.time(),
            cell=getattr(sink, "cell", ""),
            needs=needs,
            size_in=task.size,
            source=source,
        )
        self.feed.facts()  # a reason to wait may be the first of its kind

    def follow(self, actions: Iterable[Action], machine: ClientMachine) -> None:
        """Note down what the machine has decided, before it is performed."""
        changed = False
        for action in actions:
            match action:
                case Send(sid=sid, task=task_id, attempt=attempt):
                    self.journal.sent(task_id, machine.workers[sid], attempt, time.time())
                    self.feed.session(sid)
                case Note(task=task_id, state=TaskState.RUNNING):
                    self.journal.running(task_id, time.time())
                case Note(task=task_id, state=TaskState.STOPPING):
                    self.journal.stopping(task_id, machine.why(task_id))
                case Note(task=task_id, state=TaskState.WAITING):
                    self._waiting(task_id, machine.peculiar(task_id))
                case Settle():
                    self._settled(action)
                case Meet(worker=certificate):
                    self._worker(certificate.sid)
                case Changed(sid=sid):
                    changed = True
                    worker = machine.workers.get(sid)
                    for task_id in worker.tasks if worker is not None else ():
                        self.journal.placed(task_id, machine.why(task_id))
                    self._worker(sid)
        for task_id in tuple(self._whole) if changed else ():  # a worker that has refused it is gone, or another offer
            entry = self.journal.entries.get(task_id)
            if entry is None or entry.state is not TaskState.WAITING:
                self._whole.discard(task_id)
            else:
                self.journal.placed(task_id, machine.peculiar(task_id))

    def look(self, task_id: str, machine: ClientMachine) -> None:
        """Note what is peculiar to a task that waits from the beginning."""
        if words := machine.peculiar(task_id):
            self.journal.placed(task_id, words)
            self._whole.add(task_id)

    def _waiting(self, task_id: str, words: str) -> None:
        """Note that a task waits again; ``words`` are what is peculiar to it, "" for nothing."""
        sid = self.journal.entries[task_id].sid
        self.journal.waiting(task_id, words, time.time())
        if words.startswith(WHOLE):
            self._whole.add(task_id)
        if sid is not None:
            self._worker(sid)

    def _settled(self, settle: Settle) -> None:
        """Note that a task is over: by an error of ours, by its result, or cancelled."""
        task_id, result, now = settle.task, settle.result, time.time()
        sid = self.journal.entries[task_id].sid
        if settle.error is not None:
            error, word = as_line(settle.error.message, ERROR), failed_word(settle.error)
            self.journal.ended(task_id, TaskState.FAILED, now, error=error, word=word)
        elif result is None:
            self.journal.ended(task_id, TaskState.CANCELLED, now)
        else:
            state = TaskState.DONE if result.failure is None else TaskState.FAILED
            error = error_line(result.failure) if result.failure is not None else ""
            size, seconds = result.size, result.seconds
            self.journal.ended(task_id, state, now, came=True, seconds=seconds, size_out=size, error=error)
        if sid is not None:
            self.feed.session(sid)
        self.feed.facts()

    def printed(self, task_id: str, text: str, unfinished: str) -> str:
        """Note that a task has printed ``text`` after the ``unfinished`` line; return what is unfinished now."""
        line, unfinished = last_line(text, unfinished)
        said = as_line(line, LINE).strip()
        if said:
            self.journal.said(task_id, said)
        return unfinished

    def progress(self, task_id: str, progress: Progress | None) -> None:
        """Note how far a task is, as it says."""
        self.journal.at(task_id, progress)

    # -- sessions --

    def heard(self, certificate: Certificate, message: Message, name: str, now: float) -> None:
        """Note that a member has said something; ``name`` is what to call their session."""
        changed = self.presence.heard(certificate, message, name, now, time.time())
        # The machine may know a worker that the presence doesn't: one whose clock is wrong.
        if changed or certificate.sid not in self.presence.sessions:
            self._worker(certificate.sid)
        self._gone(now)

    def gone(self, sid: bytes) -> None:
        """Note that a session's process has certainly ended: nobody waits until it has been silent for long."""
        if self.presence.gone(sid):
            self._worker(sid)

    def _worker(self, sid: bytes) -> None:
        """Note that a worker's state or offer has changed, and with it why tasks wait."""
        self.feed.session(sid)
        self.feed.facts()

    def tick(self, now: float, rtts: Mapping[bytes, float]) -> None:
        """Note down that time has passed: a silent member is gone. ``rtts`` are round trips by worker, in seconds."""
        self._gone(now)
        for sid, rtt in rtts.items():
            told = self._rtts.get(sid, 0.0)
            if abs(rtt - told) > 0.2 * told:
                self._rtts[sid] = rtt
                self.feed.session(sid)
        if len(self._rtts) > 2 * len(rtts):
            self._rtts = {sid: rtt for sid, rtt in self._rtts.items() if sid in rtts}

    def _gone(self, now: float) -> None:
        for sid in self.presence.tick(now):
            self._worker(sid)

    # -- the cluster --

    def group(self, id: str) -> None:
        """Note that a group of tasks has changed, or is no longer shown; from any thread."""
        loop = background()
        if loop.is_current():
            self.feed.group(id)
        elif self.feed.followers:
            loop.loop.call_soon_threadsafe(self.feed.group, id)

    def stands(self, state: object) -> None:
        """Note that the connection's state has changed, or what there is to say of it."""
        if state != self._state:
            self._state, self.since = state, time.time()
        self.feed.facts()
