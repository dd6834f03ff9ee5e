"""One life of a runner, from its start to the end of the last process that it has started.

POSIX only. Belongs to one event loop, and doesn't block it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from typing import IO

from p2p_ipython.protocol.frames import Buffer, Header
from p2p_ipython.sandbox.launch import Death, Launch
from p2p_ipython.sandbox.mechanisms.accounts import spent_below
from p2p_ipython.worker.feeding import Holdings
from p2p_ipython.worker.pipe import PipeReader, PipeWriter

log = logging.getLogger(__name__)

_END_DEADLINE = 5.0
_LAST_STEPS = 1.0
_LAST_WORDS = 4096
_SAID = 64 << 10  # what a pipe holds


class RunnerLife:
    """One life of a runner, from its start to the end of the last process that it has started."""

    def __init__(
        self,
        launch: Launch,
        on_frame: Callable[[RunnerLife, Header, Buffer], None],
        *,
        room: int,
        on_dropped: Callable[[list[str]], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._launch = launch
        # Nobody reads it before a death, and what doesn't fit in then is lost: a task can fill neither it nor a disk.
        self._errors, errors = os.pipe()
        os.set_blocking(self._errors, False)
        os.set_blocking(errors, False)
        try:
            self.process = subprocess.Popen(
                launch.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                cwd=launch.folder,
                env=launch.env,
                close_fds=True,
                pass_fds=launch.descriptors,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._errors)
            launch.clean()
            raise
        finally:
            os.close(errors)
        self.born = loop.time()
        self.pid: int | None = None  # once it is ready
        self.over: asyncio.Future[None] = loop.create_future()
        self.replaced = False
        self.warm = False  # it begins a task as soon as it has come
        self._doom: Death | None = None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.writer = PipeWriter(_detached(self.process.stdin))
        self.holdings = Holdings(self.writer, room, on_dropped)
        frames = _detached(self.process.stdout)
        self.reader = PipeReader(frames, partial(on_frame, self), self._on_end)
        self._command_end = _end_of(self.process.pid)
        if self._command_end >= 0:
            loop.add_reader(self._command_end, self._on_command_end)
        self._hang_up = select.poll()
        self._hang_up.register(frames, select.POLLIN | select.POLLHUP)  # macOS looks at nothing without an event

    def stop(self, doom: Death | None) -> None:
        """Have the runner end now, unless it is ending already; ``doom`` says why, None that it is replaced."""
        if not self.over.done():
            self._doom = doom
            self.replaced = doom is None
            self.reader.close()
            self.over.set_result(None)

    def is_gone(self) -> bool:
        """Whether it has ended, also when its end has not been read yet: what is written to it now is not read."""
        if not self.over.done() and any(event & select.POLLHUP for _, event in self._hang_up.poll(0)):
            self.reader.close()
            self._on_end("")
        return self.over.done()

    def usage(self, *, shared_once: bool = False) -> int:
        """Return the bytes that the runner and all it has started occupy now; see ``Launch.usage``."""
        return self._launch.usage(self.process, shared_once=shared_once)

    def spent(self) -> float:
        """Return the seconds of processors that its processes have spent so far. Takes half a millisecond."""
        return spent_below(self.process.pid)

    def excess(self) -> Death | None:
        """Return the end of a task that takes too much; see ``Launch.excess``."""
        return self._launch.excess(self.process)

    async def ended(self) -> Death:
        """End it if it hasn't ended, wait for the end of all that it started, clear up, and say how it went."""
        self.reader.close()
        death = Death("signal", signal.SIGKILL, "The task's process was killed.")
        try:
            await self._end()
            death = await asyncio.to_thread(self._death)
            await asyncio.to_thread(self._launch.clean)
        except Exception:  # a failing look at the system's processes, say; the slot needs its next runner all the same
            log.exception("could not clear up after runner %s", self.pid)
            with contextlib.suppress(OSError):
                self.process.kill()
        finally:
            self.writer.close()
            os.close(self._errors)
            self._forget_command()
        return self._doom or death

    async def _end(self) -> None:
        # A slot that closes cancels ``over``.
        by_itself = self.over.done() and not self.over.cancelled() and self._doom is None and not self.replaced
        # Its pipe ends before the process does; how that ends is its task's last word.
        if not (by_itself and await self._has_ended(_LAST_STEPS)):
            self._launch.end(self.process)
        self.writer.close()
        if not await self._has_ended(_END_DEADLINE):
            log.warning("runner %s does not end; killing it", self.pid)
            await asyncio.to_thread(self._launch.kill, self.process)
            await asyncio.to_thread(self.process.wait)

    def _last_words(self) -> str:
        with contextlib.suppress(BlockingIOError):
            return os.read(self._errors, _SAID)[-_LAST_WORDS:].decode("utf-8", "replace").strip()
        return ""

    async def _has_ended(self, within: float) -> bool:
        """Wait for the process's end, for at most ``within`` seconds; it is asked for because macOS has no event."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + within, 0.001
        while self.process.poll() is None:
            if loop.time() > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(0.05, pause * 2)
        return True

    def _on_end(self, reason: str) -> None:
        self.stop(Death("protocol", 0, f"The task wrote to its worker's own channel ({reason}).") if reason else None)
        self.replaced = False

    def _on_command_end(self) -> None:
        """Note that the command has ended; a runner behind a wall may live on, and hold the pipe, if it was killed."""
        self._forget_command()
        asyncio.get_running_loop().call_later(_LAST_STEPS, lambda: None if self.over.done() else self._on_end(""))

    def _forget_command(self) -> None:
        if self._command_end >= 0:
            asyncio.get_running_loop().remove_reader(self._command_end)
            os.close(self._command_end)
            self._command_end = -1

    def _death(self) -> Death:
        code, words = self.process.wait(), self._last_words()
        if self.pid is None:
            place = f"\n{words}" if words else ""
            return Death("start", code, f"The runner ended before it was ready (exit code {code}).{place}")
        return self._launch.death(code, words)


def _end_of(pid: int) -> int:
    """Return a descriptor that can be read when a child process has ended; -1 where there are none (macOS)."""
    with contextlib.suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return -1


def _detached(pipe: IO[bytes]) -> int:
    """Return the descriptor of a pipe's end, ours from now on."""
    fd = os.dup(pipe.fileno())
    pipe.close()
    return fd
