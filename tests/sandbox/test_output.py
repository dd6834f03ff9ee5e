"""What a task prints arrives: live, in order, from wherever it is printed, and within its limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slot_support import worker

from p2p_ipython.config import Settings


async def test_output_arrives_while_the_task_still_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with worker() as it:
        it.begin({}, run="cell", source=f"print('going')\nopen({str(gate)!r}).read()")
        await it.printed("going\n")
        assert it.slot.busy
        gate.write_text("you may end")  # the task can't have ended: it reads this
        assert (await it.over()).value == "you may end"


async def test_streams_keep_their_order() -> None:
    async with worker() as it:
        outcome = await it.cell(
            "import os, sys\n"
            "print('1')\n"
            "print('2', file=sys.stderr)\n"
            "os.system('echo 3')\n"
            "print('4')\n"
            "sys.stdout.buffer.write('5é\\n'.encode()); sys.stdout.flush()\n"
            "os.write(2, b'6\\n')\n"
            "print('7')"
        )
        assert outcome.order() == ["1\n", "2\n", "3\n4\n5é\n", "6\n", "7\n"]


async def test_what_subprocesses_c_code_and_forks_print_is_the_tasks_output() -> None:
    async with worker() as it:
        outcome = await it.cell(
            "import ctypes, os, subprocess, sys, warnings\n"
            "warnings.simplefilter('ignore')  # Python 3.12 warns of forks beside threads\n"
            "subprocess.run(['sh', '-c', 'echo out; echo err >&2'])\n"
            "subprocess.run(['echo', 'to our stdout'], stdout=sys.stdout)\n"
            "ctypes.CDLL(None).puts(b'from C')\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    print('from a fork')\n"
            "    os._exit(0)\n"
            "os.waitpid(child, 0);"
        )
        assert sorted(outcome.text().split("\n")) == sorted(["out", "to our stdout", "from C", "from a fork", ""])
        assert outcome.text("stderr") == "err\n"


async def test_a_child_of_a_fork_keeps_its_files_and_says_nothing_of_its_own() -> None:
    source = """
import os, tempfile, warnings
warnings.simplefilter("ignore")  # since Python 3.12 one forks with threads, as in a kernel
if os.fork() == 0:
    files = [tempfile.TemporaryFile() for _ in range(20)]
    numbers = {file.fileno() for file in files}
    if os.fork() == 0:
        print(all(os.fstat(number) for number in numbers), flush=True)
        os._exit(0)
    os._exit(os.wait()[1])
