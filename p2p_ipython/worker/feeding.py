"""The large buffers that one runner holds: which they are, how others get there, and what goes to make room.

A runner keeps its buffers from one task to the next, so that each is sent once. Belongs to one event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from p2p_ipython.protocol.frames import MAX_BODY, encode
from p2p_ipython.protocol.task_frames import Drop, NewBuffer, Piece
from p2p_ipython.worker.cache import Source
from p2p_ipython.worker.pipe import PipeWriter

_HELD_MAX = 4096
"""Buffers that a runner holds at a time."""


class Holdings:
    """The buffers in one runner, least recently used first.

    ``room``: bytes that they may occupy together when a task needs fewer. ``on_dropped`` gets the buffers that were
    dropped.
    """

    def __init__(self, writer: PipeWriter, room: int, on_dropped: Callable[[list[str]], None]) -> None:
        self._writer = writer
        self._room = room
        self._on_dropped = on_dropped
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def __contains__(self, ref: str) -> bool:
        return ref in self._sizes

    def refs(self) -> list[str]:
        """Return the references of all buffers that are whole."""
        return list(self._sizes)

    async def bring(self, sources: Sequence[Source]) -> None:
        """Send the buffers that the runner lacks. Raises ``SourceFailed``.

        When that fails or is cancelled, the runner drops the buffer that was on its way.
        """
        self._make_room(sources)
        for source in sources:
            if source.ref in self._sizes:
                self._sizes.move_to_end(source.ref)
                continue
            self._writer.write(NewBuffer(source.ref, source.size))
            try:
                await _send_bytes(self._writer, source)
            except BaseException:
                self._writer.write(Drop((source.ref,)))
                raise
            self._sizes[source.ref] = source.size

    def _make_room(self, sources: Sequence[Source]) -> None:
        """Drop what the runner hasn't used for longest, and what this task doesn't use."""
        sizes, needed = self._sizes, {source.ref for source in sources}
        total = sum(sizes.values()) + sum(each.size for each in sources if each.ref not in sizes)
        drop = []
        for ref in [ref for ref in sizes if ref not in needed]:
            if total <= self._room and len(sizes) + len(needed) <= _HELD_MAX:
                break
            total -= sizes.pop(ref)
            drop.append(ref)
        if drop:
            self._writer.write(Drop(tuple(drop)))
            self._on_dropped(drop)


async def _send_bytes(writer: PipeWriter, source: Source) -> None:
    """Write a source's bytes as ``chunk`` frames, no faster than the runner takes them."""
    header = Piece(source.ref).header()
    full = encode(header, MAX_BODY)
    async for view in source:
        for start in range(0, len(view), MAX_BODY):
            piece = view[start : start + MAX_BODY]
            writer.write_encoded(full if len(piece) == MAX_BODY else encode(header, len(piece)), piece)
            await writer.drain()
