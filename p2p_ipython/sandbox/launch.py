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
from typing import Literal, Protocol, cast

from p2p_ipython.errors import ConfigError


@dataclass(frozen=True)
class LaunchOptions:
    """What runners are to be like.

    ``memory``: bytes a task may use, 0 for no limit. ``disk``: bytes that it may write to its scratch folder.
    ``processes``: how many it may have, threads included. Mechanisms with a wall hold ``disk`` and ``processes``.
    ``output_limit``: bytes of output that are sent a task. ``scratch``: where scratch folders are made; None is the
    system's temporary folder. ``path``: folders of modules that tasks may import, after all others. ``extra_env``:
    added to the environment as it is.
    """

    memory: int = 0
    disk: int = 512 << 20
    processes: int = 256
    output_limit: int = 8 << 20
    scratch: Path | None = None
    path: tuple[str, ...] = ()
    extra_env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Death:
    """How a runner ended, in words that its task's owner can use.

    ``kind``: "exit" (``code`` is the exit code), "signal" (``code`` is the signal's number), "memory" (the
    system killed it when memory ran out), "cancelled" (it didn't heed an interrupt, so we killed it),
    "protocol" (it broke the protocol, so we killed it) or "start" (it never became ready).
    """

    kind: Literal["exit", "signal", "memory", "cancelled", "protocol", "start"]
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

    def death(self, code: int, words: str) -> Death:
        """Say how a runner that was ready has ended. Call it before ``clean``; blocks for a moment.

        ``code`` is the command's exit code (negative: a signal's number), ``words`` what it said last on stderr.
        """
        ...

    def clean(self) -> None:
        """Remove what is left of the runner on disk; blocks. Call it when the runner has ended."""


class Mechanism(Protocol):
    """A module in mechanisms/."""

    def available(self) -> Missing | None:
        """Return why the mechanism can't be used here; None if it may be tried. Quick: it starts nothing."""
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


MECHANISMS = ("bubblewrap", "podman", "apptainer", "landlock", "docker", "process")
"""Each is a module in mechanisms/. Those with a wall come first, in the order in which ``auto`` tries them."""


def runner_arguments(
    options: LaunchOptions, scratch: str, *, walled: bool, landlocked: bool = False, filtered: bool = False
) -> list[str]:
    """Return what follows a Python interpreter in a runner's command line; ``scratch`` is as the runner sees it.

    ``walled``: the runner's user id counts this runner's processes alone, so that their number can be bounded.
    ``landlocked``: the wall is Landlock's, so the runner has to hold what that doesn't. ``filtered``: it has to hold
    what namespaces leave open, because nothing outside does.
    ``-P``: what lies in the runner's folder can't pass for a module of ours.
    """
    arguments = {
        "scratch": scratch,
        "memory": options.memory,
        "processes": options.processes if walled else 0,
        "disk": options.disk if walled or landlocked else 0,
        "output_limit": options.output_limit,
        "path": list(options.path),
        "landlocked": landlocked,
        "filtered": filtered,
    }
    return ["-P", "-m", "p2p_ipython.sandbox.inside.runner", json.dumps(arguments)]
