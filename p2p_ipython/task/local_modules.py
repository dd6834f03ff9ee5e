"""Which modules beside the notebook a task needs: found from what it imports, read as they are now.

A module is the notebook's own if its file lies in the notebook's folder, or in a folder that the notebook has put on
``sys.path``. What those files import is followed in the same way; other files are never read. Modules of the
environment, compiled ones among them, are left to the worker's.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import site
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from p2p_ipython.errors import CaptureError
from p2p_ipython.task.modules import Entry, Modules

MAX_MODULES = 2000
"""Modules that travel with one task."""

MAX_TEXT = 16 << 20
"""Bytes of all their sources."""


@dataclass(frozen=True)
class _Source:
    package: bool
    path: str
    text: bytes
    imports: tuple[str, ...]
    """Names that it imports: of modules, or of what may be one."""


class LocalModules:
    """The modules of this notebook. From any thread.

    ``shows_paths``: tracebacks may name the files where they lie here, else by their place in the notebook's folder.
    """

    def __init__(self, *, shows_paths: bool) -> None:
        self._shows_paths = shows_paths
        self._foreign: set[str] = set()
        """Names of packages that are none of the notebook's, for the ``sys.path`` of now."""
        self._path: list[str] = []
        self._folders: list[str] = []

    def needed(self, roots: Iterable[str]) -> Modules | None:
        """Return the notebook's own modules among ``roots`` and what they import; None if there are none.

        Raises ``CaptureError`` for more than may travel.
        """
        if self._path != sys.path:
            self._path, self._foreign = list(sys.path), {"p2p_ipython", "__main__"}
            self._folders = own_folders()
        found: dict[str, _Source] = {}
        todo = [root for root in roots if root.partition(".")[0] not in self._foreign]
        while todo:
            name = todo.pop()
            for each in _with_parents(name):
                if each in found or each.partition(".")[0] in self._foreign:
                    continue
                source = self._source(each)
                if source is None:
                    if "." not in each:
                        self._foreign.add(each)
                    break
                found[each] = source
                todo += _absolute(each, source)
                if "." not in each:  # what it has loaded by other means than imports that can be seen
                    todo += [other for other in list(sys.modules) if other.startswith(f"{each}.")]
            if len(found) > MAX_MODULES or sum(len(source.text) for source in found.values()) > MAX_TEXT:
                raise CaptureError(
                    f"the modules beside the notebook that this needs are more than {MAX_MODULES} files "
                    f"or {MAX_TEXT >> 20} MiB",
                    hint="Install them as a package where the workers run, or leave them at home: %%p2p --no-modules.",
                )
        if not found:
            return None
        names = sorted(found)
        entries = [
            Entry(name, found[name].package, self._shown(found[name].path), len(found[name].text)) for name in names
        ]
        return Modules(tuple(entries), b"".join(found[name].text for name in names))

    def _source(self, name: str) -> _Source | None:
        """Return a module's source if it is the notebook's own."""
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None)
        if spec is None and "." not in name:
            try:
                spec = importlib.util.find_spec(name)
            except (ImportError, ValueError, AttributeError):
                return None
        path = spec.origin if spec is not None else self._beside(name)
        if path is None or not path.endswith(".py") or not any(_is_below(path, folder) for folder in self._folders):
            return None
        packages, _named = _of_the_environment()  # which may be in a folder below the notebook's
        if any(_is_below(path, folder) for folder in packages):
            return None
        return _read(path)

    def _beside(self, name: str) -> str | None:
        """Return the file of a module in a package of the notebook's that hasn't been imported here."""
        parent, _, last = name.rpartition(".")
        package = self._source(parent) if parent else None
        if package is None or not package.package:
            return None
        folder = os.path.dirname(package.path)
        choices = (os.path.join(folder, f"{last}.py"), os.path.join(folder, last, "__init__.py"))
        return next((path for path in choices if os.path.isfile(path)), None)

    def _shown(self, path: str) -> str:
        if self._shows_paths:
            return path
        folder = max((folder for folder in self._folders if _is_below(path, folder)), key=len, default="")
        return os.path.relpath(path, folder) if folder else os.path.basename(path)


def own_folders() -> list[str]:
    """Return the folders whose modules are the notebook's own: its own, and what it has put on ``sys.path``."""
    packages, named = _of_the_environment()
    here = os.path.realpath(os.getcwd())
    given = [os.path.realpath(os.path.abspath(place)) for place in sys.path if place]
    found = [here, *(place for place in given if place not in named and os.path.isdir(place))]
    return [place for place in dict.fromkeys(found) if not any(_is_below(place, folder) for folder in packages)]


@lru_cache(maxsize=1)
def _of_the_environment() -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the folders of the interpreter's packages, and those that ``.pth`` files and PYTHONPATH name."""
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    for folder in folders:
        for file in sorted(Path(folder).glob("*.pth")):
            try:
                lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            named += [os.path.join(folder, line) for line in lines if line and not line.startswith(("#", "import "))]
    named.append(str(Path(__file__).parents[2]))  # this package's own
    prefixes = [os.path.join(prefix, "lib") for prefix in {sys.prefix, sys.base_prefix}]
    packages = tuple(os.path.realpath(folder) for folder in (*folders, *prefixes))
    return packages, frozenset(os.path.realpath(folder) for folder in named)


def _is_below(path: str, folder: str) -> bool:
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _absolute(name: str, source: _Source) -> list[str]:
    """Return what a module imports, relative names made absolute."""
    package = name if source.package else name.rpartition(".")[0]
    found = []
    for imported in source.imports:
        level = len(imported) - len(imported.lstrip("."))
        if not level:
            found.append(imported)
            continue
        parts = package.split(".") if package else []
        base = parts[: len(parts) - level + 1]
        if base:
            found.append(".".join([*base, *filter(None, imported[level:].split("."))]))
    return found


def _read(path: str) -> _Source | None:
    try:
        state = os.stat(path)
        return _read_as(path, state.st_mtime_ns, state.st_size) if state.st_size <= MAX_TEXT else None
    except OSError:
        return None


@lru_cache(maxsize=1024)
def _read_as(path: str, _mtime_ns: int, _size: int) -> _Source:
    text = Path(path).read_bytes()
    try:
        imports = tuple(dict.fromkeys(imports_of(ast.parse(text))))
    except (SyntaxError, ValueError, RecursionError):
        imports = ()
    return _Source(os.path.basename(path) == "__init__.py", path, text, imports)


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Yield what code imports, as it is written: relative names begin with dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}{'' if module.endswith('.') else '.'}{alias.name}" for alias in node.names)
