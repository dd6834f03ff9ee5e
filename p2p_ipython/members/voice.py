"""A session's voice on one topic: a board, and the lines of one cluster on it, made and read.

Every message that is heard is authentic (see protocol/wire.py); the session signs every message that it says.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

from p2p_ipython.board.base import Board, BoardListener, BoardReport, BoardState
from p2p_ipython.protocol.identity import Certificate, ClusterSecret, Session
from p2p_ipython.protocol.messages import Bye, Message
from p2p_ipython.protocol.wire import Heard, LineReader, LineWriter

OpenBoard = Callable[[str, BoardListener], Awaitable[Board]]
"""Joins the named topic on the cluster's board; raises a ``BoardError``."""


class Voice:
    """A session on one topic. ``open`` it, then ``say``; ``heard`` and ``changed`` are called on the event loop."""

    def __init__(
        self,
        session: Session,
        secret: ClusterSecret,
        *,
        admit: Callable[[Certificate], bool],
        heard: Callable[[Heard], None],
        changed: Callable[[BoardReport], None] = lambda _report: None,
        clusters: frozenset[str] | None = None,
    ) -> None:
        """``admit`` and ``clusters`` are as for ``LineReader``; ``changed`` gets each state of the board."""
        self.secret = secret
        self.board: Board | None = None
        self.reader = LineReader(secret, admit, clusters=clusters)
        self._writer = LineWriter(session, secret, os.urandom)
        self._heard = heard
        self._changed = changed
        self._closed = False

    @property
    def report(self) -> BoardReport:
        """The board's state."""
        return self.board.report if self.board is not None else BoardReport(BoardState.CONNECTING)

    async def open(self, open_board: OpenBoard) -> None:
        """Join the topic. Raises a ``BoardError``."""
        board = await open_board(self.secret.topic, self)
        if self._closed:
            await board.close()
        self.board = board

    def say(self, message: Message) -> None:
        """Post a message; nothing is said before ``open`` and after ``close``."""
        if self.board is not None and not self._closed:
            # With our certificate, except for the last word: any line may be the first that a newcomer hears.
            self.board.post(self._writer.write(message, introduce=not isinstance(message, Bye)))

    async def close(self) -> None:
        """Leave. Idempotent."""
        self._closed = True
        if self.board is not None:
            await self.board.close()

    # -- BoardListener --

    def on_line(self, line: bytes) -> None:
        """Handle a line of the board."""
        heard = self.reader.read(line, time.time())
        if heard is not None and not self._closed:
            self._heard(heard)

    def on_board(self, report: BoardReport) -> None:
        """Handle a change of the board's state."""
        if not self._closed:
            self._changed(report)


async def leave(*voices: Voice | None) -> None:
    """Close several voices at once."""
    await asyncio.gather(*(voice.close() for voice in voices if voice is not None), return_exceptions=True)
