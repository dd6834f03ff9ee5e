"""The tasks that somebody has submitted: their futures, those that wait for others, those that may run again.

It owns the futures, and stands between them and the bridge.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from p2p_ipython.client import future as future_module
from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.frozen import FrozenTasks
from p2p_ipython.client.future import Frozen, Future, OutputSink
from p2p_ipython.client.inputs import Waiting, aside
from p2p_ipython.client.lazy import WORDS, LazyTasks
from p2p_ipython.client.shown import sink_of
from p2p_ipython.client.task_options import USUAL, TaskOptions
from p2p_ipython.config import Settings
from p2p_ipython.errors import P2PError
from p2p_ipython.task.buffer_store import BufferStore

if TYPE_CHECKING:
    from p2p_ipython.task.task import Task


class Bridge(Protocol):
    """Has tasks run: the bridge to workers, or something in its place."""

    def submit(self, task: Task, future: Future[Any], sink: OutputSink | None) -> None:
        """Take a task, and its pins."""

    def withdraw(self, task_id: str) -> None:
        """Cancel a task; return at once."""

    def why(self, task_id: str) -> str:
        """Where a task is, or why it waits, in words; "" when it is over."""
        ...


class Submitted:
    """See the module. All methods may be called from any thread."""

    def __init__(
        self,
        store: BufferStore,
        settings: Settings,
        *,
        decode: Callable[[Arrived], Any],
        bridge: Callable[[], Bridge | None],
        check_open: Callable[[], None],
        around: Callable[[Task], Task] = lambda task: task,
        trusts: Callable[[str], bool] = lambda _signer: True,
        apart: bool = False,
        fetch: Callable[[Callable[[], None]], None] = aside.call,
    ) -> None:
        """Take tasks as long as ``check_open`` doesn't raise. ``fetch`` makes calls that decode and pack values.

        ``around`` puts around a call what it needs; it pins that in ``store``. ``trusts``: see ``future.Owner``.
        ``apart``: plain arguments travel beside their calls, so that a lender can know these again.
        """
        self.lock = threading.RLock()
        self.waiting = Waiting(store, large=settings.large, submit=self._filled, fetch=fetch)
        self.lazy = LazyTasks(store, self._begin)
        self._store = store
        self._large = settings.large
        self._decode = decode
        self._bridge = bridge
        self._check_open = check_open
        self._around = around
        self._apart = apart
        self.trusts = trusts
        self._frozen = FrozenTasks(store)
        self._futures: weakref.WeakValueDictionary[str, Future[Any]] = weakref.WeakValueDictionary()
        self.later: dict[str, None] = {}
        """Ids of the tasks that are promised, and haven't begun."""
        self._pid = os.getpid()
        self._ended = False

    def call(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        label: str = "",
        options: TaskOptions = USUAL,
        noted: Callable[[Task], Task] = lambda task: task,
    ) -> Future[Any]:
        """Freeze a call and take it; ``noted`` is as ``Surroundings.noted``. Raises as ``make_call`` does."""
        from p2p_ipython.task.inputs import places  # heavy, as the next one
        from p2p_ipython.task.task import make_call

        args, kwargs, inputs = places(args, kwargs)
        label, once = label or options.label, options.once
        task = make_call(fn, args, kwargs, self._store, label=label, once=once, large=self._large, apart=self._apart)
        try:
            task = noted(replace(task, timeout=options.timeout) if options.timeout else task)
            if not inputs:
                task = self._around(task)
            return self.take(Frozen(task, inputs), None, options)
        except BaseException:
            self._store.unpin(task.large)
            raise

    def again(self, future: Future[Any]) -> Future[Any]:
        """For a future's ``again``."""
        self._check_open()
        frozen = self._frozen.thawed(future)
        try:
            return self.take(frozen, None, replace(future._options, lazy=False))
        except BaseException:
            self._store.unpin(frozen.task.large)
            raise

    def take(self, frozen: Frozen, sink: OutputSink | None, options: TaskOptions = USUAL) -> Future[Any]:
        """Submit a task, or hold it until its inputs have come, or until its value is asked for if it is lazy.

        Returns its future. ``sink`` shows its output.
        """
        task = frozen.task
        future = self._future(task.id, task.label, options)
        future._frozen = frozen
        sink = sink_of(options.stdout, sink or future_module.default_sink(), future)
        future._promise.shown_by(sink)
        with self.lock:
            self._check_open()
            self._futures[task.id] = future
        if options.lazy:
            self.lazy.hold(frozen, future, sink)
        else:
            self._begin(frozen, future, sink)
        return future

    def _begin(self, frozen: Frozen, future: Future[Any], sink: OutputSink) -> None:
        if frozen.inputs:
            self.waiting.hold(frozen.task, future, sink, frozen.inputs)
        elif (bridge := self._bridge()) is not None:
            bridge.submit(frozen.task, future, sink)

    def promised(self, task_id: str, label: str, options: TaskOptions = USUAL) -> Future[Any]:
        """Return the future of a task that begins later; until then it can be cancelled."""
        future = self._future(task_id, label, options)
        with self.lock:
            self._check_open()
            self._futures[task_id] = future
            self.later[task_id] = None
        return future

    def begin(self, task: Task, future: Future[Any], sink: OutputSink) -> None:
        """Submit a task that was promised, also after ``shutdown``; unless its future is over by now."""
        with self.lock:
            wanted = self._forget_later(task.id)
            bridge = self._bridge()
            if wanted and bridge is not None:
                future._frozen = Frozen(task)
                future._promise.shown_by(sink)
                bridge.submit(task, future, sink)
                return
        self._store.unpin(task.large)

    def _future(self, task_id: str, label: str, options: TaskOptions) -> Future[Any]:
        future: Future[Any] = Future(task_id, label, self, self._decode, options)
        future._promise.when_done(self._frozen.over)
        return future

    def _forget_later(self, task_id: str) -> bool:
        """Return whether a task was promised that had not begun; from now on it is not."""
        with self.lock:
            return self.later.pop(task_id, self) is None

    def futures(self) -> list[Future[Any]]:
        """Return the futures that somebody still has, the oldest first."""
        return list(self._futures.values())

    def future(self, task_id: str) -> Future[Any] | None:
        """Return the future of a task, if somebody still has it."""
        return self._futures.get(task_id)

    def withdraw(self, task_id: str) -> bool:
        """For a future's ``cancel``: have the task stopped; return whether the bridge will end the future."""
        bridge = self._bridge()
        if self._pid != os.getpid() or self._forget_later(task_id) or bridge is None:
            return False
        if self.lazy.drop(task_id) or self.waiting.drop(task_id):
            return False
        bridge.withdraw(task_id)
        return True

    def why(self, task_id: str) -> str:
        """Where a task is, or why it waits, in words; "" when it is over."""
        bridge = self._bridge()
        if task_id in self.later:
            return "waiting for its turn"
        if task_id in self.lazy:
            return WORDS
        return self.waiting.why(task_id) or (bridge.why(task_id) if bridge is not None else "")

    def held(self) -> list[tuple[str, str]]:
        """Return label and state in words of each task that is not submitted yet, the oldest first."""
        return self.waiting.tasks() + self.lazy.tasks()

    def end(self) -> None:
        """Cancel the tasks that wait for others or to be asked for, and submit none of these any more."""
        with self.lock:
            self._ended = True
        self.lazy.end("the cluster was disconnected before its value was asked for")
        self.waiting.end()
        for task_id in list(self.later):
            if self._forget_later(task_id) and (future := self._futures.get(task_id)) is not None:
                future._promise.withdrawn()

    # -- inside --

    def _filled(self, task: Task, future: Future[Any], sink: OutputSink) -> None:
        """Submit a task whose inputs have come, also after ``shutdown``."""
        try:
            task = self._around(task)
        except BaseException as error:
            self._store.unpin(task.large)
            if not isinstance(error, P2PError):
                raise
            future._promise.failed(error)
            return
        if not future.done():  # else less of it is kept
            future._frozen = Frozen(task)
        with self.lock:
            bridge = self._bridge()
            if not self._ended and bridge is not None:
                bridge.submit(task, future, sink)
                return
        self._store.unpin(task.large)
        future._promise.withdrawn()
