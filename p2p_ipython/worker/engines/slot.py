"""A slot whose tasks an engine runs: the agent's side of one job after the other.

The engine gets a task as a whole, once all its large buffers are here, and gives all it has printed and its result at
the end: nothing is shown while it runs.

Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, Protocol

from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.protocol.frames import MAX_BODY, Buffer, FrameError, FrameReader, Header, encode
from p2p_ipython.protocol.task_frames import (
    NewBuffer,
    Output,
    Piece,
    Result,
    ResultChunk,
    ResultParts,
    Task,
    TaskFailure,
    read_runner,
)
from p2p_ipython.worker.cache import Source, SourceFailed
from p2p_ipython.worker.engines.frames import MOST, Asked, Ran
from p2p_ipython.worker.slot_base import UNKNOWN, Death, SlotListener, Used

log = logging.getLogger(__name__)

P = ParamSpec("P")

_MOST = MOST + (4 << 20)
"""Bytes of a job that may come: those of its task, the last frame over the bound, and words about its end."""


@dataclass
class _Job:
    """A task that the slot has been given."""

    task: Task
    number: int
    reader: FrameReader = field(default_factory=FrameReader)
    waiting: deque[Buffer] = field(default_factory=deque)  # what came while the slot was paused
    parts: ResultParts = field(default_factory=ResultParts)
    came: int = 0  # bytes
    printed: int = 0
    sent: bool = False
    complete: bool = False
    ran: Ran | None = None
    result: tuple[Result, Buffer] | None = None
    feeding: asyncio.Task[None] | None = None


class Behind(Protocol):
    """The part of an engine that its slots act on."""

    def settle(self) -> None:
        """Have as many slots as the engine has room for."""

    def number(self, slot: EngineSlot) -> int:
        """Return the number of a new job of a slot's."""
        ...

    def asked(self, job: int, task: Task, owner: str, refs: Sequence[str]) -> Asked:
        """Return how a job is to be run."""
        ...

    async def send(self, job: int, head: bytes, body: Buffer = b"") -> None:
        """Send the next bytes of a job, no faster than the host takes them."""

    def go(self, job: int) -> None:
        """Have a job run whose bytes are all sent."""

    def halt(self, job: int) -> None:
        """Have a job stopped."""

    def forget(self, job: int) -> None:
        """Note that a slot is done with a job."""


