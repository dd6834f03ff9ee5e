"""Friends on a board with all the weaknesses of pico's: lines that are cut, topics that stall, no mailbox of its own.

Mailbox and relay are those of a local server; what the host is told of them reaches the members with the invitation.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest
from board_support import Key, make_key, on_topic, pico_board
from board_support import until as until_it_is
from friends_support import Program, Village, code_of, eventually, on_the_loop
from link_support import Servers, servers

from p2p_ipython.board.server.server import BoardServer
from p2p_ipython.protocol.roster import lobby_secret

TITLE = "alice/friends"
CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r}, request_every=0.5)"
TASK = "answer = c.submit(pow, 2, 10).result(60)"


class Quirky(Village):
    """People at a board like pico's."""

    server: BoardServer
    rendezvous: Servers

    @property
    def way(self) -> tuple[str, ...]:
        return (*super().way, "--mailbox", self.rendezvous.mailbox, "--relay", self.rendezvous.relay)

    def hosting(self, *arguments: str, tty: bool = False) -> Program:
        host = self.person("alice").p2p("-v", "host", "friends", *self.way, "--owner", "alice", *arguments, tty=tty)
        host.expect("Ctrl-C ends the hosting")
        return host

    def everything(self) -> None:
        """Make a cluster of friends who know the mailbox and the relay from its profile."""
        self.found("bob", "carol", mailbox=self.rendezvous.mailbox, relay=self.rendezvous.relay)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Quirky]:
    made = Quirky(tmp_path)
    with on_the_loop(pico_board()) as made.server, on_the_loop(servers()) as made.rendezvous:
        where = made.server.addresses
        made.board = {
            "ssh": {"host": where.host, "port": where.port},
            "fingerprint": where.fingerprint,
            "host_key": where.host_key,
        }
        try:
            yield made
        finally:
            made.end()


def test_friends_come_in_lend_and_leave_with_several_processes_of_the_host(here: Quirky) -> None:
    alice, bob, carol = (here.person(name) for name in ("alice", "bob", "carol"))
    host = here.hosting("--users", f"carol={carol.fingerprint}")
    inviting = alice.p2p("invite", "friends", "bob", "--yes")
    code = code_of(inviting)
    assert here.rendezvous.mailbox in code
    assert bob.p2p("join", *code.split()).wait() == 0
    assert inviting.wait() == 0
    knocking = carol.p2p("join", TITLE, *here.way, "--name", "carol", "--owner", alice.fingerprint)
    assert knocking.wait() == 0
    bob.worker(TITLE, "--name", "box")
    notebooks = [person.notebook(CONNECTED) for person in (alice, carol)]
    for notebook in notebooks:
        assert notebook.run(TASK) == "1024"
    assert "carol is out of alice/friends" in alice.says("revoke", "friends", "carol", "--yes")
    assert "NotAdmitted" in notebooks[1].fails("c.submit(pow, 2, 3).result(60)")
    assert notebooks[0].run(TASK) == "1024"
    assert host.end() == 0
    assert "alice/friends is not hosted here any more; p2p host friends continues it" in host.text
    assert notebooks[0].run(TASK) == "1024"


def test_a_board_that_does_not_know_its_users_by_name_tells_by_its_list_of_topics(tmp_path: Path) -> None:
    made = Quirky(tmp_path)
    alice, nobody = made.person("alice"), made.person("nobody")
    with on_the_loop(pico_board(users_inline={"alice": alice.public_line})) as server:
        where = f"{server.addresses.host}:{server.addresses.port}"
        pin = ("--accept-host-key", server.addresses.fingerprint)
        try:
            assert f"on {where}: alice" in alice.says("whoami", "--board", where, *pin)
            assert f"on {where}: no account; the board lets" in nobody.says("whoami", "--board", where, *pin)
        finally:
            made.end()


def test_members_work_before_the_host_is_there_and_while_it_comes_and_goes(here: Quirky) -> None:
    here.everything()
    alice, bob, carol, dave = (here.person(name) for name in ("alice", "bob", "carol", "dave"))
    worker = carol.worker(TITLE)
    notebook = bob.notebook(CONNECTED)
    assert notebook.run(TASK) == "1024"
    for number in (signal.SIGKILL, signal.SIGINT):
        host = here.hosting()
        assert notebook.run(TASK) == "1024"
        host.end(number)
        assert notebook.run(TASK) == "1024"
    host = here.hosting("--users", f"dave={dave.fingerprint}")
    assert dave.p2p("join", TITLE, *here.way, "--name", "dave", "--owner", alice.fingerprint).wait() == 0
    assert dave.notebook(CONNECTED).run(TASK) == "1024"
    assert worker.process.poll() is None


