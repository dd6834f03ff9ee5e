"""The state of a worker that this process has started to lend its machine: as a value, and in words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.protocol.plain import count, size_words
from p2p_ipython.protocol.questions import BARE, CARRIES, Asked

HEEDS = ("starting", "lending", "paused")
"""States in which a worker can be paused."""

LIVE = (*HEEDS, "ending")


@dataclass(frozen=True)
class LendingState:
    """How a worker stands that this process has started.

    ``state``: "starting", "lending", "paused", "ending" (takes no more tasks, and what runs may end) or "failed", with
    its reason in ``words``, which otherwise say what keeps it from the others ("" for nothing). ``busy`` of ``slots``
    run a task; ``until`` is Unix time, seconds, 0 for no end; ``only``: for whom, as it was given, () for everybody.
    ``sandbox``: the mechanism that tasks run behind, "" until that is known. ``mounts``: the files that are shared with
    tasks, in words, "" for none; ``network``: whether tasks have the internet; ``cards``: the graphics cards that they
    have, in words. ``policy``: the lender's policy in words, "" for one without conditions; ``conditions``: the same as
    its file would have it. ``news``: the last sentences for the lender, as of new members. ``logged``: entries that the
    worker has written to the lending log. ``unknown``: names of members whose tasks wait until the lender says that
    they are known, by a key of theirs. ``usage``: tasks and seconds, by the fingerprint of the member who had them
    run. ``question``: what the lender is asked now; its number is one of this process's.
    """

    id: str
    title: str
    name: str
    state: str
    words: str = ""
    slots: int = 1
    busy: int = 0
    until: float = 0.0
    only: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    sandbox: str = ""
    mounts: str = ""
    network: bool = False
    cards: str = ""
    policy: str = ""
    conditions: str = ""
    news: tuple[str, ...] = ()
    logged: int = 0
    unknown: Mapping[str, str] = field(default_factory=dict)
    usage: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    question: Asked | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is no worker any more."""
        return self.state not in LIVE

    @property
    def walled(self) -> bool:
        """Whether tasks run in a sandbox."""
        return self.sandbox not in ("", NO_WALL)

    @property
    def used(self) -> tuple[int, float]:
        """Tasks that were run for anybody, and the seconds that they took."""
        return sum(tasks for tasks, _ in self.usage.values()), sum(seconds for _, seconds in self.usage.values())


def lending_text(state: LendingState) -> str:
    """Describe a worker that this notebook has started: its state, and what that means."""
    tasks, seconds = state.used
    done = f" Run so far: {count(tasks, 'task')}, {seconds:.0f} s." if tasks else ""
    if state.state == "failed":
        return f"This machine is not lent to {state.title} any more: {state.words}"
    if state.state == "ended":
        return f"This machine is not lent to {state.title} any more.{done}"
    slots = count(state.slots, "slot")
    whom = f", to {', '.join(state.only)} only" if state.only else ""
    tags = f" ({', '.join(state.tags)})" if state.tags else ""
    until = f", until {time.strftime('%a %H:%M', time.localtime(state.until))}" if state.until else ""
    busy = "nothing runs now" if not state.busy else f"{state.busy} {'runs' if state.busy == 1 else 'run'} now"
    first = f"{state.name}{tags} lends {slots} to {state.title}{whom}{until}; {busy}.{done}"
    match state.state:
        case "starting":
            return f"Starting a worker for {state.title} …"
        case "paused":
            first = f"{state.name} is paused: it takes no new tasks of {state.title}; {busy}.{done}"
        case "ending":
            return (
                f"{state.name} takes no more tasks of {state.title}; {busy}."
                f" It ends when that is over, after a minute at the latest.{done}"
            )
        case _:
            pass
    turn = "--resume" if state.state == "paused" else "--pause"
    return "\n".join(
        [
            *([_question_line(state.question, state.title)] if state.question is not None else []),
            first,
            *([f"({state.words})"] if state.words else []),
            *([f"Policy: {state.policy}."] if state.policy else []),
            *state.news,
            _protection(state),
            f"%p2p_lend {turn}   or   %p2p_lend --stop; it ends with this notebook's kernel, too.",
        ]
    )


def _who(question: Asked) -> str:
    return (
        f"{question.name or 'a member'} ({question.key}) asks to run {question.label!r}: {question.what},"
        f" {size_words(question.size)}"
    )


def _question_line(question: Asked, title: str) -> str:
    number, end = question.number, time.strftime("%H:%M:%S", time.localtime(question.until))
    return (
        f"{_who(question)}. Answer by %p2p_lend --yes {number}   or   %p2p_lend --no {number}, until {end};"
        f" %p2p_lend {title} shows its source."
    )


def question_text(state: LendingState) -> str:
    """Return all that the lender is asked, with what can be answered, "" if nothing is; it shows a stranger's text."""
    question = state.question
    if question is None:
        return ""
    number, end = question.number, time.strftime("%H:%M:%S", time.localtime(question.until))
    always = [f"always for this member: %p2p_lend --yes {number} --always member"]
    if question.same:
        always.append(f"always for this very task: %p2p_lend --yes {number} --always task")
    return "\n".join(
        [
            f"{_who(question)}.",
            *([f"  {question.options}"] if question.options else []),
            *(f"  | {line}" for line in question.source.split("\n") if question.source),
            *([f"  ({question.cut})"] if question.cut else []),
            CARRIES if state.walled else BARE,
            f"Once: %p2p_lend --yes {number};  no: %p2p_lend --no {number};  no answer until {end} is no;",
            "  ".join(f"{each};" for each in always),
        ]
    )


def _protection(state: LendingState) -> str:
    if not state.walled:
        return "Tasks run as you, with your files in reach: lend to people whom you would lend the machine."
    shared = f", but for {state.mounts}" if state.mounts else ""
    given = [each for each in ("the internet" if state.network else "", state.cards) if each]
    have = f" They have {' and '.join(given)}." if given else ""
    walled = f"Tasks run in a sandbox ({state.sandbox}): your files, keys and network are out of their reach"
    return f"{walled}{shared}.{have}"
