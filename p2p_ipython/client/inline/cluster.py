"""The cluster that is this process itself, and the one slot of a task; see the package."""

from __future__ import annotations

import concurrent.futures
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.core import ClusterCore
from p2p_ipython.client.future import Frozen, Future, OutputSink
from p2p_ipython.client.inline.kept import classes_of
from p2p_ipython.client.inline.running import WORKER, Here, classes_now
from p2p_ipython.client.status import ClusterFacts, ClusterStatus, MemberStatus
from p2p_ipython.client.submitted import Submitted
from p2p_ipython.client.surroundings import Surroundings
from p2p_ipython.config import Settings
from p2p_ipython.errors import UsageError
from p2p_ipython.loop import running_background
from p2p_ipython.members.way import Way
from p2p_ipython.task.environment import named
from p2p_ipython.task.outcome import decode
from p2p_ipython.task.running import in_task
from p2p_ipython.task.task import PYTHON

if TYPE_CHECKING:
    from p2p_ipython.task.around import Part
    from p2p_ipython.task.buffer_store import BufferStore
    from p2p_ipython.task.task import Task

NESTED = (
    "This code runs in a task, so connect() gives the one slot that the task has: what it submits runs here, "
    "one after the other."
)


def inline(*, name: str, settings: Settings, progress: Callable[[str], None]) -> InlineCluster:
    """Return a cluster that runs tasks in this process."""
    return InlineCluster(InlineCore(name=name, settings=settings, progress=progress))


def nested() -> InlineCluster:
    """Return the cluster that a task has: its own process."""
    return inline(name="task", settings=Settings.load({}), progress=lambda _words: None)


class InlineCluster(Cluster):
    """See the package. It needs no loop and no thread."""

    _core: InlineCore

    def __init__(self, core: InlineCore) -> None:
        self._core = core
        self._closing = None
        self._hurries = False
        core.joined = True

    def wait_for_workers(self, count: int = 1, timeout: float | None = None) -> None:
        """Return at once. Raises ``UsageError`` for more than the one worker that there is."""
        self._core.check_open()
        if count > 1:
            raise UsageError(
                f"{count} workers will never be here: tasks run in this process, one at a time",
                hint="%p2p_connect, without a target, starts a worker for each core.",
            )

    def journal(self) -> Any:
        self._core.settled()
        return super().journal()

    def timeline(self, last: int = 200) -> Any:
        self._core.settled()
        return super().timeline(last)

    def status(self) -> ClusterStatus:
        return super().status() if self.closed else self._core.as_it_is()

    def close(self) -> None:
        core = self._core
        if core.pid == os.getpid() and not core.closed:
            core.closed = True
            core.submitted.end()
            core.store.clear()
            core.note(lambda: core.records.stands("closed"))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        core = self._core
        if core.pid == os.getpid() and not core.closed:
            for calls in list(core.maps):
                calls.shut(cancel=cancel_futures)
            core.shut = True
            self.close()


class InlineCore(ClusterCore):
    """The core of an inline cluster: it has no bridge, but something that runs tasks in the place of one."""

    def __init__(self, *, name: str, settings: Settings, progress: Callable[[str], None]) -> None:
        super().__init__(None, cluster=WORKER, workers=1, name=name, way=Way(), progress=progress, settings=settings)
        self.surroundings = _Surroundings("")
        self.here = here = Here(self.store, settings, self.records, self.note)
        self.submitted = _Submitted(
            self.store,
            settings,
            decode=self._decode,
            bridge=lambda: here,
            check_open=self.check_open,
            around=lambda task: self.surroundings.around(task, self.store),
            fetch=lambda call: call(),
        )

    def note(self, call: Callable[[], object]) -> None:
        """Make a call that changes the records: on the loop's thread, if there is one."""
        if (background := running_background()) is not None:
            background.loop.call_soon_threadsafe(call)
        else:
            call()

    def settled(self) -> None:
        """Return when the records have all that was noted."""
        background = running_background()
        if background is not None and not background.is_current():
            background.run(_nothing(), timeout=10)

    def trusts(self, signer: str) -> bool:
        return not signer

    def not_begun(self) -> list[Future[Any]]:
        return []

    @property
    def slots(self) -> int:
        return 1

    @property
    def idle(self) -> bool:
        return not self.here.open

    def facts(self) -> ClusterFacts:
        record = self.record
        state = "closed" if self.closed else "connected"
        return ClusterFacts(
            state=state,
            words=state,
            kind="personal",
            title=self.called(),
            board=self.where(),
            me=self.name,
            key="",
            note="" if self.closed else "Tasks run in this process, each at once.",
            since=self.records.since,
            done=record.done,
            failed=record.failed,
            cancelled=record.cancelled,
        )

    async def status(self) -> ClusterStatus:
        return self.as_it_is()

    def as_it_is(self) -> ClusterStatus:
        """Return the status. From any thread."""
        busy = len(self.here.open)
        here = MemberStatus(WORKER, "here", 1, min(busy, 1), PYTHON, sys.platform, "", None, self.record.done, "none")
        held = len(self.submitted.waiting)
        return ClusterStatus(
            self.called(), self.where(), "none is needed", "", self.name, (here,), (), held, busy, self.facts().note
        )

    def called(self) -> str:
        return "inline: in a task" if in_task() else "inline"

    def where(self) -> str:
        return "this process"

    def _decode(self, result: Arrived) -> Any:
        with classes_of(classes_now.get()):
            return decode(result.result, result.inline, result.large, worker=result.worker, trusted=True)

    async def close(self) -> None:
        """Do nothing: the cluster does it."""


class _Submitted(Submitted):
    """Waits for the futures among a task's arguments in the thread that submits it."""

    def _begin(self, frozen: Frozen, future: Future[Any], sink: OutputSink) -> None:
        concurrent.futures.wait(frozen.inputs)
        super()._begin(frozen, future, sink)


class _Surroundings(Surroundings):
    """What goes around a task here: the notebook's settings, modules and files are there already."""

    def parts(
        self, *, seed: Part | None = None, env: Iterable[str] = (), loggers: tuple[str, ...] = ()
    ) -> tuple[Part, ...]:
        return tuple(part for part in (named(env), self._setup, seed) if part is not None)

    def around(self, task: Task, store: BufferStore, *, modules: bool = True) -> Task:
        return super().around(task, store, modules=False)


async def _nothing() -> None: ...
