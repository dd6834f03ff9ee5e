"""``tqdm.notebook`` on a worker: its bar is text, which moves, since a widget of a worker has no model in the notebook.

``tqdm.auto`` chooses the text bar by itself. Who imports ``tqdm.notebook`` gets the same one under its names.

Standard library only; tqdm is imported by those who want it. The runner imports it inside the sandbox.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_NAME = "tqdm.notebook"


class TextBars:
    """A finder of modules that knows one: it has the real one loaded, and changes its bar."""

    def __init__(self) -> None:
        self._busy = False

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return the real module's spec, with a loader that also changes it."""
        if name != _NAME or self._busy:
            return None
        self._busy = True
        try:
            spec = find_spec(name)
        finally:
            self._busy = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        bar = _text_bar(module)
        module.tqdm = module.tqdm_notebook = bar  # type: ignore[attr-defined]
        module.trange = module.tnrange = lambda *args, **more: bar(range(*args), **more)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _text_bar(module: ModuleType) -> Any:
    standard: Any = sys.modules["tqdm.std"].tqdm

    class tqdm_notebook(standard):  # type: ignore[misc]
        def __init__(self, *args: Any, **more: Any) -> None:
            more.pop("display", None)
            super().__init__(*args, **more)

    tqdm_notebook.__module__, tqdm_notebook.__qualname__ = module.__name__, "tqdm_notebook"
    return tqdm_notebook
