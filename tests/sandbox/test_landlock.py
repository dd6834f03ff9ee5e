"""The wall that a runner builds around itself: what a task has behind it, and what it doesn't."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from slot_support import needs, worker

from p2p_ipython.config import Settings
from p2p_ipython.sandbox import landlock
from p2p_ipython.sandbox.inside.shared import SemLock
from p2p_ipython.sandbox.launch import LaunchOptions, Mount, mechanism, unable
from p2p_ipython.sandbox.mechanisms import landlock as landlock_mechanism
from p2p_ipython.sandbox.mechanisms import landrun
from p2p_ipython.sandbox.mechanisms.landlock import wall_of
from p2p_ipython.worker.sandboxes import Verdict

linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock is a part of Linux")


@pytest.fixture
def offered() -> None:
    needs("landlock")


MANY = {
    "a pool": "import multiprocessing as m\nwith m.Pool(2) as p: found = p.map(abs, [-1, 2])\nfound == [1, 2]",
    "an executor": (
        "from concurrent.futures import ProcessPoolExecutor as E\n"
        "with E(2) as e: found = list(e.map(abs, [-1, 2]))\nfound == [1, 2]"
    ),
    "threads": (
        "from multiprocessing.pool import ThreadPool\n"
        "with ThreadPool(2) as p: found = p.map(abs, [-1, 2])\nfound == [1, 2]"
    ),
    "a queue": (
        "import multiprocessing as m\nq = m.Queue()\np = m.Process(target=q.put, args=(3,))\np.start()\n"
        "found = q.get(timeout=20)\np.join()\nfound == 3"
    ),
    "a value": (
        "import multiprocessing as m\nv = m.Value('i', 3)\n"
        "def more():\n    with v.get_lock(): v.value += 1\n"
        "p = m.Process(target=more)\np.start()\np.join()\nv.value == 4"
    ),
    "shared memory": (
        "import os\nfrom multiprocessing import shared_memory as s\nx = s.SharedMemory(create=True, size=10)\n"
        "child = os.fork()\n"
        "if child == 0:\n    y = s.SharedMemory(x.name)\n    y.buf[0] = 7\n    os._exit(0)\n"
        "os.waitpid(child, 0)\nfound = x.buf[0]\nx.close()\nx.unlink()\nfound == 7"
    ),
    "joblib": "from joblib import Parallel, delayed\nParallel(n_jobs=2)(delayed(abs)(i) for i in (-1, 2)) == [1, 2]",
}


@pytest.mark.parametrize("what", MANY)
@pytest.mark.usefixtures("offered")
async def test_a_task_can_have_processes_that_work_together(what: str) -> None:
    async with worker(mechanism="landlock") as it:
        outcome = await it.cell(MANY[what])
        assert outcome.value is True, outcome


@pytest.mark.usefixtures("offered")
async def test_what_can_not_be_is_said_with_what_to_do() -> None:
    async with worker(mechanism="landlock") as it:
        outcome = await it.cell("import multiprocessing as m\nm.get_context('spawn').Lock()")
        assert "start method 'fork'" in outcome.error.message


@pytest.mark.usefixtures("offered")
async def test_processes_that_a_task_leaves_end_with_the_task_and_nothing_else_does() -> None:
    async with worker(mechanism="landlock") as it:
        bystander = await asyncio.create_subprocess_exec("sleep", "600")
        try:
            leave = "import os, time\nread, write = os.pipe()\n"
            leave += "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.write(write, b'x')\n"
            leave += "        time.sleep(600)\n    os._exit(0)\n"
            leave += "os.read(read, 1)\nos.close(write)\nstays = os.set_inheritable(read, True)\nread"
            read = (await it.cell(leave)).value
            # The pipe ends when the last process that can write to it does.
            assert (await it.cell(f"import os\nos.read({read}, 1)")).value == b""
            assert bystander.returncode is None
        finally:
            bystander.kill()
            assert await bystander.wait() == -signal.SIGKILL


@pytest.mark.usefixtures("offered")
async def test_of_proc_a_task_sees_itself_and_the_machine_and_no_other_process() -> None:
    async with worker(mechanism="landlock") as it:
        source = """
