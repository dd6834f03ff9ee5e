"""A task: what a client asks a worker to run, complete and frozen.

``make_cell`` makes one of a cell's source and the names it uses, ``make_call`` one of a function and its
arguments. Either raises before anything is sent when it can't travel. A task's large buffers are pinned in the
store it was made with; the code that runs it calls ``store.unpin(task.large)`` when it is over.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from p2p_ipython.errors import CaptureError
from p2p_ipython.protocol.frames import MAX_HEADER
from p2p_ipython.protocol.task_frames import MAX_ATTACHED, MAX_REF
from p2p_ipython.task.around import Part
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import Captured, capture_cell, freeze, not_picklable
from p2p_ipython.task.data import arguments_apart, names_apart
from p2p_ipython.task.ended import refuse_open_file
from p2p_ipython.task.payload import LARGE, KnownTwice, Packed, measure, pack_task, pack_values
from p2p_ipython.task.reads import Transform
from p2p_ipython.task.safe.several import Values

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""This Python's minor version, as offers carry it."""

MAX_SOURCE = MAX_HEADER - (256 << 10)
"""Longest source of a cell, bytes as JSON: it shares a frame's header with the list of segments."""

_MAX_LABEL = 80


@dataclass(frozen=True)
class Task:
    """``source`` is a cell's (None for a call); ``needs_python`` like "3.11", or None for any; ``once``: never
    start it a second time, whatever happens to its worker; ``created`` is seconds since the epoch. ``names`` and
    ``bind``: names that a cell binds, whose values come with its result; ``around``: what the worker reads first. See
    ``task_frames.Task``. ``modules``: those that it imports, or that its values are of.
    ``packages``: requirements of what is to be installed for it (protocol/packages.py).
    ``parts``: what of ``around`` was taken when it was submitted. ``data``: plain values that travel beside the
    payload (data.py). ``timeout``: seconds that it may run, 0.0 for any number. ``pin``: the session of the only worker
    that may run it."""

    id: str
    kind: Literal["cell", "call"]
    label: str
    source: str | None = field(repr=False)
    packed: Packed
    needs_python: str | None
    once: bool
    created: float
    names: tuple[str, ...] = ()
    bind: tuple[str, ...] = ()
    around: Packed | None = None
    modules: frozenset[str] = frozenset()
    parts: tuple[Part, ...] = ()
    data: Packed | None = None
    timeout: float = 0.0
    packages: tuple[str, ...] = ()
    pin: bytes | None = None

    @property
    def large(self) -> Mapping[str, memoryview]:
        """The large buffers of all that travels, by ref."""
        found = self.packed.large
        for more in (self.data, self.around):
            if more is not None and more.large:
                found = {**found, **more.large}
        return found

    @property
    def inline(self) -> bytes:
        """The inline segments of all that travels, as a frame has them."""
        found = self.packed.inline
        for more in (self.data, self.around):
            if more is not None:
                found += more.inline
        return found

    @property
    def inline_size(self) -> int:
        """Bytes of ``inline``."""
        return sum(len(each.inline) for each in (self.packed, self.data, self.around) if each is not None)

    @property
    def size(self) -> int:
        """Bytes of all that travels, its source among them, each ref counted once."""
        return self.inline_size + sum(view.nbytes for view in self.large.values()) + len(self.source or "")


def make_call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    store: BufferStore,
    *,
    label: str = "",
    once: bool = False,
    large: int = LARGE,
    apart: bool = False,
) -> Task:
    """Freeze a call; with ``apart``, its plain arguments travel beside it.

    Raises ``NotPicklable``, which names the argument, or ``CaptureError``.
    """
    refuse_what_is_no_function(function)
    value = (function, args, dict(kwargs))
    try:
        for argument in (*args, *kwargs.values()):
            refuse_open_file(argument)
        made = _call_apart(function, args, kwargs, store, large) if apart else None
        frozen = made or (pack_task(value, store, large=large), None)
    except Exception as error:
        raise _blamed_argument(function, args, kwargs, error) from error
    return _task("call", label or _name_of(function), None, frozen, once)


def _call_apart(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], store: BufferStore, large: int
) -> tuple[Packed, Packed] | None:
    """Freeze a call with its plain arguments beside it; None if there are none, or they can't be there."""
    placed, named, values = arguments_apart(args, kwargs)
    pack = partial(pack_task, (function, placed, named), store, large=large, apart=values.changeable)
    return _with_data(pack, values, store, large)


