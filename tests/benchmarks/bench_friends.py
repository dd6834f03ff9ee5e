"""What friends wait for, on loopback, without the human: joining by a code, the link to a new worker, a revocation.

Run by hand: ``python tests/benchmarks/bench_friends.py [--repeats 5]``. Everybody is a process of his own, as in life,
so the times of joining include the start of Python. Figures are medians; the best and the worst are beside them.

* *join*: from the start of ``p2p join CODE`` to its end, and until ``p2p invite`` has ended, too
* *link*: from a notebook's hearing the hello of a friend's new worker to the link, and to the first result
* *revoke*: from the new list on the owner's disk to the end of links at the notebook that is taken out, and from the
  start of ``p2p revoke``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "friends"))

from friends_support import Village, code_of, village

TITLE = "alice/friends"

WATCHED = f"""
import p2p_ipython, time
c = p2p_ipython.connect({TITLE!r})
times = {{}}
bridge = c._bridge
def watch(owner, name, what, when):
    inner = getattr(owner, name)
    def outer(*args, **kwargs):
        if when(*args):
            times.setdefault(what, time.time())
        return inner(*args, **kwargs)
    setattr(owner, name, outer)
watch(bridge, "heard", "hello", lambda _certificate, message: getattr(message, "offer", None) is not None)
watch(bridge.machine, "link_up", "link", lambda *_: True)
"""


def once(here: Village) -> dict[str, float]:
    """Seconds of each figure."""
    found = {}
    alice, bob, carol = (here.person(name) for name in ("alice", "bob", "carol"))
    here.found("carol")
    host = alice.p2p("host", "friends")
    host.expect("Ctrl-C ends the hosting")
    inviting = alice.p2p("invite", "friends", "bob", "--yes")
    code = code_of(inviting).split()
    begun = time.monotonic()
    assert bob.p2p("join", *code).wait() == 0
    found["join: the guest's process"] = time.monotonic() - begun
    assert inviting.wait() == 0
    found["join: until the host's has ended, too"] = time.monotonic() - begun

    notebook = bob.notebook(WATCHED + "f = c.submit(pow, 2, 10)")
    carol.worker(TITLE)
    times = eval(notebook.run("f.result(60); times['result'] = time.time(); answer = times"))
    found["link: hello to link"] = times["link"] - times["hello"]
    found["link: hello to first result"] = times["result"] - times["hello"]

    notebook.run(
        "import threading\n"
        "def wait():\n"
        "    try: c.submit(time.sleep, 60).result(60)\n"
        "    except p2p_ipython.errors.NotAdmitted: times['cut'] = time.time()\n"
        "waiting = threading.Thread(target=wait); waiting.start()"
    )
    begun = time.time()
    assert alice.p2p("revoke", "friends", "bob", "--yes").wait() == 0
    cut = float(notebook.run("waiting.join(60); answer = times['cut']"))
    (path,) = (Path(alice.environment["P2P_DATA"]) / "clusters").glob("*.json")
    found["revoke: the new list to links cut"] = cut - path.stat().st_mtime
    found["revoke: the command to links cut"] = cut - begun
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder, village(Path(folder), aloud=False) as here:
            runs.append(once(here))
    for name in runs[0]:
        values = sorted(run[name] for run in runs)
        print(f"{name:40} {statistics.median(values):7.3f} s  ({values[0]:.3f} to {values[-1]:.3f})")


if __name__ == "__main__":
    main()
