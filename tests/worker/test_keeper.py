"""The keeper has an agent obey: for whom the offer is, what is paused and why, what is written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from p2p_ipython.lending.known import KnownMembers
from p2p_ipython.lending.policy import Policy
from p2p_ipython.lending.record import LendingLog
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import MAX_ONLY
from p2p_ipython.protocol.roster import Member, Roster
from p2p_ipython.protocol.task_frames import Task
from p2p_ipython.worker.keeper import Given, Keeper
from p2p_ipython.worker.slot_base import Used


def key(name: str) -> str:
    return f"SHA256:{name}"


def roster(*names: str) -> Roster:
    members = tuple(Member(name, (key(name),), ("client", "worker")) for name in ("bob", *names))
    return Roster("SHA256:bob/friends", "bob/friends", 1, 1 << 40, "", members)


class Lent:
    """An agent that notes what it is to do."""

    def __init__(self) -> None:
        self.paused: str | None = None
        self.offer: dict[str, Any] = {}

    def pause(self, why: str = "") -> None:
        self.paused = why

    def resume(self) -> None:
        self.paused = None

    def amend(self, **conditions: Any) -> None:
        self.offer = conditions


def kept(tmp_path: Path, policy: Policy, members: Roster | None, **more: Any) -> tuple[Keeper, Lent, list[str]]:
    said: list[str] = []
    keeper = Keeper(
        Given(policy),
        cluster="c",
        title="bob/friends",
        is_own=lambda signer: signer == key("bob"),
        told=said.append,
        record=LendingLog(tmp_path / "lending.log"),
        known=KnownMembers(tmp_path / "known.json"),
        **more,
    )
    keeper.prepare(members)
    agent = Lent()
    keeper.begin(agent)
    return keeper, agent, said


@pytest.mark.parametrize(
    ("packages", "installs", "offered", "others", "own"),
    [
        ("never", "all", "own", "packages", ""),
        ("ask", "all", "ask", "asking", ""),
        ("any", "all", "any", "", ""),
        (("numpy",), "all", "some", "", ""),
        (("polars",), "all", "some", "packages", ""),
        ((), "all", "own", "packages", ""),
        # Without walls, packages of others would run as the lender.
        ("any", "own", "own", "packages", ""),
        ("any", "none", "", "packages", "packages"),
    ],
)
def test_packages_are_for_whom_the_policy_says(
    tmp_path: Path, packages: Any, installs: Any, offered: str, others: str, own: str
) -> None:
    keeper, agent, _ = kept(tmp_path, Policy(packages=packages), roster("carol"), installs=installs)
    wants = replace(task(1), packages=("numpy>=2",))

    def why(name: str) -> str:
        refusal = keeper.check(client(name), wants, b"x")
        return refusal.why if refusal is not None else ""

    assert agent.offer["packages"] == offered
    assert (why("carol"), why("bob")) == (others, own)
    assert keeper.check(client("carol"), task(1), b"x") is None


def client(name: str) -> Certificate:
    return Certificate("c", name.encode(), b"", b"", "client", 0.0, key(name), b"")


def task(size: int, source: str = "") -> Task:
    return Task("t", 1, "cell", ((size, None),), source=source, label="sum")


def test_a_lender_who_asks_lends_to_known_members_unless_something_says_for_whom(tmp_path: Path) -> None:
    file = tmp_path / "lending.toml"
    file.write_text("mains = true")
    assert Given.read(None, {"ask": True}).policy.who == "known"
    assert Given.read(file, {"ask": True}).policy.who == "known"
    assert Given.read(file, {"ask": True, "who": "all"}).policy.who == "all"
    assert Given.read(file, {"ask": True, "who": ["dave"]}).policy.who == ("dave",)
    assert Given.read(file, {"ask": None}).policy.who == "all"
    file.write_text('who = ["carol"]')
    assert Given.read(file, {"ask": True}).policy.who == ("carol",)


def test_the_first_members_are_known_and_later_ones_are_named_once(tmp_path: Path) -> None:
    keeper, agent, said = kept(tmp_path, Policy(who="known"), None)
    assert not keeper.welcomes(key("carol"))  # nobody is known before the list of members has come
    assert keeper.welcomes(key("bob"))
    keeper.members_changed(roster("carol"))
    assert (said, agent.offer["not_for"]) == ([], ())
    keeper.members_changed(roster("carol", "dave"))
    keeper.members_changed(roster("carol", "dave"))
    assert said == ["dave (SHA256:dave) is new in bob/friends; until p2p lending welcome dave, theirs don't run"]
    assert keeper.unknown() == {key("dave"): "dave"}
    assert agent.offer["not_for"] == (key("dave"),)
    assert [keeper.welcomes(key(name)) for name in ("carol", "dave")] == [True, False]
    # The next look writes that down, and reads what the lender has said meanwhile.
    keeper._known_file.say_yes("c", [key("dave")])  # type: ignore[union-attr]
    keeper._heed(keeper._look(keeper.policy, keeper._stamps, keeper._unwritten))
    keeper.members_changed(roster("carol", "dave"))
    assert keeper.welcomes(key("dave"))
    _, agent, said = kept(tmp_path, Policy(who="known"), roster("carol", "dave", "erin"))
    assert [words.split()[0] for words in said] == ["erin"]
    assert agent.offer["not_for"] == (key("erin"),)


def look(keeper: Keeper) -> None:
    keeper._heed(keeper._look(keeper.policy, keeper._stamps, keeper._unwritten))


def test_keys_that_can_not_be_written_down_are_kept_tried_again_and_logged_seldom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, _, _ = kept(tmp_path, Policy(who="known"), roster("carol"))
    file = tmp_path / "known.json"
    file.mkdir()  # something is in its place
    for _ in range(5):
        look(keeper)
    keeper.members_changed(roster("carol", "dave"))
    look(keeper)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]  # for the yes, and for the names
    file.rmdir()
    KnownMembers(file).say_yes("c", [key("zoe")])  # another worker's, which knows nothing of these
    look(keeper)
    kept_now = KnownMembers(file).of("c")
    assert kept_now.known == {key(name) for name in ("bob", "carol", "zoe")}
    assert kept_now.named >= {key("dave")}
    assert (keeper._unwritten.yes, keeper._unwritten.named) == (frozenset(), frozenset())
    assert [keeper.welcomes(key(name)) for name in ("carol", "zoe", "dave")] == [True, True, False]


def test_keys_that_wait_to_be_written_down_count_beside_those_of_the_file(tmp_path: Path) -> None:
    keeper, _, _ = kept(tmp_path, Policy(who="known"), roster("carol"))
    lock = tmp_path / "known.lock"
    lock.mkdir()  # nobody can have it
    (tmp_path / "known.json").write_text('{"c": {"known": ["SHA256:zoe"], "named": []}}')
    look(keeper)
    assert [keeper.welcomes(key(name)) for name in ("carol", "zoe", "dave")] == [True, True, False]
    lock.rmdir()
    look(keeper)
    assert KnownMembers(tmp_path / "known.json").of("c").known == {key(name) for name in ("bob", "carol", "zoe")}


def test_of_two_troubles_in_one_look_both_are_said(tmp_path: Path) -> None:
    keeper, _, said = kept(tmp_path, Policy(), roster("carol"))
    look(keeper)
    policy = tmp_path / "lending.toml"
    policy.write_text("hours = 7")
    keeper._given = Given(keeper.policy, policy)
    (tmp_path / "known.json").write_text("nonsense")
    look(keeper)
    assert len(said) == 2
    assert "the last good one stays" in said[0]
    assert "the members known before are known still" in said[1]


@pytest.mark.parametrize(
    ("who", "only", "not_for"),
    [
        ("all", (), ()),
        (("carol",), (key("carol"),), ()),
        ((key("dave"), "carol"), (key("carol"), key("dave")), ()),
        (("zoe",), (key("bob"),), ()),  # nobody: the lender alone
    ],
)
def test_the_offer_is_for_those_whom_the_policy_takes(tmp_path: Path, who: Any, only: Any, not_for: Any) -> None:
    _, agent, said = kept(tmp_path, Policy(who=who), roster("carol", "dave"))
    assert (agent.offer["only"], agent.offer["not_for"]) == (only, not_for)
    assert ("nobody in bob/friends is called 'zoe'" in "".join(said)) is (who == ("zoe",))


def test_an_offer_names_no_more_keys_than_it_may(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(30)]
    keeper, agent, _ = kept(tmp_path, Policy(who=tuple(names[:20])), roster(*names))
    assert (agent.offer["only"], len(agent.offer["not_for"])) == ((), MAX_ONLY)
    assert sum(keeper.welcomes(key(name)) for name in names) == 20


def test_the_days_bytes_sink_in_the_offer_and_then_pause(tmp_path: Path) -> None:
    keeper, agent, _ = kept(tmp_path, Policy(bytes_in=1000, input=600), roster("carol"))
    assert agent.offer["input"] == 600
    assert keeper.check(client("carol"), task(600), b"") is None
    keeper.begun(0, task(600), client("carol"))
    keeper.over(0, "done", lambda: Used(1.5, 7))
    keeper.members_changed(roster("carol"))
    assert agent.offer["input"] == 256
    refusal = keeper.check(client("carol"), task(401), b"")
    assert refusal is not None
    assert refusal.why == "bytes"
    keeper.begun(0, task(400), client("carol"))
    keeper.sent(0, 30)
    keeper.stopping(0, "stopped")
    keeper.stopping(0, "recalled")
    assert keeper.check(client("carol"), task(1), b"") is None  # nothing is taken now: the machine says so
    assert (agent.paused, keeper.words) == ("bytes", "tasks have brought what they may in a day")
    keeper.end()
    done, stopped = LendingLog(tmp_path / "lending.log").entries()
    assert (done.outcome, done.cpu, done.memory, done.member) == ("done", 1.5, 7, "carol")
    assert (stopped.outcome, stopped.bytes_in, stopped.bytes_out) == ("stopped", 400, 30)
    # Another worker, later that day, counts them, too.
    _, agent, _ = kept(tmp_path, Policy(bytes_in=1000), roster("carol"))
    assert agent.paused == "bytes"


def test_the_hand_comes_before_the_policy(tmp_path: Path) -> None:
    keeper, agent, _ = kept(tmp_path, Policy(mains=True, bytes_in=1), roster("carol"))
    keeper.begun(0, task(5), client("carol"))
    keeper.pause()
    assert (agent.paused, keeper.words) == ("", "by hand")
    keeper.resume()
    assert agent.paused in ("bytes", "battery")


def test_a_source_is_written_down_as_its_hash(tmp_path: Path) -> None:
    keeper, _, _ = kept(tmp_path, Policy(), roster("carol"))
    for source in ("secret = 1", "secret = 1", "\ud800"):
        keeper.begun(0, task(1, source), client("carol"))
        keeper.over(0, "done")
    first, again, odd = [entry.source for entry in LendingLog(tmp_path / "lending.log").entries()]
    assert first == again != odd
    assert len(first) == 16
    assert "secret" not in (tmp_path / "lending.log").read_text()
