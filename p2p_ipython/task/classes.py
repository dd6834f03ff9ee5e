"""Classes of a notebook, made anew where they arrive, without the effects that making them had at home.

A base's ``__init_subclass__`` and a metaclass may count their classes in a registry. What they did then travels, as
the state of what they changed. Run again they would do it twice, without the keywords of the class statement, and to
the notebook's own registry when a result brings a class home. So code of the notebook does not run here; that of
libraries does, for their registries don't travel.

A class that is there already stays as it is: a result does not change the notebook's classes.

Standard library and cloudpickle only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import abc
import contextlib
import enum
import types
import typing
from _thread import get_ident
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from cloudpickle import cloudpickle

_unfilled: WeakValueDictionary[int, type] = WeakValueDictionary()
"""Classes that were made and have no attributes yet, by their id."""

_HARMLESS = (typing.Generic, typing.Protocol)
"""Bases whose ``__init_subclass__`` sets attributes of the class only; those travel."""

_OF_MEMBERS = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
"""Attributes that an enumeration gives each of its members."""


class ClassPlan(NamedTuple):
    """How to make a class again. ``tracker`` names it wherever it travels.

    ``maker`` is the metaclass that makes it, in place of ``kind`` if that is the notebook's.
    """

    tracker: str
    kind: Any
    maker: Any
    name: str
    bases: tuple[type, ...]
    namespace: Mapping[str, Any]


class EnumerationPlan(NamedTuple):
    """How to make an enumeration again; each of ``members`` has what its data type makes it of, and its value."""

    tracker: str
    bases: tuple[Any, ...]
    name: str
    qualname: str
    module: str
    members: Mapping[str, tuple[tuple[Any, ...], Any]]


class _Member:
    """A member of an enumeration that is being made: what its data type makes it of, and its value."""

    def __init__(self, arguments: tuple[Any, ...], value: object) -> None:
        self.arguments = arguments
        self.value = value


def travels_by_value(cls: type) -> bool:
    """Whether ``cls`` is the notebook's own, or of a module that is sent."""
    return not cloudpickle._should_pickle_by_reference(cls)


def may_travel_by_value(cls: type) -> bool:
    """Answer quickly: whether ``cls`` is not certainly importable where it arrives."""
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        return True
    return bool(cloudpickle._PICKLE_BY_VALUE_MODULES) and travels_by_value(cls)


def class_taken_apart(cls: type, reduced: Any) -> Any:
    """Change ``reduced``, as cloudpickle takes a class of the notebook apart, to what makes it without effects."""
    _, arguments, (attributes, _), *_ = reduced
    if isinstance(cls, enum.EnumMeta):
        return _enumeration_taken_apart(cls, arguments, attributes)
    kind, name, _, namespace, tracker, _ = arguments
    namespace = namespace | {"__qualname__": cls.__qualname__}
    for body in ("__slots__", "__orig_bases__"):
        if body in attributes:
            namespace[body] = attributes[body]
    attributes = {key: value for key, value in attributes.items() if key not in namespace and not _is_slot(value, cls)}
    maker = kind if kind is type else next(each for each in kind.__mro__ if not travels_by_value(each))
    plan = ClassPlan(tracker, kind, maker, name, cls.__bases__, namespace)
    return blank_class, (plan,), attributes, None, None, complete_class


def is_member(value: enum.Enum) -> bool:
    """Whether ``value`` has a name in an enumeration of the notebook, and not only a value, as unnamed flags have."""
    return value._name_ in type(value).__members__ and travels_by_value(type(value))


def blank_class(plan: ClassPlan) -> type:
    """Return the class that ``plan`` describes: one that is there, or a new one without attributes."""
    if (known := cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(plan.tracker)) is not None:
        return known  # type: ignore[no-any-return]
    try:
        with _quiet(plan.bases, travels_by_value):
            made = _made(plan)
    except TypeError:  # a library's hook may want keywords, which Python forgets
        with _quiet(plan.bases, lambda _each: True):
            made = _made(plan)
    _unfilled[id(made)] = made
    return cloudpickle._lookup_class_or_track(plan.tracker, made)  # type: ignore[no-any-return]


def complete_class(cls: Any, attributes: Mapping[str, Any]) -> None:
    """Give a blank class its attributes; leave one alone that has them."""
    if _unfilled.pop(id(cls), None) is None:
        return
    registered = attributes.get("_abc_impl", ())
    put: Any = next(each for each in type(cls).__mro__ if not travels_by_value(each)).__setattr__
    # Python deletes __firstlineno__ when other attributes are set.
    for name in sorted(attributes.keys() - {"_abc_impl"}, key=lambda each: each == "__firstlineno__"):
        put(cls, name, attributes[name])
    for name, part in attributes.items():
        if type(part) is property:  # it says its name in an error
            part.__set_name__(cls, name)  # type: ignore[attr-defined]
    for each in registered:
        abc.ABCMeta.register(cls, each)


