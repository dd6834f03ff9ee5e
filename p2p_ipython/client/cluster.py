"""A cluster, as the person at the notebook has it: submit, map, status, close.

``connect()`` makes one. Everything that waits for a network happens on the background loop; the calls here
either return at once (``submit``) or wait for it with a deadline (``connect``, ``close``).
"""

from __future__ import annotations

# Functions import what is heavy (cryptography, paramiko, cloudpickle): the extension must load quickly.
import concurrent.futures
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from p2p_ipython.client import ending
from p2p_ipython.client import views as views_module
from p2p_ipython.client.ending import Turn, at_end, in_kernel, was_interrupted
from p2p_ipython.client.future import NOTICE, Future, callbacks
from p2p_ipython.client.opening import join
from p2p_ipython.client.options import Options, TakesOptions
from p2p_ipython.client.printing import DRAIN, printed
from p2p_ipython.client.status import ClusterStatus
from p2p_ipython.client.task_options import checked
from p2p_ipython.config import Settings
from p2p_ipython.errors import UsageError
from p2p_ipython.loop import background
from p2p_ipython.task.running import cluster_here

if TYPE_CHECKING:
    from p2p_ipython.client.bridge import Bridge
    from p2p_ipython.client.core import ClusterCore
    from p2p_ipython.client.timeline import Timeline
    from p2p_ipython.protocol.roster import Member

log = logging.getLogger(__name__)

T = TypeVar("T")

SWITCH_INTERVAL = 0.0005
"""Seconds after which a busy main thread lets the loop's thread run. Python's 0.005 would add 5 ms to each
message that comes while the notebook computes."""


