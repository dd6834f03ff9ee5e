"""What the safe codec takes comes back equal and of the same types; what it can't, it names and leaves to others."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import pathlib
import subprocess
import sys
import uuid
import zoneinfo
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safe_support import again, decoded, memory

from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.task import safe

QUICK = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def described(value: Any) -> Any:
    """Something equal exactly for values that are equal and of equal types, all through; also for NaN."""
    cls = type(value)
    if cls in (list, tuple):
        return cls, [described(each) for each in value]
    if cls is dict:
        return cls, [(described(key), described(each)) for key, each in value.items()]
    if cls in (set, frozenset):
        return cls, sorted(repr(described(each)) for each in value)
    if cls is slice:
        return cls, [described(each) for each in (value.start, value.stop, value.step)]
    if isinstance(value, dt.datetime | dt.time):
        return cls, repr(value), value.fold, repr(value.tzinfo)
    if cls is np.ndarray:
        return cls, value.dtype, value.shape, value.tobytes()
    return cls, repr(value)


zones = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23))),
    st.builds(dt.timezone, st.just(dt.timedelta(hours=2)), st.text(max_size=5)),
    st.sampled_from(["Europe/Berlin", "UTC", "America/Argentina/Buenos_Aires"]).map(zoneinfo.ZoneInfo),
)
exponents = st.integers(-999_999, 999_999)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(1 << 200), 1 << 200),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.uuids(),
    st.fractions(),
    st.decimals(),
    st.builds(lambda sign, e: decimal.Decimal((sign, (7,), e)), st.integers(0, 1), exponents),
    st.dates(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.builds(lambda moment, fold: moment.replace(fold=fold), st.datetimes(), st.integers(0, 1)),
    st.times(timezones=st.sampled_from([None, dt.UTC])),
    st.timedeltas(),
    st.builds(range, st.integers(-99, 99), st.integers(-99, 99), st.integers(1, 9)),
)
names = st.one_of(st.text(), st.sampled_from(["!tuple", "!", "a", '"', "\\", '\\"[{']))
keys = st.recursive(
    scalars.filter(lambda value: not (isinstance(value, decimal.Decimal) and value.is_snan())),
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)),
    max_leaves=4,
)
values = st.recursive(
    scalars | st.binary().map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(names, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
        st.builds(slice, inner, inner, inner),
    ),
    max_leaves=25,
)


@QUICK
@given(values)
def test_a_value_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    assert described(again(value)) == described(value)


@QUICK
@given(st.one_of(*(st.lists(kind, max_size=50) for kind in (st.integers(), st.floats(), st.text(), st.booleans()))))
def test_a_list_of_one_type_does(value: list[Any]) -> None:
    assert described(again(value)) == described(value)


DTYPES = ["?", "i1", ">u2", "<i8", "e", ">f4", "f8", "c8", "c16", "<U3", ">U2", "S4", "V5", "M8[D]", "<m8[25us]", "m8"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 4), (2, 3, 4), (40, 50)])
def test_an_array_comes_back_whatever_its_type_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    kind = np.dtype(dtype)
    raw = np.random.default_rng(1).integers(0, 2, math.prod(shape) * kind.itemsize, dtype=np.uint8)
    if kind.kind == "U":
        raw = np.full(math.prod(shape) * kind.itemsize // 4, 0x1F600, dtype=f"{kind.str[0]}u4").view(np.uint8)
    array = raw.view(kind).reshape(shape) if raw.size else np.empty(shape, kind)
    back = again(array)
    assert described(back) == described(array)
    assert back.flags.writeable
    scalar = array.reshape(-1)[0] if array.size else None
    if scalar is not None and kind.kind != "V":
        assert described(again(scalar)) == described(scalar)


def test_an_array_keeps_the_order_of_its_axes_and_travels_without_what_it_leaves_out() -> None:
    whole = np.arange(1 << 18, dtype="f8").reshape(512, 512)
    for array in (whole, whole.T, whole[::2, ::3], whole[:, 1], np.broadcast_to(whole[0], (3, 512))):
        packed = safe.encode(array)
        assert np.array_equal(decoded(packed), array)
        assert packed.size <= array.nbytes * 4 / 3 + 200
    assert again(whole.T).flags.f_contiguous


def test_a_large_array_is_not_copied_on_either_side() -> None:
    array = np.arange(1 << 18, dtype="f8")
    packed = safe.encode(array)
    assert np.shares_memory(np.frombuffer(packed.large["r0"], "f8"), array)
    landed = bytearray(packed.large["r0"])
    back = safe.decode(packed.segments, packed.inline, {"r0": memoryview(landed)})
    back[0] = 7.0
    assert np.frombuffer(landed, "f8")[0] == 7.0


def test_an_array_that_landed_where_nobody_can_write_is_copied() -> None:
    packed = safe.encode(np.arange(1 << 18))
    back = safe.decode(packed.segments, packed.inline, {ref: bytes(view) for ref, view in packed.large.items()})
    back += 1
    assert back[0] == 1


def test_records_come_back_with_their_layout() -> None:
    aligned = np.dtype([("a", "i1"), ("b", ">f8"), ("c", "U3"), ("d", "?")], align=True)
    array = np.zeros(5, aligned)
    array["b"], array["c"], array["d"] = 1.5, "xyz", True
    back = again(array)
    assert back.dtype == array.dtype
    assert back.tolist() == array.tolist()


def test_many_small_arrays_take_no_more_segments_than_a_header_has_room_for() -> None:
    value = [np.full(1000, number) for number in range(3000)]
    packed = safe.encode(value)
    assert len(packed.segments) <= 1024
    assert all(map(np.array_equal, decoded(packed), value))


class Mine(int):
    pass


class Pair(NamedTuple):
    one: int


class Triple(NamedTuple):
    one: int

    def three_times(self) -> int:
        return 3 * self.one


class Colour(enum.IntEnum):
    RED = 1


class Odd(type):
    __module__ = property(lambda self: 1 / 0)  # type: ignore[assignment]


class Strange(metaclass=Odd):
    pass


FAKE = type("Decimal", (), {"__module__": "decimal"})

UNSUPPORTED: list[tuple[Any, str, str]] = [
    (object(), "object", ""),
    ([0, 1, {"x": object()}], "object", "[2]['x']"),
    ({"a": {3: [Mine(3)]}}, "test_safe.Mine", "['a'][3][0]"),
    ((1, (Triple(1),)), "test_safe.Triple", "[1][0]"),
    ({"a": Colour.RED}, "test_safe.Colour", "['a']"),
    ({Mine(3): 1}, "test_safe.Mine", " (key 1)"),
    ({(1, Mine(3))}, "test_safe.Mine", " (an element)[1]"),
    ({(1, 2): Mine(3)}, "test_safe.Mine", "[…]"),
    (collections.defaultdict(lambda: 1), "collections.defaultdict", ""),
    (collections.ChainMap(), "collections.ChainMap", ""),
    (pathlib.PurePosixPath("x"), f"{pathlib.PurePosixPath.__module__}.PurePosixPath", ""),
    (len, "builtin_function_or_method", ""),
    (FAKE(), "decimal.Decimal", ""),
    ([Strange()], "Strange", "[0]"),
    ([np.array([1, None])], "numpy array of object", "[0]"),
    (np.zeros(2, [("a", [("b", "i4")])]), "numpy array of nested or titled fields", ""),
    (np.zeros(2, [("a", "O")]), "numpy array of object", ""),
    (np.ma.array([1]), "numpy.ma.MaskedArray", ""),
    (np.zeros(2, "longdouble"), "numpy array of float128", ""),
    (np.zeros(1, [("a", "i4")])[0], "numpy.void", ""),
    (dt.datetime(2020, 1, 1, tzinfo=type("Z", (dt.tzinfo,), {"__module__": "m"})()), "m.Z", ""),
    (decimal.Decimal("1e1000001"), "decimal.Decimal", ""),
    (fractions.Fraction(1 << 70000), "fractions.Fraction", ""),
    (range(1 << 80), "range", ""),
]


@pytest.mark.parametrize(("value", "name", "at"), UNSUPPORTED, ids=[f"{name}{at}" for _, name, at in UNSUPPORTED])
def test_what_is_not_plain_data_is_named_with_its_place(value: Any, name: str, at: str) -> None:
    with pytest.raises(safe.Unsupported) as caught:
        safe.encode(value)
    assert caught.value.type_name.removeprefix("tests.task.") == name
    assert caught.value.at == at


@pytest.mark.parametrize(
    "value",
    [
        collections.Counter("aab"),
        collections.Counter({(1, 2): 3}),
        collections.OrderedDict([("b", 1), ((1,), [2])]),
        collections.defaultdict(list, {1: [2]}),
        collections.defaultdict(None, {"a": collections.defaultdict(int)}),
        collections.deque([1, "x"], 3),
        collections.deque(),
    ],
    ids=repr,
)
def test_a_container_of_the_standard_library_keeps_what_it_is(value: Any) -> None:
    back = again([value])[0]
    assert (type(back), repr(back)) == (type(value), repr(value))


def test_a_named_tuple_keeps_its_name_and_fields_in_a_class_of_nothing_else() -> None:
    back = again({"p": [Pair(1), Pair(2)]})["p"]
    assert (back, repr(back[0]), back[1].one) == ([(1,), (2,)], "Pair(one=1)", 2)
    assert type(back[0]) is type(back[1]) is not Pair


def test_views_of_a_dict_are_views_again() -> None:
    made = {"a": 1, (2,): [3]}
    for view in (made.keys(), made.values(), made.items()):
        back = again(view)
        assert (type(back), list(back)) == (type(view), list(view))


def test_a_value_that_contains_itself_is_named_and_so_is_one_that_is_too_deep() -> None:
    loop: dict[str, Any] = {}
    loop["me"] = [loop]
    with pytest.raises(safe.Unsupported, match="contains itself") as caught:
        safe.encode(loop)
    assert caught.value.at == "['me'][0]"
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(safe.Unsupported, match="nested"):
        safe.encode(deep)


@pytest.mark.parametrize(
    "wrap", [lambda x: [x], lambda x: {"a": x}, lambda x: (x,), lambda x: {1: x}, lambda x: frozenset([x])]
)
def test_what_is_nested_as_deep_as_encoding_goes_can_be_decoded(wrap: Any) -> None:
    value: Any = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    deepest = 0
    for depth in range(1, 200):
        value = wrap(value)
        try:
            packed = safe.encode(value)
        except safe.Unsupported:
            break
        assert decoded(packed) == value
        deepest = depth
    assert 30 < deepest < 150


def test_lists_that_share_lists_are_not_written_out_a_million_million_times() -> None:
    laugh: list[Any] = ["ha"] * 10
    for _ in range(30):
        laugh = [laugh] * 10
    with pytest.raises(safe.Unsupported, match="too often"):
        safe.encode(laugh)
    with pytest.raises(safe.Unsupported, match="too often"):
        safe.encode(["x" * (1 << 20)] * 2000)
    with pytest.raises(safe.Unsupported, match="many times"):
        safe.encode([np.zeros(1 << 20)] * 20)
    one = np.zeros(1 << 17)
    assert [each.shape for each in again([one, one])] == [(1 << 17,)] * 2


def test_whatever_goes_wrong_in_encoding_leaves_the_value_to_others() -> None:
    huge = np.broadcast_to(np.zeros(1), (1 << 45,))  # a copy of it is a MemoryError
    with pytest.raises(safe.Unsupported, match="MemoryError"):
        safe.encode(huge)


def test_the_text_is_json_that_anybody_can_read() -> None:
    packed = safe.encode({"a": [1, -0.5, None, True, "é"], "b": (1 << 64, math.inf), "c": {1: b"xyz"}})
    assert json.loads(packed.inline) == {
        "a": [1, -0.5, None, True, "é"],
        "b": {"!tuple": [{"!int": "10000000000000000"}, {"!float": "inf"}]},
        "c": {"!dict": [[1, {"!bytes": "eHl6"}]]},
    }


SHAPES: dict[str, Any] = {
    "numbers": list(range(10**6, 10**6 + 200_000)),
    "floats": [each / 7 for each in range(100_000)],
    "empty lists": [[] for _ in range(100_000)],
    "short lists": [[each] for each in range(50_000)],
    "empty dicts": [{} for _ in range(50_000)],
    "small dicts": [{"a": each, "b": 1} for each in range(30_000)],
    "one dict": {f"key {each}": each for each in range(50_000)},
    "odd keys": dict.fromkeys(range(50_000)),
    "short text": [f"{each}" for each in range(100_000)],
    "wide text": ["x" * 1000 + "\U0001f600" for _ in range(500)],
    "escapes": ['"' * 1000 + "\U0001f600" for _ in range(500)],
    "tuples": [(each,) for each in range(50_000)],
    "a set": set(range(10**6, 10**6 + 65_000)),
    "sets": [{each} for each in range(20_000)],
    "bytes": [b"xyz%d" % each for each in range(30_000)],
    "dates": [dt.date(2020, 1, 1) for _ in range(20_000)],
    "moments": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC) for _ in range(10_000)],
    "decimals": [decimal.Decimal(each) for each in range(20_000)],
    "identifiers": [uuid.UUID(int=each) for each in range(10_000)],
    "fractions": [fractions.Fraction(each, 7) for each in range(10_000)],
    "scalars": [np.float64(each) for each in range(10_000)],
    "arrays": [np.arange(each % 7) for each in range(10_000)],
    "larger arrays": [np.arange(600) for _ in range(1500)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_value_takes_to_decode_is_foreseen(shape: str) -> None:
    taken, foreseen = memory(safe.encode(SHAPES[shape]))
    assert taken <= foreseen


def test_what_would_take_more_than_the_budget_is_refused_and_what_takes_little_is_not_asked_for() -> None:
    packed = safe.encode(list(range(1_000_000)))
    with pytest.raises(RemoteProtocolError, match="are allowed"):
        decoded(packed, budget=40 << 20)
    assert len(decoded(packed, budget=100 << 20)) == 1_000_000
    assert decoded(safe.encode([1, 2, 3]), budget=0) == [1, 2, 3]
    text = "a,b[{" * 3_000_000  # its commas and brackets are no items
    assert decoded(safe.encode({"csv": text}), budget=100 << 20) == {"csv": text}


def test_encoding_plain_data_loads_neither_numpy_nor_pandas() -> None:
    code = (
        "import sys; from p2p_ipython.task import safe; p = safe.encode([1, (2, b'x')]); "
        "safe.decode(p.segments, p.inline, p.large); "
        "sys.exit(' '.join(sorted({'numpy', 'pandas', 'psutil', 'decimal'} & set(sys.modules))) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