os.wait()[1]
"""
    async with worker() as it:
        outcome = await it.cell(source)
        assert (outcome.value, outcome.text(), outcome.text("stderr")) == (0, "True\n", "")


@pytest.mark.parametrize("before", [0, 20])
async def test_what_a_task_flushes_is_sent_before_it_computes_without_letting_go(before: int) -> None:
    async with worker(Settings(cancel_grace=0)) as it:
        source = f"for n in range({before}): print(n, flush=True)\nprint('there', flush=True)\nsum(range(10 ** 14))"
        task = it.begin({}, run="cell", source=source)
        await it.printed("there")
        it.slot.cancel(task)
        assert (await it.over()).death is not None


async def test_a_fork_that_comes_back_from_the_task_does_not_speak_for_it() -> None:
    async with worker() as it:
        assert (await it.cell("import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\npid > 0")).value is True
        outcome = await it.cell("import os\npid = os.fork()\nif not pid: 1/0\nos.waitpid(pid, 0)[1] >> 8")
        assert outcome.value == 1
        assert "ZeroDivisionError" in outcome.text("stderr")
        assert (await it.cell("2")).value == 2


async def test_a_hundred_megabytes_of_output_are_cut_with_one_notice() -> None:
    for source in ("for _ in range(100): print('x' * 1_000_000)", "!yes | head -c 100000000"):
        async with worker(output_limit=1 << 20) as it:
            outcome = await it.cell(f"{source}\nprint('the end')")
            assert len(outcome.text()) == 1 << 20, source
            notice = outcome.text("stderr")
            assert notice.count("more bytes of output were not sent") == 1
            assert "P2P_OUTPUT_LIMIT" in notice
            assert (await it.cell("print('next')")).text() == "next\n"


async def test_what_a_thread_of_an_earlier_task_prints_is_shown_with_a_note(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with worker() as it:
        await it.cell(
            "import threading\n"
            f"def late(): open({str(gate)!r}).read(); print('late'); open({str(gate)!r}, 'w').write('printed')\n"
            "threading.Thread(target=late, daemon=True).start()"
        )
        outcome = await it.cell(f"open({str(gate)!r}, 'w').write('print!')\nprint(open({str(gate)!r}).read())")
        assert outcome.text() == "late\nprinted\n"
        assert outcome.text("stderr").count("A thread of an earlier task prints here") == 1


async def test_ten_thousand_small_texts_arrive_in_few_frames() -> None:
    async with worker() as it:
        outcome = await it.cell("for i in range(10_000): print(i, flush=True)")
        assert outcome.text() == "".join(f"{i}\n" for i in range(10_000))
        assert len(outcome.outputs) < 2000


async def test_what_a_task_prints_in_its_last_step_arrives_whatever_that_step_is() -> None:
    async with worker() as it:
        for step in ("1 / 0", "raise SystemExit", "import ctypes\nctypes.CDLL(None).puts(b'C')\n1 / 0"):
            assert (await it.cell(f"print('last')\n{step}")).text().startswith("last\n")
        printing = "class Loud:\n    def __reduce__(self): print('packed'); return (int, ())\nLoud()"
        assert (await it.cell(printing)).text() == "packed\n"


async def test_each_script_cells_output_arrives() -> None:
    async with worker() as it:
        for source, kind in (("%%bash\necho {}", "stdout"), ("%%sh\necho {} >&2; exit 4", "stderr")):
            for number in range(3):
                outcome = await it.cell(source.format(number))
                assert outcome.text(kind) == f"{number}\n", source


async def test_what_a_librarys_thread_prints_for_a_task_is_that_tasks(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with worker() as it:
        first = await it.cell(
            "import asyncio, builtins, concurrent.futures, threading\n"
            "builtins.loop = loop = asyncio.new_event_loop()\n"
            "threading.Thread(target=loop.run_forever, daemon=True).start()\n"
            "builtins.pool = pool = concurrent.futures.ThreadPoolExecutor(1)\n"
            "begun = threading.Event()\n"
            f"def late(): begun.set(); open({str(gate)!r}).read(); print('late'); display('late')\n"
            "pool.submit(print, 'first').result()\n"
            "pool.submit(late)\n"
            "begun.wait();"
        )
        assert first.text() == "first\n"
        second = await it.cell(
            f"open({str(gate)!r}, 'w').write('go on')\n"
            "pool.submit(print, 'second').result()\n"
            "pool.submit(lambda: print('third')).result()\n"
            "async def fourth(): print('fourth')\n"
            "import asyncio\n"
            "asyncio.run_coroutine_threadsafe(fourth(), loop).result()"
        )
        texts = second.text().split("\n")
        assert [text for text in texts if text != "late"] == ["second", "third", "fourth", ""]
        assert texts.count("late") == 1


async def test_what_a_timer_of_an_earlier_task_prints_is_shown_with_a_note() -> None:
    async with worker() as it:
        await it.cell(
            "import builtins, threading, types\n"
            "builtins.go = go = threading.Event()\n"
            "builtins.timer = timer = threading.Timer(None, print, ('late',))\n"
            "timer.finished = types.SimpleNamespace(wait=go.wait, is_set=bool, set=bool)  # it rings when we say so\n"
            "timer.start()"
        )
        outcome = await it.cell("go.set(); timer.join()\nprint('now')")
        assert outcome.text() == "late\nnow\n"
        assert "earlier task" in outcome.text("stderr")


async def test_a_thread_that_outlives_its_task_is_named_once() -> None:
    async with worker() as it:
        source = "import threading\ngo = threading.Event()\nthreading.Thread(target=go.wait, daemon={}).start()"
        first = await it.cell(source.format(False))
        assert "1 thread of this task is still running" in first.text("stderr")
        assert (await it.cell("1")).text("stderr") == ""
        assert (await it.cell(source.format(True))).text("stderr") == ""


async def test_a_finalizer_that_prints_at_any_time_does_no_harm() -> None:
    async with worker(output_limit=64 << 20) as it:
        outcome = await it.cell(
            "import gc\n"
            "class Loud:\n"
            "    def __del__(self): print('x' * 10_000)\n"
            "gc.set_threshold(5)\n"
            "for _ in range(2000):\n"
            "    loud = Loud(); loud.me = loud\n"
            "    print('line')\n"
            "gc.set_threshold(700)\n"
            "del loud; gc.collect();"
        )
        # One may print between another one's text and the end of its line, from a thread that happens to collect.
        assert outcome.text().count("line") == 2000
        assert outcome.text().count("x") == 2000 * 10_000
        assert outcome.text().count("\n") == 4000


async def test_pools_of_processes_are_quiet_in_each_task() -> None:
    pytest.importorskip("joblib")
    async with worker() as it:
        for source in (
            "from joblib import Parallel, delayed\nParallel(n_jobs=2)(delayed(abs)(i) for i in range(-3, 0))",
            "from multiprocessing import shared_memory\n"
            "m = shared_memory.SharedMemory(create=True, size=9); m.close(); m.unlink()\n[3, 2, 1]",
        ):
            for _ in range(2):
                outcome = await it.cell(source)
                assert (outcome.value, outcome.text(), outcome.text("stderr")) == ([3, 2, 1], "", "")


async def test_a_bar_for_notebooks_is_a_bar_of_text_that_moves() -> None:
    pytest.importorskip("tqdm")
    async with worker() as it:
        for module in ("notebook", "auto"):
            outcome = await it.cell(f"from tqdm.{module} import tqdm, trange\nfor i in tqdm(range(2)): pass")
            assert outcome.displays() == []
            assert "2/2" in outcome.text("stderr")


async def test_a_widget_comes_as_its_text_and_never_as_a_view() -> None:
    pytest.importorskip("ipywidgets")
    async with worker() as it:
        outcome = await it.cell("import ipywidgets\nfor i in range(3): display(ipywidgets.IntSlider(i + 1))")
        *_, (_, content) = outcome.displays()
        assert outcome.text("stderr").count("A widget that a task makes is shown as text") == 1
        assert list(content["data"]) == ["text/plain"]
        assert "IntSlider(value=3)" in content["data"]["text/plain"]
