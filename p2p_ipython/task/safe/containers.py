"""The safe codec's containers of the standard library: what they hold, and the little that they are besides.

A named tuple's class is made anew of its names, which are checked: no class that is loaded here is looked up. Such a
class has the fields and nothing else; one with methods of its own is not plain data.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import collections
import keyword
from collections.abc import Callable
from typing import Any

from p2p_ipython.task.safe.parts import Encode, Incoming, Unreadable, Unsupported, listed, texted, whole

_MAX_FIELDS = 255
_MAX_NAME = 100
_MAX_CLASSES = 500
"""Classes of named tuples that are kept: those of equal names are one class, also in results of different workers."""

_CLASS = 1 << 20
"""Bytes that a new class counts for. It takes a few thousand; what this bounds is its third of a millisecond."""

_FACTORIES: dict[str, type] = {
    cls.__name__: cls for cls in (bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)
}

_VIEWS: dict[str, Any] = {"keys": type({}.keys()), "values": type({}.values()), "items": type({}.items())}

_OF_NAMED = frozenset(vars(collections.namedtuple("_", "x"))) | {
    "__annotations__",
    "__annotate__",
    "__annotate_func__",
    "__annotations_cache__",
    "__orig_bases__",
    "__static_attributes__",
    "__firstlineno__",
}


def is_named_tuple(cls: type) -> bool:
    """Whether ``cls`` is a named tuple's class with nothing of its own but fields."""
    if type(cls) is not type or cls.__bases__ != (tuple,):
        return False
    fields = cls.__dict__.get("_fields")
    if type(fields) is not tuple or len(fields) > _MAX_FIELDS or not all(map(_is_field, fields)):
        return False
    return _is_name(cls.__name__) and not vars(cls).keys() - _OF_NAMED - {*fields}


def _is_name(name: object) -> bool:
    return type(name) is str and len(name) <= _MAX_NAME and name.isidentifier() and not keyword.iskeyword(name)


def _is_field(name: object) -> bool:
    return _is_name(name) and not str(name).startswith("_")


def encode_named(encode: Encode, value: Any, depth: int) -> dict[str, Any]:
    """Encode a named tuple as its class's name, its fields and what is in them. Raises ``Unsupported``."""
    cls = type(value)
    if tuple.__len__(value) != len(cls._fields):
        raise Unsupported(value, "it has more parts than fields, or fewer")
    return {"!named": [cls.__name__, list(cls._fields), encode.elements(list(value), depth + 3)]}


def encode_deque(encode: Encode, value: Any, depth: int) -> dict[str, Any]:
    """Encode a deque as its greatest length and its elements. Raises ``Unsupported``."""
    return {"!deque": [value.maxlen, encode.elements(list(value), depth + 3)]}


def encode_mapping(encode: Encode, value: Any, depth: int) -> dict[str, Any]:
    """Encode a mapping that is more than a dict. Raises ``Unsupported``."""
    cls: type = type(value)
    pairs = encode.pairs(value, depth + 2)
    if cls is not collections.defaultdict:
        return {"!counter" if cls is collections.Counter else "!ordered": pairs}
    factory: Any = value.default_factory
    name = next((name for name, made in _FACTORIES.items() if made is factory), None)
    if factory is not None and name is None:
        raise Unsupported(value, "its default is made by a function")
    return {"!default": [name, pairs]}


def encode_view(encode: Encode, value: Any, depth: int) -> dict[str, Any]:
    """Encode the keys, values or items of a dict. Raises ``Unsupported``."""
    kind = next(name for name, cls in _VIEWS.items() if cls is type(value))
    return {"!view": [kind, encode.elements(list(value), depth + 3)]}


def decode_named(incoming: Incoming, args: object) -> Any:
    """Return a named tuple. Raises ``Unreadable``."""
    name, fields, values = listed(args, 3)
    fields = tuple(listed(fields))
    if not _is_name(name) or len(fields) > _MAX_FIELDS or not all(map(_is_field, fields)):
        raise Unreadable("a named tuple in it has names that are none")
    if len(set(fields)) != len(fields) or len(listed(values)) != len(fields):
        raise Unreadable("a named tuple in it has other fields than values")
    if (name, fields) not in _classes:
        incoming.charge(_CLASS)
        if len(_classes) >= _MAX_CLASSES:
            _classes.clear()
        _classes[name, fields] = collections.namedtuple(name, fields, module="__main__")
    return tuple.__new__(_classes[name, fields], values)


_classes: dict[tuple[str, tuple[str, ...]], Any] = {}


def decode_deque(_incoming: Incoming, args: object) -> Any:
    """Return a deque. Raises ``Unreadable``."""
    most, items = listed(args, 2)
    if most is not None:
        whole(most, len(listed(items)), 1 << 62)
    return collections.deque(listed(items), most)


def decode_view(incoming: Incoming, args: object) -> Any:
    """Return the keys, values or items of a dict. Raises ``Unreadable``."""
    kind, items = listed(args, 2)
    if kind not in _VIEWS:
        raise Unreadable("a view in it is of an unknown kind")
    incoming.charge(200 * len(listed(items)))
    if kind == "values":
        return dict(enumerate(items)).values()
    pairs = [(key, None) for key in items] if kind == "keys" else items
    if kind == "items" and not all(type(pair) is tuple and len(pair) == 2 for pair in items):
        raise Unreadable("the items in it are none")
    made: dict[Any, Any] = {}
    incoming.fill(made, [key for key, _ in pairs], pairs)
    if len(made) != len(items):
        raise Unreadable("a view in it has a key twice")
    return made.keys() if kind == "keys" else made.items()


def decoders(decode_dict: Callable[[Incoming, object], dict[Any, Any]]) -> dict[str, Callable[[Incoming, Any], Any]]:
    """Return the decoders by their kinds. ``decode_dict`` makes a dict of a list of pairs."""

    def filled(incoming: Incoming, pairs: object, made: Any) -> Any:
        found = decode_dict(incoming, pairs)
        incoming.charge(300 * len(found))
        dict.update(made, found) if type(made) is not collections.OrderedDict else made.update(found)
        return made

    def default(incoming: Incoming, args: object) -> Any:
        name, pairs = listed(args, 2)
        if name is not None and texted(name, _MAX_NAME) not in _FACTORIES:
            raise Unreadable("a dict in it has an unknown kind of default")
        factory: Any = None if name is None else _FACTORIES[name]
        return filled(incoming, pairs, collections.defaultdict(factory))

    return {
        "!counter": lambda incoming, args: filled(incoming, args, collections.Counter()),
        "!ordered": lambda incoming, args: filled(incoming, args, collections.OrderedDict()),
        "!default": default,
        "!deque": decode_deque,
        "!named": decode_named,
        "!view": decode_view,
    }


ENCODERS: dict[type, Callable[[Any, Any, int], Any]] = {
    collections.Counter: encode_mapping,
    collections.OrderedDict: encode_mapping,
    collections.defaultdict: encode_mapping,
    collections.deque: encode_deque,
    **dict.fromkeys(_VIEWS.values(), encode_view),
}
