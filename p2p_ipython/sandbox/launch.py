"""How a runner is started, watched and ended: one interface, one table of mechanisms.

A mechanism is a module in mechanisms/ with ``available()``, which says what it lacks on this system, and
``prepare(options)``, which makes a ``Launch``: what to start, in which environment, how to end it, and what became of
it. The mechanism promises three things. Its command speaks the runner's frames over
stdin and stdout; the command ends when its stdin does; and nothing that a task has started outlives it.

POSIX only.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.graphics import Graphics


@dataclass(frozen=True)
class Mount:
    """A folder or file of the lender's that tasks see at its own path, on purpose.

    ``path`` is absolute, and leads through no symbolic link. If it is ``writable``, all tasks share what is in it.
    ``hidden`` are paths in it that tasks don't see.
    """

    path: str
    writable: bool = False
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaunchOptions:
    """What runners are to be like.

    ``memory``: bytes a task may use, 0 for no limit. ``cpus``: cores that it may keep busy, 0.0 for all. ``cores``: on
    which ones it runs, where nothing but that holds ``cpus``; () for any. ``polite``: whether it leaves processor and
    disk to others, as it always does behind a wall. ``disk``: bytes that it may write to its scratch folder.
    ``processes``: how many it may have, threads included. Mechanisms with a wall hold ``disk`` and ``processes``.
    ``output_limit``: bytes of output that are sent a task. ``scratch``: where scratch folders are made; None is the
    system's temporary folder. ``path``: folders of modules that tasks may import, after all others. ``extra_env``:
    added to the environment as it is. ``mounts``: for mechanisms with a wall; behind none all is in reach anyway.
    ``folder``: where tasks work, "" for the scratch folder. ``network``: whether tasks have the internet, for those in
    ``WITH_NETWORK``. ``place``: the worker's name, for words about limits. ``graphics``: the cards that tasks may use,
    for mechanisms in ``WITH_GRAPHICS``, and ``process``, which hides none. ``packages``: a folder of packages that win
    over Python's own, "" for none; behind a wall it is among ``mounts``.
    """

    memory: int = 0
    cpus: float = 0.0
    cores: tuple[int, ...] = ()
    polite: bool = False
    disk: int = 512 << 20
    processes: int = 256
    output_limit: int = 8 << 20
    scratch: Path | None = None
    path: tuple[str, ...] = ()
    folder: str = ""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    network: bool = False
    place: str = ""
    graphics: Graphics | None = None
    packages: str = ""


@dataclass(frozen=True)
class Death:
    """How a runner ended, in words that its task's owner can use.

    ``kind``: "exit" (``code`` is the exit code), "signal" (``code`` is the signal's number), "memory" (the
    system killed it when memory ran out, or it used more than it may), "disk" (it wrote more than it may), "processes"
    (it had more than it may), "time" (it ran longer than its lender lets it), "timeout" (it ran longer than its client
    lets it), "cancelled" (it didn't heed an interrupt, so we killed it), "protocol" (it broke the protocol, so we
    killed it), "start" (it never became ready) or "engine" (the engine that ran it has lost it; see worker/engines/).
    """

    kind: Literal[
        "exit", "signal", "memory", "disk", "processes", "time", "timeout", "cancelled", "protocol", "start", "engine"
    ]
    code: int
    detail: str


@dataclass(frozen=True)
class Missing:
    """Why a mechanism can't be used on this system, and what to do about it."""

    why: str
    hint: str = ""


class Launch(Protocol):
    """One runner to be: made, started at most once, ended, cleared up."""

    @property
    def command(self) -> list[str]: ...

    @property
    def env(self) -> dict[str, str]: ...

    @property
    def folder(self) -> Path:
        """Where to start it."""
        ...

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that it inherits besides 0 to 2, at the same numbers; ``clean`` closes them here."""
        ...

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Have the runner and all it has started killed soon, in order; returns at once."""

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill them by force, for when ``end`` has no effect; blocks for a moment."""

    def usage(self, process: subprocess.Popen[bytes], *, shared_once: bool = False) -> int:
        """Return the bytes that the runner and all it has started occupy now.

        Memory that several processes share counts in each, unless ``shared_once`` is set, which takes longer.
        """
        ...

    def excess(self, process: subprocess.Popen[bytes]) -> Death | None:
        """Return the end of a task that takes more than it may of what nothing else holds; None for all others.

        Blocks, for as long as it takes to look at its files and processes.
        """
        ...

    def death(self, code: int, words: str) -> Death:
        """Say how a runner that was ready has ended. Call it before ``clean``; blocks for a moment.

        ``code`` is the command's exit code (negative: a signal's number), ``words`` what it said last on stderr.
        """
        ...

    def clean(self) -> None:
        """Remove what is left of the runner on disk; blocks. Call it when the runner has ended."""


class Mechanism(Protocol):
    """A module in mechanisms/. ``LEAVES`` says what a task can still do behind it, and can't; "" for nothing to say."""

    LEAVES: str

    def available(self) -> Missing | None:
        """Return why the mechanism can't be used here; None if it may be tried.

        It starts no runner, but may ask programs for their versions, and look at all files of Python's: it blocks.
        """
        ...

    def prepare(self, options: LaunchOptions) -> Launch:
        """See ``prepare`` below."""
        ...


