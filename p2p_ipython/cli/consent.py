"""The lender's yes to a task, asked for in the terminal of ``p2p worker --ask``.

Strangers' text is shown line by line, without anything that a terminal obeys. The terminal is read on the event loop.
So a question that nobody answers leaves no thread behind that would take the next answer.
"""

from __future__ import annotations

import asyncio
import os
import sys

from p2p_ipython.cli.terminal import say
from p2p_ipython.protocol.plain import plain, size_words
from p2p_ipython.protocol.questions import BARE, CARRIES, Answer, source_lines
from p2p_ipython.worker.consent import Question

MAX_LINES = 60
"""Lines of a source that are shown."""

_ANSWERS: dict[str, Answer] = {"y": "once", "yes": "once", "m": "member", "t": "same", "n": "no", "no": "no"}


async def ask_lender(question: Question, *, walled: bool = True) -> Answer:
    """Show a task, and return the lender's answer; no if there is no terminal. ``walled``: it'd run in a sandbox."""
    if not sys.stdin or not sys.stdin.isatty():
        say(f"{question.name} asks to run {plain(question.label, 60)!r}: no, because nobody is here to be asked")
        return "no"
    _forget_typed()  # before the card is shown: whatever is typed from then on is an answer to it
    say("\n".join(_card(question, walled=walled)))
    while True:
        word = (await _line()).strip().lower()
        if word in _ANSWERS:
            return _ANSWERS[word]
        say("Type y, m, t or n.")


def _card(question: Question, *, walled: bool = True) -> list[str]:
    source = source_lines(question.source, MAX_LINES)
    shown = [f"  | {line}" for line in source.lines]
    more = [f"  ({source.cut})"] if source.cut else []
    same = " / always for this [t]ask's code" if question.whole else ""
    what = "a cell" if question.kind == "cell" else "a call of a function, which travels as data"
    return [
        f"{question.name or 'a member'} ({question.key}) asks to run {plain(question.label, 60)!r}:"
        f" {what}, {size_words(question.size)}",
        *([f"  {plain(question.options, 300)}"] if question.options else []),
        *shown,
        *more,
        CARRIES if walled else BARE,
        f"[y]es, once / always for this [m]ember{same} / [n]o; no answer in 2 minutes is no:",
    ]


async def _line() -> str:
    """Read a line of standard input. Cancelled, it leaves nothing behind."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        if not done.done():
            done.set_result(os.read(0, 1000))

    loop.add_reader(0, read)
    try:
        data = await done
    finally:
        loop.remove_reader(0)
    if not data:  # the terminal has been hung up
        return "no"
    return data.decode("utf-8", "replace")


def _forget_typed() -> None:
    import termios  # there is none on Windows, where workers don't run

    termios.tcflush(0, termios.TCIFLUSH)
