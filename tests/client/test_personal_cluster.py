"""A personal cluster, as its user meets it: real board, real links, real workers, on loopback."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import gc
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import p2p_ipython
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.errors import NotPicklable, PythonMismatch, ResultNotPicklable, TaskDied, UsageError, WorkerLost
from p2p_ipython.task.task import Task, make_call, make_cell
from tests.notebook.kernels import notebook

PATIENCE = 60.0
"""Seconds that anything may take before a test fails; a loaded machine needs some."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=2, output_limit=1 << 20) as made:
        yield made


def cell(cluster: Cluster, source: str, **names: object) -> Task:
    return make_cell(source, dict(names), cluster._core.store, transform=TransformerManager().transform_cell)


def streamed(messages: list[dict]) -> list[str]:
    """What was printed and displayed, in order; a worker may cut what a task prints anywhere."""
    texts = [(m["kind"], m.get("text") or m["content"]["data"]["text/html"]) for m in messages]
    return ["".join(text for _, text in part) for _, part in itertools.groupby(texts, key=lambda one: one[0])]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that no event tells of."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


# --- values ---------------------------------------------------------------------------------------------------------


def test_a_call_returns_its_value(cluster: Cluster) -> None:
    assert cluster.submit(pow, 2, 10).result(PATIENCE) == 1024


def test_a_function_of_the_caller_travels_with_what_it_uses(cluster: Cluster) -> None:
    factor = 3

    def scaled(x: int) -> int:
        return factor * math.isqrt(x)

    assert cluster.submit(scaled, 16).result(PATIENCE) == 12


def test_map_keeps_the_order(cluster: Cluster) -> None:
    assert list(cluster.map(pow, range(20), [2] * 20)) == [n * n for n in range(20)]


def test_a_future_can_be_awaited_in_any_loop(cluster: Cluster) -> None:
    async def both() -> list[int]:
        return await asyncio.gather(cluster.submit(pow, 2, 3), cluster.submit(pow, 3, 2))

    assert asyncio.run(both()) == [8, 9]


def test_futures_work_in_wait_and_as_completed_and_call_back(cluster: Cluster) -> None:
    futures = [cluster.submit(pow, 2, n) for n in range(10)]
    called = threading.Event()
    futures[0].add_done_callback(lambda future: future.result() == 1 and called.set())
    done, rest = concurrent.futures.wait(futures, timeout=PATIENCE)
    assert len(done) == 10
    assert not rest
    assert {f.result() for f in concurrent.futures.as_completed(futures)} == {2**n for n in range(10)}
    assert called.wait(PATIENCE)


def test_arguments_are_frozen_at_submission(cluster: Cluster) -> None:
    numbers = [1, 2, 3]
    block = bytearray(b"a") * (2 << 20)

    def seen(numbers: list[int], block: bytearray) -> tuple[list[int], int]:
        return numbers, block.count(b"a")

    future = cluster.submit(seen, numbers, block)
    numbers.clear()
    block[:] = b"b" * len(block)
    assert future.result(PATIENCE) == ([1, 2, 3], 2 << 20)


def test_large_buffers_go_in_and_out_whole_and_may_be_written_to(cluster: Cluster) -> None:
    def turned(block: bytearray) -> bytearray:
        block[0] = 255
        return block

    block = bytearray(os.urandom(5_000_001))
    for _ in range(3):  # the second and third time the worker has the bytes: they must be as they were
        came = cluster.submit(turned, block).result(PATIENCE)
        assert came[0] == 255
        assert came[1:] == block[1:]
        came[0] = 1


def test_many_buffers_just_too_small_to_be_large_arrive(cluster: Cluster) -> None:
    blocks = [os.urandom(300_000 + n) for n in range(12)]
    assert cluster.submit(lambda all: [len(b) for b in all], blocks).result(PATIENCE) == [len(b) for b in blocks]


def test_a_value_that_is_larger_than_a_frame_comes_back(cluster: Cluster) -> None:
    text = cluster.submit(lambda: "ä" * 3_000_000).result(PATIENCE)
    assert text == "ä" * 3_000_000


# --- cells ----------------------------------------------------------------------------------------------------------


