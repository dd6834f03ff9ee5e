"""A cell that runs once for each of many settings: its code and the values that it shares are frozen once.

The values of a setting travel beside the code, as plain data (data.py), so that all tasks have the same payload: what
of it is large goes once to each worker, and a lender who has said yes to this code has said it to all of them. A
setting with values that are no plain data, such as functions, is frozen as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import Captured, freeze
from p2p_ipython.task.data import names_apart
from p2p_ipython.task.datum import Datum
from p2p_ipython.task.payload import KnownTwice, Packed, pack_values
from p2p_ipython.task.safe.several import Values
from p2p_ipython.task.task import PYTHON, Task, task_of

ONCE = 16 << 10
"""From this size on, bytes, a piece of what tasks share goes once to each worker; smaller ones travel with each."""

BESIDE = 4 << 10
"""Characters of shared values that travel beside each task, at most; more of them stay in the payload."""

Setting = Mapping[str, Any]


def each_of(
    captured: Captured,
    settings: Sequence[Setting],
    store: BufferStore,
    *,
    label: Callable[[Setting], str],
    once: bool = False,
    names: Sequence[str] = (),
    apart: bool = False,
) -> list[Task]:
    """Freeze a cell for each of ``settings``, which have the same names; the cell was captured with these ``given``.

    The caller unpins what ``pins`` says of them. Raises as ``task_of`` does.
    """
    shared = {name: value for name, value in captured.names.items() if name not in settings[0]}
    placed, values = names_apart(shared) if apart else (shared, Values())
    if len(values.text) > BESIDE:
        placed, values = shared, Values()
    own = [values.more(setting.values()) for setting in settings]
    changeable = dict(values.changeable)
    for found in own:
        if found is not None:
            changeable |= found[2]
    places = {name: Datum(len(values) + number) for number, name in enumerate(settings[0])}
    pinned: list[Packed] = []
    try:
        code: Packed | None = None
        if any(found is not None for found in own):
            try:
                code = freeze(captured, store, large=ONCE, names=placed | places, apart=changeable)
                pinned.append(code)
            except KnownTwice:  # a value that the code refers to by another way: on the worker it is one thing, too
                pass
        made: list[Task] = []
        first: Task | None = None
        for setting, found in zip(settings, own, strict=True):
            data = None
            if found is not None and code is not None:
                whole = code
                if setting or len(values):
                    data = pack_values(found[0], found[1], store, large=ONCE)
                    pinned.append(data)
            else:
                whole = freeze(replace(captured, names=shared | dict(setting)), store, large=ONCE)
                pinned.append(whole)
            if first is None:
                first = task_of(captured, store, label="each", once=once, names=names, frozen=whole)
            python = PYTHON if whole.needs_python else None
            words = replace(first, label=label(setting), packed=whole, data=data, needs_python=python)
            made.append(replace(words, modules=captured.modules | whole.modules))
        return made
    except BaseException:
        for packed in pinned:
            store.unpin(packed.large)
        raise


def pins(tasks: Sequence[Task]) -> list[str]:
    """Return the refs that ``each_of`` has pinned for these tasks, each as often as that."""
    packs = {id(pack): pack for task in tasks for pack in (task.packed, task.data) if pack is not None}
    return [ref for pack in packs.values() for ref in pack.large]
