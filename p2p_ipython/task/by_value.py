"""Functions and the like that pickle would send by their name, or not at all, taken apart so that they travel.

A name finds something in a module that the worker can import, but nothing of the notebook. Pickle knows only the name
of a function under ``lru_cache`` or ``cache``, and of a ``NewType``. It can't send what ``cached_property``,
``singledispatch`` and ``singledispatchmethod`` keep for themselves: a lock and weak references. The worker decorates
the functions inside anew, so a cache arrives empty. What ``numpy.frompyfunc`` has made is made anew, too. A match is
searched again, and a context variable arrives with the value that it has.

A decorated function may refer to itself. Pickle then meets it again before the first one is complete, and keeps the
copy that is complete first. So the functions that put something together here take parts that are not complete yet.

Standard library and cloudpickle only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import functools
import gc
import importlib
import re
import struct
import sys
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from operator import attrgetter
from types import FunctionType
from typing import Any, NewType, ParamSpec, TypeVarTuple

from cloudpickle.cloudpickle import list_registry_pickle_by_value

from p2p_ipython.errors import CaptureError
from p2p_ipython.task.objects import blank

CachedFunction = functools._lru_cache_wrapper
_DESCRIPTORS = (functools.cached_property, functools.singledispatchmethod)
TAKEN_APART = (
    *(CachedFunction, *_DESCRIPTORS, property, NewType, ParamSpec, TypeVarTuple, ContextVar, re.Match),
    *(struct.Struct, weakref.ref, weakref.WeakValueDictionary, weakref.WeakKeyDictionary, weakref.WeakSet),
)
"""The types that ``taken_apart`` knows. A function that dispatches on a type is a plain one: see ``dispatches``."""

_NAMES = frozenset(functools.WRAPPER_ASSIGNMENTS) - {"__annotate__"}
"""The attributes that a dispatching function has of the one inside. From Python 3.14 on annotations are code."""

_BLANK: Any = functools.singledispatch(lambda _value: None)
_OF_DISPATCHERS = frozenset(vars(_BLANK)) - {"__wrapped__"}
"""Attributes of a function that dispatches, each made for that one function."""

_OF_DESCRIPTORS = frozenset({"lock", "_method_cache"})
"""Attributes of a descriptor, made for that one; of Python 3.11's ``cached_property``, and since 3.13 of the other."""

_OF_CACHES = _OF_DISPATCHERS | {"cache_parameters", "__wrapped__", "__annotate__"}
"""Attributes that a cached function gets where it is made: its own, and those of a function that dispatches."""


def taken_apart(value: Any) -> Any:
    """Reduce a value of ``TAKEN_APART`` as ``__reduce__`` does: to its name if that can be imported, else to its parts.

    Raises ``CaptureError`` for a cached function that hides the function that it calls.
    """
    if isinstance(value, _DESCRIPTORS):
        return type(value).__new__, (type(value),), _without(_OF_DESCRIPTORS, vars(value)), None, None, complete
    if (small := _SMALL.get(type(value))) is not None:
        return small(value)
    if isinstance(value, property):  # of a subclass: pickle would call its __init__
        return blank, (type(value), property, (value.fget, value.fset, value.fdel, value.__doc__)), vars(value) or None
    if isinstance(value, re.Match):
        return _match_taken_apart(value)
    if isinstance(value, ContextVar):
        return _variable_taken_apart(value)
    if _is_importable(value):
        return value.__reduce__()
    if isinstance(value, CachedFunction):
        return _cached_taken_apart(value)
    if isinstance(value, NewType):
        return NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__}
    return type(value), (value.__name__,)


def is_made_ufunc(value: object) -> bool:
    """Whether ``numpy.frompyfunc`` made ``value``."""
    kind = type(value)
    return kind.__name__ == "ufunc" and kind.__module__ == "numpy" and bool(_calls(value))


def ufunc_taken_apart(ufunc: Any) -> Any:
    """Reduce a ufunc for which ``is_made_ufunc`` is true to the Python function that it calls."""
    return made_ufunc, (_calls(ufunc)[0], ufunc.nin, ufunc.nout, ufunc.identity)


def made_ufunc(function: Callable[..., Any], nin: int, nout: int, identity: object) -> Any:
    """Return a ufunc that calls ``function``."""
    given = {} if identity is None else {"identity": identity}
    return importlib.import_module("numpy").frompyfunc(function, nin, nout, **given)


def again_matched(pattern: re.Pattern[Any], how: str, arguments: tuple[Any, ...]) -> Any:
    """Return the match that ``pattern`` finds ``how`` it was found before."""
    return getattr(pattern, how)(*arguments)


def variable(name: str, value: tuple[Any, ...]) -> ContextVar[Any]:
    """Return a context variable that has ``value``, or none, where nothing else is set."""
    return ContextVar(name, default=value[0]) if value else ContextVar(name)


def dispatches(function: FunctionType) -> bool:
    """Whether ``functools.singledispatch`` made ``function``."""
    return function.__code__ is _BLANK.__code__


def dispatcher_taken_apart(function: Any) -> Any:
    """Reduce a function for which ``dispatches`` is true to its names, its attributes and its implementations."""
    names = {name: getattr(function, name) for name in sorted(_NAMES) if hasattr(function, name)}
    attributes = _without(_OF_DISPATCHERS, vars(function))
    return (
        blank_dispatcher,
        (function.__name__,),
        (names, attributes, dict(function.registry)),
        None,
        None,
        complete_dispatcher,
    )


def is_dispatch(function: FunctionType) -> bool:
    """Whether ``function`` is a dispatcher's ``dispatch``; bound methods of ``singledispatchmethod`` hold it."""
    return function.__code__ is _BLANK.dispatch.__code__


