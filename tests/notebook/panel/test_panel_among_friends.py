"""What an owner does from the panel: invite, approve, connect, trust, lend, revoke; at real kernels."""

from __future__ import annotations

import re

import pytest

from tests.notebook.panel.test_panel_in_a_kernel import Browser
from tests.notebook.test_friends_in_kernels import FINGERPRINT, People, knocking
from tests.notebook.test_friends_in_kernels import people as people  # noqa: PLC0414 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TITLE = "alice/friends"


def test_an_owner_lets_a_friend_in_and_out_again_from_the_panel(people: People) -> None:
    alice, bob = people.notebook("alice", Browser), people.notebook("bob")
    comm = alice.sidebar()
    panel = alice.readers[comm]

    def can(*actions: str) -> bool:
        return set(actions) <= set(panel.parts["means"]["can"])

    def named(table: str, name: str) -> dict[str, object]:
        return next((row for row in panel.tables[table].values() if row["name"] == name), {})

    assert not can("invite") and not can("revoke") and not can("approve")  # noqa: PT018
    people.host(alice)
    alice.until(lambda: can("invite", "revoke") and panel.parts["means"]["hosted"] == [TITLE])

    invited = alice.do(comm, "invite", title=TITLE, who="bob")
    assert invited["ok"], invited
    code = invited["data"]["code"]
    assert invited["data"]["commands"] == [line for line in invited["data"]["commands"] if code in line]
    joining = bob.start(invited["data"]["commands"][0])
    alice.until(lambda: panel.tables["visitors"])
    (visitor,) = panel.tables["visitors"].values()
    assert (visitor["title"], visitor["called"], visitor["invited"]) == (TITLE, "bob", True)
    told = [message["content"]["data"] for message in alice.messages]
    assert not any(code in str(data) for data in told if data.get("t") in ("snapshot", "delta"))
    assert can("approve", "refuse")
    wrong = alice.do(comm, "approve", title=TITLE, key="SHA256:" + "x" * 43)
    assert not wrong["ok"]
    approved = alice.do(comm, "approve", title=TITLE, key=visitor["key"])
    assert approved["say"] == f"bob is in {TITLE}."
    alice.until(lambda: not panel.tables["visitors"])
    bob.until(lambda: joining.idle and f"You are in {TITLE}" in joining.shown)

    connected = alice.do(comm, "connect", target=TITLE)
    assert connected["ok"], connected
    alice.until(lambda: panel.parts["cluster"]["kind"] == "shared" and named("members", "bob").get("state") == "away")
    assert named("members", "bob")["trust"] == "plain data"
    people.worker("bob")
    alice.until(lambda: [row for row in panel.tables["offers"].values() if row["name"].startswith("bob")])
    assert not named("members", "bob")  # no longer away: his worker is here
    alice.run("%%p2p --wait\n6 * 7")
    alice.until(lambda: [row for row in panel.tables["members"].values() if row.get("lentTasks")])
    assert "any type" in alice.do(comm, "trust", member="bob")["say"]
    alice.until(lambda: [row for row in panel.tables["members"].values() if row["trust"] == "any type"])
    assert "plain data again" in alice.do(comm, "distrust", member="bob")["say"]
    alice.until(lambda: not [row for row in panel.tables["members"].values() if row["trust"] == "any type"])

    none = alice.do(comm, "lend", title=TITLE, slots=1, sandbox="gallows")
    assert not none["ok"]
    assert "there is no sandbox called 'gallows'" in none["say"]
    offered = panel.parts["means"]["sandboxes"]
    assert (offered[0], offered[-1]) == ("auto", "process")
    lent = alice.do(comm, "lend", title=TITLE, slots=1, hours=1, only=[visitor["key"]], tags=["spare"], sandbox="auto")
    assert lent["ok"], lent
    alice.until(lambda: [row for row in panel.tables["offers"].values() if row.get("own")])
    (own,) = [row for row in panel.tables["offers"].values() if row.get("own")]
    assert own["tags"] == ["spare"]
    assert own["sandbox"] in offered[1:-1]
    alice.until(lambda: [row for row in panel.tables["lending"].values() if row.get("until")])
    ((id, row),) = panel.tables["lending"].items()
    assert (row["title"], row["only"]) == (TITLE, "bob")
    assert alice.do(comm, "pause", lending=id)["ok"]
    alice.until(lambda: panel.tables["lending"][id]["state"] == "paused")
    assert alice.do(comm, "resume", lending=id)["ok"]
    assert alice.do(comm, "stop", lending=id)["ok"]
    alice.until(lambda: panel.tables["lending"].get(id, {}).get("state") != "lending")

    revoked = alice.do(comm, "revoke", title=TITLE, member="bob")
    assert revoked["say"].startswith(f"bob is removed from {TITLE}")
    alice.until(lambda: not [row for row in panel.tables["members"].values() if row["name"].startswith("bob")])


