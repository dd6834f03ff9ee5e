"""The pure part of a link: what is kept and sent again, when to probe, cut and give up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.link.base import HIGH_WATER, LOW_WATER, WINDOW
from p2p_ipython.link.session import (
    ACK_BYTES,
    REFUSED_GRACE,
    Frame,
    Inbox,
    Liveness,
    Outbox,
    Patience,
    Refusals,
    Tick,
)


def frame(number: int, *, bulk: bool = False, size: int = 10) -> Frame:
    return Frame(str(number).encode(), b"", size, bulk)


def taken(outbox: Outbox, *, bulk: bool = False) -> str | None:
    got = outbox.take(bulk=bulk)
    return None if got is None else got.head.decode()


def test_frames_that_the_peer_has_not_got_are_sent_again_in_order_and_in_their_class() -> None:
    outbox = Outbox()
    for number, bulk in enumerate([False, True, False, True, False]):
        outbox.queue(frame(number, bulk=bulk))
    written = [taken(outbox), taken(outbox, bulk=True), taken(outbox), taken(outbox, bulk=True)]
    assert written == ["0", "1", "2", "3"]
    outbox.rewind(1)
    assert outbox.written == 1
    assert outbox.pending == 40
    assert [taken(outbox), taken(outbox), taken(outbox)] == ["2", "4", None]
    assert [taken(outbox, bulk=True), taken(outbox, bulk=True), taken(outbox, bulk=True)] == ["1", "3", None]


def test_acknowledged_frames_are_let_go() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.queue(frame(number))
        outbox.take(bulk=False)
    outbox.acknowledge(2)
    assert (outbox.unacknowledged, outbox.written) == (1, 3)
    outbox.acknowledge(2)
    outbox.acknowledge(3)
    assert outbox.unacknowledged == 0


@pytest.mark.parametrize("count", [-1, 1, 4])
def test_a_count_that_cannot_be_true_is_a_protocol_error(count: int) -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.queue(frame(number))
        outbox.take(bulk=False)
    outbox.acknowledge(2)
    with pytest.raises(RemoteProtocolError):
        outbox.acknowledge(count)
    with pytest.raises(RemoteProtocolError):
        outbox.rewind(count)


def test_drained_is_said_once_after_the_high_mark_and_again_after_the_next_one() -> None:
    outbox = Outbox()
    outbox.queue(frame(0, size=HIGH_WATER))
    assert not outbox.drained()
    outbox.queue(frame(1, size=LOW_WATER))
    assert not outbox.drained()
    outbox.take(bulk=False)
    assert [outbox.drained(), outbox.drained()] == [True, False]
    outbox.rewind(0)
    outbox.take(bulk=False)
    assert outbox.drained()
    outbox.clear()
    assert (outbox.pending, outbox.take(bulk=False), outbox.drained()) == (0, None, False)


Step = st.one_of(
    st.tuples(st.just("queue"), st.booleans()),
    st.tuples(st.just("write"), st.booleans()),
    st.tuples(st.just("deliver"), st.integers(1, 5)),
    st.tuples(st.just("ack"), st.none()),
    st.tuples(st.just("cut"), st.integers(0, 5)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(Step, max_size=80))
def test_over_any_cuts_each_frame_is_delivered_once_and_in_the_order_of_its_class(steps: list[tuple[str, int]]) -> None:
    outbox, inbox = Outbox(), Inbox()
    wire: list[Frame] = []
    delivered: list[Frame] = []
    queued = 0

    def deliver(count: int) -> None:
        for got in wire[:count]:
            inbox.receive(got.size)
            delivered.append(got)
        del wire[:count]

    for what, value in [*steps, ("cut", 0)]:
        match what:
            case "queue":
                outbox.queue(frame(queued, bulk=bool(value)))
                queued += 1
            case "write":
                got = outbox.take(bulk=bool(value))
                wire += [got] if got else []
            case "deliver":
                deliver(value)
            case "ack":
                outbox.acknowledge(inbox.tell())
            case "cut":
                deliver(value)  # what was on its way may still arrive
                wire.clear()
                outbox.rewind(inbox.tell())
        assert outbox.written == inbox.received + len(wire)
        assert outbox.pending == sum(one.size for one in [*outbox.small, *outbox.bulk])
    for bulk in (False, True):
        while (got := outbox.take(bulk=bulk)) is not None:
            wire.append(got)
    deliver(len(wire))
    numbers = [int(got.head) for got in delivered]
    assert sorted(numbers) == list(range(queued))
    for bulk in (False, True):
        ordered = [int(got.head) for got in delivered if got.bulk is bulk]
        assert ordered == sorted(ordered)


def test_an_acknowledgement_is_due_after_so_many_bytes() -> None:
    inbox = Inbox()
    assert not inbox.owes
    assert not inbox.receive(ACK_BYTES - 1)
    assert inbox.owes
    assert inbox.receive(1)
    assert inbox.tell() == 2
    assert not inbox.owes
    assert not inbox.receive(1)


def live(now: float = 0) -> Liveness:
    liveness = Liveness(heartbeat=5, lease=30, now=now)
    liveness.connected(now)
    return liveness


def test_an_idle_link_is_probed_each_heartbeat_and_cut_after_three_without_an_answer() -> None:
    liveness = live()
    seen = []
    for _ in range(4):
        now = liveness.next_tick()
        seen.append((now, liveness.tick(now)))
    assert seen == [(0, Tick.PROBE), (5, Tick.PROBE), (10, Tick.PROBE), (15, Tick.CUT)]


def test_whatever_is_heard_keeps_a_connection_alive() -> None:
    liveness = live()
    for now in range(0, 100, 5):
        liveness.heard(now - 1)
        assert liveness.tick(now) is Tick.PROBE


def test_the_lease_begins_with_the_cut() -> None:
    liveness = live()
    liveness.cut(100)
    assert liveness.next_tick() == 130
    assert liveness.tick(129.9) is Tick.NOTHING
    assert liveness.tick(130) is Tick.LOSE
    liveness.connected(131)
    assert liveness.tick(131) is Tick.PROBE


def test_a_machine_that_was_asleep_gives_its_peer_time_for_an_answer() -> None:
    liveness = live()
    assert liveness.tick(0) is Tick.PROBE
    assert liveness.tick(1000) is Tick.PROBE
    assert liveness.next_tick() == 1005
    assert liveness.tick(1005) is Tick.CUT


def test_a_suspected_connection_has_one_heartbeat_to_answer() -> None:
    liveness = live()
    liveness.tick(0)
    liveness.suspect(2)
    assert liveness.tick(2) is Tick.PROBE
    assert liveness.tick(7) is Tick.CUT
    answering = live()
    answering.suspect(2)
    answering.heard(3)
    assert answering.tick(7) is Tick.PROBE


def test_a_round_trip_is_measured_from_its_own_probe_and_other_answers_are_ignored() -> None:
    liveness = live()
    assert liveness.rtt is None
    first, second = liveness.probe(1.0), liveness.probe(2.0)
    liveness.answered(99, 2.1)
    liveness.answered(-1, 2.1)
    assert liveness.rtt is None
    liveness.answered(second, 2.25)
    assert liveness.rtt == 0.25
    liveness.answered(second, 9)
    assert liveness.rtt == 0.25
    liveness.answered(first, 2.5)
    assert liveness.rtt == 1.5


def test_probes_without_answers_are_not_remembered_for_ever() -> None:
    liveness = live()
    first = liveness.probe(0)
    for number in range(100):
        liveness.probe(number)
    liveness.answered(first, 1000)
    assert liveness.rtt is None


def test_a_peer_is_gone_when_all_its_addresses_refuse_for_a_while() -> None:
    refusals = Refusals(["a", "b"])
    assert not refusals.refused("a", 0)
    assert not refusals.refused("a", 100)
    assert not refusals.refused("b", 100)
    assert not refusals.refused("a", 100 + REFUSED_GRACE / 2)
    assert refusals.refused("a", 100 + REFUSED_GRACE)


def test_only_addresses_that_have_answered_decide_once_there_are_some() -> None:
    refusals = Refusals(["a", "b"])
    refusals.answered("a")
    assert not refusals.refused("a", 0)
    refusals.silent("b")
    assert refusals.refused("a", REFUSED_GRACE)


def test_silence_is_not_refusal() -> None:
    refusals = Refusals(["a"])
    assert not refusals.refused("a", 0)
    refusals.silent("a")
    assert not refusals.refused("a", REFUSED_GRACE)
    refusals.reset()
    assert not refusals.refused("a", 2 * REFUSED_GRACE)
    assert refusals.refused("a", 3 * REFUSED_GRACE)


def test_frames_that_wait_for_a_peer_that_does_not_read_are_bounded_at_a_worker() -> None:
    bounded, free = Outbox(100), Outbox(math.inf)
    for outbox in (bounded, free):
        outbox.queue(frame(0, size=1 << 40, bulk=True))
        for number in range(10):
            outbox.queue(frame(number, size=10))
        assert outbox.excess == ""
        outbox.queue(frame(10, size=10))
    assert "read" in bounded.excess
    assert free.excess == ""
    bounded.take(bulk=False)
    assert bounded.excess == ""
    bounded.rewind(0)
    assert bounded.excess
    bounded.clear()
    assert bounded.excess == ""


def test_frames_kept_for_a_peer_that_acknowledges_nothing_are_bounded() -> None:
    outbox = Outbox()
    for number in range(4):
        outbox.queue(frame(number, size=WINDOW // 2, bulk=number != 2))
    assert [taken(outbox, bulk=True), taken(outbox, bulk=True)] == ["0", "1"]
    assert not outbox.is_open
    assert [taken(outbox, bulk=True), taken(outbox)] == [None, None]
    outbox.acknowledge(1)
    assert taken(outbox) == "2"
    outbox.rewind(1)
    assert [taken(outbox), taken(outbox, bulk=True), taken(outbox, bulk=True)] == ["2", "1", None]


def test_the_smallest_frames_that_wait_are_bounded_in_number_too() -> None:
    outbox = Outbox()
    count = 0
    while not outbox.excess:
        outbox.queue(Frame.of({"t": "pass"}, b"", bulk=False))
        count += 1
    assert count < 130_000


def test_a_peer_that_takes_nothing_is_told_from_one_that_is_slow() -> None:
    outbox, patience = Outbox(), Patience()
    looks = iter(range(0, 100_000, 5))

    def look(unsent: int = 0) -> bool:
        return patience.ends(outbox, unsent, next(looks))

    assert not any(look() for _ in range(100)), "nothing waits for it"
    outbox.queue(frame(0))
    outbox.queue(frame(1))
    assert not any(look(1000 - number) for number in range(100)), "it takes bytes"
    outbox.take(bulk=False)
    assert not any(look(1000) for _ in range(12)), "it has taken a frame"
    outbox.acknowledge(1)
    assert not any(look(1000) for _ in range(12)), "it has said so"
    assert look(1000)
    for _ in range(10):
        next(looks)
    assert not look(1000), "this end was away: the peer gets its time"


def test_a_peer_that_reads_and_never_says_so_takes_nothing() -> None:
    outbox, patience = Outbox(), Patience()
    outbox.queue(frame(0))
    outbox.take(bulk=False)
    ends = [patience.ends(outbox, 0, now) for now in range(0, 65, 5)]
    assert ends == [False] * 12 + [True]
