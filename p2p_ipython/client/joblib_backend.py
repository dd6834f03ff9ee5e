"""joblib's backend "p2p": ``joblib.parallel_config("p2p")`` has joblib's calls run on a cluster, and scikit-learn's.

joblib decides how many calls make a batch, and when the next one is wanted. Here each batch becomes a task of the
cluster; see task/batches.py for the worker's side. A batch that is over is decoded in a thread of our own, where joblib
then makes the next one: its generators of calls may block.

Importing this module registers it; offers.py does that where it is wanted.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from p2p_ipython.client.aside import Aside
from p2p_ipython.client.cluster import Cluster, open_clusters
from p2p_ipython.client.future import Future
from p2p_ipython.client.groups import Group
from p2p_ipython.client.mapping import show_later
from p2p_ipython.errors import CaptureError, NotConnected, UsageError, WorkerLost
from p2p_ipython.task.batches import call_batch, taken_apart
from p2p_ipython.task.task import make_call

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds to wait for the first worker of a cluster that has none."""

_aside = Aside("p2p-joblib")

Callback = Callable[[Any], object]


@dataclass(eq=False)
class _Way:
    """The batches of one ``Parallel`` that are on their way, and those that wait because it wants few at a time."""

    jobs: int
    """As its user gave them: how many at a time, or less than 0 for so many less than all."""
    busy: int = 0
    """Batches that are on their way, or about to be."""
    flying: set[concurrent.futures.Future[Any]] = field(default_factory=set)
    held: deque[tuple[Any, Callback]] = field(default_factory=deque)
    group: Group | None = None

    def cancel(self) -> None:
        """Cancel what is on its way; joblib then ends with that."""
        self.held.clear()
        for future in list(self.flying):
            future.cancel()

    def next(self, slots: int) -> list[tuple[Any, Callback]]:
        """Return the batches to send now. Where all slots may be used, some wait at the workers, as other tasks do."""
        most = _at_a_time(self.jobs, slots)
        room = len(self.held) if most >= slots else max(0, min(len(self.held), most - self.busy))
        self.busy += room
        return [self.held.popleft() for _ in range(room)]