import os, psutil
closed = []
for path in (f"/proc/{os.getppid()}/cmdline", "/proc/self/net/tcp", "/proc/self/mountinfo", "/proc/1/status"):
    try:
        open(path).close()
    except PermissionError:
        closed.append(path)
known = psutil.Process().memory_info().rss, psutil.virtual_memory().total, len(os.listdir("/proc/self/fd"))
len(closed), min(known) > 0
"""
        assert (await it.cell(source)).value == (4, True)


def test_a_wall_of_roots_opens_the_folders_that_only_root_can_enter(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("closed")
    (folder / "python").mkdir()
    folder.chmod(0o700)
    wall = wall_of(70000, [str(folder / "python")], [])
    assert any(each in (folder, *folder.parents) for each in map(type(folder), wall["closed"]))
    assert wall_of(None, [str(folder / "python")], [])["closed"] == []
    assert "/proc" not in wall["read"]


@linux
def test_a_launch_whose_wall_can_not_be_told_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(landlock_mechanism, "wall_of", fails)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Input/output error"):
        landlock_mechanism.prepare(LaunchOptions(scratch=tmp_path))
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not list(tmp_path.iterdir())


def test_a_folder_without_its_dot_files_is_not_landlocks_to_share() -> None:
    options = LaunchOptions(mounts=(Mount("/data", True, ("/data/.git",)),))
    cannot = unable("landlock", options)
    assert cannot is not None
    assert "landlock" not in cannot[1]


@linux
def test_landrun_shows_what_landlock_does_and_gives_no_more_of_the_environment(tmp_path: Path) -> None:
    words = landrun.command(["/usr", "/proc/self/status", "/no/such"], [str(tmp_path)], ["A"], ["python", "-P"])
    assert words[1:] == [
        *("--log-level", "error", "--best-effort", "--ro", "/proc", "--rox", "/usr", "--rwx", str(tmp_path)),
        *("--rw", "/dev/null", "--env", "A", "--", "python", "-P"),
    ]
    assert Verdict("landrun").is_automatic is False


def test_a_process_that_can_send_signals_to_its_parent_is_not_taken_to_be_alone() -> None:
    script = "from p2p_ipython.sandbox import processes\nprocesses.alone()"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert said.returncode != 0
    assert "can send signals to its parent" in said.stderr


@linux
def test_restricting_without_a_kernel_that_holds_signals_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: landlock.LEAST_ABI - 1)
    with pytest.raises(OSError, match="doesn't hold signals"):
        landlock.restrict([])
    missing = mechanism("landlock").available()
    assert missing is not None
    assert "ABI 5" in missing.why


@linux
def test_a_semaphore_is_one_as_multiprocessing_has_it() -> None:
    lock, semaphore = SemLock(0, 1, 1, "/a", True), SemLock(1, 2, 2, "/b", True)
    with lock:
        assert lock.acquire()
        assert (lock._count(), lock._is_mine(), lock._is_zero()) == (2, True, True)
        lock.release()
    assert (lock._count(), lock._is_mine(), lock._get_value()) == (0, False, 1)
    with pytest.raises(AssertionError, match="not owned"):
        lock.release()
    assert semaphore.acquire()
    assert semaphore.acquire(False)
    assert not semaphore.acquire(False)
    assert not semaphore.acquire(True, 0.01)
    semaphore.release()
    semaphore.release()
    with pytest.raises(ValueError, match="too many times"):
        semaphore.release()


@linux
def test_a_semaphore_wakes_another_process() -> None:
    ready, done = SemLock(1, 0, 1, "/a", True), SemLock(1, 0, 1, "/b", True)
    child = os.fork()
    if child == 0:
        ready.acquire()
        done.release()
        os._exit(0)
    ready.release()
    assert done.acquire(True, 20)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.usefixtures("offered")
async def test_a_task_that_waits_for_a_semaphore_is_interrupted() -> None:
    async with worker(Settings(cancel_grace=30), mechanism="landlock") as it:
        source = (
            "import multiprocessing as m\nlock = m.Lock()\nlock.acquire()\nprint('there', flush=True)\nlock.acquire()"
        )
        task = it.begin({}, run="cell", source=source)
        await it.printed("there")
        it.slot.cancel(task)
        assert (await it.over()).error.what == "interrupted"
