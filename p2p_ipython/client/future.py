"""The future of a task: ``concurrent.futures.Future``, awaitable, with the task's output.

A value that arrives is kept as bytes and decoded by the thread that first asks for it: that may take long and, with
a pickle, runs code, and the loop that serves the links must do neither. Whether the worker is trusted is asked then,
too: a result that can't be read without trust stays as it came, until its worker is trusted and somebody asks again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from p2p_ipython.client import views
from p2p_ipython.client.arrived import Arrived, value_of
from p2p_ipython.client.aside import Aside
from p2p_ipython.client.left_files import TaskFiles
from p2p_ipython.client.printing import printed
from p2p_ipython.client.progress import Progress
from p2p_ipython.client.relaying import Relayed, relays
from p2p_ipython.client.task_options import USUAL, TaskOptions
from p2p_ipython.client.words import ERROR, as_line, error_line, failed_word
from p2p_ipython.errors import NotTrusted, UsageError
from p2p_ipython.loop import background
from p2p_ipython.protocol.client_actions import ASKED
from p2p_ipython.protocol.plain import plain
from p2p_ipython.task.warned import MOST, Warned

if TYPE_CHECKING:
    from p2p_ipython.task.task import Task

log = logging.getLogger(__name__)

T = TypeVar("T")

SAID_WITHIN = 2.0
"""Seconds that a value waits for the line that says how its task ended; usually it takes less than a millisecond."""

RELAYED_WITHIN = 2.0
"""Seconds that a value waits for the records of its task's loggers."""

NOTICE = 10.0
"""Seconds after which the waiting caller hears that nobody can run their task."""

ASYNCIOS = asyncio.wrap_future.__module__
"""Where the callbacks come from by which ``await`` waits. They only wake a loop: a thread would make them slow."""

callbacks = Aside("p2p-callbacks")
"""Calls what users have given to ``add_done_callback``, where otherwise the thread that serves the links would."""

LEFT = "the cluster was disconnected before it was over"
"""Why a task was cancelled that nobody has cancelled, in words."""

OutputMessage = dict[str, Any]
"""{"kind": "stream", "name", "text"} or {"kind": "display_data" | "update_display_data" | "clear_output",
"content": {…}}, the contents as Jupyter's messaging protocol has them."""

OutputSink = Callable[[OutputMessage], None]
"""Shows a message; called on the loop's thread, in order, must not block."""


default_sink: Callable[[], OutputSink] = lambda: printed  # noqa: E731 - a setting; the magics put the cell's output here
"""Makes the sink of a task that was submitted without one, at its submission."""


interrupted: Callable[[Future[Any]], BaseException | None] = lambda _future: None  # noqa: E731 - as above
"""Returns what to raise in place of the ``KeyboardInterrupt`` that has ended a wait; a setting, as the one above."""


class Owner(Protocol):
    """The owner of a task: the cluster, which has it run."""

    def withdraw(self, task_id: str) -> bool:
        """Have the task stopped; return whether the future will be ended once that has happened. Returns at once."""
        ...

    def why(self, task_id: str) -> str:
        """Where the task is, or why it waits, in words."""

    def again(self, future: Future[Any]) -> Future[Any]:
        """Submit the future's task anew."""

    def trusts(self, signer: str) -> bool:
        """Whether the member with this key may run code here."""
        ...


@dataclass(frozen=True)
class Frozen:
    """A task, and the futures among its arguments whose values are still to come."""

    task: Task
    inputs: Sequence[concurrent.futures.Future[Any]] = ()


