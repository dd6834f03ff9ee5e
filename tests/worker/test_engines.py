"""Engines behind a worker: tasks run there as on any worker; what is lost is said; nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from engine_support import POOL, Cluster, EngineWorker, below, dask_cluster, engine
from slot_support import needs, until

from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol.frames import FrameReader, encode
from p2p_ipython.protocol.task_frames import Task
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import pack_task
from p2p_ipython.worker.cache import Inbound
from p2p_ipython.worker.engines import entry, frames

LOOP = "import time\nprint('begun', flush=True)\nopen(note, 'w').close()\nwhile True: time.sleep(0.01)"


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a module of factories."""
    (tmp_path / "lab.py").write_text(POOL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Cluster]:
    with dask_cluster(tmp_path) as made:
        yield made


def the_host() -> psutil.Process:
    """The host's warden, a child of ours."""
    (found,) = (each for each in psutil.Process().children() if "p2p_ipython.worker.engines.host" in each.cmdline())
    return found


async def until_workers(dask: Cluster, number: int) -> None:
    """Wait until a cluster has so many workers."""
    from distributed import Client

    async with Client(f"tcp://127.0.0.1:{dask.port}", asynchronous=True, set_as_default=False) as client:
        await client.wait_for_workers(number)


async def lost(it: EngineWorker) -> str:
    """The words in which a task's death is told."""
    outcome = await it.over()
    assert outcome.death is not None
    assert outcome.death.kind == "engine"
    return outcome.death.detail


# -- an executor ---------------------------------------------------------------------------------------------------


async def test_a_task_runs_in_an_executors_worker_as_it_does_in_a_runner(factories: Path) -> None:
    async with engine("lab:pool") as (made, [it, _]):
        assert made.condition.slots == 2
        outcome = await it.cell("print('hello')\n!echo shell\ndisplay(1)\nn * 2", {"n": 21})
        assert outcome.value == 42
        assert outcome.order()[:2] == ["hello\nshell\n", "display_data"]
        failed = await it.cell("1 / 0")
        assert failed.error.class_name == "builtins.ZeroDivisionError"
        assert "division by zero" in failed.error.traceback
        assert it.slot.used().cpu >= 0
        large = np.arange(1 << 20)
        assert np.array_equal((await it.call(np.negative, large)).value, -large)
        left = await it.cell("open('left.txt', 'w').write('left')\nimport os\nos.environ['LEFT'] = '1'")
        assert [each.name for each in left.result.attached] == ["left.txt"]
        assert (await it.cell("import os\nos.path.exists('left.txt'), 'LEFT' in os.environ")).value == (False, False)


async def test_tasks_of_two_members_share_no_runner(factories: Path) -> None:
    async with engine("lab:threads") as (_, [it, _]):
        pids = []
        for owner in ("alice", "alice", "bob", "alice"):
            it.begin((os.getpid, (), {}), owner=owner)
            pids.append((await it.over()).value)
        assert pids[0] == pids[1]
        assert len(set(pids)) == 3


async def test_two_slots_run_at_a_time(factories: Path) -> None:
    async with engine("lab:pool") as (_, workers):
        meet = (
            "import pathlib, time\npathlib.Path(mine).touch()\nwhile not pathlib.Path(other).exists(): time.sleep(0.01)"
        )
        notes = [str(factories / name) for name in ("a", "b")]
        for it, (mine, other) in zip(workers, (notes, notes[::-1]), strict=True):
            it.begin({"mine": mine, "other": other}, run="cell", source=meet)
        for it in workers:
            assert (await it.over()).result.ok


async def test_a_task_that_runs_is_cancelled_and_frees_its_slot(factories: Path) -> None:
    async with engine("lab:pool") as (_, [it, _]):
        task = it.begin({"note": str(factories / "note")}, run="cell", source=LOOP)
        await until((factories / "note").exists, "the task")
        it.slot.cancel(task)
        outcome = await it.over()
        assert outcome.error.what == "interrupted"
        assert outcome.text() == "begun\n"  # it printed before, and that is not lost
        assert (await it.cell("1")).value == 1


