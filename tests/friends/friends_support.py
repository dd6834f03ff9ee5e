"""People with homes, keys and terminals, and what runs for them: boards, hosts, workers, notebooks.

Everything is a process of its own, as it is for people; what they print can be waited for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
import paramiko
import psutil
from cli_support import _ON_TERMINAL, Home

from p2p_ipython import loop as loops
from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.board.client.keys import KeyChoice
from p2p_ipython.config import Settings
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.members import owner
from p2p_ipython.members.access import Access
from p2p_ipython.members.membership import Standing
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.identity import ClusterSecret
from p2p_ipython.protocol.messages import Terms
from p2p_ipython.protocol.roster import Roster
from p2p_ipython.protocol.task_frames import Output, Result, Task
from p2p_ipython.rehearsal.slot import MemorySlot
from p2p_ipython.worker.agent import Agent
from p2p_ipython.worker.cache import Source
from p2p_ipython.worker.slot_base import SlotListener, TaskSlot

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds that anything may take before a test fails."""

WIDE = "5000"
"""Columns of terminals here: no message is broken into lines."""


def eventually(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for something that another process does, and that nobody is told of."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} never came true"
        time.sleep(0.02)


@contextmanager
def on_the_loop(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Something asynchronous that runs on the background loop while the block, which may wait, goes on."""
    loop = loops.background()

    async def enter() -> T:
        loops.adopt()
        return await manager.__aenter__()

    value = loop.run(enter(), DEADLINE)
    try:
        yield value
    finally:
        loop.run(manager.__aexit__(None, None, None), DEADLINE)


def soon(call: Callable[[], object]) -> None:
    """Call something on the background loop, and wait for it."""

    async def called() -> None:
        call()

    loops.background().run(called(), DEADLINE)


class Program:
    """A program on a terminal of its own, or with nobody in front of it; all that it prints is read at once."""

    def __init__(self, *command: str, environment: Mapping[str, str], tty: bool, stdin: bool = False) -> None:
        """``tty``: on a terminal. Otherwise it has no terminal at all, and an empty input unless ``stdin``."""
        self.command = command[1:]
        self.text = ""
        self._at = 0
        self._news = threading.Condition()
        self._ended = False
        if tty:
            import pty

            self._out, slave = pty.openpty()
            self._in = self._out
            inside = {"stdin": slave, "stdout": slave, "stderr": slave}
            command = (sys.executable, "-c", _ON_TERMINAL, *command)
        else:
            self._out, slave = os.pipe()
            reading, self._in = os.pipe()
            inside = {"stdin": reading, "stdout": slave, "stderr": slave}
        try:
            self.process = subprocess.Popen(
                command, env={**environment, "TERM": "dumb", "COLUMNS": WIDE}, start_new_session=not tty, **inside
            )
        finally:
            os.close(slave)
        if not tty:
            os.close(reading)
            if not stdin:
                os.close(self._in)
        self._has_input = tty or stdin
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def expect(self, words: str, *, anywhere: bool = False) -> str:
        """Wait until ``words`` are shown, after those of the last call; return what was shown up to there."""
        with self._news:
            start = 0 if anywhere else self._at
            self._news.wait_for(lambda: words in self.text[start:] or self._ended, DEADLINE)
            at = self.text.find(words, start)
            assert at >= 0, f"{words!r} was not shown, but:\n{self.text[start:]}"
            if not anywhere:
                self._at = at + len(words)
            return self.text[start:at]

    def line(self, words: str) -> str:
        """Wait for ``words``; return what follows them in their line."""
        self.expect(words)
        return self.expect("\n").strip()

    def type(self, text: str) -> None:
        """Type something; "\\n" is the return key, "\\x03" Ctrl-C, "\\x04" Ctrl-D."""
        os.write(self._in, text.encode())

    def wait(self) -> int:
        """Wait for the program's end, and for all that it prints; return its exit status."""
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal that it must heed; return the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def close(self) -> None:
        """End it, whatever it takes."""
        if self._has_input and self._in != self._out:
            os.close(self._in)
        if self.process.poll() is None:
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        os.close(self._out)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._out, 65536)
            except OSError:  # how Linux says that nobody has the terminal open any more
                data = b""
            with self._news:
                self.text += data.decode("utf-8", "replace").replace("\r", "")
                self._ended = not data
                self._news.notify_all()
            if not data:
                return


_LOGS = r"""
import logging
logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logging.getLogger("p2p_ipython").setLevel(logging.DEBUG)
"""

_NOTEBOOK = r"""
import json, sys, traceback
space = {"__name__": "__main__"}
for line in sys.stdin:
    try:
        exec(json.loads(line), space)
    except BaseException as error:
        traceback.print_exc()
        said = f"\x02failed {json.dumps(f'{type(error).__name__}: {error}')}\n"
    else:
        said = f"\x02done {json.dumps(repr(space.pop('answer', None)))}\n"
    sys.stdout.write(said)  # in one piece: another thread may log meanwhile
    sys.stdout.flush()
"""


class Notebook:
    """A Python process of somebody's that runs what it is told, a piece after the other."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def run(self, code: str) -> str:
        """Run a piece of code; what it calls ``answer`` is returned, as its repr."""
        kind, text = self._run(code)
        assert kind == "done", text
        return text

    def fails(self, code: str) -> str:
        """Run a piece of code that raises; return the class and the text of what it raises."""
        kind, text = self._run(code)
        assert kind == "failed", text
        return text

    def _run(self, code: str) -> tuple[str, str]:
        self.program.type(json.dumps(code) + "\n")
        self.program.expect("\x02")
        return self.program.expect(" "), json.loads(self.program.expect("\n"))


class Person(Home):
    """Somebody with a home folder, an SSH key in it, and programs that run for them."""

    def __init__(self, folder: Path, name: str, kind: str = "ssh-ed25519", bits: int = 3072) -> None:
        super().__init__(folder / name)
        self.name = name
        if kind != "ssh-ed25519":
            self.key_file.unlink()
            self.key_file = self.key_file.with_name("id_rsa")
            asyncssh.generate_private_key(kind, key_size=bits).write_private_key(str(self.key_file))
            self.key_file.chmod(0o600)
        self.environment |= {"COLUMNS": WIDE, "PYTHONUNBUFFERED": "1"}
        self._programs: list[Program] = []

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs that run or have run for this person."""
        return tuple(self._programs)

    @property
    def key(self) -> KeyChoice:
        return KeyChoice(paramiko.PKey.from_path(self.key_file), str(self.key_file))

    @property
    def fingerprint(self) -> str:
        return self.key.fingerprint

    @property
    def profiles(self) -> Profiles:
        return Profiles(Path(self.environment["P2P_DATA"]) / "clusters")

    def p2p(self, *arguments: str, tty: bool = False, **environment: str) -> Program:
        """Start ``p2p …``."""
        return self._start(sys.executable, "-m", "p2p_ipython.cli", *arguments, tty=tty, environment=environment)

    def says(self, *arguments: str, status: int = 0) -> str:
        """Run ``p2p …`` to its end, with nobody to answer questions; return all that it says."""
        program = self.p2p(*arguments)
        got = program.wait()
        assert got == status, f"status {got}:\n{program.text}"
        assert "Traceback" not in program.text
        return program.text

    def python(self, code: str) -> Program:
        """Start Python with some code, and nobody in front of it."""
        return self._start(sys.executable, "-c", code, tty=False, environment={})

    def notebook(self, code: str = "", *, logs: bool = True, **environment: str) -> Notebook:
        """A notebook, in which ``code`` has run; ``logs``: it prints what is logged."""
        program = (_LOGS if logs else "") + _NOTEBOOK
        made = Notebook(
            self._start(sys.executable, "-u", "-c", program, tty=False, stdin=True, environment=environment)
        )
        if code:
            made.run(code)
        return made

    def worker(self, cluster: str, *arguments: str, **environment: str) -> Program:
        """A worker that lends to a cluster of friends, and says so."""
        worker = self.p2p("-v", "worker", "--cluster", cluster, "--sandbox", "process", *arguments, **environment)
        worker.expect("Ctrl-C ends it")
        return worker

    def end(self, *, aloud: bool = True) -> None:
        """Wait for the end of all programs of this person's, which were told to end; ``aloud``: print what it said."""
        while self._programs:
            program = self._programs.pop()
            program.close()
            if not aloud:
                continue
            # pytest shows it for a test that has failed.
            print(f"--- {self.name}: {' '.join(program.command).partition('logging')[0]}\n{program.text}")

    def _start(self, *command: str, tty: bool, environment: Mapping[str, str], stdin: bool = False) -> Program:
        made = Program(*command, environment={**self.environment, **environment}, tty=tty, stdin=stdin)
        self._programs.append(made)
        return made


class Village:
    """People, and a board where they meet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.people: dict[str, Person] = {}
        self.board: dict[str, Any] = {}

    def person(self, name: str, kind: str = "ssh-ed25519") -> Person:
        """The person of a name; made, with a home and a key, when first asked for."""
        if name not in self.people:
            self.people[name] = Person(self._folder, name, kind)
        return self.people[name]

    def open_board(self) -> None:
        """Start a board that anybody may come to, as a process."""
        program = self.person("keeper").p2p("board", "--port", "0", "--json")
        program.expect("{")
        self.board = json.loads("{" + program.expect("\n"))

    @property
    def where(self) -> str:
        """The board's address."""
        return f"{self.board['ssh']['host']}:{self.board['ssh']['port']}"

    @property
    def way(self) -> tuple[str, ...]:
        """The options that lead to the board."""
        return ("--board", self.where, "--accept-host-key", self.board["fingerprint"])

    def found(self, *names: str, title: str = "alice/friends", mailbox: str = "", relay: str = "") -> Profile:
        """A cluster of friends, as if all had joined it: profiles in their homes. Returns the owner's."""
        host = self.person(title.split("/", maxsplit=1)[0])
        profile = owner.found(
            title,
            host.key,
            board=self.where,
            host_key=self.board["host_key"],
            mailbox=mailbox,
            relay=relay,
            until=int(time.time() + 3600),
        )
        for name in names:
            profile = owner.admit(profile, host.key, name, self.person(name).fingerprint)
        host.profiles.save(profile)
        for name in names:
            self.give(profile, self.person(name))
        return profile

    def give(self, profile: Profile, person: Person) -> None:
        """Give somebody what the owner's profile knows."""
        from dataclasses import replace

        person.profiles.save(replace(profile, signer=person.fingerprint, hosting=None))

    def end(self, *, aloud: bool = True) -> None:
        """End all that runs; ``aloud``: print what it said."""
        for person in self.people.values():
            for program in person.programs:
                program.process.terminate()
        for person in reversed(self.people.values()):
            person.end(aloud=aloud)


@contextmanager
def village(folder: Path, *, board: bool = True, aloud: bool = True) -> Iterator[Village]:
    """A village whose programs all end with the block; ``aloud``: what they said is printed then."""
    made = Village(folder)
    try:
        if board:
            made.open_board()
        yield made
    finally:
        made.end(aloud=aloud)


def code_of(program: Program) -> str:
    """The code, and what goes with it, that ``p2p invite`` prints for the guest."""
    return program.line("the guest types:  p2p join ")


def pid_in(path: Path) -> int:
    """The process id that a task has written to a file; waits for it."""
    eventually(lambda: path.exists() and path.read_text().endswith("\n"), f"the task that writes {path.name}")
    return int(path.read_text())


def runs(pid: int) -> bool:
    """Whether a process is there, and not only waiting to be buried."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# -- in this process: workers that may misbehave --


def access_of(profile: Profile, person: Person) -> Access:
    """The access of somebody, member or not, to the topic that ``profile`` has."""
    key = person.key
    standing = Standing(
        ClusterSecret(profile.cluster, profile.topic, profile.key),
        key.fingerprint,
        person.name,
        shared=True,
        roster=Roster.parse(profile.roster, profile.cluster),
        title=profile.title,
    )
    settings = Settings(presence=1.0)
    return Access(BoardAddress.parse(profile.board), key, standing, settings, profile.host_key, remember=False)


@asynccontextmanager
async def lending(
    profile: Profile, person: Person, make_slot: Callable[[Agent], TaskSlot] = MemorySlot, *, slots: int = 1
) -> AsyncIterator[Agent]:
    """A worker of somebody's, member or not, on the topic that ``profile`` has. It runs tasks as ``make_slot`` says."""
    access = access_of(profile, person)
    settings = access.settings
    membership = access.membership(access.session("worker"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    agent = Agent(
        settings=settings,
        name=person.name,
        terms=Terms(slots=slots, free=0, python=version, platform="here", cores=1, memory=0, until=0),
        membership=membership,
        linker=TLSLinker("worker", settings=settings, listen_host="127.0.0.1"),
        make_slot=make_slot,
    )
    try:
        await agent.start_slots()
        await membership.join()
        agent.begin()
        yield agent
    finally:
        await agent.close()


class CraftedSlot(MemorySlot):
    """A slot that runs nothing, and answers what it likes: a result (header and body), after some output."""

    def __init__(
        self,
        listener: SlotListener,
        result: Mapping[str, Any],
        body: bytes = b"",
        output: Sequence[tuple[Mapping[str, Any], bytes]] = (),
    ) -> None:
        super().__init__(listener)
        self.ran: list[str] = []
        self._answer, self._body, self._output = dict(result), body, output

    def run(self, task: Task, body: Buffer, buffers: Sequence[Source] = (), *, owner: str = "") -> None:
        """See ``TaskSlot``."""
        self.ran.append(task.id)
        head = {"id": task.id, "attempt": task.attempt}
        for message, text in self._output:
            self._listener.on_output(self, Output.read({**head, **message}), text)
        self._listener.on_result(self, Result.read({**head, "seconds": 0.0, **self._answer}), self._body)


def waits(notebook: Notebook, words: str, task: str = "f") -> None:
    """A task comes to wait, or to run, and says so in these words."""
    eventually(lambda: words in notebook.run(f"answer = {task}.state_text"), words)
