"""Objects of libraries, and of Python's own, whose pickle fails or loses something, and what takes its place.

sympy makes each object anew of its class and its ``args``. That computes again what was not to be computed, and forgets
what ``args`` don't say: a polynomial's domain, the names of a coordinate system. Such objects are copied as they are.

Pickle makes a blank object by calling ``__new__`` without arguments, and a set by calling its class with the items. It
doesn't look whether they take that. Where they don't, the base that is built in makes the object.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import copyreg
import gc
import importlib
import threading
import weakref
from collections.abc import Callable, Mapping
from datetime import date
from operator import attrgetter
from types import FunctionType
from typing import Any

from p2p_ipython.task import memories, widgets
from p2p_ipython.task.objects import made_by_base, object_taken_apart

Reducer = Callable[[Any], Any]
"""Returns what ``__reduce__`` does, or ``NotImplemented`` for an object whose own way will do."""

_REDUCE: Any = object.__reduce__
_REDUCE_EX: Any = object.__reduce_ex__
_BASIC = "sympy.core.basic.Basic"
_WAYS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
_ARGS_ARE_SENT = {_BASIC, "sympy.geometry.entity.GeometryEntity", "sympy.integrals.integrals.Integral"}
"""Classes of sympy with a ``__getnewargs__`` that returns ``args``, and nothing else."""
_NEW_CHANGES_CLASS = ("sympy.physics.control.", "sympy.physics.units.", "sympy.physics.secondquant")
"""Modules of sympy with classes that note something in themselves when they make an object."""
_HIDES_FACTS = "sympy.tensor.indexed"
"""A module of sympy whose objects have facts of their own, and say that they have none."""

_USUAL = {"is_commutative": True}
_MADE_ANEW = frozenset({"_args", "_assumptions", "_mhash"})
"""Attributes that every object of sympy gets where it is made: a hash is another one in each process."""


_known: dict[int, tuple[Any, Reducer | None]] = {}
"""What was found, by the id of a class, with a weak reference to it."""

_MANY = 1000
"""Classes that are remembered."""


def reducer_of(kind: type) -> Reducer | None:
    """Return how objects of ``kind`` are reduced; None if their own way will do."""
    known = _known.get(id(kind))
    if known is None or known[0]() is not kind:
        if len(_known) >= _MANY:
            _known.clear()
        known = _known[id(kind)] = weakref.ref(kind), _found(kind)
    return known[1]


def _found(kind: Any) -> Reducer | None:
    if issubclass(kind, type):
        return None
    lineage = {f"{each.__module__}.{each.__qualname__}": each for each in kind.__mro__}
    for name, reducer in _REDUCERS.items():
        if name in lineage:
            return reducer
    if (basic := lineage.get(_BASIC)) is not None:
        if any(name.startswith(_NEW_CHANGES_CLASS) for name in lineage):
            return None
        usual = all(getattr(kind, way) is getattr(basic, way) for way in _WAYS)
        said = next((name for name, each in lineage.items() if "__getnewargs__" in vars(each)), "")
        return _of_sympy if usual and said in _ARGS_ARE_SENT and not hasattr(kind, "__getnewargs_ex__") else None
    if kind.__reduce_ex__ is not _REDUCE_EX or hasattr(kind, "__setstate__"):
        return None
    if kind.__reduce__ is _REDUCE:
        asks = hasattr(kind, "__getnewargs__") or hasattr(kind, "__getnewargs_ex__")
        return object_taken_apart if not asks and _wants(kind.__new__) > 1 else None
    built_in = kind.__reduce__ in (set.__reduce__, frozenset.__reduce__)
    wants = max(_wants(kind.__new__), _wants(kind.__init__))
    return _set_taken_apart if built_in and wants > 2 else None


def _wants(function: Any) -> int:
    """Count the arguments, ``self`` among them, without which a Python function fails."""
    if not isinstance(function, FunctionType):
        return 0
    code = function.__code__
    keywords = code.co_kwonlyargcount - len(function.__kwdefaults__ or {})
    return code.co_argcount - len(function.__defaults__ or ()) + keywords


def _set_taken_apart(value: Any) -> Any:
    return made_by_base(value, value.__reduce__())


def _of_sympy(value: Any) -> Any:
    kind = type(value)
    names = {*copyreg._slotnames(kind), *getattr(value, "__dict__", ())} - _MADE_ANEW  # type: ignore[attr-defined]
    state = {name: getattr(value, name) for name in sorted(names) if hasattr(value, name)}
    facts = value._assumptions
    own = facts.generator != kind.default_assumptions.generator or kind.__module__ == _HIDES_FACTS
    if facts is not kind.default_assumptions and own:  # what was said of this one, and what follows
        state["_assumptions"] = {key: fact for key, fact in facts.items() if fact is not None}, dict(facts.generator)
    made = (kind, *getattr(value, "_args", ()))
    if state == _USUAL:  # of each sum and product
        return commutative, made
    return (basic, made, state, None, None, complete_basic) if state else (basic, made)


def basic(kind: Any, *arguments: Any) -> Any:
    """Return an object of ``kind``, a class of sympy's, that has ``args`` and nothing more."""
    base = next(each for each in kind.__mro__ if f"{each.__module__}.{each.__qualname__}" == _BASIC)
    return base.__new__(kind, *arguments)


