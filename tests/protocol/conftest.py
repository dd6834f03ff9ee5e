"""Keys, made once a run, and a real ssh-agent that holds some of them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from people import SSH, Keys

_KINDS = {
    "ed25519": ["-t", "ed25519"],
    "ed25519-other": ["-t", "ed25519"],
    "ecdsa": ["-t", "ecdsa", "-b", "384"],
    "rsa": ["-t", "rsa", "-b", "3072"],
    "rsa-short": ["-t", "rsa", "-b", "1024"],
}


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """SSH keys of every kind, as ssh-keygen makes them."""
    folder = tmp_path_factory.mktemp("keys")
    for name, arguments in _KINDS.items():
        subprocess.run(
            ["ssh-keygen", "-q", "-N", "", "-C", name, "-f", str(folder / name), *arguments], check=True, timeout=60
        )
    return Keys(folder)


@pytest.fixture(scope="session")
def agent_socket(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of an ssh-agent that holds all the keys, and ends with the run."""
    socket = tmp_path_factory.mktemp("a") / "s"  # socket paths are short
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        while not socket.exists():
            assert agent.poll() is None, "ssh-agent ended"
            assert time.monotonic() < end, "ssh-agent didn't open its socket"
            time.sleep(0.01)
        files = [str(keys.folder / name) for name in _KINDS]
        environ = {"SSH_AUTH_SOCK": str(socket), "PATH": "/usr/bin:/bin"}
        subprocess.run(["ssh-add", "-q", *files], env=environ, check=True, timeout=30, capture_output=True)
        yield socket
    finally:
        agent.terminate()
        agent.wait(10)


@pytest.fixture
def agent(agent_socket: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[paramiko.Agent]:
    """A connection to that agent."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent_socket))
    connection = paramiko.Agent()
    yield connection
    connection.close()


@pytest.fixture(params=["by file", "by agent"])
def signer_of(request: pytest.FixtureRequest, keys: Keys) -> SSH:
    """Find a signer by the name of its key: once read from its file, once held by the agent."""
    if request.param == "by file":
        return keys.load
    connection = request.getfixturevalue("agent")

    def find(name: str) -> paramiko.AgentKey:
        wanted = keys.load(name).asbytes()
        return next(key for key in connection.get_keys() if key.asbytes() == wanted)

    return find
