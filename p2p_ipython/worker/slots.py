"""A slot: one place where tasks run, one at a time; it keeps a runner alive there and speaks with it.

::

    agent ── run, cancel ──► Slot ── frames ──► runner (a child process)
      ▲                       │                    │
      └── on_output, on_chunk, on_result, on_died, on_ready ◄──┘

The slot starts its runner again whenever it dies, before it serves another owner, and when a runner could not be put
back as it was: what one owner's tasks did to the process must not meet another's. It knows which large buffers its
runner holds and sends the others. It promises that nothing of a runner, process or folder, outlives ``close``.

A task is over when its runner has cleared up after it. A runner that ends or takes too long at that takes no result
along: the slot has it already.

A task may ask for packages. They are installed first (environments.py), while the slot is the task's. Then its runner
is one that has them. Tasks of one owner that ask for the same ones share it.

A runner may end while it has nothing to do: a thread that an earlier task left can end it at any time. A task that
it has not been sent, or that was given to the slot when it had ended already, is the next runner's.

POSIX only. All methods and callbacks belong to one event loop; none of them blocks it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Concatenate, ParamSpec

from p2p_ipython.config import Settings
from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.protocol.frames import Buffer, FrameError, Header, encode
from p2p_ipython.protocol.packages import packages_words
from p2p_ipython.protocol.task_frames import (
    Cancel,
    Cleared,
    Output,
    Progress,
    Ready,
    Result,
    ResultChunk,
    ResultParts,
    Task,
    TaskFailure,
    Warm,
    read_runner,
)
from p2p_ipython.sandbox.launch import START_DEADLINES, LaunchOptions, Mount, prepare
from p2p_ipython.sandbox.scratch import sweep
from p2p_ipython.worker.cache import Source, SourceFailed
from p2p_ipython.worker.environments import Environment, Environments
from p2p_ipython.worker.installer import NoPackages
from p2p_ipython.worker.runner_life import RunnerLife
from p2p_ipython.worker.slot_base import UNKNOWN, Death, SlotListener, SlotState, Used
from p2p_ipython.worker.watch import Watch

log = logging.getLogger(__name__)

P = ParamSpec("P")

START_DEADLINE = 60.0
"""How long a runner may take to say that it is ready, seconds."""

CLEAR_DEADLINE = 30.0
"""How long a runner may take to clear up after a task, seconds."""

_BACKOFF_MAX = 30.0
_QUICK = 1.0
"""A runner that dies sooner than this after its start, seconds, is started again later and later."""

_SPARED = 2
"""Runners that may end before a task could be sent to them. With the next one the task is given up: its buffers
may be what they don't survive."""

_AGAIN = 0.1
"""Seconds after which a task is interrupted again, for the first time. Each further time it is twice as long."""

_ELSEWHERE = ("podman", "docker", "qemu")
"""Mechanisms whose tasks are no processes of ours."""

_FEW = 256
"""A result with so few segments, no failure and nothing attached is far below the bound of a header."""


class Reports:
    """Counts how often a runner says how far its task is: it does so ten times a second."""

    A_SECOND, AT_ONCE = 50, 500

    def __init__(self) -> None:
        self._left, self._at = float(self.AT_ONCE), 0.0

    def came(self, now: float) -> None:
        """Note that it has said so. Raises ``RemoteProtocolError`` if that is far too often."""
        self._left = min(self.AT_ONCE, self._left + (now - self._at) * self.A_SECOND) - 1
        self._at = now
        if self._left < 0:
            raise RemoteProtocolError("a task says too often how far it is")


@dataclass
class _Job:
    """The task that the slot has been given, and what is under way for it."""

    task: Task
    head: bytes
    body: Buffer
    buffers: Sequence[Source]
    parts: ResultParts
    printed: int = 0  # bytes of output that have come
    reports: Reports = field(default_factory=Reports)  # of how far it is
    sent: bool = False
    spared: int = 0
    preparing: asyncio.Task[None] | None = None  # while its packages are installed
    feeding: asyncio.Task[None] | None = None
    killer: asyncio.TimerHandle | None = None
    reminder: asyncio.TimerHandle | None = None  # when it is interrupted again
    ending: asyncio.TimerHandle | None = None  # when its time is up
    clearing: asyncio.TimerHandle | None = None  # when its runner must have cleared up
    held: tuple[Result, Buffer] | None = None  # its result, while its runner clears up

    def stop(self) -> None:
        if self.feeding is not None:
            self.feeding.cancel()
        for timer in (self.killer, self.reminder, self.ending, self.clearing):
            if timer is not None:
                timer.cancel()

    def drop(self) -> None:
        """Stop all that goes on for it, what prepares it among that."""
        self.stop()
        if self.preparing is not None:
            self.preparing.cancel()


