"""The safe codec's pandas: frames and series by their columns, each an array, a list, or codes of categories.

Not as Arrow: its reader is a large body of C++ that trusts the offsets in what it reads, and is not made for hostile
input. This module goes through constructors that take finished Python objects and numpy arrays.

Imports pandas only to decode: a process that encodes a frame has it already. The runner imports this module inside the
sandbox.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
from importlib.util import find_spec
from typing import Any

from p2p_ipython.task.safe.arrays import encode_array, imported
from p2p_ipython.task.safe.extensions import (
    decode_extension,
    encode_extension,
    encode_interval,
    encode_period,
)
from p2p_ipython.task.safe.parts import (
    Encode,
    Incoming,
    Unreadable,
    Unsupported,
    listed,
    package_of,
    step,
    texted,
    whole,
)
from p2p_ipython.task.safe.times import decode_zone, encode_zone

_FREQUENCY = re.compile(r"-?[0-9]{0,9}[A-Za-z]{1,5}(-[A-Z]{3})?")
_MAX_COLUMNS = 100_000
"""Most columns of a frame: each takes pandas 0.1 ms."""

_OBJECT = 4000
"""Bytes that a column, a series or an index takes at most besides what is in it: measured on pandas 3, rounded up."""

_MAX_LABELS = 1 << 20
"""Longest index whose frequency travels: checking one that is not a fixed time takes microseconds a label."""

_MAX_UNSORTED = 1 << 12
"""Most categories, or labels of a level, that need not be in order. Pandas looks whether one is there twice; where they
are not in order it does so by a table whose places everybody can aim at."""

_INDEXES = ("Index", "DatetimeIndex", "TimedeltaIndex", "CategoricalIndex", "PeriodIndex", "IntervalIndex")


def pandas_type(cls: type) -> str:
    """ "frame", "series", "index", "ranged", "many", "timestamp", "period", …, or "" for any other class."""
    pd = sys.modules.get("pandas")
    if pd is None or package_of(cls) != "pandas":
        return ""
    with contextlib.suppress(AttributeError):  # pandas may be half imported
        if cls in [getattr(pd, name) for name in _INDEXES]:
            return "index"
        found = {pd.DataFrame: "frame", pd.Series: "series", pd.RangeIndex: "ranged", pd.MultiIndex: "many"}
        found |= {pd.Timestamp: "timestamp", pd.Timedelta: "timedelta", type(pd.NaT): "missing", type(pd.NA): "missing"}
        found |= {pd.Period: "period", pd.Interval: "interval"}
        return found.get(cls, "")
    return ""


def encode_pandas(encode: Encode, value: Any, depth: int) -> dict[str, Any]:
    """Encode a value for which ``pandas_type`` has a name. Raises ``Unsupported``."""
    pd = sys.modules["pandas"]
    match pandas_type(type(value)):
        case "frame":
            _check_extras(value)
            if value.shape[1] > _MAX_COLUMNS:
                raise Unsupported(value, "it has too many columns")
            columns = []
            for number, label in enumerate(value.columns):
                try:
                    columns.append(_encode_vector(encode, value.iloc[:, number], depth + 3))
                except Unsupported as error:
                    raise error.inside(step(label)) from None
            labels = _encode_index(encode, value.columns, depth + 3)
            return {"!frame": [labels, columns, _encode_index(encode, value.index, depth + 3)]}
        case "series":
            _check_extras(value)
            index = _encode_index(encode, value.index, depth + 3)
            return {"!series": [_encode_vector(encode, value, depth + 3), index, encode.value(value.name, depth)]}
        case "timestamp":
            return {"!timestamp": [str(value.asm8.astype("i8")), value.unit, encode_zone(value.tzinfo), value.fold]}
        case "timedelta":
            return {"!pandas.timedelta": [str(value.asm8.astype("i8")), value.unit]}
        case "period":
            return encode_period(encode, value)
        case "interval":
            return encode_interval(encode, value, depth)
        case "missing":
            return {"!missing": "NaT" if value is pd.NaT else "NA"}
        case _:
            return _encode_index(encode, value, depth)


def decode_frame(incoming: Incoming, args: object) -> Any:
    """Return the frame. Raises ``Unreadable``."""
    pd = imported("pandas")
    labels, columns, index = listed(args, 3)
    _check_index(pd, labels)
    _check_index(pd, index)
    if len(listed(columns)) > _MAX_COLUMNS:
        raise Unreadable("a frame in it has too many columns")
    incoming.charge(_OBJECT * (len(columns) + 1))
    vectors = [_decode_vector(pd, incoming, each) for each in columns]
    if len(labels) != len(vectors):
        raise Unreadable("a frame in it has more labels than columns, or fewer")
    _check_lengths(vectors, index)
    series = {number: pd.Series(vector, index=index, dtype=vector.dtype) for number, vector in enumerate(vectors)}
    frame = pd.DataFrame(series, index=index, copy=False)
    frame.columns = labels
    return frame


def decode_series(incoming: Incoming, args: object) -> Any:
    """Return the series. Raises ``Unreadable``."""
    pd = imported("pandas")
    column, index, name = listed(args, 3)
    incoming.charge(_OBJECT)
    _check_index(pd, index)
    vector = _decode_vector(pd, incoming, column)
    _check_lengths([vector], index)
    return pd.Series(vector, index=index, name=name, dtype=vector.dtype)


def decode_index(incoming: Incoming, args: object) -> Any:
    """Return an index of labels. Raises ``Unreadable``."""
    pd = imported("pandas")
    labels, name, frequency = listed(args, 3)
    incoming.charge(_OBJECT)
    vector = _decode_vector(pd, incoming, labels)
    if vector.dtype == object:
        items = vector.tolist()
        incoming.fill(set(), items, items)
    index = pd.Index(vector, dtype=vector.dtype, name=name)
    if frequency is not None:
        if not _FREQUENCY.fullmatch(texted(frequency, 20)) or len(index) > _MAX_LABELS:
            raise Unreadable("an index in it has an impossible frequency")
        index = type(index)(index, freq=frequency)
    return index


def decode_ranged(incoming: Incoming, args: object) -> Any:
    """Return an index that counts. Raises ``Unreadable``."""
    start, stop, by, name = listed(args, 4)
    incoming.charge(_OBJECT)
    start, stop, by = (whole(each, -(1 << 62), 1 << 62) for each in (start, stop, by))
    if len(range(start, stop, by)) > 1 << 40:
        raise Unreadable("an index in it is absurdly long")
    return imported("pandas").RangeIndex(start, stop, by, name=name)


def decode_many(incoming: Incoming, args: object) -> Any:
    """Return an index of several levels. Raises ``Unreadable``."""
    pd = imported("pandas")
    levels, codes, names = (listed(each) for each in listed(args, 3))
    incoming.charge(_OBJECT)
    if not 0 < len(levels) == len(codes) == len(names) <= 100 or len({len(each) for each in codes}) != 1:
        raise Unreadable("an index in it has levels that don't fit together")
    for level, code in zip(levels, codes, strict=True):
        _check_index(pd, level)
        _check_order(level)
        _check_codes(code, len(level))
        incoming.charge(2 * code.nbytes + 8 * len(code))
    return pd.MultiIndex(levels, codes, names=names)


def decode_timestamp(_incoming: Incoming, args: object) -> Any:
    """Return a moment. Raises ``Unreadable``."""
    pd = imported("pandas")
    count, unit, zone, fold = listed(args, 4)
    moment = pd.Timestamp(_counted(count, "M8", unit))
    tz = decode_zone(zone)
    if tz is not None:
        moment = moment.tz_localize("UTC").tz_convert(tz)
    return moment.replace(fold=whole(fold, 0, 1)) if moment.fold != fold else moment


def decode_timedelta(_incoming: Incoming, args: object) -> Any:
    """Return a duration. Raises ``Unreadable``."""
    count, unit = listed(args, 2)
    return imported("pandas").Timedelta(_counted(count, "m8", unit))


def decode_missing(_incoming: Incoming, args: object) -> Any:
    """Return the stand-in for a missing value. Raises ``Unreadable``."""
    if args not in ("NaT", "NA"):
        raise Unreadable("something in it is missing in an unknown way")
    return getattr(imported("pandas"), args)


def _encode_vector(encode: Encode, column: Any, depth: int) -> Any:
    """Encode what is in a series or an index."""
    pd, np = sys.modules["pandas"], sys.modules["numpy"]
    dtype, values = column.dtype, column.array
    if isinstance(dtype, np.dtype):
        if dtype.kind != "O":
            return encode_array(encode, np.asarray(column))
        items = np.asarray(column).tolist()
        return ["object", encode.elements(items, depth)]
    if isinstance(dtype, pd.DatetimeTZDtype):
        return ["zoned", encode_zone(dtype.tz), encode_array(encode, np.asarray(values.tz_convert(None)))]
    if isinstance(dtype, pd.CategoricalDtype):
        if not _may_be_distinct(dtype.categories):
            raise Unsupported(f"pandas column of {dtype}"[:100], "it has many categories that are not in order")
        categories = _encode_index(encode, dtype.categories, depth + 1)
        return ["category", encode_array(encode, values.codes), categories, bool(dtype.ordered)]
    if isinstance(dtype, pd.StringDtype):
        texts = values.to_numpy(dtype=object, na_value=None).tolist()
        na = "NA" if dtype.na_value is pd.NA else "nan"
        return ["text", dtype.storage, na, encode.elements(texts, depth)]
    if (extension := encode_extension(encode, dtype, values, depth)) is not None:
        return extension
    raise Unsupported(f"pandas column of {dtype}"[:100])


def _decode_vector(pd: Any, incoming: Incoming, parts: Any) -> Any:
    """Return the finished column: an array of numpy's or of pandas'."""
    np = imported("numpy")
    if type(parts) is np.ndarray:
        if parts.ndim != 1 or parts.dtype.kind not in "biufcmM":
            raise Unreadable("a column in it is of an unknown type")
        incoming.charge(parts.nbytes)  # pandas may copy it
        return parts
    match listed(parts):
        case ["object", list(items)]:
            incoming.charge(16 * len(items))
            column = np.empty(len(items), dtype=object)
            for number, item in enumerate(items):  # at once, lists would be taken for rows
                column[number] = item
            return column
        case ["zoned", zone, np.ndarray() as moments] if moments.ndim == 1 and moments.dtype.kind == "M":
            tz = decode_zone(zone)
            if tz is None:
                raise Unreadable("a column in it has no time zone")
            incoming.charge(4 * moments.nbytes)
            return pd.DatetimeIndex(moments).tz_localize("UTC").tz_convert(tz).array
        case ["category", codes, categories, bool(ordered)]:
            _check_index(pd, categories)
            _check_order(categories)
            _check_codes(codes, len(categories))
            incoming.charge(2 * codes.nbytes)
            return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(categories, ordered))
        case ["text", "python" | "pyarrow" as storage, "NA" | "nan" as na, list(items)]:
            if not set(map(type, items)) <= {str, type(None)}:
                raise Unreadable("a column of text in it holds something else")
            incoming.charge(32 * len(items) + 4 * sum(len(item) for item in items if item))
            if storage == "pyarrow" and find_spec("pyarrow") is None:
                storage = "python"
            missing = {} if na == "NA" else {"na_value": math.nan}  # pandas 2.2 knows NA only
            return pd.array(items, dtype=pd.StringDtype(storage, **missing))
        case [*several] if (extension := decode_extension(incoming, several)) is not None:
            return extension
    raise Unreadable("a column in it is of an unknown type")


def _encode_index(encode: Encode, index: Any, depth: int) -> dict[str, Any]:
    names = encode.elements(list(index.names), depth + 2)
    match pandas_type(type(index)):
        case "ranged":
            return {"!index.range": [index.start, index.stop, index.step, *names]}
        case "many":
            if not all(map(_may_be_distinct, index.levels)):
                raise Unsupported(index, "it has a level of many labels that are not in order")
            levels = [_encode_index(encode, level.rename(None), depth + 3) for level in index.levels]
            codes = [encode_array(encode, sys.modules["numpy"].asarray(codes)) for codes in index.codes]
            return {"!index.many": [levels, codes, names]}
        case "index":
            frequency = None if isinstance(index.dtype, sys.modules["pandas"].PeriodDtype) else _frequency(index)
            return {"!index": [_encode_vector(encode, index, depth + 2), *names, frequency]}
    raise Unsupported(index)


def _frequency(index: Any) -> str | None:
    frequency = getattr(index, "freqstr", None)
    return frequency if frequency and _FREQUENCY.fullmatch(frequency) and len(index) <= _MAX_LABELS else None


def _check_extras(value: Any) -> None:
    """Refuse what would be lost on the way."""
    if value.attrs or not value.flags.allows_duplicate_labels:
        raise Unsupported(value, "it has attrs or flags")


def _check_index(pd: Any, index: object) -> None:
    if not isinstance(index, pd.Index):
        raise Unreadable("something in it isn't the index that it should be")


def _may_be_distinct(labels: Any) -> bool:
    """Whether pandas can find out fast that no label is there twice, even of hostile labels."""
    if len(labels) <= _MAX_UNSORTED or labels.dtype == "string":
        return True
    if labels.dtype == object:
        return set(map(type, labels)) <= {str}  # salted, as Python hashes them
    return bool(labels.is_monotonic_increasing or labels.is_monotonic_decreasing)


def _check_order(labels: Any) -> None:
    if not _may_be_distinct(labels):
        raise Unreadable("it has many categories, or labels of a level, that are not in order")


def _check_lengths(vectors: list[Any], index: Any) -> None:
    if any(len(vector) != len(index) for vector in vectors):
        raise Unreadable("a column in it has another length than its index")


def _check_codes(codes: Any, count: int) -> None:
    """Refuse codes of categories that don't exist: not every reader of them looks again."""
    if type(codes) is not imported("numpy").ndarray or codes.ndim != 1 or codes.dtype.kind != "i":
        raise Unreadable("codes in it aren't codes")
    if len(codes) and not -1 <= codes.min() <= codes.max() < count:
        raise Unreadable("a code in it is of no category")


def _counted(count: object, kind: str, unit: object) -> Any:
    if unit not in ("s", "ms", "us", "ns"):
        raise Unreadable("a time in it has an unknown unit")
    number = whole(int(texted(count, 20)), -(1 << 63), (1 << 63) - 1)
    return imported("numpy").array(number, "i8").view(f"{kind}[{unit}]")[()]
