"""Reads: the names that a cell reads and has not set itself, decided from its source. Nothing is executed.

``reads(source)`` walks the top level of a cell in the order in which it runs and keeps what is certainly set.
A name that may be read before it is set counts as read. So a loop's body, one branch of an ``if``, a ``try``
or a ``with`` (which may swallow an exception) set nothing for certain.

Scopes inside functions, lambdas and comprehensions are Python's own business: ``symtable`` says which of
their names are global. They count where the function is made, or, for plain ``def``s, at the first statement
that could call it, so that functions may call those that are defined below them.

``words`` are apart: what strings mention may be names that ``df.query("a > limit")`` looks for, or just words.

Also seen: the Python inside ``%time``, ``%%time``, ``%%capture`` and the like, and ``{name}`` and ``$name`` in
a magic's line or a shell command. Not seen: names inside strings that are given to ``eval``, ``getattr`` or
``globals()``.
"""

from __future__ import annotations

import ast
import copy
import re
import string
import symtable
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

Transform = Callable[[str], str]

_PYTHON_MAGICS = frozenset(
    "time timeit prun capture debug memit mprun lprun p2p pinfo pinfo2 psource pdef pdoc pfile".split()  # noqa: SIM905
)
_WORD = re.compile(r"\b[^\W\d]\w*")
_STRINGS = 100_000
"""Characters of a cell's strings that are looked at."""

_SHELL_WORD = re.compile(r"\$(\w+)")
OPTION = re.compile(r"^\s*(-\w+\s+(\d+\s+)?)+")


@dataclass(frozen=True)
class Reads:
    """``names`` in the order of first use; ``dotted`` has the longest ``a.b.c`` chains that the cell mentions.

    ``words`` are those in its string constants that could be names.
    """

    names: tuple[str, ...]
    dotted: frozenset[str]
    words: tuple[str, ...] = ()


def reads(source: str, transform: Transform) -> Reads:
    """Analyse a cell; ``transform`` turns magics and ``!`` into Python, as IPython's ``transform_cell`` does.

    Raises ``SyntaxError`` with the cell's own line numbers.
    """
    return reads_in(parsed(source, transform), transform)


def reads_in(tree: ast.Module, transform: Transform) -> Reads:
    """Analyse a cell that is parsed."""
    flow = _Flow(transform)
    try:
        flow.block(tree.body)
        names = tuple(flow.found)
    except RecursionError:  # machine-made code, thousands of terms deep: every name that it mentions
        names = tuple(dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)))
    return Reads(names, frozenset(_dotted(tree)), tuple(dict.fromkeys(_words(tree))))


