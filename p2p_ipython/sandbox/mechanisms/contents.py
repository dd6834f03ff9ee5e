"""What is in a container: a skeleton of empty folders, and what is mounted on it. No image is needed.

All is read-only but for the scratch folder, which is in memory and bounded, and mounts that tasks may write to. Its
network is off. The words are those of docker and podman.
Arguments and environment of a runner go there in a script, because the command line of an engine can be read by
everybody on this machine.

Linux only.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p2p_ipython.sandbox.launch import LaunchOptions, runner_arguments
from p2p_ipython.sandbox.mechanisms.environment import runner_environment
from p2p_ipython.sandbox.mechanisms.python_files import SYSTEM, python_files
from p2p_ipython.sandbox.mechanisms.shown import ETC, FIRST, NAME, SCRATCH, SHARED_MEMORY, name_files, roots

TMP = Path("/tmp")  # noqa: S108 - in the container

_EMPTY = ("usr", "etc", "proc", "sys", "dev", "run", "var")
_WRITTEN = (TMP.name, SCRATCH.name)


_TMP = 64 << 20
"""Bytes of /tmp in a container; tasks' temporary folder is in their scratch folder."""

_OPEN_FILES = 1024
"""As inside/limits.py has it."""

_OWN_PROCESSES = 8
"""Processes and threads beside a task's: the warden, and the engine's own while it starts."""


@dataclass(frozen=True)
class Shown:
    """A folder or file, and where a container shows it."""

    place: Path
    at: Path
    writable: bool = False


