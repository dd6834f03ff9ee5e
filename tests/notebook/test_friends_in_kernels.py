"""Two friends, each at a real kernel with a home and a key of their own, over a real board."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from wormhole._wordlist import odd_words_lowercase

from tests.cli_support import Home
from tests.notebook.kernels import DEADLINE, Cell, Notebook, notebook

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

    def notebook(self, name: str, kind: type[Notebook] = Notebook) -> Any:
        made = self.stack.enter_context(notebook({**self.home(name).environment, "LOGNAME": name}, kind=kind))
        made.done("%load_ext p2p_ipython")
        return made

    def host(self, who: Notebook, *options: str) -> Cell:
        return who.done(
            f"%p2p_host friends --owner alice --board {self.address} --accept-host-key {self.host_key} "
            + " ".join(options)
        )

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
    """Return the arguments that the guest types after %p2p_join."""
    found = re.search(r"%p2p_join (.+)", cell.shown)
    assert found is not None, cell.shown
    return found[1]


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
    alice.until(lambda: "Members: alice (you), bob." in hosting.shown)

    people.worker("bob")
    connected = alice.run("%p2p_connect alice/friends")
    assert connected.error is None, connected.error
    assert (connected.status_line or "").startswith("Connected: alice/friends.")
    assert alice.run("%%p2p --wait\nsum(range(10))").value == "45"
    assert "I am:     alice\n" in alice.run("%p2p_status").shown

    # What only a pickle can carry is shown, and kept until bob is trusted.
    source = "class Strange:\n    def __repr__(self): return 'a strange thing'\nStrange()"
    seen = alice.run(f"%%p2p --wait\n{source}")
    assert (seen.error, "a strange thing" in seen.shown, "%p2p_trust bob" in seen.text) == (None, True, True)
    assert alice.run("%%p2p --wait\n{}['k']").error is not None
    assert alice.run("_p2p.exception().args").value == "('k',)"
    alice.run("%%p2p strange\nprint('it ran')\nclass Strange:\n    pass\nStrange")
    refused = alice.run("strange.result()")
    assert refused.error is not None
    assert refused.error["ename"] == "NotTrusted"
    assert "%p2p_trust bob" in refused.traceback
    assert "may be of any type now" in alice.run("%p2p_trust bob").text
    assert alice.run("strange.result().__name__").value == "'Strange'"
    assert alice.run("''.join(o['text'] for o in strange.outputs if o['kind'] == 'stream')").value == r"'it ran\n'"
    (members,) = alice.run("%p2p_members").of("display_data")
    text = members["data"]["text/plain"]
    assert re.search(rf"alice \(you\) +{FINGERPRINT} +owner, client, worker +yours +0", text), text
    assert re.search(rf"bob +{FINGERPRINT} +client, worker +of any type \(trusted\) +1", text), text

    bob_connected = bob.run("%p2p_connect alice/friends --as cluster")
    assert bob_connected.error is None, bob_connected.error
    out = alice.run("%p2p_revoke friends bob")
    assert "bob is removed from alice/friends" in out.text
    bob.until(lambda: bob.run("'revoked your membership' in str(cluster.status().note)").value == "True")
    late = bob.run("cluster.submit(pow, 2, 3).result(60)")
    assert "revoked your membership" in late.traceback


def knocking(people: People, who: Notebook, name: str, *options: str) -> Cell:
    """Knock at alice's, which is answered in moments or behind the scenes."""
    where = f"--board {people.address} --accept-host-key {people.host_key} --name {name} --wait"
    return who.start(f"%p2p_join alice/friends {where} {' '.join(options)}")


