"""tqdm on a worker: its bars are text, also those of ``tqdm.notebook``, and say to the notebook how far they are.

A widget of a worker has no model in the notebook. ``tqdm.auto`` chooses the text bar by itself; ``tqdm.notebook`` has
the same one under its names. A bar that is drawn is reported, too (report_progress.py).

Standard library only; tqdm is imported by those who want it. The runner imports it inside the sandbox.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

Change = Callable[[ModuleType], object]


class TextBars:
    """A finder of modules that knows two: it has the real ones loaded, and changes their bars."""

    def __init__(self, report: Callable[[Any], object]) -> None:
        """``report`` gets each bar that is drawn; it must raise nothing."""
        self._busy = False
        self._changes: dict[str, Change] = {
            "tqdm.notebook": _make_text,
            "tqdm.std": functools.partial(_reporting, report),
        }

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return the real module's spec, with a loader that also changes it."""
        change = self._changes.get(name)
        if change is None or self._busy:
            return None
        self._busy = True
        try:
            spec = find_spec(name)
        finally:
            self._busy = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, change)  # type: ignore[assignment]
        return spec


class _Loader:
    def __init__(self, loader: Any, change: Change) -> None:
        self._loader = loader
        self._change = change

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._change(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _make_text(module: Any) -> None:
    bar = _text_bar(module)
    module.tqdm = module.tqdm_notebook = bar
    module.trange = module.tnrange = lambda *args, **more: bar(range(*args), **more)


def _reporting(report: Callable[[Any], object], module: Any) -> None:
    display = module.tqdm.display

    @functools.wraps(display)
    def reported(self: Any, *args: Any, **more: Any) -> Any:
        report(self)
        return display(self, *args, **more)

    module.tqdm.display = reported


def _text_bar(module: ModuleType) -> Any:
    standard: Any = sys.modules["tqdm.std"].tqdm

    class tqdm_notebook(standard):  # type: ignore[misc]
        def __init__(self, *args: Any, **more: Any) -> None:
            more.pop("display", None)
            super().__init__(*args, **more)

    tqdm_notebook.__module__, tqdm_notebook.__qualname__ = module.__name__, "tqdm_notebook"
    return tqdm_notebook
