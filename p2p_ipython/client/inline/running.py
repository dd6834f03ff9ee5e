"""Runs tasks in this process: what stands in the place of the bridge.

``Here.submit`` returns when the task is over. Its frozen values are thawed anew, so it shares none with the notebook;
its value is packed as for a way back. Its error is the very one that it raised, with its frames, so that a debugger can
look at them. An error of a class of the notebook's is made one of the notebook's own class.
"""

from __future__ import annotations

import contextvars
import ctypes
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CoroutineType, SimpleNamespace
from typing import Any

from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.future import Future, OutputSink
from p2p_ipython.client.inline import cells
from p2p_ipython.client.inline.kept import Classes, classes_of, put_back
from p2p_ipython.client.inline.output import noted
from p2p_ipython.client.records import Records
from p2p_ipython.client.shown import Silent
from p2p_ipython.client.words import error_line
from p2p_ipython.config import Settings
from p2p_ipython.memory import fresh
from p2p_ipython.protocol.client_machine import TaskState
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.retries import error_words, is_among
from p2p_ipython.protocol.task_frames import MAX_ATTACHED, Result
from p2p_ipython.sandbox.inside.attach import names_of
from p2p_ipython.sandbox.inside.describe_error import describe
from p2p_ipython.sandbox.inside.main_module import enter_main
from p2p_ipython.task import many, running, setup, warned
from p2p_ipython.task.around import Around, Folder
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.classes import travels_by_value
from p2p_ipython.task.datum import beside
from p2p_ipython.task.environment import Environment
from p2p_ipython.task.outcome import may_be_raised
from p2p_ipython.task.payload import in_pieces, pack_result, unpack
from p2p_ipython.task.safe.several import read
from p2p_ipython.task.seeds import Seed, States
from p2p_ipython.task.setup import Setup, SetupFailed
from p2p_ipython.task.task import Task
from p2p_ipython.task.tracebacks import own_frames, set_traceback

WORKER = "inline"
"""What the worker is called that is none."""

_SETTLES = 0.1
"""Seconds in which an interrupt arrives that was sent to a task that has just ended."""

_OFTEN = 0.1
"""Seconds between two notes of what a task prints."""

_ENTERED = (Environment, Folder, Seed, States, Setup)
"""The parts around a task that count here; modules, files and settings are the notebook's own."""

classes_now: ContextVar[Classes | None] = ContextVar("p2p_classes", default=None)
"""The classes of the task that runs."""


