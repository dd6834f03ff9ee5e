"""The runner's way out: frames to the agent, whole and in order, from any thread.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from p2p_ipython.protocol.frames import MAX_BODY, Buffer, encode
from p2p_ipython.protocol.task_frames import ResultChunk, RunnerFrame, Task
from p2p_ipython.sandbox.inside.interrupts import Interrupts


class Channel:
    """Writes frames to ``fd``, blocking. In a forked child, which must not speak for the runner, it is mute.

    Ends the process when the agent is gone.
    """

    def __init__(self, fd: int, interrupts: Interrupts) -> None:
        self._fd = fd
        self._guard = interrupts.guard(threading.RLock())
        self._queue: deque[Buffer] = deque()
        self._sending = False
        self._mute = False

    def send(self, frame: RunnerFrame, body: Buffer = b"") -> None:
        """Write one frame. Raises ``FrameError`` when it is over the bounds."""
        head = encode(frame.header(), len(body))
        with self._guard:
            if self._mute:
                return
            self._queue.append(head)
            if len(body):
                self._queue.append(body)
            # The same thread comes here again when a finalizer prints while a frame is being written.
            if self._sending:
                return
            self._sending = True
            try:
                self._write()
            finally:
                self._sending = False

    def send_chunks(self, task: Task, ref: str, data: memoryview) -> None:
        """Write a large segment of a task's result as frames of ``MAX_BODY`` bytes."""
        data = data.cast("B")
        for start in range(0, len(data), MAX_BODY):
            self.send(ResultChunk(task.id, task.attempt, ref, len(data), start), data[start : start + MAX_BODY])

    def mute(self) -> bool:
        """For a forked child: close the descriptor and say nothing from now on.

        Returns False in a child's child, where nothing is left to close: the number may be another file's by now.
        """
        if self._mute:
            return False
        self._mute = True
        os.close(self._fd)
        return True

    def _write(self) -> None:
        while self._queue:
            first = self._queue.popleft()
            parts: list[Buffer] = [first]
            while self._queue and len(parts) < 16:
                parts.append(self._queue.popleft())
            try:
                while parts:
                    written = os.writev(self._fd, parts)
                    while parts and written >= len(parts[0]):
                        written -= len(parts.pop(0))
                    if written:
                        parts[0] = memoryview(parts[0])[written:]
            except OSError:  # the agent is gone, or the task has closed our descriptor; the warden clears up
                os._exit(1)
