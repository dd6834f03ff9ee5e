"""Nothing of a runner outlives it: no process, no folder, whoever is killed and however."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from slot_support import until, worker

from p2p_ipython.sandbox.scratch import make_scratch, sweep

DAEMON = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", '''
import os, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open({path!r} + ".part", "w").write(str(os.getpid()))
os.rename({path!r} + ".part", {path!r})
time.sleep(600)
''']).wait()
import time
while not os.path.exists({path!r}): time.sleep(0.01)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has no subreapers: daemons get away there")


def gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@linux
async def test_processes_that_a_task_leaves_are_ended_with_it(tmp_path: Path) -> None:
    async with worker() as it:
        first = await it.cell("import subprocess\nsubprocess.Popen(['sleep', '600']).pid")
        assert gone(first.value)
        mark = tmp_path / "daemon"
        assert (await it.cell(DAEMON.format(path=str(mark)))).header["ok"]
        assert gone(int(mark.read_text()))
        assert (await it.cell("1")).value == 1
        assert it.deaths == []


@linux
@pytest.mark.parametrize("end", ["close", "warden", "runner"])
async def test_daemons_are_gone_when_their_runner_is(end: str, tmp_path: Path) -> None:
    mark = tmp_path / "daemon"
    async with worker(scratch=tmp_path) as it:
        it.begin({"kind": "cell", "source": DAEMON.format(path=str(mark)) + "\nprint('there')\ntime.sleep(600)"}, {})
        await it.printed("there")
        runner = psutil.Process(it.slot.pid)
        daemon = int(mark.read_text())
        assert not gone(daemon)
        if end == "close":
            await it.slot.close()
        else:
            (runner if end == "runner" else runner.parent()).kill()
            death = (await it.over()).death
            assert death is not None
            assert (death.kind, death.code) == ("signal", signal.SIGKILL)
            await it.wait_ready()
            assert (await it.cell("1")).value == 1
        assert gone(daemon)
        assert gone(runner.pid)
    assert below(tmp_path, "p2p-*") == []


AGENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from slot_support import worker

async def main():
    async with worker(scratch=Path({scratch!r})) as it:
        it.begin({{"kind": "cell", "source": {source!r}}}, {{}})
        await it.printed("there")
        print(it.slot.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def start_agent(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def below(folder: Path, pattern: str = "*") -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.glob(pattern)]


@linux
@pytest.mark.parametrize("waiting", ["time.sleep(600)", "sum(range(10 ** 14))"])
async def test_a_killed_agent_leaves_nothing(waiting: str, tmp_path: Path) -> None:
    mark = tmp_path / "daemon"
    # The second one never gives up the interpreter's lock: the runner itself can't notice anything.
    source = DAEMON.format(path=str(mark)) + f"\nprint('there', flush=True)\n{waiting}"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    script = AGENT.format(tests=os.path.dirname(os.path.dirname(__file__)), scratch=str(scratch), source=source)
    agent = start_agent(script)
    assert agent.stdout is not None
    with agent.stdout:
        runner = int(await asyncio.to_thread(agent.stdout.readline))
    daemon = int(mark.read_text())
    assert not gone(runner)
    assert not gone(daemon)
    agent.kill()
    agent.wait()
    await until(lambda: gone(runner) and gone(daemon), "the runner and its daemon end")
    await until(lambda: below(scratch) == [], "the scratch folder is removed")


def test_only_the_scratch_of_agents_that_are_no_more_is_swept(tmp_path: Path) -> None:
    ours = make_scratch(tmp_path)
    child = subprocess.Popen(["true"])
    child.wait()
    theirs = tmp_path / f"p2p-{child.pid}-abcdef"
    (theirs / "home").mkdir(parents=True)
    other = tmp_path / "p2p-notes-abcdef"
    other.mkdir()
    assert sweep(tmp_path) == [theirs]
    assert sorted(tmp_path.iterdir()) == sorted([ours, other])


async def test_closing_leaves_no_process_descriptor_or_folder(tmp_path: Path) -> None:
    children = psutil.Process().children(recursive=True)
    async with worker(scratch=tmp_path) as it:  # also starts what stays: the loop's thread pool
        await it.cell("1")
    before = os.listdir("/dev/fd")
    async with worker(scratch=tmp_path) as it:
        await it.cell("open('file', 'w').write('in scratch')")
        assert len(below(tmp_path, "p2p-*/home/file")) == 1
    assert len(os.listdir("/dev/fd")) == len(before)
    assert below(tmp_path) == []
    assert psutil.Process().children(recursive=True) == children
