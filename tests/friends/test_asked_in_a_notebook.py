"""A notebook that lends is asked before each task of a friend, over a real board."""

from __future__ import annotations

import ast
import json
import time
from typing import Any

import pytest
from friends_support import Notebook, Village, eventually, waits

TITLE = "alice/friends"
CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r}, request_every=0.5, presence=1)"
LENDING = "from p2p_ipython.client.lending import lender; L = lender()"


@pytest.fixture
def here(here: Village) -> Village:
    """With a cluster of alice's, and three members."""
    here.found("bob", "carol", "dave")
    return here


def question(lends: Notebook) -> dict[str, Any]:
    """What the notebook is asked; waits for it."""
    asked = "answer = next((s.question.fields() for s in L.states() if s.question), None)"
    eventually(lambda: lends.run(asked) != "None", "a question")
    found: dict[str, Any] = ast.literal_eval(lends.run(asked))
    return found


def asks_nothing(lends: Notebook) -> bool:
    return lends.run("answer = [s.question for s in L.states()]") == "[None]"


def test_a_notebook_is_asked_and_its_answers_count_as_on_the_terminal(here: Village) -> None:
    bob = here.person("bob")
    lends = bob.notebook(LENDING)
    said = lends.run(f"s = L.lend({TITLE!r}, name='desk', ask=True); answer = s.policy, s.conditions")
    assert ast.literal_eval(said) == ("to members you know; after your yes", 'who = "known"\nask = true')
    assert f"lent: desk for {TITLE}: lending" in (said := bob.says("doctor", "--cluster", TITLE))
    assert '  who = "known"\n  ask = true\n' in said
    friend = here.person("carol").notebook(CONNECTED)
    friend.run("f = c.submit(pow, 2, 10)")
    asked = question(lends)
    carol = here.person("carol").fingerprint
    assert (asked["number"], asked["name"], asked["key"], asked["label"]) == (1, "carol", carol, "pow")
    assert (asked["run"], asked["same"]) == ("call", True)
    assert time.time() < asked["until"] < time.time() + 121
    waits(friend, "waiting for bob (desk)'s yes")
    assert "'maybe' is no answer" in lends.fails("L.answer(1, 'maybe')")
    assert "question 7 is not asked any more" in lends.fails("L.answer(7, 'once')")
    assert lends.run("answer = L.answer(1, 'once').label") == "'pow'"
    assert friend.run("answer = f.result(60)") == "1024"
    assert asks_nothing(lends)
    assert "is not asked any more" in lends.fails("L.answer(1, 'once')")

    friend.run("f = c.submit(pow, 2, 11)")
    assert question(lends)["number"] == 2
    lends.run("L.answer(2, 'no')")
    waits(friend, "waiting for another worker, after bob (desk) refused it: its lender has said no")
    # One yes for the member answers what waits, too.
    friend.run("fs = [c.submit(pow, 2, n) for n in range(12, 15)]")
    lends.run(f"L.answer({question(lends)['number']}, 'member')")
    assert friend.run("answer = [each.result(60) for each in fs]") == "[4096, 8192, 16384]"
    assert asks_nothing(lends)
    log = [json.loads(line) for line in bob.says("lending", "log", "--json").splitlines()]
    assert {(entry["outcome"], entry["why"]) for entry in log} >= {("refused", "its lender has said no"), ("done", "")}
    eventually(lambda: lends.run("answer = L.states()[0].logged") == str(len(log)), "the log's entries")


def test_without_an_answer_in_time_a_task_is_refused_and_its_owner_reads_why(here: Village) -> None:
    # The worker's patience is cut short in the worker's own process, which the notebook starts.
    short = (
        "import p2p_ipython.client.lending as m; start = m.Child\n"
        "def child(module, loop, **more):\n"
        " import subprocess; popen = subprocess.Popen\n"
        " def cut(command, **options):\n"
        "  code = 'import p2p_ipython.worker.consent as c, p2p_ipython.worker.lend as l'\n"
        "  return popen([command[0], '-P', '-c', code + '; c.PATIENCE = 1.0; l.main()'], **options)\n"
        " subprocess.Popen = cut\n"
        " try: return start(module, loop, **more)\n"
        " finally: subprocess.Popen = popen\n"
        "m.Child = child\n"
    )
    lends = here.person("bob").notebook(f"{short}{LENDING}")
    lends.run(f"s = L.lend({TITLE!r}, name='desk', ask=True)")
    friend = here.person("carol").notebook(CONNECTED)
    friend.run("f = c.submit(pow, 2, 10)")
    waits(friend, "after bob (desk) refused it: its lender has not answered")
    assert asks_nothing(lends)
    assert "not asked any more" in lends.fails("L.answer(1, 'once')")
    # A pause, and the end, don't wait for an answer.
    friend.run("f = c.submit(pow, 2, 11)")
    question(lends)
    lends.run("L.stop(s.id)")
    eventually(lambda: lends.run("answer = L.states()") == "()", "the end of the worker")
