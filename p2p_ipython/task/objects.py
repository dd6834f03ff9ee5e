"""Objects whose own code pickle would call where they arrive, taken apart so that it calls none.

Pickle makes many objects by calling their class with ``args``: exceptions, sets, ``defaultdict``. A subclass whose
``__init__`` takes something else can't be made like that. Pickle asks a blank object for ``__setstate__``, which an
``__getattr__`` that delegates answers by asking itself. It fills containers by their ``__setitem__``, which may count
on attributes that are not there yet. So objects of such classes are made by the base that is built in or a library's,
and get their attributes and items directly.

An exception also keeps its cause, its context and the fields that are none of its attributes.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import contextlib
import copyreg
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_LONGEST_CHAIN = 30
"""Exceptions in a chain of causes and contexts that travel; a longer chain stays behind."""

_FIELDS_LEFT = {"obj", "message", "exceptions"}
"""Fields of built-in exceptions that stay: an object that lacks an attribute may be anything; groups have theirs."""

_REDUCE: Any = object.__reduce__
_REDUCE_EX: Any = object.__reduce_ex__
_NEW: Any = copyreg.__newobj__  # type: ignore[attr-defined]
_WANTS_NEW = ("__getnewargs__", "__getnewargs_ex__")
_HOOKS = ("__new__", "__getattribute__", "__setattr__", "__setitem__", "append", "extend", "update")


def has_hooks(kind: type) -> bool:
    """Whether pickle would call code of ``kind``, a class of the notebook, to fill a blank object of it."""
    if kind.__reduce__ is not _REDUCE or kind.__reduce_ex__ is not _REDUCE_EX or hasattr(kind, "__setstate__"):
        return False
    return hasattr(kind, "__getattr__") or any(
        isinstance(getattr(kind, name, None), types.FunctionType) for name in _HOOKS
    )


def object_taken_apart(value: object) -> Any:
    """Reduce an object of a class for which ``has_hooks`` is true."""
    reduced: Any = object.__reduce_ex__(value, 5)
    kind = type(value)
    asks_new = any(isinstance(getattr(kind, name, None), types.FunctionType) for name in _WANTS_NEW)
    if reduced[0] is _NEW and not asks_new:
        reduced = (_made_by, (kind, _of_library(kind, "__new__"), *reduced[1][1:]), *reduced[2:])
    if isinstance(kind.__getattribute__, types.FunctionType) and kind.__dictoffset__:  # a proxy shows another's
        reduced = (*reduced[:2], dict(object.__getattribute__(value, "__dict__")), *reduced[3:])
    return _filled_directly(reduced)


def made_by_base(value: object, reduced: Any) -> Any:
    """Change ``reduced``, which calls the class of ``value``, to what calls the base that has said so."""
    kind = type(value)
    base = next(each for each in kind.__mro__ if {"__reduce__", "__reduce_ex__"} & vars(each).keys())
    if base is kind or not isinstance(reduced, tuple):
        return reduced
    own = getattr(value, "__dict__", None)
    if base.__name__ == "ndarray" and own:  # numpy says nothing of a subclass's attributes
        return (*reduced[:2], (reduced[2], own), None, None, complete_array)
    if reduced[0] is not kind:
        return reduced
    whole = (blank, (kind, base, reduced[1]), *reduced[2:])
    if hasattr(kind, "__setstate__"):
        return whole
    return _filled_directly(whole if len(whole) > 2 or not own else (*whole, own))


def complete_array(array: Any, state: tuple[Any, Mapping[str, Any]]) -> None:
    """Give a blank array of a subclass its items and its attributes."""
    array.__setstate__(state[0])
    vars(array).update(state[1])


def blank(kind: type, base: Any, arguments: tuple[Any, ...]) -> Any:
    """Return an object of ``kind`` as ``base`` makes it."""
    made = base.__new__(kind, *arguments)
    if base.__init__ is not object.__init__:
        base.__init__(made, *arguments)
    return made


def _made_by(kind: type, base: Any, *arguments: Any) -> Any:
    """Return an object of ``kind`` from ``base.__new__``, which pickle would ask ``kind`` for."""
    return base.__new__(kind, *arguments)


def complete_object(value: Any, state: tuple[Any, list[Any], list[tuple[Any, Any]]]) -> None:
    """Give a blank object its attributes and its items, whatever its class would do about either."""
    own, items, pairs = state
    slots: Mapping[str, Any] = {}
    if isinstance(own, tuple) and len(own) == 2:
        own, slots = own
    if own:
        object.__getattribute__(value, "__dict__").update(own)
    for name, part in (slots or {}).items():
        object.__setattr__(value, name, part)
    if items:
        _of_library(type(value), "extend").extend(value, items)
    if pairs:
        put = _of_library(type(value), "__setitem__").__setitem__
        for key, part in pairs:
            put(value, key, part)


def exception_taken_apart(error: BaseException) -> Any:
    """Reduce an exception, with or without an ``__init__`` of its own; ``NotImplemented`` if it does so itself."""
    kind = type(error)
    ways = ("__reduce__", "__reduce_ex__", "__setstate__")
    if any(_of(kind, way).__module__ != "builtins" for way in ways):
        return NotImplemented
    reduced: Any = error.__reduce__()
    base = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    try:
        made = blank_exception(kind, base, reduced[1])
    except Exception:
        return NotImplemented
    fields = {name: value for name, value in _fields(error) if _field(made, name) is not value}
    state = dict(object.__getattribute__(error, "__dict__")), fields | _chain(error)
    if kind is base and not any(state):
        return reduced[:2]
    return blank_exception, (kind, base, reduced[1]), state, None, None, complete_exception


def blank_exception(kind: type[BaseException], base: Any, arguments: tuple[Any, ...]) -> BaseException:
    """Return an exception of ``kind`` with ``arguments``; ``base`` is the built-in class that it is one of."""
    made: BaseException = base.__new__(kind, *arguments)
    with contextlib.suppress(TypeError):  # its own __init__ may have given others to this one
        base.__init__(made, *arguments)
    return made


def complete_exception(error: BaseException, state: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
    """Give a blank exception its attributes and its fields."""
    attributes, fields = state
    if attributes:
        object.__getattribute__(error, "__dict__").update(attributes)
    for name, value in fields.items():
        object.__setattr__(error, name, value)


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that are shown with ``error``: its cause or context, and theirs."""
    seen = {id(error)}
    each: BaseException | None = error
    while each is not None:
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        if each is None or id(each) in seen:
            return
        seen.add(id(each))
        yield each


