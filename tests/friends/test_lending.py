"""A notebook lends its machine to a real cluster of friends, over a real board: for whom, pauses, and its end."""

from __future__ import annotations

import ast
import signal
from pathlib import Path

import psutil
import pytest
from friends_support import Notebook, Village, eventually, pid_in, runs, waits

from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.sandbox.launch import MECHANISMS, mechanism
from p2p_ipython.sandbox.mechanisms import bubblewrap

TITLE = "alice/friends"
CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r}, request_every=0.5, presence=1)"
LENDING = """
from p2p_ipython.client.lending import lender
from p2p_ipython.client.lending_state import lending_text
L = lender()
"""


@pytest.fixture
def here(here: Village) -> Village:
    """With a cluster of alice's, and three members."""
    here.found("bob", "carol", "dave")
    return here


def ended(notebook: Notebook) -> None:
    """Nothing is lent any more. On a slow machine that takes longer than ``stop`` does."""
    eventually(lambda: notebook.run("answer = L.states()") == "()", "the end of the worker")


def workers_of(notebook: Notebook) -> list[int]:
    """The processes that lend, of a notebook, their runners included."""
    return [child.pid for child in psutil.Process(notebook.program.process.pid).children(recursive=True)]


def test_a_notebook_lends_pauses_goes_on_and_stops(here: Village) -> None:
    bob = here.person("bob").notebook(LENDING)
    lent = bob.run(
        f"s = L.lend({TITLE!r}, slots=2, name='desk', tags=['gpu'], seconds=3600);"
        "answer = (s.title, s.name, s.state, s.slots, s.tags, s.until > 0)"
    )
    assert ast.literal_eval(lent) == (TITLE, "desk", "lending", 2, ("gpu",), True)
    friend = here.person("carol").notebook(CONNECTED)
    assert friend.run("f = c.submit(pow, 2, 10); answer = f.result(60), f.worker") == "(1024, 'bob (desk)')"
    eventually(lambda: "1" in bob.run("answer = L.states()[0].used[0]"), "a task that is counted")
    assert bob.run("answer = list(L.states()[0].usage)") == repr([here.person("carol").fingerprint])

    assert bob.run("answer = L.pause(s.id).state") == "'paused'"
    friend.run("f = c.submit(pow, 2, 11)")
    waits(friend, "those that are here are paused")
    assert "bob (desk)" in friend.run("answer = str(c)")
    assert bob.run("answer = L.resume(s.id).state") == "'lending'"
    assert friend.run("answer = f.result(60), f.worker") == "(2048, 'bob (desk)')"

    processes = workers_of(bob)
    assert len(processes) >= 3  # the worker, and a runner for each slot
    bob.run("L.stop(s.id)")
    ended(bob)
    friend.run("f = c.submit(pow, 2, 12)")
    waits(friend, "waiting for a worker: none is here")
    eventually(lambda: not any(map(runs, processes)), "the end of all that was started")


@pytest.mark.skipif(bubblewrap.available() is not None, reason="bubblewrap is not here")
def test_a_friends_task_reads_what_the_lender_shares(here: Village, tmp_path: Path) -> None:
    table = tmp_path / "data" / "table.csv"
    table.parent.mkdir(mode=0o755)
    table.write_text("1,2")
    bob = here.person("bob").notebook(LENDING)
    lent = f"L.lend({TITLE!r}, sandbox='bubblewrap', mounts=[{str(table.parent)!r}])"
    assert f"but for {table.parent} (to read)" in bob.run(f"answer = lending_text({lent})")
    friend = here.person("carol").notebook(CONNECTED)
    assert friend.run(f"f = c.submit(lambda: open({str(table)!r}).read()); answer = f.result(60)") == "'1,2'"


