"""Large buffers on their way to one worker: cut into chunks only as fast as its link takes them.

So a worker that asks for many buffers, or for one again and again, and reads nothing, costs a client a few MiB. A
buffer that waits here already isn't queued a second time. One that is being sent is, since the worker may have
forgotten its beginning.
"""

from __future__ import annotations

from p2p_ipython.link.base import HIGH_WATER
from p2p_ipython.link.end import LinkEnd
from p2p_ipython.protocol.frames import MAX_BODY
from p2p_ipython.protocol.task_frames import BufferChunk


class Feed:
    """The buffers that wait for ``end``, in the order in which they were asked for. It belongs to the loop."""

    def __init__(self, end: LinkEnd) -> None:
        self._end = end
        self._waiting: dict[str, memoryview] = {}
        self._now: tuple[str, memoryview, int] | None = None  # ref, bytes, how many of them were sent

    def add(self, ref: str, data: memoryview) -> None:
        """Send a buffer, after those that wait."""
        self._waiting.setdefault(ref, data)
        self.go_on()

    def go_on(self) -> None:
        """Send what the link takes now; called again when it has been drained."""
        while self._end.pending <= HIGH_WATER and (chunk := self._next()) is not None:
            ref, data, offset = chunk
            header = BufferChunk(ref, data.nbytes, offset).header()
            self._end.send(header, data[offset : offset + MAX_BODY], bulk=True)

    def _next(self) -> tuple[str, memoryview, int] | None:
        """Return the next chunk: which buffer, and from where."""
        if self._now is None:
            if not self._waiting:
                return None
            ref = next(iter(self._waiting))
            self._now = ref, self._waiting.pop(ref), 0
        ref, data, offset = self._now
        end = offset + MAX_BODY
        self._now = (ref, data, end) if end < data.nbytes else None
        return ref, data, offset
