"""Prints the output of tasks, for programs and terminals, from a thread of its own.

Printing may block for as long as nobody reads (``python job.py | less``). The loop that serves the links must not
wait for that, and whoever asks for a result should see the task's output first.
"""

from __future__ import annotations

import queue
import sys
import threading
from typing import Any

DRAIN = 5.0
"""Seconds that the end of a cluster waits for output that nobody reads."""


class Printer:
    """A sink for tasks' messages: streams as streams, of a display its text. One a process."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[dict[str, Any] | threading.Event] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting = 0

    def __call__(self, message: dict[str, Any]) -> None:
        """Print ``message`` soon; returns at once."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # also after a fork
                self._thread = threading.Thread(target=self._print_all, name="p2p-printer", daemon=True)
                self._thread.start()
            self._waiting += 1
        self._queue.put(message)

    def drain(self, timeout: float | None = None) -> None:
        """Wait until all that has come so far is printed, at most ``timeout`` seconds."""
        if self._waiting and self._thread is not threading.current_thread():
            done = threading.Event()
            self._queue.put(done)
            done.wait(timeout)

    def _print_all(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                _print(item)
            except (OSError, ValueError):
                pass  # the reader has gone, or the stream is closed: there is nowhere to print to
            finally:
                with self._lock:
                    self._waiting -= 1


def _print(message: dict[str, Any]) -> None:
    if message["kind"] == "stream":
        stream = sys.stderr if message["name"] == "stderr" else sys.stdout
        stream.write(message["text"])
        stream.flush()
    elif message["kind"] == "display_data":
        data = message["content"].get("data")
        text = data.get("text/plain") if isinstance(data, dict) else None
        sys.stdout.write(f"{text}\n")


printed = Printer()
