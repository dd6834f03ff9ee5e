"""A task that goes over a limit, or breaks its own interpreter, ends and says so; the next one runs."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest
from slot_support import Outcome, needs, until, worker

from p2p_ipython.config import Settings
from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.sandbox.launch import MECHANISMS, LaunchOptions, prepare
from p2p_ipython.sandbox.scratch import DISK_FULL, full

MIB = 1 << 20

HELD = ("bubblewrap", "podman", "docker", "apptainer")
"""Mechanisms whose kernel holds disk and processes, so that a task meets an error of its own."""


@pytest.fixture(params=MECHANISMS)
def name(request: pytest.FixtureRequest) -> str:
    """A mechanism that can be used here."""
    needs(request.param)
    return str(request.param)


async def ended(name: str, source: str, **limits: Any) -> Outcome:
    """Run a task in a slot, and another one after it, which must work."""
    async with worker(Settings(cancel_grace=0.5), mechanism=name, place="desk", **limits) as it:
        outcome = await it.cell(source)
        after = await it.cell("print('there')\nlen([1, 2])")
        assert (after.value, after.text()) == (2, "there\n")
        return outcome


def words(outcome: Outcome) -> str:
    return outcome.death.detail if outcome.death is not None else outcome.error.message


async def test_a_task_that_fills_its_memory_is_told_the_limit_and_what_it_used(name: str) -> None:
    outcome = await ended(name, "x = []\nwhile True: x.append(bytearray(1 << 20))", memory=300 * MIB)
    assert outcome.death is not None or outcome.error.class_name == "builtins.MemoryError"
    assert "300 MiB on desk are used" in words(outcome) or "of the 0.29 GiB of memory" in words(outcome)
    if outcome.death is None:
        assert outcome.error.traceback.endswith(outcome.error.message.rpartition("\n")[2])


async def test_a_task_that_fills_its_memory_with_processes_is_ended_also_without_a_wall() -> None:
    source = "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n        x = bytearray(b'x') * (200 << 20)\n"
    outcome = await ended(NO_WALL, f"{source}        time.sleep(600)\ntime.sleep(600)", memory=400 * MIB)
    assert outcome.death is not None
    assert outcome.death.kind == "memory"


async def test_a_task_that_fills_its_scratch_folder_is_told_so(name: str) -> None:
    source = "import time\nfor number in range(64): open(str(number), 'wb').write(bytes(1 << 20))\ntime.sleep(600)"
    outcome = await ended(name, source, disk=16 * MIB)
    if name in HELD:
        assert outcome.error.class_name == "builtins.OSError"
        assert words(outcome).endswith("\ndisk: 16 MiB of scratch on desk are used up")
    else:
        assert outcome.death is not None
        assert outcome.death.kind == "disk"
        assert "16 MiB that it may write to its scratch folder" in words(outcome)


def test_one_file_as_large_as_a_task_may_write_is_not_too_much_whoever_looks(tmp_path: Path) -> None:
    launch, disk = prepare(NO_WALL, LaunchOptions(disk=4 * MIB, processes=0, scratch=tmp_path)), 4 * MIB
    try:
        (launch.folder / "large").write_bytes(bytes(disk))
        with subprocess.Popen(["true"]) as process:
            assert launch.excess(process) is None
            assert full(str(launch.folder.parent), disk) is None
            (launch.folder / "beside").write_bytes(bytes(2 * MIB))
            death = launch.excess(process)
        assert death is not None
        assert death.kind == "disk"
        assert full(str(launch.folder.parent), disk) == DISK_FULL
    finally:
        launch.clean()


async def test_a_task_that_starts_too_many_processes_is_told_so(name: str) -> None:
    source = "import os, time\nfor _ in range(100):\n    if os.fork() == 0: time.sleep(600)\ntime.sleep(600)"
    outcome = await ended(name, source, processes=48)
    if outcome.death is not None:
        assert outcome.death.kind == "processes"
        assert "of the 48 processes and threads that it may have" in words(outcome)
    else:
        assert outcome.error.class_name == "builtins.BlockingIOError"
        assert "all 48 that this task may have on desk" in words(outcome)


async def test_an_error_that_no_limit_has_to_do_with_is_told_as_it_is() -> None:
    source = "import errno\nraise OSError(errno.ENOSPC, 'the disk of a server far away')"
    outcome = await ended("process", source, disk=16 * MIB)
    assert words(outcome) == "[Errno 28] the disk of a server far away"


BREAKING = {
    "a builtin is another one": "import builtins\nbuiltins.len = lambda *_: 1 / 0",
    "a class of errors is another one": "import builtins\nbuiltins.BaseException = builtins.Exception = int\n1 / 0",
    "there are no builtins": "import builtins\nbuiltins.__dict__.clear()\n1 / 0",
    "there are no modules": "import sys\nsys.modules.clear()",
    "no descriptor is open": "import os\nos.closerange(0, 1000)",
    "nothing can be written": "import os\nos.write = os.writev = os.getpid = None",
}


@pytest.mark.parametrize("source", BREAKING.values(), ids=BREAKING)
async def test_a_task_that_breaks_its_interpreter_ends_and_the_next_one_has_a_whole_one(source: str) -> None:
    await ended("process", source)


@pytest.mark.parametrize("source", [BREAKING[each] for each in list(BREAKING)[:4]], ids=list(BREAKING)[:4])
async def test_a_task_that_has_broken_its_interpreter_can_be_cancelled(source: str, tmp_path: Path) -> None:
    async with worker(Settings(cancel_grace=0.5), mechanism="process") as it:
        there = tmp_path / "there"  # what is printed may not arrive any more
        steps = [
            "import os",
            *source.removesuffix("\n1 / 0").splitlines(),
            f"os.mkdir({str(there)!r})",
            "while True: pass",
        ]
        # As one statement: between two the shell would notice.
        task = it.begin({}, run="cell", source="if True:\n" + "\n".join(f"    {step}" for step in steps))
        await until(there.exists, "the interpreter is broken")
        it.slot.cancel(task)
        outcome = await it.over()
        assert outcome.death is not None or outcome.error.what == "interrupted"
        assert (await it.cell("len([1, 2])")).value == 2


async def test_the_time_of_a_task_begins_when_its_runner_can_begin_it() -> None:
    async with worker(Settings(task_time=1.0)) as it:
        # In a fresh runner it waits for imports, which here may take as long as it itself may.
        outcome = await it.cell("import time\nbegun = time.monotonic()\ntime.sleep(0.5)\ntime.monotonic() - begun")
        assert outcome.death is None
        assert outcome.value >= 0.5
        begun = asyncio.get_running_loop().time()
        death = (await it.cell("import time\ntime.sleep(600)")).death
        assert death is not None
        assert (death.kind, asyncio.get_running_loop().time() - begun >= 1.0) == ("time", True)
