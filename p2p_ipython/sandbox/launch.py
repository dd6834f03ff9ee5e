"""How a runner is started and ended: one interface, one small module a mechanism.

A mechanism turns ``LaunchOptions`` into a ``Launch``: what to start, in which environment, how to end it. It
promises that the command speaks the runner's frames over its stdin and stdout, that it ends when its stdin
does, and that nothing which a task has started outlives it.

POSIX only.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

from p2p_ipython.errors import ConfigError


@dataclass(frozen=True)
class LaunchOptions:
    """What runners are to be like.

    ``memory``: bytes a task may use, 0 for no limit. ``output_limit``: bytes of output that are sent a task.
    ``scratch``: where scratch folders are made; None is the system's temporary folder. ``path``: folders of
    modules that tasks may import, after all others. ``extra_env``: added to the environment as it is.
    """

    memory: int = 0
    output_limit: int = 8 << 20
    scratch: Path | None = None
    path: tuple[str, ...] = ()
    extra_env: Mapping[str, str] = field(default_factory=dict)


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

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Have the runner and all it has started killed soon, in order; returns at once."""

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """The same by force, for when ``end`` has no effect; blocks for a moment."""

    def clean(self) -> None:
        """Remove what is left of it on disk; blocks. Call it when it has ended."""


def prepare(mechanism: str, options: LaunchOptions) -> Launch:
    """Make what ``mechanism`` needs to start one runner.

    Raises ``ConfigError`` for an unknown mechanism, ``OSError`` when there is no room for a scratch folder.
    """
    module = _MECHANISMS.get(mechanism)
    if module is None:
        raise ConfigError(
            f"there is no sandbox called {mechanism!r}", hint=f"The ones there are: {', '.join(_MECHANISMS)}."
        )
    make: Callable[[LaunchOptions], Launch] = import_module(module).prepare
    return make(options)


_MECHANISMS = {"process": "p2p_ipython.sandbox.mechanisms.process"}


def runner_command(options: LaunchOptions, scratch: Path) -> list[str]:
    """The runner's command line. ``-P``: what lies in its folder can't pass for a module of ours."""
    arguments = {
        "scratch": str(scratch),
        "memory": options.memory,
        "output_limit": options.output_limit,
        "path": list(options.path),
    }
    return [sys.executable, "-P", "-m", "p2p_ipython.sandbox.inside.runner", json.dumps(arguments)]


def runner_env(options: LaunchOptions, home: Path, temporary: Path) -> dict[str, str]:
    """The runner's environment: a few names from ours, and what makes it a good guest.

    Everything else stays out: tokens, agent sockets, proxies' passwords.
    """
    env = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    # Packages that were installed with `pip install --user` are found by the home folder, which is another one there.
    if os.path.isabs(base := site.getuserbase()):  # it isn't for a user without a home folder
        env["PYTHONUSERBASE"] = base
    env |= {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "IPYTHONDIR": str(home / ".ipython"),
        "MPLCONFIGDIR": str(home / ".matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # Several slots a machine are how its cores are shared, not several threads a slot.
    env |= dict.fromkeys(_THREADS, "1")
    return env | dict(options.extra_env)


_PASSED = frozenset(
    {
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "USER",
        "LOGNAME",
        "SHELL",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONNOUSERSITE",
        "CONDA_PREFIX",
        "OPENBLAS_CORETYPE",
        "MKL_DEBUG_CPU_TYPE",
        "MKL_ENABLE_INSTRUCTIONS",
        "MKL_CBWR",
        "NPY_DISABLE_CPU_FEATURES",
        "CUDA_VISIBLE_DEVICES",
    }
)

_PASSED_PREFIXES = ("LC_",)

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
