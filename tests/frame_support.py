"""Frames from headers as peers write them, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from p2p_ipython.protocol.task_frames import Result


def read_result(header: Mapping[str, Any]) -> Result:
    """A task's result, read from what a worker's header says besides the task and the attempt."""
    return Result.read({"id": "t", "attempt": 1, **header})
