"""What a machine heard and decided, as lines that hold no secret; and the story of one task, told from such lines.

An event is a call of one of a machine's methods that return actions. ``traced`` wraps these methods, so a machine that
isn't traced pays nothing. A line is a small JSON object::

    {"at": 1764, "who": "client", "own": "6b555fa1", "event": "frame", "frame": {"kind": "result", "id": "t1", …}}
    {"at": 1764, "who": "client", "own": "6b555fa1", "action": "Settle", "task": "t1", "result": {…}}

An event that raises has a line, too, with the name of the exception's class under ``raises``; there are no actions.

Lines hold ids, kinds, states, numbers and sizes: ``_seen`` lets nothing else through. Text that people or tasks have
written, keys, topics, codes, sealed boxes and addresses have no way into a line.

Pure: the caller gives the time, and takes the lines.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar

from p2p_ipython.errors import WorkerLost
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.task_frames import FAILURES, OUTPUTS, Frame

M = TypeVar("M")
Line = dict[str, Any]

SHOWN = 8
"""Characters of a session's id in a line: enough to tell sessions apart."""

_IDS = {"id", "task", "task_id"}
_SIDS = {"sid", "sids", "me", "to"}
_WORDS = {
    "reason": {"busy", "paused", "closing", "refused"},
    "run": {"cell", "call"},
    "what": {*OUTPUTS, *FAILURES},
}
"""Fields whose texts are words of the protocol, and which."""


def traced(machine: M, who: str, sid: bytes, write: Callable[[Line], None]) -> M:
    """Have a machine's events and actions written, from now on. Returns the machine.

    ``who`` is "client", "worker", "member" or "host"; ``sid`` its session. ``write`` gets each line; it must not raise.
    """
    head = {"who": who, "own": sid.hex()[:SHOWN]}
    inside = [False]  # an event may call another one: only the outer one is an event
    for name in events_of(type(machine)):
        setattr(machine, name, _wrapped(getattr(machine, name), name, head, inside, write))
    return machine


def events_of(machine: type) -> list[str]:
    """Return the names of a machine's events: its public methods that return actions."""
    return [
        name
        for name, method in vars(machine).items()
        if not name.startswith("_") and getattr(method, "__annotations__", {}).get("return") == "list[Action]"
    ]


def _wrapped(
    method: Callable[..., Sequence[Any]],
    name: str,
    head: Mapping[str, Any],
    inside: list[bool],
    write: Callable[[Line], None],
) -> Callable[..., Sequence[Any]]:
    names = [each for each in method.__code__.co_varnames[: method.__code__.co_argcount] if each != "self"]

    @wraps(method)
    def event(*args: Any, **kwargs: Any) -> Sequence[Any]:
        if inside[0]:
            return method(*args, **kwargs)
        inside[0] = True
        actions: Sequence[Any] = ()
        raised = {}
        try:
            actions = method(*args, **kwargs)
        except BaseException as error:
            raised = {"raises": type(error).__name__}
            raise
        finally:
            inside[0] = False
            given = dict(zip(names, args, strict=False)) | kwargs
            write({**head, "event": name, **_shown(given), **raised})
            for action in actions:
                write({**head, "action": type(action).__name__, **_shown(_parts(action))})
        return actions

    return event


def _parts(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)} if is_dataclass(value) else {}


def _shown(parts: Mapping[str, Any]) -> Line:
    shown = {name: _seen(name, value) for name, value in parts.items() if name not in ("now", "wall")}
    return {name: value for name, value in shown.items() if value is not None}


def _seen(name: str, value: Any) -> Any:
    """Return what of a value may be seen; None: nothing."""
    match value:
        case bool() | int() | float():
            return value
        case enum.Enum():
            return value.value
        case str():
            return value if name in _IDS or value in _WORDS.get(name, ()) else None
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()[:SHOWN] if name in _SIDS else len(value)
        case Certificate():
            return f"{value.role} {value.sid.hex()[:SHOWN]}"
        case Frame():
            return {"kind": value.kind, **_shown(_parts(value))}
        case BaseException():
            return type(value).__name__
        case list() | tuple() | set() | frozenset() | dict():
            return [_seen(name, each) for each in value] if name == "sids" else len(value)
        case None:
            return None
    if is_dataclass(value) and not isinstance(value, type):
        shown = _shown(_parts(value))
        return {"kind": type(value).__name__.lower(), **{k: v for k, v in shown.items() if k in _IDS | {"what"}}}
    return None


# --- the story of one task --------------------------------------------------------------------------------------------


def mentions(line: Mapping[str, Any], task: str) -> str:
    """Return the id of the task that a line is about, if it begins with ``task``; else ""."""
    for part in (line, *(value for value in line.values() if isinstance(value, dict))):
        for name in _IDS:
            found = part.get(name)
            if isinstance(found, str) and found.startswith(task):
                return found
    return ""


