"""Frozen tasks, kept so that they can run again: each by its future, those that are over within bounds.

Large buffers aren't kept for this: a task that is over names them, and the store has them as long as it has room.
"""

from __future__ import annotations

import threading
import time
import uuid
import weakref
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from p2p_ipython.client.future import Frozen, Future
from p2p_ipython.errors import TaskForgotten
from p2p_ipython.protocol.plain import plain
from p2p_ipython.task.buffer_store import BufferStore

if TYPE_CHECKING:
    from p2p_ipython.task.task import Task

KEPT = 64 << 20
"""Bytes of tasks that are over, at most, without their large buffers; the oldest are forgotten first."""

EACH = 1 << 10
"""Bytes that a task counts for besides its source and its pickle."""


class FrozenTasks:
    """Keeps the tasks of a cluster's futures; see the module. From any thread."""

    def __init__(self, store: BufferStore, limit: int = KEPT) -> None:
        self._store = store
        self._limit = limit
        self._over: deque[tuple[weakref.ref[Future[Any]], int]] = deque()
        self._size = 0
        self._lock = threading.Lock()

    def over(self, future: Future[Any]) -> None:
        """Keep less of a task that is over, and forget the oldest ones when that is too much."""
        frozen = future._frozen
        if frozen is None:
            return
        task = frozen.task
        if (light := without_buffers(task)) is not task:
            future._frozen = replace(frozen, task=light)
        size = EACH + task.inline_size + len(task.source or "")
        with self._lock:
            self._over.append((weakref.ref(future), size))
            self._size += size
            while self._size > self._limit:
                oldest, freed = self._over.popleft()
                self._size -= freed
                if (forgotten := oldest()) is not None:
                    forgotten._frozen = None

    def thawed(self, future: Future[Any]) -> Frozen:
        """Return the task of a future as one to submit, its buffers pinned. Raises ``TaskForgotten``."""
        frozen = future._frozen
        if frozen is None:
            raise _forgotten(future)
        try:
            return replace(frozen, task=with_buffers(frozen.task, self._store, uuid.uuid4().hex))
        except KeyError:
            raise _forgotten(future) from None


def without_buffers(task: Task) -> Task:
    """Return a task that names its large buffers, and has none."""
    if not any(part is not None and part.large for part in (task.packed, task.data, task.around)):
        return task
    around = replace(task.around, large={}) if task.around is not None else None
    data = replace(task.data, large={}) if task.data is not None else None
    return replace(task, packed=replace(task.packed, large={}), data=data, around=around)


def with_buffers(task: Task, store: BufferStore, id: str) -> Task:
    """Return a task that has its large buffers again, pinned, as a new one. Raises ``KeyError`` if one isn't there."""
    parts = (part for part in (task.packed, task.data, task.around) if part is not None)
    refs = dict.fromkeys(ref for part in parts for _, ref in part.segments if ref is not None)
    store.pin(refs)
    # All of them, wherever they belong: ``Task.large`` has all.
    packed = replace(task.packed, large={ref: store.get(ref) for ref in refs})
    return replace(task, id=id, packed=packed, created=time.time())


def _forgotten(future: Future[Any]) -> TaskForgotten:
    return TaskForgotten(
        f"the arguments of {plain(future.label, 40)} are no longer kept here",
        hint="Submit it anew: run its cell again.",
    )
