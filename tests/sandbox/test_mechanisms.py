"""What each mechanism with a wall must do besides holding: run tasks as ever, tell their ends, and leave nothing.

tests/attacks shows that they hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest
from slot_support import needs, until, worker

from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.sandbox.launch import MECHANISMS, LaunchOptions, Mount
from p2p_ipython.sandbox.mechanisms.python_files import named_left_out, python_files

WALLED = [name for name in MECHANISMS if name != NO_WALL]


@pytest.fixture(params=WALLED)
def wall(request: pytest.FixtureRequest) -> str:
    """A mechanism that can be used here."""
    needs(request.param)
    return str(request.param)


async def test_a_cell_runs_as_ever(wall: str) -> None:
    async with worker(mechanism=wall) as it:
        source = "import os, numpy, shutil\nprint('hello', flush=True)\nos.write(1, b'there\\n')\n"
        source += "open('a', 'w').write('x')\nshutil.copy('a', 'b')\nint(numpy.arange(4).sum()) + len(os.listdir('.'))"
        outcome = await it.cell(source)
        assert outcome.text() == "hello\nthere\n"
        assert outcome.value >= 8
        assert (await it.call(pow, 2, 10)).value == 1024


async def test_modules_beside_a_notebook_are_there_and_can_not_be_changed(wall: str, tmp_path: Path) -> None:
    if wall == "qemu":
        pytest.skip("a machine's disk is made before the notebook is known")
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "own_module.py").write_text("VALUE = 7\n")
    (tmp_path / "secret").write_text("x")
    for folder in (beside, *beside.parents):
        if folder != Path(folder.anchor) and folder.owner() == Path.home().owner() and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)  # root's runners have another user id
    async with worker(mechanism=wall, path=(str(beside),)) as it:
        assert (await it.cell("import own_module\nown_module.VALUE")).value == 7
        write = f"try:\n    open({str(beside / 'own_module.py')!r}, 'a')\nexcept OSError: wrong = True\nwrong"
        assert (await it.cell(write)).value is True
        look = f"try:\n    open({str(tmp_path / 'secret')!r})\nexcept OSError: wrong = True\nwrong"
        assert (await it.cell(look)).value is True


@pytest.mark.parametrize(
    ("source", "kind", "code"),
    [("import os\nos._exit(7)", "exit", 7), ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "signal", 11)],
)
async def test_the_end_of_a_tasks_process_is_told(wall: str, source: str, kind: str, code: int) -> None:
    async with worker(mechanism=wall) as it:
        death = (await it.cell(source)).death
        assert death is not None
        assert (death.kind, death.code) == (kind, code)
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


_DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"


async def test_a_task_is_interrupted(wall: str) -> None:
    async with worker(Settings(cancel_grace=30), mechanism=wall) as it:
        task = it.begin({}, run="cell", source="import time\nprint('there', flush=True)\ntime.sleep(600)")
        await it.printed("there")
        it.slot.cancel(task)
        assert (await it.over()).error.what == "interrupted"


async def test_a_task_that_heeds_no_interrupt_is_killed(wall: str) -> None:
    async with worker(Settings(cancel_grace=0.3), mechanism=wall) as it:
        task = it.begin({}, run="cell", source=f"{_DEAF}print('there', flush=True)\nsum(range(10 ** 14))")
        await it.printed("there")
        it.slot.cancel(task)
        death = (await it.over()).death
        assert death is not None
        assert death.kind == "cancelled"
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


LEAVE = """
import os, subprocess, sys, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", {mark!r}])
print("there", flush=True)
"""


def running(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in process.cmdline():
                found.append(process.pid)
    return found


@pytest.mark.parametrize("end", ["another member's task", "the warden is killed", "the slot is closed"])
async def test_daemons_do_not_outlive_their_runner(wall: str, end: str, tmp_path: Path) -> None:
    mark = f"p2p-{secrets.token_hex(8)}"
    async with worker(mechanism=wall, scratch=tmp_path) as it:
        source = LEAVE.format(mark=mark)
        if end == "the warden is killed":
            source += "import signal\nos.kill(os.getppid(), signal.SIGKILL)\n"
            source += "time.sleep(1)\nprint('spared', flush=True)\n"
        it.begin({}, run="cell", source=source + "time.sleep(600)", owner="bob")
        await it.printed("there")
        if end == "another member's task":
            it.slot.cancel(it.slot.task_id or "")
            await it.over()
            it.begin((int, (), {}), owner="alice")
            assert (await it.over()).value == 0
        elif end == "the warden is killed":
            ends = [asyncio.ensure_future(it.over()), asyncio.ensure_future(it.printed("spared"))]
            done, rest = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for other in rest:
                other.cancel()
            if ends[1] in done:  # in a container the warden is the first process, which nobody in there can kill
                await it.slot.close()
        else:
            await it.slot.close()
        assert running(mark) == []
    assert below(tmp_path) == []


def below(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


AGENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from slot_support import worker

async def main():
    async with worker(mechanism={wall!r}, scratch=Path({scratch!r})) as it:
        it.begin({{}}, run="cell", source={source!r})
        await it.printed("there")
        print("there", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def start_agent(script: str, mark: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, mark], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("waiting", ["time.sleep(600)", "sum(range(10 ** 14))"])
async def test_a_killed_agent_leaves_no_process(wall: str, waiting: str, tmp_path: Path) -> None:
    mark = f"p2p-{secrets.token_hex(8)}"
    script = AGENT.format(
        tests=str(Path(__file__).parent.parent),
        wall=wall,
        scratch=str(tmp_path),
        source=LEAVE.format(mark=mark) + waiting,
    )
    with start_agent(script, mark) as agent:
        assert agent.stdout is not None
        assert await asyncio.to_thread(agent.stdout.readline) == "there\n"
        await until(lambda: len(running(mark)) > 1, "the daemons run")
        agent.kill()
    await until(lambda: running(mark) == [], "all that the task has started ends")


async def test_a_task_that_takes_too_much_memory_in_several_processes_is_told_which_limit(wall: str) -> None:
    async with worker(mechanism=wall, memory=400 << 20) as it:
        source = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        kept = bytearray(b"x") * (200 << 20)
        time.sleep(600)
time.sleep(600)
"""
        outcome = await it.cell(source)
        assert outcome.death is not None
        assert outcome.death.kind == "memory"
        assert "of the 0.39 GiB of memory that it may have" in outcome.death.detail
        await it.wait_ready()
        assert (await it.cell("1")).value == 1


