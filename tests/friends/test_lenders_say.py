"""Lenders say who, when and how much, over a real board: policies, pauses, stops, newcomers, the log."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from friends_support import Notebook, Village, eventually, pid_in, runs, waits

from p2p_ipython.members import owner

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


def working(notebook: Notebook, folder: Path, name: str) -> int:
    """Submit a task that runs until it finds a file, as ``name``; return its process's id once it runs."""
    notebook.run(
        f"def work(n):\n import os, time\n open({str(folder)!r} + '/' + n, 'w').write(f'{{os.getpid()}}\\n')\n"
        f" while not os.path.exists({str(folder)!r} + '/go'): time.sleep(0.02)\n return n"
    )
    notebook.run(f"f = c.submit(work, {name!r})")
    return pid_in(folder / name)


def test_a_worker_heeds_its_policys_file_while_it_runs(here: Village, tmp_path: Path) -> None:
    policy = tmp_path / "mine.toml"
    policy.write_text('hours = ["Mon-Sun 0-24"]\ninput = "1M"\n[limits]\ntime = "1h"')
    bob = here.person("bob")
    worker = bob.worker(TITLE, "--policy", str(policy), "--name", "desk")
    worker.expect("policy: ")
    friend = here.person("carol").notebook(CONNECTED)
    assert friend.run("f = c.submit(pow, 2, 10); answer = f.result(60)") == "1024"
    # What the offer says isn't sent.
    friend.run("f = c.submit(len, bytes(1 << 21))")
    waits(friend, "those that are here take at most 1 MiB a task")

    policy.write_text('hours = ["Mon-Sun 0-24"]\ninput = 1.5')
    worker.expect("mine.toml, line 2, column 9: input is '1.5'")
    worker.expect("the last good one stays")
    waits(friend, "those that are here take at most 1 MiB a task")
    policy.write_text('slots = 2\ninput = "4M"')
    worker.expect("the policy was read anew; slots, limits from the next start on")
    assert friend.run("answer = f.result(60)") == str(1 << 21)

    # A load that is exceeded by whatever else runs here: nothing is taken, and everybody sees why.
    policy.write_text("bytes_in = 1")
    worker.expect("the policy was read anew")
    friend.run("f = c.submit(pow, 2, 11)")
    waits(friend, "those that are here are paused (its day's bytes are used up)")
    assert "takes nothing now: tasks have brought what they may in a day" in bob.says("lending")
    policy.write_text('who = ["al", "carol"]')
    worker.expect(f"nobody in {TITLE} is called 'al': the policy's who")
    assert friend.run("answer = f.result(60)") == "2048"
    # A policy that is broken at the start ends the worker before it lends.
    policy.write_text("who = 7")
    said = bob.says("worker", "--cluster", TITLE, "--policy", str(policy), status=1)
    assert "mine.toml, line 1, column 7: who is '7'" in said


def test_a_task_that_is_refused_all_the_same_goes_elsewhere_and_says_why(here: Village) -> None:
    here.person("bob").worker(TITLE, "--input", "1M", "--name", "desk")
    # Carol's program may be another one, that doesn't heed this part of an offer.
    friend = here.person("carol").notebook(
        "from dataclasses import replace; import p2p_ipython.protocol.messages as m; read = m._terms\n"
        f"m._terms = lambda fields: replace(read(fields), input=0)\n{CONNECTED}"
    )
    friend.run("f = c.submit(len, bytes(1 << 21))")
    waits(friend, "after bob (desk) refused it: a task may bring 1 MiB, and this one has 2 MiB")
    assert friend.run("answer = c.submit(pow, 2, 10).result(60)") == "1024"  # others pass it over
    here.person("dave").worker(TITLE, "--name", "attic")
    assert friend.run("answer = f.result(60), f.worker") == f"({1 << 21}, 'dave (attic)')"
    said = here.person("bob").says("lending", "log", "--json")
    outcomes = [json.loads(line)["outcome"] for line in said.splitlines()]
    assert sorted(outcomes) == ["done", "refused"]


