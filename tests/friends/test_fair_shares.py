"""Two people's notebooks and three workers, all real: late and little doesn't wait for early and much."""

from __future__ import annotations

from pathlib import Path

from friends_support import village

TITLE = "alice/friends"
CONNECTED = f"""
import p2p_ipython, time
def work():
    time.sleep(0.1)
    return time.time()
c = p2p_ipython.connect({TITLE!r}, request_every=0.5)
assert c.submit(pow, 2, 3).result(60) == 8
deadline = time.monotonic() + 60
while sum(m.link != "" for m in c.status().members) < 3:
    assert time.monotonic() < deadline
    time.sleep(0.05)
"""

MANY, FEW = 300, 30


def test_who_comes_late_with_little_gets_his_share_of_the_slots(tmp_path: Path) -> None:
    with village(tmp_path) as here:
        here.found("bob", "carol")
        for number in range(3):
            here.person("carol").worker(TITLE, "--name", f"box{number}")
        alice, bob = (here.person(name).notebook(CONNECTED) for name in ("alice", "bob"))
        alice.run(f"many = [c.submit(work) for _ in range({MANY})]; many[10].result(60)")
        bob.run(f"start = time.time(); few = [c.submit(work) for _ in range({FEW})]")
        start, *few = eval(bob.run("answer = [start, *(f.result(60) for f in few)]"))
        many = eval(alice.run("answer = [f.result(60) for f in many if f.done()]"))
    assert len(many) < MANY, "she has had work all the time"
    # So from first submit to last result each was due half of what was run. Alone, each would have had all of it;
    # what is sent ahead to workers, and whole tasks that run, make it a bit more.
    hers = sum(start < t <= max(few) for t in many)
    assert FEW // 3 <= hers <= 2 * FEW, f"{hers} of hers were run while {FEW} of his were"
