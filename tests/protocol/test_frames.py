"""Frames: however a stream is cut, the same frames come out of it, and nothing is read beyond its bounds."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.protocol.frames import (
    MAX_BODY,
    MAX_DEPTH,
    MAX_HEADER,
    PREFIX,
    FrameError,
    FrameReader,
    decode_header,
    encode,
    sizes,
)

HEADERS = st.dictionaries(
    st.text(max_size=5),
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    max_size=3,
).flatmap(lambda rest: st.text(max_size=5).map(lambda kind: rest | {"t": kind}))
FRAMES = st.lists(st.tuples(HEADERS, st.binary(max_size=50)), max_size=6)


@given(FRAMES, st.lists(st.integers(0, 400)))
def test_however_the_stream_is_cut_the_frames_are_the_same(
    frames: list[tuple[dict[str, Any], bytes]], cuts: list[int]
) -> None:
    whole = b"".join(encode(header, len(body)) + body for header, body in frames)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    reader = FrameReader()
    found = [frame for start, end in itertools.pairwise(places) for frame in reader.feed(whole[start:end])]
    assert found == frames


@given(FRAMES)
def test_byte_by_byte_the_frames_are_the_same(frames: list[tuple[dict[str, Any], bytes]]) -> None:
    whole = b"".join(encode(header, len(body)) + body for header, body in frames)
    reader = FrameReader()
    assert [frame for byte in whole for frame in reader.feed(bytes([byte]))] == frames


def test_a_frame_comes_out_as_soon_as_it_is_whole_and_not_before() -> None:
    data = encode({"t": "x"}, 3) + b"abc"
    reader = FrameReader()
    assert list(reader.feed(data[:-1])) == []
    assert list(reader.feed(data[-1:] + b"\0")) == [({"t": "x"}, b"abc")]


def test_whoever_stops_in_the_middle_goes_on_with_the_next_frame() -> None:
    reader = FrameReader()
    frames = reader.feed(encode({"t": "a"}) + encode({"t": "b"}))
    assert next(frames) == ({"t": "a"}, b"")
    frames.close()
    assert list(reader.feed(b"")) == [({"t": "b"}, b"")]


def test_a_frame_of_the_largest_sizes_is_taken() -> None:
    header = {"t": "x", "s": ""}
    header["s"] = "a" * (MAX_HEADER - len(json.dumps(header, separators=(",", ":"))))
    data = encode(header, MAX_BODY)
    assert sizes(data) == (MAX_HEADER, MAX_BODY)
    ((found, body),) = FrameReader().feed(data + bytes(MAX_BODY))
    assert found == header
    assert len(body) == MAX_BODY


@pytest.mark.parametrize(("header", "body"), [(MAX_HEADER + 1, 0), (0, MAX_BODY + 1), (2**32 - 1, 2**32 - 1)])
def test_an_oversize_frame_is_refused_by_its_first_8_bytes(header: int, body: int) -> None:
    prefix = header.to_bytes(4, "big") + body.to_bytes(4, "big")
    with pytest.raises(FrameError, match="over"):
        sizes(prefix)
    with pytest.raises(FrameError, match="over"):
        list(FrameReader().feed(prefix))


def test_we_make_no_frame_that_others_refuse() -> None:
    with pytest.raises(FrameError, match="header"):
        encode({"t": "x", "s": "a" * MAX_HEADER})
    with pytest.raises(FrameError, match="body"):
        encode({"t": "x"}, MAX_BODY + 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        encode({"t": "x", "n": float("nan")})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"t"',
        b"{}",
        b'{"t":1}',
        b'{"t":"x"}{"t":"y"}',
        b'{"t":"x"},{}',
        b'{"t":null}',
        b"\xff",
        b"[" * 100_000,
        b'{"t":' * 100_000,
        b'{"t":"x","n":' + b"9" * 5000 + b"}",
        b'{"t":"x","n":18446744073709551616}',
        b'{"t":"x","n":-9223372036854775809}',
        b'{"t":"x","n":NaN}',
        b'{"t":"x","n":[Infinity]}',
        b'{"t":"x","n":-Infinity}',
        b'{"t":"x","n":1e999}',
        b'{"t":"x","n":-1e999}',
        b'{"t":"x","n":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        b'{"t":"x","n":' + b'{"n":' * MAX_DEPTH + b"0" + b"}" * MAX_DEPTH + b"}",
    ],
    ids=repr,
)
def test_a_header_that_is_no_object_with_a_kind_is_refused(text: bytes) -> None:
    with pytest.raises(FrameError):
        decode_header(text)


def test_what_can_be_read_can_be_written_again() -> None:
    deepest = b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)
    wide = b"[" + b"[]," * 1000 + b"[]]"
    for value in (b"18446744073709551615", b"-9223372036854775808", b"1e308", b"5e-324", b"-0.0", deepest, wide):
        header = decode_header(b'{"t":"x","n":' + value + b"}")
        assert decode_header(encode(header)[PREFIX:]) == header


def test_white_space_around_a_header_is_no_matter() -> None:
    assert decode_header(b' \n{"t": "x"}\t') == {"t": "x"}


@given(st.binary(max_size=100).filter(lambda text: b'"t"' not in text))
def test_random_headers_are_refused(text: bytes) -> None:
    with pytest.raises(FrameError):
        decode_header(text)


def test_a_lone_surrogate_in_a_header_is_shown_as_a_question_mark() -> None:
    ((header, _),) = FrameReader().feed(encode({"t": "output", "text": "a\ud800b"}))
    assert header == {"t": "output", "text": "a?b"}


def test_a_broken_frame_keeps_those_before_it() -> None:
    frames = FrameReader().feed(encode({"t": "a"}) + (1).to_bytes(4, "big") + bytes(4) + b"x")
    assert next(frames) == ({"t": "a"}, b"")
    with pytest.raises(FrameError):
        next(frames)


def test_the_prefix_is_two_big_endian_lengths() -> None:
    assert encode({"t": "x"}, 258) == b"\0\0\0\x09\0\0\1\2" + b'{"t":"x"}'
    assert PREFIX == 8
