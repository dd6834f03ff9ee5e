"""Capture: the values of the notebook that a cell uses, and whether they can travel.

A cell is captured in three steps: ``reads`` says which names its source reads; ``capture_cell`` takes their
values and follows the notebook's own functions and classes to what *they* use; ``freeze`` pickles all of it at
once, so that what is changed afterwards doesn't reach the task.

These travel: the values of those names, modules as imports, functions and classes of the notebook with their
code. ``_`` and ``_12`` travel like any other name. These don't: IPython's own names (``In``, ``Out``,
``get_ipython``, …), built-ins, and names that the cell certainly sets before it reads them. A finished future
travels as a finished future, so ``tile.result()`` means there what it means here.

Names in strings (``eval("x")``, ``df.query("a > @limit")``) are guessed: a word of a string that is a name of the
notebook travels if it is a module, or a function or class of the notebook; to machines of one's own also if it is
small, plain data. So do all functions and classes if the cell runs the notebook's own tests. ``include`` adds others.
Modules are imported on the worker, which must have them; files beside the notebook are not sent.
"""

from __future__ import annotations

import dis
import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Literal, NamedTuple

from p2p_ipython.errors import CaptureError, NotPicklable
from p2p_ipython.task.bindings import Bindings, Script, bindings_in
from p2p_ipython.task.blame import Part, culprit
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.by_value import CachedFunction
from p2p_ipython.task.ended import refuse_open_file
from p2p_ipython.task.local_modules import imports_of
from p2p_ipython.task.payload import LARGE, KnownTwice, Packed, measure, pack_task
from p2p_ipython.task.reads import Reads, Transform, parsed, reads_in
from p2p_ipython.task.shell_names import belongs_to_shell
from p2p_ipython.task.small import is_small

CELL = "the cell"
STRING = "a string of the cell"
"""Readers of names, in ``Captured.used_by``."""

_NOTHING: Mapping[str, Any] = {}

_LOOK_INTO = 100
"""Items of a container that are searched for functions of the notebook; pickling finds the others' globals."""


@dataclass(frozen=True)
class Captured:
    """A cell and the values it needs; nothing is copied yet.

    ``names`` is the namespace that travels, ``used_by`` says for each name its reader (the cell, or a
    function of the notebook), ``left_out`` what must not travel, ``home`` is the notebook's own namespace. ``binds``:
    which names the cell sets; ``modules``: those that it imports or uses.
    """

    source: str
    names: Mapping[str, Any]
    used_by: Mapping[str, str]
    left_out: frozenset[str]
    home: dict[str, Any]
    binds: Bindings
    modules: frozenset[str]

    def __repr__(self) -> str:
        return f"<Captured {', '.join(self.names) or 'no names'}>"


class Row(NamedTuple):
    """A line of ``--dry-run``: ``size`` in bytes, or None with the ``trouble`` that keeps it here."""

    name: str
    type: str
    size: int | None
    used_by: str
    trouble: str = ""


