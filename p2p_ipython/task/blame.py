"""Which part of a value can't travel: ``model.history[3].lock`` rather than ``model``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

_TRIES = 200
"""Parts that are looked at in all; the value itself is to blame if none of them is."""

_DEPTH = 8
_PLAIN = (int, float, complex, str, bytes, bool, type(None), ModuleType)


class Part(NamedTuple):
    """A part of a value, and how the notebook would write it."""

    path: str
    value: object


def culprit(path: str, value: object, travels: Callable[[object], bool]) -> Part:
    """Return the smallest part of ``value`` that does not travel alone; ``path`` is how the notebook writes it."""
    found, tries = Part(path, value), 0
    for _ in range(_DEPTH):
        for part in _parts(found):
            if isinstance(part.value, _PLAIN):
                continue
            tries += 1
            if tries > _TRIES:
                return found
            if not travels(part.value):
                found = part
                break
        else:
            return found
    return found


def _parts(whole: Part) -> Iterator[Part]:
    path, value = whole
    if isinstance(value, FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield Part(f"{name} of {path}", cell.cell_contents)
            except ValueError:  # not bound yet
                continue
        names = value.__code__.co_varnames
        defaults = value.__defaults__ or ()
        yield from map(Part, names[value.__code__.co_argcount - len(defaults) :], defaults)
        yield from (Part(f"{path}.{name}", part) for name, part in vars(value).items())
        yield from (
            Part(name, value.__globals__[name]) for name in value.__code__.co_names if name in value.__globals__
        )
    elif isinstance(value, MethodType):
        yield Part(path.rpartition(".")[0] or path, value.__self__)
    elif isinstance(value, functools.partial):
        yield Part(f"{path}.func", value.func)
        yield from (Part(f"{path}.args[{at}]", part) for at, part in enumerate(value.args))
        yield from (Part(f"{path}.keywords[{name!r}]", part) for name, part in value.keywords.items())
    elif isinstance(value, staticmethod | classmethod):
        yield Part(path, value.__func__)
    elif isinstance(value, dict):
        yield from (Part(f"{path}[{_key(key)}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from (Part(f"{path}[{at}]", part) for at, part in enumerate(value))
    wrapped: Any = getattr(value, "__wrapped__", None) if not isinstance(value, FunctionType | type) else None
    if wrapped is not None:
        yield Part(path, wrapped)
    elif not isinstance(value, FunctionType):
        own = dict(getattr(value, "__dict__", None) or {})
        yield from (Part(f"{path}.{name}", part) for name, part in own.items() if not _is_made_by_python(part))
        if type(value).__module__ == "__main__":
            yield Part(type(value).__qualname__, type(value))


def _is_made_by_python(part: object) -> bool:
    return isinstance(part, GetSetDescriptorType | MemberDescriptorType)


def _key(key: object) -> str:
    return repr(key)[:40] if isinstance(key, str | int | float | bool | bytes) else f"<{type(key).__qualname__}>"
