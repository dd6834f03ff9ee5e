"""What goes with a cell's value: values of names that the cell has bound.

Those that the client wants in any case (``bind``) go as the result does. The others go if they are small and plain
data, so that ``future["score"]`` works afterwards. For the rest it is said what they are, and that they stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from p2p_ipython.protocol.frames import INLINE
from p2p_ipython.protocol.task_frames import MAX_WORD, Attached, Task
from p2p_ipython.task import safe, seeds
from p2p_ipython.task.payload import Packed, Segment, pack_result
from p2p_ipython.task.small import SMALL, is_small

ALL_SMALL = 256 << 10
"""Bytes of all values of a task that nobody has asked for."""

_STATES = frozenset(seeds.STATES.values())

_MAX_PIECES = 2048
"""Segments of all values that were asked for: those of a result are in its header."""


@dataclass(frozen=True)
class Attachment:
    """An entry of a result, and its bytes."""

    entry: Attached
    packed: Packed


EMPTY = Packed((), b"", {}, False)


def names_of(task: Task, namespace: Mapping[str, Any]) -> list[Attachment]:
    """Pack the names that a task was asked for, as they are in ``namespace`` now; absent ones are left out.

    Among the names may be those of global random generators, as ``seeds.STATES`` has them.

    Inline are at most ``INLINE`` bytes of those that the client wants in any case, and ``ALL_SMALL`` of the others:
    with the value and the files, that fits in one frame.
    """
    made: list[Attachment] = []
    inline, room, pieces = INLINE, ALL_SMALL, _MAX_PIECES
    for name in dict.fromkeys((*task.bind, *task.names)):
        if name in _STATES:
            value: Any = seeds.state_of(name)
            if value is None:
                continue
        elif name in namespace:
            value = namespace[name]
        else:
            continue
        asked = name in task.bind
        kind = _kind(value)
        entry = Attached("name", name, "left", (), kind)
        packed = EMPTY
        try:
            if asked:
                entry, packed = _asked(entry, value, safely=task.reply == "safe", room=inline)
                inline -= len(packed.inline)
                pieces -= len(packed.segments)
                if pieces < 0:
                    raise ValueError(f"it and the names before it are of more than {_MAX_PIECES} pieces")
            elif is_small(value):
                packed = safe.encode(value)
                if packed.size <= min(room, SMALL):
                    room -= packed.size
                    entry = replace(entry, codec="safe")
                else:
                    packed = EMPTY
        except safe.Unsupported:
            pass
        except Exception as error:
            entry = replace(entry, codec="left", at=f"{type(error).__name__}: {error}"[:MAX_WORD])
            packed = EMPTY
        made.append(_numbered(len(made), entry, packed))
    return made


def _asked(entry: Attached, value: object, *, safely: bool, room: int) -> tuple[Attached, Packed]:
    if safely:
        try:
            return replace(entry, codec="safe"), safe.encode(value, room=room)
        except safe.Unsupported as error:
            entry = replace(entry, type_name=error.type_name[:MAX_WORD], at=error.at[:MAX_WORD])
    return replace(entry, codec="pickle"), pack_result(value, room=room)


def _numbered(number: int, entry: Attached, packed: Packed) -> Attachment:
    """Give the large segments names that no other attachment's have, nor the value's."""
    if packed.large:
        renamed = {ref: f"{number}.{ref}" for ref in packed.large}
        segments = tuple(Segment(size, renamed[ref] if ref is not None else None) for size, ref in packed.segments)
        packed = replace(packed, segments=segments, large={renamed[ref]: view for ref, view in packed.large.items()})
    return Attachment(replace(entry, segments=packed.segments), packed)


def _kind(value: object) -> str:
    cls = type(value)
    name = cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"
    return name[:MAX_WORD]
