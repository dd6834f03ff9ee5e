"""A lab's cluster as one member's worker: real workers, notebooks and links, a real dask and a real pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_support import POOL, Cluster, dask_cluster
from friends_support import Person, Village, eventually

CONNECTED = "import p2p_ipython, os, time; c = p2p_ipython.connect({target!r}, accept_host_key={key!r}, cluster='mine')"


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Cluster]:
    with dask_cluster(tmp_path) as made:
        yield made


def lends(person: Person, village: Village, *options: str) -> None:
    """Have somebody lend an engine to the notebooks that hold their key."""
    worker = person.p2p("-v", "worker", "--cluster", "mine", *village.way, "--name", "lab", *options)
    worker.expect("Ctrl-C ends it")


def test_a_pool_of_processes_is_lent_and_does_as_a_machine_does(here: Village, tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(POOL)
    me = here.person("me")
    me.environment["PYTHONPATH"] = str(tmp_path)  # as if it lent from that folder
    lends(me, here, "--engine", "lab:pool")
    notebook = me.notebook(CONNECTED.format(target=here.where, key=here.board["fingerprint"]))
    assert notebook.run("f = c.submit(pow, 2, 10); answer = f.result(60), f.worker") == "(1024, 'lab')"
    assert "no sandbox" in notebook.run("answer = str(c)")
    assert "engine executor: memory and cores are its own; output comes at the end" in notebook.run("answer = str(c)")
    assert notebook.run("answer = c.status().members[0].slots") == "2"
    assert notebook.run("answer = sum(c.map(abs, range(-50, 0)))") == "1275"
    assert "ZeroDivisionError" in notebook.fails("c.submit(divmod, 1, 0).result(60)")
    # A task that runs is cancelled, and its slot is free again.
    loop = f"def loop():\n  open({str(tmp_path / 'note')!r}, 'w').close()\n  while True: time.sleep(0.01)\n"
    notebook.run(loop + "f = c.submit(loop)")
    eventually((tmp_path / "note").exists, "the task")
    assert (
        notebook.run("answer = f.cancel(), c.submit(abs, -1).result(60), c.submit(abs, -2).result(60)")
        == "(True, 1, 2)"
    )


def test_an_engine_follows_dask_and_loses_and_finds_it(here: Village, dask: Cluster, tmp_path: Path) -> None:
    me = here.person("me")
    first = dask.worker(2)
    worker = me.p2p("-v", "worker", "--cluster", "mine", *here.way, "--name", "lab", "--engine", dask.choice)
    worker.expect("Ctrl-C ends it")
    notebook = me.notebook(CONNECTED.format(target=here.where, key=here.board["fingerprint"]))
    notebook.run("c.wait_for_workers(1, timeout=60)")
    slots = lambda: notebook.run("answer = c.status().members[0].slots")  # noqa: E731
    eventually(lambda: slots() == "2", "two slots")
    dask.worker(1)
    eventually(lambda: slots() == "3", "a third slot")
    first.kill()
    eventually(lambda: slots() == "1", "one slot")
    # The scheduler goes: a task that runs is lost, and waits for the engine, which is said to be away.
    note, enough = tmp_path / "note", tmp_path / "enough"
    code = (
        f"def wait():\n  open({str(note)!r}, 'w').close()\n"
        f"  while not os.path.exists({str(enough)!r}): time.sleep(0.01)\n"
    )
    notebook.run(code + "f = c.submit(wait)")
    eventually(note.exists, "the task")
    dask.scheduler.kill()
    dask.scheduler.wait()
    worker.expect("the engine is lost: dask's scheduler")
    eventually(lambda: "its engine is away" in notebook.run("answer = str(c)"), "the offer")
    note.unlink()
    dask.start()
    dask.worker(1)
    worker.expect("the engine is there again")
    eventually(note.exists, "the second run")
    enough.touch()
    assert notebook.run("answer = f.result(60), f.worker") == "(None, 'lab')"


def test_friends_are_lent_an_engine_only_in_so_many_words(here: Village, tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(POOL)
    here.found("bob")
    alice, bob = here.person("alice"), here.person("bob")
    alice.environment["PYTHONPATH"] = str(tmp_path)
    lend = ("worker", "--cluster", "alice/friends", "--engine", "lab:pool")
    assert "the engine executor is no sandbox" in alice.says(*lend, status=1)
    assert "the sandbox bubblewrap is this machine's" in alice.says(*lend, "--sandbox", "bubblewrap", status=1)
    assert "--memory and --cpus can't hold" in alice.says(
        *lend, "--sandbox", "process", "--memory", "1G", "--cpus", "1", status=1
    )
    worker = alice.worker("alice/friends", "--name", "lab", "--engine", "lab:pool", "--slots", "1", "--only", "bob")
    worker.expect("warning: process is no protection")
    notebook = bob.notebook("import p2p_ipython, os; c = p2p_ipython.connect('alice/friends')")
    assert notebook.run("answer = c.submit(pow, 2, 10).result(60)") == "1024"
    assert "no sandbox" in notebook.run("answer = str(c)")
    assert notebook.run("answer = c.status().members[0].slots") == "1"
    assert worker.end() == 0
