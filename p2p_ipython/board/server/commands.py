"""The commands of a board, purely: a command line in, what was meant out.

They are those of pico's ``pipe`` service, down to the texts that its clients read, and two more: ``user`` (which
pico.sh itself has) and ``p2p``, which says where the board's own mailbox and relay are. Flags are read as Go's
``flag`` package reads them, because the service is written in Go: ``-x`` or ``--x``, values after a blank or ``=``,
and flags end at the first word that isn't one.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from fractions import Fraction

from p2p_ipython.board.topics import Direction, Dispatch, Listed

MAX_ACCESS = 1000
"""Most entries of an access list."""

DAY = 24 * 3600.0


@dataclass(frozen=True)
class Help:
    """Nothing was asked, or ``help``."""


@dataclass(frozen=True)
class Ls:
    """List my topics."""


@dataclass(frozen=True)
class WhoAmI:
    """``user``: who does the board think I am."""


@dataclass(frozen=True)
class Services:
    """``p2p``: where are the mailbox and the relay."""


@dataclass(frozen=True)
class Unknown:
    """Anything else. The service says nothing to that, and neither does the board."""


@dataclass(frozen=True)
class Bad:
    """Flags that can't be read, or a cry for help: ``usage`` goes to stdout, and the exit status is 1."""

    usage: str


@dataclass(frozen=True)
class Stream:
    """``pub``, ``sub`` or ``pipe``. ``topic`` is "" where none was given; ``timeout`` is in seconds."""

    direction: Direction
    topic: str = ""
    access: tuple[str, ...] = ()
    public: bool = False
    clean: bool = False
    dispatch: Dispatch = Dispatch.MULTICAST
    replay: bool = False
    keep: bool = False
    empty: bool = False
    block: bool = True
    timeout: float = 30 * DAY


Command = Help | Ls | WhoAmI | Services | Unknown | Bad | Stream


@dataclass(frozen=True)
class _Flag:
    kind: str  # "bool", "string" or "duration"
    text: str
    default: str = ""


_COMMON = {
    "a": _Flag("string", "Who may join the topic: user names or key fingerprints, with commas between them"),
    "p": _Flag("bool", "The topic is public/<topic>, which everybody may join"),
    "c": _Flag("bool", "Say nothing but what was published"),
    "d": _Flag("string", "Who gets a message: multicast (all readers) or round_robin (one, in turn)", '"multicast"'),
}
_FLAGS = {
    "pub": _COMMON
    | {
        "b": _Flag("bool", "Wait for a reader before sending", "true"),
        "e": _Flag("bool", "Send an empty message"),
        "t": _Flag("duration", "How long to wait for a reader, as 90s, 5m or 1h30m", "720h0m0s"),
    },
    "sub": _COMMON | {"k": _Flag("bool", "Stay when the publisher leaves")},
    "pipe": _COMMON | {"r": _Flag("bool", "Echo to me what I write")},
}
_DIRECTIONS = {"pub": Direction.PUB, "sub": Direction.SUB, "pipe": Direction.PIPE}
_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}
_UNITS = {"ns": Fraction(1, 10**9), "us": Fraction(1, 10**6), "µs": Fraction(1, 10**6), "μs": Fraction(1, 10**6),
          "ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600)}  # fmt: skip
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})(ns|us|µs|μs|ms|s|m|h)")


class _FlagError(Exception):
    pass


def parse(line: str | None) -> Command:
    """Read a command line; None is a session that asked for a shell."""
    try:
        words = shlex.split(line or "")
    except ValueError:  # a quote that isn't closed
        words = []
    if not words:
        return Help()
    name, rest = words[0].strip(), words[1:]
    match name:
        case "help":
            return Help()
        case "ls":
            return Ls()
        case "user":
            return WhoAmI()
        case "p2p":
            return Services()
        case "pub" | "sub" | "pipe":
            return _stream(name, rest)
        case _:
            return Unknown()


def _stream(name: str, words: list[str]) -> Command:
    topic = ""
    if words and not words[0].startswith("-"):
        topic, words = words[0].strip(), words[1:]
    try:
        values, others = _read_flags(_FLAGS[name], words)
        if topic == "help":
            raise _FlagError("")
        dispatch = Dispatch(values.get("d", Dispatch.MULTICAST.value))
        timeout = parse_duration(values["t"]) if "t" in values else 30 * DAY
        access = tuple(entry.strip() for entry in values["a"].split(",")) if values.get("a") else ()
        if len(access) > MAX_ACCESS:
            raise _FlagError(f"more than {MAX_ACCESS} entries for flag -a")
    except _FlagError as error:
        return Bad(f"{error}\n{usage(name)}" if str(error) else usage(name))
    except ValueError as error:
        return Bad(f"{error}\n{usage(name)}")
    if not topic and len(others) == 1:
        topic = others[0]

    def on(flag: str, default: bool = False) -> bool:
        return values.get(flag, "true" if default else "false") in _TRUE

    return Stream(
        _DIRECTIONS[name],
        topic,
        access,
        public=on("p"),
        clean=on("c"),
        dispatch=dispatch,
        replay=on("r"),
        keep=on("k"),
        empty=on("e"),
        block=on("b", default=True),
        timeout=timeout,
    )