def test_a_guest_who_waits_at_two_clusters_with_one_key_is_answered_at_each(people: People) -> None:
    alice, first, second = people.notebook("alice", Browser), people.notebook("bob"), people.notebook("bob")
    hosting = people.host(alice)
    alice.run(f"%p2p_host work --owner alice --board {people.address}")
    owner = re.search(FINGERPRINT, hosting.shown)
    assert owner is not None
    comm = alice.sidebar()
    panel = alice.readers[comm]
    invited = alice.do(comm, "invite", title=TITLE, who="bob")
    where = f"--board {people.address} --accept-host-key {people.host_key} --name bob --owner {owner[0]} --wait"
    first.start(f"%p2p_join alice/work {where}")
    alice.until(lambda: len(panel.tables["visitors"]) == 1)
    joining = second.start(invited["data"]["commands"][0])
    alice.until(lambda: len(panel.tables["visitors"]) == 2)
    keys = {row["key"] for row in panel.tables["visitors"].values()}
    assert len(keys) == 1
    refused = alice.do(comm, "refuse", title="alice/work", key=min(keys))
    assert refused["ok"], refused
    alice.until(lambda: [row["title"] for row in panel.tables["visitors"].values()] == [TITLE])
    approved = alice.do(comm, "approve", title=TITLE, key=min(keys))
    assert approved["say"] == f"bob is in {TITLE}."
    second.until(lambda: joining.idle and f"You are in {TITLE}" in joining.shown)


def test_of_two_guests_with_the_same_name_the_second_becomes_no_other_key_of_the_first(people: People) -> None:
    alice, bob, mallory = people.notebook("alice", Browser), people.notebook("bob"), people.notebook("mallory")
    owner = re.search(FINGERPRINT, people.host(alice).shown)
    assert owner is not None
    comm = alice.sidebar()
    panel = alice.readers[comm]
    knocking(people, bob, "bob", "--owner", owner[0])
    alice.until(lambda: panel.tables["visitors"])
    knocking(people, mallory, "bob", "--owner", owner[0])
    alice.until(lambda: len(panel.tables["visitors"]) == 2)
    told = [(row["key"], row["called"]) for row in panel.tables["visitors"].values()]
    assert [called for _, called in told] == ["bob", "bob"]
    other = alice.do(comm, "approve", title=TITLE, key=told[0][0], called="alice")
    assert not other["ok"], other
    said = [alice.do(comm, "approve", title=TITLE, key=key, called=called)["say"] for key, called in told]
    assert said == [f"bob is in {TITLE}.", f"bob-2 is in {TITLE}."]


def test_a_machine_of_ones_own_is_let_in_by_the_name_that_it_is_shown_by(people: People) -> None:
    alice, box = people.notebook("alice", Browser), people.notebook("box")
    alice.run(f"%p2p_connect {people.address} --cluster mine --accept-host-key {people.host_key}")
    comm = alice.sidebar()
    panel = alice.readers[comm]
    invited = alice.do(comm, "invite")
    assert invited["ok"], invited
    joining = box.start(invited["data"]["commands"][0])
    alice.until(lambda: panel.tables["visitors"])
    (visitor,) = panel.tables["visitors"].values()
    approved = alice.do(comm, "approve", title=visitor["title"], key=visitor["key"], called=visitor["called"])
    assert approved["say"].endswith("as a machine of your own."), approved
    box.until(lambda: joining.idle and "You are in" in joining.shown)


def test_a_removed_member_is_out_with_all_their_keys(people: People) -> None:
    alice, bob, laptop = people.notebook("alice", Browser), people.notebook("bob"), people.notebook("laptop")
    owner = re.search(FINGERPRINT, people.host(alice).shown)
    assert owner is not None
    for guest in (bob, laptop):
        knocking(people, guest, "bob", "--owner", owner[0])
    comm = alice.sidebar()
    panel = alice.readers[comm]
    alice.until(lambda: len(panel.tables["visitors"]) == 2)
    keys = [row["key"] for row in panel.tables["visitors"].values()]
    for key in keys:
        assert alice.run(f"%p2p_approve {key} --as bob").error is None
    assert all(key in alice.run("%p2p_members friends").shown for key in keys)
    assert alice.do(comm, "revoke", title=TITLE, member=keys[0])["say"].startswith(f"bob is removed from {TITLE}")
    assert not any(key in alice.run("%p2p_members friends").shown for key in keys)
