"""Clusters of friends through seeded troubles: in the end all who belong there are together, and nobody else is."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from membership_simulation import Gathering, Process, Profile, Violation

from p2p_ipython.protocol.host_machine import HostMachine
from p2p_ipython.protocol.membership_machine import HOST_SILENCE, HOST_WITHIN, LOBBY_EVERY

SEEDS = range(120)

TOGETHER = 2 * HOST_SILENCE + 4 * LOBBY_EVERY[1]
"""Seconds after which all must have found each other, once the board loses nothing and a host is there."""


def story(seed: int) -> Gathering:
    """Half an hour or so of everything that can happen, then a quiet end."""
    rng = random.Random(seed)
    names = [f"m{number}" for number in range(rng.randint(1, 7))]
    there = Gathering(rng, names, loss=rng.choice([0.0, 0.1, 0.4]), slowness=rng.choice([0.1, 0.5, 3.0]))
    clocks = {name: rng.choice([-480.0, 0.0, 0.0, 300.0, 480.0]) for name in [*names, *(f"n{n}" for n in range(9))]}
    hosts = [there.start_host()]
    newcomers = (f"n{number}" for number in range(9))
    for name in names:
        there.start(name, rng.choice(["client", "worker"]), clock=clocks[name])
    for _ in range(rng.randint(5, 40)):
        there.run(rng.choice([0.05, 1.0, 10.0, 60.0, 400.0]))
        others = [process for process in there.present() if process.host is None]
        hosts = [process for process in hosts if process.alive]
        match rng.randrange(8):
            case 0 if others:
                there.stop(rng.choice(others))
            case 1 | 2:
                name = rng.choice(sorted(clocks.keys() & there.disks.keys()))
                there.start(name, rng.choice(["client", "worker"]), clock=clocks[name])
            case 3 if hosts:
                there.stop(hosts.pop())
            case 4 if len(hosts) < 2:
                hosts.append(there.start_host())
            case 5:
                name = next(newcomers, "")
                if name:
                    there.invite(name)
                    there.start(name, clock=clocks[name])
            case 6 if there.owner.names:
                name = rng.choice(there.owner.names)
                for process in others:
                    process.stubborn |= process.name == name and rng.random() < 0.5
                there.revoke(name)
            case _:
                pass
    there.loss, there.slowness = 0.0, 0.3
    if not any(process.host is not None for process in there.present()):
        there.start_host()
    there.run(TOGETHER)
    return there


@pytest.mark.parametrize("part", range(4))
def test_in_the_end_all_who_belong_there_are_together_and_nobody_else_ever_had_the_key(part: int) -> None:
    for seed in SEEDS[part::4]:
        try:
            there = story(seed)
            assert there.settled()
            for process in there.present():
                pauses = [later - earlier for earlier, later in pairwise(process.lobby_times)]
                assert all(pause >= 5 for pause in pauses)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


def test_a_seed_tells_the_whole_story() -> None:
    first, second = story(3), story(3)
    assert [process.said for process in first.processes] == [process.said for process in second.processes]


def test_the_simulation_notices_a_host_that_grants_to_who_was_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostMachine, "_is_member", lambda *_: True)
    there = gathering(2)
    away = there.present()[1]
    there.stop(away)
    there.revoke(away.name)
    there.run(700)
    there.start(away.name)
    with pytest.raises(Violation, match="never his"):
        there.run(30)


# --- who was away -----------------------------------------------------------------------------------


def gathering(members: int, *, hosts: int = 1, seed: int = 1) -> Gathering:
    """So many members and hosts, together since a minute ago. Nobody's lines have been counted yet."""
    there = Gathering(random.Random(seed), [f"m{number}" for number in range(members)])
    for _ in range(hosts):
        there.start_host()
    for number in range(members):
        there.start(f"m{number}", "client" if number % 3 == 0 else "worker")
    there.run(60)
    return there


def of(there: Gathering, name: str) -> Process:
    return next(process for process in there.present() if process.name == name)


def test_who_was_away_while_the_key_was_changed_finds_the_others_by_the_lobby() -> None:
    there = gathering(3)
    there.stop(of(there, "m0"))
    there.revoke("m1")
    there.run(700)
    there.start("m0")
    there.run(20)
    assert there.settled()


def test_company_of_somebody_who_was_taken_out_and_says_the_old_roster_for_ever_keeps_nobody() -> None:
    there = gathering(3)
    there.stop(of(there, "m0"))
    mallory = of(there, "m1")
    mallory.stubborn = True
    there.revoke("m1")
    there.run(700)
    victim = there.start("m0")
    there.run(4)
    assert victim.machine.secret == mallory.machine.secret, "it takes her for a member at first"
    there.run(HOST_WITHIN + 2 * LOBBY_EVERY[0])
    assert there.settled()
    assert not victim.machine.admits(mallory.certificate, 0)


