"""The safe codec's columns of pandas' own types: numbers with missing values, periods, intervals.

As in frames.py, each is made by a constructor that takes finished arrays; the bytes are checked before.
Imports pandas only to decode. The runner imports it inside the sandbox.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from p2p_ipython.task.safe.arrays import encode_array, imported
from p2p_ipython.task.safe.parts import Encode, Incoming, Unreadable, Unsupported, listed, texted, whole

_MASKED = re.compile(r"U?Int(8|16|32|64)|Float(32|64)|boolean")
_CLOSED = ("left", "right", "both", "neither")
_PERIODS = {  # periods of a year, at most, by the first part of a frequency's name
    "Y": 1, "A": 1, "Q": 4, "M": 12, "W": 54, "B": 366, "D": 366,
    "h": 8784, "H": 8784, "min": 527_040, "T": 527_040, "s": 31_622_400, "S": 31_622_400,
    "ms": 31_622_400_000, "L": 31_622_400_000, "us": 31_622_400_000_000, "U": 31_622_400_000_000,
    "ns": 31_622_400_000_000_000, "N": 31_622_400_000_000_000,
}  # fmt: skip
_FREQUENCY = re.compile(r"([0-9]{0,9})([A-Za-z]{1,3})(-[A-Z]{3})?")
_YEARS = 7900
"""Years before and after 1970 that a period may lie in: pandas computes with them in C."""

_MISSING = -(1 << 63)


def encode_extension(encode: Encode, dtype: Any, values: Any, depth: int) -> list[Any] | None:
    """Encode a column of such a type; None for one of another type. Raises ``Unsupported``."""
    pd, np = sys.modules["pandas"], sys.modules["numpy"]
    if _MASKED.fullmatch(str(dtype)) and hasattr(values, "_mask"):
        missing = np.asarray(values.isna())
        kind = np.dtype(dtype.numpy_dtype)
        data = values.to_numpy(dtype=kind, na_value=kind.type(0))
        return ["masked", str(dtype), encode_array(encode, data), encode_array(encode, missing)]
    if isinstance(dtype, pd.PeriodDtype):
        return [
            "period",
            frequency_of(dtype.name.removeprefix("period[").removesuffix("]")),
            encode_array(encode, np.asarray(values.asi8)),
        ]
    if isinstance(dtype, pd.IntervalDtype):
        ends = [encode.value(pd.Index(end), depth + 1) for end in (values.left, values.right)]
        return ["interval", dtype.closed, *ends]
    return None


def decode_extension(incoming: Incoming, parts: list[Any]) -> Any:
    """Return the finished column; None for one of another type. Raises ``Unreadable``."""
    pd, np = imported("pandas"), imported("numpy")
    match parts:
        case ["masked", str(name), np.ndarray() as data, np.ndarray() as missing] if _MASKED.fullmatch(name):
            dtype = pd.api.types.pandas_dtype(name)
            if data.ndim != 1 or missing.shape != data.shape or missing.dtype != bool:
                raise Unreadable("a column in it has other missing values than values")
            if data.dtype != dtype.numpy_dtype:
                raise Unreadable("a column in it is of another type than it says")
            incoming.charge(2 * data.nbytes + 2 * missing.nbytes)
            return dtype.construct_array_type()(data, missing, copy=False)
        case ["period", frequency, np.ndarray() as ordinals] if ordinals.ndim == 1 and ordinals.dtype == "i8":
            most = _most(frequency)
            known = ordinals[ordinals != _MISSING]
            if len(known) and not -most <= known.min() <= known.max() <= most:
                raise Unreadable("a period in it is of no year that there is")
            incoming.charge(4 * ordinals.nbytes)
            return pd.arrays.PeriodArray(ordinals, dtype=pd.PeriodDtype(frequency))
        case ["interval", closed, left, right] if closed in _CLOSED:
            if not (isinstance(left, pd.Index) and isinstance(right, pd.Index) and len(left) == len(right)):
                raise Unreadable("the intervals in it have no two ends")
            incoming.charge(64 * len(left))
            return pd.arrays.IntervalArray.from_arrays(left, right, closed=closed)
    return None


def encode_period(_encode: Encode, value: Any) -> dict[str, Any]:
    """Encode a period as its frequency and its number."""
    return {"!period": [frequency_of(value.freqstr), value.ordinal]}


def decode_period(_incoming: Incoming, args: object) -> Any:
    """Return a period. Raises ``Unreadable``."""
    frequency, ordinal = listed(args, 2)
    most = _most(frequency)
    return imported("pandas").Period(ordinal=whole(ordinal, -most, most), freq=frequency)


def encode_interval(encode: Encode, value: Any, depth: int) -> dict[str, Any]:
    """Encode an interval as its two ends, and which of them belong to it."""
    return {"!interval": [*encode.elements([value.left, value.right], depth + 2), value.closed]}


def decode_interval(_incoming: Incoming, args: object) -> Any:
    """Return an interval. Raises ``Unreadable``."""
    left, right, closed = listed(args, 3)
    if closed not in _CLOSED:
        raise Unreadable("an interval in it is open or closed in an unknown way")
    return imported("pandas").Interval(left, right, closed)


def frequency_of(name: str) -> str:
    """Return the name of a period's frequency if it may travel. Raises ``Unsupported``."""
    found = _FREQUENCY.fullmatch(name)
    if found is None or found[2] not in _PERIODS:
        raise Unsupported(f"pandas period of {name}"[:100])
    return name


def _most(frequency: object) -> int:
    """Return the greatest number of a period. Raises ``Unreadable``."""
    found = _FREQUENCY.fullmatch(texted(frequency, 20))
    if found is None or found[2] not in _PERIODS:
        raise Unreadable("a period in it is of an unknown frequency")
    return min(_YEARS * _PERIODS[found[2]], (1 << 63) - 1)