async def test_memory_that_processes_share_counts_once(wall: str) -> None:
    async with worker(mechanism=wall, memory=600 << 20) as it:
        source = """
import os, time
kept = bytearray(b"x") * (250 << 20)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        time.sleep(1)
        os._exit(0)
    children.append(child)
[os.waitpid(child, 0)[1] for child in children]
"""
        assert (await it.cell(source)).value == [0, 0, 0]


async def test_a_file_over_the_limit_can_not_be_written(wall: str) -> None:
    async with worker(mechanism=wall, disk=8 << 20) as it:
        source = "try:\n    open('x', 'wb', 0).write(bytes(32 << 20))\nexcept OSError: pass\n"
        source += "import os\nos.path.getsize('x') <= 8 << 20"
        assert (await it.cell(source)).value is True


def test_a_home_folder_is_not_shown_as_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", os.path.expanduser("~"))
    with pytest.raises(ConfigError, match="holds your own files") as caught:
        python_files()
    assert "python3 -m venv" in caught.value.hint


def test_a_folder_to_import_from_is_not_shown_if_it_holds_a_home_or_is_in_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, beside, project = tmp_path / "people" / "alice", tmp_path / "beside", tmp_path / "project"
    for folder in (home, beside, project / "src"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    given = (tmp_path / "people", home, beside, project / "src", tmp_path)
    options = LaunchOptions(path=tuple(map(str, given)), mounts=(Mount(str(project)),))
    shown = python_files(options).shown
    assert beside in shown
    assert not ({*given} - {beside}) & {*shown}


def test_what_python_needs_is_shown_and_a_project_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    files = python_files()
    assert str(tmp_path) in files.left_out
    packages = Path(sysconfig.get_paths()["purelib"])
    system = Path("/usr")
    assert any(shown in (packages, *packages.parents) for shown in (*files.shown, system))
    assert not any(tmp_path == shown or shown in tmp_path.parents for shown in files.shown)
    assert files.package.name == "p2p_ipython"


def test_folders_of_editable_installs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, record = tmp_path / "my project", tmp_path / "site" / "mine-1.0.dist-info"
    project.mkdir()
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (record / "direct_url.json").write_text(json.dumps({"url": project.as_uri(), "dir_info": {"editable": True}}))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    assert {str(project), str(tmp_path / "site")} <= {*named_left_out()}
    (record / "direct_url.json").write_text("[]")
    assert str(project) not in named_left_out()
