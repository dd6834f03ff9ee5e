"""Two friends, each at a real kernel with a home and a key of his own, over a real board."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli_support import DEADLINE, Home
from tests.notebook.kernels import Cell, Notebook, notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}"


@dataclass
class People:
    """A board, and notebooks of people who meet there."""

    board: dict[str, Any]
    folder: Path
    stack: ExitStack
    homes: dict[str, Home] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{self.board['ssh']['host']}:{self.board['ssh']['port']}"

    @property
    def host_key(self) -> str:
        return str(self.board["fingerprint"])

    def home(self, name: str) -> Home:
        if name not in self.homes:
            self.homes[name] = Home(self.folder / name)
        return self.homes[name]

    def notebook(self, name: str) -> Notebook:
        made = self.stack.enter_context(notebook({**self.home(name).environment, "LOGNAME": name}))
        assert made.run("%load_ext p2p_ipython").error is None
        return made

    def host(self, who: Notebook, *options: str) -> Cell:
        cell = who.run(
            f"%p2p_host friends --owner alice --board {self.address} --accept-host-key {self.host_key} "
            + " ".join(options)
        )
        assert cell.error is None, cell.error
        return cell

    def worker(self, name: str) -> subprocess.Popen[str]:
        process = self.stack.enter_context(self.home(name).running("worker", "--cluster", "alice/friends"))
        assert process.stdout is not None
        assert "lends" in process.stdout.readline()
        return process


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    board = Home(tmp_path / "board")
    with board.running("board", "--port", "0", "--json") as process, ExitStack() as stack:
        assert process.stdout is not None
        yield People(json.loads(process.stdout.readline()), tmp_path, stack)


def code_of(cell: Cell) -> str:
    """What the guest types behind %p2p_join."""
    found = re.search(r"%p2p_join (.+)", cell.shown)
    assert found is not None, cell.shown
    return found[1]


def shown_error(cell: Cell) -> str:
    assert cell.error is not None, cell.shown
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(cell.error["traceback"]))


def test_the_whole_story(people: People) -> None:
    alice, bob = people.notebook("alice"), people.notebook("bob")
    hosting = people.host(alice)
    assert "alice/friends is hosted from this notebook" in hosting.shown
    assert "Members: alice (you)." in hosting.shown

    # An invitation goes on behind the scenes; what is to be done about the guest is said under its cell.
    inviting = alice.run("%p2p_invite friends bob")
    assert inviting.error is None, inviting.error
    joining = bob.start(f"%p2p_join {code_of(inviting)}")
    alice.until(lambda: "%p2p_approve bob" in inviting.shown)
    assert people.home("bob").key_file.exists()
    assert re.search(FINGERPRINT, inviting.shown)
    approved = alice.run("%p2p_approve bob")
    assert "bob is in alice/friends" in approved.text
    bob.until(lambda: joining.idle and "You are in alice/friends" in joining.shown)
    alice.until(lambda: "bob is in alice/friends" in inviting.shown)

    people.worker("bob")
    connected = alice.run("%p2p_connect alice/friends")
    assert connected.error is None, connected.error
    assert (connected.status_line or "").startswith("Connected: alice/friends.")
    assert alice.run("%%p2p --wait\nsum(range(10))").value == "45"

    # What only a pickle can carry is kept until bob is trusted.
    alice.run("open('runs', 'w').close()")
    alice.run("%%p2p strange\nprint('it ran')\nclass Strange:\n    pass\nStrange")
    refused = alice.run("strange.result()")
    assert refused.error is not None
    assert refused.error["ename"] == "NotTrusted"
    assert "%p2p_trust bob" in shown_error(refused)
    assert "may be of any type now" in alice.run("%p2p_trust bob").text
    assert alice.run("strange.result().__name__").value == "'Strange'"
    assert alice.run("len([o for o in strange.outputs if o['kind'] == 'stream'])").value == "1"
    (members,) = alice.run("%p2p_members").of("display_data")
    text = members["data"]["text/plain"]
    assert re.search(rf"alice \(you\) +{FINGERPRINT} +owner, client, worker +yours +0", text), text
    assert re.search(rf"bob +{FINGERPRINT} +client, worker +of any type \(trusted\) +1", text), text

    bob_connected = bob.run("%p2p_connect alice/friends --as cluster")
    assert bob_connected.error is None, bob_connected.error
    out = alice.run("%p2p_revoke friends bob")
    assert "bob is out of alice/friends" in out.text
    bob.until(lambda: bob.run("'taken you out' in str(cluster.status().note)").value == "True")
    late = bob.run("cluster.submit(pow, 2, 3).result(60)")
    assert "taken you out" in shown_error(late)