def test_a_task_that_its_lender_stops_is_given_to_nobody_else(here: Village, tmp_path: Path) -> None:
    bob = here.person("bob")
    worker = bob.worker(TITLE, "--name", "desk")
    friend = here.person("carol").notebook(CONNECTED)
    pid = working(friend, tmp_path, "first")
    here.person("dave").worker(TITLE, "--name", "attic")
    assert "is ending" not in bob.says("lending", "pause")
    assert "paused; 1 of 1 slots run a task" in bob.says("lending")
    assert runs(pid)
    said = bob.says("lending", "stop")
    assert "desk for alice/friends: ending" in said
    assert worker.wait() == 0
    eventually(lambda: not runs(pid), "the end of the task")
    words = friend.fails("f.result(60)")
    assert words.startswith("StoppedByLender: the lender has stopped the task on bob, by hand")
    assert "future.again()" in words
    (tmp_path / "go").touch()
    assert friend.run("f = f.again(); answer = f.result(60), f.worker") == "('first', 'dave (attic)')"
    (entry,) = [json.loads(line) for line in bob.says("lending", "log", "--json").splitlines()]
    assert (entry["outcome"], entry["member"], entry["key"]) == ("stopped", "carol", here.person("carol").fingerprint)
    assert "no worker runs on this machine" in bob.says("lending")


def test_ctrl_c_once_lets_what_runs_end_and_twice_stops_it(here: Village, tmp_path: Path) -> None:
    friend = here.person("carol").notebook(CONNECTED)
    for presses in (1, 2):
        worker = here.person("bob").worker(TITLE, "--name", "desk", tty=True)
        working(friend, tmp_path, f"press{presses}")
        worker.type("\x03")
        worker.expect("1 task may end first; Ctrl-C again stops now")
        if presses == 1:
            friend.run("answer = f.done()")
            (tmp_path / "go").touch()
            assert friend.run("answer = f.result(60)") == "'press1'"
            (tmp_path / "go").unlink()
        else:
            worker.type("\x03")
            assert friend.fails("f.result(60)").startswith("StoppedByLender")
        assert worker.wait() == 0


def test_a_newcomer_is_named_before_anything_of_theirs_runs(here: Village) -> None:
    bob = here.person("bob")
    all_, known = bob.worker(TITLE, "--name", "desk"), bob.worker(TITLE, "--name", "attic", "--who", "known")
    friend = here.person("carol").notebook(CONNECTED)
    assert friend.run("answer = {c.submit(pow, 2, n).result(60) for n in range(4)}") == repr({1, 2, 4, 8})
    alice, erin = here.person("alice"), here.person("erin")
    profile = owner.admit(alice.profiles.load(TITLE), alice.key, "erin", erin.fingerprint)
    alice.profiles.save(profile)
    here.give(profile, erin)
    new = erin.notebook(CONNECTED)
    new.run("f = c.submit(pow, 2, 10)")
    # Which of the two workers names her first is chance; each lender is told once.
    eventually(lambda: f"erin ({erin.fingerprint}) is new in {TITLE}; " in all_.text + known.text, "her name")
    assert new.run("answer = f.result(60), f.worker") == "(1024, 'bob (desk)')"
    assert all_.text.count("is new in") + known.text.count("is new in") <= 2
    all_.end()
    new.run("f = c.submit(pow, 2, 11)")
    waits(new, "those that are here are for others")
    assert "you know erin in alice/friends" in bob.says("lending", "welcome", "erin", "--cluster", TITLE)
    assert new.run("answer = f.result(60), f.worker") == "(2048, 'bob (attic)')"


