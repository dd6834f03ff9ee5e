"""Environment entries that the notebook has set, for its tasks.

On machines of its own user a task finds them as the notebook does. To machines of others none travels, unless its name
is given. Their values are in no text that anybody sees.

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from p2p_ipython.errors import CaptureError

_OF_KERNEL = frozenset(
    ("MPLBACKEND", "TERM", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "PAGER", "GIT_PAGER", "COLUMNS", "LINES")
)
"""What Jupyter's kernel sets by itself."""

_OF_PROCESS = frozenset(("TMPDIR", "PWD", "OLDPWD", "HOME", "SHELL", "JPY_PARENT_PID", "JPY_SESSION_NAME"))
"""What belongs to one process, or one machine."""

_OF_MACHINE = frozenset(("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"))


@dataclass(frozen=True)
class Environment:
    """Entries to set, and names to remove; see ``around.Part``. The runner puts back its own after the task."""

    entries: tuple[tuple[str, str], ...] = field(repr=False)
    removed: tuple[str, ...] = ()

    def enter(self) -> None:
        """Set them."""
        os.environ.update(self.entries)
        for name in self.removed:
            os.environ.pop(name, None)


class EnvironmentChanges:
    """What this process has changed of its environment since it was started. In one thread at a time."""

    def __init__(self, *, same_machine: bool) -> None:
        self._kept = _OF_KERNEL | _OF_PROCESS | (frozenset() if same_machine else _OF_MACHINE)
        self._before: Mapping[bytes, bytes] = _at_start()
        self._seen: dict[bytes, bytes] = {}
        self._last: Environment | None = None

    def collect(self) -> Environment | None:
        """Return the changes, the same object as long as there are no more."""
        now: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined] # comparing it itself takes longer
        if now != self._seen:
            self._seen = dict(now)
            entries = tuple(
                (name, os.fsdecode(value))
                for key, value in self._seen.items()
                if self._before.get(key) != value and self._travels(name := os.fsdecode(key))
            )
            gone = (os.fsdecode(key) for key in self._before if key not in self._seen)
            removed = tuple(name for name in gone if self._travels(name))
            self._last = Environment(entries, removed) if entries or removed else None
        return self._last

    def _travels(self, name: str) -> bool:
        return name not in self._kept and not name.startswith(("P2P_", "PYDEVD_"))


def named(names: Iterable[str]) -> Environment | None:
    """Return entries by their names, as they are now. Raises ``CaptureError`` for one that isn't set."""
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in os.environ:
            raise CaptureError(
                f"the environment has no {name[:80]!r}, so it can't travel",
                hint=f"Set it first: os.environ[{name[:80]!r}] = …",
            )
    return Environment(tuple((name, os.environ[name]) for name in names)) if names else None


def _at_start() -> dict[bytes, bytes]:
    """Return the environment that this process was started with; where the system doesn't say, the present one."""
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = [entry.partition(b"=") for entry in file.read().split(b"\0") if entry]
    except OSError:
        return dict(os.environ._data)  # type: ignore[attr-defined]
    return {name: value for name, _, value in entries}
