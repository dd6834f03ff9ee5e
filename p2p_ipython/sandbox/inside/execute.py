"""Execute one task: load its payload, run it, pack its value or describe its error.

::

    (task, body) ─► unpack ─► cell: Cells.run ─┐
                                call: fn(*args, **kwargs) ──┴─► pack_result ─► chunk…, result

A task with ``reply: "safe"`` comes from a client that won't unpickle what we send: its value is encoded
by task/safe.py, and if that can't be, the result says so and what of it was in the way. Its errors are words only.

The large segments of a result are sent first, as ``chunk`` frames; the ``result`` frame completes it. Whatever
the task raises, one ``result`` frame is sent.

After that the process is put back as it was, and a ``cleared`` frame says so; until then the agent keeps the result.
So the output of clearing up still comes before it, and a runner that dies meanwhile takes no result along. If something
can't be put back, the agent gives this runner no further task.

The runner imports it inside the sandbox: standard library, IPython and the unpickler only.
"""

from __future__ import annotations

import contextvars
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import CoroutineType
from typing import Any

from p2p_ipython.protocol.frames import MAX_HEADER, Buffer, FrameError, encode
from p2p_ipython.protocol.task_frames import MAX_ATTACHED, MAX_DETAIL, Cleared, Result, Task
from p2p_ipython.sandbox.inside.attach import Attachment, names_of
from p2p_ipython.sandbox.inside.buffers import Buffers
from p2p_ipython.sandbox.inside.call_line import show_call
from p2p_ipython.sandbox.inside.capture_output import Outlet
from p2p_ipython.sandbox.inside.channel import Channel
from p2p_ipython.sandbox.inside.describe_error import class_name, describe, text_of
from p2p_ipython.sandbox.inside.folder import TaskFolder
from p2p_ipython.sandbox.inside.interrupts import Interrupts
from p2p_ipython.sandbox.inside.library_state import LibraryState
from p2p_ipython.sandbox.inside.limits import Spare
from p2p_ipython.sandbox.inside.main_module import enter_main
from p2p_ipython.sandbox.inside.report_progress import Reporter
from p2p_ipython.sandbox.inside.shell import Cells, flush_figures, run_to_its_end
from p2p_ipython.sandbox.inside.threads import Left
from p2p_ipython.sandbox.inside.tidy import Baseline
from p2p_ipython.sandbox.inside.used_up import Limits
from p2p_ipython.task import many, modules, safe, setup
from p2p_ipython.task.around import Around
from p2p_ipython.task.batches import failed_call
from p2p_ipython.task.by_value import hold_referents
from p2p_ipython.task.classes import forget_classes
from p2p_ipython.task.datum import beside
from p2p_ipython.task.error_facts import facts
from p2p_ipython.task.loading import is_absent
from p2p_ipython.task.payload import Packed, in_pieces, pack_result, unpack
from p2p_ipython.task.safe.several import read
from p2p_ipython.task.script import run_script
from p2p_ipython.task.sources import forget_sources
from p2p_ipython.task.tracebacks import set_traceback

_NOTHING = pack_result(None)
_SAFE_NOTHING = safe.encode(None)
_MAX_TROUBLE = 500


class _Failed(Exception):
    """A step failed with ``error``; ``kind`` as in ``describe``."""

    def __init__(self, error: BaseException, kind: str) -> None:
        self.error = error
        self.kind = kind


@dataclass(frozen=True)
class _Value:
    """A task's value, packed. ``shown``: it is there to be shown. The rest is what its result says of it."""

    packed: Packed
    shown: bool = False
    seconds: float = 0.0
    codec: str = ""
    type_name: str = ""
    at: str = ""
    attachments: tuple[Attachment, ...] = ()