def test_who_was_taken_out_while_away_is_told_by_whoever_knows() -> None:
    there = gathering(3)
    there.stop(of(there, "m0"))
    there.revoke("m0")
    there.run(5)
    back = there.start("m0")
    there.run(5)
    assert "revoked your membership" in back.machine.expelled


def test_who_was_taken_out_finds_nobody_later_and_the_owner_hears_him_knock() -> None:
    there = gathering(3)
    there.stop(of(there, "m0"))
    there.revoke("m0")
    there.run(700)
    back = there.start("m0")
    there.run(3600)
    assert [knock.name for knock in there.told] == ["m0"]
    assert back.machine.secret != there.present()[0].machine.secret


def test_without_a_host_members_work_together_and_hand_the_newest_roster_on() -> None:
    there = gathering(4)
    there.stop(of(there, "m3"))
    there.invite("n0")
    there.run(2)
    for process in there.present():
        if process.host is not None:
            there.stop(process)
    there.start("n0")
    there.start("m3")
    there.run(5)
    assert there.settled()


def test_a_host_with_an_old_profile_does_no_harm_to_who_has_the_newest_roster() -> None:
    there = gathering(3)
    old = there.owner.history[-1]
    there.revoke("m1")
    there.run(30)
    assert there.settled()
    stale = there.start_host(old)
    there.run(3600)
    there.stop(stale)
    assert there.settled()


def test_clocks_that_differ_by_eight_minutes_do_not_matter() -> None:
    there = Gathering(random.Random(4), ["m0", "m1", "m2"])
    there.start_host()
    for name, clock in [("m0", -480.0), ("m1", 480.0), ("m2", 0.0)]:
        there.start(name, clock=clock)
    there.run(60)
    there.revoke("m2")
    there.run(60)
    assert there.settled()
    assert all(process.lobby_times[1:] == [] for process in there.present())


# --- how much is said -------------------------------------------------------------------------------


def lines(process: Process) -> int:
    """All lines but those that say how things are, each half a minute."""
    return process.said.total() - process.said["Request"]


@pytest.mark.parametrize("seed", range(5))
def test_thirty_members_who_come_at_once_say_six_lines_each(seed: int) -> None:
    there = Gathering(random.Random(seed), [f"m{number}" for number in range(30)])
    there.start_host()
    there.run(5)
    for number in range(30):
        there.start(f"m{number}", "client")
    there.run(120)
    counts = [lines(process) for process in there.present() if process.host is None]
    assert sum(counts) <= 6 * 30
    assert max(counts) <= 6 + len(there.owner.roster.wire) // 780 + 1, "with the roster, if it is who hands it on"


@pytest.mark.parametrize("seed", range(5))
def test_thirty_members_with_an_old_roster_who_come_at_once_say_six_lines_each(seed: int) -> None:
    there = Gathering(random.Random(seed), [f"m{number}" for number in range(30)])
    there.invite("n0")
    there.start_host()
    there.start("n0", "client")
    there.run(5)
    for number in range(30):
        there.start(f"m{number}", "client")
    there.run(120)
    assert there.settled()
    assert sum(lines(process) for process in there.present() if process.host is None) <= 6 * 31


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("hosts", [1, 2])
def test_taking_one_of_thirty_out_costs_the_others_three_lines_each(seed: int, hosts: int) -> None:
    there = gathering(30, hosts=hosts, seed=seed)
    there.run(300)
    for process in there.present():
        process.said.clear()
        process.role = "client" if process.role == "worker" else process.role  # who says hello when there is a reason
    there.revoke("m7")
    there.run(25)
    assert there.settled()
    counts = [lines(process) for process in there.present() if process.host is None]
    assert sum(counts) <= 3 * len(counts)
    assert max(counts) <= 4


def test_who_is_alone_visits_the_lobby_once_a_minute_at_most() -> None:
    there = Gathering(random.Random(1), ["m0"])
    alone = there.start("m0")
    there.run(4 * 3600)
    pauses = [later - earlier for earlier, later in pairwise(alone.lobby_times)]
    assert min(pauses) >= LOBBY_EVERY[0]
    assert len(pauses) > 15


def test_a_profile_without_a_roster_is_enough_to_come_in() -> None:
    """As the knock leaves it: topic and key of a grant; the roster follows from any member who is there."""
    there = gathering(2)
    there.invite("n0")
    there.run(1)
    newest = there.disks["n0"]
    there.start("n0", profile=Profile(None, newest.secret))
    there.run(5)
    assert there.settled()
