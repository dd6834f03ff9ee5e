"""A board session's lines, put to work: the outbox's timer, the reader, the listener. For every kind of board."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2p_ipython.board.base import BoardListener, BoardReport, BoardState
from p2p_ipython.board.lines import LineReader, Outbox, frame

FLUSH = 1.0
"""How long leaving a board waits for what is still to be posted, s."""
STALLED = "the board doesn't echo our lines: somebody on the topic has stopped reading, or the board hangs"
"""The report while a board takes our lines and gives none back. On a board that waits for the slowest reader, one
that reads nothing stops a topic; all that we can do is to wait until it is gone, and to say so."""


class Lines:
    """Between a board's byte stream and its listener. Belongs to one event loop.

    ``write`` puts bytes on the stream at once, or drops them when there is none.
    """

    def __init__(self, listener: BoardListener, write: Callable[[bytes], None]) -> None:
        self._listener = listener
        self._write = write
        self._outbox = Outbox()
        self._reader = LineReader()
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event | None = None
        self.report = BoardReport(BoardState.CONNECTING)

    def say(self, state: BoardState, detail: str = "", error: Exception | None = None) -> None:
        """Change the state and tell the listener."""
        report = BoardReport(state, detail, error)
        if report != self.report:
            self.report = report
            self._listener.on_board(report)

    def post(self, line: bytes) -> None:
        """Take a line on; nothing is posted once the board is closed."""
        if self.report.state not in (BoardState.CLOSED, BoardState.FAILED):
            self._outbox.post(line, self._now())
            self._work()

    def connected(self) -> None:
        """Begin anew on a new stream."""
        self._reader = LineReader()
        self._outbox.connected()
        self._work()

    def disconnected(self) -> None:
        """Write nothing until there is another stream: this one has ended."""
        self._outbox.disconnected()
        self._work()

    def received(self, data: bytes) -> None:
        """Take bytes that have come."""
        echoed = False
        for line in self._reader.feed(data):
            if self._outbox.is_ours(line, self._now()):
                echoed = True
            else:
                self._listener.on_line(line)
        if echoed:
            self._work()

    async def flush(self) -> None:
        """Wait until everything posted was heard, for at most ``FLUSH``."""
        if self._outbox.waiting:
            self._empty = asyncio.Event()
            try:
                await asyncio.wait_for(self._empty.wait(), FLUSH)
            except TimeoutError:
                pass

    def close(self) -> None:
        """Stop the timer. Nothing is written any more."""
        self._outbox.disconnected()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _work(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for line in self._outbox.due(self._now()):
            self._write(frame(line))  # a write each, or a packet's end could cut a line
        if self._empty is not None and not self._outbox.waiting:
            self._empty.set()
        due = self._outbox.next_due()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self._work)
        if self.report.state is BoardState.CONNECTED:  # last: the listener may post
            self.say(BoardState.CONNECTED, STALLED if self._outbox.stalled else "")
