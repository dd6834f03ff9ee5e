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
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
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
    """A module's text. ``package``: it is in a folder; ``path`` is its file, or the folder if that has no file."""

    package: bool
    path: str
    text: bytes
    imports: tuple[str, ...]
    """Names that it imports: of modules, or of what may be one."""

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path) if self.path.endswith(".py") else self.path


class _Search:
    """Where modules are looked for. It holds as long as ``place``, the current folder and ``sys.path``, is the same."""

    def __init__(self, place: tuple[str, ...]) -> None:
        self.place = place
        self.folders = own_folders()
        self.foreign = {"p2p_ipython", "__main__"}
        """Names of loaded packages that are none of the notebook's."""
        self._own: dict[str, bool] = {}

    def holds(self, path: str) -> bool:
        """Whether a module's file or folder is the notebook's own."""
        own = self._own.get(path)
        if own is None:
            real = os.path.realpath(path)
            own = any(_is_below(real, folder) for folder in self.folders)
            # an environment may lie beside the notebook
            own = self._own[path] = own and not any(_is_below(real, folder) for folder in _of_the_environment()[0])
        return own

    def shown(self, path: str) -> str:
        """Return a file's place in the folder of the notebook's that holds it."""
        real = os.path.realpath(path)
        folder = max((folder for folder in self.folders if _is_below(real, folder)), key=len, default="")
        return os.path.relpath(real, folder) if folder else os.path.basename(path)


class LocalModules:
    """The modules of this notebook. From any thread.

    ``shows_paths``: tracebacks may name the files where they lie here, else by their place in the notebook's folder.
    """

    def __init__(self, *, shows_paths: bool) -> None:
        self._shows_paths = shows_paths
        self._search: _Search | None = None
        self._last: tuple[_Search, dict[str, _Source], Modules] | None = None

    def needed(self, roots: Iterable[str], folder: str = "") -> Modules | None:
        """Return the notebook's own modules among ``roots`` and what they import; None if there are none.

        ``folder``: the current one, if the caller knows it. As long as they don't change it is the same object. Raises
        ``CaptureError`` for more than may travel.
        """
        search, place = self._search, (folder or os.getcwd(), *sys.path)
        if search is None or search.place != place:
            search = self._search = _Search(place)
        found: dict[str, _Source] = {}
        todo = [root for root in roots if root.partition(".")[0] not in search.foreign]
        while todo:
            name = todo.pop()
            for each in _with_parents(name):
                if each in found:
                    continue
                path = None if each in search.foreign else _path_of(each, found)
                if path is None or not search.holds(path):
                    # One that isn't loaded may be another one by the next task: a file may be written here.
                    if path is not None and "." not in each and each in sys.modules:
                        search.foreign.add(each)
                    break
                source = _read(path)
                if source is None:
                    break
                found[each] = source
                todo += _absolute(each, source)
                if "." not in each:  # what it has loaded by other means than imports that can be seen
                    todo += [other for other in list(sys.modules) if other.startswith(f"{each}.")]
            if len(found) > MAX_MODULES or sum(len(source.text) for source in found.values()) > MAX_TEXT:
                raise _too_much()
        found = {name: source for name, source in found.items() if source.path.endswith(".py") or _holds(name, found)}
        if not found:
            return None
        last = self._last
        if last is not None and last[0] is search and last[1] == found:
            return last[2]
        names = sorted(found)
        entries = [
            Entry(
                name,
                found[name].package,
                found[name].path if self._shows_paths else search.shown(found[name].path),
                len(found[name].text),
            )
            for name in names
        ]
        made = Modules(tuple(entries), b"".join(found[name].text for name in names))
        self._last = search, found, made
        return made


def _too_much() -> CaptureError:
    return CaptureError(
        f"the modules beside the notebook that this needs are more than {MAX_MODULES} files or {MAX_TEXT >> 20} MiB",
        hint="Install them as a package where the workers run, or leave them at home: %%p2p --no-modules.",
    )


def _path_of(name: str, found: Mapping[str, _Source]) -> str | None:
    """Return a module's Python file, or the folder of a package without one, imported or not; None if it has neither.

    ``found`` holds the package that it is in.
    """
    spec = getattr(sys.modules.get(name), "__spec__", None)
    parent, _, last = name.rpartition(".")
    if spec is None and parent:
        path = os.path.join(found[parent].folder, last) if found[parent].package else ""
        choices = (f"{path}.py", os.path.join(path, "__init__.py"))
        return next(filter(os.path.isfile, choices), path if os.path.isdir(path) else None)
    if spec is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
    if spec is None:
        return None
    if spec.origin is None:
        return next(iter(spec.submodule_search_locations or ()), None)
    return str(spec.origin)


def _holds(package: str, found: Iterable[str]) -> bool:
    """Whether a folder holds a module that is needed; else it is nothing but a folder of that name."""
    return any(name.startswith(f"{package}.") for name in found)


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
    """Whether ``path`` is ``folder`` or below it; both without links."""
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
    """Read a module; None if it is no Python source, or is gone. Raises ``CaptureError`` for one that is too large."""
    try:
        state = os.stat(path)
        if stat.S_ISDIR(state.st_mode):
            return _Source(True, path, b"", ())
        if not path.endswith(".py"):
            return None
        if state.st_size > MAX_TEXT:
            raise _too_much()
        return _read_as(path, state.st_mtime_ns, state.st_size)
    except OSError:
        return None


@lru_cache(maxsize=MAX_MODULES)
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
