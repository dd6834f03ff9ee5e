"""Messages from a panel, read and checked where they arrive. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from p2p_ipython.errors import UsageError

MAX_TEXT = 500
MAX_WORDS = 16
MAX_NUMBER = 1_000_000

TEXT, TEXTS, COUNT, NUMBER, FLAG = "text", "list of texts", "whole number", "number", "yes or no"

ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "cancel": {"task": TEXT},
    "show": {"task": TEXT},
    "halt": {"group": TEXT},
    "again": {"group": TEXT},
    "connect": {"target": TEXT},
    "disconnect": {},
    "invite": {"title": TEXT, "who": TEXT},
    "approve": {"key": TEXT, "title": TEXT, "called": TEXT},
    "refuse": {"key": TEXT, "title": TEXT},
    "revoke": {"title": TEXT, "member": TEXT},
    "trust": {"member": TEXT},
    "distrust": {"member": TEXT},
    "lend": {
        "title": TEXT,
        "slots": COUNT,
        "hours": NUMBER,
        "only": TEXTS,
        "tags": TEXTS,
        "sandbox": TEXT,
        "gpu": FLAG,
        "cpus": NUMBER,
        "ask": FLAG,
    },
    "pause": {"lending": TEXT},
    "resume": {"lending": TEXT},
    "stop": {"lending": TEXT},
    "answer": {"number": COUNT, "answer": TEXT},
    "log": {"lending": TEXT},
    "welcome": {"lending": TEXT, "key": TEXT},
}
"""All actions, and the arguments of each."""


@dataclass(frozen=True)
class Hello:
    """A panel asks for all there is."""

    view: str


@dataclass(frozen=True)
class Code:
    """A widget asks for its second module."""


@dataclass(frozen=True)
class Do:
    """A panel asks for an action. The answer carries the same ``id``."""

    id: int
    action: str
    args: Mapping[str, Any]


def read(data: object) -> Hello | Code | Do | None:
    """Read what a browser has sent; return None if it is no message of the contract."""
    if not isinstance(data, dict):
        return None
    if data.get("t") == "hello":
        return Hello("widget" if data.get("view") == "widget" else "sidebar")
    if data.get("t") == "more":
        return Code()
    if data.get("t") != "do":
        return None
    id, action, args = data.get("id"), data.get("action"), data.get("args", {})
    if not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < 1 << 53:
        return None
    if not isinstance(action, str) or not isinstance(args, dict):
        return None
    return Do(id, action[:MAX_TEXT], args)


def checked(asked: Do) -> dict[str, Any]:
    """Return the arguments of an action, each of its right kind. Raises ``UsageError``.

    Missing arguments become "", 0, () or False; unknown ones are left out.
    """
    wanted = ARGUMENTS.get(asked.action)
    if wanted is None:
        raise UsageError(f"a panel can't ask for {asked.action!r}", hint="Reload the page.")
    return {name: _argument(name, kind, asked.args.get(name)) for name, kind in wanted.items()}


def _argument(name: str, kind: str, value: object) -> Any:
    if kind is TEXT:
        if value is None or _is_text(value):
            return (value or "").strip()
    elif kind is TEXTS:
        words = [] if value is None else value
        if isinstance(words, list) and all(_is_text(word) for word in words):
            if len(words) > MAX_WORDS:
                raise UsageError(f"{name}: {len(words)} are too many", hint=f"Give {MAX_WORDS} at most.")
            return tuple(word.strip() for word in words if word.strip())
    elif kind is FLAG:
        if value is None or isinstance(value, bool):
            return bool(value)
    else:
        number = 0 if value is None else value
        if isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= MAX_NUMBER:
            if kind is NUMBER:
                return float(number)
            if number == int(number):
                return int(number)
    raise UsageError(f"{name} should be a {kind}, and is not", hint="Reload the page.")


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()
