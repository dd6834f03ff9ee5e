"""A slot without a process: tasks run in this one, on its event loop. For rehearsals and simulations.

Calls only; a function that returns an awaitable is awaited, so that on a loop with virtual time a task that
"takes an hour" takes none. It keeps nothing apart and protects nothing: use it with your own tasks only.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Sequence

from p2p_ipython.protocol.frames import MAX_BODY, Buffer
from p2p_ipython.protocol.task_frames import Result, ResultChunk, Task, TaskFailure
from p2p_ipython.sandbox.inside.describe_error import describe
from p2p_ipython.task.datum import beside
from p2p_ipython.task.payload import Packed, in_pieces, pack_result, unpack
from p2p_ipython.task.safe.several import read
from p2p_ipython.worker.cache import Source, SourceFailed
from p2p_ipython.worker.slot_base import UNKNOWN, Death, SlotListener, Used


class MemorySlot:
    """See the module; implements ``slot_base.TaskSlot``."""

    def __init__(self, listener: SlotListener) -> None:
        self._listener = listener
        self._task: asyncio.Task[None] | None = None
        self._task_id: str | None = None
        self._cancelled = False
        self._closed = False

    async def start(self) -> None:
        """See ``TaskSlot``."""
        self._listener.on_ready(self)

    def run(self, task: Task, body: Buffer, buffers: Sequence[Source] = (), *, owner: str = "") -> None:
        """See ``TaskSlot``."""
        if self._task_id is not None or self._closed:
            raise RuntimeError("a task was given to a slot that is not free")
        self._task_id, self._cancelled = task.id, False
        loop = asyncio.get_running_loop()
        self._task = running = loop.create_task(self._run(task, body, buffers))
        if task.timeout:
            doom = Death("timeout", 0, f"it ran for {task.timeout:g} s, which is its timeout")
            ending = loop.call_later(task.timeout, self.die, doom)
            running.add_done_callback(lambda _task: ending.cancel())

    def cancel(self, task_id: str) -> None:
        """See ``TaskSlot``."""
        if task_id == self._task_id and self._task is not None:
            self._cancelled = True
            # One that was cancelled before its first step would end without a word.
            asyncio.get_running_loop().call_soon(self._task.cancel)

    def holds(self, ref: str) -> bool:
        """See ``TaskSlot``: nothing is kept from one task to the next."""
        return False

    def used(self) -> Used:
        return UNKNOWN

    def pause(self) -> None:
        """See ``TaskSlot``: a result that is made already can't be held back."""

    def resume(self) -> None:
        """See ``TaskSlot``."""

    async def close(self) -> None:
        """See ``TaskSlot``."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def die(self, death: Death) -> None:
        """End as if the runner's process had ended, and be ready again at once."""
        task_id, task = self._task_id, self._task
        self._task_id = self._task = None
        if task is not None:
            task.cancel()
        self._listener.on_died(self, task_id, death)
        if not self._closed:
            self._listener.on_ready(self)

    async def _run(self, task: Task, body: Buffer, buffers: Sequence[Source]) -> None:
        me = asyncio.current_task()
        failure: TaskFailure | None = None
        packed: Packed | None = None
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            packed = pack_result(await _called(task, body, buffers))
        except asyncio.CancelledError as error:
            if not self._cancelled:
                raise  # closed, or died: the listener knows
            failure = describe(error, "interrupted", _rendered)
        except Exception as error:
            failure = describe(error, "unloadable" if isinstance(error, SourceFailed) else "exception", _rendered)
        if self._task is not me or self._closed:
            return
        segments = packed.segments if packed is not None else ()
        for ref, view in packed.large.items() if packed is not None else ():
            for offset in range(0, view.nbytes, MAX_BODY):
                chunk = ResultChunk(task.id, task.attempt, ref, view.nbytes, offset)
                self._listener.on_chunk(self, chunk, view[offset : offset + MAX_BODY])
        self._task_id = self._task = None
        seconds = loop.time() - start
        result = Result(task.id, task.attempt, failure is None, segments, seconds, failure is None, failure=failure)
        self._listener.on_result(self, result, packed.inline if packed is not None else b"")


async def _called(task: Task, body: Buffer, buffers: Sequence[Source]) -> object:
    if task.run != "call":
        raise NotImplementedError("a rehearsal runs calls; a cell needs a worker of its own")
    large = {source.ref: bytearray().join([bytes(part) async for part in source]) for source in buffers}
    payload, data, _around = task.pieces(body)  # settings and the like: none is entered here
    with beside(read(in_pieces(task.data, data, large)) if task.data else []):
        function, args, kwargs = unpack(task.segments, payload, large)
    value = function(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value


def _rendered(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