async def test_a_task_that_ignores_interrupts_is_killed_and_one_that_takes_too_long_too(factories: Path) -> None:
    async with engine("lab:pool", Settings(cancel_grace=0.5, task_time=3.0)) as (_, [it, late]):
        deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + LOOP
        task = it.begin({"note": str(factories / "note")}, run="cell", source=deaf)
        late.begin({}, run="cell", source="while True: pass")
        await until((factories / "note").exists, "the task")
        it.slot.cancel(task)
        outcome = await it.over()
        assert outcome.death is not None
        assert outcome.death.kind == "cancelled"
        outcome = await late.over()
        assert outcome.death is not None
        assert outcome.death.kind == "time"
        assert "3 s" in outcome.death.detail


def test_the_shorter_time_of_a_client_and_its_lender_holds() -> None:
    packed = pack_task({}, BufferStore(1 << 20))
    task = Task("t", 1, "cell", packed.segments, source="while True: pass")
    ends = []
    for number, (lenders, clients) in enumerate(((0.0, 0.5), (0.5, 0.0), (600.0, 0.5))):
        asked = frames.Asked(f"k-{number}", "t", 1, "me", 1.0, 1 << 20, lenders, clients)
        job = encode(asked.header()) + encode(task.header(), len(packed.inline)) + packed.inline
        ((header, _),) = FrameReader().feed(entry.run(job))
        ends.append(frames.Ran.read(header))
    assert [end.death for end in ends] == ["timeout", "time", "timeout"]
    assert [end.detail.split(" which is ")[1] for end in ends] == [
        "its timeout",
        "as long as its lender lets a task run",
        "its timeout",
    ]


async def test_an_engine_that_lies_is_found_out_and_its_task_lost(factories: Path) -> None:
    async with engine("lab:liar", slots=1) as (_, [it, _]):
        it.begin((abs, (-1,), {}))
        outcome = await it.over()
        assert outcome.death is not None
        assert outcome.death.kind == "protocol"
        await it.wait_ready()


async def test_nothing_is_passed_on_while_a_slot_is_paused_and_all_of_it_afterwards(factories: Path) -> None:
    async with engine("lab:pool") as (_, [it, other]):
        it.slot.pause()
        it.begin({}, run="cell", source="print('x' * (1 << 20))\nbytes(4 << 20)")
        await until(lambda: it.slot._job.complete, "the end of the task")  # type: ignore[union-attr]
        assert (await other.call(abs, -1)).value == 1  # others aren't held up
        assert it.slot.busy
        assert not it._outputs
        it.slot.resume()
        outcome = await it.over()
        assert len(outcome.value) == 4 << 20
        assert len(outcome.text()) == (1 << 20) + 1


async def test_a_task_whose_runner_dies_takes_nothing_along(factories: Path) -> None:
    async with engine("lab:pool") as (_, [it, _]):
        outcome = await it.cell("import os\nos._exit(3)")
        assert outcome.death is not None
        assert (outcome.death.kind, outcome.death.code) == ("exit", 3)
        assert (await it.cell("1")).value == 1