def capture_cell(
    source: str,
    home: dict[str, Any],
    *,
    transform: Transform,
    automatic: bool = True,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    values_in_strings: bool = False,
    script: Script = lambda _line: "",
    given: Mapping[str, Any] = _NOTHING,
) -> Captured:
    """Find what ``source`` uses of ``home``, the notebook's namespace.

    ``transform`` is IPython's ``transform_cell``. ``include`` names travel in any case, ``exclude`` names never
    do; with ``automatic`` False only the included ones do. ``values_in_strings``: small values that strings mention
    travel, too. ``script`` returns the text of what ``%run`` runs. ``given`` names travel in any case, with values of
    their own.

    Raises ``CaptureError`` for an empty cell, a missing included name or a future that isn't finished, and
    ``SyntaxError`` with the cell's own line numbers.
    """
    try:
        tree = parsed(source, transform)
        if not tree.body:
            raise CaptureError("the cell is empty", hint="Write some code below %%p2p.")
        read = reads_in(tree, transform)
    except SyntaxError as error:
        if not error.text and error.lineno:  # found after parsing: Python then looks for the line in a file
            error.text = _line(source, error.lineno)
        raise
    except RecursionError:
        raise CaptureError("the cell's code is nested too deeply", hint="Split its longest expression.") from None
    left_out = frozenset(exclude)
    include = tuple(include)
    there = {**home, **given} if given else home
    if missing := [name for name in include if name not in home]:
        raise CaptureError(
            f"there is no {missing[0]!r} in this notebook",
            hint=f"Set it first, or leave +{missing[0]} out of --globals.",
        )
    used_by: dict[str, str] = {}

    def found(names: Iterable[str], by: str) -> Iterator[str]:
        for name in names:
            if name not in used_by and name in there and name not in left_out and not belongs_to_shell(name, home):
                used_by[name] = by
                yield name

    def follow(todo: list[str]) -> None:
        while automatic and todo:
            name = todo.pop(0)
            for label, used in _code_of(there[name], home):
                todo += found(used, label)

    follow(list(found((*include, *given, *read.names) if automatic else (*include, *given), CELL)))
    sure = frozenset(used_by)
    for word in (*read.words, *_looked_through(read, home)) if automatic else ():
        if word in home and word not in used_by and _guessed(home[word], values=values_in_strings):
            before = len(used_by)
            follow(list(found([word], STRING)))
            added = {name: home[name] for name in list(used_by)[before:]}
            if isinstance(home[word], FunctionType | type) and not _all_travel(added, home):
                for name in added:  # a word in a string must keep no cell from being sent
                    del used_by[name]
    for name in _for_effects(imports_of(tree), home) if automatic else ():
        list(found([name], CELL))
    names = {name: _travelling(name, there[name], read.dotted, sure=name in sure) for name in used_by}
    used = (part for value in names.values() if isinstance(value, _Module) for part in (value.name, *value.submodules))
    modules = frozenset((*imports_of(tree), *used))
    return Captured(source, names, used_by, left_out, home, bindings_in(tree, transform, script), modules)


def _looked_through(read: Reads, home: Mapping[str, Any]) -> Iterator[str]:
    """Yield the notebook's functions and classes if the cell calls a function that looks through all of them."""
    called = set(read.dotted)  # as it is if the cell imports the module
    for name in (*read.names, *read.dotted):
        first, _, rest = name.partition(".")
        found = home.get(first)
        if rest and isinstance(found, ModuleType):
            found = vars(found).get(rest)
        if isinstance(found, FunctionType | type):
            called.add(f"{found.__module__}.{found.__name__}")
    if called & _LOOK_THROUGH:
        yield from (name for name, value in home.items() if isinstance(value, FunctionType | type) and _is_ours(value))


_LOOK_THROUGH = {"doctest.testmod", "unittest.main", "unittest.main.TestProgram"}
"""What looks through the notebook for tests: the last two are one. Without any it would find that all is well."""


def freeze(
    captured: Captured,
    store: BufferStore,
    *,
    large: int = LARGE,
    names: Mapping[str, Any] | None = None,
    apart: Mapping[int, Any] | None = None,
) -> Packed:
    """Pickle the captured namespace as it is now; see ``pack_task`` for what the caller has to unpin.

    ``names`` is what travels in its place, if some of it travels beside; ``apart`` is as in ``pack_task``.

    Raises ``NotPicklable``, or ``CaptureError`` for a future deep inside, with the name that is to blame.
    """
    names = dict(captured.names if names is None else names)
    try:
        for value in captured.names.values():
            refuse_open_file(value)
        return pack_task(
            names,
            store,
            large=large,
            shared_globals=(captured.home, names),
            left_out=captured.left_out,
            source=captured.source,
            apart=apart or {},
        )
    except KnownTwice:
        raise
    except Exception as error:
        raise _blamed(captured, error) from error


def listing(captured: Captured) -> list[Row]:
    """List what would travel, in the order of use. Objects that several names share count at each of them."""
    rows = []
    for name, value in captured.names.items():
        size, trouble = None, ""
        try:
            size = _measured(captured, name)
        except Exception as error:
            trouble = _reason(error)
        rows.append(Row(name, _kind(value), size, captured.used_by[name], trouble))
    return rows


def _measured(captured: Captured, name: str) -> int:
    """Measure one name alone: the functions among the others are left at home."""
    refuse_open_file(captured.names[name])
    alone = {name: captured.names[name]}
    others = dict.fromkeys(captured.names)
    return measure(alone, (captured.home, others | alone), captured.source)


