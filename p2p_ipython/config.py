"""One table of settings: name, default, unit, help.

A setting's value is, first found: an argument of the call, the environment (``P2P_LEASE=60``), the default
here. ``Settings.load()`` reads the environment; everything below the entry points gets a ``Settings`` and
never looks at the environment itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from p2p_ipython.errors import ConfigError

MIB = 1 << 20


def _setting(default: float, unit: str, text: str) -> Any:
    return field(default=default, metadata={"unit": unit, "help": text})


@dataclass(frozen=True)
class Settings:
    """All settings; README.md's table is made from it (a test compares them)."""

    attempts: int = _setting(3, "", "How many workers may start a task before it fails as WorkerLost.")
    retries: int = _setting(0, "", "How often a task that raises an error runs again, if its options don't say.")
    heartbeat: float = _setting(5.0, "s", "How often an idle link is probed.")
    lease: float = _setting(30.0, "s", "How long a link may be away before its tasks are given to others.")
    meet: float = _setting(20.0, "s", "How long a client waits for a worker that it asked to meet.")
    request_every: float = _setting(15.0, "s", "How often a client asks the board for a worker while it has none.")
    presence: float = _setting(30.0, "s", "How often a member says hello on the board.")
    backlog: int = _setting(16, "tasks", "How many short tasks may wait at a worker for each of its slots.")
    hold: float = _setting(0.25, "s", "How long a task may wait at a worker before it is handed back.")
    cancel_grace: float = _setting(2.0, "s", "How long an interrupted task may tidy up before it is killed.")
    client_cache: int = _setting(256 * MIB, "bytes", "Large buffers the client keeps, to send them again.")
    worker_cache: int = _setting(512 * MIB, "bytes", "Large buffers a worker keeps, so as not to get them again.")
    runner_cache: int = _setting(512 * MIB, "bytes", "Large buffers a runner keeps.")
    large: int = _setting(MIB, "bytes", "From this size on a buffer travels by its hash, once a worker.")
    output_limit: int = _setting(8 * MIB, "bytes", "Output of one task that is sent; the rest is counted.")
    task_memory: int = _setting(0, "bytes", "Memory a task may use; 0 is 3/4 of the machine's, shared by all slots.")
    task_cpus: float = _setting(0.0, "", "Processor cores that a task may keep busy, also 0.5; 0 is all of them.")
    task_disk: int = _setting(512 * MIB, "bytes", "What a task in a sandbox may write to its scratch folder.")
    task_processes: int = _setting(256, "", "Processes and threads that a task in a sandbox may have.")
    task_time: float = _setting(0.0, "s", "How long a task may run before its worker ends it; 0 is for ever.")
    connect_timeout: float = _setting(15.0, "s", "How long connecting to a board may take.")

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """Read the settings; ``given`` ones (None: not given) win over the environment.

        Raises ``ConfigError`` for a name that doesn't exist or a value that isn't a non-negative number.
        """
        environ = os.environ if environ is None else environ
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for name, setting in known.items():
            variable = f"P2P_{name.upper()}"
            if variable in environ:
                values[name] = _number(variable, environ[variable], type(setting.default))
        for name, value in given.items():
            if name not in known:
                raise ConfigError(f"there is no setting {name!r}", hint=f"The settings are: {', '.join(known)}.")
            if value is not None:
                values[name] = _number(name, value, type(known[name].default))
        return cls(**values)


def _number(name: str, value: object, kind: type) -> float | int:
    try:
        number = kind(value)
        if not 0 <= number < float("inf"):
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(
            f"{name} is {str(value)[:40]!r}, which is not a number of 0 or more",
            hint=f"Set it to {'a whole number' if kind is int else 'a number'}.",
        ) from None
    return number  # type: ignore[no-any-return]


_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``512M``, ``2G`` or ``1.5GiB``; units are powers of 1024, bare are bytes.

    Raises ``ConfigError``.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None or (size := int(float(found[1]) * _SIZES[found[2].upper()])) < 1:
        raise ConfigError(f"{text[:40]!r} is not a size such as 512M or 2G")
    return size


def parse_amount(text: str) -> float:
    """Return an amount of processor cores such as ``2`` or ``0.5``. Raises ``ConfigError``."""
    found = re.fullmatch(r"\d{1,6}(?:\.\d+)?", text.strip())
    if found is None or float(text) < 0.01:
        raise ConfigError(f"{text[:40]!r} is not an amount such as 2 or 0.5, of 0.01 or more")
    return float(text)


def parse_count(text: str) -> int:
    """Return a whole number of 1 or more. Raises ``ConfigError``."""
    if not re.fullmatch(r"[1-9]\d{0,8}", text.strip()):
        raise ConfigError(f"{text[:40]!r} is not a whole number of 1 or more")
    return int(text)


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Seconds in a duration such as ``90s``, ``30m``, ``2h``, ``14d`` or ``1h30m``; a bare number is seconds.

    Raises ``ConfigError``.
    """
    number = r"\d+(?:\.\d+)?"
    if re.fullmatch(number, text):
        seconds = float(text)
    elif re.fullmatch(rf"(?:{number}[smhd])+", text):
        seconds = sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(rf"({number})([smhd])", text))
    else:
        raise ConfigError(f"{text[:40]!r} is not a duration such as 90s, 30m, 2h or 14d")
    if seconds <= 0:
        raise ConfigError("a duration must be more than nothing")
    return seconds


def data_dir() -> Path:
    """Return the folder of this user's p2p_ipython data, which need not be there yet; P2P_DATA if it is set.

    Raises ``ConfigError`` if this user has no home folder and P2P_DATA is not set, or P2P_DATA is no folder.
    """
    return _folder_of_this_user("user_data_dir", "P2P_DATA")


def cache_dir() -> Path:
    """Return the folder of what this user can have made again, which need not be there yet; P2P_CACHE if it is set.

    Raises ``ConfigError`` as ``data_dir`` does.
    """
    return _folder_of_this_user("user_cache_dir", "P2P_CACHE")


def _folder_of_this_user(name: str, variable: str) -> Path:
    import platformdirs  # late: most programs that read settings have no need of it

    if given := os.environ.get(variable):
        if os.path.exists(given) and not os.path.isdir(given):
            raise ConfigError(
                f"{variable} is {given[:200]}, which is no folder", hint="Set it to a folder; it need not exist yet."
            )
        return Path(given)
    try:
        path = Path(getattr(platformdirs, name)("p2p_ipython", appauthor=False))
    except RuntimeError:  # its older versions return a path from "~" on
        path = Path()
    if not path.is_absolute():
        words = "this user has no home folder to keep things in"
        raise ConfigError(words, hint=f"Set {variable} to a folder of yours.")
    return path


def make_private(folder: Path) -> None:
    """Make a folder, and the one that it is in, with mode 0700 if they are missing. Raises ``OSError``."""
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)


def stand_in_for_home() -> None:
    """Set HOME to a place that holds nothing, if this user has no home folder: libraries refuse to do without one."""
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = os.devnull
