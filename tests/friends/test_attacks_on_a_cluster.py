"""What those try who are not in a cluster, or not any more, or who are and want more: none of it works.

Who attacks runs in this process, or in a notebook whose insides are at hand; who is attacked is an ordinary process.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from board_support import Recorder
from friends_support import CraftedSlot, Village, eventually, lending, on_the_loop, pid_in, runs, soon, village

from p2p_ipython import loop as loops
from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.config import Settings
from p2p_ipython.members import owner
from p2p_ipython.members.access import profile_access
from p2p_ipython.members.host import Host
from p2p_ipython.members.profile import Profile

TITLE = "alice/friends"
CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r}, request_every=0.5, presence=1)"
GOOD = {"ok": True, "segments": [], "codec": "safe"}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    with village(tmp_path_factory.mktemp("board")) as made:
        yield made


@pytest.fixture
def here(board: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Village]:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))  # what runs in this process shall not see the user's own files
    monkeypatch.setenv("P2P_DATA", str(tmp_path / "nobody" / "data"))
    with village(tmp_path, board=False) as made:
        made.board = board.board
        yield made


def test_a_strangers_worker_that_has_stolen_topic_and_key_gets_no_task(here: Village) -> None:
    profile = here.found("carol")
    ran: list[CraftedSlot] = []

    def crafted(listener):
        ran.append(CraftedSlot(listener, GOOD))
        return ran[-1]

    with on_the_loop(lending(profile, here.person("mallory"), crafted)) as thief:
        notebook = here.person("alice").notebook(CONNECTED)
        notebook.run("f = c.submit(pow, 2, 10)")
        # He does hear them: with topic and key, one can read who is there.
        eventually(lambda: thief.membership._voice.reader._sessions, "alice's hello")
        soon(thief.membership.say_hello)
        assert notebook.run("answer = c.status().members") == "()"
        here.person("carol").worker(TITLE, "--name", "box")
        assert notebook.run("answer = f.result(60), f.worker") == "(1024, 'carol (box)')"
        soon(thief.membership.say_hello)
        assert notebook.run("answer = c.submit(pow, 2, 11).result(60)") == "2048"
        assert notebook.run("answer = [m.name for m in c.status().members]") == "['carol (box)']"
        assert not thief._links
    assert not ran[0].ran


@pytest.mark.parametrize("topic", ["the old topic and key", "the new topic and key, stolen"])
def test_a_worker_that_was_revoked_gets_no_task(here: Village, topic: str) -> None:
    alice = here.person("alice")
    old = here.found("bob", "carol")
    new = owner.revoke(old, alice.key, "bob")
    alice.profiles.save(new)
    here.give(new, here.person("carol"))
    stolen = old if topic.startswith("the old") else replace(old, topic=new.topic, key=new.key)
    ran: list[CraftedSlot] = []

    def crafted(listener):
        ran.append(CraftedSlot(listener, GOOD))
        return ran[-1]

    with on_the_loop(lending(stolen, here.person("bob"), crafted)) as revoked:
        notebook = alice.notebook(CONNECTED)
        notebook.run("f = c.submit(pow, 2, 10)")
        soon(revoked.membership.say_hello)
        here.person("carol").worker(TITLE)
        assert notebook.run("answer = f.result(60)") == "1024"
        assert "bob" not in notebook.run("answer = str(c)")
        assert not revoked._links
    assert not ran[0].ran


def test_who_may_only_lend_cant_have_tasks_run(here: Village) -> None:
    alice, wally, carol = (here.person(name) for name in ("alice", "wally", "carol"))
    profile = owner.admit(here.found("carol"), alice.key, "wally", wally.fingerprint, roles=["worker"])
    alice.profiles.save(profile)
    for person in (wally, carol):
        here.give(profile, person)
    worker = carol.worker(TITLE)
    assert "NotAdmitted: alice lets you lend to alice/friends, not send tasks there" in wally.notebook().fails(
        CONNECTED
    )
    # His own program may be another one, that doesn't ask.
    program = "import p2p_ipython.members.membership as m; m.Membership._check_role = lambda self: None\n"
    lender = wally.notebook(program + CONNECTED)
    lender.run("f = c.submit(pow, 2, 10)")
    notebook = alice.notebook(CONNECTED)
    for n in range(3):
        assert notebook.run(f"answer = c.submit(pow, 2, {n}).result(60)") == str(2**n)
    assert lender.run("answer = f.done()") == "False"
    wally.worker(TITLE, "--name", "box")
    worker.end()
    assert notebook.run("f = c.submit(pow, 2, 10); answer = f.result(60), f.worker") == "(1024, 'wally (box)')"


def test_a_member_cant_recall_somebody_elses_task(here: Village, tmp_path: Path) -> None:
    here.found("bob", "carol")
    here.person("carol").worker(TITLE, "--slots", "2")
    notebook = here.person("alice").notebook(
        CONNECTED + "\n"
        "def wait(folder):\n"
        "    import os, pathlib, time\n"
        "    (folder / 'runs').write_text(f'{os.getpid()}\\n')\n"
        "    while not (folder / 'go').exists(): time.sleep(0.02)\n"
        "    return 'mine'\n"
        f"import pathlib; f = c.submit(wait, pathlib.Path({str(tmp_path)!r}))"
    )
    pid = pid_in(tmp_path / "runs")
    task = notebook.run("answer = f.task_id")
    attack = here.person("bob").notebook(CONNECTED)
    assert attack.run("answer = c.submit(pow, 2, 3).result(60)") == "8"
    attack.run(
        "from p2p_ipython.loop import background\n"
        "async def say(header):\n"
        "    for link in c._bridge.links.values(): link.send(header)\n"
        "for attempt in range(1, 4):\n"
        f"    background().run(say({{'t': 'recall', 'id': {task}, 'attempt': attempt}}))\n"
        "    background().run(say({'t': 'pass'}))\n"
    )
    # What bob asks for afterwards is answered, so the worker has read bob's recalls.
    assert attack.run("answer = c.submit(pow, 2, 4).result(60)") == "16"
    assert runs(pid)
    (tmp_path / "go").write_text("")
    assert notebook.run("answer = f.result(60)") == "'mine'"


def test_a_member_cant_settle_a_task_that_somebody_else_runs(here: Village, tmp_path: Path) -> None:
    profile = here.found("bob", "carol")
    carol = here.person("carol").worker(TITLE)
    notebook = here.person("alice").notebook(
        CONNECTED + "\n"
        "def wait(folder):\n"
        "    import time\n"
        "    while not (folder / 'go').exists(): time.sleep(0.02)\n"
        "    return 'by carol'\n"
        f"import pathlib; f = c.submit(wait, pathlib.Path({str(tmp_path)!r}))"
    )
    task = notebook.run("answer = f.task_id").strip("'")
    eventually(lambda: notebook.run("answer = f.running()") == "True", "the task's start")
    with on_the_loop(lending(profile, here.person("bob"))) as bob:
        # By bob, whom she even trusts: carol has one slot only.
        notebook.run("c.trust('bob')")
        assert notebook.run("answer = c.submit(pow, 2, 3).result(60)") == "8"

        def lie() -> None:
            for link in bob._links.values():
                for attempt in range(1, 4):
                    for kind in ({"t": "started"}, {"t": "result", "ok": True, "segments": [], "codec": "safe"}):
                        link.send({**kind, "id": task, "attempt": attempt}, b"N")

        soon(lie)
        assert notebook.run("answer = c.submit(pow, 2, 4).result(60)") == "16"
        assert notebook.run("answer = f.done()") == "False"
    (tmp_path / "go").write_text("")
    assert notebook.run("answer = f.result(60)") == "'by carol'"
    assert carol.process.poll() is None


def _false_host(here: Village) -> tuple[Profile, Host]:
    """Somebody who calls himself alice, and has another key."""
    mallory = here.person("mallory")
    profile = owner.found(
        TITLE,
        mallory.key,
        board=here.where,
        host_key=here.board["host_key"],
        until=int(time.time() + 3600),
    )
    mallory.profiles.save(profile)
    access = profile_access(
        profile,
        BoardAddress.parse(here.where),
        mallory.key,
        me="alice",
        settings=Settings(),
        profiles=mallory.profiles,
    )
    approved: list[Host] = []
    made = Host(access, profile, mallory.profiles, on_knock=lambda knock: approved[0].approve(knock) and None)
    approved.append(made)
    return profile, made


def test_who_answers_in_the_owners_place_is_found_out_by_his_key(here: Village) -> None:
    alice, carol, mallory = here.person("alice"), here.person("carol"), here.person("mallory")
    background = loops.background()

    async def make() -> Host:
        loops.adopt()
        host = _false_host(here)[1]
        await host.open()
        return host

    false = background.run(make())
    try:
        asking = carol.p2p("join", TITLE, *here.way, "--name", "carol", tty=True)
        asking.expect(f"Its owner has the key {mallory.fingerprint}.\nIs that right?")
        asking.type("no\n")
        assert asking.wait() == 1
        assert carol.profiles.all() == []

        careful = carol.p2p("join", TITLE, *here.way, "--name", "carol", "--owner", alice.fingerprint)
        careful.expect("nobody answers for alice yet")
        host = alice.p2p("host", "friends", *here.way, "--owner", "alice", "--users", f"carol={carol.fingerprint}")
        host.expect("Ctrl-C ends the hosting")
        assert careful.wait() == 0
        assert carol.profiles.load(TITLE).cluster == f"{alice.fingerprint}/friends"
        assert mallory.fingerprint not in careful.text
    finally:
        background.run(false.close())


class Gadget:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self):
        return Path.write_text, (self._marker, "was here")


@pytest.mark.parametrize("codec", ["pickle", "none named", "safe"])
def test_a_crafted_result_of_a_friends_worker_runs_nothing_until_he_is_trusted(
    here: Village, tmp_path: Path, codec: str
) -> None:
    profile = here.found("bob")
    marker = tmp_path / "marker"
    body = pickle.dumps(Gadget(marker))
    result = {"ok": True, "segments": [[len(body), None]], "type": "numbers", "codec": codec}
    if codec == "none named":
        del result["codec"]
    with on_the_loop(lending(profile, here.person("bob"), partial(CraftedSlot, result=result, body=body))):
        notebook = here.person("alice").notebook(CONNECTED)
        notebook.run("f = c.submit(pow, 2, 3)")
        error = notebook.fails("f.result(60)")
        assert error.startswith("RemoteProtocolError" if codec == "safe" else "NotTrusted")
        assert not marker.exists()
        if codec == "safe":
            return
        # That the gadget works shows when its maker is trusted: this test could fail.
        assert notebook.run("answer = c.trust('bob')") == "'bob'"
        notebook.run("f.result(60)")
        assert marker.read_text() == "was here"


def test_a_crafted_exception_of_a_friends_worker_runs_nothing(here: Village, tmp_path: Path) -> None:
    profile = here.found("bob")
    marker = tmp_path / "marker"
    body = pickle.dumps(Gadget(marker))
    error = {"kind": "exception", "class": "builtins.ValueError", "message": "no", "traceback": "", "bases": []}
    result = {"ok": False, "error": error, "segments": [[len(body), None]]}
    with on_the_loop(lending(profile, here.person("bob"), partial(CraftedSlot, result=result, body=body))):
        notebook = here.person("alice").notebook(CONNECTED)
        assert notebook.fails("c.submit(pow, 2, 3).result(60)").startswith("ValueError: no")
    assert not marker.exists()


SCRIPT = "<img src=x onerror=alert(1)><script>alert(2)</script>"
SHOW = f"""
def show():
    from IPython.display import HTML, Javascript, display
    display(HTML({SCRIPT!r}), Javascript("alert(3)"))
    return 1