class Here:
    """See the module; from any thread. ``note`` makes a call on the thread that has the records."""

    def __init__(
        self, store: BufferStore, settings: Settings, records: Records, note: Callable[[Callable[[], object]], None]
    ) -> None:
        self._store = store
        self._limit = settings.output_limit
        self._retries = settings.retries
        self._records = records
        self._note = note
        self._lock = threading.Lock()
        self._running: dict[str, int] = {}
        self._stopped: set[str] = set()

    @property
    def open(self) -> list[str]:
        """The ids of tasks that run now, one in the other."""
        return list(self._running)

    def submit(self, task: Task, future: Future[Any], sink: OutputSink | None) -> None:
        """Run a task, and return when its future is done. Raises ``KeyboardInterrupt`` if that interrupts it."""
        self._note(lambda: self._begun(task, sink))
        ended = TaskState.CANCELLED, 0.0, 0, ""
        try:
            if future._promise.sent():
                ended = self._run(task, future, silent=isinstance(sink, Silent))
        finally:
            self._store.unpin(task.large)
            future._promise.withdrawn("it was interrupted")  # unless it is over, or cancelled
            self._note(lambda: self._over(task.id, *ended))

    def withdraw(self, task_id: str) -> None:
        """Interrupt a task that runs; returns at once."""
        with self._lock:
            thread = self._running.get(task_id)
            if thread is None or thread == threading.get_ident():
                return
            self._stopped.add(task_id)
            if thread == threading.main_thread().ident and hasattr(signal, "pthread_kill"):
                signal.pthread_kill(thread, signal.SIGINT)
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))

    def why(self, task_id: str) -> str:
        """Where a task is, in words; "" when it is over."""
        return "running here" if task_id in self._running else ""

    # -- inside --

    def _run(self, task: Task, future: Future[Any], *, silent: bool) -> tuple[TaskState, float, int, str]:
        future._promise.started()
        options = future._options
        most, retried = options.attempts_after_errors(self._retries), 0
        try:
            with (
                self._interruptible(task.id),
                self._noted(task, future, silent),
                warned.noted(future._promise.warned),
            ):
                while True:
                    made = contextvars.copy_context().run(_attempt, task, self._store)
                    failed = made.result.failure
                    if failed is None or retried == most or not is_among(failed, options.retry_on):
                        break
                    retried += 1
                    sys.stderr.write(f"\n[retry {retried} of {most} after {error_words(failed)}]\n")
        except _Stopped:
            future._promise.withdrawn("its cancel() was called")
            return TaskState.CANCELLED, 0.0, 0, ""
        future.worker = WORKER
        if made.error is not None:
            future._promise.failed(made.error)
        else:
            future._promise.arrived(Arrived(made.result, made.inline, made.large, WORKER))
        failure = made.result.failure
        state = TaskState.DONE if failure is None else TaskState.FAILED
        return state, made.result.seconds or 0.0, made.result.size, error_line(failure) if failure is not None else ""

    @contextmanager
    def _interruptible(self, task_id: str) -> Iterator[None]:
        """Let ``withdraw`` interrupt the block, and nothing after it. Raises ``_Stopped`` if it has."""
        with self._lock:
            self._running[task_id] = threading.get_ident()
        interrupted = False
        try:
            yield
        except KeyboardInterrupt:
            interrupted = True
            if task_id not in self._stopped:
                raise
        finally:
            with self._lock:
                del self._running[task_id]
                sent = task_id in self._stopped
                self._stopped.discard(task_id)
            if sent and not interrupted:
                with suppress(KeyboardInterrupt):
                    time.sleep(_SETTLES)
        if sent:
            raise _Stopped

    def _noted(self, task: Task, future: Future[Any], silent: bool) -> AbstractContextManager[None]:
        return noted(future.outputs, self._limit, self._said(task.id), silent=silent)

    def _said(self, task_id: str) -> Callable[[str], None]:
        """Return what notes the text that a task prints, a few times a second."""
        last = 0.0

        def said(text: str) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= _OFTEN:
                last = now
                self._note(lambda: self._records.printed(task_id, text, ""))

        return said

    def _begun(self, task: Task, sink: object) -> None:
        self._records.submitted(task, sink)
        view: Any = SimpleNamespace(name=WORKER, certificate=SimpleNamespace(sid=WORKER.encode(), signer=""))
        now = time.time()
        self._records.journal.sent(task.id, view, 1, now)
        self._records.journal.running(task.id, now)

    def _over(self, task_id: str, state: TaskState, seconds: float, size: int, error: str) -> None:
        came = state is not TaskState.CANCELLED
        self._records.journal.ended(task_id, state, time.time(), came=came, seconds=seconds, size_out=size, error=error)
        self._records.feed.facts()


class _Stopped(Exception):
    """The task was cancelled while it ran."""


@dataclass(frozen=True)
class _Made:
    """The end of a task: its result as a worker would send it, or the very error that it raised."""

    result: Result
    inline: Buffer = b""
    large: Mapping[str, Buffer] = field(default_factory=dict)
    error: BaseException | None = None


class _Copies:
    """The large buffers of a task, each as a copy that it may write to."""

    def __init__(self, store: BufferStore) -> None:
        self._store = store

    def get(self, ref: str, /) -> Buffer | None:
        try:
            view = self._store.get(ref)
        except KeyError:
            return None
        copy = fresh(view.nbytes)
        copy[:] = view
        return copy


def _attempt(task: Task, store: BufferStore) -> _Made:
    """Run a task; return what becomes of it. In a context of its own. Raises ``KeyboardInterrupt``."""
    running.inline.set(True)
    above, classes = classes_now.get(), Classes()
    classes_now.set(classes)
    _serve()
    with put_back():
        try:
            return _run(task, store, classes)
        except SetupFailed as failed:
            return _failed(task, failed.error, above)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return _failed(task, error, above)


