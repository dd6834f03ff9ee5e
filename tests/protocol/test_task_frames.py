"""Headers from peers become frames, or one error: by kind, by field, by type and by bound."""

from __future__ import annotations

import json
from typing import Any

import pytest
from frame_support import GOOD
from protocol_tables import fields_of
from strange_frames import Said, each_way

from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.protocol.frames import PREFIX, FrameError, Header, decode_header
from p2p_ipython.protocol.rules import REQUIRED, text, whole
from p2p_ipython.protocol.task_frames import (
    FRAMES,
    MAX_REF,
    MAX_REFS,
    MAX_SEGMENT,
    MAX_SEGMENTS,
    Nack,
    Result,
    ResultChunk,
    ResultParts,
    Sender,
    batches,
    read_client,
    read_runner,
    read_worker,
)

ALL = [(sender, kind) for sender, row in FRAMES.items() for kind in row]


@pytest.mark.parametrize(("sender", "kind"), ALL)
def test_what_is_right_is_read_as_it_was_written_and_what_is_wrong_is_one_error_that_names_it(
    sender: Sender, kind: str
) -> None:
    def one(frame: Said) -> None:
        frame_class = FRAMES[sender].get(kind if frame.wrong else frame.header["t"])
        if frame.wrong:
            with pytest.raises((FrameError, RemoteProtocolError)) as caught:
                frame_class.read(decode_header(frame.head[PREFIX:]))  # type: ignore[union-attr]
            if isinstance(caught.value, RemoteProtocolError):
                assert any(name in caught.value.message for name in frame.wrong)
                assert len(caught.value.message) < 300
        elif frame_class is not None:
            value = frame_class.read(decode_header(frame.head[PREFIX:]))
            written = json.loads(json.dumps(value.header()))
            assert frame_class.read(written) == value
            assert written.items() <= frame.header.items(), "what a later version has added is not kept"

    each_way(sender, kind, 2, one)


def test_kinds_of_a_later_version_are_none() -> None:
    for kind in ("have", "applause", "", "link.hello"):
        assert read_client({"t": kind}) is read_worker({"t": kind}) is read_runner({"t": kind}) is None
    assert read_client({"t": "result"}) is None
    assert read_worker({"t": "task"}) is None


def test_each_field_has_a_rule_and_what_it_says_is_short() -> None:
    for sender, kind in ALL:
        for one in FRAMES[sender][kind].table():
            assert 0 < len(one.rule.says) < 100


