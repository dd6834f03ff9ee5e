"""``p2p board`` as a process: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from board_support import PATIENCE

PROGRAM = """
import asyncio, pathlib, sys
from p2p_ipython.board.server.main import board_command
from p2p_ipython.board.server.options import ServerOptions
options = ServerOptions(port=0, data=pathlib.Path(sys.argv[3]) if sys.argv[3] else None)
say = lambda text: print(text, flush=True)
asyncio.run(board_command(options, json=sys.argv[1] == "json", out=say, until_eof=sys.argv[2] == "eof"))
"""


@asynccontextmanager
async def board(form: str, until: str = "", data: Path | str = "", cwd: Path | None = None) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", PROGRAM, form, until, str(data),
        stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=cwd,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        assert process.stdin
        process.stdin.close()


async def test_json_is_one_line_with_the_addresses_and_the_end_of_input_is_the_end(tmp_path):
    async with board("json", "eof", cwd=tmp_path) as process:
        assert process.stdout
        assert process.stdin
        assert process.stderr
        said = json.loads(await process.stdout.readline())
        assert set(said) == {"ssh", "mailbox", "relay", "host_key", "fingerprint", "pid"}
        assert said["pid"] == process.pid
        assert said["fingerprint"].startswith("SHA256:")
        assert said["mailbox"].startswith("ws://127.0.0.1:")
        _, writer = await asyncio.open_connection(said["ssh"]["host"], said["ssh"]["port"])
        writer.close()
        process.stdin.close()
        assert await process.wait() == 0
        assert await process.stdout.read() == b""
        assert await process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == [], "a board without a data folder leaves nothing on disk"


@pytest.mark.skipif(os.name != "posix", reason="other signals there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_in_order(number):
    async with board("json") as process:
        assert process.stdout
        assert process.stderr
        await process.stdout.readline()
        process.send_signal(number)
        assert await process.wait() == 0
        assert await process.stderr.read() == b""


async def test_the_text_says_what_to_type_elsewhere(tmp_path):
    async with board("text", "eof", tmp_path / "data") as process:
        assert process.stdout
        said = b""
        while b"Ctrl-C" not in said:
            said += await process.stdout.readline()
        text = said.decode()
        for words in (
            "%p2p_connect 127.0.0.1:",
            "p2p worker --board 127.0.0.1:",
            "SHA256:",
            "ssh -p ",
            "--host ::",
        ):
            assert words in text