def _run(task: Task, store: BufferStore, classes: Classes) -> _Made:
    around, large = Around(), _Copies(store)
    try:
        enter_main({})
        with classes_of(classes):
            if task.around is not None:
                parts = unpack(task.around.segments, task.around.inline, large)
                around.enter([part for part in parts if isinstance(part, _ENTERED)])
            data = read(in_pieces(task.data.segments, task.data.inline, large)) if task.data is not None else []
            with beside(data):
                payload = unpack(task.packed.segments, task.packed.inline, large)
        begun = time.perf_counter()
        if task.source is not None:
            value = _Shown()
            enter_main(payload)
            cells.run_cell(task.source, payload, value.take)
            namespace, result = payload, value.value
        else:
            function, arguments, keywords = payload
            namespace = {}
            result = complete(function(*arguments, **keywords))
            if function is many.call_each:
                result = tuple(result)
        return _packed(task, result, namespace, time.perf_counter() - begun)
    finally:
        around.leave()


class _Shown:
    value: object = None

    def take(self, value: object) -> None:
        self.value = value


def _packed(task: Task, value: object, namespace: dict[str, Any], seconds: float) -> _Made:
    """Pack the value and the names that were asked for. Raises as they do."""
    try:
        packed = pack_result(value)
    except Exception as error:
        kind = type(value)
        words = f"the value is a {kind.__module__}.{kind.__qualname__}, which can't be pickled: {error!r}"
        failure = describe(TypeError(words), "unpicklable", str)
        return _Made(Result(task.id, 1, False, (), seconds, failure=failure))
    frame: Any = SimpleNamespace(names=task.names, bind=task.bind, reply="")
    found = names_of(frame, namespace)[:MAX_ATTACHED] if task.names or task.bind else []
    large: dict[str, Buffer] = dict(packed.large)
    for each in found:
        large |= each.packed.large
    attached = tuple(each.entry for each in found)
    result = Result(task.id, 1, True, packed.segments, round(seconds, 6), True, attached=attached)
    return _Made(result, b"".join((packed.inline, *(each.packed.inline for each in found))), large)


def _failed(task: Task, error: BaseException, above: Classes | None) -> _Made:
    failure = describe(error, "exception", _rendered)
    result = Result(task.id, 1, False, (), 0.0, failure=failure)
    if not may_be_raised(error):  # it would end an iteration or a wait of the caller's
        return _Made(result)
    set_traceback(error, own_frames(error.__traceback__))
    return _Made(result, error=_at_home(error, above) if travels_by_value(type(error)) else error)


def _at_home(error: BaseException, above: Classes | None) -> BaseException:
    """Return the error as one of the notebook's own class, with the same frames; itself if it can't travel."""
    try:
        packed = pack_result(error, error=True)
        with classes_of(above):
            found = unpack(packed.segments, packed.inline, packed.large)
    except Exception:
        return error
    if not isinstance(found, BaseException):
        return error
    set_traceback(found, error.__traceback__)
    return found


def _rendered(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def complete(value: Any) -> Any:
    """Return what a call has returned, or what its coroutine returns in the end."""
    return cells.to_its_end(value) if isinstance(value, CoroutineType) else value


def _serve() -> None:
    """Do for tasks of many calls, and for cells that set up, what a runner does; a runner does it itself."""
    if many.runner.failed is None:
        many.runner.complete, many.runner.failed = complete, _call_failed
    if setup.runner.run_cell is None:
        setup.runner.run_cell = _run_setup


def _call_failed(error: BaseException, function: Callable[..., Any], _arguments: Sequence[Any]) -> many.Failed:
    """Describe the error of one of a task's many calls. Raises an interrupt again."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    set_traceback(error, own_frames(error.__traceback__))
    words = describe(error, "exception", _rendered)
    try:
        packed = pack_result(error, error=True)
    except Exception:
        return Result("call", 1, False, (), 0.0, failure=words).header(), b""
    if packed.large:
        return Result("call", 1, False, (), 0.0, failure=words).header(), b""
    return Result("call", 1, False, packed.segments, 0.0, failure=words).header(), packed.inline


def _run_setup(source: str, namespace: dict[str, Any]) -> BaseException | None:
    enter_main(namespace)
    try:
        cells.run_cell(source, namespace, lambda _value: None)
    except Exception as error:
        return error
    finally:
        enter_main({})
    return None