def commutative(kind: Any, *arguments: Any) -> Any:
    """Return an object of ``kind`` as ``basic`` does, of numbers whose order doesn't matter."""
    made = basic(kind, *arguments)
    made.is_commutative = True
    return made


def complete_basic(value: Any, state: Mapping[str, Any]) -> None:
    """Give an object of sympy's its other attributes."""
    for name, part in state.items():
        if name == "_assumptions":
            facts = type(value.default_assumptions)(part[0])
            facts._generator = part[1]
            value._assumptions = facts
        else:
            object.__setattr__(value, name, part)


def word_of(group: Any, powers: tuple[Any, ...]) -> Any:
    """Return an element of a free group, which has a class of its own for them."""
    return group.dtype(powers)


def _masked_taken_apart(array: Any) -> Any:
    """Reduce a masked array that has no mask. Its own pickle would write one."""
    kind = type(array)
    if kind.__name__ != "MaskedArray" or array._mask is not kind._defaultmask:
        return NotImplemented
    return kind, (array.data, array._mask, None, False, True, 0, array._fill_value, True, array._hardmask)


def _writer_taken_apart(writer: Any) -> Any:
    """Reduce a writer of ``csv`` to its file and its dialect. An open file is refused by itself."""
    write = next((part for part in gc.get_referents(writer) if getattr(part, "__name__", "") == "write"), None)
    file, dialect = getattr(write, "__self__", None), writer.dialect
    if file is None:
        return NotImplemented
    return csv_writer, (file, {name: getattr(dialect, name) for name in dir(dialect) if not name.startswith("_")})


def csv_writer(file: Any, dialect: Mapping[str, Any]) -> Any:
    """Return a writer of rows to ``file``."""
    return importlib.import_module("csv").writer(file, **dialect)


def _figure_taken_apart(figure: Any) -> Any:
    """Reduce a figure of matplotlib. It would be shown where it arrives if it is about to be shown here."""
    make, arguments, state, *more = figure.__reduce_ex__(5)
    state = {name: part for name, part in state.items() if name != "_restore_to_pylab"}
    return make, arguments, state, *more


def _widget_taken_apart(widget: Any) -> Any:
    """Reduce a widget. Raises ``TypeError`` for one that is made of more than settings, as that of ``interact`` is."""
    if _wants(type(widget).__init__) > 1:
        raise TypeError(f"a widget of the class {type(widget).__name__} is more than its settings")
    return widgets.taken_apart(widget)


def iso_date(year: int, week: int, weekday: int) -> Any:
    """Return what ``date.isocalendar`` does."""
    return date.fromisocalendar(year, week, weekday).isocalendar()


def thread_local(attributes: Mapping[str, Any]) -> threading.local:
    """Return a ``threading.local`` that has ``attributes`` in this thread."""
    made = threading.local()
    vars(made).update(attributes)
    return made


_REDUCERS: Mapping[str, Reducer] = {
    # Its __getstate__ changes a dict while it goes through it (sympy 1.13 and 1.14).
    "sympy.polys.rings.PolyRing": lambda ring: (type(ring), attrgetter("symbols", "domain", "order")(ring)),
    "sympy.combinatorics.free_groups.FreeGroupElement": lambda word: (word_of, (word.group, tuple(word))),
    # Called without arguments, it makes an object of another class.
    "scipy.stats._distribution_infrastructure.UnivariateDistribution": object_taken_apart,
    "sympy.matrices.repmatrix.MutableRepMatrix": object_taken_apart,
    "numpy.ma.MaskedArray": _masked_taken_apart,
    "numpy.ma.core.MaskedArray": _masked_taken_apart,
    widgets.CLASS: _widget_taken_apart,
    "matplotlib.figure.Figure": _figure_taken_apart,
    "joblib.memory.Memory": memories.taken_apart,
    "joblib.memory.MemorizedFunc": memories.taken_apart,
    # Its own pickle refuses; errors of formulas hold it.
    "patsy.origin.Origin": lambda origin: (type(origin), attrgetter("code", "start", "end")(origin)),
    "_csv.writer": _writer_taken_apart,
    # Its own pickle makes a tuple of it.
    "datetime.IsoCalendarDate": lambda day: (iso_date, tuple(day)),
    "_thread._local": lambda local: (
        (thread_local, (dict(vars(local)),)) if type(local) is threading.local else NotImplemented
    ),
}
"""By the module and name of a class or of one that it is derived from."""
