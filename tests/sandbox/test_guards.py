"""Guards and wardens: one ends whatever goes wrong in it, and looks at nothing that a look changes.

A guard that stays holds its runner's pipe open, and a task never ends.
"""

from __future__ import annotations

import contextlib
import os
import pty
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


_WATCHED = """
import signal, sys
from p2p_ipython.sandbox.inside import warden
warden.fork_under_watch(sys.argv[1])
print("up", flush=True)
signal.pause()
"""
_POLL = (b"7", b"73")
"""The kernel's call in which a warden waits: poll of x86-64, ppoll of aarch64."""


def test_a_warden_does_not_look_at_a_device(tmp_path: Path) -> None:
    """Hang a terminal up before its warden could look at it. A machine's port loses what comes in to such a look."""
    if not Path("/proc/self/syscall").exists():
        pytest.skip("this kernel doesn't tell calls")
    ours, theirs = pty.openpty()
    os.close(ours)
    command = [sys.executable, "-c", _WATCHED, str(tmp_path / "scratch")]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE) as warden:
        os.close(theirs)
        assert warden.stdout is not None
        assert warden.stdout.readline() == b"up\n"
        call = b""
        while warden.poll() is None and call not in _POLL:  # it is on its way to where it waits
            with contextlib.suppress(OSError):
                call = Path(f"/proc/{warden.pid}/syscall").read_bytes().split()[0]
        assert warden.poll() is None, "it has ended its runner"
        warden.terminate()
