"""The guard of a runner in a container: it starts the engine's command, and sees to it that the container ends.

Started by a ``ContainerLaunch`` as ``container_start.py OPTIONS``, with the pipes of a runner. It is outside the
container: ending an engine's command by force leaves its container running. So the guard has the engine end it, by
name, when the command, the runner or the agent has ended. If the guard itself is killed, the agent takes its part. If
both are, the runner's input ends, so the runner does, and the engine's command after it.
Options::

    command   the engine's command, which speaks the runner's frames
    end       the command that ends the container and forgets it, however far it has come; empty if its processes are
              below the guard
    scratch   the folder to remove at the end
    image     words before a command of the engine, name of an image, and the skeleton to make it of if there is none
              yet (optional)
    labelled  command that lists containers, for ``leftovers.end_labelled`` (optional)
    forget    words before the name of a container that is to be removed (with labelled)

It does nothing while a task runs.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any, NoReturn

from p2p_ipython.sandbox.mechanisms import leftovers
from p2p_ipython.sandbox.mechanisms.guarding import Watch, clear_up
from p2p_ipython.sandbox.scratch import lock

_DEADLINE = 4.0
"""Seconds for a command that ends a container."""


def main(options: dict[str, Any], engine: int) -> NoReturn:
    """Guard a container until its end. ``engine``: the process of the engine's command, 0 if it is to be started."""
    watch, code = Watch(), 1
    lock(options["scratch"])  # until we end: an engine keeps there what it needs to end a container
    try:
        if "image" in options:
            _make_image(*options["image"])
        command = None if engine else subprocess.Popen(options["command"])
        threading.Thread(target=_end_others, args=(options,), daemon=True).start()
        code = watch.until_ended(command.wait if command is not None else lambda: _wait(engine))
    except (OSError, subprocess.SubprocessError) as error:
        os.write(2, f"p2p: the runner can't be started: {error}\n".encode())
    finally:
        if options["end"]:
            _run(options["end"])
        clear_up(options["scratch"], code)


def _wait(pid: int) -> int:
    """Return a child process's exit code, negative for a signal."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # it was ended with all others
        return -signal.SIGKILL


def _end_others(options: dict[str, Any]) -> None:
    """End what other guards have left; it needn't be waited for."""
    if "labelled" in options:
        leftovers.end_labelled(options["labelled"], options["forget"])
    else:
        leftovers.end_processes(Path(options["scratch"]), others=True)


def _run(command: list[str]) -> str:
    """Run a command of the engine's; return what it says, "" if it fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DEADLINE, check=True)
        return done.stdout.decode("utf-8", "replace")
    return ""


def _make_image(docker: list[str], name: str, root: str) -> None:
    """Make an image of a skeleton, unless there is one of that name. Raises ``OSError``, ``SubprocessError``."""
    if _run([*docker, "image", "inspect", "--format", "{{.Id}}", name]):
        return
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for place in sorted(Path(root).iterdir()):
            entry = tar.gettarinfo(place, place.name)
            entry.uid = entry.gid = 0
            tar.addfile(entry)
    subprocess.run([*docker, "import", "-", name], input=packed.getvalue(), stdout=2, timeout=60, check=True)
