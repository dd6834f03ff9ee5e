"""Inputs of a call: futures among its arguments, whose values come after the call has been frozen.

``places`` takes the futures out of the arguments and leaves an ``Input`` in the place of each; the call is frozen with
these. Once all values are there, ``fill`` makes the task that travels: the frozen call beside its values. On the worker
``filled`` puts them together: both pickles are loaded there, and the call was never loaded here.

The runner imports this inside the sandbox: standard library and cloudpickle only.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import LARGE, Packed, Segment, pack_task

if TYPE_CHECKING:
    from p2p_ipython.task.task import Task

LOOKED_AT = 100_000
"""Members of a list, tuple or dict, at most, among which futures are looked for: that takes a few milliseconds."""

_values: list[Any] = []
"""On a worker, while a call is loaded: the values of its inputs."""


class Input:
    """Stands in a frozen call for the value of its ``number``-th input."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _value, (self.number,)


def places(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], list[Future[Any]]]:
    """Return the arguments with an ``Input`` for each future, and the futures.

    Futures are looked for among the arguments, and in lists, tuples and dicts that are arguments.
    """
    numbers: dict[Future[Any], int] = {}

    def place(value: Any, *, deep: bool = True) -> Any:
        if isinstance(value, Future):
            return Input(numbers.setdefault(value, len(numbers)))
        kind = type(value)
        if deep and kind in (list, tuple) and _has_futures(value):
            return kind(place(member, deep=False) for member in value)
        if deep and kind is dict and _has_futures(value.values()):
            return {key: place(member, deep=False) for key, member in value.items()}
        return value

    placed = tuple(place(value) for value in args), {name: place(value) for name, value in kwargs.items()}
    return *placed, list(numbers)


def _has_futures(members: Any) -> bool:
    return len(members) <= LOOKED_AT and any(isinstance(member, Future) for member in members)


def fill(task: Task, values: list[Any], store: BufferStore, *, large: int = LARGE) -> Task:
    """Return ``task`` with the values of its inputs; its pins in ``store`` become the new task's.

    Raises what ``pack_task`` raises, and leaves the pins alone then.
    """
    call, packed = task.packed, pack_task(values, store, large=large)
    store.unpin(ref for ref in packed.large if ref in task.large)  # one pin a task
    parts = (len(call.segments), len(packed.segments))
    # The stream asks for all segments that come after it, as they are: what was writable stays so.
    dummies = [pickle.PickleBuffer(bytearray()) for _ in range(sum(parts))]
    stream = pickle.dumps(_Filled(dummies, parts[0]), protocol=5, buffer_callback=lambda _buffer: False)
    joined = Packed(
        (Segment(len(stream), None), *call.segments, *packed.segments),
        stream + call.inline + packed.inline,
        {**call.large, **packed.large},
        call.needs_python or packed.needs_python,
    )
    python, modules = task.needs_python or _python(joined), task.modules | packed.modules
    return replace(task, packed=joined, needs_python=python, modules=modules)


def _python(packed: Packed) -> str | None:
    from p2p_ipython.task.task import PYTHON  # late: the runner has no use for tasks

    return PYTHON if packed.needs_python else None


class _Filled:
    def __init__(self, pieces: list[pickle.PickleBuffer], first: int) -> None:
        self._given = pieces[:first], pieces[first:]

    def __reduce__(self) -> tuple[Any, ...]:
        return filled, self._given


def filled(call: list[Any], values: list[Any]) -> Any:
    """Put a call together on the worker; both are the pieces of a payload, the first of each its pickle."""
    try:
        _values[:] = pickle.loads(values[0], buffers=values[1:])
        return pickle.loads(call[0], buffers=call[1:])
    finally:
        _values.clear()


def _value(number: int) -> Any:
    return _values[number]
