"""Tasks on friends' workers are stopped, over a real board: by cancel(), and when the worker is lost meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from friends_support import Notebook, Village, eventually, pid_in, runs, waits

TITLE = "alice/friends"
CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r}, request_every=0.5, presence=1)"


@pytest.fixture
def here(here: Village) -> Village:
    """With a cluster of alice's, and two members."""
    here.found("bob", "carol")
    return here


def heeding_nothing(notebook: Notebook, folder: Path) -> int:
    """Submit a task that ignores all that it is told, as ``f``; return its process's id once it runs."""
    notebook.run(
        f"def work():\n import os, time\n open({str(folder / 'mark')!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        " while True:\n  try: time.sleep(600)\n  except BaseException: pass"
    )
    notebook.run("f = c.submit(work)")
    return pid_in(folder / "mark")


def test_a_cancelled_future_is_done_when_its_process_at_a_friends_has_ended(here: Village, tmp_path: Path) -> None:
    here.person("bob").worker(TITLE, "--name", "desk")
    friend = here.person("carol").notebook(CONNECTED)
    pid = heeding_nothing(friend, tmp_path)
    waits(friend, "on bob (desk)")
    assert friend.run("answer = f.cancel(), f.done(), f.state_text") == "(True, False, 'stopping on bob (desk)')"
    friend.run("g = c.submit(pow, 2, 10)")
    assert friend.fails("f.result(60)") == "Cancelled: work was cancelled: its cancel() was called"
    assert not runs(pid)
    assert friend.run("answer = g.result(60), f.cancelled(), f.cancel()") == "(1024, True, True)"


def test_a_friends_worker_that_is_lost_while_it_stops_a_task_ends_the_wait(here: Village, tmp_path: Path) -> None:
    worker = here.person("bob").worker(TITLE, "--name", "desk", P2P_CANCEL_GRACE="600")
    friend = here.person("carol").notebook(CONNECTED.replace(")", ", cancel_grace=600)"))
    pid = heeding_nothing(friend, tmp_path)
    assert friend.run("answer = f.cancel()") == "True"
    waits(friend, "stopping on bob (desk)")
    worker.process.kill()
    said = friend.fails("f.result(60)")
    assert said.startswith(
        "Cancelled: work was cancelled: its cancel() was called, and its worker was lost before it had"
    )
    eventually(lambda: not runs(pid), "the end of the task, whose worker is gone")


def test_a_timeout_ends_a_task_at_a_friends_who_would_give_it_longer(here: Village, tmp_path: Path) -> None:
    here.person("bob").worker(TITLE, "--name", "desk")
    friend = here.person("carol").notebook(CONNECTED)
    friend.run("import time; f = c.options(timeout=1).submit(time.sleep, 600)")
    said = friend.fails("f.result(60)")
    assert said.startswith("TaskTimeout: the task was ended on bob: it ran for 1 s, which is its timeout")
    assert friend.run("answer = c.submit(pow, 2, 10).result(60)") == "1024"
