"""Members' tasks ask for packages, and lenders say which: never, after a yes, or those of a list."""

from __future__ import annotations

from pathlib import Path

import pytest
from friends_support import Village, waits
from packages_support import Index, needs_uv
from slot_support import needs

TITLE = "alice/friends"
CONNECTED = f"""
import p2p_ipython
c = p2p_ipython.connect({TITLE!r}, request_every=0.5, presence=1)
from p2p_ipython.client.asking import asked_for, asking
from p2p_ipython.task.task import make_call
def wanting(source, *packages):
    task = make_call(eval, (source,), {{}}, c._core.store, label='wants')
    return c._core.submit_task(asking(task, asked_for('', packages)))
"""


@pytest.fixture
def here(here: Village, tmp_path: Path) -> Village:
    """With a cluster of alice's, and an index of bob's."""
    needs_uv()
    here.found("bob", "carol")
    index = Index(tmp_path / "index")
    index.wheel("tiny")
    index.wheel("other")
    bob = here.person("bob")
    bob.environment |= {**index.environment, "P2P_CACHE": str(tmp_path / "cache")}
    return here


def test_a_lender_who_is_asked_sees_the_packages_and_says_yes(here: Village) -> None:
    needs("bubblewrap")
    bob, carol = here.person("bob"), here.person("carol")
    worker = bob.worker(TITLE, "--name", "desk", "--sandbox", "bubblewrap", "--packages", "ask", tty=True)
    worker.expect("policy: packages after your yes")
    friend = carol.notebook(CONNECTED)
    assert friend.run("answer = c.submit(pow, 2, 10).result(60)") == "1024"  # nobody is asked for that
    friend.run("f = wanting(\"__import__('tiny').version\", 'tiny>=1')")
    worker.expect(f"carol ({carol.fingerprint}) asks to run 'wants'")
    worker.expect("has tiny>=1 installed here")
    waits(friend, "waiting for bob (desk)'s yes")
    worker.type("y\n")
    assert friend.run("answer = f.result(60)") == "'1.0'"
    worker.type("\x03")
    assert worker.wait() == 0


def test_a_list_and_a_worker_without_walls_hold_and_ones_own_tasks_may(here: Village, tmp_path: Path) -> None:
    needs("bubblewrap")
    bob, carol = here.person("bob"), here.person("carol")
    policy = tmp_path / "mine.toml"
    policy.write_text('packages = "any"')
    bare = bob.worker(TITLE, "--name", "bare", "--policy", str(policy))  # behind no wall
    friend = carol.notebook(CONNECTED)
    friend.run("f = wanting(\"__import__('tiny').version\", 'tiny')")
    waits(friend, "waiting for a worker that installs tiny: those that are here install nothing")
    own = bob.notebook(CONNECTED)
    assert own.run("answer = wanting(\"__import__('tiny').version\", 'tiny').result(60)") == "'1.0'"
    policy.write_text('packages = ["Other"]')
    desk = bob.worker(TITLE, "--name", "desk", "--policy", str(policy), "--sandbox", "bubblewrap")
    waits(friend, "refused it: no task may have tiny installed")
    assert friend.run("answer = wanting(\"__import__('other').version\", 'other').result(60)") == "'1.0'"
    policy.write_text('packages = "any"')  # heeded while it runs
    desk.expect("the policy was read anew")
    assert friend.run("answer = f.result(60)") == "'1.0'"
    del bare
