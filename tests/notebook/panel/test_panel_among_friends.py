"""What an owner does from the panel: invite, approve, connect, trust, lend, revoke; at real kernels."""

from __future__ import annotations

import pytest

from tests.notebook.panel.test_panel_in_a_kernel import Browser
from tests.notebook.test_friends_in_kernels import People
from tests.notebook.test_friends_in_kernels import people as people  # noqa: PLC0414 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TITLE = "alice/friends"


def test_an_owner_lets_a_friend_in_and_out_again_from_the_panel(people: People) -> None:
    alice, bob = Browser(people.notebook("alice")), people.notebook("bob")
    comm = alice.sidebar()
    panel = alice.readers[comm]

    def can(*actions: str) -> bool:
        return set(actions) <= set(panel.parts["means"]["can"])

    def named(table: str, name: str) -> dict[str, object]:
        return next((row for row in panel.tables[table].values() if row["name"] == name), {})

    assert not can("invite") and not can("revoke") and not can("approve")  # noqa: PT018
    people.host(alice.book)
    alice.read(lambda: can("invite", "revoke") and panel.parts["means"]["hosted"] == [TITLE])

    invited = alice.do(comm, "invite", title=TITLE, who="bob")
    assert invited["ok"], invited
    code = invited["data"]["code"]
    assert invited["data"]["commands"] == [line for line in invited["data"]["commands"] if code in line]
    joining = bob.start(invited["data"]["commands"][0])
    alice.read(lambda: panel.tables["visitors"])
    (visitor,) = panel.tables["visitors"].values()
    assert (visitor["title"], visitor["called"], visitor["invited"]) == (TITLE, "bob", True)
    told = [message["content"]["data"] for message in alice.messages]
    assert not any(code in str(data) for data in told if data.get("t") in ("snapshot", "delta"))
    assert can("approve", "refuse")
    wrong = alice.do(comm, "approve", title=TITLE, key="SHA256:" + "x" * 43)
    assert not wrong["ok"]
    approved = alice.do(comm, "approve", title=TITLE, key=visitor["key"])
    assert approved["say"] == f"bob is in {TITLE}."
    alice.read(lambda: not panel.tables["visitors"])
    bob.until(lambda: joining.idle and f"You are in {TITLE}" in joining.shown)

    connected = alice.do(comm, "connect", target=TITLE)
    assert connected["ok"], connected
    alice.read(lambda: panel.parts["cluster"]["kind"] == "shared" and named("members", "bob").get("state") == "away")
    assert named("members", "bob")["trust"] == "plain data"
    people.worker("bob")
    alice.read(lambda: [row for row in panel.tables["offers"].values() if row["name"].startswith("bob")])
    assert not named("members", "bob")  # no longer away: his worker is here
    alice.run("%%p2p --wait\n6 * 7")
    alice.read(lambda: [row for row in panel.tables["members"].values() if row.get("lentTasks")])
    assert "any type" in alice.do(comm, "trust", member="bob")["say"]
    alice.read(lambda: [row for row in panel.tables["members"].values() if row["trust"] == "any type"])
    assert "plain data again" in alice.do(comm, "distrust", member="bob")["say"]
    alice.read(lambda: not [row for row in panel.tables["members"].values() if row["trust"] == "any type"])

    lent = alice.do(comm, "lend", title=TITLE, slots=1, hours=1, only=[visitor["key"]], tags=["spare"])
    assert lent["ok"], lent
    alice.read(lambda: [row for row in panel.tables["lending"].values() if row["state"] == "lending"])
    ((id, row),) = panel.tables["lending"].items()
    assert (row["title"], row["only"]) == (TITLE, "bob")
    assert row["until"]
    assert alice.do(comm, "pause", lending=id)["ok"]
    alice.read(lambda: panel.tables["lending"][id]["state"] == "paused")
    assert alice.do(comm, "resume", lending=id)["ok"]
    assert alice.do(comm, "stop", lending=id)["ok"]
    alice.read(lambda: panel.tables["lending"].get(id, {}).get("state") != "lending")

    revoked = alice.do(comm, "revoke", title=TITLE, member="bob")
    assert revoked["say"].startswith(f"bob is out of {TITLE}")
    alice.read(lambda: not [row for row in panel.tables["members"].values() if row["name"].startswith("bob")])
