"""Engines for tests: a real dask cluster, executors that a factory makes, and slots whose tasks run there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from slot_support import DEADLINE, Worker

from p2p_ipython.config import Settings
from p2p_ipython.sandbox.launch import LaunchOptions
from p2p_ipython.worker.engines.engine import Engine

POOL = """
import concurrent.futures, os, pathlib, pickle, subprocess, sys, tempfile
import p2p_ipython

def pool():
    return concurrent.futures.ProcessPoolExecutor(2)

def threads():
    return concurrent.futures.ThreadPoolExecutor(2)

def fails():
    raise ValueError("no such queue")

def number():
    return 7

class Silent(concurrent.futures.Executor):
    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        future.set_result(function(*arguments))
        return future

def silent():
    return Silent()

class Liar(concurrent.futures.Executor):
    "Says of each task something that can't be."
    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        future.set_result(b"nonsense" * 9 if function.__name__ == "run" else function(*arguments))
        return future

def liar():
    return Liar()

class Blind(concurrent.futures.ThreadPoolExecutor):
    "Runs each function in a Python that sees neither its host's folder nor those beside it."
    def submit(self, function, *arguments):
        return super().submit(self.apart, pickle.dumps((function, arguments)))

    def apart(self, call):
        hidden = str(pathlib.Path(tempfile.gettempdir()).parents[1])
        wall = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", hidden, "--chdir", "/"]
        for folder in (os.path.dirname(os.path.dirname(p2p_ipython.__file__)), sys.prefix):
            wall += ["--ro-bind", folder, folder]  # it may be a temporary one
        code = "import pickle, sys; f, a = pickle.load(sys.stdin.buffer); sys.stdout.buffer.write(pickle.dumps(f(*a)))"
        done = subprocess.run([*wall, sys.executable, "-c", code], input=call, capture_output=True, check=True)
        return pickle.loads(done.stdout)

def blind():
    return Blind(1)
"""


class EngineWorker(Worker):
    """As ``Worker``, for one of an engine's slots."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        super().__init__(settings, LaunchOptions())
        self.slot = engine.slot(self)  # type: ignore[arg-type,assignment]


@contextlib.asynccontextmanager
async def engine(
    choice: str, settings: Settings | None = None, *, slots: int = 0, workers: int = 2
) -> AsyncIterator[tuple[Engine, list[EngineWorker]]]:
    """An engine with so many slots in this process; all closed at the end."""
    settings = settings or Settings(cancel_grace=20.0)
    made = Engine(choice, slots, settings)
    async with asyncio.timeout(2 * DEADLINE):
        await made.open()
    its = [EngineWorker(made, settings) for _ in range(workers)]
    try:
        for each in its:
            await each.slot.start()
        yield made, its
    finally:
        for each in its:
            await each.slot.close()
        await made.close()


class Cluster:
    """A scheduler of dask's, and its workers, each a process; all on this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: list[subprocess.Popen[bytes]] = []
        self.port = 0

    def start(self, **environment: str) -> None:
        """Start the scheduler, at the port that it had before, if it had one."""
        file = self._folder / "scheduler.json"
        file.unlink(missing_ok=True)
        port = str(self.port or 0)
        options = ("--host", "127.0.0.1", "--port", port, "--no-dashboard", "--scheduler-file", str(file))
        self.scheduler = self._program("dask_scheduler", *options, **environment)
        end = time.monotonic() + DEADLINE
        while not file.exists() or '"address"' not in file.read_text():
            assert time.monotonic() < end, "the scheduler has not started"
            time.sleep(0.02)
        self.port = int(file.read_text().split('"tcp://127.0.0.1:')[1].split('"')[0])

    @property
    def choice(self) -> str:
        return f"dask://127.0.0.1:{self.port}"

    def worker(self, threads: int = 1, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker, without a nanny that would start it again."""
        return self._program(
            "dask_worker",
            f"tcp://127.0.0.1:{self.port}",
            *("--nthreads", str(threads), "--no-nanny", "--no-dashboard", "--memory-limit", "2GiB"),
            *("--local-directory", str(self._folder)),
            **environment,
        )

    def _program(self, module: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        program = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *options],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._programs.append(program)
        return program

    def close(self) -> None:
        """End all that it has started."""
        for program in self._programs:
            program.kill()
        for program in self._programs:
            program.wait(DEADLINE)


@contextlib.contextmanager
def dask_cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    """A cluster of dask's without a worker; ``environment`` is its scheduler's."""
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    made = Cluster(folder)
    try:
        made.start(**environment)
        yield made
    finally:
        made.close()


def below(pid: int) -> list[psutil.Process]:
    """The processes that a process has started, and those that these have."""
    return psutil.Process(pid).children(recursive=True)
