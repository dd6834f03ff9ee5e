"""A trace tells what was decided about a task, and nothing that anybody wrote."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython import tracing
from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol import client_machine, host_machine, membership_machine, worker_machine
from p2p_ipython.protocol.task_frames import Lost, Output, Task
from p2p_ipython.protocol.tracing import events_of, mentions, story, traced

MACHINES = {
    client_machine.ClientMachine: {"submit", "cancel", "close", "give_up", "heard", "link_up", "link_lost", "frame"},
    worker_machine.WorkerMachine: {"heard", "task", "recall", "slot_ready", "slot_result", "slot_died", "pause"},
    membership_machine.MembershipMachine: {"heard", "install", "tick"},
    host_machine.HostMachine: {"asked", "refuse"},
}

CANARY = "CANARY-0123456789"


@pytest.mark.parametrize("machine", MACHINES)
def test_the_events_of_a_machine_are_found(machine: type) -> None:
    assert MACHINES[machine] <= set(events_of(machine))


class Machine:
    """A machine with one event of each kind of argument."""

    def hears(self, sid: bytes, thing: Any, reason: str, task_id: str, now: float) -> list[Action]:
        return [self.Did(thing)] if task_id else self.hears(sid, thing, reason, "t", now)

    class Did:
        def __init__(self, thing: Any) -> None:
            self.thing = thing


Action = Machine.Did


def lines_of(thing: Any, reason: str = CANARY) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    machine = traced(Machine(), "client", b"\1" * 16, written.append)
    machine.hears(b"\2" * 16, thing, reason, "", 7.0)
    return written


TEXTS = st.just(CANARY)
THINGS = st.recursive(
    TEXTS | st.just(CANARY.encode()) | st.builds(Exception, TEXTS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
) | st.sampled_from(
    [
        Task("t", 1, "cell", ((9, CANARY),), CANARY, (CANARY,), CANARY),
        Output("t", 1, "stream", "stdout"),
        Lost("t", 1, CANARY),
    ]
)


@given(thing=THINGS)
def test_nothing_that_anybody_wrote_gets_into_a_line(thing: Any) -> None:
    text = json.dumps(lines_of(thing))
    assert CANARY not in text
    assert CANARY.encode().hex()[:8] not in text


def test_an_event_inside_an_event_is_one_line() -> None:
    event, action = lines_of(3, "busy")
    assert event == {"who": "client", "own": "01010101", "event": "hears", "sid": "02020202", "thing": 3} | {
        "reason": "busy",
        "task_id": "",
    }
    assert action == {"who": "client", "own": "01010101", "action": "Did"}


def test_a_story_is_of_one_task_and_in_the_order_of_time() -> None:
    lines = [
        {"at": 2.0, "who": "worker", "own": "bb", "action": "Start", "task": "abc", "slot": 0, "attempt": 1},
        {"at": 1.0, "who": "client", "own": "aa", "event": "submit", "spec": {"kind": "taskspec", "id": "abc"}},
        {"at": 1.5, "who": "client", "own": "aa", "event": "submit", "spec": {"kind": "taskspec", "id": "xyz"}},
        {"at": 3.0, "who": "client", "own": "aa", "event": "later", "task": "abc", "number": 4},
    ]
    assert [mentions(line, "ab") for line in lines] == ["abc", "abc", "", "abc"]
    assert list(story(lines, "abc")) == [
        (1.0, "client aa takes the task"),
        (2.0, "worker bb starts attempt 1 in slot 0"),
        (3.0, "client aa hears later (number 4)"),
    ]


def test_a_file_of_somebody_elses_can_neither_end_the_story_nor_move_the_cursor() -> None:
    wrong: dict[str, Any] = {"at": "x", "who": "\x1b[2J", "own": "aa", "event": "e", "task": "abc", "more": "\x1b[2J"}
    ((at, sentence),) = story([wrong], "abc")
    assert at == 0
    assert "\x1b" not in sentence


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_trace_is_its_owners_only_and_no_link_leads_to_it(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    tracing.TraceFile(str(path)).write({"event": "x"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "open").write_text("")
    (tmp_path / "open").chmod(0o644)
    for wrong in ("link", "open", "no/such/folder"):
        with pytest.raises(ConfigError, match="trace"):
            tracing.TraceFile(str(tmp_path / wrong))
    os.mkfifo(tmp_path / "fifo")
    for wrong in (os.devnull, str(tmp_path / "fifo")):
        with pytest.raises(ConfigError):
            tracing.TraceFile(wrong)


def test_a_trace_that_has_another_name_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "precious").chmod(0o600)
    (tmp_path / "trace").hardlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match=r"trace is a hard link: its file has 2 names") as refused:
        tracing.TraceFile(str(tmp_path / "trace"))
    assert "Remove this name" in refused.value.hint
    (tmp_path / "trace").unlink()
    tracing.TraceFile(str(tmp_path / "trace")).write({"event": "x"})
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_trace_that_is_full_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MOST", 200)
    trace = tracing.TraceFile(str(tmp_path / "trace"))
    for number in range(100):
        trace.write({"number": number})
    lines = (tmp_path / "trace").read_text().splitlines()
    assert [json.loads(line).get("end") for line in lines[-2:]] == [None, "the trace has 200 bytes"]
    assert sum(map(len, lines)) < 300


SCRIPT = """
import os, resource, signal, sys
import p2p_ipython
if {limit}:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
with p2p_ipython.connect(workers=1) as cluster:
    one = cluster.submit(pow, 2, 10)
    assert one.result(60) == 1024
    secret = cluster.submit(str.upper, "canary-in-arguments")
    assert secret.result(60) == "CANARY-IN-ARGUMENTS"
    assert cluster.submit(os.getenv, "P2P_TRACE").result(60) is None, "a runner sees where the trace is"
    if {kill}:
        import pathlib, time
        folder = pathlib.Path(sys.argv[1])
        def works(folder):
            import os, time
            first = not (folder / "pid").exists()
            (folder / "pid").write_text(str(os.getpid()))
            while first: time.sleep(0.02)
            return "after all"
        one = cluster.submit(works, folder)
        while not (folder / "pid").exists() or not (folder / "pid").read_text(): time.sleep(0.02)
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
        assert one.result(60) == "after all"
    print(one.task_id)
