"""A notice under a cell: a text that is kept up to date, and buttons to answer guests.

``output.CellOutput`` places the text, which always says what the user can type. In a notebook with ipywidgets buttons
come with it. They are a second display under the same cell, made when a guest waits and removed with the last one.
A terminal prints only what is new.

A magic makes the notice while its cell runs; then it belongs to the loop's thread.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from html import escape
from typing import Any, Protocol

from p2p_ipython.client.errands import Visitor
from p2p_ipython.client.printing import printed
from p2p_ipython.notebook.comms import answering_nobody
from p2p_ipython.notebook.output import CellOutput

log = logging.getLogger(__name__)

Answer = Callable[[Visitor, bool], None]
"""Answers a guest; called on the thread that handles clicks, must not block."""

MOST_BUTTONS = 10
"""Visitors that get buttons; the text says how to answer the others."""


class Buttons(Protocol):
    """Buttons to answer guests."""

    def show(self, visitors: tuple[Visitor, ...]) -> None:
        """Show buttons for these guests, and for nobody else."""


class Notice:
    """See the module. ``answer`` is None for a notice without buttons."""

    def __init__(self, output: CellOutput, answer: Answer | None = None) -> None:
        self._output = output
        self._buttons: Buttons | None = None
        if answer is not None and output.interactive:
            self._buttons = _Widgets(output.another(), answer)

    def progress(self, words: str) -> None:
        """Say what is being done now."""
        self._output.progress(words)

    def show(self, text: str, news: str, visitors: tuple[Visitor, ...] = ()) -> None:
        """Show a text, or print its news; see ``client.errands.View``."""
        if not self._output.has_status:
            if news:
                printed({"kind": "stream", "name": "stdout", "text": f"{news}\n"})
            return
        self._output.show(text, html=_block(text))
        if self._buttons is not None:
            self._buttons.show(visitors)


class _Widgets:
    """Buttons made with ipywidgets. Their failures are only logged: the text under the cell is enough."""

    def __init__(self, output: CellOutput, answer: Answer) -> None:
        import ipywidgets  # heavy

        self._make = ipywidgets
        self._output = output
        self._answer = answer
        # Widgets send their messages for the cell that this context belongs to; some kernels need such a cell.
        self._context = contextvars.copy_context()
        self._box: Any = None
        self._rows: dict[str, Any] = {}

    def show(self, visitors: tuple[Visitor, ...]) -> None:
        if not visitors and self._box is None:
            return
        try:
            self._context.run(answering_nobody, self._update, visitors[:MOST_BUTTONS])
        except Exception:
            log.debug("there can be no buttons", exc_info=True)

    def _update(self, visitors: tuple[Visitor, ...]) -> None:
        gone = [self._rows.pop(key) for key in set(self._rows) - {visitor.fingerprint for visitor in visitors}]
        for visitor in visitors:
            if visitor.fingerprint not in self._rows:
                self._rows[visitor.fingerprint] = self._row(visitor)
        rows = [self._rows[visitor.fingerprint] for visitor in visitors]
        box = self._box
        if not rows:
            # The view goes first: otherwise a front end, or the saved notebook, would look for a closed widget.
            self._output.view("")
            self._box = None
        elif box is None:
            self._box = self._make.VBox(rows)
            self._output.view(self._box.model_id)
        else:
            box.children = rows
        for row in gone:
            for button in row.children:
                button.close()
            row.close()
        if not rows:
            box.close()

    def _row(self, visitor: Visitor) -> Any:
        # A button's description is shown as text, never as HTML.
        wide = {"width": "auto", "min_width": "148px"}  # the usual width cuts a long name short
        yes = self._make.Button(description=f"Let {visitor.called} in", tooltip=visitor.fingerprint, layout=wide)
        no = self._make.Button(description="No", tooltip=f"Don't let {visitor.called} in: {visitor.fingerprint}")
        yes.on_click(lambda _button: self._answer(visitor, True))
        no.on_click(lambda _button: self._answer(visitor, False))
        return self._make.HBox([yes, no])


def _block(text: str) -> str:
    """Return text as HTML that keeps line ends and spaces, in the font of code: it has columns, and lines to type."""
    style = "font-family: var(--jp-code-font-family, monospace); white-space: pre-wrap; opacity: 0.85; font-size: 95%"
    return f'<div style="{style}">{escape(text)}</div>'