def _read_flags(flags: dict[str, _Flag], words: list[str]) -> tuple[dict[str, str], list[str]]:
    values: dict[str, str] = {}
    words = list(words)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("---") or not name:
            raise _FlagError(f"bad flag syntax: {word}")
        if name in ("h", "help") and name not in flags:
            raise _FlagError("")
        if name not in flags:
            raise _FlagError(f"flag provided but not defined: -{name}")
        if flags[name].kind == "bool":
            value = value if equals else "true"
            if value not in _TRUE | _FALSE:
                raise _FlagError(f'invalid boolean value "{value}" for -{name}: parse error')
        elif not equals:
            if not words:
                raise _FlagError(f"flag needs an argument: -{name}")
            value = words.pop(0)
        values[name] = value
    return values, words


def usage(name: str) -> str:
    """Say how ``pub``, ``sub`` or ``pipe`` is used."""
    lines = [f"Usage: {name} <topic> [args...]\n", "Args:\n"]
    for flag, what in sorted(_FLAGS[name].items()):
        default = f" (default {what.default})" if what.default else ""
        if what.kind == "bool":
            lines.append(f"  -{flag}\t{what.text}{default}\n")
        else:
            lines.append(f"  -{flag} {what.kind}\n    \t{what.text}{default}\n")
    return "".join(lines)


def parse_duration(text: str) -> float:
    """Read a Go duration (``1h30m``, ``90s``, ``1.5s``, ``0``), in seconds. Raises ``ValueError``."""
    if text == "0":
        return 0.0
    total, end = Fraction(0), 0
    for part in _DURATION.finditer(text):
        if part.start() != end:
            break
        total += Fraction(part[1] if part[1] != "." else "0") * _UNITS[part[2]]
        end = part.end()
    if not text or end != len(text) or total > 10**9:
        raise ValueError(f'invalid value "{text}" for flag -t: parse error')
    return float(total)


def format_duration(seconds: float) -> str:
    """Write seconds as Go does: ``720h0m0s``, ``1m30s``, ``1.5s``, ``100ms``."""
    if seconds == 0:
        return "0s"
    for unit, size in (("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3)):
        if seconds < size * 1000 * (1 - 1e-12) and seconds < 1:
            return f"{round(seconds / size, 9):.12g}{unit}"
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    text = f"{round(left, 9):.12g}s"
    if hours:
        return f"{int(hours)}h{int(minutes)}m{text}"
    return f"{int(minutes)}m{text}" if minutes else text


def help_text(where: str) -> str:
    """Say what the board can do; ``where`` is what to type after ``ssh``."""
    text = f"""Command: ssh {where} <help | ls | pub | sub | pipe | user | p2p> <topic> [-h | args...]

A message board. What is written to a topic is read by everybody who is on it
at that moment; nothing is kept.

- pub => write to a topic
- sub => read from a topic
- pipe => write and read
- ls => list my topics
- user => say who I am here
- p2p => say where this board's wormhole mailbox and transit relay are

A topic comes first, flags after it. Topics belong to their user: other users
say <user>/<topic>, and are let in by the owner's -a.
"""
    return text.replace("\n", "\r\n") + "\n"


def ls_text(listed: list[Listed]) -> str:
    """Write a listing as ``ls`` prints it."""
    if not listed:
        return "no pubsub channels found\n"
    lines = ["Channel Information"]
    for topic in listed:
        access = f" (Access List: {', '.join(topic.access)})" if topic.access else ""
        lines.append(f"- {topic.topic}:{access}")
        for heading, labels in topic.sessions:
            lines.append(f"  {heading}:")
            lines += [f"  - {label}" for label in labels]
    return "".join(f"{line}\r\n" for line in lines)


def invitation(stream: Stream, where: str, topic: str, user: str) -> str:
    """Say how others join a topic whose name the board made up (``pipe``) or any topic (``pub``)."""
    kind = "channel" if stream.direction is Direction.PUB else "topic"
    owner = f"{user}/" if stream.access else ""
    return f"subscribe to this {kind}:\n  ssh {where} sub {'-p ' if stream.public else ''}{owner}{topic}\n"
