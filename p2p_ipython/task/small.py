"""Whether a value is small and plain: cheap to send although nobody has asked for it."""

from __future__ import annotations

SMALL = 64 << 10
"""Bytes that such a value may have, roughly."""

_ITEMS = 10_000
"""Items of such a value, at all depths."""

_PLAIN = frozenset(("builtins", "datetime", "decimal", "fractions", "uuid", "zoneinfo", "numpy", "pandas"))
"""Packages of plain types. Their size is that of the object, or what its ``nbytes`` or ``size`` says."""


def is_small(value: object) -> bool:
    """Return whether ``value`` is plain data of at most ``SMALL`` bytes, roughly.

    It looks no further than that, so it takes no long time for large values. A type that has not been looked for
    counts as none of the plain ones: its pickle may be large, or run code.

    >>> is_small({"a": [1, 2.5, None]}), is_small(bytes(10**6)), is_small(open)
    (True, False, False)
    """
    todo, room, items = [value], SMALL, _ITEMS
    while todo and room >= 0 and items:
        item = todo.pop()
        items -= 1
        match item:
            case type():
                return False
            case str() | bytes() | bytearray():
                room -= len(item)
            case int():
                room -= item.bit_length() // 8 + 8
            case list() | tuple() | set() | frozenset():
                if len(item) > items:
                    return False
                todo += item
                room -= 8 * len(item)
            case dict():
                if 2 * len(item) > items:
                    return False
                todo += (*item.keys(), *item.values())
                room -= 16 * len(item)
            case float() | complex() | None:
                room -= 16
            case _:
                cls = type(item)
                if cls.__module__.partition(".")[0] not in _PLAIN or callable(item):
                    return False
                sizes = (getattr(item, name, None) for name in ("nbytes", "size"))
                room -= 16 + next((size for size in sizes if isinstance(size, int)), 0)
    return room >= 0 and not todo