def dispatch_taken_apart(function: FunctionType) -> Any:
    """Reduce a function for which ``is_dispatch`` is true to the implementations that it chooses from."""
    return blank_dispatch, (), dict(_registry(function)), None, None, complete_dispatch


def blank_dispatch() -> Any:
    """Return a ``dispatch`` that has nothing to choose from yet."""
    return blank_dispatcher("dispatch").dispatch


def complete_dispatch(function: FunctionType, implementations: Mapping[type, Callable[..., Any]]) -> None:
    """Give a blank ``dispatch`` its implementations."""
    _registry(function).update(implementations)


def _registry(dispatch: FunctionType) -> dict[type, Callable[..., Any]]:
    cells = dict(zip(dispatch.__code__.co_freevars, dispatch.__closure__ or (), strict=True))
    registry: dict[type, Callable[..., Any]] = cells["registry"].cell_contents
    return registry


def drop_copies_of_dispatcher(attributes: dict[str, Any]) -> None:
    """Remove from a function's attributes those that ``functools.wraps`` has copied from one that dispatches."""
    if getattr(attributes.get("register"), "__code__", None) is _BLANK.register.__code__:
        for name in _OF_DISPATCHERS:
            attributes.pop(name, None)


def cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Return ``function`` with an empty cache."""
    return functools.lru_cache(maxsize, typed)(function)


def complete(descriptor: Any, state: Mapping[str, Any]) -> None:
    """Give a blank descriptor its state, and a lock or a cache if those of this Python have one."""
    made = next(kind for kind in _DESCRIPTORS if isinstance(descriptor, kind))
    vars(descriptor).update(vars(made(state["func"])) | dict(state))


def blank_dispatcher(name: str) -> Any:
    """Return a function that dispatches to nothing yet; ``name`` is what its own errors call it."""

    def blank(_value: object) -> None: ...

    blank.__name__ = name
    return functools.singledispatch(blank)


def complete_dispatcher(
    function: Any, state: tuple[Mapping[str, Any], Mapping[str, Any], Mapping[type, Callable[..., Any]]]
) -> None:
    """Give a blank dispatcher its names, its attributes and its implementations."""
    names, attributes, implementations = state
    for name, value in names.items():
        setattr(function, name, value)
    vars(function).update(attributes)
    for cls, implementation in implementations.items():
        function.register(cls, implementation)


_held: list[Any] | None = None


def hold_referents() -> None:
    """Keep what weak references that arrive refer to, from now on and until this is called again.

    At home something else holds it. A task may not have been sent that.
    """
    global _held  # noqa: PLW0603 - the process's one list
    _held = []


def weak(kind: Callable[..., Any], *arguments: Any) -> Any:
    """Return a weak reference or dictionary of ``kind``."""
    if _held is not None:
        _held.append(arguments)
    return kind(*arguments)


def dead_reference() -> Any:
    """Return a weak reference to nothing any more."""
    return weakref.ref(set())


_SMALL: Mapping[type, Callable[[Any], Any]] = {
    property: lambda value: NotImplemented,
    struct.Struct: lambda value: (struct.Struct, (value.format,)),
    weakref.ref: lambda value: (dead_reference, ()) if value() is None else (weak, (weakref.ref, value())),
    weakref.WeakValueDictionary: lambda value: (weak, (weakref.WeakValueDictionary, dict(value))),
    weakref.WeakKeyDictionary: lambda value: (weak, (weakref.WeakKeyDictionary, dict(value))),
    weakref.WeakSet: lambda value: (weak, (weakref.WeakSet, list(value))),
}
"""How objects of exactly these types are reduced."""


def _cached_taken_apart(value: Any) -> Any:
    function = vars(value).get("__wrapped__")
    if not any(part is function for part in gc.get_referents(value)):
        raise CaptureError(
            "a cached function can't travel if its __wrapped__ is not the function that it calls",
            hint="Put @cache or @lru_cache above @wraps, not below it.",
        )
    # cache_parameters() of a cache around another one are those of the inner one.
    maxsize, typed = value.cache_info().maxsize, value.cache_parameters()["typed"]
    return cached, (function, maxsize, typed), _without(_OF_CACHES, vars(value))


def _calls(ufunc: object) -> list[Any]:
    return [each for each in gc.get_referents(ufunc) if callable(each)]


def _match_taken_apart(match: re.Match[Any]) -> Any:
    """Reduce a match to the search that finds it again. Raises ``TypeError`` if none does."""
    begin, end = match.pos, match.endpos
    for how, start in (("search", begin), ("fullmatch", begin), ("match", match.start())):
        arguments = (match.string, start, end)
        found = getattr(match.re, how)(*arguments)
        if found is not None and found.regs == match.regs:
            return again_matched, (match.re, how, arguments)
    raise TypeError("a match that no search finds again can't be pickled")


def _variable_taken_apart(variable_: ContextVar[Any]) -> Any:
    try:
        value: tuple[Any, ...] = (variable_.get(),)
    except LookupError:
        value = ()
    return variable, (variable_.name, value)


def _without(names: frozenset[str], attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in names}


def _is_importable(value: Any) -> bool:
    """Whether the worker may import ``value`` by its name: cloudpickle may have been told to send its module."""
    module = value.__module__
    if module == "__main__" or any(f"{module}.".startswith(f"{sent}.") for sent in list_registry_pickle_by_value()):
        return False
    try:
        return attrgetter(getattr(value, "__qualname__", value.__name__))(sys.modules[module]) is value
    except (AttributeError, KeyError):
        return False