async def test_what_is_too_large_for_an_engine_is_refused_in_words(
    factories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine("lab:pool") as (_, [it, _]):
        monkeypatch.setattr("p2p_ipython.worker.engines.slot.MOST", 1 << 20)
        outcome = await it.call(len, bytes(2 << 20))
        assert outcome.error.what == "unloadable"
        assert "an engine takes 1 MiB at most" in outcome.error.message
        assert (await it.call(len, b"small")).value == 5


async def test_a_result_too_large_for_an_engine_ends_its_task_in_words(factories: Path) -> None:
    async with engine("lab:pool") as (_, [it, _]):
        outcome = await it.call(bytes, frames.MOST + 1)
        assert outcome.death is not None
        assert "more than 256 MiB, which is all that an engine carries" in outcome.death.detail
        assert (await it.call(abs, -1)).value == 1


async def test_a_task_whose_buffer_does_not_come_is_given_up(factories: Path) -> None:
    async with engine("lab:pool") as (_, [it, _]):
        packed = pack_task((len, (bytes(2 << 20),), {}), it.store)
        ((ref, view),) = packed.large.items()
        source = Inbound(ref, view.nbytes)
        it.begin_packed(packed, [source])
        source.feed(view[:100])
        source.fail("the client is gone")
        assert "the client is gone" in (await it.over()).error.message
        assert (await it.call(abs, -1)).value == 1


async def test_an_executor_that_breaks_is_lost_and_made_anew(factories: Path) -> None:
    async with engine("lab:pool") as (made, [it, other]):
        ready: list[int] = []
        made.on_change = lambda condition: ready.append(condition.slots)
        it.begin({}, run="cell", source=f"open({str(factories / 'note')!r}, 'w').close()\nimport time\ntime.sleep(600)")
        await until((factories / "note").exists, "the task")
        (pool_worker, *_) = [
            each
            for each in below(the_host().pid)
            if any("inside.runner" in " ".join(c.cmdline()) for c in each.children())
        ]
        pool_worker.kill()
        assert "the executor is broken" in await lost(it)
        await other.wait_ready()
        await it.wait_ready()
        assert ready == [0, 2]
        assert (await it.cell("1")).value == 1


@pytest.mark.parametrize("victim", ["host", "warden"])
async def test_a_host_that_is_killed_takes_all_along_and_comes_again(factories: Path, victim: str) -> None:
    async with engine("lab:pool") as (_, [it, _]):
        it.begin({}, run="cell", source=f"open({str(factories / 'note')!r}, 'w').close()\nimport time\ntime.sleep(600)")
        await until((factories / "note").exists, "the task")
        warden = the_host()
        started = below(warden.pid)
        assert len(started) >= 5  # host, two of the pool, the runner and its warden
        os.kill(warden.pid if victim == "warden" else warden.children()[0].pid, signal.SIGKILL)
        assert "The engine is lost: its client has ended (signal 9)" in await lost(it)
        await until(lambda: not any(each.is_running() for each in started), "their end")
        await it.wait_ready()
        assert (await it.cell("1")).value == 1
    assert not [each for each in psutil.Process().children() if "engines.host" in " ".join(each.cmdline())]


async def test_a_host_knows_no_secret_of_its_agents(factories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TOKEN", "secret")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__RETRY__COUNT", "1")
    async with engine("lab:threads") as (_, [it, _]):
        host = the_host().children()[0]
        assert {"LAB_TOKEN", "SSH_AUTH_SOCK"}.isdisjoint(host.environ())
        assert host.environ()["DASK_DISTRIBUTED__COMM__RETRY__COUNT"] == "1"
        assert "DASK_DISTRIBUTED__COMM__RETRY__COUNT" not in (await it.cell("import os\nlist(os.environ)")).value


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("lab:fails", "no such queue"),
        ("lab:number", "returned a int"),
        ("lab:missing", "missing"),
        ("nowhere:at_all", "nowhere"),
        ("lab:silent", "how many tasks"),
        ("nonsense", "names no engine"),
        ("dask://localhost", "names no engine"),
    ],
)
async def test_an_engine_that_cannot_be_had_is_an_error_at_once(factories: Path, choice: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        async with engine(choice):
            pass


async def test_the_number_of_slots_may_be_given(factories: Path) -> None:
    async with engine("lab:silent", slots=1) as (made, [it, other]):
        assert made.condition.slots == 1
        assert (it.ready.is_set(), other.ready.is_set()) == (True, False)
        assert (await it.cell("1")).value == 1


async def test_a_task_out_of_reach_keeps_its_slot_until_it_ends_and_that_is_said(
    factories: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needs("bubblewrap")
    async with engine("lab:blind") as (_, [it, _]):
        task = it.begin({}, run="cell", source="import time\ntime.sleep(4)\n7")
        await until(lambda: it.slot._job.sent, "the task in the engine")  # type: ignore[union-attr]
        await until(lambda: below(the_host().pid), "the task")
        it.slot.cancel(task)
        await until(lambda: "can't be reached" in caplog.text, "the words")
        assert it.slot.busy
        assert (await it.over()).value == 7


# -- dask ----------------------------------------------------------------------------------------------------------


async def test_slots_follow_the_workers_of_dask(dask: Cluster, tmp_path: Path) -> None:
    async with engine(dask.choice, workers=3) as (made, workers):
        ready = lambda: sum(each.ready.is_set() for each in workers)  # noqa: E731
        assert (made.condition.slots, ready()) == (0, 0)
        dask.worker(2)
        await until(lambda: ready() == 2, "two threads")
        assert made.condition.memory == 2 << 30
        second = dask.worker(3)
        await until(lambda: (made.condition.slots, ready()) == (5, 3), "five threads")
        second.terminate()
        await until(lambda: (made.condition.slots, ready()) == (2, 2), "two threads")
        outcome = await workers[0].cell("print('hello')\nimport resource\nresource.getrlimit(resource.RLIMIT_DATA)[0]")
        assert outcome.text() == "hello\n"
        assert 0 < outcome.value < 2 << 30  # a thread's share of dask's own limit


async def test_a_task_of_a_worker_of_dask_that_dies_runs_again_unless_it_may_not(dask: Cluster, tmp_path: Path) -> None:
    first = dask.worker(2)
    async with engine(dask.choice) as (_, [it, once]):
        await until(lambda: it.ready.is_set() and once.ready.is_set(), "two threads")
        source = f"import os, time\nopen({str(tmp_path)!r} + f'/{{name}}-{{os.getppid()}}', 'w').close()\n" + (
            f"while not os.path.exists({str(tmp_path / 'enough')!r}): time.sleep(0.01)\n'done'"
        )
        begun = lambda name: len(list(tmp_path.glob(f"{name}-*")))  # noqa: E731
        it.begin({"name": "again"}, run="cell", source=source)
        once.begin({"name": "once"}, run="cell", source=source, once=True)
        await until(lambda: begun("again") and begun("once"), "both tasks")
        second = dask.worker(2)
        first.kill()
        assert "isn't begun again" in await lost(once)
        await until(lambda: begun("again") == 2, "the second run")
        (tmp_path / "enough").touch()
        assert (await it.over()).value == "done"
        assert begun("once") == 1
        assert second.poll() is None


async def test_a_task_that_dask_has_not_begun_is_cancelled_at_once(dask: Cluster, tmp_path: Path) -> None:
    dask.worker(1)
    async with engine(dask.choice, slots=2) as (_, [it, other]):
        running = it.begin(
            {}, run="cell", source=f"open({str(tmp_path / 'note')!r}, 'w').close()\nimport time\ntime.sleep(600)"
        )
        await until((tmp_path / "note").exists, "the task")
        waiting = other.begin({}, run="cell", source=f"open({str(tmp_path / 'never')!r}, 'w').close()")
        await until(lambda: other.slot._job.sent, "the task in dask")  # type: ignore[attr-defined]
        other.slot.cancel(waiting)
        assert (await other.over()).error.what == "interrupted"
        it.slot.cancel(running)
        assert (await it.over()).error.what == "interrupted"
        assert (await it.cell("1")).value == 1
        assert not (tmp_path / "never").exists()


async def test_a_scheduler_that_goes_away_is_lost_and_found_again(dask: Cluster, tmp_path: Path) -> None:
    dask.worker(1)
    async with engine(dask.choice) as (made, [it, _]):
        await it.wait_ready()
        pid = tmp_path / "pid"
        it.begin(
            {},
            run="cell",
            source=f"import os, time\nopen({str(pid)!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(600)",
        )
        await until(lambda: pid.exists() and pid.read_text().endswith("\n"), "the task")
        dask.scheduler.kill()
        dask.scheduler.wait()
        assert "scheduler" in await lost(it)
        assert made.condition.slots == 0
        await until(lambda: not psutil.pid_exists(int(pid.read_text())), "the end of what nobody waits for")
        dask.start()
        dask.worker(1)
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


async def test_what_runs_ends_when_its_client_is_killed(dask: Cluster, tmp_path: Path) -> None:
    dask.worker(1)
    async with engine(dask.choice) as (_, [it, _]):
        await it.wait_ready()
        note, ended = tmp_path / "note", tmp_path / "ended"
        source = f"try:\n  {LOOP.replace(chr(10), chr(10) + '  ')}\nfinally: open(ended, 'w').close()"
        it.begin({"note": str(note), "ended": str(ended)}, run="cell", source=source)
        await until(note.exists, "the task")
        the_host().kill()
        await lost(it)
        await until(ended.exists, "the end of what nobody waits for")


async def test_workers_of_dask_without_this_package_are_named_at_once(dask: Cluster, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['p2p_ipython'] = None\n")
    dask.worker(1, PYTHONPATH=str(blocked))
    await until_workers(dask, 1)
    with pytest.raises(ConfigError, match="can't be imported on tcp://") as caught:
        async with engine(dask.choice):
            pass
    assert "Install the same version of p2p_ipython" in caught.value.hint
    dask.worker(1)  # beside one that has it, it gets no task
    await until_workers(dask, 2)
    async with engine(dask.choice) as (made, [it, _]):
        assert made.condition.slots == 1
        assert (await it.cell("1")).value == 1


async def test_a_task_that_kills_its_workers_of_dask_is_given_up(tmp_path: Path) -> None:
    with dask_cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as dask:
        dask.worker(1)
        async with engine(dask.choice) as (_, [it, _]):
            await it.wait_ready()
            it.begin({}, run="cell", source="import psutil\npsutil.Process().parent().parent().kill()")
            assert "KilledWorker" in await lost(it)


LOCAL = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(n_workers=1, **options) as cluster:
        print(cluster.scheduler_address.rpartition(":")[2], flush=True)
        for line in sys.stdin:
            cluster.scale(int(line))
"""


async def test_a_local_cluster_of_dasks_is_scaled_and_its_nanny_replaces_workers(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    (tmp_path / "local.py").write_text(LOCAL)
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(tmp_path / "local.py"), cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        port = (await program.stdout.readline()).decode().strip()
        async with engine(f"dask://127.0.0.1:{port}") as (made, [it, other]):
            await until(lambda: made.condition.slots == 1, "one worker")
            program.stdin.write(b"2\n")
            await until(lambda: other.ready.is_set() and it.ready.is_set(), "two workers")
            program.stdin.write(b"1\n")
            await until(lambda: made.condition.slots == 1, "one worker")
            note = tmp_path / "note"
            source = (
                f"import os, psutil\nfirst = not os.path.exists({str(note)!r})\nopen({str(note)!r}, 'w').close()\n"
                "if first: psutil.Process().parent().parent().kill()\n'done'"
            )
            it.begin({}, run="cell", source=source)  # its worker dies once; the nanny starts another one
            assert (await it.over()).value == "done"
    finally:
        program.stdin.close()
        await program.wait()


async def test_no_scheduler_at_all_is_an_error_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    monkeypatch.setattr("p2p_ipython.worker.engines.engine.START_DEADLINE", 60.0)
    with pytest.raises(ConfigError, match=r"no scheduler of dask's answers at tcp://127\.0\.0\.1:1 "):
        async with engine("dask://127.0.0.1:1"):
            pass


def test_all_frames_are_told_apart() -> None:
    assert not set(frames.FROM_AGENT) - {"open", "part", "go", "halt", "close"}
    assert not set(frames.FROM_HOST) - {"up", "space", "part", "over", "stays", "failed"}
