"""A slot: its runner dies and lives again, tasks are cancelled, buffers are sent once, owners kept apart."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from slot_support import Worker, arrived, until, worker

from p2p_ipython.config import Settings
from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.protocol.frames import MAX_HEADER, FrameError
from p2p_ipython.protocol.task_frames import Output, Task
from p2p_ipython.sandbox.launch import LaunchOptions
from p2p_ipython.sandbox.mechanisms.process import ProcessLaunch
from p2p_ipython.task.payload import pack_task
from p2p_ipython.worker.cache import Inbound
from p2p_ipython.worker.slots import Reports, Slot, SlotState


async def test_a_slot_goes_from_starting_to_idle_to_busy_to_closed() -> None:
    async with worker() as it:
        assert it.ready.is_set()
        assert (it.slot.state, it.slot.busy, it.slot.task_id) == (SlotState.IDLE, False, None)
        task = it.begin({}, run="cell", source="1")
        assert (it.slot.state, it.slot.busy, it.slot.task_id) == (SlotState.BUSY, True, task)
        with pytest.raises(RuntimeError, match="busy"):
            it.slot.run(Task("other", 1, "call", ()), b"")
        await it.over()
        assert it.slot.state is SlotState.IDLE
        assert it.slot.pid is not None
        assert it.slot.memory() > 5_000_000
        await it.slot.close()
        assert (it.slot.state, it.slot.memory(), it.slot.pid) == (SlotState.CLOSED, 0, None)
        with pytest.raises(RuntimeError, match="closed"):
            it.slot.run(Task("other", 1, "call", ()), b"")


async def test_a_task_may_be_given_from_within_the_end_of_another() -> None:
    async with worker() as it:
        ends: list[int] = []

        def again(slot: Slot, header: Any, body: Any) -> None:
            ends.append(len(ends))
            if len(ends) < 100:
                it.begin((abs, (-1,), {}))
            else:
                Worker.on_result(it, slot, header, body)

        it.on_result = again  # type: ignore[method-assign]
        it.begin((abs, (-1,), {}))
        await until(lambda: len(ends) == 100, "a hundred tasks")


@pytest.mark.parametrize(
    ("source", "kind", "code", "words"),
    [
        ("import os\nos._exit(3)", "exit", 3, "exit code 3"),
        ("import os\nos._exit(0)", "exit", 0, "exit code 0"),
        ("import ctypes\nctypes.string_at(0)", "signal", signal.SIGSEGV, "Segmentation fault"),
        ("import os\nos.abort()", "signal", signal.SIGABRT, "signal 6"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "signal", signal.SIGKILL, "signal 9"),
        ("import os\nos.closerange(3, 100)", "exit", 1, "exit code 1"),
    ],
)
async def test_a_task_that_ends_its_process_is_told_and_the_slot_recovers(
    source: str, kind: str, code: int, words: str
) -> None:
    async with worker() as it:
        death = (await it.cell(source)).death
        assert death is not None
        assert (death.kind, death.code) == (kind, code)
        assert words in death.detail
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


async def test_a_task_that_writes_to_the_frames_descriptor_only_ends_itself() -> None:
    async with worker() as it:
        source = "import os\nfor fd in range(3, 12):\n    try: os.write(fd, b'\\xff' * 64)\n    except OSError: pass\n"
        death = (await it.cell(source + "import time; time.sleep(600)")).death
        assert death is not None
        assert death.kind == "protocol"
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


@pytest.mark.parametrize(
    "source",
    [
        "print('there')\nimport time\ntime.sleep(600)",
        "print('there', flush=True)\nwhile True: pass",
        "while True: print('there')",
        "import asyncio\nprint('there')\nawait asyncio.sleep(600)",
        "import subprocess\nprint('there')\nsubprocess.run(['sleep', '600'])",
    ],
)
async def test_a_cancelled_task_is_interrupted_and_its_runner_lives_on(source: str) -> None:
    async with worker(Settings(cancel_grace=20)) as it:
        task = it.begin({}, run="cell", source=source)
        await it.printed("there")
        it.slot.cancel("another")
        it.slot.cancel(task)
        outcome = await it.over()
        assert outcome.error.what == "interrupted"
        assert outcome.error.class_name == "builtins.KeyboardInterrupt"
        assert (await it.cell("1")).value == 1
        assert it.deaths == []


LOSE = """
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("there", flush=True)
signal.sigwait({signal.SIGINT})  # as a call that is about to block loses it
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
"""


async def test_an_interrupt_that_is_lost_comes_again() -> None:
    async with worker(Settings(cancel_grace=20)) as it:
        task = it.begin({}, run="cell", source=f"{LOSE}time.sleep(600)")
        await it.printed("there")
        it.slot.cancel(task)
        assert (await it.over()).error.what == "interrupted"
        assert (await it.cell("1")).value == 1
        assert it.deaths == []


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    print('there')\n    time.sleep(600)\nexcept KeyboardInterrupt: heard.append(1)",
        "signal.signal(signal.SIGINT, lambda *_: heard.append(1))\nprint('there')\nwhile not heard: time.sleep(0.01)",
    ],
)
async def test_a_task_that_heeds_an_interrupt_is_not_interrupted_again(source: str) -> None:
    async with worker(Settings(cancel_grace=20)) as it:
        more = "end = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nlen(heard)"
        task = it.begin({}, run="cell", source=f"import signal, time\nheard = []\n{source}\n{more}")
        await it.printed("there")
        it.slot.cancel(task)
        assert (await it.over()).value == 1


@pytest.mark.parametrize(
    "stubborn",
    [
        "while True:\n    try:\n        print('there', flush=True)\n        time.sleep(600)\n"
        "    except KeyboardInterrupt:\n        pass",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('there')\nwhile True: time.sleep(600)",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('there', flush=True)\nsum(range(10 ** 14))",
    ],
)
async def test_a_task_that_does_not_heed_an_interrupt_is_killed(stubborn: str) -> None:
    async with worker(Settings(cancel_grace=0.3)) as it:
        task = it.begin({}, run="cell", source=f"import signal, time\n{stubborn}")
        await it.printed("there")
        it.slot.cancel(task)
        death = (await it.over()).death
        assert death is not None
        assert death.kind == "cancelled"
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


async def test_a_task_that_takes_too_long_is_ended_and_told_so() -> None:
    async with worker(Settings(task_time=3)) as it:
        outcome = await it.cell("import time\nwhile True:\n    try: time.sleep(600)\n    except BaseException: pass")
        assert outcome.death is not None
        assert (outcome.death.kind, "3 s" in outcome.death.detail) == ("time", True)
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


async def test_a_late_cancel_does_not_meet_the_next_task() -> None:
    async with worker() as it:
        for _ in range(30):
            task = it.begin((abs, (-1,), {}))
            it.slot.cancel(task)  # may come before, while or after it runs
            outcome = await it.over()
            assert outcome.result.ok or outcome.error.what == "interrupted"
            assert (await it.call(sum, range(1000))).value == 499500
        assert it.deaths == []


async def test_a_large_buffer_is_sent_once() -> None:
    array = np.ones(4_000_000)
    async with worker() as it:
        assert (await it.call(np.sum, array)).value == 4_000_000
        packed = pack_task((np.sum, (array,), {}), it.store)
        ((ref, _),) = packed.large.items()
        never = Inbound(ref, array.nbytes)  # nothing of it has come, and nothing will
        it.begin_packed(packed, [never])
        assert (await it.over()).value == 4_000_000


async def test_a_buffer_streams_to_the_runner_while_it_arrives() -> None:
    array = np.ones(2_000_000)
    async with worker() as it:
        packed = pack_task((np.sum, (array,), {}), it.store)
        ((ref, view),) = packed.large.items()
        inbound = Inbound(ref, len(view))
        it.begin_packed(packed, [inbound])
        for start in range(0, len(view), 3_000_001):
            await asyncio.sleep(0)
            inbound.feed(view[start : start + 3_000_001])
        assert (await it.over()).value == 2_000_000


async def test_a_buffer_that_fails_ends_its_task_and_nothing_else() -> None:
    array = np.ones(2_000_000)
    async with worker() as it:
        packed = pack_task((np.sum, (array,), {}), it.store)
        ((ref, view),) = packed.large.items()
        half = Inbound(ref, len(view))
        half.feed(view[:5_000_000])
        it.begin_packed(packed, [half])
        await asyncio.sleep(0)
        half.fail("the client has gone")
        error = (await it.over()).error
        assert error.what == "unloadable"
        assert "the client has gone" in error.message
        it.begin_packed(packed, [arrived(ref, view)])
        assert (await it.over()).value == 2_000_000


async def test_cancelling_a_task_whose_buffer_still_arrives_ends_it_at_once() -> None:
    array = np.ones(2_000_000)
    async with worker() as it:
        packed = pack_task((np.sum, (array,), {}), it.store)
        ((ref, view),) = packed.large.items()
        task = it.begin_packed(packed, [Inbound(ref, len(view))])
        await asyncio.sleep(0)
        it.slot.cancel(task)
        assert (await it.over()).error.what == "interrupted"
        it.begin_packed(packed, [arrived(ref, view)])
        assert (await it.over()).value == 2_000_000


async def test_arrays_of_the_same_bytes_are_two_things_in_a_task() -> None:
    def change(one: np.ndarray, other: np.ndarray) -> float:
        one[0] = 5
        return float(other[0])

    async with worker() as it:
        outcome = await it.call(change, np.ones(2_000_000), np.ones(2_000_000))
        assert outcome.value == 1.0


async def test_a_runner_keeps_no_more_buffers_than_it_may() -> None:
    async with worker(Settings(runner_cache=40_000_000)) as it:
        for number in range(5):
            assert (await it.call(np.sum, np.full(2_000_000, number))).value == number * 2_000_000
        source = (
            "import os\n"
            "names = []\n"
            "for fd in os.listdir('/proc/self/fd'):\n"
            "    try: names.append(os.readlink(f'/proc/self/fd/{fd}'))\n"
            "    except OSError: pass\n"
            "sum('p2p-buffer' in name for name in names)"
        )
        if sys.platform == "linux":
            assert (await it.cell(source)).value <= 2


async def test_another_owner_gets_another_runner() -> None:
    async with worker() as it:
        payload: tuple[Any, ...] = (os.getpid, (), {})
        pids = []
        for owner in ("alice", "alice", "bob", "alice"):
            it.begin(payload, owner=owner)
            pids.append((await it.over()).value)
        assert pids[0] == pids[1]
        assert len(set(pids)) == 3
        assert it.deaths == []


async def test_another_owners_buffers_are_sent_again() -> None:
    array = np.ones(2_000_000)
    async with worker() as it:
        for owner in ("alice", "bob"):
            it.begin((np.sum, (array,), {}), owner=owner)
            assert (await it.over()).value == 2_000_000


async def test_a_paused_slots_task_waits_and_nothing_of_its_output_is_lost(tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    source = f"open({str(begun)!r}, 'w')\nfor _ in range(20): print('x' * 1_000_000)\nopen({str(ended)!r}, 'w').close()"
    async with worker(output_limit=64 << 20) as it:
        it.slot.pause()
        it.begin({}, run="cell", source=source)
        await until(begun.exists, "the task begins")
        assert not ended.exists()  # 20 MB don't fit into a pipe
        it.slot.resume()
        assert len((await it.over()).text()) == 20 * 1_000_001
        assert ended.exists()


async def test_a_runner_that_cannot_start_is_an_error_of_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    it = Worker(Settings(), LaunchOptions())
    with pytest.raises(RuntimeError, match="before it was ready"):
        await it.slot.start()
    assert it.slot.state is SlotState.CLOSED


async def test_a_header_over_the_bounds_is_refused_and_the_slot_stays_idle() -> None:
    async with worker() as it:
        with pytest.raises(FrameError):
            it.slot.run(Task("x", 1, "cell", (), source="#" * MAX_HEADER), b"")
        assert it.slot.state is SlotState.IDLE
        assert (await it.cell("1")).value == 1


LEAVES_A_THREAD = """
import os, threading, time
def end(exists=os.path.exists, sleep=time.sleep, leave=os._exit):  # the task's names are gone by then
    while not exists({path!r}): sleep(0.002)
    leave(3)
