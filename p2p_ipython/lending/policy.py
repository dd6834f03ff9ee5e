"""A lender's policy as a value, and what it decides. Pure: time and the machine's state are given.

``standing`` says whether anything may be taken now: outside the hours, while somebody uses the machine, on battery, on
a machine that is busy, or when the day's bytes are used up, nothing is. ``allows`` says it of one task of one member,
too. Offers carry both (protocol/messages.py), so a refusal is for clients that don't heed an offer, or that have not
heard the latest one.

A condition about the machine that the machine can't tell is not met: a lender who says "only while idle" means it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol.packages import canonical_name
from p2p_ipython.protocol.plain import size_words

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60
_WEEK = 7 * _DAY

Packages = Literal["never", "ask", "any"] | tuple[str, ...]
Who = Literal["all", "known"] | tuple[str, ...]


@dataclass(frozen=True)
class Moment:
    """A time of the week where the machine is: the ``day`` from 0, a Monday, and the ``minute`` of that day."""

    day: int
    minute: int


@dataclass(frozen=True)
class Hours:
    """A part of the week, which begins on each of ``days``: minutes of the day.

    An ``end`` that isn't after ``start`` is on the next day.
    """

    days: frozenset[int]
    start: int = 0
    end: int = _DAY

    def __str__(self) -> str:
        days = "" if len(self.days) == 7 else ",".join(DAYS[day].capitalize() for day in sorted(self.days))
        whole = (self.start, self.end) == (0, _DAY)
        times = "" if whole and days else f"{_clock(self.start)}-{_clock(self.end)}"
        return " ".join(each for each in (days, times) if each)

    def covers(self, now: Moment) -> bool:
        """Return whether a time is within it."""
        length = self.end - self.start if self.end > self.start else self.end - self.start + _DAY
        at = now.day * _DAY + now.minute
        return any((at - (day * _DAY + self.start)) % _WEEK < length for day in self.days)

    def until(self, now: Moment) -> int:
        """Return the minutes until it begins next."""
        at = now.day * _DAY + now.minute
        return min((day * _DAY + self.start - at) % _WEEK for day in self.days)


def parse_hours(text: str) -> Hours:
    """Read hours such as ``22:00-07:00``, ``Mon-Fri 18-8`` or ``Sat,Sun``. Raises ``ConfigError``."""
    days_text, times_text = "", ""
    for word in text.strip().split():
        if word[0].isdigit() and not times_text:
            times_text = word
        elif word[0].isalpha() and not (days_text or times_text):
            days_text = word
        else:
            raise _no_hours(text)
    if not (days_text or times_text):
        raise _no_hours(text)
    days = set(range(7)) if not days_text else {day for part in days_text.split(",") for day in _days(part, text)}
    if not times_text:
        return Hours(frozenset(days))
    start_text, dash, end_text = times_text.partition("-")
    start, end = _minute(start_text, text), _minute(end_text, text) if dash else -1
    if end < 0 or start in (_DAY, end):
        raise _no_hours(text)
    return Hours(frozenset(days), start, end or _DAY)


def _days(text: str, whole: str) -> Sequence[int]:
    first, dash, last = text.lower().partition("-")
    try:
        begin = DAYS.index(first)
        end = DAYS.index(last) if dash else begin
    except ValueError:
        raise _no_hours(whole) from None
    return [(begin + number) % 7 for number in range((end - begin) % 7 + 1)]


def _minute(text: str, whole: str) -> int:
    found = re.fullmatch(r"(\d{1,2})(?::(\d\d))?", text)
    minute = int(found[1]) * 60 + int(found[2] or 0) if found else _DAY + 1
    if minute > _DAY or (found and int(found[2] or 0) > 59):
        raise _no_hours(whole)
    return minute


def _no_hours(text: str) -> ConfigError:
    return ConfigError(
        f"{text[:40]!r} are no hours",
        hint="Write them as 22:00-07:00, or with days, as Mon-Fri 18:00-08:00 or Sat,Sun.",
    )


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@dataclass(frozen=True)
class Limits:
    """What one task may use; 0: as the worker's settings have it. Bytes, cores, processes, seconds."""

    memory: int = 0
    cpus: float = 0.0
    disk: int = 0
    processes: int = 0
    time: float = 0.0


@dataclass(frozen=True)
class Policy:
    """Which tasks a lender takes. Zeros, and nothing, stand for no condition.

    ``who``: all members, the known ones (known.py), or those with these names or fingerprints; the lender's own tasks
    always may. ``hours``: parts of the week, at the machine's own time. ``idle``: seconds for which nobody must have
    used keyboard or mouse. ``mains``: only on mains power. ``load``: processors that other programs may keep busy.
    ``gpu_load``: graphics cards that they may. ``slots``: tasks at a time. ``input``: bytes that one task may bring.
    ``bytes_in`` and ``bytes_out``: what all tasks of a day may bring and take along. ``packages``: whether tasks may
    have packages installed: never, after a yes, any, or those with these names. The lender's own tasks always may.
    ``ask``: the lender is asked before each task of another member.
    """

    who: Who = "all"
    hours: tuple[Hours, ...] = ()
    idle: float = 0.0
    mains: bool = False
    load: float = 0.0
    gpu_load: float = 0.0
    slots: int = 0
    input: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    network: bool = False
    gpu: bool = False
    mounts: tuple[str, ...] = ()
    packages: Packages = "never"
    ask: bool = False
    tags: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Member:
    """A member whose task it is. ``keys``: fingerprints; ``own``: it is the lender; ``known``: see known.py."""

    name: str
    keys: tuple[str, ...]
    own: bool = False
    known: bool = True


