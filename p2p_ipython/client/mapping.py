"""``Cluster.map``: calls for many elements, in tasks of as many elements as take a worker about ``CHUNK`` seconds.

How many that is, is measured: the first tasks have one element each, the next ones grow by what those took. Elements
are taken and frozen a few tasks ahead of the workers, so that a generator may be of any length and memory stays
bounded. Elements of collections are there in any case: they are sent on while the caller does something else.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from p2p_ipython.client import groups as groups_module
from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.aside import Aside
from p2p_ipython.client.bars import Bar
from p2p_ipython.client.completing import Values
from p2p_ipython.client.future import Cancelled, Future
from p2p_ipython.client.groups import Group, Groups
from p2p_ipython.errors import CaptureError, NotPicklable, RemoteProtocolError
from p2p_ipython.loop import background
from p2p_ipython.protocol.plain import plain

CHUNK = 0.05
"""Seconds that a task of several elements should take: fifty times what a task costs by itself."""

MAX_ELEMENTS = 5_000
MAX_BYTES = 4 << 20
"""Elements of one task, and the bytes that they and their values should have, at most."""

GROWTH = 16
"""How many times as many elements as the largest task that has come back a task may have."""

AHEAD = 4
"""Tasks that are on their way at a time, for each slot."""

SHOWN_AFTER = 1.0
"""Seconds after which people see how far it is."""

BEHIND = 8
"""Tasks, for each slot, whose values the caller of a generator's map may have yet to take."""

_LIGHT = frozenset({int, float, bool, complex, type(None)})

_KEPT = (range, tuple, str, bytes)
"""Collections that can't change while their elements are taken; others are copied."""

_aside = Aside("p2p-map")

Chunksize = int | Literal["auto"]


class Core(Protocol):
    """What calls need of their cluster."""

    maps: weakref.WeakSet[Calls]
    groups: Groups

    @property
    def slots(self) -> int:
        """How many tasks the workers that are there run at a time."""

    def check_open(self) -> None:
        """Raise ``ClusterClosed`` unless it takes tasks."""

    def submit_call(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, label: str = ""
    ) -> Future[Any]:
        """Submit a call."""
        ...


