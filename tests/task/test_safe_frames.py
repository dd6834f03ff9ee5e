"""Frames, series and indexes come back as they were, of each kind of column that travels without a pickle."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any

import numpy as np
import pytest
from safe_support import again, memory

from p2p_ipython.task import safe

pd = pytest.importorskip("pandas")

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
FRAME = pd.DataFrame(
    {
        "whole": [1, 2, 3],
        "small": np.array([1, 2, 3], "i2"),
        "float": [1.0, None, 3.0],
        "text": ["a", None, "c"],
        "nullable text": pd.array(["q", pd.NA, "r"], dtype="string"),
        "objects": pd.Series(["a", None, [1, (2,)]], dtype=object),
        "true": [True, False, True],
        "category": pd.Categorical(["x", None, "y"], categories=["z", "y", "x"], ordered=True),
        "moment": pd.date_range("2020", periods=3),
        "zoned": pd.date_range("2020-10-25", periods=3, tz=BERLIN, freq="h"),
        "offset": pd.to_datetime(["2020-01-01", None, "2021-01-01"]).tz_localize(dt.timezone(dt.timedelta(hours=2))),
        "seconds": np.array(["2020", "2021", "NaT"], "M8[s]"),
        "duration": pd.to_timedelta([1, None, 3], unit="h"),
        "whole or missing": pd.array([1, None, 3], dtype="Int64"),
        "small or missing": pd.array([1, None, 3], dtype="UInt8"),
        "float or missing": pd.array([1.5, None, 3], dtype="Float32"),
        "true or missing": pd.array([True, None, False], dtype="boolean"),
        "month": pd.PeriodIndex(["2020-01", None, "2021-03"], freq="M"),
        "interval": pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3]),
        3: [1j, 2j, 3j],
    },
    index=pd.date_range("2021", periods=3, freq="h", tz="UTC", name="when"),
)
TWICE = pd.DataFrame(np.arange(6).reshape(2, 3), columns=["a", "a", "b"], index=["x", "x"])


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        FRAME.drop(columns=3).describe(),
        FRAME.iloc[:0],
        FRAME[[]],
        pd.DataFrame(),
        TWICE,
        TWICE.T,
        FRAME.groupby(["true", "category"], observed=True).agg({"whole": ["sum", "mean"]}),
        pd.DataFrame(np.zeros((3, 2000))),
    ],
    ids=[
        "of all kinds",
        "described",
        "no rows",
        "no columns",
        "empty",
        "names twice",
        "index twice",
        "grouped",
        "wide",
    ],
)
def test_a_frame_comes_back(frame: Any) -> None:
    pd.testing.assert_frame_equal(again(frame), frame, check_freq=True)


def test_a_frame_of_one_block_travels_by_its_columns_without_a_copy() -> None:
    frame = pd.DataFrame(np.zeros((1 << 17, 4)).T.copy().T)
    packed = safe.encode(frame)
    assert len(packed.large) == 4
    assert np.shares_memory(np.frombuffer(packed.large["r0"]), frame[0].to_numpy())


@pytest.mark.parametrize("name", [str(each) for each in FRAME.columns] + ["without a name"])
def test_a_series_comes_back(name: str) -> None:
    series = FRAME["whole"].rename(None) if name == "without a name" else FRAME[3 if name == "3" else name]
    pd.testing.assert_series_equal(again(series), series)
    counts = FRAME["category"].value_counts()
    pd.testing.assert_series_equal(again(counts), counts)


INDEXES = {
    "counting": pd.RangeIndex(5, 1, -2, name="n"),
    "whole": pd.Index([3, 1, 3]),
    "text": pd.Index(["a", "b"], name=("a", 1)),
    "mixed": pd.Index([1, "a", None], dtype=object),
    "true": pd.Index([True, False]),
    "categories": pd.CategoricalIndex(["a", "b", "a"]),
    "months": pd.date_range("2020", periods=5, freq="ME"),
    "days of Berlin": pd.date_range("2020-10-20", periods=9, freq="D", tz=BERLIN),
    "moments": pd.DatetimeIndex(["2020-01-01", None]),
    "durations": pd.timedelta_range("1h", periods=3, freq="h"),
    "weeks": pd.period_range("2020", periods=3, freq="W", name="w"),
    "whole or missing": pd.Index([1, None], dtype="Int64"),
    "intervals": pd.interval_range(0, 3),
    "levels": pd.MultiIndex.from_tuples([("a", 1), ("b", None), ("a", 2)], names=["x", None]),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_an_index_comes_back(kind: str) -> None:
    index = INDEXES[kind]
    back = again(index)
    pd.testing.assert_index_equal(back, index, exact=True)
    assert getattr(back, "freq", None) == getattr(index, "freq", None)


@pytest.mark.parametrize(
    "value",
    [
        pd.Timestamp("2020-01-01 01:02:03.123456789"),
        pd.Timestamp("2020-10-25 00:30", tz="UTC").tz_convert(BERLIN),
        pd.Timestamp("2020-10-25 01:30", tz="UTC").tz_convert(BERLIN),
        pd.Timedelta("1h 3ns"),
        pd.Period("2020Q2"),
        pd.Period("2020-02-03 04:05", freq="min"),
        pd.Interval(0, 1.5, closed="both"),
        pd.NaT,
        pd.NA,
    ],
    ids=str,
)
def test_a_single_time_comes_back(value: Any) -> None:
    back = again([value])[0]
    assert type(back) is type(value)
    assert (str(back), getattr(back, "unit", "")) == (str(value), getattr(value, "unit", ""))


SHAPES: dict[str, Any] = {
    "wide": pd.DataFrame(np.zeros((2, 1000))),
    "wide and zoned": pd.DataFrame(dict.fromkeys(range(200), FRAME["zoned"].array)),
    "wide and text": pd.DataFrame({each: ["a", "b"] for each in range(500)}),
    "long": pd.DataFrame(np.zeros((100_000, 10))),
    "long and zoned": FRAME[["zoned"]].iloc[np.zeros(100_000, int)],
    "long text": pd.DataFrame({"a": [f"a{each}" for each in range(100_000)]}),
    "long objects": pd.DataFrame({"a": pd.Series([f"a{each}" for each in range(100_000)], dtype=object)}),
    "categories": pd.Series(pd.Categorical([f"a{each}" for each in range(50_000)])),
    "codes": FRAME["category"].iloc[np.zeros(300_000, int)].reset_index(drop=True),
    "levels": pd.Series(range(90_000), index=pd.MultiIndex.from_product([range(300), range(300)])),
    "series": [pd.Series([1, 2]) for _ in range(1000)],
    "indexes": [pd.RangeIndex(3) for _ in range(1000)],
    "moments": [pd.Timestamp(each, unit="s", tz=BERLIN) for each in range(3000)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_frame_takes_to_decode_is_foreseen(shape: str) -> None:
    taken, foreseen = memory(safe.encode(SHAPES[shape]))
    assert taken <= foreseen


class Frame(pd.DataFrame):  # type: ignore[misc]
    pass


@pytest.mark.parametrize(
    ("value", "name", "at"),
    [
        (FRAME.assign(bad=pd.arrays.SparseArray([0, 0, 1])), "pandas column of Sparse[int64, 0]", "['bad']"),
        (FRAME.assign(bad=[1, 2, object()]), "object", "['bad'][2]"),
        (Frame({"a": [1]}), "Frame", ""),
    ],
)
def test_a_column_that_is_not_plain_data_is_named(value: Any, name: str, at: str) -> None:
    with pytest.raises(safe.Unsupported) as caught:
        safe.encode(value)
    assert caught.value.type_name.endswith(name)
    assert caught.value.at == at


def test_what_a_frame_says_besides_its_data_is_not_lost_in_silence() -> None:
    noted = FRAME.copy()
    noted.attrs["from"] = "here"
    with pytest.raises(safe.Unsupported, match="attrs"):
        safe.encode(noted)


@pytest.mark.parametrize("ordered", [True, False])
def test_many_categories_travel_if_they_are_in_order(ordered: bool) -> None:
    labels = np.arange(10_000)
    column = pd.Series(pd.Categorical.from_codes(labels, labels if ordered else labels[::-1] ^ 1))
    if ordered:
        pd.testing.assert_series_equal(again(column), column)
    else:
        with pytest.raises(safe.Unsupported, match="not in order"):
            safe.encode(column)
