"""The terminal of a command: results, questions, progress, logs.

Results go to standard output, everything else to standard error, so that a command's output can be piped on.
"""

from __future__ import annotations

# Functions import rich, which is heavy: --help must be quick (see the package).
import asyncio
import codecs
import io
import logging
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from p2p_ipython.errors import UsageError
from p2p_ipython.loop import in_thread

T = TypeVar("T")

LONGEST_ANSWER = 200
"""Bytes of an answer that are read: after a longer one, the question is asked again."""

_YES = {"y", "yes"}
_NO = {"n", "no"}


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on a loop of its own."""
    # A selector loop everywhere: on Windows, Twisted's asyncio reactor can't use the proactor.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(work)


def say(text: str) -> None:
    """Print to standard output. Flushed, because a program at the other end of a pipe may wait for the line."""
    print(text, flush=True)


def any_encoding() -> None:
    """Have this process print what its terminal has no letters for in another way, instead of failing.

    A peer's name may have such letters, and so have our own texts in a locale that isn't UTF-8.
    """
    codecs.register_error(_IN_OTHER_LETTERS, _in_other_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_IN_OTHER_LETTERS)


_IN_OTHER_LETTERS = "p2p_ipython.in_other_letters"
_LETTERS = {"…": "...", "–": "-", "—": "-", "’": "'", "✓": "+", "✗": "x", "→": "->", "×": "x", "µ": "u"}


def _in_other_letters(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and (letter := error.object[error.start]) in _LETTERS:
        return _LETTERS[letter], error.start + 1
    return codecs.backslashreplace_errors(error)


def wrong_usage(command: str, message: str) -> NoReturn:
    """Say what is wrong with a command line that argparse has accepted, and exit with 2."""
    print(f"p2p {command}: {message} (p2p {command} --help)", file=sys.stderr)
    raise SystemExit(2)


# -- questions --


def ask(question: str, default: bool | None = None, *, option: str = "--yes") -> bool:
    """Ask a question that is answered by yes or no; an empty answer means ``default`` (None: it is asked again).

    The answer comes from standard input if that is a terminal, else from the process's own terminal, else from
    standard input all the same. Text that was typed before the question is no answer to it: a yes typed twice must not
    answer the next question. Raises ``UsageError`` if there is nobody to answer; it names the ``option`` that makes the
    question needless. Blocks.
    """
    choices = {None: "yes/no", True: "Yes/no", False: "yes/No"}[default]
    with _terminal() as (reading, writing):
        _forget_typed(reading)
        while True:
            os.write(writing, f"{question} [{choices}] ".encode())
            answer = _read_line(reading)
            if answer is None:
                os.write(writing, b"\n")
                raise UsageError(
                    f"there is nobody to answer: {question}",
                    hint=f"Run it in a terminal, or answer beforehand with {option}.",
                )
            word = answer.strip().lower()
            if word in _YES:
                return True
            if word in _NO:
                return False
            if not word and default is not None:
                return default


def answer(question: str) -> str:
    """Ask for a line of text, at the same places as ``ask``. Raises ``UsageError`` if there is none. Blocks."""
    with _terminal() as (reading, writing):
        os.write(writing, question.encode())
        text = _read_line(reading)
        if text is None or not text.strip():
            os.write(writing, b"\n")
            raise UsageError(
                f"nothing was answered to: {question.rstrip(' :')}",
                hint="Run it in a terminal, or give it with the command; its --help says how.",
            )
        return text.strip()


async def asked(question: str, default: bool | None = None, *, option: str = "--yes") -> bool:
    """Ask as ``ask`` does, without blocking the event loop. When cancelled, the question stays on the screen."""
    return await in_thread("p2p-ask", lambda: ask(question, default, option=option))


@contextmanager
def _terminal() -> Iterator[tuple[int, int]]:
    """Open descriptors to read answers from and to write questions to."""
    if not sys.stdin or not sys.stdin.isatty():
        try:
            terminal = os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0))
        except OSError:
            pass
        else:
            try:
                yield terminal, terminal
            finally:
                os.close(terminal)
            return
    yield 0, 2


def _forget_typed(descriptor: int) -> None:
    """Drop the text that waits in a terminal to be read."""
    try:
        import termios  # there is none on Windows

        termios.tcflush(descriptor, termios.TCIFLUSH)
    except (ImportError, termios.error):  # no terminal
        pass


def _read_line(descriptor: int) -> str | None:
    """Read a line; return None at the end.

    Byte by byte, because the bytes after the line aren't ours. Not by sys.stdin: a thread that waits for ever would
    still hold its lock when the program ends.
    """
    line = b""
    while len(line) < LONGEST_ANSWER:
        try:
            byte = os.read(descriptor, 1)
        except OSError:  # it is closed, or the terminal is gone
            return None
        if not byte:
            return None
        if byte == b"\n":
            break
        line += byte
    return line.decode("utf-8", "replace")


# -- what is shown beside results --


class Progress:
    """Shows what the command waits for, on standard error; silent if that is no terminal."""

    def __init__(self) -> None:
        self._status: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)


def log_to_stderr(verbose: int) -> None:
    """Log to standard error: warnings; with -v events, with -vv everything of this package.

    Other packages stay at warnings: at their finer levels some log secrets of ours, such as topics.
    """
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=verbose > 1, rich_tracebacks=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.getLogger("p2p_ipython").setLevel(level)
