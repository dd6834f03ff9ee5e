"""The socket by which a lender reaches the workers on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from p2p_ipython.errors import ConfigError, P2PError
from p2p_ipython.lending import control
from p2p_ipython.lending.control import MAX_AT_ONCE, Command, Control, WorkerState, tell, workers

PYTHON = shutil.which("python3", path="/usr/bin:/bin") or ""


class Worker:
    """It notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[Command] = []

    def heed(self, command: Command) -> WorkerState:
        self.heard.append(command)
        if command == "resume":
            raise P2PError("it is ending")
        if command == "finish":
            raise ZeroDivisionError
        return WorkerState(os.getpid(), "alice/friends", "desk", "paused" if command == "pause" else "lending")


@asynccontextmanager
async def controlled(folder: Path) -> AsyncIterator[tuple[Worker, Path]]:
    worker = Worker()
    made = Control(worker.heed, folder)
    await made.open()
    try:
        (path,) = workers(folder)
        yield worker, path
    finally:
        await made.close()
        assert not workers(folder)


@pytest.mark.parametrize("name", ["run", "a-folder-" + "x" * 120])
async def test_a_worker_hears_commands_and_answers_however_long_its_path_is(tmp_path: Path, name: str) -> None:
    async with controlled(tmp_path / name) as (worker, path):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        said = await asyncio.to_thread(tell, path, "pause")
        assert said == WorkerState(os.getpid(), "alice/friends", "desk", "paused")
        for command, words in (("resume", "it is ending"), ("finish", "ZeroDivisionError")):
            with pytest.raises(P2PError, match=words):
                await asyncio.to_thread(tell, path, command)
        assert worker.heard == ["pause", "resume", "finish"]


@pytest.mark.parametrize(
    "question",
    [
        b"\n",
        b"{}\n",
        b'{"do": "format the disk"}\n',
        b'{"do": ["pause"]}\n',
        b"[" * 900 + b"\n",
        b"\xff\n",
        b"x" * 5000,
        b"",
    ],
)
async def test_nonsense_does_nothing_and_the_worker_goes_on(tmp_path: Path, question: bytes) -> None:
    async with controlled(tmp_path / "run") as (worker, path):
        with control._short(path) as short:
            reader, writer = await asyncio.open_unix_connection(short)
        writer.write(question)
        if not question:
            writer.write_eof()
        answer = await reader.read()
        assert answer == b"" or "failed" in json.loads(answer)
        writer.close()
        assert worker.heard == []
        assert await asyncio.to_thread(tell, path, "state") is not None


async def test_silent_connections_keep_nobody_out_for_long(tmp_path: Path) -> None:
    async with controlled(tmp_path / "run") as (_worker, path):
        silent = [await asyncio.open_unix_connection(str(path)) for _ in range(MAX_AT_ONCE)]
        ends = await asyncio.gather(*(reader.read() for reader, _ in silent))  # the worker ends them
        assert ends == [b""] * MAX_AT_ONCE
        for _, writer in silent:
            writer.close()
        assert await asyncio.to_thread(tell, path, "state") is not None


async def test_a_folder_that_others_may_enter_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="open to others"):
        await Control(Worker().heed, tmp_path / "run").open()
    assert not workers(tmp_path / "run")


@pytest.mark.skipif(
    os.geteuid() != 0 or not PYTHON, reason="only root can act as another user, by a Python that all may run"
)
async def test_another_user_is_refused_also_where_the_folder_lets_them_in() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        async with controlled(Path(folder) / "run") as (worker, path):
            for each, mode in ((folder, 0o755), (path.parent, 0o755), (path, 0o666)):
                os.chmod(each, mode)
            code = (
                "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
                'try: s.sendall(b\'{"do": "stop"}\\n\'); print(s.recv(100))\n'
                "except ConnectionError: print(b'')"
            )
            command = [PYTHON, "-S", "-c", code, str(path)]
            asked = partial(subprocess.run, command, user=65534, capture_output=True, text=True, check=True)
            assert (await asyncio.to_thread(asked)).stdout == "b''\n"
            assert worker.heard == []
            assert await asyncio.to_thread(tell, path, "state") is not None


def test_a_socket_that_a_killed_worker_has_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "123-0123abcd.sock"
    with socket.socket(socket.AF_UNIX) as left, control._short(path) as short:
        left.bind(short)
    assert workers(tmp_path) == [path]
    assert tell(path, "state") is None
    assert workers(tmp_path) == []
    assert tell(path, "state") is None


def test_an_answer_that_is_none_is_said(tmp_path: Path) -> None:
    path = tmp_path / "123-0123abcd.sock"
    for answer in (b"{}\n", b"\n", b"[1]\n", b"nonsense\n", b""):
        with socket.socket(socket.AF_UNIX) as wrong, control._short(path) as short:
            wrong.bind(short)
            wrong.listen()
            asked = asyncio.run(_ask_and_answer(wrong, path, answer))
            assert asked == "a worker gives no answer"
        path.unlink()


async def _ask_and_answer(listening: socket.socket, path: Path, answer: bytes) -> str:
    asking = asyncio.ensure_future(asyncio.to_thread(tell, path, "state"))
    talking, _ = await asyncio.to_thread(listening.accept)
    with talking:
        await asyncio.to_thread(talking.recv, 100)
        talking.sendall(answer)
    with pytest.raises(P2PError) as caught:
        await asking
    return caught.value.message
