"""Bindings: the names that a cell sets for the notebook, and those of its values that it changes in place.

Both are decided from the source; nothing is executed. What is bound inside functions and classes is their own, but
for ``global``. ``changed`` knows assignments to items and attributes, and calls of methods and functions that are known
to change something in place: it is for a word of advice, so it may miss what only running the cell would show.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from p2p_ipython.task.reads import OPTION, Transform, magic_of, parsed

_CHANGING = frozenset(
    (
        *("append", "extend", "insert", "remove", "pop", "popitem", "clear", "sort", "reverse", "update", "setdefault"),
        *("add", "discard", "appendleft", "extendleft", "popleft", "rotate", "difference_update"),
        *("intersection_update", "symmetric_difference_update"),
        *("fit", "partial_fit", "fit_transform", "fit_predict"),
        *("fill", "put", "itemset", "setflags", "setfield"),
        *("add_node", "add_nodes_from", "add_edge", "add_edges_from", "remove_node", "remove_edge"),
    )
)
"""Methods that change their object: of built-in containers, numpy's arrays, scikit-learn's estimators, graphs."""

_CHANGING_FIRST = frozenset(
    ("shuffle", "heappush", "heappop", "heapify", "heapreplace", "heappushpop", "insort", "insort_left", "insort_right")
)
"""Functions that change their first argument."""

Script = Callable[[str], str]
"""Returns the text of the file that ``%run`` with this line runs; "" for one that isn't known."""

_RUN_HERE = frozenset({"time", "capture", "prun"})
"""Magics whose code runs in the notebook's namespace. That of ``%timeit`` runs in one of its own."""


class Import(NamedTuple):
    """What a cell imports under a name: an attribute of a module; with "" the package that the module is in.

    ``name`` and ``attribute`` are "*" for all public names of it.
    """

    name: str
    module: str
    attribute: str


@dataclass(frozen=True)
class Bindings:
    """``bound``: names that the cell sets, and ``imports`` those of them that it imports, in the order of the source.

    ``changed``: names whose values it changes in place, and that it doesn't set.
    """

    bound: tuple[str, ...]
    imports: tuple[Import, ...]
    changed: tuple[str, ...]

    @property
    def imported(self) -> frozenset[str]:
        """The names that are imports."""
        return frozenset(each.name for each in self.imports)


def bindings_in(tree: ast.Module, transform: Transform, script: Script = lambda _line: "") -> Bindings:
    """Analyse a cell that is parsed (``reads.parsed``), and the code below magics that run it in the notebook."""
    trees = [tree, *_in_magics(tree, transform, script)]
    bound = dict.fromkeys(name for each in trees for name in _bound(each))
    changed = dict.fromkeys(name for each in trees for name in _changed(each) if name not in bound)
    return Bindings(tuple(bound), tuple(name for each in trees for name in _imports(each)), tuple(changed))


def _in_magics(tree: ast.Module, transform: Transform, script: Script, depth: int = 3) -> Iterator[ast.Module]:
    """Yield the code of ``%time``, ``%%capture`` and the like; the name that ``%%capture`` binds as if it were set."""
    for name, line, body in filter(None, map(magic_of, _outside(tree))):
        texts = [line, body] if name in _RUN_HERE else [script(line)] if name == "run" else []
        if name == "capture":
            texts[0] = "".join(f"{word} = None" for word in line.split()[:1] if word.isidentifier())
        for text in texts:
            try:
                inside = parsed(OPTION.sub("", text), transform)
            except SyntaxError:
                continue
            yield inside
            if depth:
                yield from _in_magics(inside, transform, script, depth - 1)


def _outside(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk what runs in the notebook's own namespace, in the order of the source, however deep it is nested."""
    todo = [*ast.iter_child_nodes(tree)][::-1]
    while todo:
        child = todo.pop()
        yield child
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from (node for node in ast.walk(child) if isinstance(node, ast.Global))
                todo += reversed(child.decorator_list)
            case ast.Lambda():
                pass
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                yield from (node for node in ast.walk(child) if isinstance(node, ast.NamedExpr))
            case _:
                todo += reversed([*ast.iter_child_nodes(child)])


def _bound(tree: ast.Module) -> Iterator[str]:
    for node in _outside(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.NamedExpr(target=ast.Name(id=name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((alias.asname or alias.name).partition(".")[0] for alias in names if alias.name != "*")
            case ast.Global(names=names):
                yield from names


def _imports(tree: ast.Module) -> Iterator[Import]:
    for node in _outside(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    package, _, last = alias.name.rpartition(".")
                    if alias.asname and package:
                        yield Import(alias.asname, package, last)
                    else:
                        yield Import(alias.asname or alias.name.partition(".")[0], alias.name, "")
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    yield Import(alias.asname or alias.name, module, alias.name)


def _changed(tree: ast.Module) -> Iterator[str]:
    for node in _outside(tree):
        match node:
            case ast.Subscript(ctx=ast.Store() | ast.Del()) | ast.Attribute(ctx=ast.Store() | ast.Del()):
                yield from _root(node)
            case ast.Call(func=ast.Attribute(value=of, attr=method), args=arguments, keywords=keywords):
                if method in _CHANGING or any(_is_inplace(keyword) for keyword in keywords):
                    yield from _root(of)
                if method in _CHANGING_FIRST and arguments:
                    yield from _root(arguments[0])
            case ast.Call(func=ast.Name(id=function), args=[first, *_]) if function in _CHANGING_FIRST:
                yield from _root(first)
            case ast.AugAssign(target=target) if not isinstance(target, ast.Name):
                yield from _root(target)


def _is_inplace(keyword: ast.keyword) -> bool:
    return keyword.arg == "inplace" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True


def _root(node: ast.expr) -> Iterator[str]:
    """Yield the name that a chain of attributes and items begins with, if it is one."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id