class Chunks:
    """Decides how many elements the next task gets. ``elements`` and ``slots`` are counts, times seconds."""

    def __init__(self, fixed: int | None = None, buffer: int | None = None) -> None:
        self._fixed = fixed
        self._buffer = buffer
        self._each: float | None = None
        self._bytes = 0.0
        self._largest = 0
        self.tasks = 0
        """Tasks that are on their way."""
        self.elements = 0
        """Elements that were taken, and whose values nobody has yet."""

    def next(self, slots: int, left: int | None = None) -> int:
        """Return how many elements to send now, 0 for none; ``left``: of how many, None if that isn't known."""
        slots = max(1, slots)
        if self.tasks >= AHEAD * slots:
            return 0
        size = self._fixed or self._measured()
        if left is not None and not self._fixed:
            size = min(size, -(-left // (2 * slots)))  # in the end all slots should have something to do
        if self._buffer is not None:
            if not self._fixed:
                size = min(size, max(1, self._buffer // (2 * slots)))
            size = min(size, self._buffer - self.elements)
        elif left is None:
            size = min(size, BEHIND * slots * max(size, self._largest) - self.elements)
        return max(0, size if left is None else min(size, left))

    def rest(self, slots: int, left: int) -> int:
        """Return how many of ``left`` elements to send now if all are to be sent at once."""
        if self._fixed or self._each is not None:
            return min(left, self._fixed or self._measured())
        return min(-(-left // (AHEAD * max(1, slots))), MAX_ELEMENTS)

    def _measured(self) -> int:
        if self._each is None:
            return 1
        fits = min(CHUNK / max(self._each, 1e-9), MAX_BYTES / max(self._bytes, 1.0))
        return max(1, min(int(fits), GROWTH * self._largest, MAX_ELEMENTS))

    def sent(self, elements: int) -> None:
        """Note that a task is on its way."""
        self.tasks += 1
        self.elements += elements

    def over(self, elements: int, seconds: float | None, size: int) -> None:
        """Note that a task is over. ``seconds`` that it ran, None if that isn't known; ``size`` of its bytes."""
        self.tasks -= 1
        if seconds is None:
            return
        each, bytes_ = seconds / elements, size / elements
        self._each = each if self._each is None else (self._each + each) / 2
        self._bytes = max(bytes_, self._bytes / 2)
        self._largest = max(self._largest, elements)

    def taken(self, elements: int) -> None:
        """Note that the caller has the values of so many elements."""
        self.elements -= elements


def mapped(
    core: Core,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    chunksize: Any,
    buffersize: Any,
    ordered: bool,
    progress: bool | None = None,
) -> Values[Any]:
    """Do what ``Cluster.map`` does. Raises ``ValueError`` and ``TypeError`` as an executor does."""
    from p2p_ipython.task.task import refuse_what_is_no_function  # heavy: it loads cloudpickle

    if chunksize != "auto" and chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
    refuse_what_is_no_function(function)
    core.check_open()
    end = None if timeout is None else time.monotonic() + timeout
    chunks = Chunks(None if chunksize == "auto" else chunksize, buffersize)
    calls = Calls(core, function, iterables, chunks, ordered=ordered)
    calls.begin()
    core.maps.add(calls)
    calls.follow(progress)
    return Values(calls.values(end), calls.cancel)


@dataclass(eq=False)
class _Sent:
    """A task on its way. ``alone``: its value is that of one call, else those of ``call_each``."""

    future: Future[Any]
    elements: int
    alone: bool = False


class Calls:
    """The calls of one ``map``. From any thread; elements are taken by one at a time."""

    def __init__(
        self,
        core: Core,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        chunks: Chunks,
        *,
        ordered: bool,
    ) -> None:
        self._core = core
        self._function = function
        self._label = str(getattr(function, "__qualname__", type(function).__qualname__))
        self._left: int | None = None
        """Elements that are there and not sent; None if they come by and by."""
        if all(isinstance(each, Sized) for each in iterables):
            iterables = tuple(each if isinstance(each, _KEPT) else tuple(each) for each in iterables)
            self._left = min(map(len, iterables), default=0)  # type: ignore[arg-type]
        self._rows: Iterator[tuple[Any, ...]] = zip(*iterables)  # noqa: B905 - as map does
        self._chunks = chunks
        self._taking = threading.RLock()  # for long: elements are frozen
        self._lock = threading.Lock()  # for moments: the loop's thread wants it, too
        self._way: deque[_Sent] = deque()
        self._awaited: _Sent | None = None
        self._over: queue.SimpleQueue[_Sent] | None = None if ordered else queue.SimpleQueue()
        self._ended = self._closed = False
        self._trouble: BaseException | None = None
        self.group = core.groups.new(self._label, self._left, cancel=self.cancel, shown=False)
        weakref.finalize(self, self.group.end).atexit = False

    def begin(self) -> None:
        """Send the first tasks. Raises what the elements or freezing them raise; then none are on their way."""
        self.pump()
        if self._trouble is not None:
            self.cancel()
            raise self._trouble

    def pump(self, *, all_of_them: bool = False) -> None:
        """Send as many tasks as may be on their way now. What goes wrong is raised after the values before it."""
        with self._taking:
            while not self._ended and (size := self._size(all_of_them)):
                rows: list[tuple[Any, ...]] = []
                try:
                    self._take(rows, size)
                    self._send(rows)
                except Exception as error:
                    self._end(error)
                except BaseException as error:  # the user's interrupt
                    self._end(error)
                    raise

    def _size(self, all_of_them: bool) -> int:
        slots = self._core.slots
        with self._lock:
            if all_of_them and self._left is not None:
                return self._chunks.rest(slots, self._left)
            return self._chunks.next(slots, self._left)

    def _take(self, rows: list[tuple[Any, ...]], size: int) -> None:
        """Add up to ``size`` elements, of ``MAX_BYTES`` about; those before one that fails are sent."""
        heavy = 0
        try:
            for row in self._rows:
                rows.append(row)
                heavy += sum(_bytes_of(each) for each in row if type(each) not in _LIGHT)
                if len(rows) == size or heavy >= MAX_BYTES:
                    break
            else:
                self._end()
        except Exception as error:
            self._end(error)
        if self._left is not None:
            self._left -= len(rows)
            if not self._left:
                self._end()

    def _end(self, error: BaseException | None = None) -> None:
        self._ended = True
        self._trouble = self._trouble or error

    def _send(self, rows: list[tuple[Any, ...]]) -> None:
        from p2p_ipython.task.many import call_each  # heavy: what is beside it loads cloudpickle

        if not rows:
            return
        if not any(isinstance(each, concurrent.futures.Future) for row in rows for each in row):
            label = f"{self._label} ×{len(rows)}" if len(rows) > 1 else self._label
            try:
                self._note(self._core.submit_call(call_each, (self._function, rows), {}, label=label), len(rows))
                return
            except (CaptureError, NotPicklable):
                pass  # alone, the one that is to blame says which of its arguments it is
        for row in rows:
            self._note(self._core.submit_call(self._function, row, {}), 1, alone=True)

    def _note(self, future: Future[Any], elements: int, *, alone: bool = False) -> None:
        sent = _Sent(future, elements, alone)
        with self._lock:
            self._chunks.sent(elements)
            self._way.append(sent)

        def over(_future: object) -> None:
            self._is_over(sent)

        future._promise.when_done(over)
        if self._closed:  # while it was frozen, in another thread
            future.cancel()

    def _is_over(self, sent: _Sent) -> None:
        """Measure; on the loop's thread, or that of the caller who cancels."""
        seconds, size = sent.future._took
        with self._lock:
            self._chunks.over(sent.elements, seconds, size)
        number, bad = sent.elements, sent.future._promise.failure
        cancelled = number if sent.future.cancelled() else 0
        self.group.over(number, failed=number if bad and not cancelled else 0, cancelled=cancelled, seconds=seconds)
        if self._over is not None:
            self._over.put(sent)
        if self._left is not None and not self._ended:
            _aside.call(self._pump_aside)

    def _pump_aside(self) -> None:
        with contextlib.suppress(BaseException):  # its caller hears of it
            self.pump()

    def follow(self, progress: bool | None) -> None:
        """Show how far it is to people, once it takes long. ``progress``: whether by a bar; None: as is usual here."""
        show_later(self._core.groups, self.group, progress)

    # -- for the caller --

    def values(self, end: float | None) -> Generator[Any, None, None]:
        """Yield the values; ``end``: the time, of ``time.monotonic``, until when. Cancels what is left when closed."""
        try:
            while (sent := self._next(end)) is not None:
                try:
                    outcomes = sent.future.result(_until(end))
                finally:
                    sent.future.cancel()
                    self._awaited = None
                try:
                    yield from _values_of(sent, ([outcomes], {}) if sent.alone else outcomes)
                except Exception:
                    self.group.fail()
                    raise
                with self._lock:
                    self._chunks.taken(sent.elements)
            if self._trouble is not None:
                raise self._trouble
        finally:
            self.cancel()
            self.group.end()

    def _next(self, end: float | None) -> _Sent | None:
        """Return the task whose values come next; None when there is none any more."""
        self.pump()
        with self._lock:
            if not self._way:
                return None
            if self._over is None:
                self._awaited = self._way.popleft()
                return self._awaited
        try:
            sent = self._over.get(timeout=_until(end))
        except queue.Empty:
            raise TimeoutError from None
        with self._lock:
            self._way.remove(sent)
        return sent

    def cancel(self) -> None:
        """Take no more elements, and cancel what is on its way."""
        self._ended = self._closed = True
        with self._lock:
            way = list(self._way)
            if self._awaited is not None:  # in another thread
                way.append(self._awaited)
        for sent in way:
            sent.future.cancel()

    def shut(self, *, cancel: bool) -> None:
        """Send all elements that are there, or none: the cluster takes no more tasks."""
        if cancel:
            with self._taking:
                if not self._ended:
                    self._end(Cancelled(self._label, "the cluster was shut down"))
        elif self._left is not None:
            self.pump(all_of_them=True)


def show_later(groups: Groups, group: Group, progress: bool | None = None) -> None:
    """Show a group to people, if it takes long. ``progress``: whether by a bar, too; None: as is usual here."""
    line: Callable[[Group], object] = groups_module.default_line() if progress is None else Bar

    def show() -> None:
        if not group.ended:
            groups.show(group)
            if progress is not False:
                line(group)

    loop = background().loop
    loop.call_soon_threadsafe(lambda: loop.call_later(SHOWN_AFTER, show))


def _values_of(sent: _Sent, outcomes: Any) -> Iterator[Any]:
    """Yield the values of a task of many calls. Raises the error of the first that has failed."""
    from p2p_ipython.task.many import Outcomes

    try:
        values, failures = Outcomes(*outcomes)
        if not isinstance(values, list) or len(values) != sent.elements or not isinstance(failures, dict):
            raise TypeError
    except TypeError:
        raise _nonsense(sent.future) from None
    values.reverse()
    for index in range(sent.elements):
        if index in failures:
            raise _error_of(sent.future, failures[index])
        yield values.pop()  # whoever has it is the only one


def _error_of(future: Future[Any], failed: Any) -> BaseException:
    """Return the error of one of a task's calls, as ``exception()`` returns that of a task."""
    from p2p_ipython.protocol.task_frames import Result, ResultParts, read_worker
    from p2p_ipython.task.outcome import without_way

    try:
        header, body = failed
        result = read_worker(header)
        if not isinstance(result, Result) or result.ok or result.attached or result.has_chunks:
            raise TypeError
        ResultParts().result(result, len(body))
    except (TypeError, ValueError, LookupError, RemoteProtocolError):
        return _nonsense(future)
    try:
        future._decode(Arrived(result, body, {}, future.worker, future._signer))
    except BaseException as error:
        return without_way(error)
    return _nonsense(future)


def _nonsense(future: Future[Any]) -> RemoteProtocolError:
    worker = plain(future.worker, 80)
    return RemoteProtocolError(
        f"{worker or 'a worker'} sent something else than the values of {plain(future.label, 40)}",
        peer=worker,
        hint="It may have another version of p2p_ipython there.",
    )


def _bytes_of(argument: Any) -> int:
    """Return the size of text, bytes or an array; 0 for other objects, of which it isn't known so quickly."""
    size = len(argument) if isinstance(argument, str | bytes) else getattr(argument, "nbytes", 0)
    return size if isinstance(size, int) else 0


def _until(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
