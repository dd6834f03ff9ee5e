"""A sweep: the futures of one cell that runs for each of many settings, as one list.

All is frozen when it is submitted; tasks are then sent a few hundred ahead of the workers, so that a sweep of any
length costs the cluster little. What its tasks print is kept with each, and shown by ``sweep[n].replay()``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
import uuid
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any, overload

from p2p_ipython.client.aside import Aside
from p2p_ipython.client.asking import NOTHING, Asked, asking
from p2p_ipython.client.completing import as_completed
from p2p_ipython.client.frozen import with_buffers, without_buffers
from p2p_ipython.client.future import SAID_WITHIN, Future
from p2p_ipython.client.gathering import gather
from p2p_ipython.client.groups import Group, rough
from p2p_ipython.client.options import seed_of
from p2p_ipython.client.progress import Progress
from p2p_ipython.client.shown import Silent
from p2p_ipython.client.task_options import USUAL, TaskOptions
from p2p_ipython.errors import TaskForgotten, UsageError
from p2p_ipython.protocol.needs import Needs
from p2p_ipython.protocol.placement import fits
from p2p_ipython.protocol.plain import plain
from p2p_ipython.task.each import each_of, pins

if TYPE_CHECKING:
    from p2p_ipython.client.core import ClusterCore
    from p2p_ipython.task.capture import Captured
    from p2p_ipython.task.payload import Packed
    from p2p_ipython.task.task import Task

AHEAD = 32
"""Tasks that are on their way at a time for each slot, and ``AT_LEAST`` in all."""

AT_LEAST = 256

LISTED = 5
"""Failures that are listed in words, at most."""

_aside = Aside("p2p-sweep")


class Sweep(Sequence[Future[Any]]):
    """The futures of a cell that runs once for each setting, in order; from any thread.

    ``len``, indexes, slices and loops give its futures; ``settings`` the values that each ran with. ``result()`` and
    ``await`` give all values as a list.
    """

    def __init__(
        self,
        core: ClusterCore,
        label: str,
        settings: Sequence[Mapping[str, Any]],
        tasks: Sequence[Task],
        pinned: Sequence[str],
        *,
        options: TaskOptions = USUAL,
        cell: str = "",
    ) -> None:
        """Take tasks that are frozen, one a setting; ``pinned`` are their refs, as often as they are pinned."""
        self._options = options
        self.label = label
        self._settings = settings
        self._core = core
        self._tasks = [without_buffers(task) for task in tasks]
        self._pinned: Sequence[str] = pinned
        self._quiet = _Quiet(cell)
        self._lock = threading.RLock()
        self._turns: deque[int] = deque()
        self._on_way: set[str] = set()  # ids
        self._left = 0
        self._pumping = False
        self._all: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._said: threading.Event | None = None
        try:
            self._futures = [self._promised(task) for task in self._tasks]
        except BaseException:
            core.store.unpin(pinned)
            raise
        self.group: Group = core.groups.new(label, len(tasks), cancel=self.cancel, again=self.again_failed)
        weakref.finalize(self, core.groups.touched, self.group).atexit = False  # nothing can run again any more
        self._start(range(len(tasks)))

    # -- its futures --

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, index: int) -> Future[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Future[Any]]: ...
    def __getitem__(self, index: int | slice) -> Future[Any] | list[Future[Any]]:
        return self._futures[index]

    def __iter__(self) -> Iterator[Future[Any]]:
        return iter(list(self._futures))

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The names that were set for each, with their values, in order."""
        return [dict(setting) for setting in self._settings]

    @property
    def failed(self) -> list[Future[Any]]:
        """Those that have failed by now, in order; not those that were cancelled."""
        return [future for future in self if future._promise.failure and not future.cancelled()]

    # -- what comes of them --

    def result(self, timeout: float | None = None) -> list[Any]:
        """Return all values in order, waiting ``timeout`` seconds for them. Raises the first error, at once.

        ``p2p_ipython.gather(sweep, errors="return")`` gives errors in the place of values.
        """
        values = gather(self, timeout=timeout)
        if self._said is not None:
            self._said.wait(SAID_WITHIN)
        return values

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """Wait in any event loop; give what ``result`` gives, once all are over."""
        try:
            yield from asyncio.shield(asyncio.wrap_future(self._all)).__await__()
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self.result()

    async def __aiter__(self) -> AsyncIterator[tuple[dict[str, Any], Any]]:
        """Yield (setting, value) of each as it is ready. Raises the error of one that has failed."""
        numbers = {id(future): number for number, future in enumerate(self._futures)}
        async for future in as_completed(self):
            yield dict(self._settings[numbers[id(future)]]), future.result()

    def done(self) -> bool:
        """Return whether all are over, however they ended."""
        return not self._left

    @property
    def progress(self) -> Progress:
        """How far it is: how many are over, of how many, and for how long it takes yet."""
        standing = self.group.standing
        spent = (standing.ended or self._core.groups.clock()) - standing.began
        rate = standing.over / spent if standing.over and spent > 0 else None
        return Progress(float(standing.over), float(len(self)), self.label, rate, standing.left)

    def cancel(self) -> bool:
        """Cancel all that aren't over; return whether there were some. Returns at once."""
        with self._lock:
            self._turns.clear()
        return sum([future.cancel() for future in self if not future.done()]) > 0

    def again_failed(self) -> int:
        """Run those again that have failed or were cancelled, in their places; return how many these are.

        Raises ``TaskForgotten`` if what one of them needs is no longer kept here, and ``ClusterClosed``.
        """
        self._core.check_open()
        with self._lock:
            over = [number for number, future in enumerate(self._futures) if future._promise.failure]
            cancelled = sum(self._futures[number].cancelled() for number in over)
            if not over:
                return 0
            self._keep(over)
            for number in over:
                self._futures[number] = self._promised(self._tasks[number])
            if self._all.done():
                self._all = concurrent.futures.Future()
        self.group.anew(failed=len(over) - cancelled, cancelled=cancelled)
        self._start(over)
        return len(over)

    def frame(self) -> Any:
        """Return a ``pandas.DataFrame``, waiting for all: a column for each name that was set, and ``result``.

        Results that are dicts have a column for each key; the errors of those that have failed are in ``error``.
        Raises ``UsageError`` without pandas.
        """
        try:
            import pandas  # type: ignore[import-untyped,unused-ignore] # heavy, and optional
        except ImportError:
            raise UsageError(
                "frame() needs pandas, which isn't installed here",
                hint="Install pandas, or use zip(sweep.settings, sweep.result()).",
            ) from None
        concurrent.futures.wait(self)
        rows = []
        for setting, future in zip(self._settings, self, strict=True):
            row = dict(setting)
            if future._promise.failure:
                row["error"] = self._words(future)
            else:
                value = future.result()
                named = isinstance(value, dict) and all(isinstance(key, str) for key in value)
                row |= value if named else {"result": value}
            rows.append(row)
        return pandas.DataFrame(rows)

    def errors(self, most: int = LISTED) -> list[str]:
        """Return the errors of those that have failed, in words, as "alpha=0.3: ZeroDivisionError: …".

        Beyond ``most`` of them, the last line says how many more there are.
        """
        failed = self.failed
        lines = [f"{future.label}: {self._words(future)}" for future in failed[:most]]
        return [*lines, f"and {len(failed) - most:,} more"] if len(failed) > most else lines

    # -- for the notebook --

    @property
    def over(self) -> concurrent.futures.Future[None]:
        """Done once all are over; for ``wait``."""
        return self._all

    def shown_by(self, said: threading.Event) -> None:
        """Have ``result`` wait for ``said``, which is set once the line under its cell says how the tasks ended."""
        self._said = said

    def when_done(self, call: Callable[[], object]) -> None:
        """Call ``call`` once all are over, on the loop's thread: it must not block."""
        self._all.add_done_callback(lambda _all: call())

    # -- what it looks like --

    def __repr__(self) -> str:
        return f"<Sweep {plain(self.label, 40)}: {self.group.standing.words}>"

    def _repr_html_(self) -> str:
        standing = self.group.standing
        cells = {"settings": len(self), "done": standing.done, "failed": standing.failed}
        cells |= {"cancelled": standing.cancelled, "to come": len(self) - standing.over}
        shown = {name: f"{number:,}" for name, number in cells.items()}
        if standing.left and not standing.ended:
            shown["time left"] = f"about {rough(standing.left)}"
        head = "".join(f'<th style="text-align:right">{escape(name)}</th>' for name in shown)
        row = "".join(f'<td style="text-align:right">{escape(text)}</td>' for text in shown.values())
        rest = "".join(f"<div>{escape(line)}</div>" for line in self.errors())
        label = escape(plain(self.label, 80))
        return f"<div>{label}</div><table><thead><tr>{head}</tr></thead><tbody><tr>{row}</tr></tbody></table>{rest}"

    # -- inside --

    def _promised(self, task: Task) -> Future[Any]:
        return self._core.submitted.promised(uuid.uuid4().hex, task.label, self._options)

    def _keep(self, numbers: Sequence[int]) -> None:
        """Pin what these tasks need until all are over. Raises ``TaskForgotten``."""
        if self._pinned or self._left:  # all of it is pinned still
            return
        pinned: list[str] = []
        try:
            for number in numbers:
                task = with_buffers(self._tasks[number], self._core.store, "")
                pinned += task.packed.large
        except KeyError:
            self._core.store.unpin(pinned)
            raise TaskForgotten(
                f"what the tasks of {plain(self.label, 40)} need is no longer kept here", hint="Run its cell again."
            ) from None
        self._pinned = pinned

    def _start(self, numbers: Sequence[int]) -> None:
        with self._lock:
            self._left += len(numbers)
            self._turns.extend(numbers)
            for number in numbers:
                self._futures[number]._promise.when_done(functools.partial(self._over, number))
        if not numbers:
            self._ended()
        self._pump()

    def _pump(self) -> None:
        """Send as many as may be on their way now, unless that is being done: inline each of them runs meanwhile."""
        most = max(AT_LEAST, AHEAD * self._core.slots)
        with self._lock:
            if self._pumping:
                return
            self._pumping = True
        try:
            while self._send_next(most):
                pass
        except BaseException:
            with self._lock:
                self._pumping = False
            raise

    def _send_next(self, most: int) -> bool:
        """Send the next one; return False if none is to be sent now, and then ``_pump`` may run again."""
        while True:
            with self._lock:
                if not self._turns or len(self._on_way) >= most:
                    self._pumping = False
                    return False
                number = self._turns.popleft()
                future = self._futures[number]
                if future.done():
                    continue
                self._on_way.add(future.task_id)
                task = with_buffers(self._tasks[number], self._core.store, future.task_id)
            self._core.submitted.begin(task, future, self._quiet)
            return True

    def _over(self, number: int, future: Future[Any]) -> None:
        """Note that one is over; on the loop's thread, or that of the caller who cancels."""
        cancelled = future.cancelled()
        failed = not cancelled and future._promise.failure
        with self._lock:
            self._left -= 1
            self._on_way.discard(future.task_id)
            ended = not self._left
            wanted = bool(self._turns)
        self.group.over(1, failed=failed, cancelled=cancelled, seconds=future._took[0])
        if ended:
            self._ended()
        elif wanted:
            _aside.call(self._pump)

    def _ended(self) -> None:
        with self._lock:
            pinned, self._pinned = self._pinned, ()
            over = self._all
        self._core.store.unpin(pinned)
        self.group.end()
        if not over.done():
            over.set_result(None)

    @staticmethod
    def _words(future: Future[Any]) -> str:
        """Return a future's error in a line, or that it was cancelled."""
        if future.cancelled():
            return "cancelled"
        return future._promise.error_line or "failed"


