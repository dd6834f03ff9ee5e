"""The line under a cell whose tasks belong together: a bar, counts and an estimate, in the end the errors.

It is a status line as that of a task (status_line.py): a card replaces it while tasks run, with a button to cancel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from html import escape

from p2p_ipython.client.groups import Group
from p2p_ipython.notebook.card import Face, line_html
from p2p_ipython.notebook.output import Status
from p2p_ipython.notebook.status_line import Line, StatusLines, text

Errors = Callable[[], Sequence[str]]
"""Returns the errors of what has failed, a line each, few; called on the loop's thread."""


class GroupLine(Line):
    """The line of a group."""

    def __init__(self, group: Group, status: Status, now: float, errors: Errors, *, stable: bool, waits: bool) -> None:
        super().__init__(status, now, stable=stable, waits=waits)
        self._group = group
        self._errors = errors

    def face(self, now: float) -> Face:
        """See ``Line``."""
        seen = self._group.standing
        words = "starting" if not seen.over and not seen.ended and seen.total is None else seen.words
        part = -1.0 if seen.part is None or seen.ended else seen.part
        return Face(seen.label, seen.state, words, submitted=seen.began, ended=seen.ended, part=part)

    def cancel(self) -> object:
        """See ``Line``."""
        self._group.cancel()
        return None

    def is_over(self) -> bool:
        """See ``Line``."""
        return bool(self._group.ended)

    def words(self, seen: Face, seconds: float) -> str:
        """See ``Line``; in the end the errors have lines of their own."""
        if not seen.over:
            return f"{seen.label}: {seen.words}"
        state = seen.words if self.stable else f"{text(seen.label, seen.words, seen.ended - seen.submitted, over=True)}"
        first = f"{seen.label}: {state}" if self.stable else state
        return "\n".join([first, *(f"  {line}" for line in self._errors())])

    def html(self, seen: Face, line: str) -> str:
        """See ``Line``."""
        first, *errors = line.split("\n")
        rest = "".join(
            '<div style="padding-inline-start: 24px; font-size: var(--jp-ui-font-size1, 13px);'
            f' color: var(--jp-error-color1, #d32f2f)">{escape(error.strip())}</div>'
            for error in errors
        )
        return line_html(seen.state, first, seen.part) + rest


def add_group(
    lines: StatusLines, group: Group, status: Status, errors: Errors = tuple, *, waits: bool = False
) -> threading.Event:
    """Keep the line of a group up to date until the group ends; ``waits``: its cell does.

    The event is set when the line, or the card in its place, says how it ended. A group that goes on has a line again.
    """
    said = threading.Event()

    def begin() -> None:
        line = GroupLine(group, status, lines.now, errors, stable=lines.stable, waits=waits)
        said.clear()
        line.said = said
        end.append(lines.follow(line))

    end: list[Callable[[], None]] = []

    def changed() -> None:
        if group.ended and end:
            end.pop()()
        elif not group.ended and not end:
            begin()

    begin()
    group.follow(changed)
    changed()
    return said
