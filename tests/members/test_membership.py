"""A process among the members: topics that change, rosters that end, keys that don't sign, and its own end."""

from __future__ import annotations

import asyncio
import html
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from members_support import DAY, TITLE, Circle, Ear, Key, choice, print_of, until

from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.client.status import SANDBOX_HELP, ClusterStatus, MemberStatus
from p2p_ipython.config import Settings
from p2p_ipython.errors import NotAdmitted
from p2p_ipython.link.base import LinkState
from p2p_ipython.members.access import Access, given_access, profile_access
from p2p_ipython.members.membership import Membership
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.members.way import Way
from p2p_ipython.protocol.identity import MAX_LIFE, ClusterSecret
from p2p_ipython.protocol.messages import Bye, Hello
from p2p_ipython.protocol.roster import Roster
from p2p_ipython.rehearsal import Rehearsal, run
from p2p_ipython.rehearsal.board import Faults


def ear(membership: Membership) -> Ear:
    assert isinstance(membership.speaker, Ear)
    return membership.speaker


# --- other topics -----------------------------------------------------------------------------------


def test_of_two_changes_of_the_key_that_come_at_once_the_host_follows_the_later_one() -> None:
    async def work() -> None:
        circle = Circle("bob", "carol")
        host = await circle.member("alice", "host")
        circle.hub.down()
        for name in ("bob", "carol"):
            roster = circle.next_roster(without=name, secret=circle.new_secret())
            host.adopt(roster, circle.secret)
            await asyncio.sleep(1)
        circle.hub.up()
        await asyncio.sleep(60)
        assert circle.topics() == [circle.secret.topic]
        await host.close()

    run(work())


def test_a_membership_that_ends_while_it_moves_leaves_nothing_on_the_board() -> None:
    async def work() -> None:
        circle = Circle("bob")
        host = await circle.member("alice", "host")
        await asyncio.sleep(1)
        circle.hub.faults = Faults(drop=1.0)  # nothing is echoed: leaving the old topic takes a moment
        host.say_hello()
        host.adopt(circle.next_roster(without="bob", secret=circle.new_secret()), circle.secret)
        await asyncio.sleep(0.5)
        assert len(circle.topics()) == 2
        await host.close()
        assert circle.topics() == []

    run(work())


def test_a_membership_that_ends_while_it_joins_leaves_nothing_on_the_board() -> None:
    async def work() -> None:
        circle = Circle()
        gate = asyncio.Event()

        async def before(_topic: str) -> None:
            await gate.wait()

        circle.before = before
        membership = circle.membership("alice")
        joining = asyncio.ensure_future(membership.join())
        await asyncio.sleep(1)
        await membership.close()
        gate.set()
        await joining
        assert circle.topics() == []

    run(work())


async def test_a_topic_and_a_key_that_came_just_before_the_end_are_kept() -> None:
    circle = Circle("bob")
    kept: list[tuple[int, str]] = []

    def keep(roster: Roster | None, secret: ClusterSecret) -> None:
        kept.append((roster.epoch if roster is not None else 0, secret.topic))

    member = await circle.member("alice", keep=keep)
    circle.hub.faults = Faults(drop=1.0)
    member.adopt(circle.next_roster(without="bob", secret=circle.new_secret()), circle.secret)
    await member.close()
    assert kept[-1] == (2, circle.secret.topic)
    assert circle.topics() == []


