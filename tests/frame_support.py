"""Frames from headers as peers write them, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from p2p_ipython.protocol.frames import Header
from p2p_ipython.protocol.task_frames import Result, Sender


def read_result(header: Mapping[str, Any]) -> Result:
    """A task's result, read from what a worker's header says besides the task and the attempt."""
    return Result.read({"id": "t", "attempt": 1, **header})


GOOD: dict[tuple[Sender, str], Header] = {
    ("client", "task"): {"t": "task", "id": "t", "attempt": 1, "kind": "call", "segments": [[3, None]]},
    ("client", "chunk"): {"t": "chunk", "ref": "r", "size": 9, "off": 0},
    ("client", "recall"): {"t": "recall", "id": "t", "attempt": 1},
    ("client", "pass"): {"t": "pass"},
    ("worker", "started"): {"t": "started", "id": "t", "attempt": 1},
    ("worker", "output"): {"t": "output", "id": "t", "attempt": 1, "kind": "stream", "name": "stdout"},
    ("worker", "progress"): {"t": "progress", "id": "t", "attempt": 1, "done": 3, "total": 10, "label": "x"},
    ("worker", "chunk"): {"t": "chunk", "id": "t", "attempt": 1, "ref": "r", "size": 9, "off": 0},
    ("worker", "result"): {"t": "result", "id": "t", "attempt": 1, "ok": True, "segments": [[3, None]]},
    ("worker", "nack"): {"t": "nack", "id": "t", "attempt": 1, "reason": "busy"},
    ("worker", "lost"): {"t": "lost", "id": "t", "attempt": 1, "detail": "killed"},
    ("worker", "want"): {"t": "want", "id": "t", "attempt": 1, "refs": ["r"]},
    ("worker", "evicted"): {"t": "evicted", "refs": ["r"]},
    ("worker", "room"): {"t": "room", "free": 1},
    ("agent", "buffer"): {"t": "buffer", "ref": "r", "size": 9},
    ("agent", "chunk"): {"t": "chunk", "ref": "r"},
    ("agent", "drop"): {"t": "drop", "refs": ["r"]},
    ("agent", "cancel"): {"t": "cancel", "id": "t"},
    ("runner", "ready"): {"t": "ready", "python": "3.11.7", "platform": "linux", "pid": 7},
    ("runner", "cleared"): {"t": "cleared", "why": "no idea"},
}
for _kind in ("output", "progress", "chunk", "result"):
    GOOD["runner", _kind] = GOOD["worker", _kind]
GOOD["agent", "task"] = GOOD["client", "task"]