def sweep_of(
    core: ClusterCore,
    captured: Captured,
    settings: Sequence[Mapping[str, Any]],
    *,
    label: str,
    word: Callable[[Mapping[str, Any]], str],
    options: TaskOptions = USUAL,
    asked: Asked = NOTHING,
    names: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    modules: bool = True,
    env: Iterable[str] = (),
    cell: str = "",
) -> Sweep:
    """Freeze a cell for each of ``settings`` and submit it; ``word`` labels the task of one.

    ``asked`` is what they all ask for; the other arguments are as in ``ClusterCore.submit_task``. Task n has the child
    n of the seed. Raises as ``each_of`` does.
    """
    core.check_open()
    made = _frozen(core, captured, settings, word=word, options=options, asked=asked, names=names)
    return _submitted(core, label, settings, made, options=options, files=files, modules=modules, env=env, cell=cell)


def sweep_of_workers(
    core: ClusterCore,
    captured: Captured,
    *,
    label: str,
    options: TaskOptions = USUAL,
    asked: Asked = NOTHING,
    names: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    modules: bool = True,
    env: Iterable[str] = (),
    cell: str = "",
) -> Sweep:
    """Submit a cell once for each worker that is there now and takes it; one that goes takes its task along.

    Raises ``UsageError`` if there is none.
    """
    core.check_open()
    (task,) = made = _frozen(core, captured, [{}], word=lambda _: label, options=options, asked=asked, names=names)
    needs = Needs(task.needs_python or "", options.on, options.tags, options.memory, options.gpus)
    if core.bridge is None:  # it is inline
        tasks, settings = [task], [{"worker": core.called()}]
    else:
        workers = [worker for worker in list(core.bridge.machine.workers.values()) if fits(worker, needs)]
        if not workers:
            core.store.unpin(pins(made))
            raise UsageError("no worker is here that takes this cell", hint="%p2p_status shows who is here, and why.")
        workers.sort(key=lambda worker: worker.name)
        tasks = [replace(task, label=plain(worker.name, 80), pin=worker.sid) for worker in workers]
        settings = [{"worker": plain(worker.name, 80)} for worker in workers]
    return _submitted(core, label, settings, tasks, options=options, files=files, modules=modules, env=env, cell=cell)


