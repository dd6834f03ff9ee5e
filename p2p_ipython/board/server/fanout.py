"""Writes chunks to their readers: a packet costs far more than the bytes in it, so under load they are joined."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from p2p_ipython.board.topics import Deliver

BATCH = 0.005
"""Under load, chunks of a topic that come within this time, s, are written together: one packet per reader."""
AT_ONCE = 50
"""Packets that are written in ``BATCH`` before that counts as load."""


class Reader(Protocol):
    """A session that chunks are written to."""

    def write(self, data: bytes) -> None:
        """Write to its client."""


class Fanout:
    """Writes chunks to their readers: at once while there is little to write, in batches when there is much.

    A packet costs far more than the bytes in it, so under load what comes within ``BATCH`` is written together.
    """

    def __init__(self, sessions: Mapping[str, Reader]) -> None:
        self._sessions = sessions
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[Deliver]] = {}
        self._since = 0.0
        self._written = 0
        self._timer: asyncio.TimerHandle | None = None

    def deliver(self, chunk: Deliver) -> None:
        """Write a chunk, now or within ``BATCH``; chunks of a topic keep their order."""
        waiting = self._waiting.get(chunk.topic)
        if waiting is not None:
            waiting.append(chunk)
            return
        now = self._loop.time()
        if now - self._since >= BATCH:
            self._since, self._written = now, 0
        if self._written < AT_ONCE:
            self._written += len(chunk.to)
            self._write([chunk])
            # Writing to many takes longer than BATCH: what came in the meantime is load, too.
            self._since = max(self._since, self._loop.time() - BATCH / 2)
            return
        self._waiting[chunk.topic] = [chunk]
        if self._timer is None:
            self._timer = self._loop.call_later(BATCH, self.flush_all)

    def flush_all(self) -> None:
        """Write whatever waits, now."""
        self.close()
        waiting, self._waiting = self._waiting, {}
        for chunks in waiting.values():
            self._write(chunks)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self, chunks: list[Deliver]) -> None:
        """Write chunks of one topic. Runs with the same readers are joined; a writer gets its own left out."""
        start = 0
        while start < len(chunks):
            to = chunks[start].to
            end = start + 1
            while end < len(chunks) and chunks[end].to is to:
                end += 1
            run = chunks[start:end]
            start = end
            data = b"".join(chunk.data for chunk in run)
            left_out = {chunk.but for chunk in run} - {None}
            for name in to:
                session = self._sessions.get(name)
                if session is None:
                    continue
                if name in left_out:
                    session.write(b"".join(chunk.data for chunk in run if chunk.but != name))
                else:
                    session.write(data)
