"""The bytes of a task and of a result: pickle protocol 5, large buffers beside the pickle.

A value becomes *segments*: the first is the pickle itself, the others are its out-of-band buffers, in order.
Small segments travel inline, in the body of one frame; large ones travel apart, each under a *ref*. In a task
the ref is the hash of the bytes, so a worker that has them already need not get them again; in a result it is
a plain number.

Functions and classes of the notebook are pickled by value (cloudpickle), everything importable by reference.
A pickle by value is tied to the Python minor version; ``Packed.needs_python`` says so.

A task is frozen when it is packed: ``pack_task`` copies what the notebook could still change. A result isn't
copied: send it before its value can change.

Both sides import this module, the runner inside the sandbox: standard library and cloudpickle only.
``unpack`` runs what a pickle says. Its callers decide whose pickles may be trusted.
"""

from __future__ import annotations

import dis
import logging
import pickle
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import count, pairwise
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, Protocol

import cloudpickle

from p2p_ipython.errors import CaptureError
from p2p_ipython.memory import fresh
from p2p_ipython.protocol.frames import INLINE, Buffer
from p2p_ipython.task import (
    by_identity,
    by_value,
    classes,
    closed,
    datum,
    ended,
    libraries,
    log_settings,
    memories,
    objects,
    seeds,
    sources,
    unstarted,
    widgets,
)
from p2p_ipython.task.buffer_store import STEP, BufferStore
from p2p_ipython.task.ended import refuse_open_file
from p2p_ipython.task.leaving import Leave
from p2p_ipython.task.settled import settled
from p2p_ipython.task.shell_names import belongs_to_shell

LARGE = 1 << 20
"""From this size on a segment always travels by ref, bytes; the default of ``Settings.large``."""

IN_BAND = 4 << 10
"""Buffers below this many bytes stay in the pickle: copying them costs less than describing them."""

MAX_SEGMENTS = 1024
"""Segments of one task or result: more buffers than that stay in the pickle. It bounds the frame's header."""


_NOTHING: Mapping[int, Any] = {}


class PayloadError(ValueError):
    """Segments and bytes that don't fit together."""


class KnownTwice(Exception):
    """A payload has a part that travels beside it, too."""


class Segment(NamedTuple):
    """One piece of a payload: ``size`` bytes, inline when ``ref`` is None, else those under ``ref``."""

    size: int
    ref: str | None


class Large(Protocol):
    """Where large segments are found by their ref: a mapping, or what makes a buffer of its own for each use."""

    def get(self, ref: str, /) -> Buffer | None: ...


