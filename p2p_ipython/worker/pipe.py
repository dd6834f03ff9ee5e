"""One end of a runner's pipes in the agent: frames in and out on the event loop, bulk without a copy.

asyncio's own pipe transports copy what they are given and hand out what they read in pieces; here a body is
written from where it lies and read to where it stays.

POSIX only.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

from p2p_ipython.protocol.frames import Buffer, FrameError, Header, encode
from p2p_ipython.protocol.task_frames import AgentFrame
from p2p_ipython.sandbox.pipes import FrameInput, enlarge

_PARTS = 16
_HIGH = 1 << 20


class PipeWriter:
    """Writes frames to a pipe; owns its descriptor. Belongs to the running loop."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        enlarge(fd)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._parts: deque[Buffer] = deque()
        self._size = 0
        self._waiting: asyncio.Future[None] | None = None
        self.closed = False

    def write(self, frame: AgentFrame) -> None:
        """Write a frame without a body, as ``write_encoded`` does. Raises ``FrameError`` for one over the bounds."""
        self.write_encoded(encode(frame.header()), b"")

    def write_encoded(self, head: bytes, body: Buffer) -> None:
        """Write a frame now, as far as the pipe takes it, and the rest when it does; ``head`` is its encoded header.

        ``body`` must not change until then. Once the reader is gone, nothing happens: its end is seen at the other
        pipe.
        """
        if self.closed:
            return
        idle = not self._parts
        self._parts.append(head)
        self._size += len(head)
        if len(body):
            self._parts.append(body)
            self._size += len(body)
        if idle:
            self._flush()
            if self._parts:
                self._loop.add_writer(self._fd, self._on_writable)

    async def drain(self) -> None:
        """Wait until less than 1 MiB is waiting, or the pipe is closed. For one task at a time."""
        if self._size > _HIGH and not self.closed:
            self._waiting = self._loop.create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None

    @property
    def waiting(self) -> int:
        """Bytes that the pipe has not taken yet."""
        return self._size

    def close(self) -> None:
        """Drop what wasn't written and close the descriptor. Idempotent."""
        if not self.closed:
            self.closed = True
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._parts.clear()
            self._size = 0
            self._wake()

    def _on_writable(self) -> None:
        self._flush()
        if not self._parts and not self.closed:
            self._loop.remove_writer(self._fd)
        if self._size <= _HIGH:
            self._wake()

    def _flush(self) -> None:
        parts = self._parts
        try:
            while parts:
                batch = [parts[i] for i in range(min(len(parts), _PARTS))]
                written = os.writev(self._fd, batch)
                self._size -= written
                while parts and written >= len(parts[0]):
                    written -= len(parts.popleft())
                if written:
                    parts[0] = memoryview(parts[0])[written:]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class PipeReader:
    """Reads frames from a pipe; owns its descriptor. Belongs to the running loop.

    ``on_frame(header, body)`` gets each frame; ``on_end(reason)`` comes once, at the pipe's end or with the
    reason why what came through it can't be read.
    """

    def __init__(self, fd: int, on_frame: Callable[[Header, Buffer], None], on_end: Callable[[str], None]) -> None:
        os.set_blocking(fd, False)
        enlarge(fd)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._on_frame = on_frame
        self._on_end = on_end
        self._frames = FrameInput()
        self._paused = False
        self.closed = False
        self._loop.add_reader(fd, self._on_readable)

    def pause(self) -> None:
        """Read no more; the writer will have to wait. Idempotent."""
        if not self._paused and not self.closed:
            self._paused = True
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Read again. Idempotent."""
        if self._paused and not self.closed:
            self._paused = False
            self._loop.add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        """Close the descriptor; nothing is called any more. Idempotent."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._fd)
            os.close(self._fd)

    def _on_readable(self) -> None:
        reason = ""
        try:
            count = os.readv(self._fd, self._frames.room())
            if count:
                for header, body in self._frames.advance(count):
                    self._on_frame(header, body)
                    if self.closed:
                        return
                return
        except BlockingIOError:
            return
        except (OSError, FrameError) as error:
            reason = str(error)
        self.close()
        self._on_end(reason)
