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


class _Finder:
    """A finder of modules that finds none itself: it has the others look, and watches the loading."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Then]] = {}
        self._busy: set[str] = set()

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if name not in self.waiting or name in self._busy:
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
            for then in self.waiting.pop(name, ()):
                then()

        try:
            loader.exec_module = exec_module  # of this loader only, which is this module's own
        except AttributeError:  # one that is shared, of the interpreter's own modules
            return spec
        return spec


_finder = _Finder()


def on_import(name: str, then: Then) -> None:
    """Call ``then`` now if the module ``name`` has been imported, else once it is, until ``forget``."""
    module = sys.modules.get(name)
    if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
        then()
        return
    _finder.waiting.setdefault(name, []).append(then)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def forget() -> None:
    """Call nothing more."""
    _finder.waiting.clear()
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
