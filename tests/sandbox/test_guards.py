"""Guards end whatever goes wrong in them: one that stays holds its runner's pipe open, and a task never ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_ipython.sandbox.mechanisms.machine_command import PROGRAM, Shape
from p2p_ipython.sandbox.mechanisms.machine_process import Machine, Plan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="guards need Linux")

_FAILS = """
from p2p_ipython.sandbox.mechanisms.guarding import Watch
def wait():
    raise RuntimeError("nobody expected it")
raise SystemExit(Watch().until_ended(wait))
"""


def test_a_guard_that_fails_to_wait_ends_and_says_why() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _FAILS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as guard:
        assert guard.stderr is not None
        assert b"nobody expected it" in guard.stderr.read()
        assert guard.wait(30) == 1


@pytest.mark.parametrize(
    "says", ["'[' * 60000", "'[' * 60000 + '\\n'", "'{' * 200000", "'7\\n'", "'{\"begun\": \\n'", "''"]
)
def test_a_machine_that_says_nonsense_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    qemu = tmp_path / PROGRAM
    qemu.write_text(
        f"#!{sys.executable}\n"
        "import re, socket, sys\n"
        "orders = next(each for each in sys.argv if each.startswith('socket,id=orders'))\n"
        f"socket.socket(fileno=int(orders.partition('fd=')[2])).sendall(({says}).encode())\n"
    )
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("kernel", "initrd", "disk"):
        (tmp_path / name).touch()
    assert shutil.which(PROGRAM) == str(qemu)
    ours, accounts = socket.socketpair()
    with ours, accounts, open(os.devnull, "r+b") as null:
        plan = Plan(tmp_path, Shape(1 << 30, 1, fast=False), None)
        with Machine(plan, (null.fileno(), null.fileno()), accounts.fileno()) as machine:
            assert machine.said(60.0) is None