def test_a_cell_gives_the_value_of_its_last_expression(cluster: Cluster) -> None:
    assert cluster._core.submit_task(cell(cluster, "y = x * 2\ny + 1", x=20)).result(PATIENCE) == 41
    assert cluster._core.submit_task(cell(cluster, "x * 2;", x=20)).result(PATIENCE) is None
    assert cluster._core.submit_task(cell(cluster, "y = x", x=20)).result(PATIENCE) is None


def test_output_comes_while_the_task_runs_and_is_kept(cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    seen: list[dict] = []
    first = threading.Event()

    def show(message: dict) -> None:
        seen.append(message)
        first.set()

    source = f"""
import os, time
print("before")
while not os.path.exists({str(go)!r}):
    time.sleep(0.01)
from IPython.display import display, HTML
display(HTML("<i>shown</i>"))
print("after")
"""
    future = cluster._core.submit_task(cell(cluster, source), show)
    assert first.wait(PATIENCE)
    assert not future.done()
    go.touch()
    future.result(PATIENCE)
    assert streamed(seen) == ["before\n", "<i>shown</i>", "after\n"]
    assert future.outputs == seen


def test_a_remote_exception_is_raised_as_itself_with_the_remote_traceback(cluster: Cluster) -> None:
    future = cluster._core.submit_task(cell(cluster, "def f():\n    return {}['key']\nf()"))
    with pytest.raises(KeyError, match="key") as caught:
        future.result(PATIENCE)
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(caught.value._render_traceback_()))  # type: ignore[attr-defined]
    assert "in f()" in text
    assert isinstance(future.exception(), KeyError)
    assert future.state_text.startswith("failed on worker-")


# --- trouble --------------------------------------------------------------------------------------------------------


def test_a_result_that_cant_be_pickled_is_named_and_its_output_kept(cluster: Cluster) -> None:
    future = cluster._core.submit_task(cell(cluster, "print('done')\nit = (n for n in 'ab')\nnext(it)\nit"))
    with pytest.raises(ResultNotPicklable, match="generator"):
        future.result(PATIENCE)
    assert streamed(future.outputs) == ["done\n"]


def test_an_argument_that_cant_be_pickled_is_named_and_nothing_is_sent(cluster: Cluster) -> None:
    before = cluster.status()
    with pytest.raises(NotPicklable, match="argument 2") as caught:
        cluster.submit(print, 1, threading.Lock())
    assert "argument 2" in caught.value.name
    assert cluster.status().tasks == before.tasks == ()


def test_a_task_that_ends_its_process_fails_at_once_and_the_worker_lives_on(cluster: Cluster) -> None:
    with pytest.raises(TaskDied, match="exit code 3"):
        cluster.submit(os._exit, 3).result(PATIENCE)
    assert cluster.submit(pow, 2, 2).result(PATIENCE) == 4


def test_a_task_that_fills_its_memory_fails_and_the_worker_lives_on() -> None:
    with p2p_ipython.connect(workers=1, task_memory=512 << 20) as small:
        with pytest.raises((MemoryError, TaskDied)):
            small.submit(bytearray, 1 << 30).result(PATIENCE)
        assert small.submit(pow, 2, 2).result(PATIENCE) == 4


def test_a_task_that_prints_100_megabytes_ends_well_and_says_what_was_left_out(cluster: Cluster) -> None:
    source = "line = 'x' * 999_999\nfor _ in range(100):\n    print(line)\n'done'"
    future = cluster._core.submit_task(cell(cluster, source))
    assert future.result(PATIENCE) == "done"
    text = "".join(m["text"] for m in future.outputs)
    assert len(text) < 2 << 20
    assert "P2P_OUTPUT_LIMIT" in text


def test_cancel_ends_a_waiting_task_and_a_running_one_and_neither_is_delivered(cluster: Cluster) -> None:
    futures = [cluster.submit(time.sleep, 3600) for _ in range(4)]
    until(lambda: sum(f.running() for f in futures) == 2, "two of four run")
    assert all(f.cancel() for f in futures)
    assert concurrent.futures.wait(futures, PATIENCE).not_done == set()
    for future in futures:
        assert future.cancelled()
        with pytest.raises(concurrent.futures.CancelledError, match=r"its cancel\(\) was called"):
            future.result()
    assert cluster.submit(pow, 2, 2).result(PATIENCE) == 4