def test_the_log_says_what_has_run_and_shows_no_source(here: Village) -> None:
    bob = here.person("bob")
    bob.worker(TITLE, "--name", "desk")
    friend = here.person("carol").notebook(CONNECTED)
    friend.run(
        "import time\ndef secret_sauce(n):\n end = time.process_time() + 0.5\n"
        " while time.process_time() < end: pass\n return bytes(n)"
    )
    assert friend.run("answer = len(c.submit(secret_sauce, 1 << 21).result(60))") == str(1 << 21)
    friend.fails("c.submit(pow, 0, -1).result(60)")
    eventually(lambda: len(bob.says("lending", "log", "--json").splitlines()) == 2, "two entries")
    done, failed = [json.loads(line) for line in bob.says("lending", "log", "--json").splitlines()]
    assert (done["outcome"], failed["outcome"], done["member"]) == ("done", "failed", "carol")
    assert 0.4 < done["cpu"] < 5
    assert done["seconds"] >= 0.5
    assert done["memory"] > 1 << 20
    assert done["bytes_out"] >= 1 << 21
    assert done["bytes_in"] > 0
    (file,) = Path(bob.environment["HOME"]).rglob("lending.log")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "process_time" not in file.read_text()
    shown = bob.says("lending", "log", "-n", "2")
    assert re.search(r"carol \(alice/friends\)  'secret_sauce'  done  [\d.]+ s  processor [\d.]+ s  memory", shown)


def test_a_lender_is_asked_in_the_terminal_and_the_friends_card_says_so(here: Village) -> None:
    worker = here.person("bob").worker(TITLE, "--name", "desk", "--ask", tty=True)
    friend = here.person("carol").notebook(CONNECTED)
    friend.run("f = c.submit(pow, 2, 10)")
    worker.expect(f"carol ({here.person('carol').fingerprint}) asks to run 'pow'")
    waits(friend, "waiting for bob (desk)'s yes")
    worker.type("what?\n")
    worker.expect("Type y, m, t or n.")
    worker.type("y\n")
    assert friend.run("answer = f.result(60)") == "1024"
    friend.run("f = c.submit(pow, 2, 11)")
    worker.expect("[n]o; no answer in 2 minutes is no:")
    worker.type("n\n")
    waits(friend, "waiting for another worker, after bob (desk) refused it: its lender has said no")
    friend.run("g = c.submit(pow, 2, 12)")
    worker.expect("[n]o; no answer in 2 minutes is no:")
    worker.type("t\n")
    assert friend.run("answer = g.result(60)") == "4096"
    assert friend.run("answer = c.submit(pow, 3, 3).result(60)") == "27"  # the same code, other data
    assert friend.run("answer = f.result(60)") == "2048"  # the yes is for this one, too
    friend.run("h = c.submit(max, 3, 4)")
    worker.expect("asks to run 'max'")
    worker.expect("[n]o; no answer in 2 minutes is no:")
    worker.type("m\n")
    assert friend.run("answer = h.result(60)") == "4"
    assert friend.run("answer = c.submit(min, 3, 4).result(60)") == "3"
    worker.type("\x03")
    assert worker.wait() == 0


def test_a_notebook_names_newcomers_and_heeds_the_policy_and_p2p_lending(here: Village) -> None:
    bob = here.person("bob")
    (Path(bob.environment["P2P_DATA"]) / "lending.toml").write_text('slots = 2\ninput = "1M"\n[limits]\ntime = "1h"')
    lends = bob.notebook(LENDING)
    lent = lends.run(f"s = L.lend({TITLE!r}, name='desk'); answer = s.slots, s.policy, lending_text(s)")
    assert lent.startswith("(2, 'tasks of at most 1 MiB', ")
    assert "Policy: tasks of at most 1 MiB." in lent
    alice, erin = here.person("alice"), here.person("erin")
    profile = owner.admit(alice.profiles.load(TITLE), alice.key, "erin", erin.fingerprint)
    here.give(profile, erin)
    assert erin.notebook(CONNECTED).run("answer = c.submit(pow, 2, 10).result(60)") == "1024"
    eventually(lambda: "erin" in lends.run("answer = L.states()[0].news"), "her name")
    assert f"is new in {TITLE}; their tasks may run here" in lends.run("answer = lending_text(L.states()[0])")

    assert f"desk for {TITLE}: paused; 0 of 2 slots run a task" in bob.says("lending", "pause")
    eventually(lambda: lends.run("answer = L.states()[0].state") == "'paused'", "the pause")
    assert lends.run("answer = L.resume(s.id).state") == "'lending'"
    assert "desk for alice/friends: lending" in bob.says("lending")
    bob.says("lending", "stop")
    eventually(lambda: lends.run("answer = L.states()") == "()", "the end of the worker")