def test_a_knock_is_shown_under_the_hosts_cell_and_answered_there_or_by_a_button(people: People) -> None:
    alice, bob, carol = people.notebook("alice"), people.notebook("bob"), people.notebook("carol")
    hosting = people.host(alice)
    owner = re.search(FINGERPRINT, hosting.shown)
    assert owner is not None

    # The name proves nothing: two guests of the same name are told apart by their keys.
    first = knocking(people, bob, "bob", "--owner", owner[0])
    alice.until(lambda: "%p2p_approve bob" in hosting.shown)
    second = knocking(people, carol, "bob", "--owner", owner[0])
    alice.until(lambda: hosting.shown.count("%p2p_approve") == 2)
    both = alice.run("%p2p_approve bob")
    assert "2 of those who wait are called 'bob'" in both.traceback
    key = re.search(FINGERPRINT, people.home("carol").run("whoami").stdout)
    assert key is not None
    assert f"{key[0]}, is refused" in alice.run(f"%p2p_refuse {key[0][:15]}").text
    carol.until(lambda: second.idle)
    assert "does not want you" in second.traceback

    # The front end has buttons for who is left: one widget a button, whose click counts while a cell computes, too.
    (button,) = [
        comm.id
        for comm in alice.comms.values()
        if comm.widget.get("description") == "Let bob in" and comm.widget["tooltip"] != key[0]
    ]
    assert any("application/vnd.jupyter.widget-view+json" in c["data"] for c in hosting.of("display_data"))
    subshell = alice.subshell()
    free = people.folder / "free"
    busy = alice.start(f"import pathlib, time\nwhile not pathlib.Path({str(free)!r}).exists(): time.sleep(0.01)")
    if subshell is None:
        free.touch()
    alice.say(button, {"method": "custom", "content": {"event": "click"}}, subshell=subshell)
    alice.until(lambda: "bob is in, with the key" in hosting.shown)
    assert subshell is None or not busy.idle
    free.touch()
    assert "%p2p_approve" not in hosting.shown
    alice.until(lambda: any(not c["data"] for c in hosting.of("update_display_data")))  # the buttons are gone
    bob.until(lambda: first.idle and "You are in alice/friends" in first.shown)
    assert bob.run("%p2p_connect alice/friends").error is None


def test_a_host_in_another_process_is_respected_and_the_end_of_a_kernel_ends_its_own(people: People) -> None:
    alice = people.notebook("alice")
    people.host(alice)
    inviting = alice.run("%p2p_invite friends bob")
    process = psutil.Process(kernel_pid(alice))
    other = people.notebook("alice")
    refused = other.run("%p2p_host friends")
    assert "another process of yours hosts alice/friends already" in refused.traceback
    # Inviting and removing need no host of this kernel's own.
    elsewhere = other.run("%p2p_invite friends carol --yes")
    joined = people.home("carol").run("join", *code_of(elsewhere).split(), "--name", "carol")
    assert joined.returncode == 0, joined.stderr
    other.until(lambda: "carol is in alice/friends" in elsewhere.shown)
    assert "carol is removed from" in other.run("%p2p_revoke friends carol").text

    # The end of a kernel ends its invitation, too: a guest who waits for the yes is told at once.
    with people.home("bob").running("join", *code_of(inviting).split(), "--name", "bob") as guest:
        alice.until(lambda: "%p2p_approve bob" in inviting.shown)
        children = process.children(recursive=True)
        alice.manager.shutdown_kernel()
        assert "the host has left before the end" in guest.communicate(timeout=DEADLINE)[1]
    assert not process.is_running()
    assert not psutil.wait_procs(children, DEADLINE)[1]
    assert other.run("%p2p_host friends").error is None  # its lock is free
    assert other.run("%unload_ext p2p_ipython").error is None
    asking = "import asyncio, p2p_ipython.loop as l\nlen(asyncio.all_tasks(l.background().loop))"
    other.until(lambda: other.run(asking).value == "0")


def kernel_pid(one: Notebook) -> int:
    value = one.run("import os; os.getpid()").value
    assert value is not None
    return int(value)


def test_waiting_for_a_guest_or_for_a_yes_can_be_interrupted_and_leaves_nothing(people: People) -> None:
    alice, bob = people.notebook("alice"), people.notebook("bob")
    people.host(alice)
    tasks = "import asyncio, p2p_ipython.loop as l\nlen(asyncio.all_tasks(l.background().loop))"
    before = alice.run(tasks).value

    waiting = alice.start("%p2p_invite friends bob --wait")
    alice.until(lambda: "%p2p_join" in waiting.shown)
    joining = bob.start(f"%p2p_join {code_of(waiting)} --wait")
    bob.until(lambda: "Waiting for the owner's yes" in joining.shown)
    bob.manager.interrupt_kernel()
    bob.until(lambda: joining.idle)
    assert "the code is used up" in joining.traceback
    bob.until(lambda: bob.run(tasks).value == "0")
    # The guest has left before anybody had answered; here is no front end that could ask.
    alice.until(lambda: waiting.idle)
    assert any(words in waiting.traceback for words in ("has left before the end", "nobody to answer here"))

    waiting = alice.start("%p2p_invite friends bob --wait")
    alice.until(lambda: "%p2p_join" in waiting.shown)
    alice.manager.interrupt_kernel()
    alice.until(lambda: waiting.idle)
    assert "the invitation was withdrawn" in waiting.traceback
    alice.until(lambda: alice.run(tasks).value == before)


