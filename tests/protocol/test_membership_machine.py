"""How one process keeps up with its cluster: each rule of the machine, in virtual time."""

from __future__ import annotations

import itertools

import pytest
from friends import CLUSTER_ID, UNTIL, certificate, machine, print_of, roster, secret, session
from people import NOW

from p2p_ipython.protocol import membership_machine as mm
from p2p_ipython.protocol.identity import ClusterSecret, Session, seal
from p2p_ipython.protocol.membership_machine import (
    ALONE_AFTER,
    ASK_EVERY,
    FRESH,
    HELLO_EVERY,
    HOST_SILENCE,
    HOST_WITHIN,
    LOBBY_EVERY,
    SERVE_EVERY,
    Action,
    Expelled,
    Installed,
    MembershipMachine,
    Move,
    Say,
    SayHello,
    VisitLobby,
)
from p2p_ipython.protocol.messages import Admission, Ask, Bye, Grant, Hello, Message, Request, encode_admission
from p2p_ipython.protocol.roster import Roster, parts_of

HOST = certificate("alice", "host")
CAROL = certificate("carol")
BOB = session("bob")


def hello(epoch: int, time: float = NOW) -> Hello:
    return Hello("somebody", int(time), epoch=epoch)


def grant(epoch: int, key: int = 2, *, to: Session = BOB, cluster: str = CLUSTER_ID) -> Grant:
    chosen = secret(key)
    box = seal(to.certificate, encode_admission(Admission(cluster, chosen.topic, chosen.key)))
    return Grant(to.sid, epoch, box)


def hears(
    bob: MembershipMachine, message: Message, now: float = 0.0, *, by: str = "carol", role: str = "worker"
) -> list[Action]:
    """Bob hears somebody, admitted or not as Bob's machine has it."""
    speaker = certificate(by, role)
    return bob.heard(speaker, message, now, NOW + now, admitted=bob.admits(speaker, NOW + now))


def hears_roster(bob: MembershipMachine, known: Roster, now: float = 0.0, *, by: str = "carol") -> list[Action]:
    return [action for part in parts_of(known) for action in hears(bob, part, now, by=by)]


def run(bob: MembershipMachine, until: float, *, now: float = 0.0) -> list[tuple[float, Action]]:
    """Let time pass, exactly from deadline to deadline."""
    told = []
    while (due := bob.deadline()) is not None and due <= until:
        now = max(now, due)
        actions = bob.tick(now, NOW + now)
        told += [(now, action) for action in actions]
        later = bob.deadline()
        assert later is None or later > now, "a deadline that is over was not acted on"
    return told


def kinds(told: list[tuple[float, Action]]) -> list[type]:
    return [type(action) for _, action in told]


@pytest.fixture
def bob() -> MembershipMachine:
    """Bob, at epoch 3 with carol, just arrived, who heard the host a moment ago."""
    made = machine("bob", roster(3, "bob", "carol"))
    assert made.joined(0.0) == [SayHello()]
    return made


# --- who is a member --------------------------------------------------------------------------------


def test_members_of_the_roster_and_the_owners_host_are_admitted(bob: MembershipMachine) -> None:
    assert bob.admits(CAROL, NOW)
    assert bob.admits(HOST, NOW)
    assert not bob.admits(certificate("mallory"), NOW)
    assert not bob.admits(certificate("carol", "host"), NOW), "a member is no host"
    assert bob.name_of(CAROL.signer) == "carol"
    assert bob.name_of(print_of("mallory")) == ""


def test_before_a_roster_has_come_the_owners_host_only_is_admitted() -> None:
    new = machine("bob", None)
    assert new.epoch == 0
    assert new.admits(HOST, NOW)
    assert not new.admits(certificate("alice"), NOW)
    assert "waiting for somebody" in new.trouble(NOW)


def test_when_the_roster_has_ended_the_owners_host_only_is_admitted(bob: MembershipMachine) -> None:
    assert bob.trouble(UNTIL) == ""
    assert not bob.admits(CAROL, UNTIL + 1)
    assert bob.admits(HOST, UNTIL + 1)
    assert "has ended; waiting for alice" in bob.trouble(UNTIL + 1)


def test_in_a_personal_cluster_the_key_is_all_and_nothing_is_kept_up_with() -> None:
    made = MembershipMachine(
        secret=ClusterSecret(f"{print_of('bob')}/home", "p2p-topic", bytes(32)),
        me=print_of("bob"),
        name="bob",
        shared=False,
        unseal=BOB.unseal,
        random=lambda: 0.5,
    )
    assert made.joined(0.0) == [SayHello()]
    assert made.admits(BOB.certificate, NOW)
    assert not made.admits(CAROL, NOW)
    assert not made.admits(certificate("bob", "host"), NOW)
    for message in (hello(7), Request(), parts_of(roster(9))[0], grant(9)):
        assert made.heard(HOST, message, 1.0, NOW, admitted=False) == []
    assert made.deadline() is None
    assert made.trouble(NOW) == ""


# --- handing a roster on ----------------------------------------------------------------------------


def test_who_says_hello_with_an_older_roster_is_given_ours_after_a_pause(bob: MembershipMachine) -> None:
    assert hears(bob, hello(2), 1.0) == []
    told = run(bob, 2.0, now=1.0)
    assert [action for _, action in told] == [Say(part) for part in parts_of(roster(3, "bob", "carol"))]


def test_a_stranger_who_says_hello_with_an_older_roster_is_told_too(bob: MembershipMachine) -> None:
    """The sender may have been revoked, and must hear it; holders of the cluster's key may have the roster."""
    hears(bob, hello(2), 1.0, by="mallory")
    assert Say in kinds(run(bob, 2.0))


def test_when_somebody_else_was_quicker_the_roster_is_not_said_again(bob: MembershipMachine) -> None:
    hears(bob, hello(2), 1.0)
    hears_roster(bob, roster(3, "bob", "carol"), 1.01)
    assert run(bob, 4.0) == []


@pytest.mark.parametrize("by", ["carol", "mallory"])
def test_nobody_keeps_us_from_handing_the_roster_on_by_saying_that_he_does(bob: MembershipMachine, by: str) -> None:
    hears(bob, hello(2), 1.0)
    (first, *_) = parts_of(roster(3, "bob", "carol") if by == "mallory" else roster(3, "bob", "mallory"))
    hears(bob, first, 1.01, by=by)
    assert Say in kinds(run(bob, 2.0))


def test_a_roster_is_not_handed_on_more_often_than_every_few_seconds(bob: MembershipMachine) -> None:
    times = []
    now = 0.0
    while now < 60:
        hears(bob, hello(2), now)
        times += [at for at, action in run(bob, now + 0.1, now=now) if isinstance(action, Say)]
        now += 0.1
    assert 60 / (SERVE_EVERY[0] + 0.5) - 2 < len(times) <= 60 / SERVE_EVERY[0] + 1


# --- taking a roster --------------------------------------------------------------------------------


def test_who_hears_of_a_higher_epoch_says_hello_so_that_he_is_told(bob: MembershipMachine) -> None:
    for by in ("carol", "mallory", "alice"):
        fresh = machine("bob", roster(3, "bob", "carol"))
        fresh.joined(0.0)
        hears(fresh, hello(4), 2.0, by=by)
        assert kinds(run(fresh, 4.0, now=2.0)) == [SayHello], by


def test_boasts_of_high_epochs_make_us_say_less_and_less(bob: MembershipMachine) -> None:
    told, now = 0, 0.0
    while now < 600:
        hears(bob, hello(1 << 53), now, by="mallory")
        told += kinds(run(bob, now + 0.25, now=now)).count(SayHello)
        now += 0.25
    assert told <= 600 / HELLO_EVERY[1] + 7


def test_the_owners_roster_is_installed_whoever_says_it(bob: MembershipMachine) -> None:
    newer = roster(5, "bob", "carol", "dora")
    assert hears_roster(bob, newer, 1.0, by="mallory") == [Installed(newer)]
    assert bob.epoch == 5
    assert bob.admits(certificate("dora"), NOW)
    told = run(bob, 2.0, now=1.0)
    assert kinds(told) == [SayHello], "who is new has to hear us"


def test_who_was_just_let_in_is_not_put_out_by_the_roster_of_somebody_who_was_away_then() -> None:
    bob = machine("bob", None)
    bob.joined(0.0)
    assert hears_roster(bob, roster(4, "carol"), 1.0) == []
    assert bob.expelled == ""
    assert "waiting for somebody" in bob.trouble(NOW)
    assert hears_roster(bob, roster(5, "bob", "carol"), 2.0) == [Installed(roster(5, "bob", "carol"))]
    assert Expelled in [type(action) for action in hears_roster(bob, roster(6, "carol"), 3.0)]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_an_older_roster_is_never_taken(bob: MembershipMachine, epoch: int) -> None:
    assert hears_roster(bob, roster(epoch, "bob", "mallory"), 1.0) == []
    assert bob.install(roster(epoch, "bob", "mallory"), 1.0) == []
    assert bob.epoch == 3
    assert not bob.admits(certificate("mallory"), NOW)


def test_a_roster_that_the_owner_has_not_signed_is_not_taken(bob: MembershipMachine) -> None:
    newer = roster(5, "bob", "mallory")
    for part in parts_of(newer):
        spoiled = part.data[:50] + bytes([part.data[50] ^ 1]) + part.data[51:]
        assert hears(bob, type(part)(part.epoch, part.part, part.parts, spoiled), 1.0) == []
    assert bob.epoch == 3


def test_a_roster_counts_by_the_epoch_that_is_signed_not_by_the_one_that_is_said(bob: MembershipMachine) -> None:
    for part in parts_of(roster(2, "bob", "mallory")):
        assert hears(bob, type(part)(9, part.part, part.parts, part.data), 1.0) == []
    assert bob.epoch == 3


def test_who_is_taken_out_is_told_and_says_no_more(bob: MembershipMachine) -> None:
    newer = roster(4, "carol", key=2)
    installed, expelled = hears_roster(bob, newer, 1.0)
    assert installed == Installed(newer)
    assert isinstance(expelled, Expelled)
    assert "alice has revoked your membership of alice/friends" in expelled.why == bob.trouble(NOW)
    assert hears(bob, hello(1), 2.0) == hears(bob, grant(5), 2.0, by="alice", role="host") == []
    assert bob.install(roster(9, "bob"), 3.0) == []
    assert run(bob, 10_000.0) == []


def test_who_starts_with_a_roster_that_he_is_not_in_asks_on_the_lobby_and_is_told_why() -> None:
    out = machine("bob", roster(3, "carol"))
    out.joined(0.0)
    hears(out, hello(3), 1.0, by="carol")
    assert "no longer in alice/friends" in out.trouble(NOW)
    assert VisitLobby in kinds(run(out, 2 * ALONE_AFTER))


# --- topic and key ----------------------------------------------------------------------------------


def test_who_lacks_the_rosters_key_asks_for_it_again_and_again_ever_less_often(bob: MembershipMachine) -> None:
    hears_roster(bob, roster(4, "bob", "carol", key=2), 1.0)
    assert bob.lacks_key()
    assert "waiting for alice's host" in bob.trouble(NOW)
    told = run(bob, 600.0, now=1.0)
    asked = [at for at, action in told if action == Say(Ask("bob", 4))]
    pauses = [round(later - earlier, 6) for earlier, later in itertools.pairwise(asked)]
    assert asked[0] <= 1.3
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == ASK_EVERY
    assert SayHello not in kinds(told), "here is nobody any more to hear it; hello is said where the others are"


def test_a_grant_of_the_host_is_followed_and_hello_said_there(bob: MembershipMachine) -> None:
    hears_roster(bob, roster(4, "bob", "carol", key=2), 1.0)
    assert hears(bob, grant(4), 1.5, by="alice", role="host") == [Move(secret(2))]
    assert bob.moved(secret(2), 2.0) == [SayHello()]
    assert not bob.lacks_key()
    assert bob.trouble(NOW) == ""
    assert Say not in kinds(run(bob, 30.0, now=2.0))


def test_a_grant_may_come_before_its_roster(bob: MembershipMachine) -> None:
    assert bob.granted(HOST, grant(4)) == [Move(secret(2))]
    bob.moved(secret(2), 1.0)
    assert not bob.lacks_key(), "ours is newer than the roster's"
    assert hears_roster(bob, roster(4, "bob", "carol", key=2), 2.0) == [Installed(roster(4, "bob", "carol", key=2))]
    assert not bob.lacks_key()


def test_a_grant_whose_key_is_not_the_rosters_leads_nowhere(bob: MembershipMachine) -> None:
    hears_roster(bob, roster(4, "bob", "carol", key=2), 1.0)
    assert hears(bob, grant(4, key=3), 1.5, by="alice", role="host") == []
    assert bob.lacks_key()


@pytest.mark.parametrize(("by", "role"), [("carol", "worker"), ("carol", "host"), ("alice", "worker")])
def test_a_grant_by_anybody_but_the_owners_host_is_not_followed(bob: MembershipMachine, by: str, role: str) -> None:
    hears_roster(bob, roster(4, "bob", "carol", key=2), 1.0)
    assert bob.heard(certificate(by, role), grant(4), 1.5, NOW, admitted=True) == []
    assert bob.granted(certificate(by, role), grant(9)) == []


def test_a_grant_for_somebody_else_or_of_another_cluster_or_of_nonsense_is_not_followed(bob: MembershipMachine) -> None:
    for wrong in (
        grant(4, to=session("carol")),
        grant(4, cluster=f"{print_of('alice')}/family"),
        Grant(BOB.sid, 4, seal(BOB.certificate, b"nonsense")),
        Grant(BOB.sid, 4, b"nonsense"),
    ):
        assert hears(bob, wrong, 1.5, by="alice", role="host") == []


def test_a_replayed_grant_does_not_lead_back_to_a_topic_that_the_cluster_has_left() -> None:
    """Bob got two grants before any roster: the later one counts, and the earlier one is said again on the lobby."""
    bob = machine("bob", roster(3, "bob", "carol"))
    bob.joined(0.0)
    assert bob.granted(HOST, grant(5, key=5)) == [Move(secret(5))]
    bob.moved(secret(5), 1.0)
    assert bob.granted(HOST, grant(4, key=4)) == []
    bob.install(roster(6, "bob", "carol", key=6), 2.0)
    assert bob.granted(HOST, grant(5, key=5)) == []
    assert bob.granted(HOST, grant(6, key=6)) == [Move(secret(6))]


def test_a_roster_that_comes_on_the_way_to_a_topic_counts_when_we_are_there(bob: MembershipMachine) -> None:
    hears_roster(bob, roster(4, "bob", "carol", key=2), 1.0)
    assert hears(bob, grant(4, key=2), 1.5, by="alice", role="host") == [Move(secret(2))]
    hears_roster(bob, roster(5, "bob", "carol", key=3), 1.6)
    bob.moved(secret(2), 2.0)
    assert bob.lacks_key()
    assert Say(Ask("bob", 5)) in [action for _, action in run(bob, 3.0)]


def test_a_grant_that_comes_on_the_way_to_another_topic_is_followed_from_there(bob: MembershipMachine) -> None:
    assert bob.granted(HOST, grant(4, key=4)) == [Move(secret(4))]
    assert bob.granted(HOST, grant(5, key=5)) == [Move(secret(5))], "which whoever is on the way can't do"
    assert bob.moved(secret(4), 1.0) == [Move(secret(5))]
    assert bob.moved(secret(5), 2.0) == [SayHello()]


def test_a_move_of_the_owners_own_is_not_undone_by_an_older_grant(bob: MembershipMachine) -> None:
    assert bob.granted(HOST, grant(4, key=4)) == [Move(secret(4))]
    bob.install(roster(5, "bob", key=5), 0.5)
    assert bob.moved(secret(5), 1.0) == [SayHello()]


# --- the lobby --------------------------------------------------------------------------------------


def visits(bob: MembershipMachine, until: float) -> list[float]:
    return [at for at, action in run(bob, until) if isinstance(action, VisitLobby)]


def test_who_is_alone_asks_on_the_lobby_soon_and_then_not_more_than_once_a_minute(bob: MembershipMachine) -> None:
    times = visits(bob, 3600.0)
    assert ALONE_AFTER <= times[0] <= 2 * ALONE_AFTER
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(pauses) >= LOBBY_EVERY[0]
    assert pauses[0] < LOBBY_EVERY[1] <= pauses[-1] <= 2 * LOBBY_EVERY[1]