def _with_data(
    pack: Callable[[], Packed], values: Values, store: BufferStore, large: int
) -> tuple[Packed, Packed] | None:
    if not len(values):
        return None
    try:
        packed = pack()
    except KnownTwice:
        return None
    try:
        data = pack_values(values.text, values.buffers, store, large=large)
    except BaseException:
        store.unpin(packed.large)
        raise
    store.unpin(ref for ref in data.large if ref in packed.large)  # one pin a task
    return packed, data


def refuse_what_is_no_function(function: object) -> None:
    """Raise ``CaptureError`` for what can't be called."""
    if not callable(function):
        raise CaptureError(
            f"what should be called is no function, but of the type {type(function).__qualname__}",
            hint="Give the function and its arguments apart: submit(f, 3), not submit(f(3)).",
        )


def make_cell(
    source: str,
    home: dict[str, Any],
    store: BufferStore,
    *,
    transform: Transform,
    automatic: bool = True,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    label: str = "",
    once: bool = False,
    large: int = LARGE,
) -> Task:
    """Capture and freeze a cell; see ``capture_cell`` for the options and the errors, and ``freeze``."""
    captured = capture_cell(source, home, transform=transform, automatic=automatic, include=include, exclude=exclude)
    return task_of(captured, store, label=label, once=once, large=large)


def task_of(
    captured: Captured,
    store: BufferStore,
    *,
    label: str = "",
    once: bool = False,
    large: int = LARGE,
    names: Iterable[str] = (),
    bind: Iterable[str] = (),
    apart: bool = False,
    frozen: Packed | None = None,
) -> Task:
    """Freeze a captured cell; with ``apart``, its plain values travel beside it. ``frozen``: its values, packed.

    Raises ``NotPicklable``, or ``CaptureError`` for a source that is too long.

    ``names`` and ``bind`` are as in ``Task``; there is room for ``MAX_ATTACHED`` of both.
    """
    size = len(json.dumps(captured.source, ensure_ascii=False).encode("utf-8", "replace"))
    if size > MAX_SOURCE:
        raise CaptureError(
            f"the cell's source is {size} bytes long, and at most {MAX_SOURCE} travel",
            hint="Put its data into a variable, in a cell above: variables may be as large as you like.",
        )
    beside = _cell_apart(captured, store, large) if apart and frozen is None else None
    values = beside or (frozen or freeze(captured, store, large=large), None)
    first = next((line.strip() for line in captured.source.splitlines() if line.strip()), "")
    made = _task("cell", label or first, captured.source, values, once)
    made = replace(made, modules=made.modules | captured.modules)
    bound = tuple(name for name in bind if len(name) <= MAX_REF)[:MAX_ATTACHED]
    more = tuple(name for name in names if len(name) <= MAX_REF and name not in bound)[: MAX_ATTACHED - len(bound)]
    return replace(made, names=more, bind=bound) if bound or more else made


def _cell_apart(captured: Captured, store: BufferStore, large: int) -> tuple[Packed, Packed] | None:
    """Freeze a cell with its plain values beside it; None if there are none, or they can't be there."""
    names, values = names_apart(captured.names)
    pack = partial(freeze, captured, store, large=large, names=names, apart=values.changeable)
    return _with_data(pack, values, store, large)


def _task(
    kind: Literal["cell", "call"], label: str, source: str | None, frozen: tuple[Packed, Packed | None], once: bool
) -> Task:
    packed, data = frozen
    return Task(
        id=uuid.uuid4().hex,
        kind=kind,
        label=_one_line(label),
        source=source,
        packed=packed,
        needs_python=PYTHON if packed.needs_python else None,
        once=once,
        created=time.time(),
        modules=packed.modules,
        data=data,
    )


def _one_line(text: str) -> str:
    if len(text) <= _MAX_LABEL and text.isprintable():
        return text
    shown = "".join(c if c.isprintable() else " " for c in text[: 2 * _MAX_LABEL])
    return shown if len(shown) <= _MAX_LABEL else shown[: _MAX_LABEL - 1] + "…"


def _name_of(function: object) -> str:
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__


def _blamed_argument(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception
) -> CaptureError:
    parts = [(f"argument {number}", value) for number, value in enumerate(args, 1)]
    parts += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in (*parts, (f"the function {_name_of(function)}", function)):
        try:
            refuse_open_file(value)
            measure(value)
        except Exception as own:
            return not_picklable(name, value, own)
    return not_picklable("the call", args, error)
