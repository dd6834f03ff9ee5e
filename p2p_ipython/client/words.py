"""What strangers say of a task as people read it: one line of plain text, of bounded length."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from p2p_ipython.errors import WorkerLost
from p2p_ipython.protocol.plain import plain

if TYPE_CHECKING:
    from p2p_ipython.protocol.task_frames import TaskFailure

LINE = 100
"""Characters of a line of output that are kept."""

ERROR = 300
"""Characters of an error that are kept."""

_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,60}[A-Za-z]")


def as_line(text: str, limit: int) -> str:
    """Return the first line of a stranger's text, plain and at most ``limit`` characters; an ellipsis tells of more."""
    line = text[: 4 * limit]
    if not line.isprintable():
        line = _COLOUR.sub("", line).strip().partition("\n")[0]
        line = plain(line.replace("\t", " "), 4 * limit)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def error_line(failure: TaskFailure) -> str:
    """Return ``ValueError: no such thing``, from what a worker says of an error."""
    message = failure.message[: 4 * ERROR]
    name = failure.class_name[: 4 * ERROR].rpartition(".")[2]
    return as_line(f"{name}: {message.strip()}" if message.strip() else name, ERROR)


def failed_word(error: BaseException | None) -> str:
    """Return the word for the state of a task that has failed with ``error``."""
    return "failed (maybe ran)" if isinstance(error, WorkerLost) and error.maybe_ran else "failed"
