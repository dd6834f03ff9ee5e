"""Tasks that run only when their value is asked for: held here, frozen, until somebody does.

A task whose future nobody has any more is forgotten: nobody can ask.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from p2p_ipython.client.future import Frozen, Future, OutputSink
from p2p_ipython.task.buffer_store import BufferStore

WORDS = "lazy: runs when its value is asked for"
"""The state of such a task."""


class _Held(NamedTuple):
    future: weakref.ref[Future[Any]]
    frozen: Frozen
    sink: OutputSink


class Asking(list[Any]):
    """The waiters of a future of a lazy task: ``concurrent.futures.wait`` asks for its end by joining them."""

    def __init__(self, ask: Callable[[], None]) -> None:
        super().__init__()
        self._ask = ask

    def append(self, waiter: Any) -> None:
        super().append(waiter)
        self._ask()


class LazyTasks:
    """See the module. ``submit`` takes a task that was asked for. From any thread."""

    def __init__(self, store: BufferStore, submit: Callable[[Frozen, Future[Any], OutputSink], None]) -> None:
        self._store = store
        self._submit = submit
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    def hold(self, frozen: Frozen, future: Future[Any], sink: OutputSink) -> None:
        """Hold a task until its future's value is asked for; returns at once."""
        task_id = frozen.task.id
        self._held[task_id] = _Held(weakref.ref(future), frozen, sink)
        this = weakref.ref(self)

        def asked() -> None:
            if (tasks := this()) is not None:
                tasks.ask(task_id)

        def gone() -> None:
            if (tasks := this()) is not None:
                tasks.drop(task_id)

        future._ask = asked
        future._waiters = Asking(asked)  # the list that Python's own module keeps there
        weakref.finalize(future, gone).atexit = False

    def ask(self, task_id: str) -> None:
        """Submit a task, unless that has been done."""
        with self._lock:
            held = self._held.pop(task_id, None)
        future = held.future() if held is not None else None
        if held is not None and future is not None:
            self._submit(held.frozen, future, held.sink)

    def drop(self, task_id: str) -> bool:
        """Hold a task no longer; return whether it was held. It is the caller's to end its future."""
        with self._lock:
            held = self._held.pop(task_id, None)
        if held is not None:
            self._store.unpin(held.frozen.task.large)
        return held is not None

    def end(self, why: str) -> None:
        """Cancel all, because of ``why``."""
        for task_id, held in list(self._held.items()):
            if self.drop(task_id) and (future := held.future()) is not None:
                future._promise.withdrawn(why)

    def tasks(self) -> list[tuple[str, str]]:
        """Return label and state in words of each, the oldest first."""
        return [(held.frozen.task.label, WORDS) for held in list(self._held.values())]

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._held

    def __len__(self) -> int:
        return len(self._held)
