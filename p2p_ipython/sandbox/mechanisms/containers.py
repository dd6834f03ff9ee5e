"""What the mechanisms of containers share: a runner's start, by a guard, its accounts, and its end.

Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from p2p_ipython.sandbox.launch import Death, LaunchOptions
from p2p_ipython.sandbox.mechanisms.accounts import Mortality
from p2p_ipython.sandbox.mechanisms.contents import Container, shown_in, skeleton
from p2p_ipython.sandbox.mechanisms.environment import guard_environment
from p2p_ipython.sandbox.mechanisms.leftovers import end_processes
from p2p_ipython.sandbox.mechanisms.process import ProcessLaunch
from p2p_ipython.sandbox.scratch import Scratch


@dataclass(frozen=True)
class Engine:
    """What a mechanism makes of a ``Container``; see container_guard.py for ``guarded``, whose "end" is run here, too.

    ``before``: words before the guard's command. ``environment``: of the guard and the engine. ``usage``: returns what
    the runner occupies, by the guard's process id, and whether shared memory is to count once. ``owner``: the user that
    the engine runs as, None for us.
    """

    guarded: dict[str, object]
    environment: dict[str, str]
    usage: Callable[[int, bool], int]
    before: tuple[str, ...] = ()
    owner: int | None = None


class ContainerLaunch(ProcessLaunch):
    """See ``launch.Launch``. A guard, which has the engine end the container, takes the warden's part.

    ``user``: as whom the runner runs, None for us. ``counted``: whether the processes that count as this user's in the
    container are the runner's alone. ``cgroup``: whether the engine keeps it in a cgroup of its own.
    """

    def __init__(
        self,
        options: LaunchOptions,
        user: int | None,
        engine: Callable[[Container], Engine],
        *,
        counted: bool = True,
        cgroup: bool = False,
    ) -> None:
        # Not where options.scratch says: no task writes there, and podman wants a path of at most 50 characters.
        self._scratch = Scratch()
        self.folder = self._scratch.path
        self.descriptors: tuple[int, ...] = ()
        try:
            ids = (os.getuid(), os.getgid()) if user is None else (user, user)
            shown = shown_in(options if counted else replace(options, processes=0), self.folder, ids, held=cgroup)
            root = skeleton(self.folder / "root", shown)
            made = engine(Container(options, ids, self.folder, root, tuple(shown), counted))
            (self.folder / "tmp").mkdir()
            if made.owner is not None:  # the folder itself stays ours: who owns it sweeps it
                os.chown(self.folder, -1, made.owner)
                self.folder.chmod(0o710)
                for place in self.folder.rglob("*"):
                    os.chown(place, made.owner, made.owner, follow_symlinks=False)
        except BaseException:
            self._scratch.remove()
            raise
        self._engine = made
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("container_start.py"))]
        self.command = [*made.before, *guard, json.dumps(made.guarded | {"scratch": str(self.folder)})]
        self.env = guard_environment() | made.environment | {"TMPDIR": str(self.folder / "tmp")}
        self._mortality = Mortality()

    def usage(self, process: subprocess.Popen[bytes], *, shared_once: bool = False) -> int:
        """Ask the engine's own accounts; 0 while there are none."""
        return self._engine.usage(process.pid, shared_once)

    def death(self, code: int, words: str) -> Death:
        """Describe an end. A container's first process can't end itself by a signal, and then ends by 256 less it."""
        known = {number.value for number in signal.Signals}
        return self._mortality.death(next((-n for n in (code - 128, 256 - code) if n in known), code), words)

    def clean(self) -> None:
        """End the container, if the guard couldn't, and remove the scratch folder, which it removes at its end."""
        try:
            end = self._engine.guarded["end"]
            assert isinstance(end, list)
            if end and self.folder.exists():
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    subprocess.run(end, env=self.env, capture_output=True, timeout=_END_DEADLINE, check=False)
            end_processes(self.folder)
        finally:
            self._scratch.remove()


_END_DEADLINE = 10.0
