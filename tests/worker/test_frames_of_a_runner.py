"""A runner's frame that breaks the protocol ends the runner, once, and its listener hears of a death and nothing else.

A task may get hold of its runner's pipe, and say there what it likes. Each kind of frame is written to it with fields
that are missing, of wrong types or beyond their bounds, as hypothesis draws them (tests/strange_frames.py).
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from strange_frames import Said, each_way

from p2p_ipython import loop as loops
from p2p_ipython.config import Settings
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.task_frames import FRAMES, Cleared, Output, Progress, Ready, Result, ResultChunk, Task
from p2p_ipython.sandbox import launch
from p2p_ipython.sandbox.launch import LaunchOptions
from p2p_ipython.sandbox.mechanisms.process import ProcessLaunch
from p2p_ipython.worker.slot_base import Death, SlotState
from p2p_ipython.worker.slots import Slot


class Hijacked(ProcessLaunch):
    """A process that is ready as a runner is, waits for a task, and then says what is in a file."""

    def __init__(self, options: LaunchOptions) -> None:
        super().__init__(options)
        (self.folder / "ready").write_bytes(Said(Ready("3.11", "here", 7).header(), b"").head)
        says = shlex.quote(options.extra_env["SAYS"])
        self.command = ["sh", "-c", f"cat ready; head -c 1 >/dev/null; cat {says}; exec cat 3>&1 >/dev/null"]


prepare = Hijacked


class Listener:
    """What a slot has told, in order, until its task was over."""

    def __init__(self) -> None:
        self.told: list[Output | Progress | ResultChunk | Result | Death] = []
        self.over = asyncio.Event()

    def on_output(self, _slot: Slot, output: Output | Progress, _body: Buffer) -> None:
        self.told.append(output)

    def on_chunk(self, _slot: Slot, chunk: ResultChunk, _body: Buffer) -> None:
        self.told.append(chunk)

    def on_result(self, _slot: Slot, result: Result, _body: Buffer) -> None:
        self.told.append(result)
        self.over.set()

    def on_died(self, _slot: Slot, _task: str | None, death: Death) -> None:
        self.told.append(death)
        self.over.set()

    def on_preparing(self, _slot: Slot, words: str) -> None:
        pass

    def on_dropped(self, _slot: Slot, refs: Sequence[str]) -> None:
        pass

    def on_ready(self, _slot: Slot) -> None:
        pass


def in_turn(frame: Said) -> Said:
    """The same frame as one about the task, and as a chunk and a result that can be right are."""
    if frame.wrong:
        return frame.about(id="t", attempt=1)
    if frame.header["t"] == ResultChunk.kind:
        frame = replace(frame.about(size=9, off=0), body=b"abc")
    return frame.about(id="t", attempt=1, segments=[[len(frame.body), None]], attached=[])


@pytest.mark.parametrize("kind", FRAMES["runner"])
def test_a_frame_that_is_wrong_ends_the_runner_and_fields_of_a_later_version_are_ignored(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(launch, "MECHANISMS", ("hijacked",))
    monkeypatch.setitem(sys.modules, "p2p_ipython.sandbox.mechanisms.hijacked", sys.modules[__name__])
    scratch, says = tmp_path / "scratch", tmp_path / "says"
    scratch.mkdir()
    options = LaunchOptions(scratch=scratch, extra_env={"SAYS": str(says)})
    last = Result("t", 1, True, ())

    def one(frame: Said) -> None:
        frame = in_turn(frame)
        # The runner is of its agent's own version, and was ready before: another kind comes from a task.
        ends = frame.wrong or frame.header["t"] not in {*FRAMES["runner"]} - {Ready.kind}
        said = frame.head + frame.body
        result, cleared = (Said(one.header(), b"").head for one in (last, Cleared("")))
        in_order = {Result.kind: said + cleared, Cleared.kind: result + said}
        says.write_bytes(in_order.get(frame.header.get("t"), said + result + cleared))

        async def work() -> None:
            slot = Slot(options, listener := Listener(), Settings(), mechanism="hijacked")
            await slot.start()
            try:
                slot.run(Task("t", 1, "call", ((0, None),)), b"")
                await asyncio.wait_for(listener.over.wait(), 30)
                if ends:
                    assert [isinstance(one, Death) and one.kind for one in listener.told] == ["protocol"]
                else:
                    read = {} if kind in ("cleared", "warm") else {kind: FRAMES["runner"][kind].read(frame.header)}
                    assert listener.told == list(({**read, "result": read.get("result", last)}).values())
                assert slot.state is not SlotState.BUSY
            finally:
                await slot.close()
            assert not list(scratch.iterdir())

        loops.background().run(work())

    with caplog.at_level(logging.WARNING):
        each_way("runner", kind, 1, one)
    assert "Traceback" not in caplog.text
