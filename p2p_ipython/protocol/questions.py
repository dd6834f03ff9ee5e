"""The question whether a task may run, as a lender reads it; and its lines between a worker and its notebook.

A worker that a notebook has started asks over its standard output, ``{"asked": …}``, and hears the answer over its
standard input, ``{"do": "answer", …}``: worker/lend.py and client/lending.py. What a question says of the task is a
stranger's text. It is made harmless and cut here, before it goes anywhere; what was cut is counted, and said.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

from p2p_ipython.protocol.plain import count, plain
from p2p_ipython.protocol.rules import Fields, flag, ruled, text, whole, word
from p2p_ipython.protocol.rules import number as amount

Answer = Literal["once", "member", "same", "no"]
"""Yes to this task, to all of its member, to all that is the same; or no."""

CARRIES = "Data can carry code: the sandbox is what holds it."
BARE = "No sandbox is around it: it runs as you, with your files in reach."
"""What a lender is to know before a yes, whatever a task shows of itself: with a sandbox, and without one."""

ANSWERS: tuple[Answer, ...] = get_args(Answer)

MAX_LINES = 400
MAX_LINE = 300
MAX_SOURCE = 20_000
"""Lines of a source that a notebook shows, characters of a line, and characters of them all."""

MAX_NUMBER = 1 << 30
MAX_SIZE = 1 << 60

_NAME, _KEY, _WORDS = 100, 100, 400


@dataclass(frozen=True, slots=True)
class Asked(Fields):
    """A question. ``run``: "cell" or "call"; ``cut``: what of ``source`` is not shown, in words, "" for nothing.

    ``options``: what else the task brings or wants, in words. ``until``: Unix time after which it counts as answered by
    no. ``same``: whether "same" has a meaning; see worker/consent.py.
    """

    kind: ClassVar[str] = "asked"
    number: int = ruled(whole(1, MAX_NUMBER))
    name: str = ruled(text(_NAME))
    key: str = ruled(text(_KEY))
    label: str = ruled(text(_NAME))
    run: str = ruled(word("cell", "call"))
    source: str = ruled(text(MAX_SOURCE), default="")
    cut: str = ruled(text(_WORDS), default="")
    size: int = ruled(whole(0, MAX_SIZE), default=0)
    options: str = ruled(text(_WORDS), default="")
    until: float = ruled(amount(1e11), default=0.0)
    same: bool = ruled(flag(), default=False)

    @property
    def what(self) -> str:
        """What asks to run, in words."""
        return "a cell" if self.run == "cell" else "a call of a function, which travels as data"


@dataclass(frozen=True, slots=True)
class Answered(Fields):
    """The lender's answer to a question."""

    kind: ClassVar[str] = "answer"
    number: int = ruled(whole(1, MAX_NUMBER))
    answer: str = ruled(word(*ANSWERS))


def asked(
    number: int,
    *,
    until: float,
    name: str,
    key: str,
    label: str,
    run: str,
    source: str,
    size: int,
    options: str,
    same: bool,
) -> Asked:
    """Return a question that can be shown and sent, whatever a stranger has put into it."""
    seen = source_lines(source, MAX_LINES)
    lines: list[str] = []
    length = 0
    for line in seen.lines:
        length += len(line) + 1
        if length > MAX_SOURCE:
            break
        lines.append(line)
    seen = Source(tuple(lines), seen.lines_cut + len(seen.lines) - len(lines), seen.long)
    return Asked(
        number,
        name=plain(name, _NAME),
        key=plain(key, _KEY),
        label=plain(label, _NAME),
        run=run,
        source="\n".join(lines),
        cut=seen.cut,
        size=min(size, MAX_SIZE),
        options=plain(options, _WORDS),
        until=until,
        same=same,
    )


def read_asked(said: object) -> Asked | None:
    """Read the question in a worker's line; None for none. Raises ``RemoteProtocolError``."""
    return Asked.read(said) if isinstance(said, Mapping) else None


class Source(NamedTuple):
    """The lines of a source that are shown. ``lines_cut``: how many follow; ``long``: how many of these are cut."""

    lines: tuple[str, ...]
    lines_cut: int = 0
    long: int = 0

    @property
    def cut(self) -> str:
        """What isn't shown, in words; "" if all is."""
        more = f"{count(self.lines_cut, 'line')} more" if self.lines_cut else ""
        long = f"{count(self.long, 'line')} cut where … stands" if self.long else ""
        return ", ".join(each for each in (more, long) if each)


def source_lines(source: str, most: int) -> Source:
    """Return the first lines of a source as harmless text. A line that is longer than what is shown says so."""
    lines = source.expandtabs().split("\n") if source else []
    shown, long = [], 0
    for line in lines[:most]:
        clean = plain(line, MAX_LINE)
        if len(line) > 4 * MAX_LINE or len(plain(line, MAX_LINE + 1)) > MAX_LINE:
            clean, long = f"{clean[: MAX_LINE - 1]}…", long + 1
        shown.append(clean)
    return Source(tuple(shown), max(0, len(lines) - most), long)
