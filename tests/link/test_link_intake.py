"""Cutting a stream into frames, whatever pieces it comes in."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_ipython.link.base import LANDING
from p2p_ipython.link.intake import SCRATCH, Intake
from p2p_ipython.protocol.frames import MAX_BODY, MAX_HEADER, FrameError, encode


class Reader:
    def __init__(self) -> None:
        self.frames: list[tuple[dict[str, Any], bytes, int]] = []
        self.intake = Intake(lambda header, size: None, self.take)

    def take(self, header: dict[str, Any], body: Any, size: int) -> None:
        self.frames.append((header, bytes(body), size))

    def feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            place = self.intake.target()
            count = min(len(place), len(view))
            assert count
            place[:count] = view[:count]
            view = view[count:]
            self.intake.landed(count)


def wire(frames: list[tuple[dict[str, Any], bytes]]) -> bytes:
    return b"".join(encode(header, len(body)) + body for header, body in frames)


header_sizes = st.sampled_from([0, 1, 100, 60_000, 70_000, MAX_HEADER - 100])
body_sizes = st.sampled_from([0, 1, 50, LANDING - 1, LANDING, LANDING + 1, 300_000, MAX_BODY])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(header_sizes, body_sizes), max_size=6), st.integers(0, 1 << 32))
def test_frames_of_any_sizes_come_out_of_any_pieces(sizes: list[tuple[int, int]], seed: int) -> None:
    dice = random.Random(seed)
    frames = [({"t": "a", "long": "x" * header}, dice.randbytes(body)) for header, body in sizes]
    data = wire(frames)
    reader = Reader()
    at = 0
    while at < len(data):
        step = dice.choice([1, 7, 8, 9, 1000, 16_384, 100_000, len(data)])
        reader.feed(data[at : at + step])
        at += step
    assert [(header, body) for header, body, _ in reader.frames] == frames
    assert sum(size for *_, size in reader.frames) == len(data)


def test_a_thousand_small_frames_fit_the_scratch_again_and_again() -> None:
    frames = [({"t": "a", "n": number}, b"b" * (number % 900)) for number in range(2000)]
    reader = Reader()
    data = wire(frames)
    assert len(data) > 3 * SCRATCH
    for at in range(0, len(data), 10_007):
        reader.feed(data[at : at + 10_007])
    assert [(header, body) for header, body, _ in reader.frames] == frames


def test_a_large_body_lands_in_the_buffer_that_is_offered() -> None:
    memory = bytearray(LANDING)
    got = []
    intake = Intake(lambda header, size: memoryview(memory), lambda header, body, size: got.append(body))
    body = random.Random(0).randbytes(LANDING)
    view = memoryview(wire([({"t": "a"}, body)]))
    while view:
        place = intake.target()[:5000]
        place[:] = view[: len(place)]
        intake.landed(len(place))
        view = view[len(place) :]
    assert memory == body
    assert isinstance(got[0], memoryview)


def test_nothing_is_delivered_while_held() -> None:
    reader = Reader()
    reader.intake.held = True
    reader.feed(wire([({"t": "a"}, b""), ({"t": "b"}, b"")]))
    assert reader.frames == []
    reader.intake.held = False
    reader.intake.deliver()
    assert [header["t"] for header, *_ in reader.frames] == ["a", "b"]


def test_a_reader_that_holds_after_a_frame_gets_no_more() -> None:
    reader = Reader()
    original = reader.take

    def take_one(header: dict[str, Any], body: Any, size: int) -> None:
        original(header, body, size)
        reader.intake.held = True

    reader.intake = Intake(lambda header, size: None, take_one)
    reader.feed(wire([({"t": "a"}, b""), ({"t": "b"}, b"")]))
    assert len(reader.frames) == 1


@pytest.mark.parametrize(
    "data",
    [
        (MAX_HEADER + 1).to_bytes(4, "big") + bytes(4),
        bytes(4) + (MAX_BODY + 1).to_bytes(4, "big"),
        b"\xff" * 8,
        (2).to_bytes(4, "big") + bytes(4) + b"[]",
        (2).to_bytes(4, "big") + bytes(4) + b"{}",
        (5).to_bytes(4, "big") + bytes(4) + b"\xff\xff\xff\xff\xff",
        (70_000).to_bytes(4, "big") + bytes(4) + b"[" * 70_000,
    ],
)
def test_bytes_that_are_not_a_frame_are_refused_before_anything_is_allocated_for_them(data: bytes) -> None:
    reader = Reader()
    with pytest.raises(FrameError):
        reader.feed(data)
    assert reader.frames == []
