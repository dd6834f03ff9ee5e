"""The options of one task, as a value: checked where it is made, so that no code behind it has to.

The same for cells (``%%p2p --tags gpu``) and calls (``cluster.options(tags="gpu")``). Each wrong value is a
``ConfigError`` that says what to give.
"""

from __future__ import annotations

# The extension loads this: what is heavy is imported where it is needed.
import builtins
import difflib
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from p2p_ipython.config import parse_duration, parse_size
from p2p_ipython.errors import CaptureError, ConfigError

MAX_RETRIES = 1000
MAX_PRIORITY = 1_000_000
MAX_GPUS = 64
MAX_MEMORY = 1 << 50
MAX_NAMES = 100
"""Members, workers or files that one option names."""

usual_loggers: Callable[[], tuple[str, ...]] = lambda: ()  # noqa: E731 - a setting; the magics put theirs here
"""Returns the loggers whose records are relayed where none are named."""

_CLASS = re.compile(r"[^\W\d]\w*(?:\.(?:[^\W\d]\w*|<locals>))*")


@dataclass(frozen=True)
class TaskOptions:
    """What is to hold for a task.

    ``label``: its name in lists; "" for its own. ``retries``: how often it runs again after it has raised; None as the
    settings say. ``retry_on``: names of the classes of errors after which it does, as ``module.Class``. ``timeout``:
    seconds that it may run; None: any number. ``once``: never start it a second time. ``priority``: tasks that wait
    here go in its order, the highest first. ``on``: names of members or workers, one of which runs it. ``tags``: words
    that its worker has. ``seed``: of its random numbers. ``memory``: bytes that it may use; ``gpus``: graphics cards
    that it has. ``files``: names of files that go with it. ``stdout``: when its output is shown: "live", at the
    "end", or not ("off"). ``log``: the loggers whose records in the task are handled here, None for the usual ones.
    ``lazy``: it runs only
    when its value is asked for.

    They may be given in the forms that people write, as ``memory="2G"``, ``on="bob"`` and ``retry_on=ValueError``.
    """

    label: str = ""
    retries: int | None = None
    retry_on: tuple[str, ...] = ("builtins.Exception",)
    timeout: float | None = None
    once: bool = False
    priority: int = 0
    on: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    seed: int | None = None
    memory: int = 0
    gpus: int = 0
    files: tuple[str, ...] = ()
    stdout: str = "live"
    log: tuple[str, ...] | None = None
    lazy: bool = False

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not each.default:
                object.__setattr__(self, each.name, _READERS[each.name](value))
        if self.once and self.retries:
            raise ConfigError(
                "once and retries contradict one another: a task that runs once at most can't be tried again",
                hint="Leave one of them out.",
            )

    def changed(self, given: Mapping[str, Any]) -> TaskOptions:
        """Return them with some replaced; a value of None replaces nothing. Raises ``ConfigError``."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def with_loggers(self) -> TaskOptions:
        """Return them with the usual loggers named, if none are."""
        usual = usual_loggers() if self.log is None else ()
        return replace(self, log=usual) if usual else self

    def attempts_after_errors(self, usual: int) -> int:
        """Return how often the task runs again after errors, if ``usual`` is the setting."""
        return 0 if self.once else usual if self.retries is None else self.retries


# --- reading ---


def _wrong(name: str, value: object, hint: str) -> ConfigError:
    return ConfigError(f"{name} is {value!r:.60}, which can't be", hint=hint)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong("label", value, "Give a text, as label='tiles'.")
    return value


def _whole(name: str, least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        try:
            number = operator.index(value)  # type: ignore[arg-type]  # it says so itself
        except TypeError:
            number = least - 1
        if isinstance(value, bool) or not least <= number <= most:
            raise _wrong(name, value, f"Give a whole number from {least} to {most}, as {name}=2.")
        return number

    return read


def _flag(name: str) -> Callable[[object], bool]:
    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise _wrong(name, value, f"Give True or False, as {name}=True.")
        return value

    return read


def _names(name: str, example: str) -> Callable[[object], tuple[str, ...]]:
    """Return what reads names: a text, with commas between several, or a list of texts."""

    def read(value: object) -> tuple[str, ...]:
        found = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [None]
        words = tuple(dict.fromkeys(each.strip() if isinstance(each, str) else "" for each in found))
        if not all(words) or len(words) > MAX_NAMES or any(len(word) > 1000 for word in words):
            raise _wrong(name, value, f"Give a name or a list of names, as {name}={example}.")
        return words

    return read


def _tags(value: object) -> tuple[str, ...]:
    from p2p_ipython.protocol.messages import MAX_TAGS, TAG

    tags = _names("tags", "'gpu'")(value)
    if len(tags) > MAX_TAGS or not all(map(TAG.fullmatch, tags)):
        hint = f"Give up to {MAX_TAGS} words of small letters, digits, '.', '_' and '-', as tags='gpu'."
        raise _wrong("tags", value, hint)
    return tags


def _memory(value: object) -> int:
    size = parse_size(value) if isinstance(value, str) else value
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= MAX_MEMORY:
        raise _wrong("memory", value, "Give whole bytes, or a text as memory='2G'.")
    return size


def _timeout(value: object) -> float:
    seconds = parse_duration(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e9:
        raise _wrong("timeout", value, "Give seconds, or a text as timeout='5m'.")
    return float(seconds)


def _stdout(value: object) -> str:
    if value not in ("live", "end", "off"):
        raise _wrong("stdout", value, "Give 'live', 'end' or 'off'.")
    return str(value)


def _loggers(value: object) -> tuple[str, ...]:
    from p2p_ipython.task.relayed import MAX_LOGGERS

    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    if len(names) > MAX_LOGGERS or not all(isinstance(name, str) and len(name) <= 200 for name in names):
        raise _wrong("log", value, f'Give at most {MAX_LOGGERS} names of loggers; "" is the root.')
    return tuple(dict.fromkeys("" if name == "root" else str(name) for name in names))


def _classes(value: object) -> tuple[str, ...]:
    """Return names of classes, given as classes or by name: that of a built-in one, or ``module.Class``."""
    each = value.split(",") if isinstance(value, str) else value if isinstance(value, tuple | list) else [value]
    found = tuple(dict.fromkeys(map(_class, each)))
    if not 0 < len(found) <= MAX_NAMES:
        raise _wrong("retry_on", value, _CLASSES)
    return found


_CLASSES = "Give classes of errors, as retry_on=(ConnectionError, TimeoutError)."


def _class(value: object) -> str:
    if isinstance(value, type) and issubclass(value, BaseException):
        return f"{value.__module__}.{value.__qualname__}"
    name = value.strip() if isinstance(value, str) else ""
    if "." in name and _CLASS.fullmatch(name) and len(name) <= 500:
        return name
    known = {
        name: cls for name, cls in vars(builtins).items() if isinstance(cls, type) and issubclass(cls, BaseException)
    }
    if name in known:
        return f"builtins.{known[name].__name__}"
    like = difflib.get_close_matches(name, known, 1)
    raise _wrong("retry_on", value, f"Did you mean {like[0]}?" if like else _CLASSES)


def checked(seed: Any) -> int:
    """Return a seed as a whole number. Raises ``CaptureError`` for one that is none."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 128:
        raise CaptureError(
            f"{seed!r:.80} is no seed", hint="Give a whole number, from 0 to 2**128 - 1: cluster.seeded(42)."
        )
    return number


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "label": _text,
    "retries": _whole("retries", 0, MAX_RETRIES),
    "retry_on": _classes,
    "timeout": _timeout,
    "once": _flag("once"),
    "priority": _whole("priority", -MAX_PRIORITY, MAX_PRIORITY),
    "on": _names("on", "'bob'"),
    "tags": _tags,
    "seed": checked,
    "memory": _memory,
    "gpus": _whole("gpus", 0, MAX_GPUS),
    "files": _names("files", "'data.csv'"),
    "stdout": _stdout,
    "log": _loggers,
    "lazy": _flag("lazy"),
}

USUAL = TaskOptions()
"""The options of a task that has none."""