def mechanism(name: str) -> Mechanism:
    """Return a mechanism by its name. Raises ``ConfigError`` for an unknown one."""
    if name not in MECHANISMS:
        raise ConfigError(f"there is no sandbox called {name!r}", hint=f"The ones there are: {', '.join(MECHANISMS)}.")
    return cast(Mechanism, import_module(f"p2p_ipython.sandbox.mechanisms.{name}"))


def prepare(name: str, options: LaunchOptions) -> Launch:
    """Make what a mechanism needs to start one runner.

    Raises ``ConfigError`` for an unknown mechanism, ``OSError`` when there is no room for a scratch folder.
    """
    return mechanism(name).prepare(options)


MECHANISMS = (
    *("bubblewrap", "podman", "apptainer", "landlock", "docker", "firejail"),
    *("seatbelt", "landrun", "qemu", "process"),
)
"""Each is a module in mechanisms/. Those with a wall come first, in the order in which ``auto`` tries them."""

AUTO = "auto"
"""In place of a mechanism's name: the first one that passes its self-test."""

CHOICES = (AUTO, *MECHANISMS)

BY_NAME = ("seatbelt", "landrun", "qemu")
"""Those that ``auto`` never tries: a lender has to ask for them."""

START_DEADLINES = {"qemu": 300.0}
"""Seconds that a runner may take to be ready, where they are more than for others: a machine may have to boot."""

WITH_NETWORK = ("bubblewrap",)
"""Those that can give tasks the internet without the lender's own network."""

WITH_MOUNTS = ("bubblewrap", "podman", "apptainer", "landlock", "docker", "firejail", "seatbelt", "landrun")
"""Those that can share folders and files on purpose."""

WITH_GRAPHICS = ("bubblewrap", "podman", "apptainer", "docker")
"""Those that can give tasks the lender's graphics cards, and those alone."""

HIDING = ("bubblewrap", "podman", "apptainer", "docker")
"""Those that can share a folder without all that is in it."""


def unable(name: str, options: LaunchOptions) -> tuple[str, tuple[str, ...]] | None:
    """Return what a mechanism with a wall can't do of what is asked for, in words, and those that can; None if all."""
    if options.network and name not in WITH_NETWORK:
        return "give tasks the internet and keep your own network from them", WITH_NETWORK
    if options.mounts and name not in WITH_MOUNTS:
        return "share files with tasks", WITH_MOUNTS
    if options.graphics is not None and name not in WITH_GRAPHICS:
        return "give tasks graphics cards", WITH_GRAPHICS
    if any(each.hidden for each in options.mounts) and name not in HIDING:
        return "share a folder without its dot files", HIDING
    return None


def runner_arguments(
    options: LaunchOptions,
    scratch: str,
    *,
    walled: bool,
    modeless: bool = False,
    filtered: bool = False,
    held: bool = False,
    wall: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return what follows a Python interpreter in a runner's command line; ``scratch`` is as the runner sees it.

    ``walled``: the runner's user id counts this runner's processes alone, so that their number can be bounded.
    ``modeless``: it has to hold calls on modes of files, because the wall doesn't. ``filtered``: it has to hold what
    namespaces leave open, because nothing outside does. ``held``: a cgroup outside holds ``cpus``, or a
    machine that has no more cores. ``wall``: it has to build its wall itself, of this.
    ``-P``: what lies in the runner's folder can't pass for a module of ours.
    """
    arguments = {
        "scratch": scratch,
        "memory": options.memory,
        "processes": options.processes if walled or modeless else 0,
        "counted": walled,
        "disk": options.disk if walled or modeless else 0,
        "output_limit": options.output_limit,
        "place": options.place,
        "path": list(options.path),
        "folder": options.folder,
        "packages": options.packages,
        "modeless": modeless,
        "polite": options.polite or walled or modeless,
        "cores": [] if held else list(options.cores),
        "firmly": walled or modeless,
        "filtered": filtered,
        "wall": dict(wall) if wall is not None else None,
    }
    return ["-P", "-m", "p2p_ipython.sandbox.inside.runner", json.dumps(arguments)]
