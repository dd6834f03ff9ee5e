"""A slot: one place where tasks run, one at a time; it keeps a runner alive there and speaks with it.

::

    agent ── run, cancel ──► Slot ── frames ──► runner (a child process)
      ▲                       │                    │
      └── on_output, on_chunk, on_result, on_died, on_ready ◄──┘

The slot starts its runner again whenever it dies, before it serves another owner, and when a runner could not be put
back as it was: what one owner's tasks did to the process must not meet another's. It knows which large buffers its
runner holds and sends the others. It promises that nothing of a runner, process or folder, outlives ``close``.

A runner may end while it has nothing to do: a thread that an earlier task left can end it at any time. A task that
it has not been sent, or that was given to the slot when it had ended already, is the next runner's.

POSIX only. All methods and callbacks belong to one event loop; none of them blocks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import subprocess
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Concatenate, ParamSpec

import psutil

from p2p_ipython.config import Settings
from p2p_ipython.protocol.frames import MAX_BODY, Buffer, FrameError, Header, encode
from p2p_ipython.sandbox.launch import Launch, LaunchOptions, prepare
from p2p_ipython.sandbox.scratch import sweep
from p2p_ipython.worker.cache import Source, SourceFailed
from p2p_ipython.worker.pipe import PipeReader, PipeWriter
from p2p_ipython.worker.slot_base import Death, SlotListener, SlotState
from p2p_ipython.worker.task_frames import TaskFrames

log = logging.getLogger(__name__)

P = ParamSpec("P")

START_DEADLINE = 60.0
"""How long a runner may take to say that it is ready, seconds."""

_END_DEADLINE = 5.0
_LAST_STEPS = 1.0
_BACKOFF_MAX = 30.0
_QUICK = 1.0
"""A runner that dies sooner than this after its start, seconds, is started again later and later."""

_SPARED = 2
"""Runners that may end before a task could be sent to them. With the next one the task is given up: its buffers
may be what they don't survive."""

_HELD_MAX = 4096
_LAST_WORDS = 4096


@dataclass
class _Job:
    """The task that the slot has been given, and what is under way for it."""

    task_id: str
    head: bytes
    body: Buffer
    buffers: Sequence[Source]
    frames: TaskFrames
    sent: bool = False
    spared: int = 0
    feeding: asyncio.Task[None] | None = None
    killer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        if self.feeding is not None:
            self.feeding.cancel()
        if self.killer is not None:
            self.killer.cancel()


class _Runner:
    """One life of a runner, from its start to the end of the last process that it has started."""

    def __init__(self, launch: Launch, on_frame: Callable[[_Runner, Header, Buffer], None]) -> None:
        loop = asyncio.get_running_loop()
        self._launch = launch
        # A file rather than a pipe: nobody has to read it, and it is only read after a death.
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by ended()
        self._oom_kills = _oom_kills()
        try:
            self.process = subprocess.Popen(
                launch.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                cwd=launch.folder,
                env=launch.env,
                close_fds=True,
                start_new_session=True,
            )
        except BaseException:
            self._errors.close()
            launch.clean()
            raise
        self.born = loop.time()
        self.pid: int | None = None  # once it is ready
        self.held: OrderedDict[str, int] = OrderedDict()  # sizes of the buffers in it, least recently used first
        self.over: asyncio.Future[None] = loop.create_future()
        self.replaced = False
        self.spent = False  # the result that is under way is its last
        self._doom: Death | None = None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.writer = PipeWriter(_detached(self.process.stdin))
        frames = _detached(self.process.stdout)
        self.reader = PipeReader(frames, lambda header, body: on_frame(self, header, body), self._on_end)
        self._hang_up = select.poll()
        self._hang_up.register(frames, select.POLLIN | select.POLLHUP)  # macOS looks at nothing without an event

    def stop(self, doom: Death | None) -> None:
        """It is to end now; ``doom`` says why, None that it is replaced. Nothing happens when it is ending already."""
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

    async def ended(self) -> Death:
        """End it if it hasn't ended, wait for the end of all that it started, clear up, and say how it went."""
        self.reader.close()
        try:
            await self._clear_up()
        except Exception:  # a failing look at the system's processes, say; the slot needs its next runner all the same
            log.exception("could not clear up after runner %s", self.pid)
            with contextlib.suppress(OSError):
                self.process.kill()
        finally:
            self.writer.close()
        words, code = self._last_words(), self.process.poll()
        return self._doom or self._death(-signal.SIGKILL if code is None else code, words)

    async def _clear_up(self) -> None:
        by_itself = self.over.done() and self._doom is None and not self.replaced
        # Its pipe ends before the process does; how that ends is its task's last word.
        if not (by_itself and await self._has_ended(_LAST_STEPS)):
            self._launch.end(self.process)
        self.writer.close()
        if not await self._has_ended(_END_DEADLINE):
            log.warning("runner %s does not end; killing it", self.pid)
            await asyncio.to_thread(self._launch.kill, self.process)
            await asyncio.to_thread(self.process.wait)
        await asyncio.to_thread(self._launch.clean)

    def _last_words(self) -> str:
        with self._errors, contextlib.suppress(OSError):
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - _LAST_WORDS))
            return self._errors.read().decode("utf-8", "replace").strip()
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

    def _death(self, code: int, words: str) -> Death:
        place = f"\n{words}" if words else ""
        if self.pid is None:
            return Death("start", code, f"The runner ended before it was ready (exit code {code}).{place}")
        if code >= 0:
            return Death("exit", code, f"The task ended its Python process with exit code {code}.{place}")
        if -code == signal.SIGKILL and _oom_kills() > self._oom_kills:
            return Death("memory", -code, "The system killed the task's process: the machine was out of memory.")
        name = signal.strsignal(-code) or "an unknown signal"
        return Death("signal", -code, f"The task's process was ended by signal {-code} ({name}).{place}")


