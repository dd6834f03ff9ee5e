"""What a runner says of its task is what it should be, or is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from p2p_ipython.protocol.frames import MAX_HEADER, FrameError, Header
from p2p_ipython.worker.task_frames import MAX_SEGMENT, MAX_SEGMENTS, TaskFrames

GOOD: Header = {"t": "result", "id": "x", "ok": True, "segments": [[3, None]], "seconds": 0.5, "value": True}
ERROR = {"class": "builtins.KeyError", "bases": ["builtins.object"], "message": "1", "traceback": "", "kind": "missing"}
BAD: Header = {"t": "result", "id": "x", "ok": False, "segments": [], "seconds": 0.0, "error": {**ERROR, "name": "n"}}
CHUNK: Header = {"t": "chunk", "id": "x", "ref": "r0", "size": 10, "off": 0}
TEXT: Header = {"t": "output", "id": "x", "kind": "stream", "name": "stdout"}


def check(*frames: tuple[dict[str, Any], int]) -> None:
    task = TaskFrames("x")
    for header, size in frames:
        task.check(json.loads(json.dumps(header)), size)


def test_what_a_runner_says_is_taken() -> None:
    check(
        (TEXT, 5),
        ({"t": "output", "id": "x", "kind": "display_data", "more": True}, 5),
        ({"t": "output", "id": "x", "kind": "clear_output"}, 5),
        (CHUNK, 4),
        ({**CHUNK, "off": 4}, 6),
        ({**GOOD, "segments": [[3, None], [10, "r0"], [0, None], [10, "r0"]]}, 3),
    )
    check(({**GOOD, "codec": "pickle", "type": "m.C", "at": "[3]"}, 3))
    check((BAD, 0))
    check(({**BAD, "segments": [[2, None]]}, 2))
    check(({**GOOD, "segments": [[1, None]] * MAX_SEGMENTS}, MAX_SEGMENTS))


@pytest.mark.parametrize(
    "change",
    [
        {"t": "ready"},
        {"id": "y"},
        {"id": None},
        {"attempt": 2},
        {"ok": 1},
        {"ok": None},
        {"ok": False},
        {"error": ERROR},
        {"value": "yes"},
        {"codec": ["safe"]},
        {"type": 3},
        {"at": "x" * 201},
        {"segments": None},
        {"segments": {"0": 3}},
        {"segments": [3]},
        {"segments": [[3]]},
        {"segments": [[3, None, None]]},
        {"segments": [[True, None], [2, None]]},
        {"segments": [[4, None], [-1, None]]},
        {"segments": [[3.0, None]]},
        {"segments": [["3", None]]},
        {"segments": [[3, None], [10, "r0"]]},
        {"segments": [[3, None], [10, 5]]},
        {"segments": [[3, None], [0, "r" * 129]]},
        {"segments": [[2, None]]},
        {"segments": [[4, None]]},
        {"segments": [[3, None]] + [[0, None]] * MAX_SEGMENTS},
        {"seconds": None},
        {"seconds": True},
        {"seconds": "1"},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": 10**400},
    ],
)
def test_a_good_result_that_is_not_one_is_refused(change: dict[str, Any]) -> None:
    check((GOOD, 3))
    with pytest.raises(FrameError):
        check(({**GOOD, **change}, 3))


@pytest.mark.parametrize(
    "error",
    [
        None,
        "KeyError",
        [],
        {**ERROR, "more": ""},
        {**ERROR, "message": 1},
        {**ERROR, "bases": "object"},
        {**ERROR, "bases": [1]},
        {**ERROR, "traceback": "-" * (MAX_HEADER - 500)},
        {**ERROR, "traceback": "\x01" * (MAX_HEADER // 4)},
    ],
)
def test_a_bad_result_without_a_proper_error_is_refused(error: object) -> None:
    with pytest.raises(FrameError):
        check(({**BAD, "error": error}, 0))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "execute_request"},
        {"kind": None},
        {"kind": ["stream"]},
        {"name": "stdin"},
        {"name": None},
        {"kind": "display_data"},  # which has no name
        {"more": 1},
        {"more": False},
        {"attempt": 1},
    ],
)
def test_output_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        check(({**TEXT, **change}, 5))


@pytest.mark.parametrize(
    ("change", "size"),
    [
        ({"ref": None}, 4),
        ({"ref": "r" * 129}, 4),
        ({"size": -1}, 4),
        ({"size": True}, 1),
        ({"size": "10"}, 4),
        ({"size": MAX_SEGMENT + 1}, 4),
        ({"off": None}, 4),
        ({"off": -1}, 4),
        ({"off": 4}, 4),
        ({}, 11),
        ({}, 0),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused(change: dict[str, Any], size: int) -> None:
    with pytest.raises(FrameError):
        check(({**CHUNK, **change}, size))


@pytest.mark.parametrize("change", [{"off": 0}, {"off": 3}, {"off": 5}, {"off": 4, "size": 11}])
def test_a_chunk_out_of_turn_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        check((CHUNK, 4), ({**CHUNK, **change}, 4))


def test_a_result_whose_segment_has_not_come_whole_is_refused() -> None:
    with pytest.raises(FrameError):
        check((CHUNK, 4), ({**GOOD, "segments": [[3, None], [10, "r0"]]}, 3))
    with pytest.raises(FrameError):
        check((CHUNK, 10), ({**GOOD, "segments": [[3, None], [9, "r0"]]}, 3))


def test_no_more_segments_are_kept_in_mind_than_a_result_may_have() -> None:
    chunks = [({**CHUNK, "ref": str(number)}, 1) for number in range(MAX_SEGMENTS)]
    check(*chunks)
    with pytest.raises(FrameError):
        check(*chunks, (CHUNK, 1))