"""


def run(tmp_path: Path, *, limit: int = 0, kill: bool = False) -> str:
    """A personal cluster with a trace; returns the id of its task."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(limit=limit, kill=kill), str(tmp_path)],
        env={**os.environ, "P2P_TRACE": str(tmp_path / "trace")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def told(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "p2p_ipython.cli", "trace", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_story_of_a_task_whose_runner_was_killed_has_both_attempts(tmp_path: Path) -> None:
    task = run(tmp_path, kill=True)
    out = told(str(tmp_path / "trace"), "--task", task[:12]).stdout
    said = [line.split("  ", 1)[1] for line in out.splitlines()]
    parts = ("takes the task", "sends attempt 1", "starts attempt 1", "replies: lost of attempt 1", "sends attempt 2")
    for part in parts:
        assert any(part in line for line in said), (part, out)
    assert "settles the future: result" in said[-1]
    text = (tmp_path / "trace").read_text()
    assert "canary" not in text.lower()
    assert "pid" not in text.replace('"pid"', "")
    wrong = told(str(tmp_path / "trace"), "--task", "no such task")
    assert (wrong.returncode, "no task begins with" in wrong.stderr) == (1, True)
    missing = told(str(tmp_path / "nothing"), "--task", task)
    assert (missing.returncode, "can't be read" in missing.stderr) == (1, True)


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="POSIX only")
def test_a_disk_that_is_full_ends_the_trace_and_not_the_work(tmp_path: Path) -> None:
    run(tmp_path, limit=2000)
    assert (tmp_path / "trace").stat().st_size <= 2000