class EngineSlot:
    """See the module; implements ``slot_base.TaskSlot``. Only its engine makes it."""

    def __init__(self, engine: Behind, place: int, listener: SlotListener, output_limit: int) -> None:
        self.place = place
        """Its number among the slots."""
        self._engine = engine
        self._listener = listener
        self._output_limit = output_limit
        self._job: _Job | None = None
        self._paused = False
        self._closed = False
        self._used = UNKNOWN
        self.here = False
        """Whether the engine has room for it now."""

    async def start(self) -> None:
        """See ``TaskSlot``: ``on_ready`` comes when the engine has room."""
        self._engine.settle()

    @property
    def busy(self) -> bool:
        return self._job is not None

    def run(self, task: Task, body: Buffer, buffers: Sequence[Source] = (), *, owner: str = "") -> None:
        """See ``TaskSlot``."""
        if self._job is not None or self._closed or not self.here:
            raise RuntimeError("a task was given to a slot that is not free")
        encode(task.header(), len(body))  # raises FrameError for one over the bounds
        job = self._job = _Job(task, self._engine.number(self))
        self._used = UNKNOWN
        feeding = self._feed(job, body, buffers, owner)
        job.feeding = asyncio.get_running_loop().create_task(feeding, name=f"p2p-feed {task.id}")

    def cancel(self, task_id: str) -> None:
        """See ``TaskSlot``. A task that runs where the engine can't end it keeps its slot until it is over."""
        job = self._job
        if job is None or job.task.id != task_id:
            return
        if job.sent:
            self._engine.halt(job.number)
        else:
            self._give_up(job, "interrupted", "KeyboardInterrupt", "The task was cancelled before it had started.")

    def holds(self, ref: str) -> bool:
        """See ``TaskSlot``: an engine keeps nothing from one task to the next."""
        return False

    def used(self) -> Used:
        return self._used

    def pause(self) -> None:
        """See ``TaskSlot``."""
        self._paused = True

    def resume(self) -> None:
        """See ``TaskSlot``."""
        self._paused = False
        if self._job is not None:  # soon: what is passed on may have made room
            asyncio.get_running_loop().call_soon(self._pass_on, self._job)

    async def close(self) -> None:
        """See ``TaskSlot``. What runs ends with the engine's host."""
        self._closed = True
        job, self._job = self._job, None
        if job is not None and job.feeding is not None:
            job.feeding.cancel()
            await asyncio.wait([job.feeding])

    # -- the engine's --

    def comes(self) -> None:
        """Note that the engine has room for it."""
        self.here = True
        self._tell(self._listener.on_ready)

    def goes(self, words: str) -> None:
        """Note that the engine has room for it no longer, and nothing of its job, if it has one."""
        self.here = False
        self._died(Death("engine", 0, words))

    def part(self, body: Buffer) -> None:
        """Take the next bytes that the engine has of the job."""
        if (job := self._job) is not None:
            job.came += len(body)
            job.waiting.append(body)
            self._pass_on(job)

    def over(self, lost: str, *, never: bool) -> None:
        """Note that the engine has done with the job."""
        job = self._job
        if job is None:
            return
        if never:
            self._give_up(job, "interrupted", "KeyboardInterrupt", "The task was cancelled before it had started.")
        elif lost:
            self._ends(job, Death("engine", 0, f"The engine has lost the task: {lost}"))
        else:
            job.complete = True
            self._pass_on(job)

    # -- inside --

    async def _feed(self, job: _Job, body: Buffer, buffers: Sequence[Source], owner: str) -> None:
        """Give the engine the task's bytes: its large buffers as they come, then the task itself."""
        engine, task = self._engine, job.task
        try:
            if (size := len(body) + sum(each.size for each in buffers)) > MOST:
                raise SourceFailed(f"it brings {size >> 20} MiB, and an engine takes {MOST >> 20} MiB at most")
            asked = engine.asked(job.number, task, owner, [source.ref for source in buffers])
            await engine.send(job.number, encode(asked.header()))
            for source in buffers:
                await engine.send(job.number, encode(NewBuffer(source.ref, source.size).header()))
                async for view in source:
                    for start in range(0, len(view), MAX_BODY):
                        piece = view[start : start + MAX_BODY]
                        await engine.send(job.number, encode(Piece(source.ref).header(), len(piece)), piece)
            await engine.send(job.number, encode(task.header(), len(body)), body)
            job.sent = True
            engine.go(job.number)
        except SourceFailed as error:
            job.feeding = None
            self._give_up(job, "unloadable", "OSError", f"The task can't be brought to the engine: {error}")

    def _pass_on(self, job: _Job) -> None:
        """Pass on what has come of the job, unless the slot is paused; then end it, if that was all."""
        if job is not self._job:
            return
        try:
            if job.came > _MOST:
                raise RemoteProtocolError("more bytes of a task than an engine may have")
            while job.waiting and not self._paused:
                for header, body in job.reader.feed(job.waiting.popleft()):
                    self._on_frame(job, header, body)
            if not job.complete or job.waiting or job is not self._job:
                return
            if job.ran is None or (job.result is None and not job.ran.death):
                raise RemoteProtocolError("the end of a task without a result")
        except (RemoteProtocolError, FrameError) as error:
            self._ends(job, Death("protocol", 0, f"The engine broke the worker's protocol: {error}."))
            return
        if job.result is None:
            self._ends(job, Death(job.ran.death, job.ran.code, job.ran.detail))  # type: ignore[arg-type]
            return
        self._used = Used(job.ran.cpu if job.ran.cpu is not None else -1.0)
        self._forget(job)
        self._tell(self._listener.on_result, *job.result)
        self._engine.settle()

    def _on_frame(self, job: _Job, header: Header, body: Buffer) -> None:
        """Check a frame against the task, as slots.py does. Raises ``RemoteProtocolError``."""
        if job.ran is None:
            if header["t"] != Ran.kind:
                raise RemoteProtocolError("a job that doesn't begin with how it has ended")
            job.ran = Ran.read(header)
            return
        frame = read_runner(header)
        if not isinstance(frame, Output | ResultChunk | Result):
            return
        if (frame.id, frame.attempt) != (job.task.id, job.task.attempt) or job.ran.death:
            raise RemoteProtocolError("a frame of another task")
        if job.result is not None and not isinstance(frame, Output):
            raise RemoteProtocolError("more of a result that was complete")
        match frame:
            case Output():
                job.printed += len(body)
                if job.printed > 2 * self._output_limit:
                    raise RemoteProtocolError("more output than a task may have")
                self._tell(self._listener.on_output, frame, body)
            case ResultChunk():
                job.parts.chunk(frame, len(body))
                self._tell(self._listener.on_chunk, frame, body)
            case Result():
                job.parts.result(frame, len(body))
                encode(frame.header(), len(body))  # what can't be sent on must not be taken
                job.result = frame, body

    def _ends(self, job: _Job, death: Death) -> None:
        """Tell the end of a task without a result. The slot is free again."""
        assert job is self._job
        self._died(death)
        if self.here and not self._closed:
            self._tell(self._listener.on_ready)
        self._engine.settle()

    def _died(self, death: Death) -> None:
        job = self._job
        if job is not None:
            self._forget(job)
        self._tell(self._listener.on_died, job.task.id if job is not None else None, death)

    def _give_up(self, job: _Job, kind: str, exception: str, message: str) -> None:
        """End a task that the engine has never begun."""
        if not job.sent:
            self._engine.halt(job.number)
        self._forget(job)
        bases = (f"builtins.{exception}", "builtins.BaseException")
        failure = TaskFailure(kind, bases[0], bases, message, f"{exception}: {message}")
        self._tell(self._listener.on_result, Result(job.task.id, job.task.attempt, False, (), failure=failure), b"")
        self._engine.settle()

    def _forget(self, job: _Job) -> None:
        self._job = None
        self._engine.forget(job.number)
        if job.feeding is not None:
            job.feeding.cancel()

    def _tell(self, call: Callable[Concatenate[EngineSlot, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        if self._closed:
            return
        try:
            call(self, *args, **kwargs)
        except Exception:
            log.exception("a slot's listener failed")