threading.Thread(target=end, daemon=True).start()
"""


async def a_runner_that_ends_idle(it: Worker, path: Path) -> None:
    """Have a task leave a thread that ends the runner some time after ``path`` has come into being."""
    assert (await it.cell(LEAVES_A_THREAD.format(path=str(path)))).result.ok


async def test_an_idle_runners_end_is_told_as_nobodys() -> None:
    async with worker() as it:
        assert it.slot.pid is not None
        os.kill(it.slot.pid, signal.SIGKILL)
        await until(lambda: it.deaths, "the end is told")
        assert [(death.kind, death.code) for death in it.deaths] == [("signal", signal.SIGKILL)]
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


@pytest.mark.parametrize("noticed", [False, True])
@pytest.mark.parametrize("size", [1, 2_000_000])
async def test_an_idle_runners_end_is_not_the_next_tasks(noticed: bool, size: int, tmp_path: Path) -> None:
    array = np.ones(size)
    async with worker() as it:
        assert (await it.call(np.sum, array)).value == size
        await a_runner_that_ends_idle(it, tmp_path / "end")
        assert it.slot.pid is not None
        runner = psutil.Process(it.slot.pid)
        (tmp_path / "end").touch()
        if noticed:
            async with asyncio.timeout(30):
                while it.slot.state is SlotState.IDLE:  # noqa: ASYNC110 - the very next step of the loop is meant
                    await asyncio.sleep(0)
        else:  # the loop stands still on purpose: the slot can't have read of the end
            assert psutil.wait_procs([runner], timeout=30)[0]
            assert it.slot.state is SlotState.IDLE
        assert it.deaths == []
        it.begin((np.sum, (array,), {}))
        assert (await it.over()).value == size
        assert it.deaths == []


async def test_a_task_whose_buffers_still_arrive_outlives_its_runner() -> None:
    array = np.ones(2_000_000)
    async with worker() as it:
        packed = pack_task((np.sum, (array,), {}), it.store)
        ((ref, view),) = packed.large.items()
        inbound = Inbound(ref, len(view))
        inbound.feed(view[:5_000_000])
        it.begin_packed(packed, [inbound])
        await asyncio.sleep(0)
        first = it.slot.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: it.slot.pid not in (None, first), "another runner")
        inbound.feed(view[5_000_000:])
        assert (await it.over()).value == 2_000_000
        assert it.deaths == []


async def test_a_task_that_no_runner_lives_to_be_sent_is_given_up() -> None:
    async with worker() as it:
        packed = pack_task((np.sum, (np.ones(2_000_000),), {}), it.store)
        ((ref, view),) = packed.large.items()
        it.begin_packed(packed, [Inbound(ref, len(view))])
        killed: list[int | None] = [None]
        while not it.deaths:
            await until(lambda: it.deaths or it.slot.pid not in killed, "another runner, or the end")
            if not it.deaths:
                pid = it.slot.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        assert len(killed) == 1 + 3
        assert (await it.over()).death == it.deaths[0]
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        '{"t": "result", "id": "other", "attempt": 1, "ok": True, "segments": []}',
        '{"t": "result", "id": "task-0", "attempt": 2, "ok": True, "segments": []}',
        '{"t": "result", "id": "task-0", "attempt": 1, "ok": True, "segments": [[9, "r0"]]}',
        '{"t": "chunk", "id": "task-0", "attempt": 1, "ref": "r0", "size": 9, "off": 1}',
    ],
)
async def test_a_task_that_speaks_nonsense_for_its_runner_is_ended(nonsense: str) -> None:
    source = f"""