def test_what_is_lent_to_one_friend_runs_no_tasks_of_another(here: Village) -> None:
    bob = here.person("bob").notebook(LENDING)
    bob.run(f"s = L.lend({TITLE!r}, name='desk', only=['carol'])")
    other = here.person("dave").notebook(CONNECTED)
    other.run("f = c.submit(pow, 2, 10)")
    waits(other, "waiting for a worker: those that are here are for others")
    # His program may be another one, that doesn't heed what an offer says.
    other.run("import p2p_ipython.protocol.client_machine as m; m.ClientMachine._is_for_us = lambda *_: True")
    waits(other, "waiting for a link to bob")
    friend = here.person("carol").notebook(CONNECTED)
    for number in range(3):
        assert friend.run(f"f = c.submit(pow, 2, {number}); answer = f.result(60)") == str(2**number)
    # Oneself is always welcome.
    mine = here.person("bob").notebook(CONNECTED)
    assert mine.run("answer = c.submit(pow, 2, 10).result(60)") == "1024"
    users = repr(sorted(here.person(name).fingerprint for name in ("bob", "carol")))
    eventually(lambda: bob.run("answer = sorted(L.states()[0].usage)") == users, "the last task that is counted")
    assert other.run("answer = f.done()") == "False"


def test_a_friends_task_reads_and_erases_nothing_of_the_lenders(here: Village) -> None:
    lender = here.person("bob")
    if all(mechanism(name).available() is not None for name in MECHANISMS if name != NO_WALL):
        pytest.skip("no sandbox is installed")
    home = Path(lender.environment["HOME"])
    diary = home / "diary.txt"
    diary.write_text("dear diary")
    bob = lender.notebook(LENDING)
    bob.run(f"s = L.lend({TITLE!r}, name='desk')")
    assert "Tasks run in a sandbox (" in bob.run("answer = lending_text(s)")
    friend = here.person("carol").notebook(CONNECTED)
    friend.run(
        "def attempt(home, key):\n"
        " import os, shutil\n"
        " found = [os.path.exists(home + '/diary.txt')]\n"
        " shutil.rmtree(home, ignore_errors=True)\n"
        " try: open(key).read(); found.append('read it')\n"
        " except OSError: pass\n"
        " return found"
    )
    friend.run(f"f = c.submit(attempt, {str(home)!r}, {str(lender.key_file)!r}); answer = f.result(60)")
    assert "read it" not in friend.run("answer = f.result()")
    assert diary.read_text() == "dear diary"
    assert lender.key_file.exists()


def test_a_task_that_runs_ends_in_a_pause_and_before_a_stop(here: Village, tmp_path: Path) -> None:
    bob = here.person("bob").notebook(LENDING)
    bob.run(f"s = L.lend({TITLE!r}, sandbox='process')")  # its tasks tell by files
    friend = here.person("carol").notebook(CONNECTED)
    go, begun = tmp_path / "go", tmp_path / "begun"
    friend.run(
        f"def work(n):\n import os, time\n open({str(begun)!r} + str(n), 'w').write(f'{{os.getpid()}}\\n')\n"
        f" while not os.path.exists({str(go)!r} + str(n)): time.sleep(0.02)\n return n"
    )
    friend.run("first = c.submit(work, 1)")
    pid_in(tmp_path / "begun1")
    bob.run("L.pause(s.id)")
    waits(friend, "'on bob", "first")
    (tmp_path / "go1").touch()
    assert friend.run("answer = first.result(60)") == "1"
    bob.run("L.resume(s.id)")
    friend.run("second = c.submit(work, 2)")
    pid_in(tmp_path / "begun2")
    assert bob.run("answer = L.stop(s.id).state") == "'ending'"
    eventually(lambda: bob.run("answer = L.states()[0].state, L.states()[0].busy") == "('ending', 1)", "what it says")
    (tmp_path / "go2").touch()
    assert friend.run("answer = second.result(60)") == "2"
    ended(bob)


