"""Frames out of a stream of bytes, however the reads cut it."""

from __future__ import annotations

import pytest

from p2p_ipython.protocol.frames import Header, encode
from p2p_ipython.sandbox.pipes import FrameInput

BODY = bytes(range(200))


def read(frames: FrameInput, data: bytes, step: int, act) -> None:  # type: ignore[no-untyped-def]
    """Give ``data`` to ``frames`` in reads of at most ``step`` bytes; call ``act`` with each frame."""
    rest = memoryview(data)
    while rest:
        count = 0
        for room in frames.room():
            part = min(len(room), step - count, len(rest))
            room[:part] = rest[:part]
            rest, count = rest[part:], count + part
        for header, body in frames.advance(count):
            act(header, body)


@pytest.mark.parametrize("step", [1, 7, 64, 100_000])
def test_a_frame_is_acted_on_before_the_next_ones_place_is_asked_for(step: int) -> None:
    places: dict[str, memoryview] = {}
    frames = FrameInput(lambda header, _size: places[header["ref"]])

    def act(header: Header, _body: object) -> None:
        if header["t"] == "buffer":
            places[header["ref"]] = memoryview(bytearray(header["size"]))

    stream = b""
    for ref in "ab":
        stream += encode({"t": "buffer", "ref": ref, "size": len(BODY)}, 0)
        stream += encode({"t": "chunk", "ref": ref}, len(BODY)) + BODY
    read(frames, stream, step, act)
    assert {ref: bytes(place) for ref, place in places.items()} == {"a": BODY, "b": BODY}