class Future(concurrent.futures.Future[T]):
    """The future value of a submitted task. Works in ``concurrent.futures.wait`` and ``as_completed``; awaitable.

    ``result()`` raises what the task raised, as the same class where that can be imported here, with the
    remote traceback. ``cancel()`` also stops a task that runs already. Its result is never delivered then; the future
    is done once the worker has said that the task has ended, and meanwhile it is "stopping on" that worker.
    ``task_id`` and ``label`` are texts; ``worker`` is the name of the worker that ran it, "" until it is over.
    ``outputs`` holds what the task printed and displayed, in order; ``replay()`` shows it again.

    >>> future = cluster.submit(print, "hello"); future.result()
    hello
    >>> future.result(), future.label, future.outputs
    (None, 'print', [{'kind': 'stream', 'name': 'stdout', 'text': 'hello\\n'}])
    >>> len(future.task_id), future.worker == "", future.done(), future.cancelled()
    (32, False, True, False)

    A result that only a pickle could carry, of a worker that isn't trusted, makes ``result()`` and ``await`` raise
    ``NotTrusted``, and ``exception()`` return it. The future is done, and the result is kept as it came: after
    ``%p2p_trust NAME`` they give the value, and nothing runs again.

    ``decode`` makes the value of what arrived, or raises; it is called once, or until it no longer raises
    ``NotTrusted``.
    """

    def __init__(
        self, task_id: str, label: str, owner: Owner, decode: Callable[[Arrived], T], options: TaskOptions = USUAL
    ) -> None:
        super().__init__()
        self.task_id = task_id
        self.label = label
        self.worker = ""
        """Name of the worker that ran it, once it is over."""
        self.outputs: list[OutputMessage] = []
        self._attached: dict[tuple[str, str], Arrived] = {}
        self._signer = ""
        self._took: tuple[float | None, int] = None, 0
        """Seconds that the task ran, and the bytes of its result."""
        self._owner = owner
        self._frozen: Frozen | None = None
        self._options = options
        self._ask: Callable[[], None] | None = None
        """Has a lazy task run."""
        self._said: threading.Event | None = None
        self._relayed = Relayed(options.log or (), label)
        self._warned: deque[Warned] = deque()
        """The warnings of the task that are still to be raised again."""

        self._deliver: Callable[[], None] | None = None
        self._shown_value: OutputMessage | None = None
        self._decode = decode
        self._advice: Callable[[BaseException], str] = lambda _error: ""
        self._sent = self._runs = False
        """Whether a worker has it, and whether it has said that it runs it."""
        self._stopping = self._ending = False
        """Whether it is being stopped, or is about to end otherwise: one of them at most."""
        self._progress: Progress | None = None
        self._asked = False
        """Whether somebody has asked how it ended."""
        self._why_cancelled = ASKED
        self._decoding = threading.Lock()

    # -- for its user --

    def result(self, timeout: float | None = None) -> T:
        """Return the value, waiting ``timeout`` seconds for it (None: as long as it takes).

        Raises what the task raised, ``TimeoutError``, ``concurrent.futures.CancelledError``, or a ``TaskError``; of
        these ``NotTrusted`` only until the worker is trusted.

        >>> cluster.submit(abs, -3).result(timeout=60)
        3
        """
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the task raised, or None; wait like ``result``. ``NotTrusted`` is returned, too.

        >>> cluster.submit(int, "x").exception()
        ValueError("invalid literal for int() with base 10: 'x'")
        """
        try:
            self._wait(timeout)
        except NotTrusted as error:
            return error
        return super().exception(0)

    def running(self) -> bool:
        """Return whether a worker runs it now, as far as that is known: of short tasks it never is.

        A task that is being stopped runs until its worker has said that it has ended.

        >>> cluster.submit(abs, -3).running()
        False
        """
        return self._runs and not self.done()

    def cancel(self) -> bool:
        """Withdraw the task, also if it runs; return False if it is over already. Returns at once, and never waits.

        After True its result is never delivered. A task that no worker has is over at once. Of any other, ``done()``,
        ``cancelled()``, ``result()``, ``await`` and callbacks follow when its worker has said that it has ended, or is
        lost. A worker ends a task that ignores that after 2 s (its ``cancel_grace``). One that says nothing for 10 s
        (``cancel_grace`` + 8 s; 30 s more, ``lease``, if its link is away) is not waited for any longer.

        >>> import time
        >>> cluster.submit(time.sleep, 600).cancel()
        True
        """
        with self._condition:
            if self._stopping or self.cancelled():
                return True
            if self._ending or self.done():
                return False
            self._stopping = True
            sent = self._sent
        if not (self._owner.withdraw(self.task_id) and sent):
            self._promise.withdrawn(ASKED)
        return True

    def again(self) -> Future[T]:
        """Submit the same task anew, also one that failed, was cancelled or is lost; return its future at once.

        It is the very task: with its arguments and names as they were when it was frozen. Its output is shown in the
        cell that runs now. Raises ``TaskForgotten`` for a task that has been over for so long that its arguments are
        no longer kept, and ``ClusterClosed``.

        >>> first = cluster.submit(pow, 2, 10)
        >>> second = first.again()
        >>> first.result(), second.result(), first.task_id == second.task_id
        (1024, 1024, False)
        """
        return self._owner.again(self)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call ``fn(future)`` once the task is over, or was cancelled; at once if it is over already.

        Callbacks may block and may wait for other futures. They run one after the other, in a thread of their own or
        in the one that calls ``cancel()``. An exception in one is logged by the logger "concurrent.futures".

        >>> import queue
        >>> over = queue.SimpleQueue()
        >>> cluster.submit(abs, -3).add_done_callback(lambda future: over.put(future.result()))
        >>> over.get(timeout=60)
        3
        """
        asyncios = getattr(fn, "__module__", None) == ASYNCIOS
        super().add_done_callback(fn if asyncios else partial(_call_aside, fn))
        if asyncios:  # somebody awaits it
            self._promise.ask()

    def __await__(self) -> Generator[Any, None, T]:
        """``await future`` in any event loop: a notebook's, or a program's."""
        return asyncio.wrap_future(self).__await__()

    def __getitem__(self, name: str) -> Any:
        """Return the value that the cell has bound to ``name``; waits for the task.

        Values come with the result if they are small and plain data, or if ``%%p2p --bind`` names them. Raises what the
        cell raised, unless it had bound the name by then; ``NotKept``, a ``KeyError``, for values that didn't come; and
        ``NotTrusted`` as ``result()`` does.

        >>> cluster.submit(abs, -3)["score"]
        Traceback (most recent call last):
        p2p_ipython.errors.NotKept: the task has not bound 'score'
        """
        if not isinstance(name, str):
            raise TypeError("a future has values by name: future['score']")
        error = self.exception()
        if error is not None and not isinstance(error, NotTrusted) and ("name", name) not in self._attached:
            raise error
        return value_of(name, self._attached, self.worker, self._decode)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the cell has bound, once it is over, whether their values are here or not.

        >>> future = cluster.submit(abs, -3)
        >>> future.result(), future.names
        (3, ())
        """
        return tuple(name for kind, name in self._attached if kind == "name" and name.isidentifier())

    @property
    def files(self) -> TaskFiles:
        """The files that the task has left in its folder, by name, once it is over: bytes with ``save()``.

        Tasks of a personal cluster on this machine work in the notebook's own folder, and leave their files there.

        >>> dict(cluster.submit(abs, -3).files)
        {}
        """
        return TaskFiles(self._attached, self.label, trusted=lambda: self._owner.trusts(self._signer))

    @property
    def state_text(self) -> str:
        """Where the task is, in words: "on worker-1", "waiting for a free slot of 2", "done on worker-2".

        >>> future = cluster.submit(abs, -3)
        >>> future.result(), future.state_text.partition(" on ")[0]
        (3, 'done')
        """
        if self.cancelled():
            return "cancelled"
        if self.done():
            word = "done" if self._exception is None else failed_word(self._exception)
            return f"{word} on {self.worker}" if self.worker else word
        words = self._owner.why(self.task_id) or "submitted"
        return f"stopping {words}" if self._stopping and words.startswith("on ") else words

    @property
    def error_text(self) -> str:
        """The error that it failed with, as it came: nothing is unpickled for that. "" for a task that hasn't failed.

        >>> future = cluster.submit(abs, -3)
        >>> future.result(), future.error_text
        (3, '')
        """
        failed = self._exception if self.done() and not self.cancelled() else None
        if not isinstance(failed, _Undecoded):
            return str(failed or "")
        failure = failed.result.result.failure
        return failure.traceback or failure.message if failure is not None else ""

    @property
    def stdout(self) -> str:
        """What the task has written to its standard output so far.

        >>> future = cluster.submit(print, "hello"); future.result()
        hello
        >>> future.stdout
        'hello\\n'
        """
        return self._written("stdout")

    @property
    def stderr(self) -> str:
        """What the task has written to its standard error so far.

        >>> future = cluster.submit(abs, -3)
        >>> future.result(), future.stderr
        (3, '')
        """
        return self._written("stderr")

    @property
    def progress(self) -> Progress | None:
        """How far the task says that it is, by ``p2p_ipython.progress`` or tqdm; None while it says nothing.

        It has ``done``, ``total``, ``label``, ``rate`` (a second) and ``left`` (seconds).

        >>> def work():
        ...     return sum(p2p_ipython.progress(range(20), label="adding"))
        >>> future = cluster.submit(work)
        >>> future.result(), future.progress.done, future.progress.total, future.progress.label
        (190, 20.0, 20.0, 'adding')
        """
        return self._progress

    def _written(self, name: str) -> str:
        messages = list(self.outputs)
        return "".join(each["text"] for each in messages if each["kind"] == "stream" and each["name"] == name)

    def replay(self) -> None:
        """Show the task's output again, in the cell that runs now.

        >>> future = cluster.submit(print, "hello"); future.result()
        hello
        >>> future.replay()
        hello
        """
        for message in list(self.outputs):
            if message["kind"] == "stream":
                stream = sys.stderr if message["name"] == "stderr" else sys.stdout
                stream.write(message["text"])
            elif message["kind"] == "display_data":
                # Late: IPython is heavy, and a script may have none.
                from IPython.display import publish_display_data

                content = message["content"]
                publish_display_data(content.get("data", {}), content.get("metadata", {}))  # type: ignore[no-untyped-call]

    @property
    def _promise(self) -> Promise:
        return Promise(self)  # made anew: a circle of references would keep large values for a while

    def __dir__(self) -> list[str]:
        # What an executor calls is no user's to call.
        return [name for name in super().__dir__() if not name.startswith("set_")]

    def __repr__(self) -> str:
        return f"<Future {plain(self.label, 40)}: {self.state_text}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any] | None:
        return views.future(self) if views.future is not None else None

    # -- inside --

    def _get_snapshot(self) -> Any:
        """Return what asyncio of Python 3.14 copies a future's outcome from, instead of asking for it."""
        if self.done() and not self.cancelled():
            try:
                self._wait(0)
            except NotTrusted as error:
                return True, False, None, error
        return super()._get_snapshot()  # type: ignore[misc]

    def _notify(self) -> None:
        with self._condition:
            if self._state == "CANCELLED":
                self.set_running_or_notify_cancel()

    def _wait(self, timeout: float | None) -> None:
        """Wait until the task is over, and turn what arrived into the value or the exception, once.

        Raises ``NotTrusted`` and keeps what arrived when that needs trust.
        """
        self._promise.ask()
        if not self.done() and background().is_current():
            raise UsageError(
                "this would wait for a task on the thread that serves the cluster",
                hint="Wait for it in another thread, or await it in another loop.",
            )
        try:
            self._wait_aloud(timeout)
        except concurrent.futures.CancelledError:
            raise Cancelled(self.label, self._why_cancelled) from None
        except KeyboardInterrupt:
            if (instead := interrupted(self)) is None:
                raise
            raise instead from None
        self._asked = True
        if not background().is_current():
            relays.drain(RELAYED_WITHIN)
            printed.drain()  # the task's output comes before its value
            if self._deliver is not None:
                self._deliver()
            if self._said is not None:  # what comes after the last cell of a notebook is lost where it is executed
                self._said.wait(SAID_WITHIN)
            self._warn()
        with self._decoding:
            kept: Any = self._exception.result if isinstance(self._exception, _Undecoded) else self._result
            if not isinstance(kept, Arrived):
                return
            try:
                value, error = self._decode(kept), None
            except NotTrusted:
                raise
            except BaseException as raised:
                if isinstance(raised, KeyboardInterrupt) and kept.result.ok:
                    raise  # the user's own, while unpickling: ask again later
                from p2p_ipython.task.outcome import with_hint, without_way  # it is there: the error was made by it

                value, error = None, without_way(raised)
                if hint := self._advice(raised):
                    with_hint(raised, hint)
            self._result, self._exception = value, error

    def _warn(self) -> None:
        """Raise the task's warnings again, each once. Raises the first that a filter makes an error."""
        while self._warned:
            try:
                warned = self._warned.popleft()
            except IndexError:  # another thread has it
                break
            warned.raise_again()

    def _wait_aloud(self, timeout: float | None) -> None:
        """Wait until the task is over; once, when that takes long because nobody can run it, say so."""
        if timeout is None or timeout > NOTICE:
            try:
                super().exception(NOTICE)
            except concurrent.futures.TimeoutError:
                self._promise.warn_if_stuck()
                timeout = timeout if timeout is None else timeout - NOTICE
        super().exception(timeout)


