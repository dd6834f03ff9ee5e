"""Runners in a worker of an engine: each a process of its own below it, which runs one job after the other.

The engine's worker may run several jobs at a time, in threads; a runner has standard streams, a working folder and
interrupts of its own. One that has cleared up after its task stays for a while, for the next job of the same owner.

All calls block, and may come from any thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import astuple
from typing import NamedTuple

from p2p_ipython.protocol.frames import Buffer, FrameError, encode
from p2p_ipython.protocol.task_frames import Cancel, Cleared, Drop, Output, Ready, Result, Warm
from p2p_ipython.sandbox.launch import LaunchOptions, prepare
from p2p_ipython.sandbox.mechanisms.accounts import spent_below
from p2p_ipython.sandbox.pipes import FrameInput, enlarge
from p2p_ipython.sandbox.scratch import sweep
from p2p_ipython.worker.engines.frames import MOST, Asked

IDLE = 30.0
"""Seconds for which a runner without a job stays."""

LOOK = 0.1
"""Seconds between two looks whether a job is still wanted."""

START_DEADLINE = 60.0
CLEAR_DEADLINE = 30.0
END_DEADLINE = 5.0

_AGAIN = 0.1  # as slots.py has them
_LAST_WORDS = 4096


class End(NamedTuple):
    """How a runner has ended, as a ``launch.Death`` says it."""

    kind: str
    code: int = 0
    detail: str = ""


class Outcome(NamedTuple):
    """What a runner has written about its task, and how it has ended if that is no result."""

    pieces: list[Buffer]
    death: End | None = None
    cpu: float | None = None


_REPLACED = End("signal", signal.SIGKILL)


class Inner:
    """One runner. Raises ``OSError`` where it can't be started."""

    def __init__(self, options: LaunchOptions) -> None:
        self._launch = prepare("process", options)
        self._errors, errors = os.pipe()
        os.set_blocking(self._errors, False)
        os.set_blocking(errors, False)
        try:
            self._process = subprocess.Popen(
                self._launch.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                cwd=self._launch.folder,
                env=self._launch.env,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._errors)
            self._launch.clean()
            raise
        finally:
            os.close(errors)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        enlarge(self._in.fileno())
        enlarge(self._out.fileno())
        self._frames = FrameInput()
        self._poll = select.poll()
        self._poll.register(self._out.fileno(), select.POLLIN | select.POLLHUP)
        self._ready = self._warm = False
        self._spent = 0.0
        self.usable = True

    def has_ended(self) -> bool:
        """Return whether it has ended while it had nothing to do."""
        return any(event & select.POLLHUP for _, event in self._poll.poll(0))

    def perform(self, asked: Asked, frames: Buffer, given_up: Callable[[], bool]) -> Outcome:
        """Have it run a job; ``given_up`` says whether the job is to stop. It has ended if ``usable`` is False then."""
        run = _Run(asked, self._warm)
        death: End | None = None
        try:
            self._write(frames)
            while not run.over and death is None:
                death = self._step(run, given_up)
            if run.clean:
                self._write(encode(Drop(asked.refs).header()))
                before, self._spent = self._spent, spent_below(self._process.pid)
                return Outcome(run.pieces, None, max(0.0, self._spent - before))
        except BrokenPipeError:  # it has ended by itself
            pass
        except (OSError, FrameError) as error:
            death = End("protocol", 0, f"The task's process broke the worker's protocol: {error}.")
        self.usable = False
        ended = self._end(death or (_REPLACED if run.over else None))
        return Outcome(run.pieces) if run.has_result else Outcome([], ended)

    def _step(self, run: _Run, given_up: Callable[[], bool]) -> End | None:
        """Read what there is, and look at the clock. Returns the death that the runner is to have."""
        if self._poll.poll(LOOK * 1000):
            count = os.readv(self._out.fileno(), self._frames.room())
            if not count:
                raise BrokenPipeError
            for header, body in self._frames.advance(count):
                match header["t"]:
                    case Ready.kind:
                        self._ready = True
                    case Warm.kind:
                        self._warm = True
                        self._spent = spent_below(self._process.pid)
                        run.begins()
                    case Cleared.kind:
                        run.over = True
                        run.clean = not header.get("why")
                    case kind:
                        if (death := run.take(kind, encode(header, len(body)), body)) is not None:
                            return death
        if not self._ready and run.lasted() > START_DEADLINE:
            return End("start", 0, f"The runner wasn't ready within {START_DEADLINE:g} s.")
        if given_up() and run.is_due():
            self._write(encode(Cancel(run.asked.id).header()))
        return run.late()

    def _write(self, data: Buffer) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._in.fileno(), rest) :]

    def _end(self, doom: End | None) -> End:
        """End it and all it has started; return what it has died of, unless that is known."""
        if doom is not None:
            self._launch.end(self._process)
        self._in.close()
        try:
            code = self._process.wait(END_DEADLINE)
        except subprocess.TimeoutExpired:
            self._launch.kill(self._process)
            code = self._process.wait()
        words = ""
        with contextlib.suppress(BlockingIOError):
            words = os.read(self._errors, 16 * _LAST_WORDS)[-_LAST_WORDS:].decode("utf-8", "replace").strip()
        death = doom or End(*astuple(self._launch.death(code, words)))
        if doom is None and not self._ready:
            death = End("start", code, f"The runner ended before it was ready (exit code {code}).\n{words}")
        self._out.close()
        os.close(self._errors)
        self._launch.clean()
        return death

    def close(self) -> None:
        """End it. Not while it performs."""
        self._end(_REPLACED)


