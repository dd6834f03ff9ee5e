"""A worker's process keeps to itself: what a task, which runs as the same user, finds of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from slot_support import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the environment of a process is in /proc on Linux")

SECRETS = {"GITHUB_TOKEN": "secret-1", "HTTPS_PROXY": "http://me:secret-2@proxy", "JPY_API_TOKEN": "secret-3"}

LOOKS = """
import os
found = {}
agent = int(open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1])
for name in ("environ", "mem"):
    try:
        with open(f"/proc/{agent}/{name}", "rb") as file:
            found[name] = file.read(100_000).decode("utf-8", "replace") if name == "environ" else "opened"
    except OSError as error:
        found[name] = type(error).__name__
found
"""

AGENT = """
import asyncio, ctypes, json, os, sys
from p2p_ipython.worker.hardening import harden
harden()
sys.path.insert(0, sys.argv[1])
from slot_support import worker

async def main():
    async with worker() as it:
        found = (await it.cell(sys.argv[2])).value
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    found |= {"env": dict(os.environ), "path": libc.getenv(b"PATH").decode(), "dumpable": libc.prctl(3, 0, 0, 0, 0)}
    print(json.dumps(found))

asyncio.run(main())
"""

WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Has root's processes see of one another what an ordinary user's do."""


@pytest.mark.parametrize("may", ["all", "little"])
def test_a_task_can_not_look_into_its_agent(may: str) -> None:
    prefix: tuple[str, ...] = ()
    if may == "little" and os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed")
        prefix = WITHOUT_RIGHTS
    env = {**os.environ, **SECRETS, "P2P_LEASE": "61", "SSH_AUTH_SOCK": "/tmp/agent"}
    said = subprocess.run(
        [*prefix, sys.executable, "-c", AGENT, str(Path(__file__).parent.parent), LOOKS],
        env=env,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert b"secret" not in said
    found = json.loads(said)
    assert found["dumpable"] == 0
    assert found["path"] == found["env"]["PATH"] == os.environ["PATH"]
    assert (found["env"]["P2P_LEASE"], found["env"]["SSH_AUTH_SOCK"]) == ("61", "/tmp/agent")
    if may == "little" or os.getuid() != 0:
        assert (found["environ"], found["mem"]) == ("PermissionError", "PermissionError")
    else:
        assert found["environ"].strip("\0") == ""


@pytest.mark.parametrize("command", ["p2p_ipython.worker", "p2p_ipython.worker.lend", "p2p_ipython.cli"])
async def test_each_way_to_start_a_worker_forgets_what_it_does_not_need(command: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as board:  # never says a word
        key = tmp_path / "key"
        key.touch(0o600)
        form = (Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        key.write_bytes(Ed25519PrivateKey.generate().private_bytes(*form))
        more = ["worker", "--board", f"127.0.0.1:{board.getsockname()[1]}", "--identity", str(key)]
        env = {**os.environ, **SECRETS, "HOME": str(tmp_path)}
        with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs
            [sys.executable, "-m", command, *(more if command.endswith("cli") else [])],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
        ) as process:
            try:
                await until(lambda: not shows_a_secret(process.pid) and process.poll() is None, "it forgets")
            finally:
                process.kill()


def shows_a_secret(pid: int) -> bool:
    """Whether /proc shows one. Before the new program is there it shows the environment of the old one, or none."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:
        return False
    return b"secret" in environ or b"PATH" in environ or not environ