def _frozen(
    core: ClusterCore,
    captured: Captured,
    settings: Sequence[Mapping[str, Any]],
    *,
    word: Callable[[Mapping[str, Any]], str],
    options: TaskOptions,
    asked: Asked,
    names: Sequence[str],
) -> list[Task]:
    made = each_of(captured, settings, core.store, label=word, once=options.once, names=names, apart=core.shared)
    try:
        return [replace(asking(task, asked), timeout=options.timeout or 0.0) for task in made]
    except BaseException:
        core.store.unpin(pins(made))
        raise


def _submitted(
    core: ClusterCore,
    label: str,
    settings: Sequence[Mapping[str, Any]],
    tasks: list[Task],
    *,
    options: TaskOptions,
    files: Mapping[str, bytes] | None,
    modules: bool,
    env: Iterable[str],
    cell: str,
) -> Sweep:
    """Put around the tasks what they need, all of them the same but for their seeds, and submit them."""
    pinned, seed = pins(tasks), options.seed
    try:
        options = options.with_loggers()
        first = core.surroundings.noted(tasks[0], env=env, files=files, loggers=options.log or ())
        around: Packed | None = None
        for number, task in enumerate(tasks):
            if number == 0 or seed is not None:
                own = (*first.parts, *([] if seed is None else [seed_of(seed, number)]))
                light = without_buffers(replace(first, parts=own))
                around = core.surroundings.around(light, core.store, modules=modules).around
                pinned += around.large if around is not None else ()
            python = first.needs_python or task.needs_python
            tasks[number] = replace(task, around=around, parts=(), needs_python=python)
    except BaseException:
        core.store.unpin(pinned)
        raise
    return Sweep(core, label, settings, tasks, pinned, options=options, cell=cell)


class _Quiet(Silent):
    """The sink of its tasks: nothing of theirs is shown unasked. ``cell``: the front end's id of the cell."""

    def __init__(self, cell: str) -> None:
        self.cell = cell
