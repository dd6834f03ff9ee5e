"""The notebook's own modules, on the worker: those that a task needs, as they were when it was submitted.

A part of what goes around a task (around.py). The modules are imported from the text that travelled, and from nowhere
else; they are there for this task only. A runner keeps what it has imported aside, and takes it again for the next task
that brings the same text. A module never takes the place of one that the worker's environment has.

The runner imports this module inside the sandbox: standard library only.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pickle import PickleBuffer
from types import ModuleType
from typing import Any, NamedTuple

from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.task.around import Undo


class Entry(NamedTuple):
    """A module: its name, whether it is a package, the file that tracebacks name, and the size of its text, bytes."""

    name: str
    package: bool
    file: str
    size: int


@dataclass(frozen=True)
class Modules:
    """Modules of the notebook's; ``text`` holds their sources, one after the other."""

    entries: tuple[Entry, ...]
    text: Buffer

    def __reduce__(self) -> tuple[Any, ...]:
        return Modules, (self.entries, PickleBuffer(self.text))

    def enter(self) -> Undo:
        """Let them be imported; see ``around.Part``."""
        rest = memoryview(self.text)
        offered = {}
        for entry in self.entries:
            offered[entry.name] = _Text(entry.package, entry.file, bytes(rest[: entry.size]))
            rest = rest[entry.size :]
        _finder.offer({name: text for name, text in offered.items() if not _finder.is_there(name)})
        return _finder.withdraw


class _Text(NamedTuple):
    package: bool
    file: str
    source: bytes


class _Loader(importlib.abc.ExecutionLoader):
    def __init__(self, text: _Text) -> None:
        self._text = text

    def is_package(self, fullname: str) -> bool:
        return self._text.package

    def get_filename(self, fullname: str) -> str:
        return self._text.file

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._text.source)

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self._text.source, self._text.file)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that are offered, before the environment's own finders look."""

    def __init__(self) -> None:
        self.environment: tuple[str, ...] = tuple(sys.path)
        """Where the worker's own modules are."""
        self._local: tuple[str, ...] = ()
        self._others: tuple[str, ...] = ()
        self._modules = 0
        self._offered: dict[str, _Text] = {}
        self._aside: dict[str, tuple[_Text, ModuleType]] = {}
        """Modules that have been imported for earlier tasks."""
        self._there: dict[str, bool] = {}

    def is_there(self, name: str) -> bool:
        """Return whether the environment has a module of that name, or of its package's."""
        top = name.partition(".")[0]
        if top not in self._there:
            if top in sys.builtin_module_names:
                self._there[top] = True
            else:
                spec = importlib.machinery.PathFinder.find_spec(top, self.environment)
                self._there[top] = spec is not None and spec.origin is not None
        return self._there[top]

    def set_up(self, path: Sequence[str]) -> None:
        """Let tasks import from the folders of ``path``, too: those of a notebook on this machine, after all others."""
        self.environment = tuple(sys.path)
        self._local = tuple(os.path.join(place, "") for place in path if place not in sys.path)
        self._others = tuple(os.path.join(place, "") for place in sys.path if place)
        sys.path.extend(place for place in path if place not in sys.path)

    def add_packages(self, folder: str) -> None:
        """Note that the environment has a folder of packages, too, before its own."""
        self.environment = (folder, *self.environment)
        self._others = (os.path.join(folder, ""), *self._others)
        self._there.clear()

    def forget(self) -> None:
        """Drop the modules that the last task has imported from such folders: they may be edited before the next."""
        if self._local and len(sys.modules) != self._modules:
            for name, module in list(sys.modules.items()):
                origin = getattr(getattr(module, "__spec__", None), "origin", None)
                if isinstance(origin, str) and self._is_local(origin):
                    del sys.modules[name]
            self._modules = len(sys.modules)

    def _is_local(self, file: str) -> bool:
        """Whether a file is the notebook's. An environment may lie in its folder, or hold it."""
        if not file.startswith(self._local):
            return False
        places = [place for place in (*self._local, *self._others) if file.startswith(place)]
        return max(places, key=len) in self._local

    def offer(self, offered: dict[str, _Text]) -> None:
        """Let these be imported, and no others."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        self._offered = offered
        self._aside = {name: (text, module) for name, (text, module) in self._aside.items() if name in offered}
        if any(text != offered[name] for name, (text, _) in self._aside.items()):
            self._aside = {}  # one that is older may have been imported by the others
        for name, (_, module) in self._aside.items():
            sys.modules[name] = module

    def withdraw(self) -> None:
        """Let none be imported, and put those that have been aside."""
        for name, text in self._offered.items():
            module = sys.modules.get(name)
            if module is not None and isinstance(getattr(module.__spec__, "loader", None), _Loader):
                self._aside[name] = text, module
                del sys.modules[name]
        self._offered = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        text = self._offered.get(fullname)
        return None if text is None else importlib.util.spec_from_loader(fullname, _Loader(text))


_finder = _Finder()

set_up = _finder.set_up
add_packages = _finder.add_packages
forget = _finder.forget
