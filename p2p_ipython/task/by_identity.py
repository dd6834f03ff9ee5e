"""Objects that there is one of in each process, and that code knows by identity: they travel as where they are found.

``dataclasses.MISSING``, ``KW_ONLY`` and the like say that nothing was given. A copy would be taken for something that
was. They are objects without a state that a module has under a name. ``argparse.SUPPRESS`` is a string of that kind.

``sys.stdout`` and ``sys.stderr`` of a kernel stand for the place where output goes. On a worker they are its own.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import copyreg
import sys
from typing import Any
from weakref import ref

_STREAMS = {"stdout", "stderr"}
_OF_STREAMS = {"ipykernel.iostream.OutStream", "p2p_ipython.sandbox.inside.capture_output.Stream"}
"""The classes of a kernel's streams, and of a runner's."""

_NEW: Any = copyreg.__newobj__  # type: ignore[attr-defined]
_USUAL: Any = object
_CHOOSES = ("__reduce__", "__reduce_ex__", "__getstate__")
"""Methods by which an object chooses how it is pickled."""

_MADE_BY_CLASS = 1 << 9
"""The flag of types that a ``class`` statement has made."""

_KEPT = 1000
"""Classes whose constants are kept."""

_names: dict[int, tuple[ref[type], tuple[str, ...]]] = {}
"""By the class's id: a class may be of a type that can't be hashed."""


def may_be_known(kind: type) -> bool:
    """Whether an object of ``kind`` may be known by identity, so that each one has to be looked at."""
    return _is_stream(kind) or _is_of_argparse(kind) or bool(_constants(kind))


def known_by_identity(value: Any) -> Any:
    """Reduce an object that is known by identity to where it is found; ``NotImplemented`` for others."""
    kind = type(value)
    if _is_stream(kind):
        name = str(value.name).strip("<>")  # a kernel's has no angles around it
        return (getattr, (sys, name)) if name in _STREAMS else NotImplemented
    if _is_of_argparse(kind):
        return _suppressing(value)
    module = sys.modules[kind.__module__]
    return next((name for name in _constants(kind) if getattr(module, name, None) is value), NotImplemented)


def complete(made: Any, state: tuple[dict[str, Any], tuple[str, ...]]) -> None:
    """Give a parser of arguments, or a part of one, its attributes; those named are ``argparse.SUPPRESS``."""
    import argparse

    attributes, suppressed = state
    vars(made).update(attributes | dict.fromkeys(suppressed, argparse.SUPPRESS))


def _is_stream(kind: type) -> bool:
    return f"{kind.__module__}.{kind.__qualname__}" in _OF_STREAMS


def _is_of_argparse(kind: type) -> bool:
    return kind.__module__ == "argparse" and kind.__reduce__ is _USUAL.__reduce__


def _suppressing(value: Any) -> Any:
    hidden = sys.modules["argparse"].SUPPRESS
    suppressed = tuple(name for name, each in vars(value).items() if each is hidden)
    if not suppressed:
        return NotImplemented
    others = {name: each for name, each in vars(value).items() if name not in suppressed}
    return _NEW, (type(value),), (others, suppressed), None, None, complete


def _constants(kind: type) -> tuple[str, ...]:
    """Return the names under which the module of ``kind`` has objects of it that have no state."""
    known = _names.get(id(kind))
    if known is None or known[0]() is not kind:
        if len(_names) >= _KEPT:
            _names.clear()
        known = _names[id(kind)] = ref(kind), _found(kind) if kind.__flags__ & _MADE_BY_CLASS else ()
    return known[1]


def _found(kind: type) -> tuple[str, ...]:
    has_state = any(getattr(kind, name) is not getattr(_USUAL, name) for name in _CHOOSES)
    if has_state or kind.__module__ in ("__main__", "builtins") or copyreg._slotnames(kind):  # type: ignore[attr-defined]
        return ()
    there = list(vars(sys.modules.get(kind.__module__, sys)).items())
    return tuple(name for name, each in there if type(each) is kind and not getattr(each, "__dict__", None))
