"""The only key is in OpenSSH's agent, and in no file. An agent may ask its user at each signature, so they are few."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from friends_support import Person, Village, code_of, eventually, village

pytestmark = pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="OpenSSH's agent is not installed")

TITLE = "alice/friends"


@contextmanager
def agent_of(person: Person, folder: Path) -> Iterator[Callable[[], int]]:
    """Move somebody's key into an agent; gives a function that counts the signatures it was asked for."""
    socket, log = folder / f"{person.name}.agent", folder / f"{person.name}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            ["ssh-agent", "-d", "-a", str(socket)], stdout=subprocess.DEVNULL, stderr=file, env=person.environment
        )
    try:
        person.fingerprint  # known from now on, without the file
        eventually(socket.exists, "the agent's socket")
        person.environment["SSH_AUTH_SOCK"] = str(socket)
        subprocess.run(["ssh-add", "-q", str(person.key_file)], env=person.environment, check=True)
        person.key_file.unlink()
        assert list(person.key_file.parent.iterdir()) == []
        yield lambda: log.read_text().count(" type 13\n")
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Village]:
    with village(tmp_path) as made:
        yield made


def test_host_join_lend_and_connect_with_keys_that_only_agents_have(here: Village, tmp_path: Path) -> None:
    alice, bob = here.person("alice"), here.person("bob")
    prints = {"alice": alice.fingerprint, "bob": bob.fingerprint}
    with agent_of(alice, tmp_path) as of_alice, agent_of(bob, tmp_path) as of_bob:
        asked = {}
        host = alice.p2p("host", "friends", *here.way, "--owner", "alice")
        host.expect("Ctrl-C ends the hosting")
        asked["host"] = of_alice()
        inviting = alice.p2p("invite", "friends", "bob", "--yes")
        assert bob.p2p("join", *code_of(inviting).split()).wait() == 0
        assert inviting.wait() == 0
        asked["invite"] = of_alice() - sum(asked.values())
        asked["join"] = of_bob()
        said = alice.says("members", "friends")
        assert all(key in said for key in prints.values())
        asked["members"] = of_alice() - asked["host"] - asked["invite"]
        worker = bob.worker(TITLE)
        asked["worker"] = of_bob() - asked["join"]
        notebook = alice.notebook(f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r})")
        for n in range(20):
            assert notebook.run(f"answer = c.submit(pow, 2, {n}).result(60)") == str(2**n)
        asked["connect"] = of_alice() - asked["host"] - asked["invite"]
        assert worker.process.poll() is None
        # Each way to the board is a login; each session has a certificate; each roster is signed.
        most = {"join": 1, "connect": 2, "worker": 2, "members": 0, "host": 6, "invite": 6}
        assert {what: number for what, number in asked.items() if not 0 <= number <= most[what]} == {}, asked
        assert asked["connect"] > 0
