"""``%p2p_lend`` in a real kernel and on a terminal: a friend's tasks run there, and the line under its cell is true."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli_support import Terminal
from tests.friends.friends_support import Village, village
from tests.notebook.kernels import Notebook, notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CONNECTED = "import p2p_ipython; c = p2p_ipython.connect('alice/friends', request_every=0.5, presence=1)"
WALL = "your files, keys and network are out of their reach"
ENDING, ENDED = "takes no more tasks of alice/friends", "is not lent to alice/friends any more"
LENDS_NOTHING = (
    "import time; from p2p_ipython.client.lending import lender; "
    "[time.sleep(0.05) for _ in iter(lambda: len(lender().states()), 0)]"
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Village]:
    with village(tmp_path) as made:
        made.found("bob", "carol")
        yield made


def workers_of(kernel: Notebook) -> list[psutil.Process]:
    """The processes that lend for a kernel."""
    children = psutil.Process(kernel.manager.provisioner.pid).children()
    return [child for child in children if "p2p_ipython.worker.lend" in child.cmdline()]


def test_the_line_under_the_cell_that_lends_is_kept_true_to_the_end(here: Village) -> None:
    with notebook(here.person("bob").environment) as bob:
        bob.done("%load_ext p2p_ipython")
        assert "%p2p_lend alice/friends" in bob.run("%p2p_lend").traceback
        assert "Nothing is lent by this notebook" in bob.run("%p2p_lend --stop").traceback
        assert "don't go together" in bob.run("%p2p_lend --pause --stop").text
        failed = bob.run("%p2p_lend alice/friends --for zoe")
        assert "nobody in alice/friends is called 'zoe'" in failed.traceback
        assert failed.status_line == "Not lent."

        lend = "%p2p_lend alice/friends --for carol --slots 2 --duration 2h --tag gpu --name desk"
        lending = bob.run(lend)
        assert lending.error is None, lending.error
        line = lending.status_line or ""
        assert line.startswith("desk (gpu) lends 2 slots to alice/friends, to carol only, until ")
        assert WALL in line
        assert "lends to alice/friends already" in bob.run(lend).traceback
        assert "desk (gpu) lends 2 slots to alice/friends" in bob.run("%p2p_lend friends").text

        friend = here.person("carol").notebook(CONNECTED)
        friend.run("f = c.submit(pow, 2, 10)")
        assert friend.run("answer = f.result(60), f.worker") == "(1024, 'bob (desk)')"
        bob.until(lambda: "Run so far: 1 task" in (lending.status_line or ""))

        assert "desk is paused" in bob.run("%p2p_lend --pause").text
        bob.until(lambda: "%p2p_lend --resume" in (lending.status_line or ""))
        assert "desk (gpu) lends" in bob.run("%p2p_lend friends --resume").text
        (worker,) = workers_of(bob)
        stopped = bob.run("%p2p_lend --stop").text
        assert ENDED in stopped or ENDING in stopped  # it takes some time, which is not waited for to the end
        bob.until(lambda: ENDED in (lending.status_line or ""))
        assert not worker.is_running()

        # What it is completed with; the cluster that is connected; its end with the extension.
        assert bob.run("%p2p_connect alice/friends").error is None
        bob.run(
            "from IPython.core.completer import provisionalcompleter as p\n"
            "def completed(line):\n"
            "    with p(): return sorted({c.text for c in get_ipython().Completer.completions(line, len(line))})"
        )
        assert bob.run("completed('%p2p_lend al')").value == "['alice/friends']"
        assert bob.run("completed('%p2p_lend alice/friends --fo')").value == "['--for']"
        assert bob.run("completed('%p2p_lend --for carol da')").value == "[]"
        assert bob.run("completed('%p2p_lend --for ca')").value == "['carol']"
        again = bob.run("%p2p_lend")
        assert again.error is None
        assert "lends 1 slot to alice/friends" in (again.status_line or "")
        (worker,) = workers_of(bob)
        assert bob.run("%unload_ext p2p_ipython").error is None
        assert not worker.is_running()


def test_a_lender_is_asked_under_the_cell_and_answers_by_number(here: Village) -> None:
    with notebook(here.person("bob").environment) as bob:
        bob.done("%load_ext p2p_ipython")
        lending = bob.done("%p2p_lend alice/friends --name desk --ask")
        assert "Policy: to members you know; after your yes." in (lending.status_line or "")
        assert "question 5 is not asked any more" in bob.run("%p2p_lend --yes 5").traceback
        assert "don't go together" in bob.run("%p2p_lend --yes 1 --no 1").text
        assert "--always goes with --yes" in bob.run("%p2p_lend --no 1 --always member").text
        friend = here.person("carol").notebook(CONNECTED)
        friend.run("f = c.submit(pow, 2, 10)")
        bob.until(lambda: "%p2p_lend --yes 1" in (lending.status_line or ""))
        line = (lending.status_line or "").split("\n")[0]
        assert line.startswith(f"carol ({here.person('carol').fingerprint}) asks to run 'pow': a call of a function")
        shown = bob.done("%p2p_lend").text  # what it is, with nothing connected
        assert "Data can carry code: the sandbox is what holds it." in shown
        assert "always for this very task: %p2p_lend --yes 1 --always task" in shown
        assert bob.done("%p2p_lend --yes 1").text == "'pow' of carol may run, once.\n"
        assert friend.run("answer = f.result(60)") == "1024"
        bob.until(lambda: (lending.status_line or "").startswith("desk lends"))
        friend.run("f = c.submit(pow, 2, 11)")
        bob.until(lambda: "%p2p_lend --no 2" in (lending.status_line or ""))
        assert bob.done("%p2p_lend --no 2").text == "'pow' of carol does not run here.\n"
        friend.run("f = c.submit(pow, 2, 12)")
        bob.until(lambda: "%p2p_lend --no 3" in (lending.status_line or ""))
        assert "All tasks of carol may run" in bob.done("%p2p_lend --yes 3 --always member").text
        assert friend.run("answer = f.result(60)") == "4096"


def test_a_lender_at_a_terminal_reads_what_is_asked(here: Village) -> None:
    options = ["--simple-prompt", "--no-banner", "--colors=NoColor", "--ext=p2p_ipython"]
    shell = Terminal(sys.executable, "-m", "IPython", *options, environment=here.person("bob").environment)
    try:
        shell.expect("In [1]:")
        shell.type("%p2p_lend alice/friends --name desk --ask\n")
        shell.expect("In [2]:")
        friend = here.person("carol").notebook(CONNECTED)
        friend.run("f = c.submit(eval, '6 * 7')")
        shell.expect("asks to run 'eval'")
        shell.expect("Data can carry code")
        shell.expect("no: %p2p_lend --no 1")
        shell.type("%p2p_lend --yes 1\n")
        shell.expect("may run, once")
        assert friend.run("answer = f.result(60)") == "42"
        shell.type("exit\n")
        assert shell.wait() == 0
    finally:
        shell.close()


def test_on_a_terminal_what_is_lent_is_printed_and_ends_with_the_program(here: Village) -> None:
    options = ["--simple-prompt", "--no-banner", "--colors=NoColor", "--ext=p2p_ipython"]
    shell = Terminal(sys.executable, "-m", "IPython", *options, environment=here.person("bob").environment)
    try:
        shell.expect("In [1]:")
        shell.type("%p2p_lend alice/friends --name desk\n")
        shell.expect("desk lends 1 slot to alice/friends")
        shell.expect(WALL)
        shell.expect("In [2]:")
        shell.type("%p2p_lend --pause\n")
        shell.expect("desk is paused")
        shell.expect("In [3]:")
        shell.type("%p2p_lend --stop\n")
        stopped = shell.expect("In [4]:")
        assert ENDED in stopped or ENDING in stopped
        shell.type(f"{LENDS_NOTHING};\n")
        shell.expect("In [5]:")
        shell.type("%p2p_lend alice/friends\n")
        shell.expect("lends 1 slot")
        shell.expect("In [6]:")
        shell.type("import psutil; print('child' + 'ren:', *(c.pid for c in psutil.Process().children()))\n")
        shell.expect("children:")
        pids = [int(word) for word in shell.expect("\n").split()]
        shell.type("exit\n")
        assert shell.wait() == 0
    finally:
        shell.close()
    assert pids
    assert not any(map(psutil.pid_exists, pids))
