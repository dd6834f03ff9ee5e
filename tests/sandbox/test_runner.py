"""A runner spoken to directly, as the agent would, but in an order that is the test's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strange_frames import Said, examples, said

from p2p_ipython.protocol.frames import Buffer, FrameReader, Header, encode
from p2p_ipython.protocol.task_frames import FRAMES, AgentFrame, Cancel, NewBuffer, Piece, Task
from p2p_ipython.sandbox.launch import LaunchOptions, prepare
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import pack_task

DEADLINE = 30.0


class Runner:
    """Frames in and out, blocking."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._frames = self._read()

    def send(self, frame: AgentFrame, body: Buffer = b"") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(encode(frame.header(), len(body)) + bytes(body))

    def say(self, frame: Said) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(frame.head + frame.body)

    def ended(self) -> bool:
        """Wait for its end; whether it said nothing before."""
        return next(self._frames, None) is None and self._process.wait(DEADLINE) == 1

    def task(self, task_id: str, source: str) -> None:
        packed = pack_task({}, BufferStore(1 << 20))
        self.send(Task(task_id, 1, "cell", packed.segments, source=source), packed.inline)

    def next(self, kind: str) -> Header:
        """The next frame of a kind. Fails at the runner's end."""
        return next(header for header in self._frames if header["t"] == kind)

    def _read(self) -> Iterator[Header]:
        assert self._process.stdout is not None
        reader = FrameReader()
        while data := os.read(self._process.stdout.fileno(), 1 << 16):
            for header, _ in reader.feed(data):
                yield header


@contextlib.contextmanager
def runner(scratch: Path) -> Iterator[Runner]:
    launch = prepare("process", LaunchOptions(scratch=scratch))
    with subprocess.Popen(
        launch.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=launch.folder, env=launch.env
    ) as process:
        try:
            it = Runner(process)
            it.next("ready")
            yield it
        finally:
            launch.end(process)
            process.wait(DEADLINE)
            launch.clean()


def test_a_cancel_that_came_too_late_does_not_meet_the_next_attempt(tmp_path: Path) -> None:
    with runner(tmp_path) as it:
        for _ in range(3):
            it.task("x", "1")
            assert it.next("result")["ok"]
            it.send(Cancel("x"))
        it.task("x", "1")
        assert it.next("result")["ok"]


def test_a_cancel_that_comes_before_its_task_begins_is_heeded(tmp_path: Path) -> None:
    with runner(tmp_path) as it:
        it.task("x", "import time\ntime.sleep(600)")
        it.send(Cancel("x"))
        assert it.next("result")["error"]["kind"] == "interrupted"
        it.task("x", "1")
        assert it.next("result")["ok"]


AGENT = """
import subprocess, sys, time
from pathlib import Path
from p2p_ipython.sandbox.launch import LaunchOptions, prepare

launch = prepare("process", LaunchOptions(scratch=Path(sys.argv[1])))
process = subprocess.Popen(
    launch.command, stdin=int(sys.argv[2]), stdout=subprocess.PIPE, cwd=launch.folder, env=launch.env
)
process.stdout.read(8)  # the beginning of its first frame
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a process that another one has left is found by /proc")
def test_a_warden_sees_its_agents_end_also_when_somebody_holds_the_pipe_open(tmp_path: Path) -> None:
    read, write = os.pipe()  # the write end is ours, and stays open
    try:
        agent = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(tmp_path), str(read)], stdout=subprocess.PIPE, pass_fds=[read]
        )
        with agent:
            assert agent.stdout is not None
            warden = psutil.Process(int(agent.stdout.readline()))
            runners = warden.children()
            assert len(runners) == 1
            agent.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs([warden, *runners], timeout=DEADLINE)
        assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
        assert list(tmp_path.iterdir()) == []
    finally:
        os.close(read)
        os.close(write)


def test_an_agents_frame_that_is_wrong_ends_a_runner_and_one_of_a_later_version_is_ignored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    @examples(15)
    @given(st.sampled_from(list(FRAMES["agent"])).flatmap(lambda kind: said("agent", kind)))
    def one(frame: Said) -> None:
        assume(frame.wrong or frame.header["t"] != Task.kind)  # a cell of random text might do anything
        with runner(tmp_path) as it:
            if frame.header.get("t") == Piece.kind and not frame.wrong:
                it.send(NewBuffer(frame.header["ref"], 1 << 20))
            it.say(frame)
            if frame.wrong:
                assert it.ended()
            else:
                it.task("after", "1")
                assert it.next("result")["ok"]
        errors = capfd.readouterr().err
        assert errors.count("the runner can't go on") == bool(frame.wrong)
        assert "Traceback" not in errors
        assert not list(tmp_path.iterdir())

    one()
