"""Output of tasks that the notebook captures: ``%%capture``, ``capture_output``, ``redirect_stdout``.

These replace a stream or the publisher of the kernel for as long as a block runs. What a task prints comes from another
thread, and goes to its cell past them. So a task that was submitted inside such a block keeps its output until somebody
waits for it; then that thread writes it where the block wants it. If the cell ends first, it is shown as ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from IPython.display import clear_output, publish_display_data

Message = Mapping[str, Any]


class Captured:
    """What is captured where this is made, and the messages that are kept for it."""

    def __init__(self, ip: Any, usual: tuple[Any, Any]) -> None:
        """``usual`` are the streams where nothing is captured."""
        streams = zip(("stdout", "stderr"), (sys.stdout, sys.stderr), usual, strict=True)
        self._names = {name for name, now, before in streams if now is not before and _is_replaced(now)}
        self.displays = type(getattr(ip, "display_pub", None)).__name__ == "CapturingDisplayPublisher"
        self.active = bool(self._names or self.displays)
        """Whether anything is captured."""
        self._lock = threading.Lock()
        self._kept: list[Message] | None = [] if self.active else None

    def keep(self, message: Message) -> bool:
        """Keep ``message`` if it is captured; return whether it is."""
        with self._lock:
            if self._kept is None:
                return False
            if message["name"] not in self._names if message["kind"] == "stream" else not self.displays:
                return False
            self._kept.append(message)
            return True

    def deliver(self) -> None:
        """Write what is kept to where it is captured. In the thread that waits for the task."""
        for message in self._taken():
            if message["kind"] == "stream":
                (sys.stderr if message["name"] == "stderr" else sys.stdout).write(message["text"])
            elif message["kind"] == "clear_output":
                clear_output(wait=bool(message["content"].get("wait")))
            else:
                content = message["content"]
                publish_display_data(
                    content.get("data", {}),
                    content.get("metadata", {}),
                    transient=content.get("transient") or {},
                    update=message["kind"] == "update_display_data",
                )

    def release(self, show: Callable[[Message], None]) -> None:
        """Show what is kept, and capture nothing from now on: the cell is over."""
        kept = self._taken(last=True)
        for message in kept:
            show(message)

    def _taken(self, *, last: bool = False) -> list[Message]:
        with self._lock:
            kept = self._kept or []
            self._kept = None if last or self._kept is None else []
            return kept


def _is_replaced(stream: object) -> bool:
    """Whether a stream of the process is another one than a kernel's."""
    return not type(stream).__module__.startswith("ipykernel.")