def test_functions_of_another_python_wait_for_a_worker_and_then_fail_with_the_reason() -> None:
    with p2p_ipython.connect(workers=1, request_every=0.5) as here:
        here.submit(pow, 1, 1).result(PATIENCE)
        task = dataclasses.replace(make_call(pow, (2, 2), {}, here._core.store), needs_python="3.5")
        future = here._core.submit_task(task)
        until(lambda: "waiting for a worker with python 3.5" in future.state_text or future.done(), "the reason")
        with pytest.raises(PythonMismatch, match=r"3\.5"):
            future.result(PATIENCE)


def test_a_callback_that_blocks_keeps_nothing_else_waiting(cluster: Cluster, tmp_path: Path) -> None:
    go, came = threading.Event(), threading.Event()

    def waits(go: str) -> None:
        while not Path(go).exists():
            time.sleep(0.01)

    first = cluster.submit(waits, str(tmp_path / "go"))
    first.add_done_callback(lambda _future: came.set() or go.wait(PATIENCE))
    (tmp_path / "go").touch()  # not before: of a future that is done, this thread would make the call
    try:
        assert came.wait(PATIENCE)
        others = [cluster.submit(pow, 2, n) for n in range(10)]
        assert concurrent.futures.wait(others, PATIENCE).not_done == set()
        assert asyncio.run(waited_for(cluster.submit(pow, 2, 2))) == 4
    finally:
        go.set()


async def waited_for(future: concurrent.futures.Future[int]) -> int:
    return await asyncio.wrap_future(future)


def test_a_callback_may_wait_for_another_task(cluster: Cluster) -> None:
    values: list[int] = []
    called = threading.Event()

    def callback(_future: object) -> None:
        try:
            values.append(cluster.submit(pow, 3, 2).result(PATIENCE))
        finally:
            called.set()

    cluster.submit(time.sleep, 0.2).add_done_callback(callback)
    assert called.wait(PATIENCE)
    assert values == [9]


