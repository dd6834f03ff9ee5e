"""A task may say whose worker, and what kind of worker, runs it: ``on`` and ``tags`` in a cluster of friends."""

from __future__ import annotations

from friends_support import Village, waits


def test_a_task_runs_on_the_member_and_with_the_tag_that_it_asks_for(here: Village) -> None:
    here.found("bob", "carol")
    alice, bob, carol = (here.people[name] for name in ("alice", "bob", "carol"))
    notebook = alice.notebook("import p2p_ipython; c = p2p_ipython.connect('alice/friends')")
    notebook.run("f = c.options(on='bob').submit(abs, -3)")
    waits(notebook, "waiting for bob's worker: none is here")
    carols = carol.worker("alice/friends", "--name", "bob", "--tag", "home")
    waits(notebook, "waiting for bob's worker; here: carol (bob)")
    bobs = bob.worker("alice/friends", "--tag", "gpu", "--tag", "big", "--memory", "1G")
    assert notebook.run("answer = f.result(60), f.worker.partition(' ')[0]") == "(3, 'bob')"

    for tag, name in (("home", "carol"), ("gpu,big", "bob")) * 2:
        ran = notebook.run(f"f = c.options(tags={tag!r}).submit(abs, -3); answer = f.result(60), f.worker.split()[0]")
        assert ran == f"(3, {name!r})"
    notebook.run("f = c.options(on='bob', memory='2G').submit(abs, -3)")
    waits(notebook, "waiting for bob's worker with 2 GiB of memory for a task; here: bob")
    assert notebook.run("answer = f.cancel()") == "True"
    notebook.run("f = c.options(tags=('gpu', 'home')).submit(abs, -3)")
    waits(notebook, "waiting for a worker with tags gpu, home; here: ")
    assert notebook.run("answer = f.cancel()") == "True"

    said = notebook.fails("c.options(on='bbo')")
    assert said.startswith("ConfigError: nobody and no worker in this cluster is called 'bbo'")
    assert "alice, bob, carol" in said
    assert "Did you mean bob?" in said
    # Who is away is waited for.
    assert bobs.end() == 0
    notebook.run("f = c.options(on='bob').submit(abs, -4)")
    waits(notebook, "waiting for bob's worker; here: carol (bob)")
    bob.worker("alice/friends")
    assert notebook.run("answer = f.result(60)") == "4"
    assert carols.end() == 0


def test_a_task_of_a_friend_that_raises_runs_again(here: Village) -> None:
    """Nothing of what a worker that isn't trusted sends is unpickled to decide that: the names of classes do."""
    here.found("bob")
    here.people["bob"].worker("alice/friends")
    notebook = here.people["alice"].notebook("import p2p_ipython; c = p2p_ipython.connect('alice/friends')")
    notebook.run("class Own(ValueError): pass\ndef f(kind): print('run'); raise kind('bad')")
    for kind, retry_on, runs in (("ValueError", "ValueError", 3), ("Own", "Own", 3), ("KeyError", "Own", 1)):
        notebook.run(f"f1 = c.options(retries=2, retry_on={retry_on}).submit(f, {kind}); f1.exception(60)")
        assert notebook.run("answer = f1.stdout.count('run')") == str(runs)
