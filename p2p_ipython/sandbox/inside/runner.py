"""The runner: a child process that executes tasks, and knows no key and no network.

Started by a ``Launch`` as ``python -m p2p_ipython.sandbox.inside.runner OPTIONS`` with pipes at its descriptors 0 and
1, on which it speaks frames (protocol/frames.py) with the agent. They are the classes of protocol/task_frames.py:
``AgentFrame`` comes in, ``RunnerFrame`` goes out. The body of a ``task`` holds its inline segments; ``size`` bytes in
chunks follow a ``buffer``; a ``result`` comes after the chunks of its large segments.

Two threads: this module's main thread executes, a reading thread takes frames in, so that a task can be
cancelled and large buffers arrive meanwhile. When the agent is gone the runner ends at once.

Until the tasks' own imports it loads the standard library, IPython and the unpickler only.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import platform
import stat
import sys
import threading
import warnings
from functools import partial
from queue import SimpleQueue
from typing import Any

from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.protocol.frames import Buffer, FrameError, Header
from p2p_ipython.protocol.task_frames import Cancel, Drop, NewBuffer, Piece, Ready, Task, Warm, read_agent
from p2p_ipython.sandbox import seccomp
from p2p_ipython.sandbox.inside import limits, packages, wall, warden
from p2p_ipython.sandbox.inside.buffers import Buffers
from p2p_ipython.sandbox.inside.interrupts import Interrupts
from p2p_ipython.sandbox.pipes import FrameInput, enlarge
from p2p_ipython.task import modules, relayed, running, warned

Queue = SimpleQueue[tuple[Task, Buffer]]


def main(options: dict[str, Any]) -> None:
    """Be a runner until the agent is gone. ``options`` are those of ``launch.runner_arguments``."""
    running.is_runner()
    if options["filtered"]:
        seccomp.behind_walls()
    walled = options["wall"]
    warden.fork_under_watch(options["scratch"], options["disk"] if walled else 0)
    others = wall.enter(walled) if walled else 0
    frames_in, frames_out, errors = _take_over_pipes()
    limits.limit_basics()
    if options["polite"]:
        limits.be_polite()
    if options["cores"]:
        limits.stay_on(options["cores"])
        if options["firmly"]:
            seccomp.on_these_cores()
    if options["modeless"]:
        seccomp.without_modes()
    interrupts = Interrupts()
    interrupts.install()
    tasks: Queue = SimpleQueue()
    buffers = Buffers()
    reader = _Reader(frames_in, errors, buffers, tasks, interrupts)
    threading.Thread(target=reader.run, name="p2p-read", daemon=True).start()

    from p2p_ipython.sandbox.inside.capture_output import Outlet, streams
    from p2p_ipython.sandbox.inside.channel import Channel

    channel = Channel(frames_out, interrupts)
    channel.send(Ready(platform.python_version(), sys.platform, os.getpid()))
    # A user's modules beside the notebook come last: they must not hide what this package imports.
    modules.set_up(options["path"])
    # In a scratch folder there is nothing but a task's own; in the notebook's there may be a secrets.py.
    sys.path.insert(len(sys.path) if options["folder"] else 0, "")
    scratch: str | None = os.getcwd()
    with contextlib.suppress(OSError):  # a sandbox may not show it
        if options["folder"]:
            os.chdir(options["folder"])
            scratch = None
    outlet = Outlet(channel, interrupts, options["output_limit"])

    # The agent has been told: from here on, what takes time overlaps with its first task on the way here.
    from p2p_ipython.sandbox.inside.execute import Executor
    from p2p_ipython.sandbox.inside.folder import TaskFolder
    from p2p_ipython.sandbox.inside.report_progress import Reporter
    from p2p_ipython.sandbox.inside.shell import Cells
    from p2p_ipython.sandbox.inside.text_bars import TextBars
    from p2p_ipython.sandbox.inside.tidy import Baseline
    from p2p_ipython.sandbox.inside.used_up import Limits

    if walled:
        from p2p_ipython.sandbox.inside import shared

        shared.provide(os.environ["TMPDIR"])
    reporter = Reporter(channel, interrupts)
    sys.meta_path.insert(0, TextBars(reporter.bar))

    def in_child() -> None:
        if channel.mute():
            os.close(frames_in)
        outlet.after_fork_in_child()

    os.register_at_fork(after_in_child=in_child)
    cells = Cells(outlet)
    warnings.filterwarnings("ignore", "To exit: use", UserWarning)  # IPython's advice on SystemExit
    warned.hook(partial(outlet.tell, "warning"))
    relayed.runner.send = partial(outlet.tell, "log")
    memory, disk, processes = (options[name] for name in ("memory", "disk", "processes"))
    used = limits.data_now()
    limits.limit_memory(memory)
    limits.limit_processes(processes + others if processes and options["counted"] else 0)
    limits.limit_files(disk)
    if options["packages"]:
        packages.put_first(options["packages"])
    baseline = Baseline(streams(outlet), interrupts)  # of these limits, too: a task may lower them
    executor = Executor(
        channel=channel,
        outlet=outlet,
        reporter=reporter,
        buffers=buffers,
        interrupts=interrupts,
        baseline=baseline,
        cells=cells,
        folder=TaskFolder(scratch),
        limits=Limits(memory, used, disk, processes, options["scratch"], options["place"]),
    )
    channel.send(Warm())
    write, end = os.write, os._exit  # as long as nobody has changed them
    try:
        while True:
            executor.perform(*tasks.get())
    finally:  # a task has broken the interpreter
        write(errors, b"It broke its own interpreter: its result could not be sent.\n")
        end(1)


def _take_over_pipes() -> tuple[int, int, int]:
    """Move the agent's pipes to descriptors of our own; a task's reads find nothing. Returns (in, out, errors)."""
    frames_in, frames_out, errors = os.dup(0), os.dup(1), os.dup(2)
    enlarge(frames_in)
    enlarge(frames_out)
    # A crash in compiled code writes where it happened to what was our stderr; the agent reads it.
    faulthandler.enable(errors, all_threads=False)
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), 0)
    return frames_in, frames_out, errors


class _Reader:
    """Takes frames in and sorts them; the agent's end is ours."""

    def __init__(self, fd: int, errors: int, buffers: Buffers, tasks: Queue, interrupts: Interrupts) -> None:
        self._fd = fd
        self._errors = errors  # 2 is soon the task's
        self._buffers = buffers
        self._tasks = tasks
        self._interrupts = interrupts

    def run(self) -> None:
        try:
            frames = FrameInput(self._land)
            # A virtual machine's port fills one piece after the other, and waits for bytes for each; a pipe never does.
            pieces = None if stat.S_ISFIFO(os.fstat(self._fd).st_mode) else 1
            while count := os.readv(self._fd, frames.room()[:pieces]):
                for header, body in frames.advance(count):
                    self._sort(header, body)
        except (OSError, MemoryError, FrameError, RemoteProtocolError) as error:
            os.write(self._errors, f"p2p: the runner can't go on: {error!r}\n".encode())
        finally:
            os._exit(1)

    def _land(self, header: Header, size: int) -> memoryview | None:
        return self._buffers.land(Piece.read(header).ref, size) if header["t"] == Piece.kind else None

    def _sort(self, header: Header, body: Buffer) -> None:
        match read_agent(header):
            case Task() as task:
                self._interrupts.expect()
                self._tasks.put((task, body))
            case NewBuffer(ref=ref, size=size):
                self._buffers.begin(ref, size)
            case Drop(refs=refs):
                self._buffers.drop(refs)
            case Cancel(id=task_id):
                self._interrupts.request(task_id)
            case Piece(ref=ref):
                self._buffers.landed(ref, memoryview(body))
            case None:
                pass


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