"""


def test_markup_that_a_friends_worker_shows_arrives_as_text(here: Village) -> None:
    here.found("bob")
    here.person("bob").worker(TITLE)
    notebook = here.person("alice").notebook(CONNECTED + SHOW)
    look = "f = c.submit(show); f.result(60); answer = [sorted(m['content'].get('data', ())) for m in f.outputs]"
    kinds = notebook.run(look)
    assert "text/plain" in kinds
    assert "html" not in kinds
    assert "javascript" not in kinds
    notebook.run("c.trust('bob')")
    assert "text/html" in notebook.run(look)


def test_lines_of_a_day_that_are_played_again_start_nothing(here: Village, tmp_path: Path) -> None:
    profile = here.found("carol")
    alice, carol = here.person("alice"), here.person("carol")
    tasks = tmp_path / "tasks"
    count = (
        "\ndef count(path):\n    with open(path, 'a') as file: file.write('one\\n')\n    return 1\n"
        f"f = c.submit(count, {str(tasks)!r}); answer = f.result(60)"
    )
    operator = Recorder()

    def session(listener: Recorder) -> SSHBoard:
        return SSHBoard(
            BoardAddress.parse(here.where),
            profile.topic,
            listener,
            key=here.person("operator").key,
            pin=here.board["host_key"],
            public=True,
        )

    background = loops.background()

    async def begin() -> SSHBoard:
        board = session(operator)
        await board.open()
        return board

    async def play(board: SSHBoard, lines: list[bytes]) -> None:
        for line in lines:
            board.post(line)

    board = background.run(begin())
    try:
        worker = carol.worker(TITLE)
        notebook = alice.notebook(CONNECTED)
        assert notebook.run(count) == "1"
        notebook.run("c.close()")
        worker.end()
        eventually(lambda: len(operator.lines) >= 5, "a day's lines")
        day = list(operator.lines)
        later = carol.p2p("-vv", "worker", "--cluster", TITLE, "--sandbox", "process")
        later.expect("Ctrl-C ends it")
        for _ in range(3):
            background.run(play(board, day))
        anew = alice.notebook(CONNECTED)
        background.run(play(board, day))
        assert anew.run(count) == "1"
        background.run(play(board, day))
        assert anew.run(count) == "1"
    finally:
        background.run(board.close())
    assert tasks.read_text() == 3 * "one\n"
    assert later.process.poll() is None
    assert "Traceback" not in later.text
    assert "could not meet" not in later.text
