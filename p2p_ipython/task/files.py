"""Files that go with a task, on the worker: written to the task's folder before it begins.

A part of what goes around a task (around.py). The runner imports this module inside the sandbox: standard library only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any

from p2p_ipython.protocol.frames import Buffer

MAX_FILES = 100
"""Files that go with a task, or come back from it."""

MAX_FILE_BYTES = 256_000_000
"""Bytes of all these files."""


@dataclass(frozen=True)
class Files:
    """Files by name, a path below the task's folder with "/" between its parts."""

    names: tuple[str, ...]
    contents: tuple[Buffer, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return Files, (self.names, tuple(map(PickleBuffer, self.contents)))

    def enter(self) -> None:
        """Write them; see ``around.Part``. What lies in the folder is removed after the task in any case."""
        for name, content in zip(self.names, self.contents, strict=True):
            if "/" in name:
                os.makedirs(os.path.dirname(name), exist_ok=True)
            with open(name, "wb") as file:
                file.write(content)
