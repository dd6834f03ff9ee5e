"""Who is here: who says hello, until he says good-bye or is silent."""

from __future__ import annotations

from people import NOW, certificate

from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.membership_machine import FRESH
from p2p_ipython.protocol.messages import Bye, Hello, Message, Request, Terms
from p2p_ipython.protocol.presence import MAX_SESSIONS, Presence, Seen

ALICE = certificate("alice", "client")
WORKER = certificate("w0")
TERMS = Terms(slots=2, free=2, python="3.11")


def hello(offer: Terms | None = None, *, said: float = NOW) -> Hello:
    return Hello("alice", int(said), offer)


def here(*certificates: Certificate, now: float = 0) -> Presence:
    """These sessions have said hello."""
    made = Presence(every=10)
    for one in certificates:
        assert made.heard(one, hello(), one.signer, now, NOW)
    return made


def test_who_says_hello_is_here_with_what_he_says() -> None:
    presence = Presence(every=10)
    assert presence.heard(WORKER, hello(TERMS), "bob (w0)", 5, NOW)
    assert presence.sessions == {WORKER.sid: Seen(WORKER, "bob (w0)", "worker", since=NOW, heard=5, offer=TERMS)}


def test_clients_and_hosts_are_here_too() -> None:
    presence = here(ALICE, certificate("h", "host"))
    assert [seen.role for seen in presence.sessions.values()] == ["client", "host"]


def test_saying_the_same_again_changes_nothing_that_people_see() -> None:
    presence = here(ALICE)
    assert not presence.heard(ALICE, hello(), ALICE.signer, 9, NOW + 9)
    seen = presence.sessions[ALICE.sid]
    assert (seen.since, seen.heard) == (NOW, 9)


def test_another_name_or_another_offer_is_seen() -> None:
    presence = here(WORKER)
    assert presence.heard(WORKER, hello(), "another", 1, NOW)
    assert presence.heard(WORKER, hello(TERMS), "another", 2, NOW)
    assert presence.sessions[WORKER.sid].offer == TERMS


def test_who_says_good_bye_has_gone() -> None:
    presence = here(ALICE)
    assert presence.heard(ALICE, Bye(), "", 1, NOW)
    assert not presence.sessions
    assert not presence.heard(ALICE, Bye(), "", 1, NOW)


def test_who_is_silent_for_three_times_the_usual_has_gone() -> None:
    presence = here(ALICE, WORKER)
    assert not presence.heard(WORKER, Request(), "", 20, NOW)  # any word will do
    assert presence.tick(29.9) == []
    assert presence.tick(30) == [ALICE.sid]
    assert list(presence.sessions) == [WORKER.sid]
    assert presence.tick(50) == [WORKER.sid]


def test_a_recorded_hello_of_a_session_that_has_ended_brings_nobody_back() -> None:
    presence = Presence(every=10)
    assert not presence.heard(ALICE, hello(said=NOW - FRESH - 1), "alice", 0, NOW)
    assert not presence.heard(ALICE, hello(said=NOW + FRESH + 1), "alice", 0, NOW)
    assert not presence.sessions


def test_a_word_other_than_hello_brings_nobody_in() -> None:
    presence = Presence(every=10)
    messages: list[Message] = [Request(), Bye()]
    assert not any(presence.heard(ALICE, message, "alice", 0, NOW) for message in messages)
    assert not presence.sessions


def test_no_more_sessions_are_kept_than_the_limit_and_the_one_heard_longest_ago_goes() -> None:
    presence = Presence(every=10)
    many = [
        Certificate("c", number.to_bytes(16, "big"), b"", b"", "client", NOW, "SHA256:x", b"")
        for number in range(MAX_SESSIONS + 1)
    ]
    for one in many[:-1]:
        presence.heard(one, hello(), "x", 0, NOW)
    presence.heard(many[0], Request(), "x", 1, NOW)
    assert presence.heard(many[-1], hello(), "x", 1, NOW)
    assert len(presence.sessions) == MAX_SESSIONS
    assert presence.tick(1) == [many[1].sid]
    assert presence.tick(1) == []


def test_a_member_with_many_sessions_pushes_out_their_own() -> None:
    presence = here(ALICE, WORKER)
    for number in range(MAX_SESSIONS + 10):
        one = Certificate("c", number.to_bytes(16, "big"), b"", b"", "client", NOW, "SHA256:x", b"")
        presence.heard(one, hello(), "x", 1, NOW)
    assert len(presence.sessions) == MAX_SESSIONS
    assert {ALICE.sid, WORKER.sid} <= presence.sessions.keys()