@dataclass(frozen=True)
class Container:
    """What a mechanism makes its engine's command from. ``user``: as whom its runner runs, and that user's group.

    ``folder``: the scratch folder outside; ``root``: the skeleton in it. ``shown``: what covers another comes later.
    ``counted``: whether that user's processes are the runner's alone, so that their number can be bounded.
    """

    options: LaunchOptions
    user: tuple[int, int]
    folder: Path
    root: Path
    shown: tuple[Shown, ...]
    counted: bool = True

    def mount_words(self) -> list[str]:
        """Return the arguments that show what is ``shown``."""
        words = []
        for each in self.shown:
            source, target = (str(path).replace('"', '""') for path in (each.place, each.at))
            words += ["--mount", f'type=bind,"src={source}","dst={target}"{"" if each.writable else ",ro"}']
        return words

    def common_words(self) -> list[str]:
        """Return the arguments of ``run`` that docker and podman share: no network, no right, and limits."""
        words = ["--rm", "--interactive", "--pull", "never", "--log-driver", "none", "--network", "none"]
        words += ["--hostname", "sandbox", "--ipc", "private", "--read-only", "--cap-drop", "ALL"]
        words += ["--security-opt", "no-new-privileges", "--security-opt", "label=disable"]  # labels of /usr stay
        for folder, size in ((TMP, _TMP), (SCRATCH, self.options.disk)):
            words += ["--tmpfs", f"{folder}:rw,exec,nosuid,nodev,size={size},mode=1777"]
        limits = {"core": 0, "nofile": _OPEN_FILES}
        if self.counted:
            limits["nproc"] = self.options.processes + _OWN_PROCESSES
        for name, most in limits.items():
            words += ["--ulimit", f"{name}={most}:{most}"]
        # The driver's libraries are this system's own, so engines' hooks for them (CDI) have nothing to do.
        cards = self.options.graphics.nodes() if self.options.graphics is not None else ()
        words += [f"--device={node}:{seen}" for node, seen in cards]
        return [*words, "--shm-size", str(SHARED_MEMORY), *self.mount_words()]

    def cgroup_words(self) -> list[str]:
        """Return the arguments for what a cgroup holds. Files in memory count in it, so they have room beside.

        A quarter more than a task may have: the slot, which looks at ``usage``, ends the task first, and says why.
        """
        words = ["--pids-limit", str(self.options.processes + _OWN_PROCESSES)]
        if self.options.cpus:
            words += ["--cpus", f"{self.options.cpus:g}"]
        if self.options.memory:
            most = str(self.options.memory * 5 // 4 + self.options.disk + SHARED_MEMORY + _TMP)
            words += ["--memory", most, "--memory-swap", most]
        return words


def skeleton(root: Path, shown: Sequence[Shown]) -> Path:
    """Make a container's root: its folders and links, and what is mounted over.

    If an engine made these, they would belong to the container's root, and could not be removed.
    """
    for name in ("", *_EMPTY, *_WRITTEN):
        (root / name).mkdir()
        (root / name).chmod(0o1777 if name in _WRITTEN else 0o755)  # an engine keeps the mode of what it mounts over
    for place, target in roots():
        if target is not None:
            (root / place.name).symlink_to(target)
    for each in shown:
        if each.at.parts[1] not in _WRITTEN:
            _mount_point(root, each.at.relative_to("/"), folder=each.place.is_dir())
    return root


def _mount_point(root: Path, below: Path, *, folder: bool) -> None:
    """Make an empty folder or file to mount over, unless that led out of ``root``, by a link."""
    point = root
    for part in below.parts:
        if point.is_symlink():
            return
        if point != root and not point.exists():
            point.mkdir()
            point.chmod(0o755)
        point /= part
    if folder:
        point.mkdir(exist_ok=True)
    else:
        point.touch()


def shown_in(options: LaunchOptions, folder: Path, ids: tuple[int, int], *, held: bool = False) -> list[Shown]:
    """Return what a container shows: the system, Python, a few files of /etc, its first script, and what is shared.

    ``held``: a cgroup holds the processor time of its runner.
    """
    home, start = SCRATCH / "home", folder / "start"
    env = runner_environment(options, home, SCRATCH / "tmp") | {"USER": NAME, "LOGNAME": NAME}
    runner = [sys.executable, *runner_arguments(options, str(SCRATCH), walled=True, filtered=True, held=held)]
    words = ["exec", "env", "-i", *(f"{name}={value}" for name, value in env.items()), *runner]
    start.write_text(f"cd {SCRATCH} && mkdir -p home tmp && cd home || exit 1\n{shlex.join(words)}\n")
    start.chmod(0o644)
    etc = [Path("/etc", name) for name in ETC]
    found = [SYSTEM, *(place for place, target in roots() if target is None), *(each for each in etc if each.exists())]
    given = [Shown(each, each) for each in found]
    given += [Shown(file, Path("/etc", name)) for name, file in name_files(folder, *ids, home).items()]
    cards = options.graphics.files() if options.graphics is not None else ()
    given += [Shown(file, seen) for file, seen in cards if not seen.is_relative_to("/sys")]
    python = [Shown(each, each) for each in python_files(options).shown]
    # Python's own files come last: in a folder that tasks may write to they stay as they are.
    return [*given, Shown(start, Path(FIRST[1])), *_shared(options, folder, python), *python]


def _shared(options: LaunchOptions, folder: Path, python: list[Shown]) -> list[Shown]:
    """Return the lender's mounts, each with empty folders and closed files over its hidden parts.

    No engine mounts twice at one place, and none can make a place in what is read-only.
    """
    places, empty = {each.at for each in python}, folder / "empty"
    empty.mkdir()
    found: list[Shown] = []
    for mount in options.mounts:
        found.append(Shown(Path(mount.path), Path(mount.path), mount.writable))
        for hidden in map(Path, mount.hidden):
            cover = empty / str(len(found))
            if hidden.is_dir():
                cover.mkdir()
                cover.chmod(0o755)
                for each in python:
                    if hidden in each.at.parents:
                        _mount_point(cover, each.at.relative_to(hidden), folder=each.place.is_dir())
            else:
                cover.touch(0)  # tasks can't open it
            found.append(Shown(cover, hidden))
    return [each for each in found if each.at not in places]