def parsed(source: str, transform: Transform) -> ast.Module:
    """Parse and compile a cell. Raises ``SyntaxError`` with the cell's own line numbers."""
    skipped = len(source) - len(source.lstrip("\r\n"))
    above = source[:skipped].count("\n")  # IPython drops empty lines at the top: they are put back, to count
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a SyntaxWarning is for the one who runs the cell
        text = "\n" * above + transform(source).lstrip("\r\n")
        tree = compile(text, "<cell>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        compile(text, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    return tree


def _words(tree: ast.AST) -> Iterator[str]:
    """Yield what could be a name in each string that isn't too long, but for docstrings."""
    left = _STRINGS
    docstrings: set[ast.AST] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Module():
                match node.body:
                    case [ast.Expr(value=ast.Constant(value=str()) as docstring), *_]:
                        docstrings.add(docstring)
            case ast.Constant(value=str(text)) if len(text) <= left and node not in docstrings:
                left -= len(text)
                yield from _WORD.findall(text)


def _dotted(tree: ast.AST) -> Iterator[str]:
    inner: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in inner:
            parts = []
            at: ast.expr = node
            while isinstance(at, ast.Attribute):
                inner.add(at)
                parts.append(at.attr)
                at = at.value
            if isinstance(at, ast.Name):
                yield ".".join([at.id, *reversed(parts)])


_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = TypeVar("_Definition", ast.FunctionDef | ast.AsyncFunctionDef, ast.ClassDef)


@dataclass
class _Flow:
    """The names that are certainly bound at one place of the cell, and those read up to it (``found``).

    A name that the cell has bound and deleted again counts as bound: it is gone here and there alike.
    """

    transform: Transform
    bound: set[str] = field(default_factory=set)
    found: dict[str, None] = field(default_factory=dict)
    in_class: bool = False
    """Whether this is a class body, whose functions were looked at with the class as a whole."""
    waiting: dict[str, None] = field(default_factory=dict)
    """Reads of functions that are defined but that nothing can have called yet."""

    # Statements, in the order in which they run.

    def block(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            if not _calls_nothing(statement):
                self.settle()
            self.statement(statement)
        self.settle()

    def settle(self) -> None:
        """Count what waits: from here on it may be read."""
        waiting, self.waiting = self.waiting, {}
        for name in waiting:
            self.read(name)

    def branch(self) -> _Flow:
        """Return the same place in a branch that may not run: it shares what was found, not what is bound."""
        return _Flow(self.transform, set(self.bound), self.found)

    def read(self, name: str) -> None:
        if name not in self.bound:
            self.found.setdefault(name)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.function(node)
            case ast.ClassDef():
                self.class_(node)
            case ast.Assign(targets=targets, value=value):
                self.expression(value)
                for target in targets:
                    self.target(target)
            case ast.AnnAssign(target=target, annotation=annotation, value=value):
                self.expression(annotation)
                if value is not None:
                    self.expression(value)
                    self.target(target)
            case ast.AugAssign(target=target, value=value):
                self.expression(_loaded(target))
                self.expression(value)
                self.target(target)
            case ast.Delete(targets=targets):
                for target in targets:
                    self.expression(_loaded(target))
                    self.bound.update(_names(target))
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                self.bound.update((alias.asname or alias.name).partition(".")[0] for alias in names)
            case ast.If(test=test, body=body, orelse=orelse):
                self.expression(test)
                self.either(body, orelse)
            case ast.While(test=test, body=body, orelse=orelse):
                self.expression(test)
                self.maybe(body)
                self.maybe(orelse)
            case ast.For() | ast.AsyncFor():
                self.expression(node.iter)
                inside = self.branch()
                inside.target(node.target)
                inside.block(node.body)
                self.maybe(node.orelse)
            case ast.With() | ast.AsyncWith():
                self.with_(node)
            case ast.Try() | ast.TryStar():
                self.try_(node)
            case ast.Match(subject=subject, cases=cases):
                self.expression(subject)
                for case in cases:
                    inside = self.branch()
                    inside.expression(case.pattern)
                    inside.bound.update(_names(case.pattern))
                    if case.guard is not None:
                        inside.expression(case.guard)
                    inside.block(case.body)
            case ast.Assert(test=test, msg=msg):
                self.expression(test)
                if msg is not None:
                    self.branch().expression(msg)
            case ast.Expr() | ast.Return() | ast.Raise():
                self.expression(node)
            case ast.Global() | ast.Nonlocal() | ast.Pass() | ast.Break() | ast.Continue():
                pass
            case _:  # a statement of a newer Python: whatever it names counts
                self.nested(node)
                self.bound.update(_names(node))

    def maybe(self, body: list[ast.stmt]) -> _Flow:
        inside = self.branch()
        inside.block(body)
        return inside

    def either(self, body: list[ast.stmt], orelse: list[ast.stmt]) -> None:
        self.bound |= self.maybe(body).bound & self.maybe(orelse).bound

    def with_(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.expression(item.context_expr)
            if item.optional_vars is not None:
                self.target(item.optional_vars)
        self.maybe(node.body)

    def try_(self, node: ast.Try | ast.TryStar) -> None:
        body = self.maybe(node.body)
        body.block(node.orelse)
        ends = [body.bound]
        for handler in node.handlers:
            inside = self.branch()
            if handler.type is not None:
                inside.expression(handler.type)
            if handler.name is not None:
                inside.bound.add(handler.name)
            inside.block(handler.body)
            ends.append(inside.bound)
        finally_ = self.maybe(node.finalbody)
        self.bound |= set.intersection(*ends) | finally_.bound

    def function(self, node: _Function) -> None:
        for decorator in node.decorator_list:
            self.expression(decorator)
        self.expression(node.args)
        if node.returns is not None:
            self.expression(node.returns)
        inner = [] if self.in_class else _inner_names(_undecorated(node))
        if node.decorator_list:
            for name in inner:
                self.read(name)
        else:  # nobody can call it before its name is bound, so its own name is no read
            self.waiting.update((name, None) for name in inner if name != node.name and name not in self.bound)
        self.bound.add(node.name)

    def class_(self, node: ast.ClassDef) -> None:
        for expression in (*node.decorator_list, *node.bases, *node.keywords):
            self.expression(expression)
        for name in _inner_names(_undecorated(node)):
            if name != node.name:
                self.read(name)
        body = self.branch()  # its names are its own, and its functions don't see them
        body.in_class = True
        body.block(node.body)
        self.bound.add(node.name)

    # Expressions.

    def target(self, node: ast.expr) -> None:
        """Note an assignment's left side: its names are set, and the names that it subscripts are read."""
        match node:
            case ast.Name(id=name):
                self.bound.add(name)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for part in parts:
                    self.target(part)
            case ast.Starred(value=value):
                self.target(value)
            case _:
                self.expression(node)

    def expression(self, node: ast.AST) -> None:
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                self.read(name)
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                self.expression(value)
                self.bound.add(name)
            case ast.BoolOp(values=[first, *others]):
                self.expression(first)
                inside = self.branch()
                for other in others:
                    inside.expression(other)
            case ast.Compare(left=left, comparators=[first, *others]):
                self.expression(left)
                self.expression(first)
                inside = self.branch()
                for other in others:
                    inside.expression(other)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self.expression(test)
                self.branch().expression(body)
                self.branch().expression(orelse)
            case ast.Lambda(args=arguments):
                self.expression(arguments)
                self.nested(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self.expression(node.generators[0].iter)
                self.nested(node)
            case ast.Call() if (magic := magic_of(node)) is not None:
                self.magic(*magic)
            case _:
                for child in ast.iter_child_nodes(node):
                    self.expression(child)

    def nested(self, node: ast.expr | ast.stmt) -> None:
        for name in _inner_names(node):
            self.read(name)

    def magic(self, name: str, line: str, body: str) -> None:
        for expression in _expanded(line):
            self.python(expression)
        if name in _PYTHON_MAGICS:
            self.python(OPTION.sub("", line))
            self.python(body)

    def python(self, source: str) -> None:
        """Read what may be Python; where it isn't, it says nothing."""
        try:
            tree = parsed(source, self.transform)
        except (SyntaxError, ValueError):
            return
        self.maybe(tree.body)


def _undecorated(node: _Definition) -> _Definition:
    bare = copy.copy(node)
    bare.decorator_list = []
    return bare


def _calls_nothing(node: ast.stmt) -> bool:
    """Whether no function of the cell can run during ``node``: imports, and ``def``s with plain defaults."""
    if isinstance(node, _Function):
        defaults = (*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None))
        return not node.decorator_list and all(isinstance(d, ast.Constant | ast.Name) for d in defaults)
    return isinstance(node, ast.Import | ast.ImportFrom)


def _loaded(target: ast.expr) -> ast.expr:
    """Return a target as the expression that reads it (``x += 1`` and ``del x`` need ``x``)."""
    target = copy.deepcopy(target)
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            node.ctx = ast.Load()
    return target


def _names(node: ast.AST) -> set[str]:
    """Yield the names that a target or a pattern sets (or deletes)."""
    found: set[str] = set()
    for child in ast.walk(node):
        match child:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                found.add(name)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                found.add(name)
    return found


def _inner_names(node: ast.expr | ast.stmt) -> list[str]:
    """Global names that the functions, lambdas and comprehensions inside ``node`` read, at any depth."""
    changed = {
        name
        for child in ast.walk(node)
        if isinstance(child, ast.AugAssign | ast.Delete)
        for target in ([child.target] if isinstance(child, ast.AugAssign) else child.targets)
        for name in _names(target)
    }  # symtable counts `global n; n += 1` as setting n only

    def visit(table: symtable.SymbolTable) -> Iterator[str]:
        for inner in table.get_children():
            if inner.get_type() != "class":
                for symbol in inner.get_symbols():
                    if symbol.is_global() and (symbol.is_referenced() or symbol.get_name() in changed):
                        yield symbol.get_name()
            elif not (isinstance(node, ast.ClassDef) and table.get_type() == "module"):
                for symbol in inner.get_symbols():  # a class body falls back to the global of the same name
                    if symbol.is_referenced() and not symbol.is_free():
                        yield symbol.get_name()
            yield from visit(inner)

    text = ast.unparse(node)
    again: set[str] = set()
    if isinstance(node, ast.expr):
        # In a function of its own: from Python 3.12 on, a comprehension's names are listed with those around it.
        text = f"async def _():\n    return ({text})"
        inside = list(ast.walk(node))
        loaded = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        # What `:=` sets in a comprehension is the notebook's; read there, it may be read before it is set.
        again = loaded & {n.target.id for n in inside if isinstance(n, ast.NamedExpr)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = symtable.symtable(text, "<cell>", "exec")
    return list(dict.fromkeys((*visit(table), *sorted(again))))


def magic_of(node: ast.AST) -> tuple[str, str, str] | None:
    """(name, line, body) of ``get_ipython().run_…_magic(…)``, which IPython makes of magics and shell commands."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython"), args=[]), attr=kind), args=arguments
        ):
            texts = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if len(texts) != len(arguments):
                return None
            match kind, texts:
                case "run_line_magic", [name, line]:
                    return name, line, ""
                case "run_cell_magic", [name, line, body]:
                    return name, line, body
                case "system" | "getoutput", [line]:
                    return "!", line, ""
    return None


def _expanded(line: str) -> Iterator[str]:
    """Yield the expressions that IPython expands in a magic's line: ``{expression}`` and ``$name``."""
    try:
        yield from (expression for _, expression, _, _ in string.Formatter().parse(line) if expression)
    except ValueError:  # unbalanced braces: IPython leaves the line as it is
        pass
    yield from _SHELL_WORD.findall(line)