class Slot:
    """See the module. ``mechanism`` is a name in sandbox/launch.py."""

    def __init__(
        self, options: LaunchOptions, listener: SlotListener, settings: Settings, *, mechanism: str = "process"
    ) -> None:
        self._options = options
        self._listener = listener
        self._settings = settings
        self._mechanism = mechanism
        self._runner: _Runner | None = None
        self._owner: str | None = None
        self._job: _Job | None = None
        self._paused = False
        self._failures = 0
        self._life: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Start the runner; returns when it is ready, after ``on_ready``.

        First removes the scratch folders of agents that were killed.

        Raises ``ConfigError`` for an unknown mechanism, ``OSError`` or ``RuntimeError`` if it can't be started.
        """
        assert self._life is None, "a slot is started once"
        await asyncio.to_thread(sweep, self._options.scratch)
        self._first = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(), name="p2p-slot")
        try:
            await asyncio.shield(self._first)
        except BaseException:
            await self.close()
            raise

    @property
    def state(self) -> SlotState:
        if self._closed:
            return SlotState.CLOSED
        if self._job is not None:
            return SlotState.BUSY
        return SlotState.IDLE if self._is_ready() else SlotState.STARTING

    @property
    def busy(self) -> bool:
        return self._job is not None

    @property
    def task_id(self) -> str | None:
        """The task that has been given to the slot and isn't over."""
        return self._job.task_id if self._job is not None else None

    @property
    def pid(self) -> int | None:
        """The runner's process id, None while there is none that is ready."""
        return self._runner.pid if self._runner is not None else None

    def memory(self) -> int:
        """Bytes that the runner and all it has started occupy now; 0 while there is none. Takes milliseconds."""
        total = 0
        if self._runner is not None:
            with contextlib.suppress(psutil.Error):
                for process in psutil.Process(self._runner.process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        total += process.memory_info().rss
        return total

    def run(self, header: Header, body: Buffer, buffers: Sequence[Source] = (), *, owner: str = "") -> None:
        """Have a task executed; ``header`` and ``body`` are the runner's ``task`` frame. Returns at once.

        ``buffers`` are those that ``header["segments"]`` refers to; they may still be arriving, and must stay
        until the task is over. A task of another ``owner`` than the last one waits for a new runner. The end
        is told by ``on_result`` or ``on_died``.

        Raises ``RuntimeError`` when the slot is busy or closed, ``FrameError`` for a frame over the bounds.
        """
        if self._job is not None or self._closed:
            raise RuntimeError(f"a task was given to a slot that is {self.state.value}")
        job = _Job(header["id"], encode(header, len(body)), body, buffers, TaskFrames(header["id"]))
        self._job = job
        if self._owner not in (None, owner) and self._runner is not None:
            self._runner.stop(None)
        self._owner = owner
        if self._is_ready():
            self._begin(job)

    def cancel(self, task_id: str) -> None:
        """Interrupt a task, and kill its runner if that has no effect within ``settings.cancel_grace``.

        The end is told by ``on_result`` (of kind "interrupted", unless the task was over just then) or by
        ``on_died``. Nothing happens when the task isn't here (any more).
        """
        job, runner = self._job, self._runner
        if job is None or job.task_id != task_id or job.killer is not None:
            return
        if not job.sent or runner is None:
            self._give_up(job, "interrupted", "KeyboardInterrupt", "The task was cancelled before it had started.")
            return
        runner.writer.write({"t": "cancel", "id": task_id})
        grace = self._settings.cancel_grace
        doom = Death("cancelled", 0, f"The task was interrupted, went on for {grace:g} s, and was killed.")
        job.killer = asyncio.get_running_loop().call_later(grace, runner.stop, doom)

    def pause(self) -> None:
        """Take nothing from the runner for now; its task waits when it prints more than a pipe holds."""
        self._paused = True
        if self._runner is not None:
            self._runner.reader.pause()

    def resume(self) -> None:
        """Take from the runner again."""
        self._paused = False
        if self._runner is not None:
            self._runner.reader.resume()

    async def close(self) -> None:
        """End the runner and all it has started; nothing is told any more. Idempotent."""
        job, self._job = self._job, None
        if job is not None:
            job.stop()
        if self._life is not None:
            if not self._closed:
                self._closed = True
                self._life.cancel()
            await asyncio.wait([self._life])
        self._closed = True

    def holds(self, ref: str) -> bool:
        """Whether the slot's runner has all bytes of a large buffer; ``on_dropped`` tells when it hasn't any more."""
        return self._runner is not None and ref in self._runner.held and not self._runner.over.done()

    def _is_ready(self) -> bool:
        return self._runner is not None and self._runner.pid is not None and not self._runner.over.done()

    async def _live(self) -> None:
        """Keep a runner alive until cancelled, whatever goes wrong with one."""
        while True:
            try:
                at_once = await self._one_life()
            except Exception:
                log.exception("a slot's runner was lost sight of; another one is started")
                at_once = False
            if not at_once:
                await self._back_off()

    async def _one_life(self) -> bool:
        """Start a runner, and see it to its end. Returns whether the next one may be started at once."""
        loop = asyncio.get_running_loop()
        try:
            runner = self._runner = _Runner(prepare(self._mechanism, self._options), self._on_frame)
        except Exception as error:
            self._died(Death("start", 0, f"The runner can't be started: {error}"), error)
            return False
        if self._paused:
            runner.reader.pause()
        doom = Death("start", 0, f"The runner wasn't ready within {START_DEADLINE:g} s.")
        deadline = loop.call_later(START_DEADLINE, lambda: None if runner.pid else runner.stop(doom))
        try:
            await runner.over
        finally:
            deadline.cancel()
            if self._job is not None and not runner.replaced:
                self._job.stop()
            death = await self._ended(runner)
            if runner.held and not self._closed:
                self._tell(self._listener.on_dropped, list(runner.held))
        if runner.replaced:
            return True
        self._died(death)
        if runner.pid is None or loop.time() - runner.born < _QUICK:
            return False
        self._failures = 0
        return True

    async def _ended(self, runner: _Runner) -> Death:
        """See a runner to its very end, also when ``close`` comes in between."""
        ending = asyncio.create_task(runner.ended(), name="p2p-end")
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])
            raise
        finally:
            self._runner = None

    async def _back_off(self) -> None:
        pause = min(_BACKOFF_MAX, 0.1 * 2.0 ** min(self._failures, 20))
        self._failures += 1
        await asyncio.sleep(pause)

    def _died(self, death: Death, error: Exception | None = None) -> None:
        log.info("runner ended: %s", death.detail)
        if self._first is not None and not self._first.done():
            self._first.set_exception(error or RuntimeError(death.detail))
            return
        job = self._job
        if job is not None and not job.sent and job.spared < _SPARED:
            job.spared += 1  # nothing is told: it waits for the next runner, as it would for another owner's
            return
        self._job = None
        if job is not None:
            job.stop()
        self._tell(self._listener.on_died, job.task_id if job is not None else None, death)

    def _tell(self, call: Callable[Concatenate[Slot, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call the listener; what goes wrong there must not take the slot, or its reading, along."""
        try:
            call(self, *args, **kwargs)
        except Exception:
            log.exception("a slot's listener failed")

    def _begin(self, job: _Job) -> None:
        """Send a task to a runner that is ready: at once, or when its buffers have been sent."""
        assert self._runner is not None
        if job.buffers:
            job.feeding = asyncio.create_task(self._feed(self._runner, job), name=f"p2p-feed {job.task_id}")
        else:
            self._send(self._runner, job)

    def _send(self, runner: _Runner, job: _Job) -> None:
        """Send the task itself, unless the runner has ended: the task then stays for the next one."""
        if not runner.is_gone():
            job.sent = True
            runner.writer.write_encoded(job.head, job.body)

    async def _feed(self, runner: _Runner, job: _Job) -> None:
        """Send the buffers that the runner lacks, then the task."""
        arriving = ""
        try:
            self._make_room(runner, job.buffers)
            for source in job.buffers:
                if source.ref in runner.held:
                    runner.held.move_to_end(source.ref)
                    continue
                arriving = source.ref
                runner.writer.write({"t": "buffer", "ref": source.ref, "size": source.size})
                await _send_bytes(runner.writer, source)
                runner.held[source.ref] = source.size
            self._send(runner, job)
            await runner.writer.drain()
        except SourceFailed as error:
            runner.writer.write({"t": "drop", "refs": [arriving]})
            job.feeding = None
            self._give_up(job, "unloadable", "OSError", f"A buffer of the task did not arrive: {error}")
        except asyncio.CancelledError:
            if not job.sent:
                runner.writer.write({"t": "drop", "refs": [arriving]})
            raise

    def _make_room(self, runner: _Runner, buffers: Sequence[Source]) -> None:
        """Drop from the runner what it hasn't used for longest, and what this task doesn't use."""
        needed = {source.ref for source in buffers}
        total = sum(runner.held.values()) + sum(each.size for each in buffers if each.ref not in runner.held)
        drop = []
        for ref in [ref for ref in runner.held if ref not in needed]:
            if total <= self._settings.runner_cache and len(runner.held) + len(needed) <= _HELD_MAX:
                break
            total -= runner.held.pop(ref)
            drop.append(ref)
        if drop:
            runner.writer.write({"t": "drop", "refs": drop})
            self._tell(self._listener.on_dropped, drop)

    def _give_up(self, job: _Job, kind: str, exception: str, message: str) -> None:
        """End a task that the runner has never seen."""
        job.stop()
        self._job = None
        error = {
            "class": f"builtins.{exception}",
            "bases": [f"builtins.{exception}", "builtins.BaseException"],
            "message": message,
            "traceback": f"{exception}: {message}",
            "kind": kind,
        }
        header: Header = {"t": "result", "id": job.task_id, "ok": False, "segments": [], "seconds": 0.0, "error": error}
        self._tell(self._listener.on_result, header, b"")

    def _on_frame(self, runner: _Runner, header: Header, body: Buffer) -> None:
        kind, job = header["t"], self._job
        if kind == "ready" and runner.pid is None:
            self._on_runner_ready(runner, header)
        elif job is None or not job.sent:
            log.debug("a %s frame while no task runs", kind)
        elif kind == "spent":
            if not runner.spent:
                log.warning("runner %s can't clear up after a task: %.500r", runner.pid, header.get("why"))
            runner.spent = True
        else:
            self._on_task_frame(runner, job, header, body)

    def _on_task_frame(self, runner: _Runner, job: _Job, header: Header, body: Buffer) -> None:
        try:
            job.frames.check(header, len(body))
        except FrameError as error:
            # The task stays the slot's until its runner has ended: its listener hears of a death, and nothing else.
            runner.stop(Death("protocol", 0, f"The task's process broke the worker's protocol: {error}."))
            return
        match header["t"]:
            case "output":
                self._tell(self._listener.on_output, header, body)
            case "chunk":
                self._tell(self._listener.on_chunk, header, body)
            case "result":
                job.stop()
                self._job = None
                if runner.spent:
                    runner.stop(None)
                self._tell(self._listener.on_result, header, body)

    def _on_runner_ready(self, runner: _Runner, header: Header) -> None:
        pid = header.get("pid")
        runner.pid = pid if type(pid) is int and pid > 0 else runner.process.pid
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        if self._job is not None:
            self._begin(self._job)
        else:
            self._tell(self._listener.on_ready)


async def _send_bytes(writer: PipeWriter, source: Source) -> None:
    """Write a source's bytes as ``chunk`` frames, no faster than the runner takes them."""
    header: Header = {"t": "chunk", "ref": source.ref}
    full = encode(header, MAX_BODY)
    async for view in source:
        for start in range(0, len(view), MAX_BODY):
            piece = view[start : start + MAX_BODY]
            writer.write_encoded(full if len(piece) == MAX_BODY else encode(header, len(piece)), piece)
            await writer.drain()


def _detached(pipe: IO[bytes]) -> int:
    """The descriptor of a pipe's end, ours from now on."""
    fd = os.dup(pipe.fileno())
    pipe.close()
    return fd


def _oom_kills() -> int:
    """How many processes the system has killed for want of memory since it started; 0 where it doesn't say."""
    with contextlib.suppress(OSError), open("/proc/vmstat", "rb") as file:
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0
