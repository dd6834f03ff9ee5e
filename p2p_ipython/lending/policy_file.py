"""The text of a policy, in TOML: read, and written for people.

A mistake is a ``PolicyError`` that names file, line and column, and what to write instead. Options of commands go
through the same rules (``amended``), and win over the file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from p2p_ipython import private_files
from p2p_ipython.config import data_dir, parse_duration, parse_size
from p2p_ipython.errors import ConfigError
from p2p_ipython.lending.policy import Limits, Policy, parse_hours
from p2p_ipython.protocol.messages import MAX_TAGS, TAG
from p2p_ipython.protocol.packages import canonical_name, is_requirement, name_of

MAX_POLICY = 64 << 10
"""Bytes of a policy's file."""

MAX_SHOWN = 8000
"""Characters of a policy that a worker says of itself."""

_MOST = 100  # entries of a list

TEMPLATE = """\
# What this machine lends, to whom and when. `p2p lending policy --check` reads it; workers heed a change within
# seconds, but those of slots, limits, network, gpu and mounts when they start next.

# who = "all"                  # or "known": the members that you have said yes to; or names, as ["bob", "carol"]
# hours = ["Mon-Fri 18:00-08:00", "Sat,Sun"]
# idle = "10m"                 # only when nobody has used keyboard or mouse for so long
# mains = true                 # only on mains power
# load = 1.5                   # only while other programs keep no more processors busy
# gpu_load = 0.1               # only while they keep no more graphics cards busy (needs nvidia-ml-py)
# slots = 2                    # tasks at a time
# input = "1G"                 # the most that one task may bring
# bytes_in = "20G"             # the most that tasks may bring in a day ...
# bytes_out = "20G"            # ... and take along
# network = false              # whether tasks have the internet
# gpu = false                  # whether tasks have the graphics cards
# mounts = ["/data:ro"]        # folders and files that are shared with tasks
# packages = "never"           # or "ask", "any", or names, as ["polars"]: what others' tasks may have installed
# ask = false                  # whether you are asked before each task, in the worker's terminal or notebook
# tags = ["gpu"]               # what the machine is good for

[limits]                       # of each task
# memory = "4G"
# cpus = 2
# disk = "1G"
# processes = 256
# time = "1h"
"""


class PolicyError(ConfigError):
    """A policy can't be read."""


class _Mistake(ValueError):
    """A value is not as its key wants it; the text says how it is to be."""


def default_path() -> Path:
    """Return the place of this user's policy, which need not be there. Raises ``ConfigError`` as ``data_dir`` does."""
    return data_dir() / "lending.toml"