def test_what_a_callback_raises_is_logged_and_the_next_one_is_called(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []
    over = threading.Event()
    future = cluster.submit(time.sleep, 0.2)
    future.add_done_callback(lambda _future: {}["no such key"])
    future.add_done_callback(lambda _future: sys.exit("this ends nothing"))
    future.add_done_callback(lambda _future: called.append(threading.current_thread().name))
    future.add_done_callback(lambda _future: over.set())
    assert over.wait(PATIENCE)
    assert called == ["p2p-callbacks"]
    logged = [record for record in caplog.records if record.name == "concurrent.futures"]
    assert [record.exc_info[0] for record in logged if record.exc_info] == [KeyError, SystemExit]


def test_progress_that_blocks_doesnt_keep_other_clusters_waiting(cluster: Cluster) -> None:
    came, go = threading.Event(), threading.Event()

    def progress(_words: str) -> None:
        came.set()
        go.wait(PATIENCE)

    joining = threading.Thread(target=lambda: p2p_ipython.connect(workers=1, progress=progress).close())
    joining.start()
    try:
        assert came.wait(PATIENCE)
        assert concurrent.futures.wait([cluster.submit(pow, 2, 2)], PATIENCE).not_done == set()
    finally:
        go.set()
        joining.join(PATIENCE)
    assert not joining.is_alive()


def test_the_status_says_who_is_there(cluster: Cluster) -> None:
    cluster.submit(pow, 1, 1).result(PATIENCE)
    until(lambda: [m.link for m in cluster.status().members] == ["direct", "direct"], "both links")
    status = cluster.status()
    assert [m.name for m in status.members] == ["worker-1", "worker-2"]
    assert status.slots == status.free == 2
    text = str(cluster)
    for word in ("connected", "worker-1", "direct", "2 of 2 slots free", "0 pending"):
        assert word in text
    assert "<table>" in cluster._repr_html_()


# --- workers that go away -------------------------------------------------------------------------------------------


def worker_pids(cluster: Cluster) -> list[int]:
    return cluster.pids[1:]


def test_a_killed_workers_task_goes_to_another_worker(tmp_path: Path) -> None:
    with p2p_ipython.connect(workers=2) as cluster:
        log = tmp_path / "log"

        def attempt(log: str) -> str:
            with open(log, "a") as file:
                print(os.getpid(), file=file)
            while Path(log).read_text().count("\n") < 2:  # the first one waits to be killed
                time.sleep(0.01)
            return "second"

        future = cluster.submit(attempt, str(log))
        until(lambda: log.exists() and log.read_text().endswith("\n"), "the task has started")
        runner = psutil.Process(int(log.read_text()))
        agent = next(p for p in runner.parents() if p.pid in worker_pids(cluster))
        agent.kill()
        assert future.result(PATIENCE) == "second"
        until(lambda: len(cluster.status().members) == 2, "the worker was started again")


def test_after_three_lost_workers_the_task_is_lost_with_the_reason(tmp_path: Path) -> None:
    with p2p_ipython.connect(workers=2) as cluster:
        log = tmp_path / "log"

        def ends_badly(log: str) -> None:
            with open(log, "a") as file:
                print("attempt", file=file)
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.raises(WorkerLost, match="3 times"):
            cluster.submit(ends_badly, str(log)).result(PATIENCE)
        assert log.read_text() == "attempt\n" * 3
        assert cluster.submit(pow, 2, 2).result(PATIENCE) == 4


def test_a_task_that_may_run_once_only_isnt_started_again(tmp_path: Path) -> None:
    with p2p_ipython.connect(workers=2) as cluster:
        log = tmp_path / "log"

        def ends_badly(log: str) -> None:
            with open(log, "a") as file:
                print("attempt", file=file)
            os.kill(os.getpid(), signal.SIGKILL)

        task = make_call(ends_badly, (str(log),), {}, cluster._core.store, once=True)
        with pytest.raises(WorkerLost, match="may have run"):
            cluster._core.submit_task(task).result(PATIENCE)
        assert log.read_text() == "attempt\n"


# --- the end --------------------------------------------------------------------------------------------------------


def everything_of(cluster: Cluster) -> list[psutil.Process]:
    return [p for pid in cluster.pids for p in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]


def nothing_is_in(folder: Path) -> None:
    """A worker that was about to start something when it was told to end still clears up after that."""
    until(lambda: not list(folder.iterdir()), f"{folder} is empty")


def test_closing_cancels_what_isnt_over_and_leaves_no_process_and_no_folder() -> None:
    cluster = p2p_ipython.connect(workers=2)
    running = [cluster.submit(time.sleep, 3600) for _ in range(3)]
    until(lambda: any(f.running() for f in running), "one runs")
    processes = everything_of(cluster)
    assert len(processes) >= 5  # a board, two workers, their runners
    scratch = [p for p in Path(tempfile.gettempdir()).glob("p2p-*") if p.name.split("-")[1] in map(str, cluster.pids)]
    assert scratch
    cluster.close()
    assert all(f.cancelled() for f in running)
    with pytest.raises(concurrent.futures.CancelledError, match="disconnected"):
        running[0].result()
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    assert not alive
    assert not [p for p in scratch if p.exists()]
    with pytest.raises(UsageError, match="closed"):
        cluster.submit(pow, 1, 1)
    cluster.close()


def test_when_the_kernel_is_killed_everything_ends_with_it(tmp_path: Path) -> None:
    script = """
import p2p_ipython, psutil, sys, time, os
cluster = p2p_ipython.connect(workers=2)
cluster.submit(pow, 2, 2).result(60)
future = cluster.submit(time.sleep, 3600)
while not future.running():
    time.sleep(0.01)
pids = [p.pid for pid in cluster.pids for p in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
print(*pids, flush=True)
time.sleep(3600)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    kernel = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    try:
        assert kernel.stdout is not None
        pids = [int(pid) for pid in kernel.stdout.readline().split()]
        assert len(pids) >= 5
        processes = []
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):  # what a worker starts for a moment only
                processes.append(psutil.Process(pid))
        assert list(tmp_path.iterdir())
    finally:
        kernel.kill()
        kernel.communicate()
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    assert not alive
    nothing_is_in(tmp_path)


def test_a_program_that_forgets_to_close_ends_all_the_same(tmp_path: Path) -> None:
    script = "import p2p_ipython\nc = p2p_ipython.connect(workers=1)\nprint(*c.pids, c.submit(pow, 2, 5).result(60))"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    *pids, value = ran.stdout.split()
    assert value == "32"
    assert not [pid for pid in pids if psutil.pid_exists(int(pid))]
    nothing_is_in(tmp_path)


def ran_to_its_end(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


WRITES = """
import p2p_ipython, sys, time
from pathlib import Path
def write(path):
    time.sleep(0.3)
    Path(path).write_text("done")
"""


def test_a_script_that_ends_finishes_its_tasks_and_their_callbacks(tmp_path: Path) -> None:
    script = f"""{WRITES}
cluster = p2p_ipython.connect(workers=1)
for path in sys.argv[1:]:
    cluster.submit(write, path).add_done_callback(lambda future: print("called back"))
"""
    ran = ran_to_its_end(script, str(tmp_path / "one"), str(tmp_path / "two"))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "called back\n" * 2, "")
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == "done"


@pytest.mark.parametrize("end", ["", "raise SystemExit('it ends')", "cluster.shutdown(wait=False)"])
def test_however_a_script_ends_its_tasks_are_finished(tmp_path: Path, end: str) -> None:
    ran = ran_to_its_end(
        f"{WRITES}\ncluster = p2p_ipython.connect(workers=1); cluster.submit(write, sys.argv[1])\n{end}",
        str(tmp_path / "one"),
    )
    assert (tmp_path / "one").read_text() == "done", ran.stderr


def interrupted(script: str, when: str) -> tuple[list[str], str]:
    """Interrupt a script when it says ``when`` on stderr; the lines of its stdout, and the rest of its stderr."""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        silent = threading.Timer(PATIENCE, program.kill)  # then the line is empty
        silent.start()
        try:
            assert program.stderr is not None
            assert when in program.stderr.readline()
            program.send_signal(signal.SIGINT)
            out, errors = program.communicate(timeout=PATIENCE)
            return out.splitlines(), errors
        finally:
            silent.cancel()
            program.kill()


FOREVER = """
import p2p_ipython, sys, time
cluster = p2p_ipython.connect(workers=1)
future = cluster.submit(time.sleep, 3600)
future.add_done_callback(lambda future: print("cancelled:", future.cancelled()))
while not future.running():
    time.sleep(0.01)
print(*cluster.pids, flush=True)
"""


def test_ctrl_c_ends_the_wait_at_a_scripts_end() -> None:
    script = f"{FOREVER}\nimport p2p_ipython.client.cluster as module; module.NOTICE = 0.1"
    (pids, *said), errors = interrupted(script, "waiting for tasks that are not over; Ctrl-C cancels them")
    assert said == ["cancelled: True"]
    assert errors == "tasks that are not over are cancelled\n"
    assert not [pid for pid in pids.split() if psutil.pid_exists(int(pid))]


@pytest.mark.parametrize("wait", ["future.result()", "with cluster: pass", "with cluster: future.result()"])
def test_a_program_that_ctrl_c_has_ended_waits_for_nothing_more(wait: str) -> None:
    (pids, *said), errors = interrupted(f"{FOREVER}print('it waits', file=sys.stderr, flush=True)\n{wait}", "it waits")
    assert said == ["cancelled: True"]
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not [pid for pid in pids.split() if psutil.pid_exists(int(pid))]


def test_a_kernel_that_ends_cancels_its_tasks_at_once(tmp_path: Path) -> None:
    with notebook({}) as book:
        started = f"open({str(tmp_path / 'pids')!r}, 'w').write(' '.join(map(str, cluster.pids)))"
        made = book.run("import p2p_ipython, time; cluster = p2p_ipython.connect(workers=1)")
        assert made.error is None
        book.run(f"future = cluster.submit(time.sleep, 3600); {started}")
        book.run("while not future.running(): time.sleep(0.01)")
        kernel = psutil.Process(book.manager.provisioner.pid)
        book.client.shutdown()
        assert kernel.wait(PATIENCE) == 0
    assert not [pid for pid in (tmp_path / "pids").read_text().split() if psutil.pid_exists(int(pid))]


def test_shutdown_that_doesnt_wait_cancels_nothing_and_takes_no_more(tmp_path: Path) -> None:
    cluster = p2p_ipython.connect(workers=1)
    futures = [cluster.submit(pow, n, 2) for n in range(20)]
    cluster.shutdown(wait=False)
    with pytest.raises(UsageError, match=r"shut down|closed"):
        cluster.submit(pow, 1, 1)
    assert [future.result(PATIENCE) for future in futures] == [n * n for n in range(20)]
    until(lambda: cluster.closed and not any(map(psutil.pid_exists, cluster.pids)), "it is closed")
    cluster.close()


def test_shutdown_that_cancels_lets_run_what_runs(tmp_path: Path) -> None:
    cluster = p2p_ipython.connect(workers=1)

    def waits(go: str) -> str:
        while not Path(go).exists():
            time.sleep(0.01)
        return "finished"

    runs = cluster.submit(waits, str(tmp_path / "go"))
    until(runs.running, "it runs")
    waiting = [cluster.submit(pow, 2, 2) for _ in range(5)]
    cluster.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    assert not runs.done()
    (tmp_path / "go").touch()
    assert runs.result(PATIENCE) == "finished"
    cluster.shutdown()
    assert cluster.closed


def test_a_file_beside_the_notebook_cant_pass_for_a_module_of_pythons(tmp_path: Path) -> None:
    (tmp_path / "secrets.py").write_text("raise SystemExit('somebody has run the wrong secrets')")
    (tmp_path / "mine.py").write_text("value = 7")
    script = """
import secrets, sys, os
os.chdir(sys.argv[1])
import p2p_ipython
with p2p_ipython.connect(workers=1) as cluster:
    def work():
        import mine, secrets
        return mine.value, len(secrets.token_bytes(4))
    print(cluster.submit(work).result(60))
"""
    ran = subprocess.run(
        [sys.executable, "-P", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.stdout == "(7, 4)\n", ran.stderr


def test_nobody_sees_the_key_in_the_process_list(cluster: Cluster) -> None:
    looked = 0
    for process in everything_of(cluster):
        with contextlib.suppress(psutil.NoSuchProcess):  # what a worker starts for a moment only
            shown = " ".join(process.cmdline()) + str(process.environ())
            assert "PRIVATE KEY" not in shown
            looked += 1
    assert looked >= 3  # a board, two workers
    assert "PRIVATE" not in repr(vars(cluster))


def test_a_buffer_is_sent_again_when_the_runner_that_held_it_has_died(tmp_path: Path) -> None:
    block = os.urandom(3 << 20)

    def dies_once(block: bytes, log: str) -> int:
        first = not Path(log).exists()
        Path(log).touch()
        if first:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(block)

    with p2p_ipython.connect(workers=1) as cluster:
        assert cluster.submit(len, block).result(PATIENCE) == len(block)
        assert cluster.submit(dies_once, block, str(tmp_path / "log")).result(PATIENCE) == len(block)
        with pytest.raises(TaskDied):
            cluster.submit(lambda b: os._exit(len(b) % 7), block).result(PATIENCE)
        assert cluster.submit(len, block).result(PATIENCE) == len(block)


def test_a_buffer_of_a_task_that_was_killed_doesnt_keep_the_next_one_waiting(tmp_path: Path) -> None:
    block = os.urandom(3 << 20)

    def stubborn(_block: bytes, log: str) -> None:
        Path(log).touch()
        while True:
            try:
                time.sleep(3600)
            except KeyboardInterrupt:
                pass

    with p2p_ipython.connect(workers=1, cancel_grace=0.3) as cluster:
        assert cluster.submit(len, block).result(PATIENCE) == len(block)
        future = cluster.submit(stubborn, block, str(tmp_path / "log"))
        until((tmp_path / "log").exists, "the task has started")
        assert future.cancel()
        assert cluster.submit(len, block).result(PATIENCE) == len(block)
        assert cluster.submit(pow, 2, 2).result(PATIENCE) == 4


@pytest.mark.parametrize("after", [0.001, 0.02, 0.1])
def test_closing_that_is_interrupted_ends_everything_all_the_same(after: float) -> None:
    script = f"""
import p2p_ipython, signal
cluster = p2p_ipython.connect(workers=2)
cluster.submit(pow, 2, 2).result(60)
print(*cluster.pids, flush=True)
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, {after})
try:
    cluster.close()
    print("closed")
