"""The owner's host over days and mishaps: its lobby, its profile on disk, a board that is away, and its own end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from members_support import PATIENCE, TITLE, Circle, Key, choice, entry_of, owners, print_of, until

from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.config import Settings
from p2p_ipython.errors import BoardUnreachable
from p2p_ipython.members import owner
from p2p_ipython.members.host import Host
from p2p_ipython.members.knocking import Granted, Knocking
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.protocol.host_machine import Knock, Outdated
from p2p_ipython.protocol.identity import MAX_LIFE
from p2p_ipython.protocol.roster import lobby_secret

LOBBY = lobby_secret(TITLE).topic


@pytest.fixture
def circle() -> Circle:
    return Circle()


async def hosting(circle: Circle, folder: Path) -> tuple[Host, Profiles]:
    access, profile, profiles = owners(circle, folder)
    host = Host(access, profile, profiles)
    await host.open()
    return host, profiles


def admitting(circle: Circle, name: str) -> Callable[[Profile], Profile]:
    key = choice(circle.key("alice"))
    return lambda old: owner.admit(old, key, name, print_of(name))


def revoking(circle: Circle, name: str) -> Callable[[Profile], Profile]:
    key = choice(circle.key("alice"))
    return lambda old: owner.revoke(old, key, name)


async def test_a_host_answers_at_its_door_on_the_second_day_too(circle: Circle, tmp_path: Path) -> None:
    host, _profiles = await hosting(circle, tmp_path)
    host._lobby_session.renew(time.time() - MAX_LIFE - 60)  # as it would be after a day
    knocking = Knocking(TITLE, choice(circle.key("bob")), circle.open_board, name="bob")
    async with asyncio.timeout(PATIENCE):
        asking = asyncio.ensure_future(knocking.run())
        await until(lambda: host.machine.knocks)
        host.approve(Knock("bob", print_of("bob")))
        assert isinstance(await asking, Granted)
    await host.close()
    assert circle.topics() == []


async def test_who_knocks_for_longer_than_a_day_is_still_heard(
    circle: Circle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p_ipython.members.knocking.ASK_EVERY", (0.1, 0.1))
    knocking = Knocking(TITLE, choice(circle.key("bob")), circle.open_board, name="bob")
    async with asyncio.timeout(PATIENCE):
        asking = asyncio.ensure_future(knocking.run())
        await until(lambda: knocking.state)
        assert knocking._session is not None
        knocking._session.renew(time.time() - MAX_LIFE - 60)
        host, _profiles = await hosting(circle, tmp_path)
        await until(lambda: host.machine.knocks)
        host.approve(Knock("bob", print_of("bob")))
        assert isinstance(await asking, Granted)
    await host.close()


async def test_founding_a_cluster_with_a_slow_agent_doesnt_stop_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from p2p_ipython.members import operations

    key = Key("alice")

    class Opened:
        user, host_key = "alice", ""

        def __init__(self, *_arguments: object, **_options: object) -> None:
            pass

        async def open(self) -> None:
            pass

        async def close(self) -> None:
            pass

    async def login(*_arguments: object, **_options: object) -> tuple[BoardAddress, object]:
        return BoardAddress("memory"), choice(key)

    monkeypatch.setattr("p2p_ipython.board.client.login.SSHBoard", Opened)
    monkeypatch.setattr(operations, "choose_login", login)
    way = operations.Way(board="memory")
    founding = operations.host("friends", way=way, profiles=Profiles(tmp_path), settings=Settings())
    assert (await founding)[2]
    assert key.threads
    assert threading.current_thread() not in key.threads


async def test_a_host_sees_what_another_process_has_changed_while_it_was_being_made(
    circle: Circle, tmp_path: Path
) -> None:
    access, profile, profiles = owners(circle, tmp_path)
    profiles.change(TITLE, admitting(circle, "bob"))
    host = Host(access, profile, profiles)
    await host.open()
    await until(lambda: host.machine.roster.named("bob") is not None)
    await host.close()


async def test_a_profile_that_is_gone_is_said_once(
    circle: Circle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("p2p_ipython.members.host.LOOK_EVERY", 0.02)
    host, profiles = await hosting(circle, tmp_path)
    profile = profiles.load(TITLE)
    profiles.remove(TITLE)
    await until(lambda: "can't be used just now" in caplog.text)
    await asyncio.sleep(0.3)
    assert caplog.text.count("can't be used just now") == 1
    profiles.save(profile)
    profiles.change(TITLE, admitting(circle, "bob"))
    await until(lambda: host.machine.roster.named("bob") is not None)
    await host.close()


async def test_a_key_that_changes_while_the_board_is_away_reaches_the_members_when_it_is_back(
    circle: Circle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (("host", "STAY_AGAIN"), ("membership", "MOVE_AGAIN")):
        monkeypatch.setattr(f"p2p_ipython.members.{module}.{name}", 0.05)
    host, profiles = await hosting(circle, tmp_path)
    for name in ("bob", "carol"):
        profiles.change(TITLE, admitting(circle, name))
    await host.refresh()
    circle.roster = host.machine.roster
    carol = await circle.member("carol", "worker")
    old = circle.secret
    circle.hub.down()
    profiles.change(TITLE, revoking(circle, "bob"))
    await host.refresh()
    assert circle.topics() == []
    circle.hub.up()
    new = profiles.load(TITLE).topic
    await until(lambda: carol.machine.secret.topic == new)
    await until(lambda: host._member().machine.secret.topic == new)
    # And it waits for those who come to the old topic later.
    await until(lambda: old.topic in host._voices)
    await until(lambda: circle.topics() == sorted([LOBBY, old.topic, new, new]))
    await carol.close()
    await host.close()
    assert circle.topics() == []


async def test_a_host_that_can_reach_one_of_its_topics_only_leaves_both(circle: Circle, tmp_path: Path) -> None:
    access, profile, profiles = owners(circle, tmp_path)
    gate = asyncio.Event()

    async def before(topic: str) -> None:
        if topic == LOBBY:
            raise BoardUnreachable("no", hint="")
        await gate.wait()

    circle.before = before
    host = Host(access, profile, profiles)
    opening = asyncio.ensure_future(host.open())
    await asyncio.sleep(0.1)
    gate.set()
    with pytest.raises(BoardUnreachable):
        await opening
    await host.close()
    await asyncio.sleep(0.1)
    assert circle.topics() == []


async def test_a_host_that_ends_while_it_goes_to_stay_behind_leaves_nothing(circle: Circle, tmp_path: Path) -> None:
    host, profiles = await hosting(circle, tmp_path)
    profiles.change(TITLE, admitting(circle, "bob"))
    await host.refresh()
    gate, old = asyncio.Event(), host.profile.topic

    async def before(topic: str) -> None:
        if topic == old:
            await gate.wait()

    circle.before = before
    profiles.change(TITLE, revoking(circle, "bob"))
    refreshing = asyncio.ensure_future(host.refresh())
    await until(lambda: host.machine.secret.topic != old)
    await asyncio.sleep(0.1)
    await host.close()
    gate.set()
    await refreshing
    assert circle.topics() == []


async def test_a_look_that_comes_late_takes_no_change_back(circle: Circle, tmp_path: Path) -> None:
    """The profile is read in threads: who began to look before a change may be done after it."""
    host, profiles = await hosting(circle, tmp_path)
    read, slow, waits = profiles.load, threading.Event(), threading.Event()

    def slowly(title: str) -> Profile:
        found = read(title)
        if not waits.is_set():
            waits.set()
            slow.wait(PATIENCE)
        return found

    profiles.change(TITLE, admitting(circle, "bob"))
    profiles.load = slowly  # type: ignore[method-assign]
    early = asyncio.ensure_future(host.refresh())
    await until(waits.is_set)
    await asyncio.to_thread(profiles.change, TITLE, admitting(circle, "carol"))
    late = asyncio.ensure_future(host.refresh())
    await asyncio.sleep(0.3)
    slow.set()
    await asyncio.gather(early, late)
    assert owner.roster_of(host.profile).named("carol") is not None
    await host.close()


async def test_a_host_that_starts_again_gives_the_key_to_who_missed_its_change(
    circle: Circle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"ALONE_AFTER": 0.2, "LOBBY_EVERY": (0.5, 0.5), "HOST_WITHIN": 0.3}.items():
        monkeypatch.setattr(f"p2p_ipython.protocol.membership_machine.{name}", seconds)
    host, profiles = await hosting(circle, tmp_path)
    for name in ("bob", "carol"):
        profiles.change(TITLE, admitting(circle, name))
    await host.refresh()
    circle.roster = host.machine.roster
    await host.close()
    profiles.change(TITLE, revoking(circle, "bob"))
    carol = await circle.member("carol", "worker")
    bob = await circle.member("bob", "worker")
    profile = profiles.load(TITLE)
    again = Host(entry_of(circle, profile), profile, profiles)
    await again.open()
    await until(lambda: carol.machine.secret.topic == profile.topic)  # by the lobby
    assert bob.machine.secret.topic != profile.topic
    for one in (carol, bob):
        await one.close()
    await again.close()
    assert circle.topics() == []


async def test_a_list_that_the_owners_other_process_has_just_made_is_no_cause_for_alarm(
    circle: Circle, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p_ipython.members.host.LOOK_EVERY", 1000.0)  # it looks because it is told, or not at all
    host, profiles = await hosting(circle, tmp_path)
    for epoch in (2, 3):
        after = owner.roster_of(profiles.change(TITLE, admitting(circle, f"guest{epoch}")))
        assert after.epoch == epoch
        host._act([Outdated(epoch)])
        await until(lambda epoch=epoch: host.machine.roster.epoch == epoch)  # type: ignore[misc]
    assert "hosted elsewhere" not in caplog.text
    host._act([Outdated(9)])
    await until(lambda: "hosted elsewhere" in caplog.text)
    await host.close()


async def test_who_comes_while_only_the_host_is_there_hears_him_at_once(circle: Circle, tmp_path: Path) -> None:
    access, profile, profiles = owners(circle, tmp_path)
    object.__setattr__(access, "settings", Settings(presence=3600.0))
    host = Host(access, profile, profiles)
    await host.open()
    alice = await circle.member("alice")
    await until(lambda: alice.answered)
    await alice.close()
    await host.close()


async def test_the_owners_other_host_is_none_of_those_who_have_to_follow(circle: Circle, tmp_path: Path) -> None:
    host, profiles = await hosting(circle, tmp_path)
    other = Host(host._access, host.profile, profiles)
    await other.open()
    await until(lambda: host.roll_call.present)
    assert await host.settled(0.0) == (0, 0)
    await other.close()
    await host.close()
