"""The lender's yes to each task: asked before the task runs, by ``p2p worker --ask``.

A task that waits for a yes is refused with the reason "asking", and its data is not kept here. Its client may give it
to another worker meanwhile. After the lender's answer the offer changes, and the client sends the task again, if it
still waits. No answer in ``PATIENCE`` seconds, or nobody to ask, is no.

An answer counts for one task, for all of a member, or for code that is the same to the byte: kind, source, options,
functions, modules and settings. It is this worker that hashes them, as they came. Plain data travels beside the code
(task/data.py), and doesn't count: nothing runs by reading it. Data that can't be read like that is in the code's
pickle, and counts. Code in large buffers is not here yet when the lender is asked. So nothing is the same as a task
that has some.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from p2p_ipython.lending.policy import Refusal
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.packages import packages_words
from p2p_ipython.protocol.plain import size_words
from p2p_ipython.protocol.questions import Answer
from p2p_ipython.protocol.task_frames import Task

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds that the lender may take to answer."""

MAX_QUESTIONS = 64
MAX_QUESTIONS_OF_A_MEMBER = 8
"""Questions that wait; a task beyond is told "asking" all the same, and asks again when it comes again."""

MAX_ANSWERS = 1000
"""Answers that are remembered, of each kind; beyond that, the oldest is forgotten."""

SAID_NO = "its lender has said no"
SILENT = "its lender has not answered"


@dataclass(frozen=True)
class Question:
    """What the lender is asked: all of it but ``key`` is a stranger's text."""

    name: str
    key: str
    label: str
    kind: str
    source: str
    size: int
    whole: bool = True  # all of the task's code is here: "same" has a meaning
    options: str = ""  # what else it brings or wants
    packages: tuple[str, ...] = ()  # that are to be installed for it


class _Which(NamedTuple):
    """The task that an answer counts for."""

    sid: bytes
    id: str
    digest: bytes


Ask = Callable[[Question], Awaitable[Answer]]


class Consent:
    """See the module. ``answered`` is called after each answer. Belongs to the worker's loop."""

    def __init__(self, ask: Ask, answered: Callable[[], None]) -> None:
        self._ask = ask
        self._answered = answered
        self._waiting: OrderedDict[_Which, Question] = OrderedDict()
        self._tasks: OrderedDict[_Which, str] = OrderedDict()  # why not; "" is yes
        self._members: OrderedDict[tuple[str, bool], str] = OrderedDict()  # by key, and whether packages are asked for
        self._same: OrderedDict[tuple[str, bytes], str] = OrderedDict()
        self._news = asyncio.Event()

    def check(self, client: Certificate, name: str, task: Task, body: Buffer) -> Refusal | None:
        """Return why a task isn't taken now; None after the lender's yes."""
        which = _Which(client.sid, task.id, _digest(task, body))
        if (client.signer, bool(task.packages)) in self._members:
            return None
        inline = all(ref is None for _size, ref in (*task.segments, *task.around))
        if inline and (client.signer, which.digest) in self._same:
            return None
        if (said := self._tasks.get(which)) is not None:
            if not said:
                del self._tasks[which]  # once is once
                return None
            return Refusal("no", said)
        mine = sum(question.key == client.signer for question in self._waiting.values())
        if which not in self._waiting and len(self._waiting) < MAX_QUESTIONS and mine < MAX_QUESTIONS_OF_A_MEMBER:
            size = sum(size for size, _ref in task.all_segments)
            about = name, client.signer, task.label, task.run, task.source, size, inline, _options(task)
            question = Question(*about, task.packages)
            self._waiting[which] = question
            self._news.set()
        return Refusal("asking", "its lender is asked")

    async def run(self) -> None:
        """Ask one question after the other, until cancelled."""
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            which, question = next(iter(self._waiting.items()))
            answer: Answer = "no"
            why = SAID_NO
            try:
                async with asyncio.timeout(PATIENCE):
                    answer = await self._ask(question)
            except TimeoutError:
                why = SILENT
            except Exception:
                log.exception("the lender can't be asked")
                why = "its lender can't be asked"
            self._waiting.pop(which, None)
            if answer == "member":
                kind = question.key, bool(question.packages)
                _keep(self._members, kind)
                same = (its for its, other in self._waiting.items() if (other.key, bool(other.packages)) == kind)
                self._drop(*same)
            elif answer == "same" and question.whole:
                _keep(self._same, (question.key, which.digest))
                alike = (question.key, which.digest)
                self._drop(*(its for its, other in self._waiting.items() if (other.key, its.digest) == alike))
            else:
                _keep(self._tasks, which, why if answer == "no" else "")
            self._answered()

    def _drop(self, *answered: _Which) -> None:
        """Drop questions that the answer to another one has answered, too."""
        for which in answered:
            del self._waiting[which]


K = TypeVar("K")


def _keep(answers: OrderedDict[K, str], key: K, why: str = "") -> None:
    answers[key] = why
    if len(answers) > MAX_ANSWERS:
        answers.popitem(last=False)


def _options(task: Task) -> str:
    """Say what a task brings and wants beside its source and its data."""
    later = sum(size for size, ref in task.all_segments if ref is not None)
    around = sum(size for size, _ref in task.around)
    parts = [
        f"has {packages_words(task.packages)} installed here" if task.packages else "",
        f"{size_words(around)} of modules, files and settings" if around else "",
        f"{size_words(later)} that come after your yes" if later else "",
        f"binds {', '.join(task.bind or task.names)}" if task.bind or task.names else "",
    ]
    return "; ".join(part for part in parts if part)


def _digest(task: Task, body: Buffer) -> bytes:
    """Hash a task without its data; whether it has some counts."""
    found = hashlib.sha256()
    code, _data, around = task.pieces(body)
    has_data = bool(task.data)
    for part in (
        task.run,
        task.source,
        task.reply,
        task.names,
        task.bind,
        task.segments,
        task.around,
        has_data,
        task.packages,
    ):
        text = repr(part).encode("utf-8", "backslashreplace")
        found.update(len(text).to_bytes(8, "big") + text)
    found.update(code)
    found.update(around)
    return found.digest()