def _chain(error: BaseException) -> dict[str, Any]:
    if (error.__cause__ or error.__context__) is None or len(list(chain_of(error))) > _LONGEST_CHAIN:
        return {}
    cause, suppressed = error.__cause__, error.__suppress_context__
    # Setting the cause sets the last one.
    return {
        **({"__cause__": cause} if cause is not None else {}),
        **({"__context__": error.__context__} if error.__context__ is not None else {}),
        "__suppress_context__": suppressed,
    }


def _of(kind: type, name: str) -> type:
    """Return the class from which ``kind`` has ``name``."""
    return next(each for each in kind.__mro__ if name in vars(each))


def _of_library(kind: type, name: str) -> Any:
    """Return the base of ``kind`` whose method of that ``name`` is no Python function, as those of a notebook are."""
    has = (each for each in kind.__mro__ if name in vars(each))
    return next(each for each in has if not isinstance(getattr(each, name), types.FunctionType))


def _fields(error: BaseException) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a built-in exception that are set, and slots of its subclasses."""
    names: Iterable[str] = {
        name
        for base in type(error).__mro__
        if base.__module__ == "builtins" and base not in (BaseException, object)
        for name, part in vars(base).items()
        if isinstance(part, types.MemberDescriptorType) and name not in _FIELDS_LEFT
    }
    for name in sorted({*names, *copyreg._slotnames(type(error))}):  # type: ignore[attr-defined]
        if (value := _field(error, name)) is not None:
            yield name, value


def _field(error: BaseException, name: str) -> Any:
    try:
        return object.__getattribute__(error, name)
    except AttributeError:
        return None


def _filled_directly(reduced: Any) -> Any:
    """Change ``reduced`` so that ``complete_object`` fills the object."""
    make, arguments, *more = reduced
    state, items, pairs = (*more, None, None, None)[:3]
    if state is None and items is None and pairs is None:
        return reduced
    return make, arguments, (state, list(items or ()), list(pairs or ())), None, None, complete_object