class Executor:
    """Runs tasks one after the other in the main thread; between them the process is as it was."""

    def __init__(
        self,
        *,
        channel: Channel,
        outlet: Outlet,
        reporter: Reporter,
        buffers: Buffers,
        interrupts: Interrupts,
        baseline: Baseline,
        cells: Cells,
        folder: TaskFolder,
        limits: Limits,
    ) -> None:
        self._channel = channel
        self._outlet = outlet
        self._reporter = reporter
        self._buffers = buffers
        self._interrupts = interrupts
        self._baseline = baseline
        self._cells = cells
        self._folder = folder
        self._limits = limits
        self._libraries = LibraryState()
        self._process = os.getpid()
        self._namespace: dict[str, Any] = {}
        self._task: Task | None = None
        self._around = Around()
        self._steps = (
            self._around.leave,
            modules.forget,
            baseline.restore,
            folder.clear,
            outlet.capture.restore,
            _flush_c,
            self._end_output,
            forget_classes,
            forget_sources,
            hold_referents,
        )
        setup.runner.run_cell = self._run_setup
        many.runner.complete = _complete
        many.runner.failed = self._call_failed
        hold_referents()
        self._steps_after_cell = (*self._steps, cells.forget)

    def perform(self, task: Task, body: Buffer) -> None:
        """Execute a task and send its result. Raises nothing that the task raises."""
        self._outlet.begin(task)
        self._reporter.begin(task)
        value, failed = _Value(_NOTHING), None
        try:
            try:
                self._interrupts.begin(task.id)
                # In a context of its own: numpy's print options, decimal's precision and the like are undone by that.
                value = contextvars.copy_context().run(self._attempt, task, body)
            finally:
                self._interrupts.end()
        except _Failed as failure:
            failed = failure
        except BaseException as error:  # an interrupt between two steps, or the shell, which the task has broken
            self._interrupts.end()
            failed = _Failed(error, self._kind(error, "exception"))
        self._baseline.restore_builtins()
        if os.getpid() != self._process:
            _end_fork(failed)
        if failed is None:
            self._end(task, value, None)
            return
        with Spare():
            self._end(task, value, failed)

    def _end(self, task: Task, value: _Value, failed: _Failed | None) -> None:
        """Tidy up, and send the result."""
        if failed is None:
            about = (round(value.seconds, 6), value.shown, value.codec, value.type_name, value.at)
            result = Result(task.id, task.attempt, True, value.packed.segments, *about)
            inline: Buffer = value.packed.inline
        else:
            result, inline = self._failure(task, failed)
            value = _Value(_NOTHING, attachments=self._left_by_failure(task, result))
            set_traceback(failed.error, None)
        if value.attachments:
            result = replace(result, attached=tuple(each.entry for each in value.attachments))
            inline = b"".join((inline, *(each.packed.inline for each in value.attachments)))
        for packed in (value.packed, *(each.packed for each in value.attachments)):
            for ref, view in packed.large.items():
                self._channel.send_chunks(task, ref, view)
        self._channel.send(result, inline)
        trouble = self._clear_up(task)
        # A namespace whose functions have it as their globals is a cycle; arrays shouldn't wait for the collector.
        dict.clear(self._namespace)
        # What a trouble has left is not known, so it must not meet another task: the agent starts another runner.
        self._channel.send(Cleared(trouble[:MAX_DETAIL]))
        self._prepare()

    def _prepare(self) -> None:
        """Put back what can be put back in any case, while the next task is on its way here."""
        try:
            self._cells.restore()
            self._libraries.restore()
        except BaseException:
            # As with a trouble, but ``Cleared`` is on its way. The agent starts another runner.
            os.kill(self._process, signal.SIGKILL)

    def _clear_up(self, task: Task) -> str:
        """Take each step, whatever becomes of the others; return what went wrong. The task may have broken anything."""
        troubles = []
        steps = self._steps if task.run == "call" else self._steps_after_cell
        for step in steps:
            try:
                step()
            except BaseException as error:
                troubles.append(f"{class_name(type(error))}: {text_of(error)}"[:_MAX_TROUBLE])
        return "; ".join(troubles)

    def _end_output(self) -> None:
        left: dict[int, Left] = {}
        try:
            left = self._baseline.threads_left()
        finally:
            self._outlet.end(left)
            self._reporter.end()

    def _attempt(self, task: Task, body: Buffer) -> _Value:
        """Run the task; return its value, packed. Raises ``_Failed``."""
        self._task = task
        enter_main({})
        try:
            large = self._buffers
            data: Buffer = b""
            if task.around or task.data:
                body, data, first = task.pieces(body)
                if task.around:
                    self._around.enter(unpack(task.around, first, large))
            self._folder.begin()
            with beside(read(in_pieces(task.data, data, large)) if task.data else []):
                payload = unpack(task.segments, body, large)
        except setup.SetupFailed as failed:
            raise _Failed(failed.error, self._kind(failed.error, "exception")) from None
        except BaseException as error:
            kind = "missing" if is_absent(error) else "unloadable"
            raise _Failed(error, self._kind(error, kind)) from None
        if task.run == "cell":
            # Functions in the payload have that very dict as their globals.
            if not isinstance(payload, dict):
                raise _Failed(TypeError("a cell's payload is not a namespace"), "unloadable")
            self._namespace, payload = payload, None
            enter_main(self._namespace)
            made = self._run_cell(task)
        else:
            try:
                function, arguments, keywords = payload
            except (TypeError, ValueError) as error:
                raise _Failed(error, "unloadable") from None
            del payload
            begun = time.perf_counter()
            try:
                value = _complete(function(*arguments, **keywords))
            except BaseException as error:
                if function is not run_script:
                    show_call(error, task.label, *failed_call(function, arguments, keywords))
                raise _Failed(error, self._kind(error, "exception")) from None
            finally:
                flush_figures()
            seconds = time.perf_counter() - begun
            if function is many.call_each:
                value = many.Outcomes(*value)
            del function, arguments, keywords
            safely = task.reply == "safe"
            if isinstance(value, many.Outcomes):
                made = self._each_packed(value, safely, seconds)
            else:
                made = self._packed(value, safely, seconds, cell=False)
        attachments = self._attachments(task)
        return replace(made, attachments=attachments) if attachments else made

    def _call_failed(self, error: BaseException, function: Callable[..., Any], arguments: Sequence[Any]) -> many.Failed:
        """Describe the error of one of a task's many calls, as that of a task."""
        if (kind := self._kind(error, "exception")) == "interrupted":
            raise error
        assert self._task is not None
        show_call(error, self._task.label, function, arguments, {})
        result, inline = self._failure(self._task, _Failed(error, kind))
        set_traceback(error, None)
        return result.header(), bytes(inline)

    def _run_cell(self, task: Task) -> _Value:
        """Run a cell; return its value, packed as it is before figures are drawn. Raises ``_Failed``."""
        safely, begun, packing = task.reply == "safe", time.perf_counter(), 0.0
        made = _nothing(safely)

        def take(value: object) -> None:
            nonlocal made, packing
            start = time.perf_counter()
            made = self._packed(value, safely, 0.0, cell=True)
            packing = time.perf_counter() - start

        outcome = self._cells.run(task.source, self._namespace, task.label, take=take)
        if outcome.error is not None:
            raise _Failed(outcome.error, self._kind(outcome.error, "exception"))
        return replace(made, seconds=time.perf_counter() - begun - packing)

    def _run_setup(self, source: str, namespace: dict[str, Any]) -> BaseException | None:
        """Run the cell that a notebook wants run before its first task; return its error."""
        enter_main(namespace)
        try:
            return self._cells.run(source, namespace, "setup", silent=True).error
        finally:
            enter_main({})

    def _packed(self, value: object, safely: bool, seconds: float, *, cell: bool) -> _Value:
        """Pack the task's value; show it if it is one of a cell that can't be read everywhere. Raises ``_Failed``."""
        if value is None:
            return replace(_nothing(safely), shown=True, seconds=seconds)
        codec = type_name = at = ""
        try:
            if safely:
                try:
                    return _Value(safe.encode(value), True, seconds, "safe")
                except safe.Unsupported as error:
                    if cell:
                        self._cells.show_value(value)
                        cell = False
                    codec, type_name, at = "pickle", error.type_name, error.at
            return _Value(pack_result(value), True, seconds, codec, type_name, at)
        except BaseException as error:
            if self._kind(error, "") == "interrupted":
                raise _Failed(error, "interrupted") from None
            if cell:
                self._cells.show_value(value)
            raise _Failed(_unpicklable(value, error), "unpicklable") from None

    def _each_packed(self, outcomes: many.Outcomes, safely: bool, seconds: float) -> _Value:
        """Pack the outcomes of many calls; those whose value can't be pickled fail alone. Raises ``_Failed``."""
        assert self._task is not None
        try:
            return self._packed(tuple(outcomes), safely, seconds, cell=False)
        except _Failed as failed:
            if failed.kind != "unpicklable":
                raise
        for index, value in enumerate(outcomes.values):
            try:
                pack_result(value)
            except Exception as error:
                result, inline = self._failure(self._task, _Failed(_unpicklable(value, error), "unpicklable"))
                outcomes.failures[index] = result.header(), bytes(inline)
                outcomes.values[index] = None
        return self._packed(tuple(outcomes), safely, seconds, cell=False)

    def _attachments(self, task: Task) -> tuple[Attachment, ...]:
        """Pack what goes with the value. Raises ``_Failed``."""
        try:
            names = names_of(task, self._namespace) if task.names or task.bind else []
            return (*names, *self._folder.left())[:MAX_ATTACHED]
        except BaseException as error:
            raise _Failed(error, self._kind(error, "unpicklable")) from None

    def _left_by_failure(self, task: Task, result: Result) -> tuple[Attachment, ...]:
        """Pack what a task has bound and left before it failed; nothing if that fails, too, or has no room there."""
        try:
            found = self._attachments(task)
            encode(replace(result, attached=tuple(each.entry for each in found)).header(), 0)
        except (_Failed, FrameError):
            return ()
        return found

    def _kind(self, error: BaseException, otherwise: str) -> str:
        ours = isinstance(error, KeyboardInterrupt) and self._interrupts.raised
        return "interrupted" if ours else otherwise

    def _failure(self, task: Task, failed: _Failed) -> tuple[Result, bytes]:
        note = self._limits.words(failed.error)
        description = describe(failed.error, failed.kind, self._cells.render, note)
        words = Result(task.id, task.attempt, False, (), 0.0, failure=description)
        safely = task.reply == "safe"
        try:
            packed = safe.encode(facts(failed.error)) if safely else pack_result(failed.error, error=True)
        except BaseException:
            return words, b""
        if packed.large or len(packed.inline) > MAX_HEADER // 4:
            return words, b""  # the words will do
        return replace(words, segments=packed.segments, codec="safe" if safely else ""), packed.inline


def _unpicklable(value: object, error: BaseException) -> TypeError:
    cls = type(value)
    return TypeError(f"the value is a {cls.__module__}.{cls.__qualname__}, which can't be pickled: {error!r}")


def _complete(value: Any) -> Any:
    """Return what a call has returned, or what its coroutine returns in the end."""
    return run_to_its_end(value) if isinstance(value, CoroutineType) else value


def _nothing(safely: bool) -> _Value:
    """Return the value of a task that has none, or None."""
    return _Value(_SAFE_NOTHING if safely else _NOTHING, codec="safe" if safely else "")


def _end_fork(failed: _Failed | None) -> None:
    """End a child that the task forked and that has come back from the task: it must not act as a second runner."""
    if failed is not None and not isinstance(failed.error, SystemExit):
        sys.excepthook(type(failed.error), failed.error, failed.error.__traceback__)
    os._exit(0 if failed is None else 1)


def _load_flush() -> Any:
    import ctypes

    return ctypes.CDLL(None).fflush


_fflush = _load_flush()


def _flush_c() -> None:
    """Write out what C code has printed and stdio still holds."""
    _fflush(None)