@dataclass(frozen=True)
class TaskFacts:
    """What is known of a task before it runs: the bytes that it brings, the names of packages that it asks for."""

    size: int = 0
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class MachineFacts:
    """The machine now; None where it can't be told.

    ``idle``: seconds since somebody has used keyboard or mouse. ``mains``: not on battery. ``load`` and
    ``gpu_load``: processors, and graphics cards, that other programs keep busy. ``bytes_in`` and ``bytes_out``: what
    tasks have brought and taken along today.
    """

    idle: float | None = None
    mains: bool | None = None
    load: float | None = None
    gpu_load: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True)
class Refusal:
    """Why a task isn't taken: ``why`` is the word on the wire (PROTOCOL.md), ``words`` are for people."""

    why: str
    words: str

    def __str__(self) -> str:
        return self.words


def standing(policy: Policy, now: Moment, machine: MachineFacts) -> Refusal | None:
    """Return why no task at all is taken now; None if tasks are."""
    if policy.hours and not any(hours.covers(now) for hours in policy.hours):
        soonest = min(hours.until(now) for hours in policy.hours)
        return Refusal("hours", f"outside its hours, which begin {_when(now, soonest)}")
    if policy.idle:
        if machine.idle is None:
            return Refusal("in-use", "it can't tell whether somebody uses it")
        if machine.idle < policy.idle:
            return Refusal("in-use", "somebody uses it")
    if policy.mains and not machine.mains:
        return Refusal("battery", "it runs on battery" if machine.mains is False else "it can't tell its power")
    if policy.load:
        if machine.load is None:
            return Refusal("load", "it can't tell how busy it is")
        if machine.load > policy.load:
            return Refusal("load", "other programs keep it busy")
    if policy.gpu_load:
        if machine.gpu_load is None:
            return Refusal("load", "it can't tell how busy its graphics cards are")
        if machine.gpu_load > policy.gpu_load:
            return Refusal("load", "other programs keep its graphics cards busy")
    if policy.bytes_in and machine.bytes_in >= policy.bytes_in:
        return Refusal("bytes", "tasks have brought what they may in a day")
    if policy.bytes_out and machine.bytes_out >= policy.bytes_out:
        return Refusal("bytes", "tasks have taken along what they may in a day")
    return None


def allows(policy: Policy, member: Member, task: TaskFacts, now: Moment, machine: MachineFacts) -> Refusal | None:
    """Return why a task isn't taken; None if it is."""
    if not member.own and (refusal := admits(policy, member)) is not None:
        return refusal
    if (refusal := standing(policy, now, machine)) is not None:
        return refusal
    if policy.input and task.size > policy.input:
        return Refusal(
            "input", f"a task may bring {size_words(policy.input)}, and this one has {size_words(task.size)}"
        )
    if policy.bytes_in and machine.bytes_in + task.size > policy.bytes_in:
        return Refusal("bytes", "it would bring more than tasks may in a day")
    return None if member.own else _without_packages(policy.packages, task.packages)


def _without_packages(allowed: Packages, wanted: tuple[str, ...]) -> Refusal | None:
    if allowed in ("ask", "any"):
        return None
    names = {canonical_name(name) for name in allowed} if isinstance(allowed, tuple) else set()
    lacking = [name for name in wanted if name not in names]
    return Refusal("packages", f"no task may have {lacking[0][:60]} installed") if lacking else None


def offered_packages(allowed: Packages, can: Literal["none", "own", "all"]) -> str:
    """Return what an offer says of packages; ``can``: for whose tasks the worker could install any."""
    if can == "none":
        return ""
    if can == "own" or not allowed or allowed == "never":
        return "own"
    return allowed if isinstance(allowed, str) else "some"


def admits(policy: Policy, member: Member) -> Refusal | None:
    """Return why nothing of a member is taken; None if their tasks may run."""
    if policy.who == "all" or member.own:
        return None
    if policy.who == "known":
        return None if member.known else Refusal("who", "the lender does not know this member yet")
    if member.name in policy.who or any(key in policy.who for key in member.keys):
        return None
    return Refusal("who", "it is lent to others")


def _when(now: Moment, minutes: int) -> str:
    at = (now.day * _DAY + now.minute + minutes) % _WEEK
    day = "" if minutes < _DAY else f"{DAYS[at // _DAY].capitalize()} "
    return f"{day}{_clock(at % _DAY)}"