def load(path: Path) -> Policy:
    """Read a policy's file. Raises ``PolicyError``, also if there is none."""
    try:
        data = private_files.read(path.resolve(), MAX_POLICY)
    except OSError as error:
        raise PolicyError(f"the policy can't be read: {error}", hint="p2p lending policy --edit makes one.") from None
    if data is None:
        raise PolicyError(f"there is no policy at {path}", hint="p2p lending policy --edit makes one.")
    if len(data) > MAX_POLICY:
        raise PolicyError(f"{path} is no policy: it is longer than {MAX_POLICY >> 10} KiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, column = _place(data[: error.start].decode(errors="replace"))
        raise PolicyError(f"{path}, line {line}, column {column}: not UTF-8") from None
    return parse(text, str(path))


def parse(text: str, name: str = "policy") -> Policy:
    """Read a policy. Raises ``PolicyError``, whose words begin with the ``name``, line and column of the mistake."""
    text = text.replace("\r\n", "\n")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        words = str(error)
        found = re.search(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)", words)
        line, column = (int(found[1]), int(found[2])) if found and found[1] else _place(text)
        words = words[: found.start()] if found else words
        raise PolicyError(
            f"{name}, line {line}, column {column}: {words[:1].lower()}{words[1:]}",
            hint='A line is as: idle = "10m". p2p lending policy shows all keys.',
        ) from None
    except RecursionError:
        raise PolicyError(f"{name}, line 1, column 1: too deeply nested") from None
    return _read(table, text, name)


def amended(policy: Policy, given: Mapping[str, Any], where: str = "the options") -> Policy:
    """Return the policy with some values replaced; a key of a limit is as ``limits.memory``. Raises ``PolicyError``.

    Values are as a file has them. None says nothing.
    """
    table: dict[str, Any] = {}
    for key, value in given.items():
        if value is not None:
            section, _, name = key.rpartition(".")
            (table.setdefault(section, {}) if section else table)[name] = value
    return _read(table, "", where, policy)


def _read(table: Mapping[str, Any], text: str, name: str, base: Policy | None = None) -> Policy:
    base = base or Policy()
    where, limits = _Text(text, name), table.get("limits", {})
    if not isinstance(limits, dict):
        raise where.mistake("", "limits", "limits is a table", hint="Write its entries below a line with [limits].")
    values = {key: _value(where, "", key, value) for key, value in table.items() if key != "limits"}
    bounds = {key: _value(where, "limits", key, value) for key, value in limits.items()}
    return replace(base, **values, limits=replace(base.limits, **bounds))


def _value(where: _Text, section: str, key: str, value: object) -> Any:
    rules = _RULES[section]
    rule = rules.get(key)
    if rule is None:
        near = difflib.get_close_matches(key, rules, 1)
        other = "limits" if not section and key in _RULES["limits"] else ""
        hint = f"Write it below [{other}]." if other else f"Did you mean {near[0]}?" if near else ""
        words = f"there is no key {key[:40]!r}{f' in [{section}]' if section else ''}"
        raise where.mistake(section, key, words, hint=hint or f"The keys are: {', '.join(rules)}.", of_key=True)
    try:
        return rule.read(value)
    except ConfigError as error:
        hint = error.hint or f"Write {rule.says}."
        raise where.mistake(section, key, f"{key}: {error.message}", hint=hint) from None
    except _Mistake as error:
        shown = str(value)[:40] if isinstance(value, str | int | float) else type(value).__name__
        words = f"{key} is {shown!r}, which is not {error}"
        raise where.mistake(section, key, words, hint=f"Write {rule.says}.") from None


class _Text(NamedTuple):
    """A policy's text, "" where options are meant, and what it is called."""

    text: str
    name: str

    def mistake(self, section: str, key: str, words: str, *, hint: str, of_key: bool = False) -> PolicyError:
        """Return the error of a key, or of its value."""
        if not self.text:
            return PolicyError(f"{self.name}: {words}", hint=hint)
        line, column = _find(self.text, section, key, of_key=of_key)
        return PolicyError(f"{self.name}, line {line}, column {column}: {words}", hint=hint)


def _find(text: str, section: str, key: str, *, of_key: bool) -> tuple[int, int]:
    """Return line and column of a key, or of its value. tomllib says them of broken syntax only."""
    inside = ""
    name = rf"[\"']?{re.escape(key)}[\"']?"
    dotted = rf"{re.escape(section)}\s*\.\s*{name}"
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(r"\s*\[\s*[\"']?([^\]\"']*?)[\"']?\s*\]", line):
            inside = header[1]
            if not section and inside == key:
                return number, header.start(1) + 1
        pattern = name if inside == section else dotted if section and not inside else None
        if pattern and (found := re.match(rf"\s*({pattern})\s*[=.]\s*", line)):
            return number, (found.start(1) if of_key else found.end()) + 1
    return 1, 1


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


# -- the rules --


class _Rule(NamedTuple):
    read: Callable[[object], object]
    says: str


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _Mistake("true or false")


def _whole(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if type(value) is int and least <= value <= most:
            return value
        raise _Mistake(f"a whole number from {least} to {most}")

    return read


def _number(value: object) -> float:
    if type(value) in (int, float) and 0 < value < 1e6:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise _Mistake("a number above 0")


def _size(value: object) -> int:
    if isinstance(value, str):
        return parse_size(value)
    if type(value) is int and 0 < value < 1 << 60:
        return value
    raise _Mistake("a size")


def _seconds(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if type(value) in (int, float) and 0 < value < 1e9:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise _Mistake("a time")


def _texts(value: object) -> tuple[str, ...]:
    each = [value] if isinstance(value, str) else value
    if not isinstance(each, list | tuple) or len(each) > _MOST or not all(isinstance(one, str) and one for one in each):
        raise _Mistake(f"a list of at most {_MOST} texts")
    return tuple(dict.fromkeys(each))


def _who(value: object) -> object:
    if value in ("all", "known"):
        return value
    names = _texts(value)
    if not names:
        raise _Mistake("all, known or names")
    return names


def _hours(value: object) -> object:
    return tuple(parse_hours(each) for each in _texts(value))


def _packages(value: object) -> object:
    if value in ("never", "ask", "any"):
        return value
    names = tuple(canonical_name(name) for name in _texts(value))
    wrong = next((name for name in names if not is_requirement(name) or name != name_of(name)), None)
    if wrong is not None:
        raise ConfigError(f"{wrong[:40]!r} is no package's name")
    return names


def _tags(value: object) -> object:
    tags = _texts(value)
    wrong = next((tag for tag in tags if not TAG.fullmatch(tag)), None)
    if wrong is not None:
        raise ConfigError(f"{wrong[:40]!r} is no tag")
    if len(tags) > MAX_TAGS:
        raise _Mistake(f"a list of at most {MAX_TAGS} tags")
    return tags


_RULES: Mapping[str, Mapping[str, _Rule]] = {
    "": {
        "who": _Rule(_who, '"all", "known", or names or fingerprints, as ["bob", "carol"]'),
        "hours": _Rule(_hours, 'hours such as ["Mon-Fri 18:00-08:00", "Sat,Sun"]'),
        "idle": _Rule(_seconds, 'a time such as "10m"'),
        "mains": _Rule(_flag, "true or false"),
        "load": _Rule(_number, "a number of processors, as 1.5"),
        "gpu_load": _Rule(_number, "a number of graphics cards, as 0.1"),
        "slots": _Rule(_whole(1, 256), "a whole number from 1 to 256"),
        "input": _Rule(_size, 'a size such as "512M" or "2G"'),
        "bytes_in": _Rule(_size, 'a size such as "20G"'),
        "bytes_out": _Rule(_size, 'a size such as "20G"'),
        "network": _Rule(_flag, "true or false"),
        "gpu": _Rule(_flag, "true or false"),
        "mounts": _Rule(_texts, 'paths such as ["/data:ro"]'),
        "packages": _Rule(_packages, '"never", "ask", "any", or names, as ["polars"]'),
        "ask": _Rule(_flag, "true or false"),
        "tags": _Rule(_tags, 'words of small letters, digits, ".", "_" and "-", as ["gpu"]'),
    },
    "limits": {
        "memory": _Rule(_size, 'a size such as "2G"'),
        "cpus": _Rule(_number, "a number of cores, as 2 or 0.5"),
        "disk": _Rule(_size, 'a size such as "1G"'),
        "processes": _Rule(_whole(1, 1 << 20), "a whole number of 1 or more"),
        "time": _Rule(_seconds, 'a time such as "10m"'),
    },
}
assert set(_RULES[""]) == {each.name for each in fields(Policy)} - {"limits"}
assert set(_RULES["limits"]) == {each.name for each in fields(Limits)}


# -- for people --


def shown(policy: Policy) -> str:
    """Return the policy as TOML: what differs from a policy without conditions."""
    plain = Policy()
    lines = [f"{name} = {_toml(getattr(policy, name))}" for name in _RULES[""] if _differs(policy, plain, name)]
    bounds = [name for name in _RULES["limits"] if _differs(policy.limits, plain.limits, name)]
    if bounds:
        lines += ["", "[limits]", *(f"{name} = {_toml(getattr(policy.limits, name))}" for name in bounds)]
    return "\n".join(lines).strip()


def conditions(policy: Policy) -> str:
    """Return what ``shown`` says, cut to ``MAX_SHOWN`` characters."""
    text = shown(policy)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN].rpartition(chr(10))[0]}\n# and more"


def _differs(one: object, other: object, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(str(each)) for each in value)}]"
    if isinstance(value, str):
        escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 or c in '\\"' else c for c in value)
        return f'"{escaped}"'
    return repr(value) if isinstance(value, float) else str(value)