# --- wrong: each must be one error, whatever else is right ------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "kind", "name", "least_wrong"),
    [
        ("client", "task", "id", "x" * 65),
        ("client", "task", "id", ""),
        ("client", "task", "attempt", 0),
        ("client", "task", "attempt", (1 << 53) + 1),
        ("client", "task", "attempt", True),
        ("client", "task", "kind", "exec"),
        ("client", "task", "segments", []),
        ("client", "task", "segments", [[1, None]] * (MAX_SEGMENTS + 1)),
        ("client", "task", "segments", [[-1, None]]),
        ("client", "task", "segments", [[MAX_SEGMENT + 1, None]]),
        ("client", "task", "segments", [[1.0, None]]),
        ("client", "task", "segments", [["1", None]]),
        ("client", "task", "segments", [[True, None]]),
        ("client", "task", "segments", [[1, "x" * (MAX_REF + 1)]]),
        ("client", "task", "segments", [[1, 2]]),
        ("client", "task", "segments", [[1]]),
        ("client", "task", "segments", [[1, None, None]]),
        ("client", "task", "segments", {"0": 3}),
        ("client", "task", "coming", [[]]),
        ("client", "task", "coming", [{}]),
        ("client", "task", "coming", ["x"] * (MAX_SEGMENTS + 1)),
        ("client", "task", "label", "x" * 201),
        ("client", "task", "reply", "pickle"),
        ("client", "chunk", "size", MAX_SEGMENT + 1),
        ("client", "chunk", "size", 0),
        ("client", "chunk", "off", -1),
        ("worker", "result", "seconds", 10**400),
        ("worker", "result", "seconds", float("inf")),
        ("worker", "result", "seconds", float("nan")),
        ("worker", "result", "seconds", -0.001),
        ("worker", "result", "seconds", "fast"),
        ("worker", "result", "seconds", True),
        ("worker", "result", "codec", "x" * 201),
        ("worker", "result", "segments", [[1, None]] * (MAX_SEGMENTS + 1)),
        ("worker", "want", "refs", ["r"] * (MAX_REFS + 1)),
        ("worker", "want", "refs", ["x" * (MAX_REF + 1)]),
        ("worker", "evicted", "refs", {"a": 1}),
        ("worker", "room", "free", 0),
        ("worker", "room", "free", 4097),
        ("worker", "lost", "detail", "x" * ((16 << 10) + 1)),
        ("worker", "output", "kind", "execute_request"),
        ("worker", "output", "name", "stdin"),
        ("worker", "output", "more", 1),
    ],
)
def test_a_value_just_over_its_bound_is_refused(sender: Sender, kind: str, name: str, least_wrong: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        FRAMES[sender][kind].read({**GOOD[sender, kind], name: least_wrong})


ERROR = {"kind": "exception", "class": "builtins.KeyError", "bases": ["builtins.object"], "message": "1"}


@pytest.mark.parametrize(
    "change",
    [
        {"ok": False},
        {"error": ERROR},
        {"ok": False, "error": None},
        {"ok": False, "error": "words"},
        {"ok": False, "error": {}},
        {"ok": False, "error": {**ERROR, "class": ["x"]}},
        {"ok": False, "error": {**ERROR, "bases": "no"}},
        {"ok": False, "error": {**ERROR, "bases": [3]}},
        {"ok": False, "error": {**ERROR, "bases": ["x"] * (MAX_SEGMENTS + 1)}},
        {"ok": False, "error": {**ERROR, "message": {"y": 1}}},
        {"ok": False, "error": {**ERROR, "traceback": 5}},
        {"ok": False, "error": {**ERROR, "name": ["n"]}},
    ],
)
def test_a_result_is_good_without_an_error_or_bad_with_one_in_words(change: Header) -> None:
    with pytest.raises(RemoteProtocolError):
        read_worker({**GOOD["worker", "result"], **change})


@pytest.mark.parametrize(("kind", "name"), [("stream", ""), ("display_data", "stdout"), ("clear_output", "stderr")])
def test_output_is_of_a_stream_with_its_name_or_of_none(kind: str, name: str) -> None:
    header: Header = {"t": "output", "id": "t", "attempt": 1, "kind": kind} | ({"name": name} if name else {})
    with pytest.raises(RemoteProtocolError):
        read_worker(header)


def test_a_nack_for_a_reason_of_a_later_version_is_a_nack() -> None:
    assert read_worker({**GOOD["worker", "nack"], "reason": "asleep"}) == Nack("t", 1, "asleep")


def test_whole_numbers_and_texts_have_both_their_bounds() -> None:
    assert whole(1, 3).read(1) == 1
    assert whole(1, 3).read(3) == 3
    assert text(3, 1).read("abc") == "abc"
    for rule, value in ((whole(1, 3), 0), (whole(1, 3), 4), (text(3, 1), ""), (text(3, 1), "abcd"), (text(3), b"a")):
        with pytest.raises(ValueError):
            rule.read(value)


def test_refs_beyond_what_a_frame_may_have_go_in_several() -> None:
    refs = tuple(map(str, range(2 * MAX_REFS + 1)))
    assert [len(batch) for batch in batches(refs)] == [MAX_REFS, MAX_REFS, 1]
    assert tuple(ref for batch in batches(refs) for ref in batch) == refs


# --- a result's large segments ----------------------------------------------------------------------------------------


def chunk(ref: str = "r0", size: int = 10, offset: int = 0) -> ResultChunk:
    return ResultChunk("t", 1, ref, size, offset)


def result(*segments: tuple[int, str | None]) -> Result:
    return Result("t", 1, True, segments)


def test_a_result_whose_segments_have_come_is_taken() -> None:
    parts = ResultParts()
    parts.chunk(chunk(), 4)
    parts.chunk(chunk(offset=4), 6)
    parts.result(result((3, None), (10, "r0"), (0, None), (10, "r0")), 3)
    ResultParts().result(result((1, None)), 1)


@pytest.mark.parametrize(
    ("first", "second", "size"),
    [
        pytest.param(None, chunk(offset=1), 1, id="begins late"),
        pytest.param(chunk(), chunk(offset=5), 1, id="leaves a gap"),
        pytest.param(chunk(), chunk(), 1, id="comes twice"),
        pytest.param(chunk(), chunk(size=11, offset=4), 1, id="of another size"),
        pytest.param(chunk(), chunk(offset=4), 7, id="longer than announced"),
        pytest.param(chunk(), chunk(offset=4), 0, id="empty"),
    ],
)
def test_a_chunk_out_of_turn_is_refused(first: ResultChunk | None, second: ResultChunk, size: int) -> None:
    parts = ResultParts()
    if first is not None:
        parts.chunk(first, 4)
    with pytest.raises(RemoteProtocolError):
        parts.chunk(second, size)


@pytest.mark.parametrize(
    ("segments", "body"),
    [(((10, "r0"),), 0), (((4, "r1"),), 0), (((3, None),), 2), (((3, None),), 4), (((9, "no"),), 0)],
)
def test_a_result_whose_segments_have_not_come_is_refused(segments: Any, body: int) -> None:
    parts = ResultParts()
    parts.chunk(chunk(), 4)
    with pytest.raises(RemoteProtocolError):
        parts.result(result(*segments), body)


def test_no_more_segments_are_kept_in_mind_than_a_result_may_have() -> None:
    parts = ResultParts()
    for number in range(MAX_SEGMENTS):
        parts.chunk(chunk(f"r{number}", 1), 1)
    with pytest.raises(RemoteProtocolError):
        parts.chunk(chunk("one more", 1), 1)


# --- PROTOCOL.md says the same ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["client", "worker"])
def test_the_page_has_the_kinds_fields_types_and_bounds_of_the_code(sender: Sender) -> None:
    page = {
        kind: {name: (one.type, one.optional) for name, one in known.items()}
        for kind, known in fields_of(sender).items()
        if not kind.startswith("link.")
    }
    code = {
        kind: {one.name: (one.rule.says, one.default is not REQUIRED) for one in frame_class.table()}
        for kind, frame_class in FRAMES[sender].items()
    }
    assert page == code
