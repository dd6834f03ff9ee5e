"""Examples drawn from the docstrings of installed libraries: doctest finds them, a fixed seed draws, nobody picks.

Each example's lot depends on the seed and the example's name only. So most stay when a library changes.

``python -m tests.athome.examples 1000`` prints those drawn as JSON. It imports all modules of the libraries, in a
process of its own: that takes a minute, and some modules do more than one would think when they are imported.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import importlib.metadata
import json
import os
import pkgutil
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from tests.athome.lessons import Lesson, Piece

SEED = 11
LIBRARIES = ["numpy", "pandas", "scipy", "sklearn", "sympy", "networkx"]
PACKAGES = ["numpy", "pandas", "scipy", "scikit-learn", "sympy", "networkx"]

NOT_IMPORTED = {"antigravity", "this", "idlelib", "turtledemo", "turtle", "tkinter", "lib2to3", "test", "ensurepip"}
"""Modules of the standard library that open windows or are tests."""

A_LESSON = 40
"""Docstrings that share a kernel."""


def drawn(count: int, *, apart: bool = True) -> list[Lesson]:
    """Draw ``count`` examples, and make lessons of them: cells that are compared, and before each what it builds on.

    ``apart`` keeps the libraries apart; else few kernels do for all.
    """
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(root), "HOME": folder, "MPLBACKEND": "agg"}
        made = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.athome.examples", str(count)],
            cwd=folder,
            env=environment,
            capture_output=True,
            check=True,
        )
    found = json.loads(made.stdout)
    return lessons(found if apart else [{**one, "library": "examples"} for one in found])


def lessons(found: list[dict[str, object]]) -> list[Lesson]:
    """Make lessons of docstrings. One library has lessons of its own, as many as it takes."""
    made = []
    for library in sorted({str(one["library"]) for one in found}):
        own = [one for one in found if one["library"] == library]
        for start in range(0, len(own), A_LESSON):
            pieces = [piece for one in own[start : start + A_LESSON] for piece in pieces_of(one)]
            made.append(Lesson(f"{library}-{start // A_LESSON + 1}", tuple(pieces), library))
    return made


def pieces_of(docstring: dict[str, object]) -> Iterator[Piece]:
    """Yield the pieces of a docstring: a fresh notebook, then its examples up to the last that is drawn."""
    name, sources, chosen = docstring["name"], docstring["sources"], docstring["chosen"]
    assert isinstance(sources, list)
    assert isinstance(chosen, list)
    yield Piece(f"{name}:fresh", quiet=True, asked=f"fresh({docstring['module']!r})")
    for number, source in enumerate(sources[: max(chosen) + 1]):
        yield Piece(f"{name}:{number + 1}", source.rstrip("\n"), quiet=number not in chosen)


def versions() -> str:
    """Return the versions that the draw depends on, in words."""
    libraries = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    return f"Python {sys.version_info[0]}.{sys.version_info[1]}, {', '.join(libraries)}"


def modules() -> Iterator[tuple[str, str]]:
    """Yield (library, module) of all modules that can be imported here and are no tests."""
    for library in LIBRARIES:
        package = importlib.import_module(library)
        yield library, library
        for found in pkgutil.walk_packages(package.__path__, f"{library}.", onerror=lambda _name: None):
            parts = set(found.name.split("."))
            if not parts & {"tests", "conftest", "setup", "__main__", "f2py", "benchmarks"}:
                yield library, found.name
    for name in sorted(sys.stdlib_module_names - NOT_IMPORTED):
        if name.startswith("_"):
            continue
        yield "standard", name
        with contextlib.suppress(Exception):
            for found in pkgutil.iter_modules(getattr(importlib.import_module(name), "__path__", []), f"{name}."):
                if not {"__main__", "test", "tests"} & set(found.name.split(".")):
                    yield "standard", found.name


def docstrings() -> Iterator[dict[str, object]]:
    """Yield each docstring with examples, once: library, module, name and sources."""
    finder, seen = doctest.DocTestFinder(exclude_empty=True), set()
    for library, name in modules():
        try:
            module = importlib.import_module(name)
            found = finder.find(module, name, globs={})
        except BaseException:  # what can't be imported here has no examples here
            continue
        for test in found:
            sources = [one.source for one in test.examples if doctest.SKIP not in one.options]
            if sources and test.docstring not in seen:
                seen.add(test.docstring)
                yield {"library": library, "module": name, "name": test.name, "sources": sources}


def draw(count: int, seed: int = SEED) -> list[dict[str, object]]:
    """Return the docstrings with examples that are drawn, by name; ``chosen`` are the examples' places."""
    found = {str(one["name"]): one for one in docstrings()}
    every = [(name, place) for name in sorted(found) for place in range(len(found[name]["sources"]))]  # type: ignore[arg-type]
    every.sort(key=lambda one: random.Random(f"{seed} {one[0]} {one[1]}").random())
    for name, place in every[:count]:
        found[name].setdefault("chosen", []).append(place)  # type: ignore[attr-defined]
    return [one for name, one in sorted(found.items()) if "chosen" in one]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    out = os.dup(1)
    os.dup2(2, 1)  # some modules print when they are imported
    text = json.dumps(draw(int(sys.argv[1])))
    with os.fdopen(out, "w", encoding="utf-8") as file:
        file.write(text)
    os._exit(0)  # some modules leave threads