import json, os, time
text = json.dumps({nonsense}).encode()
for fd in range(3, 12):
    try: os.write(fd, len(text).to_bytes(4, "big") + bytes(4) + text)
    except OSError: pass
time.sleep(600)
"""
    async with worker() as it:
        outcome = await it.cell(source)
        assert outcome.death is not None
        assert outcome.death.kind == "protocol"
        assert (outcome.frame, outcome.outputs, outcome.chunk_bytes) == (None, [], 0)
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


async def test_a_listener_that_fails_does_not_end_the_slot(caplog: pytest.LogCaptureFixture) -> None:
    async with worker() as it:
        told = []

        def fails(slot: Slot, *what: Any) -> None:
            told.append(what)
            raise LookupError("the listener's own")

        it.on_died = it.on_dropped = it.on_output = fails  # type: ignore[method-assign]
        assert (await it.call(np.sum, np.ones(2_000_000))).value == 2_000_000
        assert (await it.cell("print('there')\n1")).value == 1
        for _ in range(2):
            it.ready.clear()
            assert it.slot.pid is not None
            os.kill(it.slot.pid, signal.SIGKILL)
            await it.wait_ready()
        assert (await it.cell("1")).value == 1
        printed = b"".join(bytes(what[1]) for what in told if isinstance(what[0], Output))
        assert printed == b"there\n"
        # Beside the output, in whatever pieces it came: what was dropped, and two deaths.
        assert sum(not isinstance(what[0], Output) for what in told) == 3
        assert "the listener's own" in caplog.text


async def test_a_clearing_up_that_fails_does_not_end_the_slot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clean = ProcessLaunch.clean

    def fails(launch: ProcessLaunch) -> None:
        clean(launch)
        raise TimeoutError("ps takes too long")

    async with worker() as it:
        monkeypatch.setattr(ProcessLaunch, "clean", fails)
        death = (await it.cell("import os\nos._exit(3)")).death
        assert death is not None
        assert (death.kind, death.code) == ("exit", 3)
        await it.wait_ready()
        assert (await it.cell("1")).value == 1
        assert "ps takes too long" in caplog.text


async def test_what_nobody_thought_of_does_not_end_the_slot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker() as it:
        failing = [RuntimeError("nobody thought of it")]
        life = Slot._died

        def fails(slot: Slot, *what: Any) -> None:
            if failing:
                raise failing.pop()
            life(slot, *what)

        monkeypatch.setattr(Slot, "_died", fails)
        it.ready.clear()
        assert it.slot.pid is not None
        os.kill(it.slot.pid, signal.SIGKILL)
        await it.wait_ready()
        assert (await it.cell("1")).value == 1
        assert "nobody thought of it" in caplog.text


async def test_closing_while_a_runner_is_being_cleared_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, begun, go_on = ProcessLaunch.clean, threading.Event(), threading.Event()

    def waits(launch: ProcessLaunch) -> None:
        begun.set()
        assert go_on.wait(30)
        clean(launch)

    monkeypatch.setattr(ProcessLaunch, "clean", waits)
    async with worker(scratch=tmp_path) as it:
        assert it.slot.pid is not None
        os.kill(it.slot.pid, signal.SIGKILL)
        await until(begun.is_set, "clearing up begins")
        closing = asyncio.create_task(it.slot.close())
        await asyncio.sleep(0)
        assert not closing.done()
        go_on.set()
        await closing
        assert it.slot.pid is None
    assert os.listdir(tmp_path) == []


async def test_closing_while_a_task_runs_ends_it() -> None:
    async with worker() as it:
        it.begin({}, run="cell", source="print('there', flush=True)\nwhile True: pass")
        await it.printed("there")
        pid = it.slot.pid
        assert pid is not None
        await it.slot.close()
        await it.slot.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_task_that_says_all_the_time_how_far_it_is_breaks_the_protocol() -> None:
    reports = Reports()
    for _ in range(Reports.AT_ONCE):
        reports.came(now=10)
    for _ in range(Reports.A_SECOND):
        reports.came(now=11)
    with pytest.raises(RemoteProtocolError, match="too often"):
        reports.came(now=11)
