"""A board in a process of its own, the hostile client's process, and a member who joins meanwhile.

For tests/board/test_attacked_board.py and tests/benchmarks/bench_strangers.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from board_support import Recorder, client, joined, until

from p2p_ipython.board.server.options import Addresses

ATTACK = Path(__file__).with_name("board_attack.py")


class Board:
    """A board in a process, as ``p2p board`` starts it."""

    def __init__(self, folder: Path) -> None:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "p2p_ipython.cli",
            "board",
            "--port",
            "0",
            "--json",
            "--until-eof",
        ]
        self.log = folder / "board.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--until-eof", "--data", str(folder / "board")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout
        where = json.loads(self.process.stdout.readline())
        ssh = where["ssh"]
        self.addresses = Addresses(
            ssh["host"], ssh["port"], where["mailbox"], where["relay"], where["host_key"], where["fingerprint"]
        )
        self.usage = psutil.Process(self.process.pid)

    def memory(self) -> float:
        """MB that it has."""
        return self.usage.memory_info().rss / 1e6

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)
        assert self.process.stdout
        self.process.stdout.close()


class Attack:
    """The hostile client's process."""

    def __init__(self, board: Board, *, half_open: int, idle: int, seed: int = 1) -> None:
        self.board = board
        where = {
            "ssh": board.addresses.port,
            "mailbox": int(board.addresses.mailbox.rsplit(":")[-1].split("/")[0]),
            "relay": int(board.addresses.relay.rsplit(":")[-1]),
            "half_open": half_open,
            "idle": idle,
            "seed": seed,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(ATTACK), json.dumps(where)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.process.stdout
        self.ready = self.process.stdout.readline() == b"ready\n"

    def begin(self) -> None:
        """Do the worst from now on. The board has a lower priority then; it would be on another machine, too."""
        self.board.usage.nice(5)
        assert self.process.stdin
        self.process.stdin.write(b"begin\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, int]:
        """Stop; return how often it did what."""
        out, _ = self.process.communicate(timeout=60)
        found: dict[str, int] = json.loads(out)
        return found


async def join_once(board: Any, folder: Path, key: Any, number: int) -> float:
    """Join a topic as a member does, hear the echo of a line, and leave; return how long it took until then, s."""
    ear = Recorder()
    began = time.perf_counter()
    session = client(board, f"p2p-join-{number}", ear, key, folder)
    async with joined(session):
        session.post(b"p1 here I am")
        await until(lambda: not session._lines._outbox.waiting)
        return time.perf_counter() - began
