"""What goes around a task: modules, files and settings that must be there before its values are read.

The client packs a list of parts, each an object of a class in this package, into a payload of its own. Parts that
stay the same have the same bytes, and go once to each worker. A runner enters the parts before it unpickles the task's
values, which may need them, and leaves them after the task, the last first.

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Protocol

Undo = Callable[[], object]


class Part(Protocol):
    """One of the things around a task. It is pickled by reference, so its class is in this package."""

    def enter(self) -> Undo | None:
        """Set it up on the worker; return what undoes it, if anything has to be undone."""
        ...


@dataclass(frozen=True)
class Folder:
    """The folder to work in, of a notebook on the same machine; a worker that doesn't see it works where it does."""

    path: str

    def enter(self) -> None:
        """Go there; the runner goes back itself."""
        with suppress(OSError):
            os.chdir(self.path)


class Around:
    """A runner's side: the parts of the task that runs."""

    def __init__(self) -> None:
        self._undo = ExitStack()

    def enter(self, parts: Sequence[Part]) -> None:
        """Enter the parts in order. Raises what they raise; ``leave`` undoes those that were entered."""
        for part in parts:
            undo = part.enter()
            if undo is not None:
                self._undo.callback(undo)

    def leave(self) -> None:
        """Undo all, the last first, whatever becomes of the others. Raises what the undoing raises."""
        self._undo.close()
