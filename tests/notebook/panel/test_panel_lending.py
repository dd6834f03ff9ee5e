"""What a lender sees and says in the panel: questions, policy, newcomers, the log; at a real kernel and worker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from p2p_ipython.members import owner
from tests.friends.friends_support import Village, eventually, village, waits
from tests.notebook.kernels import notebook
from tests.notebook.panel.test_panel_in_a_kernel import Browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TITLE = "alice/friends"
CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r}, request_every=0.5, presence=1)"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Village]:
    with village(tmp_path) as made:
        made.found("bob", "carol")
        yield made


def test_a_lender_answers_reads_the_log_and_meets_a_newcomer_in_the_panel(here: Village) -> None:
    with notebook(here.person("bob").environment, kind=Browser) as bob:
        bob.done("%load_ext p2p_ipython")
        comm = bob.sidebar()
        panel = bob.readers[comm]
        lent = bob.do(comm, "lend", title=TITLE, slots=1, hours=1, sandbox="process", ask=True)
        assert lent["ok"], lent

        def row(table: str) -> dict[str, Any]:
            bob.until(lambda: panel.tables[table])
            ((_id, found),) = panel.tables[table].items()
            return dict(found)

        bob.until(lambda: row("lending").get("conditions"))
        assert row("lending")["policy"] == "to members you know; after your yes"
        assert row("lending")["conditions"] == 'who = "known"\nslots = 1\nask = true'
        ((lending, _),) = panel.tables["lending"].items()
        assert bob.do(comm, "log", lending=lending)["data"] == {"entries": []}
        assert "answer" not in panel.parts["means"]["can"]

        friend = here.person("carol").notebook(CONNECTED)
        friend.run("f = c.submit(pow, 2, 10)")
        asked = row("questions")
        # What the friend's own panel says, of which this is the row's source.
        said = "answer = [entry.words for entry in c._core.record.entries.values() if entry.state.value == 'waiting']"
        eventually(
            lambda: re.fullmatch(r"""\["waiting for bob \(.*\)'s yes"\]""", friend.run(said)), "what it waits for"
        )
        assert (asked["name"], asked["label"], asked["kind"]) == ("carol", "pow", "call")
        assert asked["key"] == here.person("carol").fingerprint
        bob.until(lambda: "answer" in panel.parts["means"]["can"])
        assert not bob.do(comm, "answer", number=asked["number"], answer="perhaps")["ok"]
        assert bob.do(comm, "answer", number=asked["number"], answer="once")["say"] == "pow of carol may run."
        assert friend.run("answer = f.result(60)") == "1024"
        bob.until(lambda: not panel.tables["questions"])
        late = bob.do(comm, "answer", number=asked["number"], answer="once")
        assert "is not asked any more" in late["say"]

        friend.run("f = c.submit(abs, -3)")
        number = row("questions")["number"]
        assert bob.do(comm, "answer", number=number, answer="no")["say"] == "abs of carol does not run here."
        no = r"\['waiting for another worker, after bob \(.*\) refused it: its lender has said no'\]"
        eventually(lambda: re.fullmatch(no, friend.run(said)), "the refusal")
        bob.until(lambda: row("lending").get("logged") == 2)
        refused, done = bob.do(comm, "log", lending=lending)["data"]["entries"]
        assert (refused["member"], refused["label"], refused["outcome"]) == ("carol", "abs", "refused")
        assert refused["why"] == "its lender has said no"
        assert (done["label"], done["outcome"], done["why"]) == ("pow", "done", "")
        assert done["bytesIn"] > 0
        assert done["time"] <= refused["time"]
        assert not bob.do(comm, "log", lending="lend-9")["ok"]

        # A newcomer is named, with what that means, before anything of theirs is asked for or runs.
        alice, erin = here.person("alice"), here.person("erin")
        profile = owner.admit(alice.profiles.load(TITLE), alice.key, "erin", erin.fingerprint)
        alice.profiles.save(profile)
        erin.profiles.save(replace(profile, signer=erin.fingerprint, hosting=None))
        new = erin.notebook(CONNECTED)
        new.run("f = c.submit(pow, 2, 11)")
        bob.until(lambda: row("lending").get("news"))
        (news,) = row("lending")["news"]
        assert news == (
            f"erin ({erin.fingerprint}) is new in {TITLE}; until %p2p_lend --welcome erin, theirs don't run"
        )
        waits(new, "those that are here are for others")
        assert not panel.tables["questions"]
        assert row("lending")["unknown"] == {erin.fingerprint: "erin"}
        assert not bob.do(comm, "welcome", lending=lending, key="SHA256:nobody")["ok"]
        said = bob.do(comm, "welcome", lending=lending, key=erin.fingerprint)
        assert said["say"].startswith(f"You know erin in {TITLE}"), said
        asked = row("questions")
        assert asked["name"] == "erin"
        bob.until(lambda: "unknown" not in row("lending") or not row("lending")["unknown"])
        assert "You know alice, bob, carol, erin in" in bob.done("%p2p_lend --welcome").text
        assert "nobody in alice/friends is called 'zoe'" in bob.run("%p2p_lend --welcome zoe").traceback
        bob.done(f"%p2p_lend --yes {asked['number']}")
        assert new.run("answer = f.result(60)") == "2048"
