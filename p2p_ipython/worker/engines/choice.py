"""What ``--engine`` names, and what can't be asked for beside it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from p2p_ipython.errors import ConfigError
from p2p_ipython.lending.policy import Policy
from p2p_ipython.protocol.messages import NO_WALL

_DASK = re.compile(r"dask(\+tls)?://([^/\s]+:[0-9]{1,5})/?")
_FACTORY = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Dask:
    """The scheduler of a dask cluster; ``address`` as dask writes it."""

    address: str
    word = "dask"


@dataclass(frozen=True)
class Factory:
    """A function without arguments that returns a ``concurrent.futures.Executor``."""

    module: str
    name: str
    word = "executor"


def read_choice(text: str) -> Dask | Factory:
    """Read the option. Raises ``ConfigError``."""
    if (found := _DASK.fullmatch(text)) is not None:
        return Dask(f"{'tls' if found[1] else 'tcp'}://{found[2]}")
    if (found := _FACTORY.fullmatch(text)) is not None:
        return Factory(found[1], found[2])
    raise ConfigError(
        f"{text[:200]!r} names no engine",
        hint="Give the scheduler of a dask cluster, as dask://HOST:8786, or a function that returns an Executor of"
        " concurrent.futures, as module:factory.",
    )


def check(choice: Dask | Factory, policy: Policy, *, sandbox: str, lends_to_others: bool) -> None:
    """Refuse what an engine can't do. Raises ``ConfigError``."""
    what = f"the engine {choice.word}"
    if sandbox not in ("", NO_WALL):
        raise ConfigError(
            f"the sandbox {sandbox} is this machine's, and tasks would run in {what}",
            hint=f"Leave --sandbox out, or say --sandbox {NO_WALL}.",
        )
    if lends_to_others and sandbox != NO_WALL:
        raise ConfigError(
            f"{what} is no sandbox: tasks of friends would reach all that its workers reach",
            hint=f"If you trust all to whom you lend as you trust yourself, say so: --sandbox {NO_WALL}.",
        )
    asked: Mapping[str, object] = {
        "--memory": policy.limits.memory,
        "--cpus": policy.limits.cpus,
        "--disk": policy.limits.disk,
        "--processes": policy.limits.processes,
        "--mount": policy.mounts,
        "--network": policy.network,
        "--gpu": policy.gpu,
    }
    if given := [option for option, value in asked.items() if value]:
        raise ConfigError(
            f"{' and '.join(given)} can't hold for {what}: memory, processors, files and networks are its own",
            hint="Leave them out here, and in the policy's file; the engine's own settings bound its workers.",
        )
