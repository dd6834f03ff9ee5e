"""Tasks that wait for futures among their arguments: held here until the values have come, and then submitted.

A held task is frozen already; its futures' values are decoded and packed in a thread of their own, so that neither the
caller nor the loop waits. A future that fails or is cancelled ends the tasks that wait for it.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from p2p_ipython.client.aside import Aside
from p2p_ipython.client.future import Future, OutputSink
from p2p_ipython.errors import InputFailed, NotTrusted
from p2p_ipython.protocol.plain import count, plain
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import not_picklable
from p2p_ipython.task.inputs import fill

if TYPE_CHECKING:
    from p2p_ipython.task.task import Task

AnyFuture = concurrent.futures.Future[Any]

Submit = Callable[["Task", Future[Any], OutputSink], None]

aside = Aside("p2p-inputs")


@dataclass
class _Held:
    task: Task
    future: Future[Any]
    sink: OutputSink
    inputs: Sequence[AnyFuture]
    left: int
    """How many of the inputs aren't over."""


class Waiting:
    """The tasks of a cluster that wait for their inputs. All methods may be called from any thread."""

    def __init__(
        self, store: BufferStore, *, large: int, submit: Submit, fetch: Callable[[Callable[[], None]], None]
    ) -> None:
        """``fetch`` makes calls that decode and pack values."""
        self._fetch = fetch
        self._lock = threading.Lock()
        self._store = store
        self._large = large
        self._submit = submit
        self._held: dict[str, _Held] = {}
        self._ended = False

    def hold(self, task: Task, future: Future[Any], sink: OutputSink, inputs: Sequence[AnyFuture]) -> None:
        """Submit ``task`` once all its ``inputs`` are over; returns at once."""
        held = self._held[task.id] = _Held(task, future, sink, inputs, len(inputs))
        look = partial(self._one_is_over, task.id)
        for one in held.inputs:
            if isinstance(one, Future):
                one._promise.when_done(look)
                one._promise.ask()
            else:
                one.add_done_callback(look)
        if self._ended:  # meanwhile
            self.end()

    def drop(self, task_id: str) -> bool:
        """Hold a task no longer; return whether it was held. It is the caller's to end its future."""
        return self._taken(task_id) is not None

    def end(self) -> None:
        """Cancel all tasks that are held, because their cluster ends; hold none any more."""
        self._ended = True
        for task_id in list(self._held):
            if (held := self._taken(task_id)) is not None:
                held.future._promise.withdrawn()

    def why(self, task_id: str) -> str:
        """Say in words for what a task waits; "" if it is not held."""
        held = self._held.get(task_id)
        if held is None:
            return ""
        left = next((one for one in held.inputs if not one.done()), None)
        if held.left == 1 and isinstance(left, Future):
            return f"waiting for {plain(left.label, 40)} ({left.state_text})"
        return f"waiting for {count(held.left, 'future')} among its arguments"

    def tasks(self) -> list[tuple[str, str]]:
        """Return label and state in words of each task that is held, the oldest first."""
        return [(held.task.label, self.why(held.task.id)) for held in list(self._held.values())]

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._held

    def __len__(self) -> int:
        return len(self._held)

    # -- inside --

    def _taken(self, task_id: str) -> _Held | None:
        held = self._held.pop(task_id, None)
        if held is not None:
            self._store.unpin(held.task.large)
        return held

    def _one_is_over(self, task_id: str, one: AnyFuture) -> None:
        """Note that an input is over; called by the thread that has ended it."""
        held = self._held.get(task_id)
        if held is None:
            return
        with self._lock:
            held.left -= 1
        if not held.left or _has_failed(one):
            self._fetch(partial(self._go_on, held))

    def _go_on(self, held: _Held) -> None:
        """Submit a task with the values of its inputs, or end it without them."""
        if held.task.id not in self._held:  # cancelled, or another input has ended it
            return
        try:
            task = fill(held.task, _values(held.inputs), self._store, large=self._large)
        except Exception as error:
            if self.drop(held.task.id):
                _end(held.future, error)
            return
        if self._held.pop(held.task.id, None) is not None:
            self._submit(task, held.future, held.sink)
        else:
            self._store.unpin(ref for ref in task.large if ref not in held.task.large)


def _has_failed(one: AnyFuture) -> bool:
    """Return whether a future that is over has no value, as far as that is known without decoding it."""
    return one.cancelled() or one._exception is not None


def _values(inputs: Sequence[AnyFuture]) -> list[Any]:
    """Return the values of futures, of which one has failed or all are over. Raises ``_Failed``."""
    failed = [one for one in inputs if one.done() and _has_failed(one)]
    values = []
    for one in failed or inputs:
        try:
            values.append(one.result(0))
        except BaseException as error:
            raise _Failed(one, error) from None
    return values


class _Failed(Exception):
    """An input has no value: ``error`` says why."""

    def __init__(self, one: AnyFuture, error: BaseException) -> None:
        super().__init__()
        self.label = plain(one.label, 40) if isinstance(one, Future) else "a future"
        self.error = error


def _end(future: Future[Any], failure: Exception) -> None:
    """End a task that will not run, by the ``failure`` to get or to pack the values of its inputs."""
    label = plain(future.label, 40)
    if not isinstance(failure, _Failed):
        error: BaseException = not_picklable(f"the value of a future among the arguments of {label}", None, failure)
    elif isinstance(failure.error, concurrent.futures.CancelledError):
        future._promise.withdrawn(f"{failure.label}, for whose value it waited, was cancelled")
        return
    else:
        said = f"{type(failure.error).__name__}: {failure.error}".partition("\n")[0]
        hint = "The error's __cause__ has the whole story. Fix that, and submit both again."
        if isinstance(failure.error, NotTrusted):
            hint = f"{failure.error.hint} Then this future's again() runs it."
        error = InputFailed(
            f"{label} did not run, because {failure.label} among its arguments failed: {plain(said, 300)}", hint=hint
        )
        error.__cause__ = failure.error
    future._promise.failed(error)