def story(lines: Iterable[Mapping[str, Any]], task: str) -> Iterator[tuple[float, str]]:
    """Tell what became of a task: (time, sentence) for each line about it or its link, in the order of time."""
    about = [line for line in lines if mentions(line, task) or line.get("event") in _LINK_EVENTS]
    links: set[tuple[str, str]] = set()  # that the task is on
    for line in sorted(about, key=_at):
        if mentions(line, task):
            links = _followed(links, line)
            told = [line]
        else:
            told = [{**line, "link": link} for actor, link in links & _links(line)]
        for each in told:
            yield _at(line), plain(_sentence(each), 500)  # a friend's file may hold anything


_LINK_EVENTS = ("link_up", "link_away", "link_lost", "links_lost")


def _followed(links: set[tuple[str, str]], line: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the links that a task is on after a line about it, if it was on ``links`` before."""
    match line.get("event") or line.get("action"):
        case "Send" | "task":
            return links | _links(line)
        case "Forget":
            return links - _links(line)
        case "Note" if line.get("state") not in ("sent", "running"):
            return {(actor, link) for actor, link in links if actor != _actor(line)}
    return links


def _links(line: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the links that a line is about: the machine, and its name for each link (a session, or a number)."""
    named = line.get("sids", [line.get("sid", line.get("link"))])
    return {(_actor(line), str(each)) for each in named} if isinstance(named, list) else set()


def _at(line: Mapping[str, Any]) -> float:
    at = line.get("at")
    return float(at) if isinstance(at, int | float) and 0 <= at < 1e11 else 0.0


def _actor(line: Mapping[str, Any]) -> str:
    return f"{line.get('who', '?')} {line.get('own', '?')}"


def _sentence(line: Mapping[str, Any]) -> str:
    name = str(line.get("event") or line.get("action") or "?")
    frame = next((value for value in line.values() if isinstance(value, dict) and "kind" in value), {})
    known = _SAID.get((str(line.get("who")), name))
    about = known(line, frame) if known is not None else ""
    if not about:
        words = [f"{key} {value}" for key, value in {**line, **frame}.items() if key not in _HIDDEN and value != {}]
        about = f"{'hears' if 'event' in line else 'does'} {name}" + (f" ({', '.join(words)})" if words else "")
    raises = f", and raises {line['raises']}" if "raises" in line else ""
    return f"{_actor(line)} {about}{raises}"


_HIDDEN = {"at", "who", "own", "sid", "event", "action", "raises", "id", "task", "task_id", "frame", "spec", "kind"}

_SAID: dict[tuple[str, str], Callable[[Mapping[str, Any], Mapping[str, Any]], str]] = {
    ("client", "submit"): lambda line, frame: "takes the task",
    ("client", "cancel"): lambda line, frame: "is asked to cancel it",
    ("client", "Send"): lambda line, frame: (
        f"sends attempt {line.get('attempt')} to worker {line.get('sid')} with {line.get('missing')} buffers"
    ),
    ("client", "SendBuffers"): lambda line, frame: f"sends {line.get('refs')} buffers again",
    ("client", "Note"): lambda line, frame: f"says that it is {line.get('state')}",
    ("client", "Settle"): lambda line, frame: f"settles the future: {_outcome(line, frame)}",
    ("client", "Tell"): lambda line, frame: f"tells the worker: {frame.get('kind')}",
    ("client", "frame"): lambda line, frame: _heard(frame),
    ("client", "link_up"): lambda line, frame: f"has its link to worker {line.get('link')} back",
    ("client", "link_away"): lambda line, frame: f"waits for its link to worker {line.get('link')} to come back",
    ("client", "link_lost"): lambda line, frame: f"loses its link to worker {line.get('link')}",
    ("client", "links_lost"): lambda line, frame: f"loses its link to worker {line.get('link')}",
    ("worker", "link_lost"): lambda line, frame: f"loses link {line.get('link')}",
    ("worker", "task"): lambda line, frame: f"gets attempt {line.get('attempt')} by link {line.get('link')}",
    ("worker", "recall"): lambda line, frame: f"is told to drop attempt {line.get('attempt')}",
    ("worker", "Start"): lambda line, frame: f"starts attempt {line.get('attempt')} in slot {line.get('slot')}",
    ("worker", "Stop"): lambda line, frame: f"stops it in slot {line.get('slot')}",
    ("worker", "Forget"): lambda line, frame: "forgets it",
    ("worker", "slot_result"): lambda line, frame: f"gets its result from slot {line.get('number')}",
    ("worker", "Reply"): lambda line, frame: f"replies: {_heard(frame).removeprefix('hears ')}",
}


def _heard(frame: Mapping[str, Any]) -> str:
    words = [f"{key} {value}" for key, value in frame.items() if key in ("reason", "ok", "seconds", "segments", "refs")]
    attempt = f" of attempt {frame['attempt']}" if "attempt" in frame else ""
    return f"hears {frame.get('kind', '?')}{attempt}" + (f" ({', '.join(words)})" if words else "")


def _outcome(line: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Say how a task has ended: with a result, with an error of some kind, lost, or cancelled."""
    error = line.get("error")
    if error is not None:
        return "lost" if error == WorkerLost.__name__ else f"error {error}"
    if not result:
        return "cancelled"
    failure = result.get("failure")
    what = failure.get("what", "") if isinstance(failure, dict) else ""
    return "result" if result.get("ok") else f"error {what}".rstrip()
