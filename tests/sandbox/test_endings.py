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

from p2p_ipython.sandbox.scratch import STRANGERS, Scratch, lock, sweep

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
        assert (await it.cell(DAEMON.format(path=str(mark)))).result.ok
        assert gone(int(mark.read_text()))
        assert (await it.cell("1")).value == 1
        assert it.deaths == []


@linux
@pytest.mark.parametrize("end", ["close", "warden", "runner"])
async def test_daemons_are_gone_when_their_runner_is(end: str, tmp_path: Path) -> None:
    mark = tmp_path / "daemon"
    async with worker(scratch=tmp_path) as it:
        it.begin({}, run="cell", source=DAEMON.format(path=str(mark)) + "\nprint('there')\ntime.sleep(600)")
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
        it.begin({{}}, run="cell", source={source!r})
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


def opened_by(process: psutil.Process) -> list[str]:
    found = []
    for fd in os.listdir(f"/proc/{process.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            found.append(os.readlink(f"/proc/{process.pid}/fd/{fd}"))
    return found


def aged(folder: Path) -> Path:
    os.utime(folder, (0, 0))
    return folder


def test_only_the_scratch_of_agents_that_are_no_more_is_swept(tmp_path: Path) -> None:
    ours = Scratch(tmp_path)
    aged(ours.path)
    left = tmp_path / f"p2p-{os.getpid()}-abcdef"  # an agent had our process id, say in another container
    (left / "home").mkdir(parents=True)
    aged(left)
    young = tmp_path / "p2p-1-abcdef"  # not locked yet
    young.mkdir()
    other = tmp_path / "p2p-notes-abcdef"
    other.mkdir()
    aged(other)
    link = tmp_path / "p2p-2-abcdef"
    link.symlink_to(other)
    try:
        assert sweep(tmp_path) == [left]
        assert sorted(tmp_path.iterdir()) == sorted([ours.path, young, other, link])
    finally:
        ours.remove()
    assert not ours.path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root's runners have user ids of their own")
def test_the_folder_of_a_runner_of_roots_is_swept_though_it_is_somebody_elses(tmp_path: Path) -> None:
    left, of_a_user = tmp_path / "p2p-1-abcdef", tmp_path / "p2p-2-abcdef"
    for folder, user in ((left, STRANGERS[7]), (of_a_user, 12345)):
        folder.mkdir()
        os.chown(folder, user, user)
        aged(folder)
    assert sweep(tmp_path) == [left]


def test_a_folder_is_swept_when_the_last_who_uses_it_has_ended(tmp_path: Path) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    folder = tmp_path / f"p2p-{child.pid}-abcdef"  # its agent's id is no process's here
    folder.mkdir()
    locks = [lock(folder), lock(folder)]
    while locks:
        assert sweep(aged(folder).parent) == []
        os.close(locks.pop())
    assert sweep(tmp_path) == [folder]


async def test_a_runners_folder_is_in_use_while_its_warden_lives_and_its_agent_does(tmp_path: Path) -> None:
    async with worker(scratch=tmp_path) as it:
        folder = tmp_path / below(tmp_path)[0]
        assert (await it.cell("1")).value == 1
        for process in (psutil.Process(), psutil.Process(it.slot.pid).parent()):
            assert process is not None
            if sys.platform == "linux":
                assert str(folder) in opened_by(process)
        assert sweep(aged(folder).parent) == []


async def test_closing_leaves_no_process_descriptor_or_folder(tmp_path: Path) -> None:
    # Both may become fewer meanwhile: what earlier tests have used goes when it is collected.
    children = set(psutil.Process().children(recursive=True))
    async with worker(scratch=tmp_path) as it:  # also starts what stays: the loop's thread pool
        await it.cell("1")
    before = set(os.listdir("/dev/fd"))
    async with worker(scratch=tmp_path) as it:
        await it.cell("open('.file', 'w').write('in scratch')")
        assert len(below(tmp_path, "p2p-*/home/.file")) == 1
    assert len(os.listdir("/dev/fd")) <= len(before)
    assert below(tmp_path) == []
    assert set(psutil.Process().children(recursive=True)) <= children
