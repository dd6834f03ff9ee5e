"""The host of an engine: the process that is its client, below the agent, and without the member's keys.

Started as a runner is, with a warden above it: whatever ends first, nothing that a factory has started outlives it.
Frames come in and go out by the pipes at descriptors 0 and 1; the first one says which engine to open.

::

    agent ── Open, Part, Go, Halt ──► host ── entry.run(bytes) ──► engine
      ▲                                │
      └── Up, Space, Part, Over, Failed ◄──┘

The host ends when it loses its engine, and says why; the agent starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import sys
import traceback
from collections.abc import Awaitable
from typing import Any

from p2p_ipython.errors import P2PError
from p2p_ipython.protocol.frames import MAX_BODY, Buffer, Header, encode
from p2p_ipython.protocol.task_frames import MAX_DETAIL, Frame
from p2p_ipython.sandbox.inside import warden
from p2p_ipython.worker.engines.choice import Dask, read_choice
from p2p_ipython.worker.engines.client import Client, EngineFailed, JobLost
from p2p_ipython.worker.engines.frames import (
    FROM_AGENT,
    MOST,
    Close,
    Failed,
    Go,
    Halt,
    Open,
    Over,
    Part,
    Space,
    Stays,
    Up,
    read,
)
from p2p_ipython.worker.pipe import PipeReader, PipeWriter

LOOK = 1.0
"""Seconds between two looks at how many tasks the engine runs at a time."""

CLOSING = 5.0
"""Seconds that an engine may take to close."""


async def serve(frames_in: int, frames_out: int, folder: str) -> None:
    """Be a host until the agent, or the engine, is gone."""
    loop = asyncio.get_running_loop()
    writer = PipeWriter(frames_out)
    end: asyncio.Future[None] = loop.create_future()
    host = _Host(writer, end, folder)
    reader = PipeReader(frames_in, host.on_frame, lambda _why: host.fail(None))
    try:
        await end
    except EngineFailed as error:
        host.say(Failed(str(error)[:MAX_DETAIL], error.hint[:MAX_DETAIL]))
    except BaseException as error:
        host.say(Failed(f"the engine's client has failed: {_words(error)}"))
    finally:
        reader.close()
        await host.close()
        while writer.waiting:  # noqa: ASYNC110 - its last words; the agent takes them, or its pipe ends
            await asyncio.sleep(0.01)
        writer.close()


class _Host:
    """Takes frames, and has the engine's client do what they say."""

    def __init__(self, writer: PipeWriter, end: asyncio.Future[None], folder: str) -> None:
        self._writer = writer
        self._end = end
        self._folder = folder
        self._client: Client | None = None
        self._parts: dict[int, bytearray] = {}
        self._keys: dict[int, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # one result at a time goes out

    def on_frame(self, header: Header, body: Buffer) -> None:
        """Do what the agent says."""
        try:
            match read(FROM_AGENT, header):
                case Open(engine=engine, slots=slots):
                    self._start(self._open(engine, slots))
                case Part(job=job):
                    self._parts.setdefault(job, bytearray()).extend(body)
                case Go(job=job, key=key):
                    self._keys[job] = key
                    self._start(self._run(job, key, bytes(self._parts.pop(job, b""))))
                case Halt(job=job):
                    self._start(self._stop(job))
                case Close():
                    self.fail(None)
                case _:
                    pass
        except P2PError as error:
            self.fail(error)

    def say(self, frame: Frame, body: Buffer = b"") -> None:
        """Say something to the agent."""
        self._writer.write_encoded(encode(frame.header(), len(body)), body)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            self.fail(error)

    def fail(self, error: BaseException | None) -> None:
        """End, because of an error, or in order."""
        if self._end.done():
            return
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)

    async def _open(self, engine: str, slots: int) -> None:
        choice = read_choice(engine)
        if isinstance(choice, Dask):
            from p2p_ipython.worker.engines import with_dask

            self._client = await with_dask.opened(choice, slots)
        else:
            from p2p_ipython.worker.engines import with_executor

            self._client = await with_executor.opened(choice, slots, self._folder)
        about = self._client.about()
        self.say(Up(about["python"], about["platform"]))
        while True:
            size = await self._client.look()
            self.say(Space(*size))  # whether it has changed or not: it says that this process is alive
            await asyncio.sleep(LOOK)

    async def _run(self, job: int, key: str, data: bytes) -> None:
        assert self._client is not None
        try:
            result = await self._client.result(data, key)
            if len(result) > MOST + (2 << 20):  # a frame more, and words
                raise JobLost(f"its result is more than {MOST >> 20} MiB")
        except JobLost as error:
            self.say(Over(job, str(error)[:MAX_DETAIL], error.never))
            return
        finally:
            del self._keys[job]
        view = memoryview(result)
        async with self._turn:
            for start in range(0, len(view), MAX_BODY):
                self.say(Part(job), view[start : start + MAX_BODY])
                await self._writer.drain()
            self.say(Over(job))

    async def _stop(self, job: int) -> None:
        assert self._client is not None
        self._parts.pop(job, None)  # of one that hadn't come whole
        key = self._keys.get(job)
        if key is not None and not await self._client.stop(key):
            self.say(Stays(job))

    async def close(self) -> None:
        """Leave the engine, within a bounded time."""
        if self._client is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._leave(self._client), CLOSING)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _leave(self, client: Client) -> None:
        for key in list(self._keys.values()):
            await client.stop(key)
        await client.close()


def _words(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-5)).strip()[-4000:]


def main(scratch: str) -> None:
    """Be a host; ``scratch`` is a folder that goes with it."""
    warden.fork_under_watch(scratch)
    frames_in, frames_out, errors = os.dup(0), os.dup(1), os.dup(2)
    faulthandler.enable(errors, all_threads=False)
    with open(os.devnull, "r+b") as null:
        for number in range(3):  # what a factory prints is nobody's frame
            os.dup2(null.fileno(), number)
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(frames_in, frames_out, scratch))
    os._exit(0)  # threads of a factory's must not keep it


if __name__ == "__main__":
    main(sys.argv[1])
