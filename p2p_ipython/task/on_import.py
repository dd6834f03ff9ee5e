"""Do something when a module has been imported: at once if it is there, else right after its first import.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

Then = Callable[[], object]


class Imports:
    """A finder of modules that finds none itself: it has the others look, and watches the loading."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Then]] = {}
        self._busy: set[str] = set()

    def call(self, name: str, then: Then) -> None:
        """Call ``then`` now if the module ``name`` has been imported, else once it is, until ``forget``."""
        module = sys.modules.get(name)
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            then()
            return
        self._waiting.setdefault(name, []).append(then)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def forget(self) -> None:
        """Call nothing more."""
        self._waiting.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """For the interpreter, which asks each finder."""
        if name not in self._waiting or name in self._busy:
            return None
        self._busy.add(name)
        try:
            spec = find_spec(name)
        finally:
            self._busy.discard(name)
        loader: Any = spec.loader if spec is not None else None
        if loader is None or not hasattr(loader, "exec_module"):
            return spec
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            load(module)
            for then in self._waiting.pop(name, ()):
                then()

        try:
            loader.exec_module = exec_module  # of this loader only, which is this module's own
        except AttributeError:  # one that is shared, of the interpreter's own modules
            return spec
        return spec


_of_tasks = Imports()
on_import = _of_tasks.call
"""Does it for the task that runs."""
forget = _of_tasks.forget
