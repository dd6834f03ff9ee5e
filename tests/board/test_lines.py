"""Cutting a stream into lines, and seeing our own lines through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.board.base import MAX_LINE
from p2p_ipython.board.lines import (
    ECHO_WITHIN,
    GIVE_UP_AFTER,
    IN_FLIGHT,
    MAX_WAITING,
    REMEMBER,
    RESEND_AFTER,
    Backoff,
    LineReader,
    Outbox,
    frame,
    ordinal,
)


def fed(reader: LineReader, *chunks: bytes) -> list[bytes]:
    return [line for chunk in chunks for line in reader.feed(chunk)]


@given(st.lists(st.binary(min_size=1, max_size=20).filter(lambda b: b"\n" not in b)), st.data())
def test_lines_come_out_whole_however_the_stream_is_cut(lines, data):
    stream = b"".join(frame(line) for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(LineReader(), *chunks) == lines


def test_a_line_that_another_has_cut_is_garbage_and_the_next_is_whole():
    assert fed(LineReader(), b"\nhalf a li", frame(b"whole"), b"ne\n", frame(b"next")) == [
        b"half a li",
        b"whole",
        b"ne",
        b"next",
    ]


def test_attack_a_line_without_an_end_is_skipped_and_fills_nothing():
    reader = LineReader()
    for _ in range(1000):
        assert reader.feed(b"x" * 1000) == []
        assert len(reader._rest) <= MAX_LINE
    assert fed(reader, b"x\n", frame(b"next")) == [b"next"]


def test_the_longest_line_passes_and_one_byte_more_does_not():
    longest = b"x" * MAX_LINE
    assert fed(LineReader(), frame(longest), frame(longest + b"x"), b"\n" + longest[:9], longest[9:] + b"\n") == [
        longest,
        longest,
    ]


def connected() -> Outbox:
    outbox = Outbox()
    outbox.connected()
    return outbox


def test_a_line_is_written_at_once_and_done_with_its_echo():
    outbox = connected()
    outbox.post(b"a", now=0)
    assert outbox.due(now=0) == [b"a"]
    assert outbox.due(now=1) == []
    assert outbox.is_ours(b"a", now=1)
    assert outbox.next_due() is None
    assert outbox.due(now=RESEND_AFTER) == []


def test_a_line_without_an_echo_is_written_again_until_it_is_given_up():
    outbox = connected()
    outbox.post(b"a", now=0)
    written = []
    now: float | None = 0.0
    while now is not None:
        written += [now for _ in outbox.due(now)]
        now = outbox.next_due()
    assert written == [RESEND_AFTER * n for n in range(int(GIVE_UP_AFTER / RESEND_AFTER))]
    assert outbox.waiting == 0


def test_what_is_posted_while_disconnected_is_written_on_connecting_and_unechoed_lines_again():
    outbox = connected()
    outbox.post(b"a", now=0)
    outbox.due(now=0)
    outbox.disconnected()
    outbox.post(b"b", now=1)
    assert outbox.due(now=1) == []
    assert outbox.next_due() == GIVE_UP_AFTER
    outbox.connected()
    assert outbox.due(now=2) == [b"a", b"b"]


def test_late_echoes_of_what_was_written_twice_are_still_ours():
    outbox = connected()
    outbox.post(b"a", now=0)
    assert outbox.is_ours(b"a", now=4)
    assert outbox.is_ours(b"a", now=4 + REMEMBER)
    assert not outbox.is_ours(b"a", now=5 + REMEMBER)


def test_what_others_write_is_not_ours():
    assert not connected().is_ours(b"a", now=0)


def test_the_same_line_can_be_posted_again():
    outbox = connected()
    outbox.post(b"a", now=0)
    outbox.is_ours(b"a", now=0)
    outbox.post(b"a", now=1)
    assert outbox.due(now=1) == [b"a"]


def test_bytes_in_flight_are_bounded_and_an_echo_makes_room():
    outbox = connected()
    lines = [b"%04d" % n + b"x" * 996 for n in range(100)]
    for line in lines:
        outbox.post(line, now=0)
    first = outbox.due(now=0)
    assert first == lines[: len(first)]
    assert IN_FLIGHT - 1002 < sum(len(frame(line)) for line in first) <= IN_FLIGHT
    outbox.is_ours(lines[0], now=0)
    assert outbox.due(now=0) == [lines[len(first)]]


def until_stalled(outbox: Outbox, end: float) -> float | None:
    """Do what the outbox wants when it wants it; when does it say that the board is stalled, before ``end``?"""
    now = outbox.next_due()
    while now is not None and now < end:
        outbox.due(now)
        if outbox.stalled:
            return now
        now = outbox.next_due()
    return None


def test_a_board_that_gives_nothing_back_counts_as_stalled_after_a_while_and_until_it_does():
    outbox = connected()
    outbox.post(b"a", now=0)
    outbox.post(b"b", now=0)
    outbox.due(now=0)
    assert until_stalled(outbox, end=20) == ECHO_WITHIN
    outbox.is_ours(b"a", now=9)
    assert not outbox.stalled
    assert until_stalled(outbox, end=20) == 9 + ECHO_WITHIN
    outbox.is_ours(b"b", now=15)
    assert not outbox.stalled
    assert outbox.next_due() is None


def test_a_stall_outlasts_the_lines_that_were_given_up_but_not_the_connection():
    outbox = connected()
    outbox.post(b"a", now=0)
    outbox.due(now=0)
    assert outbox.due(now=GIVE_UP_AFTER) == []
    assert outbox.stalled
    assert outbox.next_due() is None
    outbox.disconnected()
    outbox.connected()
    assert not outbox.stalled


def test_silence_is_no_stall_while_nothing_of_ours_is_on_its_way():
    outbox = connected()
    outbox.post(b"a", now=0)
    outbox.due(now=0)
    outbox.is_ours(b"a", now=1)
    outbox.due(now=100)
    assert not outbox.stalled
    outbox.post(b"b", now=100)
    outbox.due(now=100)
    assert until_stalled(outbox, end=200) == 100 + ECHO_WITHIN


def test_nothing_counts_as_stalled_that_could_not_be_written():
    outbox = Outbox()
    outbox.post(b"a", now=0)
    outbox.due(now=20)
    assert not outbox.stalled


def test_attack_a_board_that_never_echoes_fills_no_memory():
    outbox = connected()
    for number in range(2 * MAX_WAITING):
        outbox.post(b"%d" % number, now=0)
    assert outbox.waiting == MAX_WAITING


def test_back_off_doubles_within_bounds_and_begins_anew():
    backoff = Backoff(chance=lambda: 1.0)
    assert [backoff.next() for _ in range(10)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]
    backoff.reset()
    assert backoff.next() == 0.2
    assert Backoff(chance=lambda: 0.0).next() == 0.1


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (21, "21st")]
)
def test_tries_are_counted_in_words(number, text):
    assert ordinal(number) == text
