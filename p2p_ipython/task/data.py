"""The data of a task, apart from its code, so that a lender can know code again whatever data it gets.

A pickle is a program, so data that travels in one is code to whatever reads it. Here the plain values among a cell's
names, or among a call's arguments, leave the payload: they travel beside it in the codec of safe results, from which
nothing runs. In the payload a ``Datum`` stands in the place of each. What the worker gets besides the data's segments
is then the same for the same code (worker/consent.py).

A function's defaults and closure stay with it, and so do the globals of a function that is called: they decide what it
does. A value stays where it is, too, if code refers to a part of it by another way: on the worker that would be two
things. So does a value that the codec leaves out (safe/several.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from p2p_ipython.task.datum import Datum
from p2p_ipython.task.safe.several import Values


def names_apart(names: Mapping[str, Any]) -> tuple[dict[str, Any], Values]:
    """Return a cell's names with a ``Datum`` for each that is plain data, and the values of these."""
    values = Values()
    return {name: _apart(value, values) for name, value in names.items()}, values


def arguments_apart(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any], Values]:
    """Return a call's arguments with a ``Datum`` for each that is plain data, and the values of these."""
    values = Values()
    placed = tuple(_apart(value, values) for value in args)
    return placed, {name: _apart(value, values) for name, value in kwargs.items()}, values


def _apart(value: Any, values: Values) -> Any:
    number = values.take(value)
    return value if number is None else Datum(number)