class P2PBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """See the module. joblib makes one for each ``parallel_config("p2p")`` and ``Parallel(backend="p2p")``."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = -1

    def __init__(
        self,
        cluster: Cluster | None = None,
        *,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
    ) -> None:
        """Take the connected cluster if none is given. Raises ``UsageError``."""
        if cluster is not None and not isinstance(cluster, Cluster):
            raise UsageError(
                f"cluster={cluster!r:.80} is no cluster", hint="Give what p2p_ipython.connect() returned, or nothing."
            )
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self.cluster = cluster if cluster is not None else _connected()
        self._ways: weakref.WeakKeyDictionary[Any, _Way] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._runs = False

    # -- for joblib: how many --

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_options: Any) -> int:
        """Begin to serve ``parallel``; return how many batches run at a time. Raises as ``effective_n_jobs``."""
        jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        with self._lock:
            self._ways[parallel] = _Way(n_jobs)
        self._runs = True
        return max(2, jobs)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls run at a time now, if joblib's user wants ``n_jobs``.

        Waits for the first worker. Raises ``ClusterClosed``, and ``WorkerLost`` if none comes.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs == 1:
            return 1
        core = self.cluster._core
        core.check_open()
        if not core.slots:
            try:
                self.cluster.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError:
                raise WorkerLost(
                    f"no worker is here, and none came within {PATIENCE:g} s", hint=self.cluster.status().note
                ) from None
        # joblib calls a function here, not there, when it is told that there is one. One runs, and one is on its way.
        return max(2 if self._runs else 1, _at_a_time(n_jobs or -1, core.slots))

    # -- for joblib: batches --

    def submit(self, func: Any, callback: Callback | None = None) -> None:
        """Send a batch, or hold it until one of its ``Parallel`` is over. ``callback`` hears of its end."""
        assert callback is not None
        with self._lock:
            way = self._ways.setdefault(getattr(callback, "parallel", self.parallel), _Way(-1))
            way.held.append((func, callback))
            ready = way.next(self.cluster._core.slots)
        for each in ready:
            self._send(way, *each)

    apply_async = submit  # joblib before 1.5

    def retrieve_result_callback(self, out: concurrent.futures.Future[Any]) -> Any:
        """Return the values of a batch that is over, or raise its error."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what a ``Parallel`` that ends early has on its way; this may serve others, too."""
        with self._lock:
            ways = [way for parallel, way in self._ways.items() if getattr(parallel, "_aborting", True)]
            futures = [future for way in ways for future in way.flying]
            for way in ways:
                way.held.clear()
        for future in futures:
            future.cancel()

    def terminate(self) -> None:
        """End to serve: the next call is measured anew."""
        self._runs = False
        with self._lock:
            groups = [way.group for way in self._ways.values() if way.group is not None and not way.flying]
        for group in groups:
            group.end()
        self.reset_batch_stats()

    # -- inside --

    def _send(self, way: _Way, batch: Any, callback: Callback) -> None:
        label = _label(batch.items)
        functions, plan, values = taken_apart(batch.items)
        arguments = (functions, plan, (self.nesting_level or 0) + 1, self.inner_max_num_threads, *values)
        future: concurrent.futures.Future[Any]
        try:
            future = self.cluster._core.submit_call(call_batch, arguments, {}, label=label)
        except Exception as error:  # joblib would lose it in a thread of ours
            future = concurrent.futures.Future()
            future.set_exception(self._blamed(batch.items, error))
        with self._lock:
            way.flying.add(future)
            first = way.group is None
            way.group = group = way.group or self.cluster._core.groups.new(
                label.partition(" ×")[0], None, cancel=way.cancel, shown=False
            )
        if first:
            show_later(self.cluster._core.groups, group)
        if getattr(getattr(callback, "parallel", None), "_aborting", False):  # meanwhile
            future.cancel()
        over = partial(_aside.call, partial(self._over, way, future, callback, len(batch.items)))
        concurrent.futures.Future.add_done_callback(future, lambda _future: over())

    def _blamed(self, calls: Any, error: Exception) -> Exception:
        """Return the error of the one of ``calls`` that can't travel: it says which of its arguments is to blame."""
        store = self.cluster._core.store
        for function, arguments, keywords in calls if isinstance(error, CaptureError) else ():
            try:
                store.unpin(make_call(function, arguments, keywords, store).large)
            except CaptureError as own:
                return own
        return error

    def _over(self, way: _Way, future: concurrent.futures.Future[Any], callback: Callback, calls: int) -> None:
        """Send the next batch, and let joblib have the values of this one; aside."""
        cancelled = future.cancelled()
        failed = not cancelled and isinstance(future, Future) and future._promise.failure
        seconds, _ = future._took if isinstance(future, Future) else (None, 0)
        if way.group is not None:  # the first call that raises ends its batch
            rest = calls if cancelled else calls - 1 if failed else 0
            way.group.over(calls, failed=failed, cancelled=rest, seconds=seconds)
        with self._lock:
            way.flying.discard(future)
            way.busy -= 1
            ready = way.next(self.cluster._core.slots)
        try:
            for each in ready:
                self._send(way, *each)
            callback(future)
            self._follow_slots(way, getattr(callback, "parallel", None))
        except Exception:
            log.exception("joblib could not take the values of a batch")

    def _follow_slots(self, way: _Way, parallel: Any) -> None:
        """Have joblib send as much at a time as there are slots now: workers come and go."""
        before = getattr(parallel, "_cached_effective_n_jobs", 0)
        wanted = getattr(parallel, "pre_dispatch", None)
        if not before or not (isinstance(wanted, str) and "n_jobs" in wanted):
            return
        now = max(2, _at_a_time(way.jobs, self.cluster._core.slots))
        parallel._cached_effective_n_jobs = now
        for _ in range((now - before) * parallel._pre_dispatch_amount // before):
            with parallel._lock:
                if parallel._original_iterator is None:
                    return
                parallel.dispatch_next()


def _at_a_time(jobs: int, slots: int) -> int:
    return min(jobs, slots) if jobs > 0 else max(1, slots + 1 + jobs)


def _label(calls: Any) -> str:
    function = calls[0][0]
    while (inner := getattr(function, "func", None) or getattr(function, "function", None)) is not None:
        function = inner  # of a partial, or scikit-learn's
    name = str(getattr(function, "__qualname__", type(function).__qualname__))
    return f"{name} ×{len(calls)}" if len(calls) > 1 else name


def _connected() -> Cluster:
    found = open_clusters()
    if not found:
        raise NotConnected(
            'joblib\'s backend "p2p" needs a cluster, and none is connected',
            hint="Connect first: %p2p_connect in a notebook, or p2p_ipython.connect().",
        )
    if len(found) > 1:
        raise UsageError(
            "several clusters are connected, so joblib can't know which one you mean",
            hint='Say which: joblib.parallel_config("p2p", cluster=cluster).',
        )
    return found[0]


register_parallel_backend("p2p", P2PBackend)