@dataclass(frozen=True)
class Packed:
    """A value as bytes. ``needs_python``: it holds code, so both sides need the same Python minor version.

    ``modules``: names of modules that unpickling it imports, or that functions in it import.
    """

    segments: tuple[Segment, ...]
    inline: bytes
    large: Mapping[str, memoryview]
    needs_python: bool
    modules: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Bytes in all, each ref counted once."""
        return len(self.inline) + (sum(view.nbytes for view in self.large.values()) if self.large else 0)

    def __repr__(self) -> str:
        return f"<Packed {len(self.segments)} segments, {self.size} bytes>"


def pack_result(value: object, *, error: bool = False, room: int = INLINE) -> Packed:
    """Pickle a result; its large segments are called r0, r1, … and are views of ``value``, not copies.

    Of an ``error`` that the task raised, what can't travel is left out. ``room``: bytes that may be inline. Raises what
    pickling raises.
    """
    pickled = _pickled(value, error=error)
    return as_result(pickled.stream, pickled.buffers, pickled.needs_python, room=room)


def as_result(stream: Buffer, buffers: list[memoryview], needs_python: bool = False, *, room: int = INLINE) -> Packed:
    """Make a result of finished bytes: its first segment, and the others. Large ones, r0, r1, …, are not copied."""
    numbers = count()
    pickled = _Pickled(stream, buffers, needs_python)
    return _pack(pickled, LARGE, lambda view, _ours: (f"r{next(numbers)}", view), room=room)


def pack_task(
    value: object,
    store: BufferStore,
    *,
    large: int = LARGE,
    shared_globals: tuple[dict[str, Any], dict[str, Any]] | None = None,
    left_out: Container[str] = (),
    source: str = "",
    apart: Mapping[int, Any] = _NOTHING,
) -> Packed:
    """Pickle and freeze what a task needs; its large segments are in ``store``, pinned, called by their hash.

    The caller calls ``store.unpin(packed.large)`` when the task is over. ``shared_globals`` is
    (the notebook's namespace, the part of it inside ``value`` that travels): functions defined in the first
    have the second as their globals when they are unpickled, so a cell's assignments are seen by them.
    Names in ``left_out`` don't travel with these functions either, nor do those of the shell itself.
    Segments of ``large`` bytes or more are never inline. An attribute of a function that can't travel stays here,
    unless code that travels mentions it, ``source`` among it.

    Raises what pickling raises, and ``CaptureError`` for a future that isn't over. Raises ``KnownTwice`` if it has an
    object of ``apart``, which are objects by their id.
    """

    def pickled() -> _Pickled:
        return _pickled(value, shared_globals, left_out, leaves_home=True, source=source, apart=apart)

    return _frozen(pickled, store, large)


def pack_values(text: bytes, buffers: list[memoryview], store: BufferStore, *, large: int = LARGE) -> Packed:
    """Freeze data that travels beside a payload, as ``pack_task`` does: its first segment, and the others."""
    return _frozen(lambda: _Pickled(text, buffers, False), store, large)


def _frozen(pickled: Callable[[], _Pickled], store: BufferStore, large: int) -> Packed:
    pinned: list[str] = []

    def freeze(view: memoryview, ours: bool) -> tuple[str, memoryview]:
        ref, frozen = store.freeze(view, ours=ours)
        if ref in pinned:
            store.unpin((ref,))  # one pin a task, however often the bytes occur in it
        else:
            pinned.append(ref)
        return ref, frozen

    try:
        return _pack(pickled(), large, freeze, once=True)
    except BaseException:
        store.unpin(pinned)
        raise


def unpack(segments: Sequence[Sequence[Any]], inline: Buffer, large: Large) -> Any:
    """Unpickle a value from its segments, as ``(size, ref)`` pairs, and its bytes.

    Buffers that were writable are writable again: inline ones are copied, large ones are used as they are.
    Raises ``PayloadError`` when the sizes don't fit, and whatever unpickling raises.
    """
    first, *others = in_pieces(segments, inline, large)
    return pickle.loads(first, buffers=others)


def in_pieces(segments: Sequence[Sequence[Any]], inline: Buffer, large: Large) -> list[Buffer]:
    """Return the segments' bytes, at least one; inline ones after the first are copies. Raises ``PayloadError``."""
    pieces: list[Buffer] = []
    rest = memoryview(inline)
    for segment in segments:
        size, ref = _checked(segment)
        if ref is None:
            if size > rest.nbytes:
                raise PayloadError("the inline segments are longer than the body")
            pieces.append(rest[:size] if not pieces else bytearray(rest[:size]))
            rest = rest[size:]
        else:
            piece = large.get(ref)
            if piece is None:
                raise PayloadError(f"the buffer {ref[:16]!r} is missing")
            if memoryview(piece).nbytes != size:
                raise PayloadError(f"the buffer {ref[:16]!r} does not have the {size} bytes that were said")
            pieces.append(piece)
    if rest.nbytes:
        raise PayloadError("the inline segments are shorter than the body")
    if not pieces:
        raise PayloadError("there is no segment")
    return pieces


def _checked(segment: Sequence[Any]) -> Segment:
    if not isinstance(segment, list | tuple) or len(segment) != 2:
        raise PayloadError("a segment is not a pair")
    size, ref = segment
    if type(size) is not int or size < 0:
        raise PayloadError("a segment's size is not a whole number")
    if ref is not None and not isinstance(ref, str):
        raise PayloadError("a segment's ref is not text")
    return Segment(size, ref)


def measure(
    value: object, shared_globals: tuple[dict[str, Any], dict[str, Any]] | None = None, source: str = ""
) -> int:
    """Count the bytes that ``value`` would take in a task. Raises what ``pack_task`` raises."""
    stream, buffers, *_ = _pickled(value, shared_globals, leaves_home=True, source=source)
    return len(stream) + sum(view.nbytes for view in buffers)


class _Pickled(NamedTuple):
    stream: Buffer
    buffers: list[memoryview]
    needs_python: bool
    modules: frozenset[str] = frozenset()


def _pack(
    pickled: _Pickled,
    large: int,
    keep: Callable[[memoryview, bool], tuple[str, memoryview]],
    *,
    once: bool = False,
    room: int = INLINE,
) -> Packed:
    """Sort the pieces of a pickle; with ``once``, texts of cells are under their hash, as what is large.

    ``room``: bytes that may be inline.
    """
    stream, buffers, needs_python, modules = pickled
    if not buffers and isinstance(stream, bytes) and len(stream) <= room and len(stream) < large:
        return Packed((Segment(len(stream), None),), stream, {}, needs_python, modules)
    segments: list[Segment] = []
    inline: list[Buffer] = []
    refs: dict[str, memoryview] = {}
    for view in (memoryview(stream), *buffers):
        size = view.nbytes
        if size < large and size <= room and not (once and isinstance(view.obj, sources.SourceBytes)):
            room -= size
            inline.append(view)
            segments.append(Segment(size, None))
        else:
            ref, kept = keep(view, not segments)
            refs[ref] = kept
            segments.append(Segment(size, ref))
    return Packed(tuple(segments), b"".join(inline), refs, needs_python, modules)


def _pickled(
    value: object,
    shared_globals: tuple[dict[str, Any], dict[str, Any]] | None = None,
    left_out: Container[str] = (),
    *,
    leaves_home: bool = False,
    source: str = "",
    error: bool = False,
    apart: Mapping[int, Any] = _NOTHING,
) -> _Pickled:
    written: list[Buffer] = []
    buffers: list[memoryview] = []

    def stays_in_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < IN_BAND or len(buffers) >= MAX_SEGMENTS - 1:
            return True
        buffers.append(view)
        return False

    def travels(part: object) -> bool:
        try:
            _pickled(part, shared_globals, left_out, leaves_home=leaves_home)
        except Exception:
            return False
        return True

    pickler = _Pickler(written, stays_in_band, shared_globals, left_out, leaves_home)
    try:
        pickler.dump(value)
    except Exception:
        if not pickler.adorned and not error:
            raise
        written.clear()
        buffers.clear()
        pickler = _Pickler(written, stays_in_band, shared_globals, left_out, leaves_home)
        pickler.leave = Leave(travels, errors=error)
        pickler.dump(value)
        pickler.leave.check(source)
    if apart and not apart.keys().isdisjoint(pickler.memo.copy()):
        raise KnownTwice
    return _Pickled(_joined(written), buffers, pickler.needs_python, frozenset(pickler.modules))


def _joined(written: list[Buffer]) -> Buffer:
    size = sum(map(len, written))
    if size < STEP:
        return b"".join(written)
    whole = fresh(size)
    position = 0
    for piece in written:
        whole[position : position + len(piece)] = piece
        position += len(piece)
    return whole.toreadonly()


class _Writer:
    """The file of a pickler. It hands on a large ``bytes`` object itself; nothing is copied until the end."""

    def __init__(self, written: list[Buffer]) -> None:
        self.write = written.append


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, which also shares one globals dict, says whether code travels, and settles futures.

    cloudpickle gives unpickled functions a globals dict that ``globals_ref`` keeps by the id of the original.
    Putting the namespace that is being pickled there makes that dict the functions' own.
    """

    def __init__(
        self,
        written: list[Buffer],
        stays_in_band: Callable[[pickle.PickleBuffer], bool],
        shared_globals: tuple[dict[str, Any], dict[str, Any]] | None,
        left_out: Container[str],
        leaves_home: bool,
    ) -> None:
        super().__init__(_Writer(written), protocol=5, buffer_callback=stays_in_band)
        self.needs_python = False
        self.modules: set[str] = set()
        self.adorned = False
        """Whether a function has attributes, which may be left out."""
        self.leave: Leave | None = None
        self._shared = shared_globals
        self._left_out = left_out
        self._leaves_home = leaves_home
        # Classes, by their id, whose objects need nothing of ours.
        self._ordinary: dict[int, type] = {id(each): each for each in (sources.Source, datum.Datum)}
        if shared_globals is not None:
            original, namespace = shared_globals
            self.globals_ref[id(original)] = namespace

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if id(kind) in self._ordinary or id(value) in _BUILDERS:
            return NotImplemented
        if kind is CodeType:
            self.needs_python = True
            return sources.code_taken_apart(value, self.dispatch_table[CodeType](value))
        refuse_open_file(value)
        reduced = super().reducer_override(value)
        if reduced is NotImplemented:
            if isinstance(value, type | FunctionType):  # it goes by its name
                self.modules.add(value.__module__)
            return self._reduce_object(value, kind)
        if len(reduced) == 2:  # built-in types are rebuilt from two items; functions and classes have a state
            return reduced
        self.needs_python = True
        if isinstance(value, FunctionType):
            return self._reduce_function(value, reduced)
        return classes.class_taken_apart(value, reduced)

    def _reduce_function(self, function: FunctionType, reduced: Any) -> Any:
        """Change ``reduced``, as cloudpickle takes a function apart, to what should travel."""
        self.modules.update(imports_of_code(function.__code__))
        if by_value.dispatches(function):
            return by_value.dispatcher_taken_apart(function)
        if by_value.is_dispatch(function):
            return by_value.dispatch_taken_apart(function)
        made_by, arguments, (attributes, rest), *others = reduced
        attributes = dict(attributes)  # those of cloudpickle 3.0 are the function's own
        by_value.drop_copies_of_dispatcher(attributes)
        self._adorned(attributes, function)
        self._choose_globals(function, rest["__globals__"])
        return made_by, arguments, (attributes, rest), *others

    def _reduce_object(self, value: Any, kind: type) -> Any:
        """Reduce a value that cloudpickle leaves to pickle. Raises ``TypeError`` for a mere name of the notebook."""
        if isinstance(value, Future):
            return _settle(value)
        by_itself = by_identity.may_be_known(kind)
        if by_itself and (known := by_identity.known_by_identity(value)) is not NotImplemented:
            return known
        if (reducer := libraries.reducer_of(kind)) is not None:
            return reducer(value)
        if issubclass(kind, logging.Handler):
            return log_settings.handler_taken_apart(value)
        if closed.may_be_closed(kind):
            return closed.taken_apart(value) or NotImplemented
        if ended.may_be_over(kind):
            return ended.taken_apart(value) or NotImplemented
        if isinstance(value, by_value.TAKEN_APART):
            reduced = by_value.taken_apart(value)
            if isinstance(value, by_value.CachedFunction) and len(reduced) > 2:
                self._adorned(reduced[2])
            return reduced
        if isinstance(value, BaseException):
            reduced = objects.exception_taken_apart(value)
            if self.leave is not None and reduced is not NotImplemented:
                self.leave.of_exception(reduced)
            return reduced
        if by_value.is_made_ufunc(value):
            return by_value.ufunc_taken_apart(value)
        if isinstance(value, ModuleType):
            self.modules.add(value.__name__)
        if isinstance(value, Enum) and classes.is_member(value):
            return getattr, (kind, value.name)
        if seeds.may_be_hidden(kind):
            return seeds.hidden_taken_apart(value) if seeds.is_hidden(value) else NotImplemented
        if _may_go_by_name(kind):
            if getattr(value, "__module__", "") == "__main__":
                reduced = value.__reduce_ex__(5)
                if isinstance(reduced, str) and self._leaves_home:
                    raise TypeError(f"its class sends only the name {reduced[:100]!r}, which the worker does not have")
                return objects.made_by_base(value, reduced)
        elif classes.may_travel_by_value(kind) and objects.has_hooks(kind):
            return objects.object_taken_apart(value)
        elif not (by_itself or issubclass(kind, _EACH_ASKED) or ended.may_be_over(kind)):
            self._ordinary[id(kind)] = kind
        return NotImplemented

    def _adorned(self, attributes: dict[str, Any], function: FunctionType | None = None) -> None:
        """Take note of a function's attributes, and remove those that stay behind."""
        self.adorned = self.adorned or bool(attributes)
        if self.leave is not None:
            self.leave.of_function(attributes, function)

    def _choose_globals(self, function: FunctionType, used: dict[str, Any]) -> None:
        """Change ``used``, the globals that cloudpickle would send with a function, to what should travel."""
        home = function.__globals__
        for name in [name for name in used if belongs_to_shell(name, home)]:
            del used[name]
        if self._shared is not None and home is self._shared[0]:
            namespace = self._shared[1]
            for name in list(used):
                if name in self._left_out:
                    del used[name]
                elif name in namespace:  # it may hold a stand-in for the value: functions get it, too
                    used[name] = namespace[name]


@lru_cache(maxsize=512)
def imports_of_code(code: CodeType) -> tuple[str, ...]:
    """Return the modules that a function imports, those that functions inside it import among them."""
    steps = list(dis.get_instructions(code))
    found = [str(step.argval) for step in steps if step.opname == "IMPORT_NAME"]
    for name, step in ((step.argval, after) for step, after in pairwise(steps) if step.opname == "IMPORT_NAME"):
        if step.opname == "IMPORT_FROM":
            found.append(f"{name}.{step.argval}")
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found += imports_of_code(constant)
    return tuple(dict.fromkeys(found))


_BUILDERS = {
    id(part): part
    for module in (
        *(by_identity, by_value, classes, cloudpickle.cloudpickle, datum, libraries, log_settings, objects, sources),
        *(memories, unstarted, widgets),
    )
    for part in vars(module).values()
    if isinstance(part, FunctionType | type) and part.__module__ == module.__name__
}
"""By their id: functions and classes that put values together where they arrive. cloudpickle would look for each."""

_EACH_ASKED = (type, FunctionType, ModuleType, *ended.FILES)
_DEFAULT: Any = object.__reduce__


def _may_go_by_name(kind: type) -> bool:
    """Whether objects of ``kind`` choose how they are pickled, and may belong to the notebook."""
    if kind.__reduce__ is _DEFAULT or kind in _Pickler.dispatch_table:
        return False
    return kind.__module__ == "__main__" or kind.__dictoffset__ != 0  # with a dict, an object has a __module__ itself


def _settle(future: Future[Any]) -> Any:
    if not future.done():
        raise CaptureError(
            "a future that is not finished can't travel inside a task",
            hint="Wait for it first: `await` it, or call its result().",
        )
    if future.cancelled():
        raise CaptureError("a future that was cancelled can't travel inside a task", hint="Leave it out.")
    error = future.exception()
    return settled, ((None, error) if error is not None else (future.result(),))
