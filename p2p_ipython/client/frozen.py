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
from typing import Any

from p2p_ipython.client.future import Frozen, Future
from p2p_ipython.errors import TaskForgotten
from p2p_ipython.protocol.plain import plain
from p2p_ipython.task.buffer_store import BufferStore

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
        if any(part is not None and part.large for part in (task.packed, task.data, task.around)):
            around = replace(task.around, large={}) if task.around is not None else None
            data = replace(task.data, large={}) if task.data is not None else None
            packed = replace(task.packed, large={})
            future._frozen = replace(frozen, task=replace(task, packed=packed, data=data, around=around))
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
        task = frozen.task
        parts = (part for part in (task.packed, task.data, task.around) if part is not None)
        segments = [segment for part in parts for segment in part.segments]
        refs = dict.fromkeys(ref for _, ref in segments if ref is not None)
        try:
            self._store.pin(refs)
        except KeyError:
            raise _forgotten(future) from None
        # All of them, wherever they belong: ``Task.large`` has all.
        packed = replace(task.packed, large={ref: self._store.get(ref) for ref in refs})
        return replace(frozen, task=replace(task, id=uuid.uuid4().hex, packed=packed, created=time.time()))


def _forgotten(future: Future[Any]) -> TaskForgotten:
    return TaskForgotten(
        f"the arguments of {plain(future.label, 40)} are no longer kept here",
        hint="Submit it anew: run its cell again.",
    )