def test_a_guest_without_a_key_is_told_how_to_have_one_made_and_a_wrong_code_burns(people: People) -> None:
    alice, bob = people.notebook("alice"), people.notebook("bob")
    for file in people.home("bob").key_file.parent.iterdir():
        file.unlink()
    people.host(alice)
    inviting = alice.run("%p2p_invite friends bob --yes")
    right = code_of(inviting)
    keyless = bob.run(f"%p2p_join {right}")
    assert keyless.error is not None
    assert keyless.error["ename"] == "NoKey"
    assert "--make-key" in keyless.traceback
    word = right.split()[0].rpartition("-")[2]
    wrong = right.replace(word, next(other for other in sorted(odd_words_lowercase) if other != word), 1)
    burnt = bob.run(f"%p2p_join {wrong} --make-key")
    assert burnt.error is not None
    assert burnt.error["ename"] == "WrongPeer"
    assert people.home("bob").key_file.exists()
    alice.until(lambda: "wrong code" in inviting.shown)

    again = alice.run("%p2p_invite friends --yes")
    welcome = bob.run(f"%p2p_join {code_of(again)} --name bob --wait")
    assert welcome.error is None, welcome.error
    assert "You are in alice/friends" in welcome.shown
    alice.until(lambda: "bob is in alice/friends" in again.shown)
    assert right.split()[0] not in again.shown  # a saved notebook keeps no code
    forgotten = bob.run("%p2p_leave alice/friends")
    assert forgotten.text == "alice/friends is forgotten on this machine.\n"
    assert "No clusters yet" in bob.run("%p2p_members").text


def test_connecting_to_a_cluster_that_one_is_not_in_knocks_and_says_what_comes_of_it(people: People) -> None:
    alice, bob = people.notebook("alice"), people.notebook("bob")
    hosting = people.host(alice)
    owner = re.search(FINGERPRINT, hosting.shown)
    assert owner is not None
    line = f"%p2p_connect alice/friends --name bob --board {people.address} --accept-host-key {people.host_key}"
    first = bob.run(line)
    assert first.error is not None
    assert first.error["ename"] == "NotAdmitted"
    bob.until(lambda: "waiting for alice's approval" in first.shown)
    alice.until(lambda: "%p2p_approve bob" in hosting.shown)
    assert "robert is in alice/friends" in alice.run("%p2p_approve bob --as robert").text
    bob.until(lambda: "alice/friends lets you in: run the line again" in first.shown)
    unsure = bob.run(line)  # whoever answered is to be confirmed, unless it was said before who must
    assert f"--owner {owner[0]}" in unsure.traceback
    wrong = bob.run(f"{line} --owner SHA256:{'A' * 43}")
    assert owner[0] in wrong.traceback
    right = bob.run(f"{line} --owner {owner[0]}")
    assert (right.status_line or "").startswith("Connected: alice/friends")


def test_a_machine_of_ones_own_is_invited_into_a_personal_cluster(people: People) -> None:
    alice, laptop = people.notebook("alice"), people.notebook("laptop")
    where = f"--own --board {people.address} --accept-host-key {people.host_key}"
    inviting = alice.run(f"%p2p_invite mine {where}")
    joining = laptop.start(f"%p2p_join {code_of(inviting)} --name laptop --wait")
    alice.until(lambda: "as a machine of your own?" in inviting.shown)
    assert "Leave --as out" in alice.run("%p2p_approve laptop --as other").traceback
    assert "as a machine of your own, with the key" in alice.run("%p2p_approve laptop").text
    laptop.until(lambda: joining.idle)
    assert joining.error is None, joining.error
    assert re.search(r"You are in \w+/mine", joining.shown)