def test_when_all_but_one_have_left_others_can_come_again(here: Quirky) -> None:
    here.everything()
    alice, bob, carol = (here.person(name) for name in ("alice", "bob", "carol"))
    worker = carol.worker(TITLE)
    notebook = bob.notebook(CONNECTED)
    assert notebook.run(TASK) == "1024"
    other = alice.notebook(CONNECTED)
    assert other.run(TASK) == "1024"
    # The worker is alone on the topic after both; it is cut then, and has to come back.
    notebook.run("c.close()")
    other.run("c.close()")
    notebook.run(CONNECTED)
    assert notebook.run(TASK) == "1024"
    assert worker.end() == 0
    notebook.run("f = c.submit(pow, 2, 11)")
    again = carol.worker(TITLE)
    assert notebook.run("answer = f.result(60)") == "2048"
    assert again.process.poll() is None


@asynccontextmanager
async def stalled(server: BoardServer, key: Key, topic: str) -> AsyncIterator[None]:
    """Somebody joins a public topic, writes into it, and never reads: from then on nobody hears anything."""
    options = {"known_hosts": None, "client_keys": [key.key], "config": None, "agent_path": None}
    connection = await asyncssh.connect("127.0.0.1", server.addresses.port, **options)
    writing = await asyncssh.connect("127.0.0.1", server.addresses.port, **options)
    try:
        before = on_topic(server, f"public/{topic}")
        _, reader, _ = await connection.open_session(f"pipe {topic} -r -p", encoding=None, window=1 << 10)
        reader.channel.pause_reading()
        await until_it_is(lambda: on_topic(server, f"public/{topic}") == before + 1)
        writer = await writing.create_process(f"pipe {topic} -p", encoding=None)
        writer.stdin.write(256 * (1023 * b"x" + b"\n"))
        await until_it_is(lambda: server.held_up)
        yield
    finally:
        for one in (connection, writing):
            one.abort()
            await one.wait_closed()


def test_a_stranger_who_stalls_the_lobby_keeps_nobody_from_working_or_from_inviting(
    here: Quirky, tmp_path: Path
) -> None:
    here.everything()
    alice, bob, carol, dave, erin = (here.person(name) for name in ("alice", "bob", "carol", "dave", "erin"))
    lobby = lobby_secret(TITLE).topic
    stranger = make_key(tmp_path, "stranger")
    with on_the_loop(stalled(here.server, stranger, lobby)):
        host = here.hosting("--users", f"dave={dave.fingerprint}")
        carol.worker(TITLE)
        notebook = bob.notebook(CONNECTED)
        assert notebook.run(TASK) == "1024"
        inviting = alice.p2p("invite", "friends", "erin", "--yes")
        assert erin.p2p("join", *code_of(inviting).split()).wait() == 0
        assert inviting.wait() == 0
        assert erin.notebook(CONNECTED).run(TASK) == "1024"
        knocking = dave.p2p("join", TITLE, *here.way, "--name", "dave", "--owner", alice.fingerprint)
        knocking.expect("nobody answers for alice yet")
        assert notebook.run(TASK) == "1024"
        assert knocking.process.poll() is None
    # As soon as they have gone, guests who knock are heard.
    assert knocking.wait() == 0
    assert host.process.poll() is None


def test_who_is_linked_already_works_on_while_a_stranger_stalls_the_very_topic(here: Quirky, tmp_path: Path) -> None:
    here.everything()
    bob, carol = here.person("bob"), here.person("carol")
    topic = bob.profiles.load(TITLE).topic
    carol.worker(TITLE)
    notebook = bob.notebook(CONNECTED)
    assert notebook.run(TASK) == "1024"
    with on_the_loop(stalled(here.server, make_key(tmp_path, "stranger"), topic)):  # who would have to know the topic
        for _ in range(3):
            assert notebook.run(TASK) == "1024"
        late = here.person("alice").notebook(CONNECTED)
        late.run("f = c.submit(pow, 2, 10)")
        assert notebook.run(TASK) == "1024"
        assert late.run("answer = f.done()") == "False"
    assert late.run("answer = f.result(60)") == "1024"
    eventually(lambda: late.run("answer = len(c.status().members)") == "1")
