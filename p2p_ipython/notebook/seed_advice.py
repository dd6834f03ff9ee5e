"""One line of advice under a cell that draws from a global random generator that the notebook has seeded.

The seed stays at home: else all tasks would draw the same numbers.
"""

from __future__ import annotations

import ast
import random
import re
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

from p2p_ipython.task.reads import parsed

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from p2p_ipython.task.capture import Captured

_SEEDS = re.compile(r"(?<![\w.])(?:random\.)?seed\s*\(")
_OWN = frozenset(
    {"default_rng", "Generator", "SeedSequence", "RandomState", "Random", "SystemRandom", "PCG64", "MT19937"}
)
"""What makes a generator of the caller's own."""


def seed_advice(captured: Captured, ip: InteractiveShell) -> str:
    """Return the line; "" for nothing to say."""
    if not (_is_numpy_seeded() or "random" in sys.modules):
        return ""
    used: set[str] = set()
    try:
        for node in ast.walk(parsed(captured.source, ip.transform_cell)):
            used.update(_drawn(node, captured.home))
    except SyntaxError:
        return ""
    for name in captured.names:
        used.update(_drawn_by(captured.home.get(name)))
    seeded = [
        name
        for name, is_seeded in (("numpy.random", _is_numpy_seeded), ("random", lambda: _is_random_seeded(ip)))
        if name in used and f"{name}.seed" not in used and is_seeded()
    ]
    if not seeded:
        return ""
    return f"The seed of {' and '.join(seeded)} stays in this notebook; --seed N gives the task one."


def _is_numpy_seeded() -> bool:
    """Whether the global generator was seeded: by default it has a sequence of seeds."""
    module: Any = sys.modules.get("numpy.random.mtrand")
    try:
        return module is not None and module._rand._bit_generator._seed_seq is None
    except AttributeError:
        return False


def _is_random_seeded(ip: InteractiveShell) -> bool:
    """Whether a cell has done it, as its text says: the generator doesn't."""
    history = ip.history_manager
    cells = history.input_hist_parsed if history is not None else []
    return any("seed" in cell and _SEEDS.search(cell) for cell in cells)


def _drawn(node: ast.AST, home: dict[str, Any]) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and node.attr not in _OWN:
        module = _resolved(node.value, home)
        if module is random or (module is not None and module is sys.modules.get("numpy.random")):
            found = "random" if module is random else "numpy.random"
            yield f"{found}.seed" if node.attr == "seed" else found


def _resolved(node: ast.expr, home: dict[str, Any]) -> Any:
    """Return what a name, or an attribute of a module, is in the notebook; imports of the cell itself are known."""
    if isinstance(node, ast.Name):
        return home.get(node.id, sys.modules.get({"np": "numpy"}.get(node.id, node.id)))
    if isinstance(node, ast.Attribute):
        owner = _resolved(node.value, home)
        return vars(owner).get(node.attr) if owner is sys.modules.get("numpy", random) else None
    return None


def _drawn_by(value: Any) -> Iterator[str]:
    """Yield what a name of the notebook draws from: a function that names the module, or one of the generator's own."""
    if isinstance(value, FunctionType) and "random" in value.__code__.co_names:
        yield "random" if value.__globals__.get("random") is random else "numpy.random"
    owner = getattr(value, "__self__", None)
    if owner is not None:
        if owner is random._inst:
            yield "random"
        module: Any = sys.modules.get("numpy.random.mtrand")
        if module is not None and owner is module._rand:
            yield "numpy.random"
