"""A cell that runs in each new runner of a notebook before its first task there: ``%%p2p --setup``.

It goes around each task. A runner that has run it doesn't run it again: it puts back the settings and the environment
that it made, for the tasks of the same notebook. Modules that it has imported, and what it has changed in them, stay.

Both sides import this module, the runner inside the sandbox: standard library and cloudpickle only.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pickle import PickleBuffer
from typing import Any

from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.task.environment import Environment
from p2p_ipython.task.on_import import forget
from p2p_ipython.task.settings import Collector, Settings

RunCell = Callable[[str, dict[str, Any]], BaseException | None]
"""Runs a cell's source in a namespace; returns its error."""


class SetupFailed(Exception):
    """The setup's cell raised ``error``, so the task wasn't begun."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Setup:
    """A cell and the names that it uses, pickled; see ``around.Part``. ``id``: a hash of both."""

    id: str
    source: str
    names: tuple[Buffer, ...] = field(repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Setup, (self.id, self.source, tuple(map(PickleBuffer, self.names)))

    def enter(self) -> Callable[[], None]:
        """Run the cell, or put back what it made. Raises ``SetupFailed``."""
        if (made := _made.get(self.id)) is not None:
            made.enter()
            return forget
        assert runner.run_cell is not None, "this process runs no cells"
        first, *others = self.names
        before, path = dict(os.environ), list(sys.path)
        error = runner.run_cell(self.source, pickle.loads(first, buffers=[bytearray(other) for other in others]))
        if error is not None:
            error.add_note("This was raised by the cell that %%p2p --setup runs before the first task on a worker.")
            raise SetupFailed(error)
        if len(_made) >= _MAX:
            _made.clear()
        entries = tuple(item for item in os.environ.items() if before.get(item[0]) != item[1])
        gone = tuple(name for name in before if name not in os.environ)
        more = [place for place in sys.path if place not in path]
        _made[self.id] = _Made(Environment(entries, gone), more, Collector().collect(), _extensions())
        return forget


@dataclass
class _Runner:
    run_cell: RunCell | None = None


runner = _Runner()
"""What the process that runs tasks does for them."""

_MAX = 32
"""Setups that a runner remembers; after that it runs them again."""


@dataclass(frozen=True)
class _Made:
    """What a setup's cell has left in this process, of what is put back after each task."""

    environment: Environment
    path: list[str]
    settings: Settings | None
    extensions: frozenset[str]

    def enter(self) -> None:
        self.environment.enter()
        sys.path.extend(place for place in self.path if place not in sys.path)
        manager = _manager()
        for name in sorted(self.extensions - manager.loaded if manager is not None else ()):
            manager.load_extension(name)
        if self.settings is not None:
            self.settings.enter()


_made: dict[str, _Made] = {}


def _manager() -> Any:
    module: Any = sys.modules.get("IPython.core.interactiveshell")
    shell = module.InteractiveShell._instance if module is not None else None
    return shell.extension_manager if shell is not None else None


def _extensions() -> frozenset[str]:
    manager = _manager()
    return frozenset(manager.loaded) if manager is not None else frozenset()
