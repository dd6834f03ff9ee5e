"""Clocks that are apart are noticed by what members say, and not by what anybody can repeat."""

from __future__ import annotations

from dataclasses import replace

import pytest
from people import CLUSTER, NOW, certificate, reader, session, stream

from p2p_ipython.protocol.clocks import MAX_SESSIONS, Clocks
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Hello
from p2p_ipython.protocol.wire import LineWriter

BOB = certificate("bob")


@pytest.mark.parametrize("members", [None, {BOB.signer}, {certificate("carol").signer}])
def test_a_member_whose_clock_is_ahead_is_not_heard_and_named(members: set[str] | None) -> None:
    ears, seen = reader(members=members), list[Certificate]()
    ears.from_the_future = seen.append
    late = LineWriter(session("bob", now=NOW + 900), CLUSTER, stream("n"))
    assert ears.read(late.write(Hello("bob", int(NOW + 900)), introduce=True), NOW) is None
    assert [one.signer for one in seen] == ([] if members == {certificate("carol").signer} else [BOB.signer])
    clocks = Clocks()
    for one in seen:
        clocks.shown(one, NOW)
        assert clocks.apart == (BOB.signer, 900)


def test_a_certificate_that_lives_for_years_says_nothing_about_clocks() -> None:
    clocks = Clocks()
    clocks.shown(replace(BOB, until=NOW + 1e8), NOW)
    assert clocks.apart is None


def test_a_member_whose_clock_is_behind_is_named_at_the_second_hello() -> None:
    clocks = Clocks()
    clocks.said(BOB, int(NOW - 900), NOW)
    assert clocks.apart is None
    clocks.said(BOB, int(NOW - 870), NOW + 30)
    assert clocks.apart == (BOB.signer, -900)
    clocks.said(certificate("carol"), int(NOW + 31), NOW + 31)
    assert clocks.apart is None, "somebody's clock agrees with ours"


def test_old_hellos_that_are_repeated_say_nothing_about_clocks() -> None:
    clocks = Clocks()
    for said in (NOW - 9000, NOW - 9000, NOW - 8000, NOW - 900):
        clocks.said(BOB, int(said), NOW)
    assert clocks.apart is None


def test_sessions_with_late_hellos_take_bounded_memory() -> None:
    clocks = Clocks()
    for number in range(2 * MAX_SESSIONS):
        clocks.said(replace(BOB, sid=number.to_bytes(16, "big")), int(NOW - 900), NOW)
    assert len(clocks._late) == MAX_SESSIONS