except KeyboardInterrupt:
    print("interrupted")
cluster.close()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    pids = [int(pid) for pid in ran.stdout.splitlines()[0].split()]
    assert len(pids) == 3, ran.stderr
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_a_callback_may_close_its_cluster(tmp_path: Path) -> None:
    go = tmp_path / "go"

    def waits(go: str) -> None:
        while not Path(go).exists():
            time.sleep(0.01)

    cluster = p2p_ipython.connect(workers=1)
    closed = threading.Event()
    cluster.submit(waits, str(go)).add_done_callback(lambda _future: (cluster.close(), closed.set()))
    go.touch()  # not before: of a future that is done, the callback would be called by this thread
    assert closed.wait(PATIENCE)
    assert cluster.closed
    assert not [pid for pid in cluster.pids if psutil.pid_exists(pid)]


def test_when_the_block_ends_all_callbacks_have_been_called() -> None:
    called: list[int] = []
    with p2p_ipython.connect(workers=1) as cluster:
        for n in range(5):
            cluster.submit(pow, n, 2).add_done_callback(
                lambda future: (time.sleep(0.05), called.append(future.result()))
            )
    assert called == [n * n for n in range(5)]


def test_output_that_nobody_reads_doesnt_stop_the_cluster() -> None:
    script = """
import p2p_ipython, sys, time
cluster = p2p_ipython.connect(workers=1)
flood = cluster.submit(lambda: print("x" * 1_000_000))
after = cluster.submit(pow, 2, 5)
end = time.monotonic() + 60
while not (flood.done() and after.done()) and time.monotonic() < end:
    time.sleep(0.01)
print(flood.done(), after.done(), cluster.status().board_state, file=sys.stderr, flush=True)
sys.stdin.read()
"""
    program = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert program.stderr is not None
        assert program.stderr.readline() == "True True connected\n"
        out, _ = program.communicate(timeout=PATIENCE)  # now it is read: nothing of it is lost
        assert out == "x" * 1_000_000 + "\n"
    finally:
        program.kill()
        program.wait()


