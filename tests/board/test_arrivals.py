"""Which connections may stay on a board, and which make room: no socket, no clock."""

from __future__ import annotations

import random

import pytest

from p2p_ipython.board.server.arrivals import MAKES_ROOM, Answer, Arrivals
from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.limits import Share, Unread, neighbourhood


def arrivals(**bounds: int) -> Arrivals[str]:
    return Arrivals(Bounds(**bounds))


def test_half_open_connections_of_one_address_are_bounded_and_the_oldest_makes_room():
    door = arrivals(half_open_each=3)
    for guest in "abc":
        assert door.arrive(guest, "here", 0.0) == Answer()
    assert "your address" in door.arrive("d", "here", MAKES_ROOM / 2).refused
    assert door.arrive("e", "elsewhere", MAKES_ROOM / 2) == Answer()
    assert door.arrive("f", "here", MAKES_ROOM) == Answer(leaves="a")
    assert len(door) == 4


def test_half_open_connections_are_bounded_in_all_and_the_largest_crowd_makes_room():
    door = arrivals(half_open=4)
    for guest, address in zip("abcd", ("one", "crowd", "crowd", "other"), strict=True):
        assert door.arrive(guest, address, 0.0) == Answer()
    assert door.arrive("e", "new", 1.0).refused
    assert door.arrive("f", "new", MAKES_ROOM) == Answer(leaves="b")


def test_an_address_that_logs_in_too_often_waits_for_its_turn():
    door = arrivals(logins=2, logins_burst=3, login_timeout=2)
    assert [door.arrive(f"g{n}", "here", 0.0).wait for n in range(6)] == [0, 0, 0, 0.5, 1.0, 1.5]
    assert all(door.arrive(f"h{n}", "here", 0.0).refused.startswith("too many log-ins") for n in range(20))
    assert door.arrive("x", "there", 0.0) == Answer()
    assert door.arrive("y", "here", 1.0).wait == 1.0
    assert door.arrive("z", "here", 100.0) == Answer()


def test_addresses_are_forgotten_once_they_may_log_in_as_if_they_had_not():
    door = arrivals(keys=10)
    for number in range(1000):
        door.arrive(f"g{number}", f"address {number}", float(number))
        door.leave(f"g{number}")
    assert len(door._logins) <= 11


def test_an_address_counts_no_longer_once_a_key_is_proved():
    door = arrivals(half_open_each=2, half_open=2)
    for number in range(100):
        assert door.arrive(f"g{number}", "behind one address", 0.0) == Answer()
        assert door.prove(f"g{number}", f"key {number}", 0.0) == ""
    assert len(door) == 100


def test_connections_of_a_key_are_bounded_until_one_leaves():
    door = arrivals(key_connections=2)
    for guest in "abc":
        door.arrive(guest, "here", 0.0)
    assert [door.prove(guest, "key", 0.0) for guest in "ab"] == ["", ""]
    assert "2 connections already" in door.prove("c", "key", 0.0)
    door.leave("a")
    assert door.prove("c", "key", 0.0) == ""


def test_a_full_board_takes_a_newcomer_in_the_place_of_one_without_a_session():
    door = arrivals(connections=2)
    for guest in "ab":
        door.arrive(guest, "here", 0.0)
        door.prove(guest, "key", 0.0)
    door.begin("a")
    assert door.arrive("c", "there", 1.0).refused
    assert door.arrive("d", "there", MAKES_ROOM) == Answer(leaves="b")
    door.begin("d")
    door.leave("b")
    assert door.arrive("e", "there", 2 * MAKES_ROOM) == Answer(leaves="d")  # it has not logged in


def test_when_a_board_is_full_of_one_crowd_its_newest_makes_room():
    door = arrivals(connections=6, crowd=3)
    for guest, named in zip("abcde", (False, True, False, False, False), strict=True):
        door.arrive(guest, "crowd", 0.0)
        door.prove(guest, guest, 0.0, named=named)
        door.begin(guest)
    door.arrive("m", "member", 0.0)
    door.prove("m", "m", 0.0)
    door.begin("m")
    assert door.arrive("f", "crowd", 9.0).refused
    assert door.arrive("n", "newcomer", 9.0) == Answer(leaves="e")
    door.prove("n", "n", 9.0)
    door.begin("n")
    assert door.arrive("o", "another", 9.0).refused  # of the crowd are three, and one with a name


def test_one_without_a_session_is_overdue_after_its_time():
    door = arrivals(idle=60)
    door.arrive("a", "here", 0.0)
    door.prove("a", "key", 0.0)
    door.begin("a")
    assert not door.overdue(1000.0)
    assert door.is_here("here")
    door.end("a", 1000.0)
    assert not door.is_here("here")
    assert door.overdue(1059.0) == []
    assert door.overdue(1060.0) == ["a"]
    door.leave("a")
    assert door.overdue(1060.0) == []


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_and_goes_bounds_hold_and_nothing_is_left(seed):
    chance = random.Random(seed)
    bounds = Bounds(half_open=8, half_open_each=4, connections=16, key_connections=3, crowd=6)
    door: Arrivals[int] = Arrivals(bounds)
    there: dict[int, int] = {}
    now = 0.0
    for guest in range(3000):
        now += chance.random()
        answer = door.arrive(guest, chance.choice("xyz"), now)
        if answer.leaves is not None:
            assert answer.leaves in there
            for _ in range(max(0, there.pop(answer.leaves))):
                door.end(answer.leaves, now)
        if not answer.refused:
            there[guest] = -1  # not logged in
        for known in chance.sample(list(there), len(there) // 2):
            match chance.randrange(4):
                case 0 if there[known] < 0:
                    if door.prove(known, chance.choice("jkl"), now):
                        door.leave(known)
                        del there[known]
                    else:
                        there[known] = 0
                case 1 if there[known] >= 0:
                    door.begin(known)
                    there[known] += 1
                case 2 if there[known] > 0:
                    door.end(known, now)
                    there[known] -= 1
                case 3:
                    door.leave(known)
                    del there[known]
        assert len(door) == len(there) <= bounds.connections
        assert sum(count < 0 for count in there.values()) <= bounds.half_open
    for known in there:
        door.leave(known)
    assert len(door) == 0
    assert not any(vars(door)[name] for name in ("_half_open", "_halves", "_idle", "_crowds", "_keys", "_here"))


@pytest.mark.parametrize(
    ("host", "counts_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a pipe", "a pipe"),
    ],
)
def test_an_ipv6_network_of_64_bits_counts_as_one_address(host, counts_as):
    assert neighbourhood(host) == counts_as


def test_a_share_bounds_each_and_all_and_keeps_a_part_for_those_who_are_here():
    share = Share(5, 8, lambda address: address == "member")
    assert share.take("a", 5) == ""
    assert share.take("a") == "for your address"
    assert share.take("b") == ""
    assert share.take("c") == "in all"
    assert share.take("member", 2) == ""
    assert share.take("member") == "in all"
    share.give_back("a", 5)
    assert share.take("c", 3) == ""


def test_the_reader_with_most_unread_is_named_when_all_together_have_too_much():
    sizes = {"a": 0, "b": 0}
    unread = Unread(100, sizes.__getitem__)

    def note(name: str, size: int) -> str | None:
        sizes[name] = size
        return unread.note(name, size)

    assert note("a", 60) is None
    assert note("b", 41) == "a"
    sizes["a"] = 0  # it has read, without a word
    assert note("b", 99) is None
    unread.forget("b")
    assert note("a", 100) is None