def test_what_is_stopped_twice_or_before_it_began_ends_at_once_and_may_be_paused_before(
    here: Village, tmp_path: Path
) -> None:
    bob = here.person("bob").notebook(LENDING)
    bob.run(
        "import threading, time; raised = []\n"
        "def lend():\n"
        f" try: L.lend({TITLE!r})\n"
        " except Exception as error: raised.append(error)\n"
        "begun = threading.Thread(target=lend); begun.start()\n"
        "while not L.states(): time.sleep(0.01)\n"
        "L.stop(L.states()[0].id); begun.join(60)"
    )
    assert "was stopped before it began" in bob.run("answer = raised, L.states()")
    bob.run("begun = threading.Thread(target=lend); begun.start()\nwhile not L.states(): time.sleep(0.01)")
    assert bob.run("answer = L.pause(L.states()[0].id).state") == "'paused'"
    assert bob.run("begun.join(60); answer = L.states()[0].state") == "'paused'"
    bob.run("L.stop(L.states()[0].id)")
    ended(bob)
    bob.run(f"s = L.lend({TITLE!r}, sandbox='process')")  # its tasks tell by files
    friend = here.person("carol").notebook(CONNECTED)
    path = tmp_path / "begun"
    friend.run(
        f"def work():\n import os, time\n open({str(path)!r}, 'w').write(f'{{os.getpid()}}\\n')\n time.sleep(600)"
    )
    friend.run("f = c.submit(work)")
    runner = pid_in(path)
    assert bob.run("answer = L.stop(s.id).state") == "'ending'"
    assert bob.run("L.stop(s.id); answer = L.states()") == "()"
    eventually(lambda: not runs(runner), "the end of what ran")


@pytest.mark.parametrize("how", ["interrupted", "killed in the middle of a task"])
def test_nothing_is_left_behind_when_the_notebook_ends(here: Village, tmp_path: Path, how: str) -> None:
    bob = here.person("bob").notebook(LENDING)
    bob.run(f"s = L.lend({TITLE!r}, slots=2, sandbox='process')")
    processes = workers_of(bob)
    if how != "interrupted":
        friend = here.person("carol").notebook(CONNECTED)
        path = str(tmp_path / "begun")
        friend.run(
            f"def work():\n import os, time\n open({path!r}, 'w').write(f'{{os.getpid()}}\\n')\n time.sleep(600)"
        )
        friend.run("f = c.submit(work)")
        processes.append(pid_in(Path(path)))
    bob.program.end(signal.SIGINT if how == "interrupted" else signal.SIGKILL)
    eventually(lambda: not any(map(runs, processes)), "the end of all that was started")


def test_no_key_is_in_arguments_environment_or_what_the_worker_is_told(here: Village) -> None:
    person = here.person("bob")
    bob = person.notebook(LENDING)
    told = "import p2p_ipython.client.local as local; said = []; tell = local.Child.tell\n"
    told += "local.Child.tell = lambda self, message: (said.append(message), tell(self, message))"
    bob.run(told)
    bob.run(f"L.lend({TITLE!r}, only=['carol'], name='desk')")
    secret = [line for line in person.key_file.read_text().splitlines() if "-" not in line]
    profile = person.profiles.load(TITLE)
    texts = [bob.run("answer = said")]
    for pid in workers_of(bob):
        process = psutil.Process(pid)
        texts += [" ".join(process.cmdline()), repr(process.environ())]
    for text in texts:
        assert not any(line in text for line in secret)
        assert profile.topic not in text
        assert profile.key.hex() not in text