def keep_company(bob: MembershipMachine, until: float, message: Hello, by: str, role: str = "worker") -> list[float]:
    """Somebody says the same every 10 s; return the times of the visits to the lobby."""
    times: list[float] = []
    now = 0.0
    while now < until:
        hears(bob, Hello(message.name, message.time + int(now), epoch=message.epoch), now, by=by, role=role)
        times += [at for at, action in run(bob, now + 10, now=now) if isinstance(action, VisitLobby)]
        now += 10
    return times


def test_who_hears_the_host_does_not_go_to_the_lobby(bob: MembershipMachine) -> None:
    assert keep_company(bob, 7200, hello(3), "alice", "host") == []


def test_who_hears_others_but_not_the_host_asks_on_the_lobby_now_and_then(bob: MembershipMachine) -> None:
    """They may all be people who were taken out, and say an old roster for ever."""
    times = keep_company(bob, 7200, hello(3), "carol")
    assert times[0] == HOST_WITHIN
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(pauses) >= HOST_SILENCE
    assert max(pauses) <= 2 * (HOST_SILENCE + LOBBY_EVERY[1])


def test_who_hears_only_other_processes_of_his_own_asks_on_the_lobby_soon_and_then_seldom(
    bob: MembershipMachine,
) -> None:
    times = keep_company(bob, 3600.0, hello(3), "bob")
    assert ALONE_AFTER <= times[0] <= 2 * ALONE_AFTER
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= HOST_SILENCE


def test_an_old_hello_of_the_hosts_is_no_sign_of_him(bob: MembershipMachine) -> None:
    assert keep_company(bob, 600, hello(3, NOW - FRESH - 60), "alice", "host") != []


@pytest.mark.parametrize("minutes", [-8, 8])
def test_a_hosts_clock_may_be_some_minutes_wrong(bob: MembershipMachine, minutes: int) -> None:
    assert keep_company(bob, 3600, hello(3, NOW + 60 * minutes), "alice", "host") == []


def test_a_host_with_an_older_roster_is_no_sign_that_all_is_well(bob: MembershipMachine) -> None:
    assert keep_company(bob, 600, hello(2), "alice", "host") != []


def test_who_waits_for_a_roster_or_a_key_asks_on_the_lobby_whoever_is_there() -> None:
    new = machine("bob", None)
    new.joined(0.0)
    assert keep_company(new, 300, hello(0), "alice", "host") != []


def test_a_host_has_nobody_to_ask() -> None:
    host = MembershipMachine(
        secret=secret(1),
        me=print_of("alice"),
        name="alice",
        shared=True,
        host=True,
        roster=roster(3, "bob", key=2),
        unseal=session("alice", "host").unseal,
        random=lambda: 0.5,
    )
    host.joined(0.0)
    assert run(host, 7200.0) == []
    host.install(roster(4, "bob", key=3), 7200.0)
    assert kinds(run(host, 9000.0, now=7200.0)) == []
    host.moved(secret(3), 9000.0)
    assert kinds(run(host, 20_000.0, now=9000.0)) == []


def test_on_a_new_topic_being_alone_begins_anew(bob: MembershipMachine) -> None:
    hears(bob, Bye(), 1.0)
    bob.moved(secret(1), 4.0)
    assert visits(bob, 20.0)[0] >= 4.0 + ALONE_AFTER


def test_saying_hello_again_after_a_reconnect_changes_nothing_else(bob: MembershipMachine) -> None:
    before = bob.deadline()
    assert bob.joined(3.0) == [SayHello()]
    assert bob.deadline() == before


def test_pauses_grow_with_the_number_of_members() -> None:
    def longest(count: int) -> float:
        made = machine("bob", roster(3, "bob", *(f"m{n}" for n in range(count))), random=1.0)
        made.joined(0.0)
        hears(made, hello(2), 10.0, by="bob")
        return min(at for at, action in run(made, 20.0, now=10.0) if isinstance(action, Say)) - 10.0

    least, each, most = mm.PAUSE
    assert longest(8) == pytest.approx(least + 10 * each)
    assert longest(200) == pytest.approx(most)
