"""Asking for passphrases, on a real terminal and in a real notebook kernel."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from board_support import PATIENCE, Key, make_key

from p2p_ipython.board.client import passphrase
from p2p_ipython.loop import background

SCRIPT = """
import asyncio, sys
from pathlib import Path
from p2p_ipython.board.client.login import choose_login
from p2p_ipython.errors import NoKey

async def login():
    address, choice = await choose_login("127.0.0.1", Path(sys.argv[1]))
    return choice.fingerprint

async def main():
    try:
        print("KEY", *await asyncio.gather(login(), login(), login()), flush=True)
    except NoKey as error:
        print("NONE", str(error).replace(chr(10), " | "), flush=True)

asyncio.run(main())
"""
TAKE_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, script: str, folder: Path, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL + script, *arguments],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**environment, "HOME": str(folder), "P2P_DATA": str(folder / "data")},
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def until(self, wanted: str, times: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.shown.count(wanted) < times:
            assert time.monotonic() < deadline, self.shown
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.master, 4096).decode()
                except OSError:  # nobody has the terminal open any more
                    raise AssertionError(f"the program has ended: {self.shown!r}") from None

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path, "locked", passphrase="the secret")


@pytest.fixture
def terminal(tmp_path, key):  # type: ignore[no-untyped-def]
    started = Terminal(SCRIPT, tmp_path, str(key.path))
    yield started
    started.end()


def test_a_passphrase_is_asked_for_on_the_terminal_without_an_echo_and_once_for_all(terminal, key):
    terminal.until(f"Passphrase of {key.path}: ")
    assert not terminal.echoes
    terminal.type("the secret\n")
    terminal.until(key.fingerprint, times=3)
    assert terminal.shown.count("Passphrase of") == 1
    assert "the secret" not in terminal.shown
    assert terminal.echoes


def test_a_wrong_passphrase_may_be_typed_twice(terminal, key):
    for number, typed in enumerate(["wrong", "wrong again", "the secret"], 1):
        terminal.until("Passphrase of", times=number)
        terminal.type(f"{typed}\n")
    terminal.until(key.fingerprint, times=3)
    assert terminal.shown.count("That is not it. ") == 2


def test_an_empty_answer_means_no(terminal, key):
    terminal.until("Passphrase of")
    terminal.type("\n")
    # The others who want the key may have begun to ask for themselves, amid these words, or not: they are withdrawn.
    terminal.until("NONE")
    terminal.until("no passphrase was given")
    terminal.until("ssh-add")


def test_an_interrupt_ends_the_question_and_the_terminal_echoes_again(terminal):
    terminal.until("Passphrase of")
    terminal.type("\x03")
    terminal.until("KeyboardInterrupt")
    terminal.process.wait(PATIENCE)
    assert terminal.echoes


def test_nobody_is_asked_without_a_terminal(tmp_path, key):
    environment = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(key.path)],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=True, start_new_session=True,
        env={**environment, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.decode().startswith(f"NONE the key {key.path} has a passphrase | Give it to the agent: `ssh-add")


def test_a_notebook_asks_in_the_notebook_and_one_that_can_not_says_ssh_add(tmp_path, key, monkeypatch):
    manager = pytest.importorskip("jupyter_client.manager")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    cell = (
        "from p2p_ipython.board.client.login import choose_login\nfrom p2p_ipython.loop import background\n"
        f"from pathlib import Path\nprint(background().run(choose_login('127.0.0.1', Path({str(key.path)!r})))[1])"
    )
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    questions, outputs = [], []

    def answer(message):  # type: ignore[no-untyped-def]
        questions.append(message["content"])
        client.input("the secret")

    def show(message):  # type: ignore[no-untyped-def]
        outputs.append(str(message["content"]))

    def run(**options):  # type: ignore[no-untyped-def]
        return client.execute_interactive(cell, timeout=PATIENCE, output_hook=show, **options)["content"]["status"]

    try:
        assert run(allow_stdin=False) == "error"
        assert "ssh-add" in "".join(outputs)
        assert run(allow_stdin=True, stdin_hook=answer) == "ok", outputs
        assert run(allow_stdin=False) == "ok", outputs
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert questions == [{"prompt": f"Passphrase of {key.path}: ", "password": True}]
    assert sum(key.fingerprint in output for output in outputs) == 2
    assert "the secret" not in "".join(outputs)


def test_what_a_panel_asks_for_asks_nobody_and_keeps_nobody_else_from_being_asked(monkeypatch):
    monkeypatch.setattr(passphrase, "_kernel", lambda: None)
    monkeypatch.setattr(passphrase, "_has_terminal", lambda: True)
    begun, enough = threading.Event(), threading.Event()
    prompts = []

    async def on_the_loop():
        prompts.append(passphrase.user_prompt(enough))

    def panel():
        with passphrase.unattended():
            background().run(on_the_loop(), PATIENCE)
            begun.set()
            enough.wait(PATIENCE)

    thread = threading.Thread(target=panel)
    thread.start()
    assert begun.wait(PATIENCE)
    background().run(on_the_loop(), PATIENCE)  # a magic's, meanwhile
    enough.set()
    thread.join()
    assert prompts[0] is None
    assert prompts[1] is not None
