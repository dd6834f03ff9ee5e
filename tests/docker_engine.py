"""An engine of Docker's for tests, where none runs: it needs root, and keeps all it has in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from p2p_ipython.sandbox.mechanisms import docker

_DEADLINE = 60.0

_PREFIX = "p2pd-"

_NO_NETWORK = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false", "--ip-masq=false")


@contextlib.contextmanager
def docker_engine() -> Iterator[None]:
    """Have an engine answer at ``DOCKER_HOST`` meanwhile, if one can be started; ``docker.available`` tells."""
    if docker.available() is None or os.geteuid() != 0 or not (shutil.which("docker") and shutil.which("dockerd")):
        yield
        return
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    words = [word for name in ("data-root", "exec-root", "pidfile") for word in (f"--{name}", str(folder / name))]
    address = f"unix://{folder / 'socket'}"
    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen(["dockerd", *_NO_NETWORK, *words, "--host", address], stdout=log, stderr=log)
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = address
    try:
        end = time.monotonic() + _DEADLINE
        while engine.poll() is None and time.monotonic() < end:
            if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)  # it tells nobody that it is ready
        yield
    finally:
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before
        engine.terminate()
        try:
            engine.wait(_DEADLINE)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait()
        shutil.rmtree(folder, ignore_errors=True)


def admit(user: int) -> None:
    """Let a user of this system ask the engine, if it is one that a test has started."""
    socket = Path(os.environ.get("DOCKER_HOST", "").removeprefix("unix://"))
    if socket.parent.name.startswith(_PREFIX):
        socket.parent.chmod(0o711)
        os.chown(socket, user, -1)