def test_a_process_that_lags_behind_takes_the_key_from_no_profile(tmp_path: Path) -> None:
    """Two processes of a member have one profile: the one that hasn't the new key yet must not write its old one."""
    circle = Circle("bob")
    bob, old, first = choice(circle.key("bob")), circle.secret, circle.roster
    profile = Profile(TITLE, old.cluster, "memory", "", "", "", "", bob.fingerprint, old.topic, old.key, first.wire)
    profiles = Profiles(tmp_path)
    profiles.save(profile)
    access = profile_access(profile, BoardAddress("memory"), bob, me="bob", settings=Settings(), profiles=profiles)
    assert access.keep is not None
    roster = circle.next_roster(secret=circle.new_secret())
    access.keep(roster, circle.secret)  # the quick one
    access.keep(roster, old)  # the slow one
    assert profiles.load(TITLE).topic == circle.secret.topic
    # Not so where neither is the roster's: what was granted last may be of a newer one.
    granted = circle.new_secret()
    access.keep(circle.next_roster(secret=circle.new_secret()), granted)
    assert profiles.load(TITLE).topic == granted.topic


# --- what is said of it -----------------------------------------------------------------------------


def test_an_answer_of_the_host_is_said_only_until_we_are_in() -> None:
    async def work() -> None:
        circle = Circle("bob")
        before = circle.roster
        without = circle.next_roster(without="bob")
        circle.roster = before
        bob = await circle.member("bob", roster=without)
        bob.refused = "waiting for the owner's approval"
        assert "no longer in alice/friends" in bob.trouble
        bob.adopt(_again(circle, epoch=3), circle.secret)
        assert bob.trouble == ""
        await bob.close()

    run(work())


def _again(circle: Circle, *, epoch: int) -> Roster:
    while circle.roster.epoch < epoch:
        circle.next_roster()
    return circle.roster


async def test_when_the_roster_ends_links_are_to_be_cut_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quickly(monkeypatch)
    circle, end, cuts = Circle("bob"), int(time.time()) + 2, []
    bob = circle.membership("bob", roster=circle.next_roster(end=end))
    ear(bob).members_changed = lambda: cuts.append(time.time())  # type: ignore[method-assign]
    await bob.join()
    bob.begin()
    await until(lambda: cuts)
    await until(lambda: "the list of members has ended; waiting for alice to host it again" in caplog.text)
    await asyncio.sleep(0.5)
    assert [when > end for when in cuts] == [True]
    assert caplog.text.count("has ended") == 1
    bob.adopt(circle.next_roster(end=time.time() + DAY), circle.secret)
    assert bob.trouble == ""
    await bob.close()


async def test_a_key_that_signs_no_more_is_asked_for_now_and_then_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quickly(monkeypatch)
    circle = Circle("bob")
    bob, alice = await circle.member("bob", "worker"), await circle.member("alice")
    key = circle.key("bob")
    bob.session.renew(time.time() - MAX_LIFE + 1)  # a second is left
    key.trouble, before, begun = RuntimeError("locked"), key.signed, time.monotonic()
    while not bob.trouble or key.signed < before + 3:
        bob.say_hello()
        await asyncio.sleep(0.02)
    assert key.signed - before <= (time.monotonic() - begun) / 0.3 + 1
    assert "nobody hears us any longer: the SSH key could not sign" in bob.trouble
    assert caplog.text.count("so the others will no longer hear us") == 1
    # It says hello as soon as it can be heard again.
    key.trouble, heard = None, len(ear(alice).said)
    while bob.trouble:
        bob.say(Bye())
        await asyncio.sleep(0.02)
    await until(lambda: any(isinstance(message, Hello) for message in ear(alice).said[heard:]))
    await bob.close()
    await alice.close()