def test_runners_last_though_the_environment_lies_in_the_notebooks_folder() -> None:
    script = """
import os, p2p_ipython
with p2p_ipython.connect(workers=1) as cluster:
    print(*(cluster.submit(os.getpid).result(60) for _ in range(3)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(sys.prefix).parents[1], capture_output=True, text=True, check=True
    )
    assert len(set(done.stdout.split())) == 1, done.stdout + done.stderr


_FORKED = """
import os, p2p_ipython
with p2p_ipython.connect(workers=1) as cluster:
    assert cluster.submit(pow, 2, 3).result(60) == 8
    child = os.fork()
    if not child:
        status = 1
        try:
            try:
                cluster.submit(pow, 2, 3)
            except p2p_ipython.P2PError as error:
                print(error, flush=True)
            with p2p_ipython.connect(workers=1) as own:
                print("the child's own:", own.submit(pow, 3, 3).result(60), flush=True)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    print("the parent's:", cluster.submit(pow, 2, 5).result(60))
"""


def test_a_fork_connects_anew_and_leaves_its_parents_cluster_alone() -> None:
    done = subprocess.run([sys.executable, "-c", _FORKED], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "of which this one is a fork\nConnect in this process, with p2p_ipython.connect()." in done.stdout
    assert "the child's own: 27\n" in done.stdout
    assert done.stdout.endswith("the parent's: 32\n")


def test_a_cluster_that_is_forgotten_finishes_its_tasks_and_ends() -> None:
    cluster = p2p_ipython.connect(workers=1)
    processes = [psutil.Process(pid) for pid in cluster.pids]
    future = cluster.submit(pow, 2, 10)
    del cluster
    gc.collect()
    assert future.result(timeout=60) == 1024
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []
