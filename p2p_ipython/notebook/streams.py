"""Gathers what tasks print, so that many small texts become few messages.

A front end that is slow to read loses messages of a kernel, without a word: of 10,000 lines 783. So a text goes out at
once only if none has for a moment; what comes meanwhile is joined, per cell and stream. Two streams that take turns
keep their order, unless they do so often: then each is joined for itself, as a kernel does with its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from p2p_ipython.loop import background

_PAUSE = 0.03
"""Seconds between two messages of text."""

_MOST = 64 << 10
"""Characters that are gathered at most."""

_TURNS = 20
"""Messages in a row that keep the order of streams."""

Send = Callable[[str, dict[str, object]], None]
Part = tuple[Send, str, list[str]]


class Streams:
    """What the tasks of a notebook print. ``write`` on the loop's thread; ``flush`` on any."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._parts: list[Part] = []
        self._size = 0
        self._sent_at = 0.0
        self._timed = False

    def write(self, send: Send, name: str, text: str) -> None:
        """Send ``text`` of the stream ``name`` soon."""
        with self._lock:
            if self._parts and self._parts[-1][0] is send and self._parts[-1][1] == name:
                self._parts[-1][2].append(text)
            else:
                self._parts.append((send, name, [text]))
            self._size += len(text)
            due = self._sent_at + _PAUSE - time.monotonic()
            if due <= 0 or self._size > _MOST or not background().is_current():
                self.flush()
            elif not self._timed:
                self._timed = True
                background().loop.call_later(due, self._flush_in_time)

    def flush(self) -> None:
        """Send what has been gathered."""
        with self._lock:
            parts, self._parts, self._size = _joined(self._parts), [], 0
            for send, name, texts in parts:
                send("stream", {"name": name, "text": "".join(texts)})
            if parts:
                self._sent_at = time.monotonic()

    def _flush_in_time(self) -> None:
        self._timed = False
        self.flush()


def _joined(parts: list[Part]) -> list[Part]:
    if len(parts) <= _TURNS:
        return parts
    joined: dict[tuple[int, str], Part] = {}
    for send, name, texts in parts:
        joined.setdefault((id(send), name), (send, name, []))[2].extend(texts)
    return list(joined.values())