def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a membership look, and try again, within moments."""
    for name, seconds in {"LOOK_EVERY": 0.05, "LASTS": 0.1, "RENEW_AGAIN": 0.3}.items():
        monkeypatch.setattr(f"p2p_ipython.members.membership.{name}", seconds)


def test_it_is_said_when_nobody_answers_and_when_somebody_does(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        circle = Circle("bob")
        bob = await circle.member("bob", "worker")
        assert not bob.answered
        await asyncio.sleep(5)
        assert bob.silence == ""
        await asyncio.sleep(6)
        assert "no member has answered" in bob.silence
        await asyncio.sleep(2)
        assert "no member has answered" in caplog.text
        alice = await circle.member("alice")
        await asyncio.sleep(1)
        assert bob.answered
        assert bob.silence == ""
        await asyncio.sleep(3)
        assert "that is over: no member has answered" in caplog.text
        await bob.close()
        await alice.close()

    caplog.set_level(logging.INFO)
    run(work())


def test_an_old_hello_is_no_answer() -> None:
    async def work() -> None:
        circle = Circle("bob")
        bob = await circle.member("bob", "worker")
        alice = circle.membership("alice")
        await alice.join()
        alice.say(Hello("alice", int(time.time()) - 3 * 3600))
        await asyncio.sleep(1)
        assert isinstance(ear(bob).said[-1], Hello)
        assert not bob.answered
        await bob.close()
        await alice.close()

    run(work())


# --- tasks and links, when members are taken out ----------------------------------------------------


async def naps(seconds: float, value: int) -> int:
    await asyncio.sleep(seconds)
    return value


def test_tasks_at_several_workers_of_somebody_who_is_taken_out_go_on_at_another_member() -> None:
    async def work() -> None:
        async with Rehearsal(workers=0) as cluster:
            for _ in range(4):
                await cluster.add_worker("bob")
            await asyncio.sleep(10)
            task = cluster.submit(naps, 100, 7)
            await asyncio.sleep(10)
            assert task.running()
            cluster.take_out("bob")
            await asyncio.sleep(10)
            assert not task.done()
            await cluster.add_worker()
            async with asyncio.timeout(300):
                assert await task == 7

    run(work())


def test_who_is_taken_out_learns_from_his_tasks_why_they_dont_run() -> None:
    async def work() -> None:
        async with Rehearsal(workers=4) as cluster:
            bob = await cluster.add_client("bob")
            await asyncio.sleep(10)
            tasks = [bob.submit(naps, 1000, 1), bob.submit(naps, 1000, 2, once=True)]
            await asyncio.sleep(10)
            assert all(task.running() for task in tasks)
            cluster.take_out("bob")
            await asyncio.sleep(10)
            for task in tasks:
                with pytest.raises(NotAdmitted, match="me has revoked your membership"):
                    task.result(0)

    run(work())


def test_a_link_that_comes_too_late_gets_no_task_and_costs_none() -> None:
    async def work() -> None:
        async with Rehearsal(workers=0) as cluster:
            task = cluster.submit(naps, 1, 7, once=True)
            await cluster.add_worker("bob")
            opens, bridge = cluster.client._linker.open, cluster.client

            async def too_late(meeting, handler):  # type: ignore[no-untyped-def]
                link = await opens(meeting, handler)
                cluster.take_out("bob")
                return link

            bridge._linker.open = too_late  # type: ignore[method-assign]
            await asyncio.sleep(30)
            assert not task.done()
            bridge._linker.open = opens  # type: ignore[method-assign]
            await cluster.add_worker()
            async with asyncio.timeout(300):
                assert await task == 7

    run(work())


@pytest.mark.parametrize("whose", ["worker", "client"])
def test_a_link_that_was_cut_does_not_come_back_when_its_member_is_taken_out_meanwhile(whose: str) -> None:
    async def work() -> None:
        async with Rehearsal(workers=0) as cluster:
            if whose == "worker":
                await cluster.add_worker("bob")
                task = cluster.submit(naps, 1000, 7)
            else:
                await cluster.add_worker()
                bob = await cluster.add_client("bob")
                task = bob.submit(naps, 1000, 7)
            await asyncio.sleep(10)
            assert task.running()
            client = cluster.client if whose == "worker" else cluster.friends[0].client
            (end,) = client.links.values()
            others = list(cluster.agents[0]._links.values())
            link, (other,) = (
                end.link,
                [one.link for one in others if one.link is not None and one.link._peer is end.link],
            )
            assert link is not None
            cluster.links.cut(link, away=20)
            await asyncio.sleep(0.1)
            assert link.state is other.state is LinkState.RECONNECTING
            cluster.take_out("bob")
            await asyncio.sleep(60)
            assert {link.state, other.state} <= {LinkState.CLOSED, LinkState.LOST}
            assert not cluster.agents[0].machine.busy()
            assert not client.machine.workers or whose == "client"
            task.cancel()

    run(work())


def test_ones_own_are_all_keys_that_the_list_has_for_ones_member() -> None:
    async def work() -> None:
        circle = Circle("bob", "carol")
        alice, bob, carol = circle.roster.members
        both = replace(bob, keys=(*bob.keys, print_of("bob's box")))
        circle.roster = replace(circle.roster, members=(alice, both, carol)).signed(circle.key("alice"))
        membership = circle.membership("bob's box", "worker")
        assert [membership.is_own(print_of(name)) for name in ("bob", "bob's box", "carol")] == [True, True, False]
        stranger = circle.membership("mallory", "worker")
        assert [stranger.is_own(print_of(name)) for name in ("mallory", "bob")] == [True, False]

    run(work())


# --- what people see --------------------------------------------------------------------------------


def test_what_keeps_a_member_from_the_others_is_said_of_tasks_that_wait_and_where_workers_are_shown() -> None:
    async def work() -> None:
        async with Rehearsal(workers=0) as cluster:
            task = cluster.submit(pow, 2, 2)
            await asyncio.sleep(1)
            assert task.state_text == "waiting for a worker: none is here"
            cluster.client.membership.refused = "waiting for the owner's approval"
            assert task.state_text == "waiting for a worker: none is here (waiting for the owner's approval)"

    run(work())
    worker = MemberStatus("box", "up", 1, 0, "3.11", "Linux", "direct", None, 0, "no sandbox")
    status = ClusterStatus("c", "b", "connected", "", "me", (worker,), (), 0, 0, "waiting for <alice>'s host")
    assert "waiting for &lt;alice&gt;&#x27;s host" in status.html()
    assert "no sandbox" in status.text()
    assert f'title="{html.escape(SANDBOX_HELP)}">sandbox</th>' in status.html()


# --- what may block, and what may be left open --------------------------------------------------------


async def test_an_agent_that_takes_its_time_doesnt_stop_the_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from p2p_ipython.members import access as entries

    key = Key("bob")

    async def login(*_arguments: object, **_options: object) -> tuple[BoardAddress, object]:
        return BoardAddress("memory"), choice(key)

    monkeypatch.setattr(entries, "choose_login", login)
    access = await entries.personal_access("mine", Way("memory"), me="bob", settings=Settings())
    assert key.threads
    assert threading.current_thread() not in key.threads
    assert access.standing.me == print_of("bob")


async def test_a_board_is_left_when_its_host_key_cant_be_remembered(monkeypatch: pytest.MonkeyPatch) -> None:

    closed = []

    class Opened:
        def __init__(self, *_arguments: object, **_options: object) -> None:
            pass

        async def open(self) -> None:
            pass

        async def close(self) -> None:
            closed.append(self)

    def full(*_arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("p2p_ipython.board.client.login.SSHBoard", Opened)
    monkeypatch.setattr("p2p_ipython.board.client.login.remember_accepted", full)
    access: Access = given_access(
        BoardAddress("memory"), choice(Key("bob")), "mine", Way(), me="bob", settings=Settings()
    )
    with pytest.raises(OSError, match="no space"):
        await access.open_board("topic", None)  # type: ignore[arg-type]
    assert len(closed) == 1


async def test_personal_clusters_of_two_keys_share_no_topic_though_topics_are_public() -> None:
    entries = [
        given_access(BoardAddress("memory"), choice(Key(name)), "mine", Way(), me=name, settings=Settings())
        for name in ("bob", "carol", "bob")
    ]
    first, other, again = (access.standing.secret for access in entries)
    assert first == again
    assert first.topic != other.topic
    assert first.key != other.key