_STUCK = re.compile(r"waiting for (?:a worker|.*(?:; here:|none is here))")


class Promise:
    """The other side of a future: what its cluster and the notebook do with it. ``future._promise`` has it."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future
        self.outputs = future.outputs

    def advise(self, advice: Callable[[BaseException], str]) -> None:
        """Add to the error of a task that fails what ``advice`` says of it, if it isn't ""."""
        self.future._advice = advice

    def ends_with(self, said: threading.Event) -> None:
        """Have a value wait for ``said``, which is set once the line under its cell says how the task ended."""
        self.future._said = said

    def shown_by(self, sink: OutputSink) -> None:
        """Have each wait for the task end with its output where ``sink`` puts it."""
        self.future._deliver = getattr(sink, "deliver", None)

    def when_done(self, call: Callable[[Any], object]) -> None:
        """Call ``call(future)`` as ``add_done_callback`` does, but on the loop's thread: it must not block."""
        concurrent.futures.Future.add_done_callback(self.future, call)

    def cancelled(self) -> bool:
        """Return whether the user has cancelled the task; a worker may have it still."""
        return self.future._stopping or self.future.cancelled()

    @property
    def failure(self) -> bool:
        """Whether the task is over, and has failed or was cancelled."""
        return self.future.done() and (self.future.cancelled() or self.future._exception is not None)

    def ask(self) -> None:
        """Have the task run, if it is lazy."""
        ask, self.future._ask = self.future._ask, None
        if ask is not None:
            ask()

    @property
    def error_line(self) -> str:
        """The error that it failed with as one line of plain text, as "ValueError: no such thing"; "" for none."""
        failed = self.future._exception if self.failure and not self.future.cancelled() else None
        if failed is None:
            return ""
        if isinstance(failed, _Undecoded) and (failure := failed.result.result.failure) is not None:
            return error_line(failure)
        return as_line(f"{type(failed).__name__}: {str(failed).strip()}", ERROR)

    def warn_if_stuck(self) -> None:
        """Log a warning if the task waits for a worker that isn't there."""
        future = self.future
        why = "" if future.done() else future._owner.why(future.task_id)
        if _STUCK.search(why):  # or the task whose value it needs does
            log.warning("%s is %s", plain(future.label, 40), why)

    # -- on the loop's thread --

    def sent(self) -> bool:
        """Note that the task is to be sent to a worker now; return False if it was cancelled before: don't send it."""
        with self.future._condition:
            self.future._sent = not self.future._stopping
            return self.future._sent

    def started(self) -> None:
        """Note that a worker runs the task."""
        self.future._runs = True

    def handed_back(self) -> None:
        """Note that no worker has the task any more."""
        self.future._sent = self.future._runs = False

    def _may_end(self) -> bool:
        """Return whether the task may end otherwise than by being cancelled: from now on ``cancel()`` is too late.

        A task that was cancelled before ends so, whatever has come of it: a cancelled future is never delivered.
        """
        with self.future._condition:
            if not self.future._stopping:
                self.future._ending = True
                return True
        self.withdrawn(ASKED)
        return False

    def is_at(self, progress: Progress | None) -> None:
        """Note how far the task is, as it says itself."""
        self.future._progress = progress

    def warned(self, warned: Warned) -> None:
        """Keep a warning of the task until somebody asks how it ended."""
        future = self.future
        if future._options.stdout == "off":
            warned = replace(warned, shown=False)
        if len(future._warned) < MOST:
            future._warned.append(warned)

    def arrived(self, result: Arrived) -> None:
        """Take the outcome of a task that is over; it is unpickled when the user asks for it."""
        self.future.worker, self.future._signer = result.worker, result.signer
        self.future._took = result.result.seconds, result.size
        result, attached = result.taken_apart()
        if not self._may_end():
            return
        self.future._attached = attached
        try:
            if result.result.ok:
                self.future.set_result(result)
            else:  # stored as a failure, for `wait(…, FIRST_EXCEPTION)`
                self.future.set_exception(_Undecoded(result))
        except concurrent.futures.InvalidStateError:
            pass  # withdrawn in the same moment, because the cluster ends

    def failed(self, error: BaseException) -> None:
        """End a task that has no result."""
        if not self._may_end():
            return
        try:
            self.future.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass

    def withdrawn(self, why: str = LEFT) -> None:
        """Cancel the future, from any thread; ``why`` says in words by what."""
        future = self.future
        if not future.cancelled():
            future._why_cancelled = why
        if concurrent.futures.Future.cancel(future):
            future._notify()


def _call_aside(fn: Callable[[concurrent.futures.Future[T]], object], future: concurrent.futures.Future[T]) -> None:
    """Call a user's callback: in a thread of its own when this is the thread that serves the links."""
    if background().is_current():
        callbacks.call(partial(_call_and_log, fn, future))
    else:
        fn(future)


def _call_and_log(fn: Callable[[concurrent.futures.Future[T]], object], future: concurrent.futures.Future[T]) -> None:
    try:
        fn(future)
    except BaseException:  # SystemExit, too, is nobody's here
        logging.getLogger("concurrent.futures").exception("exception calling callback for %r", future)


class Cancelled(concurrent.futures.CancelledError):
    """The task was cancelled; the message says by what."""

    def __init__(self, label: str, why: str) -> None:
        super().__init__(f"{plain(label, 40)} was cancelled: {why}")

    def _render_traceback_(self) -> list[str]:
        return [f"CancelledError: {self}"]


class _Undecoded(Exception):
    """Stands for the exception of a task until somebody asks for it."""

    def __init__(self, result: Arrived) -> None:
        super().__init__()
        self.result = result