def _blamed(captured: Captured, error: Exception) -> CaptureError:
    for name, value in captured.names.items():
        try:
            _measured(captured, name)
        except Exception as own:
            where = f"{name!r} ({_kind(value)}, used by {captured.used_by[name]})"
            if isinstance(own, CaptureError):
                return CaptureError(f"{where}: {own.message}", hint=own.hint)
            part = culprit(name, value, functools.partial(_travels, (captured.home, dict.fromkeys(captured.names))))
            return NotPicklable(
                f"{where} can't be pickled: {_of_part(part, name)}{_reason(own)}",
                name=name,
                hint=_advice(value, name, "cell"),
            )
    if isinstance(error, CaptureError):
        return error
    return NotPicklable(
        f"the cell's values can't be pickled together: {_reason(error)}", name="", hint="Make some of them in the cell."
    )


def not_picklable(name: str, value: object, error: Exception) -> CaptureError:
    """Return the error that says why ``name`` of a call can't travel, and what to do; pickling it raised ``error``."""
    if isinstance(error, CaptureError):
        return error
    part = culprit(name, value, functools.partial(_travels, None))
    return NotPicklable(
        f"{name} ({_kind(value)}) can't be pickled: {_of_part(part, name)}{_reason(error)}",
        name=name,
        hint=_advice(value, name, "function"),
    )


def _travels(shared_globals: tuple[dict[str, Any], dict[str, Any]] | None, value: object) -> bool:
    try:
        refuse_open_file(value)
        measure(value, shared_globals)
    except Exception:
        return False
    return True


def _of_part(part: Part, name: str) -> str:
    return "" if part.path == name else f"{part.path} ({_kind(part.value)}): "


def _advice(value: object, name: str, inside: Literal["cell", "function"]) -> str:
    if hasattr(value, "read") or hasattr(value, "fileno"):
        return f"Open it inside the {inside}, or read it here and send what you read: it is open on this machine only."
    if isinstance(value, FunctionType | CachedFunction | type) or _is_ours(type(value)):
        return f"Something that {name} refers to can't travel; make that inside the function."
    return f"Make it inside the {inside}" + (f", or leave it out: --globals -{name}" if inside == "cell" else ".")


def _line(source: str, number: int) -> str:
    lines = re.split(r"\r\n|\r|\n", source)  # as Python's parser does, and not as splitlines()
    return lines[number - 1] if number <= len(lines) else ""


def _reason(error: BaseException) -> str:
    lines = (str(error) or type(error).__name__).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _kind(value: object) -> str:
    if isinstance(value, _Module):
        return "module"
    if isinstance(value, CachedFunction):
        return "cached function"
    shape = getattr(value, "shape", None)
    text = type(value).__name__
    return f"{text} {shape}" if isinstance(shape, tuple) and shape else text


def _all_travel(values: dict[str, Any], home: dict[str, Any]) -> bool:
    try:
        for value in values.values():
            refuse_open_file(value)
        measure(values, (home, values))
    except Exception:
        return False
    return True


def _guessed(value: object, *, values: bool) -> bool:
    """Return whether a value that a string mentions should travel: a module, code of the notebook, small ``values``."""
    if isinstance(value, ModuleType):
        return sys.modules.get(value.__name__) is value
    if isinstance(value, FunctionType | type):
        return _is_ours(value)
    return values and is_small(value)


def _for_effects(imported: Iterable[str], home: dict[str, Any]) -> Iterator[str]:
    """Yield names of modules that the notebook has imported for their effects on a package that the cell imports from.

    As ``sklearn.experimental.enable_iterative_imputer``: it defines nothing itself. On the worker it may be missing.
    """
    packages = {name.partition(".")[0] for name in imported}
    for name, value in home.items():
        if not isinstance(value, ModuleType) or "." not in value.__name__ or hasattr(value, "__path__"):
            continue
        if value.__name__.partition(".")[0] in packages and not any(
            getattr(part, "__module__", "") == value.__name__ for part in vars(value).values()
        ):
            yield name


