"""What the tests of the command line share: a home folder to run ``p2p`` in, and a terminal to run it on."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DEADLINE = 60
"""Seconds that anything may take before a test fails."""


class Home:
    """A home folder with an SSH key, and the p2p command run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key_file = folder / ".ssh" / "id_ed25519"
        self.key_file.parent.mkdir(mode=0o700, parents=True)
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        self.key_file.write_bytes(private)
        self.key_file.chmod(0o600)
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self.public_line = public.decode()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("P2P_") and k != "SSH_AUTH_SOCK"},
            "HOME": str(folder),
            "P2P_DATA": str(folder / "data"),
            "COLUMNS": "120",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "p2p_ipython.cli", *arguments],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "p2p_ipython.cli", *arguments],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A command that runs until the block ends."""
        with self.start(*arguments) as process:
            try:
                yield process
            finally:
                process.kill()
                process.wait(DEADLINE)


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal; return the exit status and what was printed since."""
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def address(board: dict[str, object]) -> str:
    ssh = board["ssh"]
    assert isinstance(ssh, dict)
    return f"{ssh['host']}:{ssh['port']}"


_ON_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A program on a terminal of its own, and the person in front of it."""

    def __init__(self, *command: str, environment: Mapping[str, str]) -> None:
        import pty  # there is none on Windows

        self._master, slave = pty.openpty()
        try:
            # The terminal is made the program's own by another program: nothing of ours runs between fork and exec.
            self.process = subprocess.Popen(
                [sys.executable, "-c", _ON_TERMINAL, *command],
                env={**environment, "TERM": "dumb"},
                stdin=slave,
                stdout=slave,
                stderr=slave,
            )
        finally:
            os.close(slave)
        self.text = ""
        self._read = 0

    def expect(self, words: str) -> str:
        """Wait until ``words`` are shown, after those of the last call; return what was shown up to there."""
        deadline = time.monotonic() + DEADLINE
        while (at := self.text.find(words, self._read)) < 0:
            assert self._more(deadline), f"{words!r} was not shown, but:\n{self.text[self._read :]}"
        shown, self._read = self.text[self._read : at], at + len(words)
        return shown

    def type(self, text: str) -> None:
        """Type something; "\\n" is the return key, "\\x03" Ctrl-C, "\\x04" Ctrl-D."""
        os.write(self._master, text.encode())

    def wait(self) -> int:
        """Wait for the program's end; return its exit status."""
        deadline = time.monotonic() + DEADLINE
        while self._more(deadline):
            pass
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        """End the program, and whatever runs on its terminal."""
        os.close(self._master)
        self.process.kill()
        self.process.wait(DEADLINE)

    def _more(self, deadline: float) -> bool:
        """Read what is shown next; False at the end of it, or of time."""
        if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._master, 4096)
        except OSError:  # how Linux says that nobody has the terminal open any more
            return False
        self.text += re.sub("\r", "", data.decode("utf-8", "replace"))
        return bool(data)


@contextmanager
def terminal(home: Home, *arguments: str, **environment: str) -> Iterator[Terminal]:
    """``p2p`` with ``arguments`` on a terminal, until the block ends."""
    command = [sys.executable, "-m", "p2p_ipython.cli", *arguments]
    made = Terminal(*command, environment={**home.environment, **environment})
    try:
        yield made
    finally:
        made.close()


@contextmanager
def agent(folder: Path) -> Iterator[str]:
    """OpenSSH's agent; its socket."""
    path = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it says where it is once it listens
        yield str(path)
    finally:
        process.kill()
        process.communicate()
