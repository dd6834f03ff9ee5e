"""``%%p2p --each "alpha in alphas"``: what it says, and the settings that it gives. Several are a grid."""

from __future__ import annotations

import ast
import itertools
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from IPython.core.error import UsageError as MagicUsage

from p2p_ipython.errors import UsageError
from p2p_ipython.protocol.plain import plain

MOST = 100_000
"""Settings of one cell, at most."""

_VALUE = 24
"""Characters of a value in a label, at most."""

_EXAMPLE = 'write --each "alpha in alphas", or --each "a, b in pairs"'

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _VALUE
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 3


class Axis(NamedTuple):
    """One ``--each``: the names that it sets, and the values of each setting, in the order of the names."""

    names: tuple[str, ...]
    values: Iterable[tuple[Any, ...]]


def axis(option: str, namespace: dict[str, Any]) -> Axis:
    """Read one ``--each``, and evaluate what it loops over in ``namespace``; its values are taken later.

    Raises IPython's ``UsageError`` for what is no loop, and what the expression raises.
    """
    try:
        tree = ast.parse(f"[0 for {option}]", mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        tree = ast.Constant(0)
    if not isinstance(tree, ast.ListComp) or len(tree.generators) != 1 or tree.generators[0].is_async:
        raise MagicUsage(f"--each {option[:80]!r} is no loop: {_EXAMPLE}")
    loop = tree.generators[0]
    if not (names := tuple(_names(loop.target))):
        raise MagicUsage(f"--each {option[:80]!r} sets something else than names: {_EXAMPLE}")
    if len(set(names)) < len(names):
        raise MagicUsage(f"--each {option[:80]!r} sets a name twice")
    element = ast.Tuple([ast.Name(name, ast.Load()) for name in names], ast.Load())
    made = ast.fix_missing_locations(ast.Expression(ast.GeneratorExp(element, [loop])))
    return Axis(names, eval(compile(made, "--each", "eval"), namespace))  # noqa: S307 - the notebook's own code


def _names(target: ast.expr) -> Iterator[str]:
    """Yield the names that a loop sets; none if it sets something else, too."""
    found = [node for node in ast.walk(target) if not isinstance(node, ast.expr_context | ast.Tuple | ast.List)]
    if all(isinstance(node, ast.Name) for node in found):
        yield from (node.id for node in found if isinstance(node, ast.Name))


def grid(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Return the settings: those of the last axis change fastest. Raises ``UsageError`` for too many, or none."""
    names = [name for each in axes for name in each.names]
    if len(set(names)) < len(names):
        raise MagicUsage("two --each set the same name")
    lists = []
    number = 1
    for each in axes:
        taken = list(itertools.islice(each.values, MOST + 1))
        if not taken:
            raise UsageError(
                f"--each finds no value for {', '.join(each.names)}", hint="Is what it loops over used up?"
            )
        number *= len(taken)
        if number > MOST:
            raise UsageError(
                f"--each gives more than {MOST:,} settings",
                hint="Loop over less, as itertools.islice does; cluster.map takes generators of any length.",
            )
        lists.append(taken)
    return [dict(zip(names, itertools.chain(*values), strict=True)) for values in itertools.product(*lists)]


def label(setting: Mapping[str, Any]) -> str:
    """Return a setting in a few words: "alpha=0.3, model=Ridge()"."""
    return plain(", ".join(f"{name}={_words(value)}" for name, value in setting.items()), 80)


def _words(value: Any) -> str:
    name = getattr(value, "__name__", None)
    if isinstance(name, str):
        return name
    if type(value).__module__.partition(".")[0] in ("numpy", "pandas") and hasattr(value, "__len__"):
        return type(value).__name__  # their text takes long
    text = " ".join(_short.repr(value).split())
    return type(value).__name__ if text.startswith("<") else text