class Cluster(TakesOptions):
    """A cluster that this process has joined; make it with ``connect()``.

    It is a ``concurrent.futures.Executor``: ``submit``, ``map``, and a context manager that waits for its
    tasks at the end (or ends at once when an exception leaves the block). A script that ends without closing it
    finishes its tasks first, and Ctrl-C cancels them; a notebook's kernel that ends cancels them at once.
    """

    def __init__(self, core: ClusterCore) -> None:
        """Make it for ``connect()``."""
        self._core = core
        self._closing: concurrent.futures.Future[None] | None = None
        self._hurries = in_kernel()
        loop = background().loop
        weakref.finalize(self, loop.call_soon_threadsafe, _end_forgotten, core, self._hurries).atexit = False

    @property
    def target(self) -> str | None:
        """The target of ``connect``: a title, as "alice/friends", or a board's address; None on this machine.

        >>> cluster.target is None
        True
        """
        return self._core.target

    @property
    def cluster(self) -> str:
        """Name of a personal cluster, text.

        >>> cluster.cluster
        'personal'
        """
        return self._core.cluster

    @property
    def name(self) -> str:
        """The name by which others see this user, text.

        >>> cluster.name == ""
        False
        """
        return self._core.name

    @property
    def shared(self) -> bool:
        """Whether it is a cluster of friends.

        >>> cluster.shared
        False
        """
        return self._core.shared

    @property
    def settings(self) -> Settings:
        """The settings that it was connected with, a ``config.Settings``: times in seconds, sizes in bytes.

        >>> cluster.settings.lease
        30.0
        """
        return self._core.settings

    @property
    def slots(self) -> int:
        """How many tasks its workers run at a time, a whole number.

        >>> cluster.slots
        1
        """
        return self._core.slots

    @property
    def _max_workers(self) -> int:
        """How many tasks libraries that use any executor keep under way, as dask does; workers may still come."""
        return max(self._core.slots, os.cpu_count() or 1)

    def wait_for_workers(self, count: int = 1, timeout: float | None = None) -> None:
        """Return once ``count`` workers are here. Raises ``TimeoutError`` when they aren't after ``timeout`` seconds.

        >>> cluster.wait_for_workers(1, timeout=60)
        """
        self._core.check_open()
        background().run(self._core.wait_for_workers(count, timeout))

    @property
    def closed(self) -> bool:
        """Whether it is closed: nothing runs any more, and no task is taken.

        >>> cluster.closed
        False
        """
        return self._core.closed

    @property
    def _bridge(self) -> Bridge | None:
        return self._core.bridge

    # -- tasks --

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run ``fn(*args, **kwargs)`` on a worker; return its ``Future`` at once.

        What the call needs is frozen now: later changes to the arguments don't matter. A future among the arguments,
        or in a list, tuple or dict among them, is waited for, and its value is sent. A coroutine function is awaited
        on the worker. Raises ``NotPicklable`` before anything is sent, and ``ClusterClosed`` after ``close``.

        >>> cluster.submit(pow, 2, 10).result()
        1024
        >>> cluster.submit(pow, cluster.submit(abs, -2), 10).result()
        1024
        """
        return self._core.submit_call(fn, args, kwargs)

    def seeded(self, seed: int) -> Options:
        """Return an executor for this cluster whose tasks draw random numbers that follow from ``seed``.

        Its task n begins with child n of ``numpy.random.SeedSequence(seed)``: the results are the same on any number of
        workers. ``seed`` is a whole number, 0 or more. Without it each task has numbers of its own. It is short for
        ``options(seed=seed)``.

        >>> import random
        >>> once, again = (list(cluster.seeded(7).map(random.randint, [1, 1], [6, 6])) for _ in range(2))
        >>> once == again
        True
        """
        return self.options(seed=checked(seed))

    # -- what has become of them --

    def journal(self) -> Any:
        """Return what has become of the tasks, the oldest first: a pandas DataFrame, or a list of dicts without pandas.

        Of those that are over the last 10,000 are listed. ``submitted``, ``sent`` (announced to a worker: on the link),
        ``started`` and ``ended`` are times: of this time zone in a DataFrame, Unix seconds in a list. ``waited``,
        ``travelled``, ``ran`` and ``returned`` are the seconds between them, of the last attempt; ``size_in`` and
        ``size_out`` are bytes; ``said`` is the last line of output. From any thread.

        >>> future = cluster.submit(pow, 2, 10)
        >>> future.result(), len(cluster.journal()) > 0
        (1024, True)
        """
        from p2p_ipython.client.table import table

        return table(self._core.record.rows())

    def timeline(self, last: int = 200) -> Timeline:
        """Draw when the ``last`` tasks waited, travelled, ran and returned, by worker.

        Displayed in a notebook it is an SVG; ``.svg`` has it as text, ``print`` shows how well workers were used.
        ``last`` is a number of tasks. From any thread.

        >>> cluster.timeline(last=10).svg.startswith("<svg")
        True
        """
        from p2p_ipython.client.timeline import timeline

        workers = list(bridge.machine.workers.values()) if (bridge := self._bridge) is not None else []
        entries = list(self._core.record.entries.values())[-last:] if last > 0 else []
        return timeline(entries, time.time(), {worker.sid: worker.terms.slots for worker in workers})

    def cancel_task(self, task_id: str) -> bool:
        """Withdraw a task by its id, text; return False if it is over, or unknown. From any thread; returns at once.

        >>> cluster.cancel_task("no such id")
        False
        """
        future = self._core.shown(task_id)
        return future is not None and not future.done() and future.cancel()

    @property
    def pids(self) -> list[int]:
        """Ids of the processes that this cluster has started: a board's and workers'; [] on a board elsewhere.

        >>> len(cluster.pids) > 1
        True
        """
        local = self._core.local
        return local.pids if local is not None else []

    # -- friends --

    def members(self) -> tuple[Member, ...]:
        """Return the members of a shared cluster, its owner first; () in a personal one, and before there is a roster.

        >>> cluster.members()
        ()
        """
        roster = self._bridge.membership.machine.roster if self._bridge is not None else None
        return roster.members if roster is not None else ()

    def trust(self, name: str, *, revoke: bool = False) -> str:
        """Let results of a member's workers be of any type, which lets them run any code here.

        ``revoke``: no longer. It is kept for this cluster. A result that could not be read before can then be asked
        for again. Returns the member's name. Raises ``UsageError`` in personal clusters, and ``ConfigError`` if nobody
        is called so.

        >>> cluster.trust("bob")
        Traceback (most recent call last):
        p2p_ipython.errors.UsageError: in a personal cluster all workers are your own
        """
        if not self.shared or self.target is None or self._bridge is None:
            raise UsageError("in a personal cluster all workers are your own", hint="There is nobody to trust.")
        from p2p_ipython.members import operations
        from p2p_ipython.members.profiles import Profiles

        found, profile = operations.trust(Profiles(), self.target, name, allow=not revoke)
        self._bridge.membership.trusted = profile.trusted
        return found

    # -- what it looks like --

    def status(self) -> ClusterStatus:
        """Return board, members, offers and tasks, as they are now; ``print`` shows them as a table.

        Raises ``TimeoutError`` if that takes more than 10 s.

        >>> cluster.status().cluster
        'personal, on this machine'
        """
        if self.closed or self._bridge is None:
            return ClusterStatus(
                self.cluster, self._core.where(), "closed", "", self.name, (), (), 0, 0, "It is closed."
            )
        return background().run(self._core.status(), timeout=10)

    def __str__(self) -> str:
        return self.status().text()

    def __repr__(self) -> str:
        return f"<Cluster {self.cluster} at {self._core.where()}{', closed' if self.closed else ''}>"

    def panel(self) -> Any:
        """Return a live view of the cluster, for a notebook's cell. Raises ``UsageError`` if no extension is loaded.

        >>> cluster.panel()
        Traceback (most recent call last):
        p2p_ipython.errors.UsageError: the panel needs a notebook
        """
        if views_module.views is None:
            raise UsageError("the panel needs a notebook", hint="Run there first: %load_ext p2p_ipython")
        return views_module.views.panel(self)

    def _repr_html_(self) -> str:
        return self.status().html()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any] | None:
        return views_module.views.mimebundle(self) if views_module.views is not None else None

    def __reduce__(self) -> Any:
        return cluster_here, ()  # in a task it is the task's own slot

    # -- the end --

    def close(self) -> None:
        """Cancel what isn't over, leave the board, end this cluster's own processes. Idempotent.

        An interrupt ends the wait, not the closing. Raises ``TimeoutError`` if it takes more than 60 s.

        >>> other = p2p_ipython.connect(workers=1)
        >>> other.close()
        >>> other.closed
        True
        """
        core = self._core
        if core.pid != os.getpid():
            return
        core.closed = True  # nothing more is taken
        with core.submitted.lock:
            if self._closing is None:
                self._closing = background().start(core.close())
                _patience.end(self)
        self._closing.result(60)
        _open.discard(self)
        core.store.clear()
        printed.drain(DRAIN)
        callbacks.drain(DRAIN)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and close once those that there are are over; as for any executor.

        ``wait``: return when that has happened; otherwise return at once. ``cancel_futures``: cancel the tasks that
        no worker has yet, but for as many as there are free slots; the others are finished. ``close`` cancels all.

        >>> other = p2p_ipython.connect(workers=1)
        >>> future = other.submit(pow, 2, 10)
        >>> other.shutdown()
        >>> future.result()
        1024
        """
        core = self._core
        if core.pid != os.getpid():
            return
        for calls in list(core.maps):
            calls.shut(cancel=cancel_futures)
        with core.submitted.lock:
            core.shut = True
        core.submitted.lazy.end("the cluster was shut down before its value was asked for")
        with core.submitted.lock:
            futures = core.open_futures()
        if cancel_futures:
            for future in core.not_begun():
                future.cancel()
        over = threading.Event()
        threading.Thread(target=self._finish, args=(futures, over, wait), name="p2p-shutdown", daemon=True).start()
        if wait:
            over.wait()
            callbacks.drain()
            self.close()

    def __exit__(
        self, kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.shutdown()
        finally:  # also when an interrupt has ended the wait
            self.close()

    def _finish(self, futures: list[Future[Any]], over: threading.Event, waited_for: bool) -> None:
        """Wait for ``futures``; and close, unless somebody waits who does.

        In a thread of its own: an interrupt amid ``concurrent.futures.wait`` may leave a future locked.
        """
        concurrent.futures.wait(futures, NOTICE)
        for future in futures:
            future._promise.warn_if_stuck()
        concurrent.futures.wait(futures)
        over.set()
        if not waited_for:
            callbacks.drain()
            self.close()

    # -- inside --

    def _open(self) -> None:
        _open.add(self)
        try:
            background().run(join(self._core), timeout=120)
        except BaseException:
            self.close()
            raise
        self._core.joined = True
        _patience.begin(self)


class _Patience:
    """Has a busy main thread let the loop's thread run more often, while a cluster is open."""

    def __init__(self) -> None:
        self._clusters: weakref.WeakSet[Cluster] = weakref.WeakSet()
        self._before = 0.0

    def begin(self, cluster: Cluster) -> None:
        if not self._clusters:
            self._before = sys.getswitchinterval()
            sys.setswitchinterval(min(SWITCH_INTERVAL, self._before))
        self._clusters.add(cluster)

    def inherit(self, cluster: Cluster) -> None:
        """Count another object of a cluster that is gone already."""
        self._clusters.add(cluster)

    def end(self, cluster: Cluster) -> None:
        if cluster in self._clusters:
            self._clusters.discard(cluster)
            if not self._clusters and sys.getswitchinterval() == SWITCH_INTERVAL:  # nobody else has set it meanwhile
                sys.setswitchinterval(self._before)


_patience = _Patience()

_open: weakref.WeakSet[Cluster] = weakref.WeakSet()


def open_clusters() -> list[Cluster]:
    """Return the clusters of this process that take tasks."""
    cores = [(each, each._core) for each in _open]
    return [each for each, core in cores if not (core.closed or core.shut) and core.pid == os.getpid()]


def _end_forgotten(core: ClusterCore, hurries: bool) -> None:
    """Shut down a cluster that nobody has any more, as for any executor; on the loop's thread."""
    if core.closed or core.shut or core.pid != os.getpid():
        return
    again = Cluster(core)
    again._hurries = hurries
    _open.add(again)
    _patience.inherit(again)
    again.shutdown(wait=False)


def _finish_all() -> None:
    """Finish the tasks of a script that ends, and close its clusters; in a kernel, close them at once."""
    clusters = list(_open)
    try:
        patient = [cluster for cluster in clusters if not cluster._hurries and not was_interrupted()]
        busy = [future for cluster in patient for future in cluster._core.open_futures()]
        notice = threading.Timer(NOTICE, log.warning, ["waiting for tasks that are not over; Ctrl-C cancels them"])
        notice.daemon = True
        if busy:
            notice.start()
        for cluster in patient:
            cluster.shutdown()
        notice.cancel()
        hurried = [future for cluster in clusters if cluster._hurries for future in cluster._core.open_futures()]
        concurrent.futures.wait(hurried, ending.kernel_waits)
    except KeyboardInterrupt:
        log.warning("tasks that are not over are cancelled")
    finally:
        for cluster in clusters:
            try:
                cluster.close()
            except Exception:
                log.exception("could not close %r", cluster)


at_end(Turn.CLUSTERS, _finish_all)