class Slot:
    """See the module. ``mechanism`` is a name in sandbox/launch.py; without ``environments`` there are no packages."""

    def __init__(
        self,
        options: LaunchOptions,
        listener: SlotListener,
        settings: Settings,
        *,
        mechanism: str = "process",
        environments: Environments | None = None,
    ) -> None:
        self._options = options
        self._listener = listener
        self._settings = settings
        self._mechanism = mechanism
        self._runner: RunnerLife | None = None
        self._watch: Watch
        """The runner's."""
        self._spent = 0.0  # by the runner, in seconds of processors, up to its last task
        self._owner: str | None = None
        self._environments = environments
        self._environment: Environment | None = None
        """That of the runner, and of the next ones."""
        self._preparing: set[asyncio.Task[None]] = set()
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
        return self._job.task.id if self._job is not None else None

    @property
    def pid(self) -> int | None:
        """The runner's process id, None while there is none that is ready."""
        return self._runner.pid if self._runner is not None else None

    def memory(self) -> int:
        """Bytes that the runner and all it has started occupy now; 0 while there is none. Takes milliseconds."""
        return self._runner.usage() if self._runner is not None else 0

    def used(self) -> Used:
        """See ``TaskSlot``. Containers' processors are counted by their engine, and not here."""
        runner = self._runner
        if runner is None or runner.is_gone():
            return UNKNOWN
        if self._mechanism in _ELSEWHERE:
            return Used(memory=self._watch.peak)
        before, self._spent = self._spent, runner.spent()
        return Used(max(0.0, self._spent - before), self._watch.peak)

    def run(self, task: Task, body: Buffer, buffers: Sequence[Source] = (), *, owner: str = "") -> None:
        """Have a task executed; ``body`` holds its inline segments. Returns at once.

        ``buffers`` are those that its other segments refer to; they may still be arriving, and must stay
        until the task is over. A task of another ``owner`` than the last one waits for a new runner. The end
        is told by ``on_result`` or ``on_died``.

        Raises ``RuntimeError`` when the slot is busy or closed, ``FrameError`` for a frame over the bounds.
        """
        if self._job is not None or self._closed:
            raise RuntimeError(f"a task was given to a slot that is {self.state.value}")
        job = _Job(task, encode(task.header(), len(body)), body, buffers, ResultParts())
        self._job = job
        if task.packages:
            job.preparing = asyncio.create_task(self._prepare(job, owner), name=f"p2p-packages {task.id}")
            self._preparing.add(job.preparing)
            job.preparing.add_done_callback(self._preparing.discard)
        else:
            self._serve(job, owner, None)

    async def _prepare(self, job: _Job, owner: str) -> None:
        """Have a task's packages installed, then give it to a runner that has them."""
        try:
            if self._environments is None:
                raise NoPackages("no packages are installed there")
            environment = await self._environments.get(owner, job.task.packages, self._say)
        except Exception as error:
            why = error.message if isinstance(error, NoPackages) else "the worker could not install them"
            if not isinstance(error, NoPackages):
                log.exception("packages could not be installed")
            job.preparing = None
            self._give_up(job, "packages", "ImportError", f"{packages_words(job.task.packages)}: {why}")
            return
        job.preparing = None
        self._say("")
        self._serve(job, owner, environment)

    def _say(self, words: str) -> None:
        """Tell what comes before the task begins."""
        self._tell(self._listener.on_preparing, words)

    def _serve(self, job: _Job, owner: str, environment: Environment | None) -> None:
        """Give a task to the runner, or to a new one if that is another owner's, or has other packages."""
        before, self._environment = self._environment, environment
        is_other = (before and before.folder) != (environment and environment.folder)
        if (self._owner not in (None, owner) or is_other) and self._runner is not None:
            self._runner.stop(None)
        if before is not None:
            before.close()
        self._owner = owner
        if self._is_ready():
            self._begin(job)

    def _launch_options(self) -> LaunchOptions:
        """Return what the next runner is to be like."""
        if self._environment is None:
            return self._options
        folder = str(self._environment.folder)
        return replace(self._options, packages=folder, mounts=(*self._options.mounts, Mount(folder)))

    def cancel(self, task_id: str) -> None:
        """Interrupt a task, and kill its runner if that has no effect within ``settings.cancel_grace``.

        It is asked for again until the task is over: see inside/interrupts.py.

        The end is told by ``on_result`` (of kind "interrupted", unless the task was over just then) or by
        ``on_died``. Nothing happens when the task isn't here (any more).
        """
        job, runner = self._job, self._runner
        if job is None or job.task.id != task_id or job.killer is not None:
            return
        if not job.sent or runner is None:
            self._give_up(job, "interrupted", "KeyboardInterrupt", "The task was cancelled before it had started.")
            return
        self._interrupt(job, runner, _AGAIN)
        grace = self._settings.cancel_grace
        doom = Death("cancelled", 0, f"The task was interrupted, went on for {grace:g} s, and was killed.")
        job.killer = asyncio.get_running_loop().call_later(grace, runner.stop, doom)

    def _interrupt(self, job: _Job, runner: RunnerLife, again: float) -> None:
        runner.writer.write(Cancel(job.task.id))
        job.reminder = asyncio.get_running_loop().call_later(again, self._interrupt, job, runner, 2 * again)

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
            job.drop()
        if self._life is not None:
            if not self._closed:
                self._closed = True
                self._life.cancel()
            await asyncio.wait([self._life, *self._preparing])
        self._closed = True
        if self._environment is not None:
            self._environment.close()

    def holds(self, ref: str) -> bool:
        """Whether the slot's runner has all bytes of a large buffer; ``on_dropped`` tells when it hasn't any more."""
        return self._runner is not None and ref in self._runner.holdings and not self._runner.over.done()

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
            runner = self._runner = RunnerLife(
                prepare(self._mechanism, self._launch_options()),
                self._on_frame,
                room=self._settings.runner_cache,
                on_dropped=self._dropped,
            )
        except Exception as error:
            self._died(Death("start", 0, f"The runner can't be started: {error}"), error)
            return False
        if self._paused:
            runner.reader.pause()
        most = START_DEADLINES.get(self._mechanism, START_DEADLINE)
        doom = Death("start", 0, f"The runner wasn't ready within {most:g} s.")
        deadline = loop.call_later(most, lambda: None if runner.pid else runner.stop(doom))
        self._watch = Watch(runner, self._options.memory)
        watch = loop.create_task(self._watch.run(), name="p2p-watch")
        try:
            await runner.over
        finally:
            deadline.cancel()
            watch.cancel()
            if self._job is not None and not runner.replaced:
                self._job.stop()
            death = await self._ended(runner)
            if not self._closed and (refs := runner.holdings.refs()):
                self._dropped(refs)
        if runner.replaced:
            return True
        self._died(death)
        if runner.pid is None or loop.time() - runner.born < _QUICK:
            return False
        self._failures = 0
        return True

    async def _ended(self, runner: RunnerLife) -> Death:
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
        if job is not None and job.held is not None and death.kind != "protocol":
            log.warning("the runner ended while it cleared up after a task")
            self._over(job)
            return
        self._job = None
        if job is not None:
            job.drop()
        self._tell(self._listener.on_died, job.task.id if job is not None else None, death)

    def _tell(self, call: Callable[Concatenate[Slot, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call the listener; what goes wrong there must not take the slot, or its reading, along."""
        try:
            call(self, *args, **kwargs)
        except Exception:
            log.exception("a slot's listener failed")

    def _dropped(self, refs: list[str]) -> None:
        self._tell(self._listener.on_dropped, refs)

    def _begin(self, job: _Job) -> None:
        """Send a task to a runner that is ready: at once, or when its buffers have been sent."""
        assert self._runner is not None
        if job.buffers:
            job.feeding = asyncio.create_task(self._feed(self._runner, job), name=f"p2p-feed {job.task.id}")
        else:
            self._send(self._runner, job)

    def _send(self, runner: RunnerLife, job: _Job) -> None:
        """Send the task itself, unless the runner has ended: the task then stays for the next one."""
        if not runner.is_gone():
            job.sent = True
            self._bound_time(runner, job)
            self._watch.begin(job)
            runner.writer.write_encoded(job.head, job.body)

    def _bound_time(self, runner: RunnerLife, job: _Job) -> None:
        """End the task when its time is up. In a runner that is not warm yet it begins later, and is bounded anew."""
        own, lenders = job.task.timeout, self._settings.task_time
        if most := min(filter(None, (own, lenders)), default=0.0):
            if job.ending is not None:
                job.ending.cancel()
            if most == lenders:
                doom = Death("time", 0, f"it ran for {most:g} s, which is as long as its lender lets a task run")
            else:
                doom = Death("timeout", 0, f"it ran for {most:g} s, which is its timeout")
            wait = most if runner.warm else most + START_DEADLINE
            job.ending = asyncio.get_running_loop().call_later(wait, runner.stop, doom)

    async def _feed(self, runner: RunnerLife, job: _Job) -> None:
        """Send the buffers that the runner lacks, then the task."""
        try:
            await runner.holdings.bring(job.buffers)
            self._send(runner, job)
            await runner.writer.drain()
        except SourceFailed as error:
            job.feeding = None
            self._give_up(job, "unloadable", "OSError", f"A buffer of the task did not arrive: {error}")

    def _give_up(self, job: _Job, kind: str, exception: str, message: str) -> None:
        """End a task that the runner has never seen."""
        job.drop()
        self._job = None
        bases = (f"builtins.{exception}", "builtins.BaseException")
        shown = "" if kind == "packages" else f"{exception}: {message}"  # nothing of the task's was executed
        failure = TaskFailure(kind, bases[0], bases, message, shown)
        self._tell(self._listener.on_result, Result(job.task.id, job.task.attempt, False, (), failure=failure), b"")

    def _on_frame(self, runner: RunnerLife, header: Header, body: Buffer) -> None:
        job = self._job
        if header["t"] not in (Ready.kind, Warm.kind) and (job is None or not job.sent):
            log.debug("a %s frame while no task runs", header["t"][:20])
            return
        try:
            match read_runner(header):
                case Ready(pid=pid) if runner.pid is None:
                    self._on_runner_ready(runner, pid)
                case Warm() if runner.pid is not None and not runner.warm:
                    runner.warm = True
                    if job is not None and job.sent:
                        self._bound_time(runner, job)
                    elif job is None:
                        self._spent = runner.spent()
                case Cleared(why=why) if job is not None and job.held is not None:
                    if why:
                        log.warning("runner %s can't clear up after a task: %.500r", runner.pid, why)
                        runner.stop(None)
                    self._over(job)
                case Output() | Progress() | ResultChunk() | Result() as frame if job is not None:
                    self._on_task_frame(runner, job, frame, body)
                case _:
                    raise RemoteProtocolError("a frame of an unknown kind, or out of turn")
        except (RemoteProtocolError, FrameError) as error:
            # The task stays the slot's until its runner has ended: its listener hears of a death, and nothing else.
            runner.stop(Death("protocol", 0, f"The task's process broke the worker's protocol: {error}."))

    def _on_task_frame(
        self, runner: RunnerLife, job: _Job, frame: Output | Progress | ResultChunk | Result, body: Buffer
    ) -> None:
        """Check a frame against the task that runs, and pass it on. Raises ``RemoteProtocolError``."""
        if (frame.id, frame.attempt) != (job.task.id, job.task.attempt):
            other = f"{frame.id[:40]!r}, attempt {frame.attempt}"
            raise RemoteProtocolError(f"a frame of kind {frame.kind} of another task ({other})")
        if job.held is not None and not isinstance(frame, Output | Progress):
            raise RemoteProtocolError("more of a result that was complete")
        match frame:
            case Output():
                job.printed += len(body)
                if job.printed > 2 * self._options.output_limit:  # its runner stops at the limit
                    raise RemoteProtocolError("more output than a task may have")
                self._tell(self._listener.on_output, frame, body)
            case Progress():
                job.reports.came(asyncio.get_running_loop().time())
                self._tell(self._listener.on_output, frame, b"")
            case ResultChunk():
                job.parts.chunk(frame, len(body))
                self._tell(self._listener.on_chunk, frame, body)
            case Result():
                job.parts.result(frame, len(body))
                if frame.failure is not None or frame.attached or len(frame.segments) > _FEW:
                    encode(frame.header(), len(body))  # what can't be sent on must not be taken
                job.held = frame, body
                doom = Death("exit", 0, f"The runner cleared up for more than {CLEAR_DEADLINE:g} s.")
                loop = asyncio.get_running_loop()
                job.clearing = loop.call_later(CLEAR_DEADLINE, runner.stop, doom)

    def _over(self, job: _Job) -> None:
        """Tell the result of a task that its runner has sent."""
        assert job.held is not None
        job.stop()
        self._watch.end()
        self._job = None
        self._tell(self._listener.on_result, *job.held)

    def _on_runner_ready(self, runner: RunnerLife, pid: int) -> None:
        runner.pid = pid
        self._spent = runner.spent()
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        if self._job is not None:
            if self._job.preparing is None:
                self._begin(self._job)
        else:
            self._tell(self._listener.on_ready)