def blank_enumeration(plan: EnumerationPlan) -> Any:
    """Return the enumeration that ``plan`` describes: one that is there, or one with nothing but its members.

    They are made as they were in the end. What the notebook's ``__new__`` and ``__init__`` made them of isn't known.
    """
    if (known := cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(plan.tracker)) is not None:
        return known
    kind = type(plan.bases[-1])
    body: Any = kind.__prepare__(plan.name, plan.bases)
    body["__new__"], body["__init__"] = _new_member, _nothing_more
    for key, parts in plan.members.items():
        body[key] = _Member(*parts)
    made = kind.__new__(kind, plan.name, plan.bases, body)
    made.__module__, made.__qualname__ = plan.module, plan.qualname
    _unfilled[id(made)] = made
    return cloudpickle._lookup_class_or_track(plan.tracker, made)


def complete_enumeration(cls: Any, state: tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]) -> None:
    """Give a blank enumeration its attributes, and each member its own."""
    attributes, members = state
    if id(cls) in _unfilled:
        for name in ({"__init__", "__new_member__"} & vars(cls).keys()) - attributes.keys():
            type.__delattr__(cls, name)
        complete_class(cls, attributes)
        for name, own in members.items():
            vars(cls.__members__[name]).update(own)


def forget_classes() -> None:
    """Let the next pickle make its classes anew, whatever a task has done to those of the last one."""
    cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.clear()


def _enumeration_taken_apart(cls: Any, arguments: tuple[Any, ...], attributes: Mapping[str, Any]) -> Any:
    bases, name, qualname, _, module, tracker, _ = arguments
    members = cls.__members__  # those that are other names of one, too
    made_of = {key: (_made_of(member), member._value_) for key, member in members.items()}
    own = {
        key: {name: part for name, part in vars(member).items() if name not in _OF_MEMBERS}
        for key, member in members.items()
        if key == member._name_
    }
    attributes = {key: value for key, value in attributes.items() if key not in members}
    state = (attributes, {key: parts for key, parts in own.items() if parts})
    plan = EnumerationPlan(tracker, bases, name, qualname, module, made_of)
    return blank_enumeration, (plan,), state, None, None, complete_enumeration


def _made_of(member: Any) -> Any:
    """Return the arguments of which the data type of an enumeration makes the data of ``member``."""
    data = type(member)._member_type_
    if hasattr(data, "__getnewargs__"):
        return data.__getnewargs__(member)
    plain = data.__reduce__ is object.__reduce__ and data.__reduce_ex__ is object.__reduce_ex__
    return () if plain else data.__reduce_ex__(member, 4)[1]


def _new_member(cls: Any, member: Any) -> Any:
    if isinstance(member, tuple):  # of an enumeration whose members are tuples
        (member,) = member
    made = cls._member_type_.__new__(cls, *member.arguments)
    made._value_ = member.value
    return made


def _nothing_more(_self: object, *_: object) -> None: ...


def _is_slot(value: object, cls: type) -> bool:
    return isinstance(value, types.MemberDescriptorType) and value.__objclass__ is cls


def _made(plan: ClassPlan) -> Any:
    kind, maker, name, bases = plan.kind, plan.maker, plan.name, plan.bases
    if maker is kind:
        if kind is not type:  # the one of TypedDict wants them as they were written
            bases = plan.namespace.get("__orig_bases__", bases)
        return types.new_class(name, bases, {"metaclass": kind}, lambda body: body.update(plan.namespace))
    made = maker.__new__(kind, name, bases, dict(plan.namespace))
    maker.__init__(made, name, bases, dict(plan.namespace))
    return made


@contextlib.contextmanager
def _quiet(bases: Iterable[type], hushed: Callable[[type], bool]) -> Iterator[None]:
    """Let ``__init_subclass__`` of those ``bases`` that are ``hushed`` do nothing in this thread meanwhile."""
    lineage = {each for base in bases for each in base.__mro__ if each is not object}
    hooks = {each: vars(each)["__init_subclass__"] for each in lineage if "__init_subclass__" in vars(each)}
    hooks = {each: hook for each, hook in hooks.items() if each not in _HARMLESS and hushed(each)}
    for each, hook in hooks.items():
        type.__setattr__(each, "__init_subclass__", _quiet_hook(each, hook))
    try:
        yield
    finally:
        for each, hook in hooks.items():
            type.__setattr__(each, "__init_subclass__", hook)


def _quiet_hook(owner: Any, hook: Any) -> Any:
    thread = get_ident()

    def quiet(cls: Any, /, **keywords: Any) -> None:
        if get_ident() != thread:
            hook.__get__(None, cls)(**keywords)
        else:
            super(owner, cls).__init_subclass__()

    return classmethod(quiet)
