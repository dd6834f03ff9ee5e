"""Runs a cell in a namespace of its own, with the shell of this process: its magics, its tracebacks, its ``display``.

The shell shows neither the value nor the error: the caller gets them.
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

_FUTURES = {name: getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}
_MASK = sum(set(_FUTURES.values()))
_INTERACTIVE = ("last_expr", "last_expr_or_assign", "all")


def shell() -> Any:
    """Return the shell of this process, None without any."""
    module = sys.modules.get("IPython.core.interactiveshell")
    return module.InteractiveShell._instance if module is not None else None


def run_cell(source: str, namespace: dict[str, Any], take: Callable[[object], object]) -> None:
    """Run a cell; ``take`` gets the value to show, if there is one. Raises what the cell raises."""
    ip = shell()
    if ip is None:
        transformed, name, flags, how = source, "<cell>", 0, "last_expr"
    else:
        transformed = ip.transform_cell(source)
        name = ip.compile.cache(transformed, ip.displayhook.prompt_count, raw_code=source)
        flags, how = ip.compile.flags & _MASK, ip.ast_node_interactivity
        namespace.update({name: ip.user_ns[name] for name in ("get_ipython", "exit", "quit") if name in ip.user_ns})
        for name_, empty in (("In", [""]), ("Out", {}), ("_ih", [""]), ("_oh", {}), ("_dh", [""])):
            namespace.setdefault(name_, empty)
    tree = compile(transformed, name, "exec", ast.PyCF_ONLY_AST | flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)
    assert isinstance(tree, ast.Module)
    if ip is not None:
        tree = ip.transform_ast(tree)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for alias in node.names:
                flags |= _FUTURES.get(alias.name, 0)
    with _namespace_of(ip, namespace):
        for code, shown in _steps(tree, name, flags, how):
            value = _executed(code, namespace)
            if shown and value is not None and not (shown == "last" and _is_quiet(source)):
                if shown == "last":
                    take(value)
                else:
                    _display(value)
        if ip is not None:
            flush_figures()


def flush_figures() -> None:
    """Show and close what matplotlib has drawn, if it shows figures in notebooks."""
    inline = sys.modules.get("matplotlib_inline.backend_inline")
    if inline is not None:
        inline.flush_figures()


def to_its_end(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a loop of its own, also in a thread whose loop runs: a notebook's cell waits for it."""
    outer = asyncio._get_running_loop()
    swap = getattr(asyncio.tasks, "_swap_current_task", None) if outer is not None else None
    task = swap(outer, None) if swap is not None else None
    asyncio._set_running_loop(None)
    try:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(work)
    finally:
        asyncio._set_running_loop(outer)
        if swap is not None:
            swap(outer, task)


def _steps(tree: ast.Module, name: str, flags: int, how: str) -> Iterator[tuple[CodeType, str]]:
    """Yield the code of a cell in pieces, each with how its value is shown: "last", "each" or not at all."""
    flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

    def compiled(nodes: list[ast.stmt]) -> CodeType:
        module = ast.Module(nodes, type_ignores=[])
        return compile(module, name, "exec", flags, True)  # type: ignore[no-any-return]

    body = list(tree.body)
    if how == "last_expr_or_assign" and body and isinstance(last := body[-1], ast.Assign | ast.AnnAssign):
        target = last.targets[0] if isinstance(last, ast.Assign) else last.target
        if isinstance(target, ast.Name):
            shown = ast.Expr(ast.Name(target.id, ast.Load()))
            body.append(ast.fix_missing_locations(ast.copy_location(shown, last)))
    waiting: list[ast.stmt] = []
    for number, node in enumerate(body, 1):
        shows = isinstance(node, ast.Expr) and (how == "all" or (number == len(body) and how in _INTERACTIVE))
        if not shows:
            waiting.append(node)
            continue
        if waiting:
            yield compiled(waiting), ""
            waiting = []
        assert isinstance(node, ast.Expr)
        expression = ast.Expression(node.value)
        yield compile(expression, name, "eval", flags, True), "last" if number == len(body) else "each"
    if waiting:
        yield compiled(waiting), ""


def _executed(code: CodeType, namespace: dict[str, Any]) -> Any:
    value = eval(code, namespace)  # noqa: S307 - it is the cell that the user has written
    return to_its_end(value) if code.co_flags & inspect.CO_COROUTINE else value


@contextmanager
def _namespace_of(ip: Any, namespace: dict[str, Any]) -> Iterator[None]:
    """Let magics in the cell find its names, and no others."""
    if ip is None:
        yield
        return
    before = ip.user_ns, ip.user_module, ip.user_ns_hidden
    ip.user_ns, ip.user_module, ip.user_ns_hidden = namespace, sys.modules["__main__"], dict(namespace)
    try:
        with ip.builtin_trap:
            yield
    finally:
        ip.user_ns, ip.user_module, ip.user_ns_hidden = before


def _is_quiet(source: str) -> bool:
    from IPython.core.displayhook import DisplayHook  # late: a script may do without

    try:
        return bool(DisplayHook.semicolon_at_end_of_expression(source))  # type: ignore[no-untyped-call]
    except Exception:  # tokenize may stumble over what the compiler accepts
        return False


def _display(value: object) -> None:
    if shell() is None:
        sys.stdout.write(f"{value!r}\n")
        return
    from IPython.display import display

    display(value)  # type: ignore[no-untyped-call]
