"""The parts of a cluster, for the rest of the package: the one access behind the public ``Cluster``.

``cluster._core`` has it. It knows the cluster's tasks, the record of them, who else is there, and what all that
looks like to people. The bridge does the work; opening.py makes it.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.future import Frozen, Future, OutputSink
from p2p_ipython.client.groups import Groups
from p2p_ipython.client.records import Records
from p2p_ipython.client.status import ClusterFacts, ClusterStatus, MemberStatus, TaskStatus, sandbox_words, standing
from p2p_ipython.client.submitted import Submitted
from p2p_ipython.client.surroundings import Surroundings, read_files
from p2p_ipython.client.task_options import USUAL, TaskOptions
from p2p_ipython.config import Settings
from p2p_ipython.errors import ClusterClosed, ConfigError, as_of_pools
from p2p_ipython.members.way import Way
from p2p_ipython.protocol.client_machine import TaskState
from p2p_ipython.protocol.messages import cards_words
from p2p_ipython.protocol.needs import ANY, Needs
from p2p_ipython.protocol.placement import fits, stays
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.roster import is_title
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.outcome import decode

if TYPE_CHECKING:
    from p2p_ipython.board.base import Board
    from p2p_ipython.client.bridge import Bridge
    from p2p_ipython.client.follow import Follower
    from p2p_ipython.client.journal import Journal
    from p2p_ipython.client.local import LocalCluster
    from p2p_ipython.client.mapping import Calls
    from p2p_ipython.protocol.presence import Presence
    from p2p_ipython.task.around import Part
    from p2p_ipython.task.seeds import Seed
    from p2p_ipython.task.task import Task

log = logging.getLogger(__name__)

as_of_pools()


class ClusterCore:
    """See the module."""

    def __init__(
        self,
        target: str | None,
        *,
        cluster: str,
        workers: int,
        name: str,
        way: Way,
        progress: Callable[[str], None],
        settings: Settings,
        sandboxed: bool = False,
        sandbox: str = "",
    ) -> None:
        """Make it for ``connect()``, whose arguments these are; ``progress`` must not block."""
        self.target = target
        self.cluster = cluster
        self.name = name
        self.settings = settings
        self.sandboxed = sandboxed
        self.sandbox = sandbox
        self.shared = target is not None and is_title(target)
        self.way = way
        self.workers = workers
        self.progress = progress
        self.pid = os.getpid()
        self.store = BufferStore(settings.client_cache)
        self.surroundings = Surroundings(os.getcwd() if target is None else "", shared=self.shared)
        self.bridge: Bridge | None = None
        self.local: LocalCluster | None = None
        self.records = Records(settings)
        self.groups = Groups(self.records.group, lambda: self.slots if self.bridge is not None else 1)
        self.board_address = ""
        self.joined = False
        """Whether it has been joined, ever."""
        self.closed = False
        self.shut = False
        """Whether it takes no more tasks."""
        self.maps: weakref.WeakSet[Calls] = weakref.WeakSet()
        self.submitted = Submitted(
            self.store,
            settings,
            decode=self._decode,
            bridge=lambda: self.bridge,
            check_open=self.check_open,
            around=lambda task: self.surroundings.around(task, self.store),
            trusts=self.trusts,
            apart=self.shared,
        )

    # -- tasks --

    def submit_call(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        label: str = "",
        seed: Seed | None = None,
        options: TaskOptions = USUAL,
        files: Mapping[str, bytes] | None = None,
    ) -> Future[Any]:
        """Freeze a call and submit it; futures among its arguments are waited for, and their values sent.

        ``seed`` and ``files``, which have been read, are used in place of those of ``options``.
        """
        self.check_open()
        options = options.with_loggers()
        noted = partial(self.surroundings.noted, seed=seed, files=files, loggers=options.log or ())
        return self.submitted.call(fn, args, kwargs, label=label, options=options, noted=noted)

    def submit_task(
        self,
        task: Task,
        sink: OutputSink | None = None,
        *,
        files: Mapping[str, bytes] | None = None,
        modules: bool = True,
        seed: Part | None = None,
        env: Iterable[str] = (),
        options: TaskOptions = USUAL,
    ) -> Future[Any]:
        """Submit a task that is made already, or raise; its pins in ``store`` are the cluster's from now on.

        ``sink`` shows its output. Without one it is shown as if it had been printed here; in a notebook, under the cell
        that submits. ``files`` go with it, and unless ``modules`` is false the notebook's own modules that it needs.
        ``seed`` and ``env`` are as in ``Surroundings.parts``; ``seed`` and ``files`` count in place of those of
        ``options``.
        """
        try:
            if options.timeout:
                task = replace(task, timeout=options.timeout)
            options = options.with_loggers()
            task = self.surroundings.noted(task, seed=seed, env=env, files=files, loggers=options.log or ())
            task = self.surroundings.around(task, self.store, modules=modules)
            return self.submitted.take(Frozen(task), sink, options)
        except BaseException:
            self.store.unpin(task.large)
            raise

    def trusts(self, signer: str) -> bool:
        """Whether the member with this key may run code here."""
        return self.bridge is not None and self.bridge.membership.trusts(signer)

    def not_begun(self) -> list[Future[Any]]:
        """Return the futures of tasks that no worker has, but for as many as there are free slots."""
        assert self.bridge is not None
        machine, held = self.bridge.machine, self.submitted.waiting
        begun = 0
        ready: list[Future[Any]] = []
        rest: list[Future[Any]] = []
        for future in self.open_futures():
            if machine.state(future.task_id) in (TaskState.SENT, TaskState.RUNNING, TaskState.STOPPING):
                begun += 1
            else:
                (rest if future.task_id in held else ready).append(future)
        return ready[max(0, self.slots - begun) :] + rest

    @property
    def slots(self) -> int:
        """How many tasks the workers that are there run at a time."""
        if self.local is not None:
            return self.workers
        assert self.bridge is not None
        return sum(worker.terms.slots for worker in list(self.bridge.machine.workers.values()))

    def slots_for(self, needs: Needs) -> int:
        """How many tasks with these needs the workers that are there run at a time."""
        if needs == ANY or self.bridge is None:
            return self.slots
        return sum(w.terms.slots for w in list(self.bridge.machine.workers.values()) if fits(w, needs))

    def places(self) -> tuple[str, ...]:
        """Return the names that a task's ``on`` may have: of members, and of workers that are here."""
        bridge = self.bridge
        workers = [worker.name for worker in list(bridge.machine.workers.values())] if bridge is not None else []
        started = self.local.names if self.local is not None else ()
        roster = bridge.membership.machine.roster if bridge is not None else None
        members = [member.name for member in roster.members] if roster is not None else []
        return tuple(dict.fromkeys([*members, *started, *workers]))

    def tags(self) -> tuple[str, ...]:
        """Return the tags of the workers that are here."""
        workers = list(self.bridge.machine.workers.values()) if self.bridge is not None else []
        return tuple(sorted({tag for worker in workers for tag in worker.terms.tags}))

    def check_places(self, on: Sequence[str]) -> None:
        """Raise ``ConfigError`` for a name that is no member's and no worker's, where all of these are known."""
        roster = self.bridge.membership.machine.roster if self.bridge is not None else None
        if not on or (self.local is None and roster is None):
            return
        known = self.places()
        for name in on:
            if name not in known:
                like = difflib.get_close_matches(name, known, 1)
                meant = f" Did you mean {like[0]}?" if like else ""
                raise ConfigError(
                    f"nobody and no worker in this cluster is called {plain(name, 80)!r}",
                    hint=f"There are {', '.join(known[:50])}{' and others' if len(known) > 50 else ''}.{meant}",
                )

    def files_of(self, options: TaskOptions) -> Mapping[str, bytes] | None:
        """Read the files that go with a task. Raises ``CaptureError``."""
        return read_files(list(options.files), os.getcwd()) if options.files else None

    async def wait_for_workers(self, count: int, timeout: float | None) -> None:
        """For ``Cluster.wait_for_workers``; on the loop."""
        assert self.bridge is not None
        machine, changed = self.bridge.machine, asyncio.Event()
        here = 0
        follower = self.records.feed.follow(changed.set)
        try:
            async with asyncio.timeout(timeout):
                while (here := sum(map(stays, machine.workers.values()))) < count and not self.closed:
                    await changed.wait()
                    changed.clear()
                    follower.take()
        except TimeoutError:
            raise TimeoutError(f"{here} of {count} workers are here after {timeout:g} s") from None
        finally:
            follower.close()
        self.check_open()

    def open_futures(self) -> list[Future[Any]]:
        """Return the futures of tasks that aren't over."""
        return [future for future in self.submitted.futures() if not future.done()]

    # -- what has become of them --

    @property
    def record(self) -> Journal:
        """The record of the tasks' lives; it belongs to the loop's thread, but for ``rows``."""
        return self.records.journal

    @property
    def presence(self) -> Presence:
        """The other sessions of the cluster; it belongs to the loop's thread."""
        return self.records.presence

    def follow(self, wake: Callable[[], None]) -> Follower:
        """Collect what changes from now on; on the loop's thread.

        ``wake`` is called there at the first change since ``Follower.take``; it must be cheap and must not block.
        """
        return self.records.feed.follow(wake)

    def facts(self) -> ClusterFacts:
        """Return what holds of the cluster as a whole; on the loop's thread. Costs little."""
        bridge, record = self.bridge, self.record
        state, words, note, key = "closed" if self.closed else "connecting", "", "", ""
        if bridge is not None and not self.closed:
            membership = bridge.membership
            key = membership.standing.me
            if membership.board is not None:
                trouble, expelled = membership.trouble, bool(membership.machine.expelled)
                state, words, note = standing(membership.board.report, trouble, self._joined_by(), expelled=expelled)
            note = note or ("" if bridge.machine.workers else self._nobody())
        return ClusterFacts(
            state=state,
            words=words or state,
            kind="shared" if self.shared else "own" if self.target is not None else "personal",
            title=self.called(),
            board=self._board_name(),
            me=self._my_name(),
            key=key,
            note=note,
            since=self.records.since,
            done=record.done,
            failed=record.failed,
            cancelled=record.cancelled,
        )

    def reasons(self) -> dict[str, str]:
        """Why tasks wait, in words, by what they need (``Needs.key``; "" for nothing); on the loop's thread."""
        return self.bridge.reasons() if self.bridge is not None else {}

    def shown(self, task_id: str) -> Future[Any] | None:
        """Return the future of a task, if somebody still has it; None otherwise. From any thread."""
        return self.submitted.future(task_id)

    def source_of(self, task_id: str) -> str:
        """Return the source of a task that is a cell; "" for a call, and for one that was long ago. From any thread."""
        return self.record.source(task_id)

    @property
    def idle(self) -> bool:
        """Whether all its tasks are over. From any thread."""
        submitted = self.submitted
        return self.bridge is None or not (self.bridge.open_tasks(limit=1) or submitted.held() or submitted.later)

    # -- what it looks like --

    @property
    def board(self) -> Board:
        """The board, once it is joined."""
        assert self.bridge is not None
        board = self.bridge.membership.board
        assert board is not None
        return board

    async def status(self) -> ClusterStatus:
        bridge = self.bridge
        assert bridge is not None
        members = []
        for worker in bridge.machine.workers.values():
            end = bridge.links.get(worker.sid)
            link = end.link if end is not None else None
            members.append(
                MemberStatus(
                    name=worker.name,
                    state=worker.word + (f" ({worker.detail})" if worker.detail else ""),
                    slots=worker.terms.slots,
                    busy=min(len(worker.tasks), worker.terms.slots),
                    python=worker.terms.python,
                    platform=worker.terms.machine,
                    link=link.kind if link is not None else "",
                    rtt=link.rtt if link is not None else None,
                    done=worker.done,
                    sandbox=sandbox_words(worker.terms),
                    cards=cards_words(worker.terms.cards),
                )
            )
        members.sort(key=lambda member: member.name)
        held = self.submitted.held()
        tasks = tuple(TaskStatus(label, state) for label, state in [*bridge.open_tasks(limit=20), *held][:20])
        counts = {state.value: number for state, number in bridge.machine.counts().items()}
        report = self.board.report
        return ClusterStatus(
            cluster=self.called(),
            board=self._board_name(),
            board_state=report.state.value + (f": {report.detail}" if report.detail else "") + self._joined_by(),
            # Nobody has an account on the topics of friends; what one is called there is in their list.
            user="" if self.shared else self.board.user,
            name=self._my_name(),
            members=tuple(members),
            tasks=tasks,
            pending=counts["waiting"] + len(held) + len(self.submitted.later),
            running=counts["sent"] + counts["running"] + counts["stopping"],
            note=bridge.membership.trouble or ("" if members else self._nobody()),
        )

    def _board_name(self) -> str:
        return self.board_address if self.shared else self.where()

    def _my_name(self) -> str:
        """Return what the roster calls this user; in clusters without one, what they call themselves."""
        membership = self.bridge.membership if self.bridge is not None else None
        return (membership.machine.name_of(membership.standing.me) if membership is not None else "") or self.name

    def _joined_by(self) -> str:
        """Being on the board's topic isn't all: what there is to say until a member has answered."""
        assert self.bridge is not None
        membership = self.bridge.membership
        if self.target is None or membership.answered:
            return ""
        return f"; {membership.silence or 'waiting for a member to answer'}"

    def _nobody(self) -> str:
        """Say what to do while there is no worker."""
        if self.target is None:
            return f"Its {self.workers} workers are starting." if self.workers > 1 else "Its worker is starting."
        assert self.bridge is not None
        membership = self.bridge.membership
        if self.shared:
            return f"No worker is here yet. Start one: p2p worker --cluster {self.target}"
        return (
            f"No worker is here yet. Start one: p2p worker --board {self.target} --cluster {self.cluster}\n"
            f"Only workers that hold your key are in it: {membership.standing.me} (p2p whoami shows a machine's)."
        )

    def called(self) -> str:
        if self.target is None:
            return "personal, on this machine"
        return self.target if self.shared else self.cluster

    def where(self) -> str:
        return self.target or "this machine"

    # -- inside --

    def worker_ended(self, sid: bytes, why: str) -> None:
        """Note that a worker's process, which this cluster has started, has ended."""
        if self.bridge is not None:
            self.bridge.worker_gone(sid, why)

    def _decode(self, result: Arrived) -> Any:
        """Return a result's value, or raise what its task raised. Nothing runs that an untrusted worker sent."""

        assert self.bridge is not None
        membership = self.bridge.membership
        trusted = membership.trusts(result.signer)
        worker = result.worker if trusted else membership.machine.name_of(result.signer) or result.worker
        return decode(result.result, result.inline, result.large, worker=worker, trusted=trusted)

    def check_open(self) -> None:
        if self.pid != os.getpid():
            raise ClusterClosed(
                "this cluster was connected by another process, of which this one is a fork",
                hint="Connect in this process, with p2p_ipython.connect().",
            )
        if self.closed or self.shut:
            said = "closed" if self.closed else "shut down"
            raise ClusterClosed(
                f"this cluster is {said}", hint="Connect again: %p2p_connect, or p2p_ipython.connect()."
            )

    async def close(self) -> None:
        self.records.feed.facts()  # for those who wait for workers
        try:
            self.submitted.end()
            if self.bridge is not None:
                await self.bridge.close(farewell=self.local is None)
        finally:
            if self.local is not None:
                await self.local.close()
            self.records.stands("closed")