def test_what_keeps_one_from_lending_is_said_with_what_to_do(here: Village) -> None:
    person = here.person("bob")
    bob = person.notebook(LENDING)
    said = bob.fails("L.lend('nobody/such')")
    assert "you are not a member of nobody/such yet" in said
    assert "Its members: alice, bob, carol, dave." in bob.fails(f"L.lend({TITLE!r}, only=['zoe'])")
    assert "nobody in alice/friends is called" in bob.fails(f"L.lend({TITLE!r}, only=['SHA256:{'A' * 43}'])")
    assert "is no tag" in bob.fails(f"L.lend({TITLE!r}, tags=['<b>'])")
    assert "a number from 1 to 256" in bob.fails(f"L.lend({TITLE!r}, slots=0)")
    assert bob.run("answer = L.states()") == "()"
    bob.run(f"s = L.lend({TITLE!r})")
    assert "lends to alice/friends already" in bob.fails(f"L.lend({TITLE!r})")
    assert "lent no more" in bob.fails("L.pause('lend-99')")
    bob.run("import p2p_ipython; mine = p2p_ipython.connect(workers=1)")
    assert "has workers of its own" in bob.fails("L.lend(mine)")


def test_a_key_with_a_passphrase_that_no_agent_has_is_an_error_that_says_what_to_type(here: Village) -> None:
    import asyncssh

    person = here.person("bob")
    key = asyncssh.read_private_key(str(person.key_file))
    key.write_private_key(str(person.key_file), passphrase="open sesame")
    said = person.notebook(LENDING).fails(f"L.lend({TITLE!r})")
    assert said.startswith("NoKey: ")
    assert f"the key {person.key_file} has a passphrase" in said
    assert f"ssh-add {person.key_file}" in said


def test_who_is_taken_out_of_the_cluster_lends_no_more_and_is_told_why(here: Village) -> None:
    alice = here.person("alice")
    hosting = alice.p2p("host", "friends")
    hosting.expect("until")
    bob = here.person("bob").notebook(LENDING)
    bob.run(f"s = L.lend({TITLE!r})")
    alice.says("revoke", "friends", "bob", "--yes")
    eventually(lambda: bob.run("answer = L.states()[0].state") == "'failed'", "the end")
    assert "this worker has ended" in bob.run("answer = L.states()[0].words")
    assert bob.run("L.stop(s.id); answer = L.states()") == "()"


def test_when_its_time_is_up_it_lends_no_more(here: Village) -> None:
    bob = here.person("bob").notebook(LENDING)
    bob.run(f"L.lend({TITLE!r}, seconds=1)")
    ended(bob)


def test_the_cluster_that_is_connected_is_lent_to_by_the_same_way(here: Village) -> None:
    """Here a personal one on a board: what was said of the way there is known to the cluster only."""
    bob = here.person("bob")
    way = (
        f"{here.where!r}, cluster='mine', accept_host_key={here.board['fingerprint']!r}, identity={str(bob.key_file)!r}"
    )
    notebook = bob.notebook(f"import p2p_ipython; c = p2p_ipython.connect({way})\n" + LENDING)
    assert notebook.run("s = L.lend(c, name='desk'); answer = s.title") == repr(f"mine at {here.where}")
    assert notebook.run("f = c.submit(pow, 2, 10); answer = f.result(60), f.worker") == "(1024, 'desk')"
    notebook.run("L.stop(s.id)")
    ended(notebook)
    assert "nobody to choose among" in notebook.fails("L.lend(c, only=['carol'])")


def test_p2p_worker_lends_to_some_and_says_what_it_is_good_for(here: Village) -> None:
    carol = here.person("carol")
    carol.worker(TITLE, "--only", "bob", "--only", here.person("alice").fingerprint, "--tag", "gpu")
    assert "nobody in alice/friends is called 'zoe'" in carol.says(
        "worker", "--cluster", TITLE, "--only", "zoe", status=1
    )
    friend = here.person("bob").notebook(CONNECTED)
    assert friend.run("answer = c.submit(pow, 2, 10).result(60)") == "1024"
    seen = friend.run("answer = [(w.terms.tags, len(w.terms.only)) for w in c._bridge.machine.workers.values()]")
    assert ast.literal_eval(seen) == [(("gpu",), 2)]
    other = here.person("dave").notebook(CONNECTED)
    other.run("f = c.submit(pow, 2, 10)")
    waits(other, "those that are here are for others")