def _travelling(name: str, value: Any, dotted: Iterable[str], *, sure: bool) -> Any:
    """Return what travels under ``name``: the value itself, a module as an import.

    ``sure``: the code uses it; else the module may be missing on the worker.
    """
    if isinstance(value, Future) and not value.done():
        raise CaptureError(
            f"{name!r} is a future that is not finished, and the cell uses it",
            hint=f"Wait for it before this cell: `await {name}` or {name}.result().",
        )
    if isinstance(value, ModuleType) and sys.modules.get(value.__name__) is value:
        return _Module(value.__name__, tuple(sorted(_submodules(name, value, dotted))), sure=sure)
    return value


def _submodules(name: str, module: ModuleType, dotted: Iterable[str]) -> Iterator[str]:
    """Submodules that the cell reaches as attributes: importing the module alone need not load them."""
    for chain in dotted:
        first, *rest = chain.split(".")
        if first == name:
            for end in range(len(rest), 0, -1):
                path = ".".join([module.__name__, *rest[:end]])
                if path in sys.modules:
                    yield path
                    break


class _Module:
    """A module on its way: the worker imports it, and the submodules that are used through it."""

    def __init__(self, name: str, submodules: tuple[str, ...], *, sure: bool) -> None:
        self.name = name
        self.submodules = submodules
        self.sure = sure

    def __reduce__(self) -> tuple[Callable[..., ModuleType], tuple[Any, ...]]:
        return (import_module_with, (self.name, self.submodules)) if self.sure else (import_if_there, (self.name,))


def import_module_with(name: str, submodules: tuple[str, ...]) -> ModuleType:
    """Import a module and submodules of it; runs on the worker. Raises ``ModuleNotFoundError``."""
    for path in submodules:
        importlib.import_module(path)
    return importlib.import_module(name)


def import_if_there(name: str) -> ModuleType:
    """Import a module that the task may not need; runs on the worker. Without it, return a name without a module."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return ModuleType(name, "It is not installed on this worker.")


def _code_of(value: object, home: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (function's name, globals it uses) of each function of this notebook that ``value`` is or holds."""
    seen: set[int] = set()
    todo: list[object] = [value]
    budget = 10 * _LOOK_INTO
    while todo and budget:
        budget -= 1
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, FunctionType):
            todo += _closed_over(item)  # also of a decorator that was imported
            if item.__globals__ is not home:
                continue
            yield item.__qualname__, _globals_of(item.__code__)
            todo += (*(item.__defaults__ or ()), *(item.__kwdefaults__ or {}).values())
            todo += item.__dict__.values()
        elif isinstance(item, MethodType):
            todo += (item.__func__, item.__self__)
        elif isinstance(item, functools.partial):
            todo += (item.func, *item.args, *item.keywords.values())
        elif isinstance(item, staticmethod | classmethod):
            todo.append(item.__func__)
        elif isinstance(item, property):
            todo += (item.fget, item.fset, item.fdel)
        elif isinstance(item, functools.cached_property):
            todo.append(item.func)
        elif isinstance(item, functools.singledispatchmethod):
            todo.append(item.dispatcher)
        elif isinstance(item, type):
            if _is_ours(item):
                todo += item.__dict__.values()
                todo += item.__bases__
        elif isinstance(item, list | tuple | set | frozenset) and not _is_proxy(item):
            todo += (part for part, _ in zip(item, range(_LOOK_INTO), strict=False))
        elif isinstance(item, dict) and not _is_proxy(item):
            todo += (part for part, _ in zip(item.values(), range(_LOOK_INTO), strict=False))
        elif _is_ours(type(item)):
            todo.append(type(item))
            todo += getattr(item, "__dict__", {}).values()
        elif hasattr(type(item), "__wrapped__") or isinstance(item, CachedFunction):
            todo.append(getattr(item, "__wrapped__", None))


def _is_proxy(value: object) -> bool:
    """Whether ``value`` shows another object's class as its own."""
    return not issubclass(type(value), value.__class__)


def _is_ours(cls: object) -> bool:
    return getattr(cls, "__module__", None) == "__main__"


def _closed_over(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            pass


_GLOBAL_OPS = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "DELETE_GLOBAL", "STORE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"))


@functools.lru_cache(maxsize=512)
def _globals_of(code: CodeType) -> tuple[str, ...]:
    names = dict.fromkeys(str(step.argval) for step in dis.get_instructions(code) if step.opname in _GLOBAL_OPS)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(dict.fromkeys(_globals_of(constant)))
    return tuple(names)
