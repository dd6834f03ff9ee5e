"""Containers: what is special to them. Each engine that is not here is skipped, and says why."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from docker_engine import docker_engine
from slot_support import needs, until, worker

from p2p_ipython.config import Settings
from p2p_ipython.sandbox.launch import LaunchOptions, Mount, prepare
from p2p_ipython.sandbox.mechanisms.contents import Shown, shown_in
from p2p_ipython.sandbox.scratch import sweep
from p2p_ipython.worker.sandboxes import examine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers need Linux")


@pytest.fixture(scope="module", params=["podman", "apptainer", "docker"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the name of a mechanism that is here."""
    with docker_engine() if request.param == "docker" else contextlib.nullcontext():
        needs(request.param)
        yield request.param


async def test_a_container_passes_the_self_test(engine: str) -> None:
    verdict = await examine(engine, LaunchOptions(), Settings())
    assert verdict.holds, verdict.words


async def test_frames_of_any_bytes_pass_through_an_engine(engine: str) -> None:
    data = bytes(range(256)) * 40_000  # the keys by which a terminal would detach from a container are among them
    async with worker(mechanism=engine) as it:
        assert (await it.cell("data[::-1]", {"data": data})).value == data[::-1]


async def test_what_a_task_occupies_is_known_and_bounded(engine: str) -> None:
    async with worker(mechanism=engine, memory=1 << 30, disk=256 << 20) as it:
        keeping = "import time\nkept = bytearray(b'x') * (200 << 20)\nprint('kept', flush=True)\ntime.sleep(600)"
        task = it.begin({}, run="cell", source=keeping)
        await it.printed("kept")
        await until(lambda: 180 << 20 < it.slot.memory() < 500 << 20, "the kernel's counters, which are late")
        it.slot.cancel(task)
        assert (await it.over()).error.what == "interrupted"
        full = "try: open('file', 'wb').write(bytes(257 << 20))\nexcept OSError as error: kept = error.errno\n"
        assert (await it.cell(f"import os\n{full}os.unlink('file')\nkept")).value == errno.ENOSPC
        many = "import os, time\nfor _ in range(4):\n  if os.fork() == 0:\n    kept = bytearray(b'x') * (400 << 20)\n"
        death = (await it.cell(f"{many}    time.sleep(60)\nos.wait()")).death
        assert death is not None
        assert death.kind == "memory"


@pytest.mark.parametrize(
    ("source", "kind", "code"),
    [
        ("import os\nos._exit(3)", "exit", 3),
        ("import os\nos.abort()", "signal", signal.SIGABRT),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "signal", signal.SIGKILL),
    ],
)
async def test_how_a_runner_ended_is_told_through_an_engine(engine: str, source: str, kind: str, code: int) -> None:
    async with worker(mechanism=engine) as it:
        death = (await it.cell(source)).death
        assert death is not None
        assert (death.kind, death.code) == (kind, code)
        assert (await it.cell("6 * 7")).value == 42