class _Run:
    """What a runner says of one job, and the job's clock."""

    def __init__(self, asked: Asked, warm: bool) -> None:
        self.asked = asked
        self.pieces: list[Buffer] = []
        self.has_result = self.over = False
        self.clean = False
        self._size = self._printed = 0
        self._born = time.monotonic()
        self._begun = self._born if warm else self._born + START_DEADLINE
        self._stopped = self._next = self._pause = 0.0
        self._ended = 0.0

    def begins(self) -> None:
        """Note that the task begins now, and not before: its runner was not ready."""
        self._begun = time.monotonic()

    def lasted(self) -> float:
        return time.monotonic() - self._born

    def take(self, kind: str, head: bytes, body: Buffer) -> End | None:
        """Keep a frame, within the bounds of what an engine carries."""
        self.pieces.append(head)
        if len(body):
            self.pieces.append(body)
        self._size += len(head) + len(body)
        if kind == Output.kind:
            self._printed += len(body)
        if self._size > MOST:
            most = f"{MOST >> 20} MiB"
            return End(
                "exit",
                0,
                f"The task was ended: its outputs and its result are more than {most}, which is all"
                " that an engine carries.",
            )
        if self._printed > 2 * self.asked.output_limit:
            return End("protocol", 0, "The task's process broke the worker's protocol: more output than it may have.")
        if kind == Result.kind:
            self.has_result, self._ended = True, time.monotonic()
        return None

    def is_due(self) -> bool:
        """Return whether the runner is to be interrupted now: at first, and again and again, ever later."""
        now = time.monotonic()
        if not self._stopped:
            self._stopped, self._pause = now, _AGAIN
        elif now < self._next:
            return False
        else:
            self._pause *= 2
        self._next = now + self._pause
        return True

    def late(self) -> End | None:
        """Return how a task ends whose time is up."""
        now, asked = time.monotonic(), self.asked
        if self.has_result:
            words = f"The runner cleared up for more than {CLEAR_DEADLINE:g} s."
            return End("exit", 0, words) if now > self._ended + CLEAR_DEADLINE else None
        most = min(filter(None, (asked.seconds, asked.timeout)), default=0.0)
        if most and now > self._begun + most:
            if most == asked.seconds:
                return End("time", 0, f"it ran for {most:g} s, which is as long as its lender lets a task run")
            return End("timeout", 0, f"it ran for {most:g} s, which is its timeout")
        if self._stopped and now > self._stopped + asked.grace:
            words = f"The task was interrupted, went on for {asked.grace:g} s, and was killed."
            return End("cancelled", 0, words)
        return None


class _Kind(NamedTuple):
    """Whose jobs a runner runs, and its bounds."""

    owner: str
    memory: int
    output_limit: int


class Runners:
    """The runners of one process of an engine's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[_Kind, Inner, float]] = []
        self._timer: threading.Timer | None = None

    def perform(self, asked: Asked, frames: Buffer, given_up: Callable[[], bool], memory: int = 0) -> Outcome:
        """Run a job in a runner of its owner's, a new one if none is idle. ``memory``: bytes that its task may use."""
        kind = _Kind(asked.owner, memory, asked.output_limit)
        try:
            runner = self._taken(kind) or _started(kind)
        except OSError as error:
            return Outcome([], End("start", 0, f"The runner can't be started: {error}"))
        outcome = runner.perform(asked, frames, given_up)
        if runner.usable:
            self._give(kind, runner)
        return outcome

    def _taken(self, kind: _Kind) -> Inner | None:
        """Take an idle runner of this kind. Others' are ended: they would only take room from this task."""
        with self._lock:
            mine = [entry for entry in self._idle if entry[0] == kind]
            others = [entry[1] for entry in self._idle if entry[0] != kind]
            runner = mine.pop()[1] if mine else None
            self._idle = mine
        for other in others:
            other.close()
        if runner is not None and runner.has_ended():  # a thread that an earlier task left may have ended it
            runner.close()
            return None
        return runner

    def _give(self, kind: _Kind, runner: Inner) -> None:
        with self._lock:
            self._idle.append((kind, runner, time.monotonic()))
            if self._timer is None:
                self._start_timer()

    def _start_timer(self) -> None:
        self._timer = threading.Timer(IDLE, self._end_idle)
        self._timer.daemon = True
        self._timer.start()

    def _end_idle(self) -> None:
        with self._lock:
            self._timer = None
            due = time.monotonic() - IDLE / 2
            old = [runner for _, runner, since in self._idle if since <= due]
            self._idle = [entry for entry in self._idle if entry[2] > due]
            if self._idle:
                self._start_timer()
        for runner in old:
            runner.close()


def _started(kind: _Kind) -> Inner:
    sweep()
    return Inner(LaunchOptions(memory=kind.memory, disk=0, processes=0, output_limit=kind.output_limit))
