"""A view of a cluster for whose tasks some options hold: ``cluster.options(retries=2)``, ``cluster.seeded(7)``.

A view is immutable, and an executor: it takes calls, and the cluster that it is of runs them.
"""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from p2p_ipython.client.future import Future
from p2p_ipython.client.task_options import USUAL, TaskOptions

if TYPE_CHECKING:
    from p2p_ipython.client.completing import Values
    from p2p_ipython.client.core import ClusterCore
    from p2p_ipython.task.seeds import Seed

T = TypeVar("T")

Names = str | Sequence[str]
Errors = type[BaseException] | Sequence[type[BaseException] | str] | str


class TakesOptions(concurrent.futures.Executor):
    """Base of a cluster and of its views: they have tasks with options."""

    _core: ClusterCore
    _options = USUAL
    _numbers: Iterator[int] = iter(())
    """The next tasks' places in the stream of random numbers, if there is a seed."""

    def options(
        self,
        *,
        label: str | None = None,
        retries: int | None = None,
        retry_on: Errors | None = None,
        timeout: float | str | None = None,
        once: bool | None = None,
        priority: int | None = None,
        on: Names | None = None,
        tags: Names | None = None,
        seed: int | None = None,
        memory: int | str | None = None,
        gpus: int | None = None,
        files: Names | None = None,
        stdout: Literal["live", "end", "off"] | None = None,
        log: Names | None = None,
        lazy: bool | None = None,
    ) -> Options:
        """Return an executor for this cluster for whose tasks these options hold; of a view, besides its own.

        ``label``: their name in lists. ``retries``: a task that raises runs again up to so many times, on any worker;
        ``retry_on``: only after errors of these classes (default: ``Exception``). A task that ends its process is tried
        again only if ``TaskDied`` of ``p2p_ipython.errors`` is named. ``timeout``: seconds that a task may run, or a
        text as "5m". ``once``: a task is never started a second time, even if its worker is lost. ``priority``: a whole
        number; of the tasks that wait here, the highest go first. ``seed``: as in ``seeded``.

        A task waits until a worker is there that has what it needs: ``on`` names members (of a cluster of friends) or
        workers, ``tags`` words that the worker has, ``memory`` bytes for the task (or "2G"), ``gpus`` graphics cards.
        ``state_text`` of its future says what is missing. ``files``: names of files beside the notebook that go with
        each task. ``stdout``: when its output is shown: "live", at the "end", or not ("off"); the future keeps it.
        ``log``: names of loggers whose records in the task are handled by the same ones here. ``lazy``: a task is
        frozen, and runs only once its value is asked for.

        Texts with commas, or lists, name several. Raises ``ConfigError`` for a value that can't be, and for a member
        that the cluster doesn't have.

        >>> sturdy = cluster.options(retries=3, retry_on=ConnectionError, label="fetch")
        >>> sturdy.submit(abs, -3).result(), list(sturdy.options(priority=5).map(abs, [-1, 2]))
        (3, [1, 2])
        """
        given = {name: value for name, value in locals().items() if name in _NAMES and value is not None}
        made = self._options.changed(given)
        self._core.check_places(made.on)
        return Options(self._core, made, itertools.count() if "seed" in given else self._numbers)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = "auto",
        buffersize: int | None = None,
        ordered: bool = True,
        progress: bool | None = None,
    ) -> Values[T]:
        """Call ``fn`` for the elements of ``iterables`` on the workers; yield the values.

        As of any executor: in order, the first error ends it, and what is left is cancelled when the iterator is
        closed. ``timeout`` is in seconds from now, for all of them together. Unless ``ordered`` values come as they are
        ready. ``async for`` takes them, too. A map that takes more than a second shows a bar under its cell, with
        ``progress=True`` also in programs, with ``progress=False`` nowhere.

        Elements travel in tasks of ``chunksize``. "auto" measures how long calls take: long ones travel alone, short
        ones by the thousand. An element that fails fails alone. A generator may be of any length: its elements are
        taken as workers and the caller keep up, at most ``buffersize`` of them before their values are wanted.

        In a view its options hold for each task of several elements. With a seed each element has random numbers of its
        own, and travels alone.

        Raises ``ClusterClosed``, and ``NotPicklable`` for one of the first elements; for later ones the iterator does.

        >>> list(cluster.map(pow, [2, 3], [10, 2]))
        [1024, 9]
        >>> import itertools
        >>> next(cluster.map(abs, itertools.count(-5)))
        5
        """
        from p2p_ipython.client.mapping import mapped

        if self._options.seed is not None:
            chunksize = 1
        calls = _Mapped(self, self._core.files_of(self._options))
        return mapped(
            calls,
            fn,
            iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            ordered=ordered,
            progress=progress,
        )

    def _submit(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: TaskOptions,
        files: Mapping[str, bytes] | None = None,
    ) -> Future[T]:
        seed = None if options.seed is None else seed_of(options.seed, next(self._numbers))
        files = self._core.files_of(options) if files is None else files
        return self._core.submit_call(fn, args, kwargs, seed=seed, options=options, files=files)


_NAMES = frozenset(each.name for each in fields(TaskOptions))


class Options(TakesOptions):
    """See ``Cluster.options``. With a seed, its tasks are counted from 0, in the order in which they are submitted."""

    def __init__(self, core: ClusterCore, options: TaskOptions, numbers: Iterator[int] = iter(())) -> None:  # noqa: B008
        """Make it for ``Cluster.options``. ``numbers``: the places of its tasks in the stream of random numbers."""
        self._core = core
        self._options = options
        self._numbers = numbers

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Do what ``Cluster.submit`` does, with these options."""
        return self._submit(fn, args, kwargs, self._options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the cluster belongs to somebody else."""

    def __repr__(self) -> str:
        given = {
            each.name: value
            for each in fields(TaskOptions)
            if (value := getattr(self._options, each.name)) != each.default
        }
        return f"<Options {', '.join(f'{name}={value!r}' for name, value in given.items())}>"


class _Mapped:
    """A view as mapping.py sees it: the cluster for the tasks of one ``map``."""

    def __init__(self, view: TakesOptions, files: Mapping[str, bytes] | None) -> None:
        from p2p_ipython.protocol.needs import Needs

        self._view = view
        self._files = files or {}
        options = view._options
        self._needs = Needs("", options.on, options.tags, options.memory, options.gpus)
        self.maps, self.groups = view._core.maps, view._core.groups

    @property
    def slots(self) -> int:
        """How many of its tasks the workers that are there run at a time."""
        return self._view._core.slots_for(self._needs)

    def check_open(self) -> None:
        """Raise ``ClusterClosed`` unless the cluster takes tasks."""
        self._view._core.check_open()

    def submit_call(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, label: str = ""
    ) -> Future[Any]:
        """Submit a task of the map, under the view's label if it has one."""
        from p2p_ipython.task.many import call_each  # heavy: what is beside it loads cloudpickle

        options = self._view._options
        _, times, elements = label.rpartition(" ×")
        if options.label:
            label = f"{options.label}{times}{elements if times else ''}"
        retries = options.attempts_after_errors(self._view._core.settings.retries)
        if retries and fn is call_each:  # which a call that raises doesn't end
            kwargs = {"retries": retries, "retry_on": options.retry_on}
        return self._view._submit(fn, args, kwargs, replace(options, label=label), self._files)


def seed_of(seed: int, index: int) -> Seed:
    """Return the seed of one task."""
    from p2p_ipython.task.seeds import Seed

    return Seed(seed, index)
