"""The board as its users see it: lines in, lines out, and a state in words.

A board is a multicast stream without memory: what one session posts on a topic, every session on that
topic reads. It promises nothing about who wrote a line; see protocol/wire.py for what makes lines
trustworthy. Implementations: ``board/client/ssh.py`` (any pico ``pipe`` board over SSH) and ``rehearsal/board.py``
(a shipped fake). Both pass tests/conformance/test_board.py.

All methods and callbacks belong to one event loop; none of them blocks it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

MAX_LINE = 4096
"""Largest line, bytes, without its newline. Below pico's 32 KiB reads, so that a line is cut only by a burst."""


class BoardState(enum.Enum):
    """Where a session with a board stands. The value is what people read."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"
    FAILED = "failed"


@dataclass(frozen=True)
class BoardReport:
    """A change of state, with its reason in words (``detail``) and, in FAILED, the error."""

    state: BoardState
    detail: str = ""
    error: Exception | None = None


class BoardListener(Protocol):
    """Reads a board. Its methods are called on the event loop, and must not block."""

    def on_line(self, line: bytes) -> None:
        """Take a line that somebody posted (never one of our own), without newline, at most ``MAX_LINE`` bytes."""

    def on_board(self, report: BoardReport) -> None:
        """Take a change of state, or of its detail. CONNECTED with a ``detail`` is a board that stalls."""


class Board(Protocol):
    """A session on one topic of a board."""

    @property
    def report(self) -> BoardReport:
        """Return the state now, and its reason."""
        ...

    @property
    def user(self) -> str:
        """Return our user name on the board; ``public`` where the board doesn't know our key, "" before it said so."""
        ...

    async def open(self) -> None:
        """Connect and join the topic; returns when lines flow. Raises a ``BoardError`` that says what to do.

        After this has succeeded once, a lost connection is made again with jittered back-off until ``close``.
        """

    def post(self, line: bytes) -> None:
        """Post a line (no newline in it, at most ``MAX_LINE`` bytes); returns at once.

        It is resent until the board has echoed it, also over a reconnect, for 30 s. Readers may therefore
        see it more than once.
        """

    async def close(self) -> None:
        """Post what is still queued (for at most 1 s), then leave. Idempotent."""


class Deaf:
    """A listener to which nothing is of interest, for sessions that only ask."""

    def on_line(self, line: bytes) -> None:
        """Ignore it."""

    def on_board(self, report: BoardReport) -> None:
        """Ignore it."""
