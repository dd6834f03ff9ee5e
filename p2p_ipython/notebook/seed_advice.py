"""Cells that draw from a global random generator that the notebook has seeded.

On machines of one's own, a cell that the notebook waits for draws on from there, and the notebook from where the cell
has ended. For others the seed stays at home: else all tasks would draw the same numbers. A line says so.
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
from p2p_ipython.task.seeds import STATES, States, state_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from p2p_ipython.task.capture import Captured

_SEEDS = re.compile(r"(?<![\w.])(?:random\.)?seed\s*\(")
_OWN = frozenset(
    {"default_rng", "Generator", "SeedSequence", "RandomState", "Random", "SystemRandom", "PCG64", "MT19937"}
)
"""What makes a generator of the caller's own."""


def seeded_draws(captured: Captured, ip: InteractiveShell, *, whole: bool = False) -> list[str]:
    """Return the modules whose seeded generators the cell draws from: "random" and "numpy.random".

    With ``whole`` also those that the cell seeds itself.
    """
    used: set[str] = set()
    try:
        for node in ast.walk(parsed(captured.source, ip.transform_cell)):
            used.update(_drawn(node, captured.home))
    except SyntaxError:
        return []
    for name in captured.names:
        used.update(_drawn_by(captured.home.get(name)))
    return [
        name
        for name, is_seeded in (("numpy.random", _is_numpy_seeded), ("random", lambda: _is_random_seeded(ip)))
        if (whole if f"{name}.seed" in used else name in used and is_seeded())
    ]


def seed_advice(seeded: list[str]) -> str:
    """Return the line; "" for nothing to say."""
    if not seeded:
        return ""
    return (
        f"The seed of {' and '.join(seeded)} stays in this notebook; --seed N gives the task one. "
        "On machines of your own, --wait lets it draw on from here."
    )


def states_of(seeded: list[str]) -> States | None:
    """Return how far the generators are, for a task that draws on from there; None for none."""
    found = {STATES[name]: state_of(STATES[name]) for name in seeded}
    return States({name: state for name, state in found.items() if state is not None}) if found else None


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
        named = [value.__globals__.get(name) for name in value.__code__.co_names]
        if random in named:
            yield "random"
        if random not in named or any(each is not None and each is sys.modules.get("numpy") for each in named):
            yield "numpy.random"
    owner = getattr(value, "__self__", None)
    if owner is not None:
        if owner is random._inst:
            yield "random"
        module: Any = sys.modules.get("numpy.random.mtrand")
        if module is not None and owner is module._rand:
            yield "numpy.random"