def test_no_command_line_or_engine_holds_what_a_runner_is_given(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = secrets.token_hex(16)
    monkeypatch.setenv("GITHUB_TOKEN", secret)
    launch = prepare(engine, LaunchOptions(extra_env={"MINE": f"one\n'two' {secret}"}))
    with subprocess.Popen(
        launch.command,
        env=launch.env,
        cwd=launch.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(1)  # it is ready
            held = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
            lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in held]
            outside = Path(f"/proc/{process.pid}/environ").read_bytes()
            assert not [line for line in [*lines, outside, json.dumps(launch.env).encode()] if secret.encode() in line]
        finally:
            launch.end(process)
            process.wait()
            launch.clean()
    assert not launch.folder.exists()


async def test_a_runners_environment_comes_whole_through_an_engine(engine: str) -> None:
    mine = "one\n'two' $HOME \\ \"three\""
    async with worker(mechanism=engine, extra_env={"MINE": mine}) as it:
        names = (await it.cell("import os\ndict(os.environ)")).value
    assert names["MINE"] == mine
    assert names["HOME"] == "/scratch/home"
    assert not {name for name in names if name.startswith(("DOCKER", "CONTAINER", "APPTAINER", "SINGULARITY"))}


def test_python_in_a_hidden_part_of_a_shared_folder_has_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, folder = tmp_path / "project", tmp_path / "folder"
    environment, hidden = project / ".tools" / "env", project / ".tools"
    for each in (environment / "bin", folder):
        each.mkdir(parents=True)
    for prefix, kept in ((environment, environment), (hidden, hidden)):
        monkeypatch.setattr(sys, "prefix", str(prefix))
        mount = Mount(str(project), writable=True, hidden=(str(hidden),))
        shown = shown_in(LaunchOptions(mounts=(mount,)), folder, (1, 1))
        assert len({each.at for each in shown}) == len(shown)  # engines refuse two at one place
        assert [each for each in shown if each.at == kept] == [Shown(prefix, prefix)]
        assert [each for each in shown if each.writable] == [Shown(project, project, writable=True)]
        for cover in (each for each in shown if each.at == hidden and each.place != hidden):
            assert [str(each.relative_to(cover.place)) for each in cover.place.rglob("*")] == ["env"]
        shutil.rmtree(folder / "empty")


AGENT = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from slot_support import worker

async def main():
    async with worker(mechanism={mechanism!r}) as it:
        it.begin({{}}, run="cell", source={source!r})
        await it.printed("there")
        print(it.slot._runner.process.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


@contextlib.asynccontextmanager
async def agent(engine: str, number: int):  # type: ignore[no-untyped-def]
    """Start an agent whose task runs ``sleep number``; yield its process and its guard's."""
    source = f"import subprocess\nsubprocess.Popen(['sleep', '{number}'])\nprint('there', flush=True)\nimport time\n"
    tests = os.path.dirname(os.path.dirname(__file__))
    script = AGENT.format(tests=tests, mechanism=engine, source=f"{source}time.sleep(600)")
    process = start(script)
    assert process.stdout is not None
    try:
        with process.stdout:
            yield process, psutil.Process(int(await asyncio.to_thread(process.stdout.readline)))
    finally:
        process.kill()
        process.wait()


def sleepers(number: int) -> list[psutil.Process]:
    """Return the processes that are ``sleep number``."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", str(number)]:
                found.append(process)
    return found


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def engines(pid: int) -> list[psutil.Process]:
    """Return the processes of engines that an agent's guards have started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if f"/p2p-{pid}-" in process.environ().get("HOME", ""):
                found.append(process)
    return found


def folders(pid: int) -> list[Path]:
    """Return the scratch folders of an agent."""
    return list(Path(tempfile.gettempdir()).glob(f"p2p-{pid}-*"))


@pytest.mark.parametrize("killed", ["agent", "command", "guard", "agent and guard"])
async def test_a_container_ends_with_whatever_is_killed(engine: str, killed: str) -> None:
    number = secrets.randbelow(10**6) + 10**6
    async with agent(engine, number) as (process, guard):
        await until(lambda: len(sleepers(number)) == 1, "the task's process is seen")
        victims = {
            "agent": [process],
            "command": guard.children()[:1],
            "guard": [guard],
            "agent and guard": [process, guard],
        }[killed]
        assert victims
        used, theirs = folders(process.pid), engines(process.pid)
        for victim in victims:
            victim.kill()
        await until(lambda: not sleepers(number), "the container ends")
        await until(lambda: not any(map(runs, theirs)), "the engine's own processes end")
        # An agent that was killed together with the guard leaves its folder to the next agent.
        if killed != "agent and guard":
            await until(lambda: not any(each.exists() for each in used), "the scratch folder is removed")


async def test_a_container_whose_warden_does_nothing_is_swept_by_the_next_guard(engine: str) -> None:
    number = secrets.randbelow(10**6) + 10**6
    async with agent(engine, number) as (process, guard):
        await until(lambda: len(sleepers(number)) == 1, "the task's process is seen")
        [sleeper] = sleepers(number)
        for parent in sleeper.parents():
            if "p2p_ipython.sandbox.inside.runner" in parent.cmdline():
                parent.suspend()  # the runner, and the warden, as if a task had got hold of it
        for victim in (process, guard):
            victim.kill()
        process.wait()
        async with worker(mechanism=engine) as it:
            await until(lambda: not sleepers(number), "the container is swept")
            await until(lambda: not engines(process.pid), "the engine's own processes are swept")
            assert (await it.cell("6 * 7")).value == 42
    for folder in folders(process.pid):
        os.utime(folder, (0, 0))
        assert folder in sweep(folder.parent)
        assert not folder.exists()
