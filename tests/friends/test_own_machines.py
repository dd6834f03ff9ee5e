"""Machines of one person: some hold the same key, one has a key of its own, which the other one has vouched for."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from friends_support import Village, code_of, village

TITLE = f"{''.join(c for c in getpass.getuser().lower() if c.isalnum())}/mine"
MADE = """
class Made:
    "Travels as a pickle only."
    def __init__(self, n): self.n = n
    def __eq__(self, other): return self.n == other.n
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Village]:
    with village(tmp_path) as made:
        yield made


def connected(target: str, **options: str) -> str:
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return f"import p2p_ipython; c = p2p_ipython.connect({target!r}{given})"


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa"])
def test_a_machine_with_a_key_of_its_own_lends_and_computes_as_its_owner_does(here: Village, kind: str) -> None:
    owner, box = here.person("owner", kind), here.person("box")
    inviting = owner.p2p("invite", "--own", "mine", *here.way, tty=True)
    said = inviting.line("the guest types:  p2p join ")
    assert said.startswith("--own ")
    joining = box.p2p("join", *said.split(), "--name", "box")
    inviting.expect(f"with the key {box.fingerprint}.\nAdmit them to {TITLE} as a machine of your own?")
    inviting.type("yes\n")
    assert (inviting.wait(), joining.wait()) == (0, 0)
    joining.expect(f"p2p worker --cluster {TITLE}")
    assert "mine" in box.says("members")

    # Its worker is used on the owner's side, and what it sends may be anything: it is the owner's own.
    worker = box.worker(TITLE, "--name", "box-worker")
    side = {"cluster": "mine", "accept_host_key": here.board["fingerprint"]}
    notebook = owner.notebook(MADE + connected(here.where, **side))
    assert notebook.run("f = c.submit(Made, 7); answer = f.result(60) == Made(7), f.worker") == "(True, 'box-worker')"
    assert worker.end() == 0

    # Its notebook uses the workers that hold the owner's key, which take it for the owner's.
    lender = owner.p2p("worker", "--cluster", "mine", *here.way, "--name", "desk")
    lender.expect("Ctrl-C ends it")
    notebook = box.notebook(MADE + connected(TITLE))
    assert notebook.run("f = c.submit(Made, 8); answer = f.result(60) == Made(8), f.worker") == "(True, 'desk')"
    assert "SHA256" not in notebook.run("answer = str(c)")


def test_the_same_key_on_two_machines_is_one_member(here: Village) -> None:
    owner, other = here.person("owner"), here.person("other")
    shutil.copy(owner.key_file, other.key_file)
    worker = other.p2p("worker", *here.way)
    worker.expect("Ctrl-C ends it")
    notebook = owner.notebook(MADE + connected(here.where, accept_host_key=here.board["fingerprint"]))
    assert notebook.run("answer = c.submit(Made, 7).result(60) == Made(7)") == "True"


def test_another_ones_key_is_in_nobodys_personal_cluster_without_an_invitation(here: Village) -> None:
    owner, other = here.person("owner"), here.person("other")
    other.p2p("worker", "--cluster", "mine", *here.way).expect("Ctrl-C ends it")
    side = {"cluster": "mine", "accept_host_key": here.board["fingerprint"]}
    notebook = owner.notebook(connected(here.where, **side))
    notebook.run("f = c.submit(pow, 2, 3)")
    owner.p2p("worker", "--cluster", "mine", *here.way, "--name", "desk").expect("Ctrl-C ends it")
    assert notebook.run("answer = f.result(60), f.worker") == "(8, 'desk')"
    assert notebook.run("answer = [m.name for m in c.status().members]") == "['desk']"


def test_a_machine_of_ones_own_in_a_cluster_of_friends_counts_as_its_owner(here: Village) -> None:
    alice, bob, box = here.person("alice"), here.person("bob"), here.person("box")
    here.found("bob")
    inviting = alice.p2p("invite", "friends", "--own", "--yes")
    assert box.p2p("join", *code_of(inviting).split(), "--name", "box").wait() == 0
    assert inviting.wait() == 0
    box.worker("alice/friends", "--name", "cellar")
    notebook = alice.notebook(MADE + connected("alice/friends"))
    assert notebook.run("f = c.submit(Made, 7); answer = f.result(60) == Made(7), f.worker") == (
        "(True, 'alice (cellar)')"
    )
    others = bob.notebook(MADE + connected("alice/friends"))
    assert others.run("f = c.submit(pow, 2, 3); answer = f.result(60), f.worker") == "(8, 'alice (cellar)')"
    assert others.fails("c.submit(Made, 7).result(60)").startswith("NotTrusted: the result of alice is here")


def test_a_code_for_a_friend_is_none_for_a_machine_of_ones_own(here: Village) -> None:
    alice, bob = here.person("alice"), here.person("bob")
    here.found()
    inviting = alice.p2p("invite", "friends", "--yes")
    said = bob.says("join", "--own", *code_of(inviting).split(), status=1)
    assert "no invitation of a machine of the owner's own" in said
    assert "join without --own" in said
    assert inviting.wait() == 1
    assert bob.fingerprint not in alice.says("members", "friends")
