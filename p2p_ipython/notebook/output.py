"""Where the output of a task lands: under the cell that submitted it.

A ``CellOutput`` is made in the magic, while the cell runs, and used later from the loop's thread. In a kernel it
sends messages that name that cell as their parent. Front ends differ:

* JupyterLab, Notebook and VS Code put such messages under the cell, also when it is long over. They can be
  told by the ``cellId`` that they send with each cell.
* nbclient and nbconvert drop what comes after a cell is over. For them output goes to the cell that runs when
  it comes, and waits for the next one if none runs: it shows up where the notebook waits for the result.
* In a terminal it is printed.

The future keeps its output in any case: ``future.replay()`` shows it again.

Output comes from workers. Those of one's own may show anything; for others there is ``rich=False``, which
keeps plain text only.
"""

from __future__ import annotations

import copy
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Protocol

from p2p_ipython.client.printing import printed

Message = Mapping[str, Any]
"""As ``client.future.OutputMessage``."""

Send = Callable[[str, dict[str, Any]], None]


class CurrentCell:
    """Which cell a kernel runs now, kept by IPython's events, so that output can wait for the next one."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self._lock = threading.Lock()
        self._runs = True  # made while a cell runs
        self._parent = self._message()
        self._held: list[Callable[[Any], None]] = []
        ip.events.register("pre_run_cell", self._begins)
        ip.events.register("post_run_cell", self._ends)

    def close(self) -> None:
        """Stop listening."""
        self._ip.events.unregister("pre_run_cell", self._begins)
        self._ip.events.unregister("post_run_cell", self._ends)

    @property
    def runs(self) -> bool:
        """Whether a cell runs."""
        return self._runs

    def when_running(self, show: Callable[[Any], None]) -> None:
        """Call ``show`` now if a cell runs, else when the next one begins; in order. It gets the cell's message."""
        with self._lock:
            if not self._runs:
                self._held.append(show)
                return
            show(self._parent)

    def _begins(self, _info: object) -> None:
        with self._lock:
            self._runs = True
            self._parent = self._message()
            held, self._held = self._held, []
            for show in held:
                show(self._parent)

    def _message(self) -> Any:
        """The message that asked for the cell, None in a terminal. Kept, since a thread or a task that a cell has
        started would be told that cell's, whichever runs."""
        return self._ip.get_parent() if getattr(self._ip, "kernel", None) is not None else None

    def _ends(self, _result: object) -> None:
        with self._lock:
            self._runs = False


class Status(Protocol):
    """The line under a cell that says where its task is."""

    interactive: bool
    """Whether it is a front end that keeps cells apart."""

    model: str
    """The id of the widget that is shown in the line's place; "" for the line itself."""

    cleared: float
    """When the task has last cleared its output, which is when the line came back as a line; ``time.monotonic``."""

    def show(self, text: str, *, html: str = "", model: str = "") -> None:
        """Replace the line's text; see ``CellOutput.show``."""


class CellOutput:
    """The output area of the cell that runs now. A sink for a task's messages, and its status line.

    Once a task is submitted it belongs to the loop's thread; until then to the thread that made it.
    """

    def __init__(self, ip: Any, current: CurrentCell, *, rich: bool = True) -> None:
        self._send = _sender(ip, current)
        self._rich = rich
        self._display_id = uuid.uuid4().hex
        self._status = self._html = self.model = ""
        self._viewed = False
        self._clear_later = False
        self.cleared = -math.inf
        cell = _cell_id(ip) if self._send is not None else None
        self.interactive = cell is not None
        """Whether a person is at the front end, as far as can be told: one that keeps cells apart."""
        self.cell = cell if isinstance(cell, str) else ""
        """By what the front end knows the cell; "" where it doesn't keep cells apart."""

    def another(self) -> CellOutput:
        """Another status line, or a place for a widget, under the same cell."""
        made = copy.copy(self)
        made._display_id = uuid.uuid4().hex
        made._status = made._html = made.model = ""
        made._viewed = False
        return made

    @property
    def has_status(self) -> bool:
        """Whether there is a status line: not in a terminal, where a line can't be replaced."""
        return self._send is not None

    def show(self, text: str, *, html: str = "", model: str = "") -> None:
        """Replace the status line's text; the first one makes the line. Does nothing in a terminal.

        ``html`` is what it looks like where HTML is shown; without it, a small line. ``model`` is the id of a widget
        that is shown instead, where there are widgets; the text is then for all others.
        """
        html = html or _small(text)
        if self._send is None or (text, html, model) == (self._status, self._html, self.model):
            return
        first, self._status, self._html, self.model = not self._status, text, html, model
        self._send("display_data" if first else "update_display_data", self._status_content())

    def progress(self, words: str) -> None:
        """Say what is done now in the status line; whole sentences are what has come of it, for a terminal, too."""
        if not words.endswith("."):
            self.show(f"{words} …")
        elif self._send is not None:
            self.show(words)
        else:
            printed({"kind": "stream", "name": "stdout", "text": f"{words}\n"})

    def view(self, model_id: str) -> None:
        """Show a widget, where there is a front end for it, in place of the one before; "" for none any more."""
        if self._send is None or not (model_id or self._viewed):
            return
        data: dict[str, Any] = {}
        if model_id:
            data = {**_view(model_id), "text/plain": ""}
        content = {"data": data, "metadata": {}, "transient": {"display_id": self._display_id}}
        self._send("update_display_data" if self._viewed else "display_data", content)
        self._viewed = True

    def __call__(self, message: Message) -> None:
        """Show a message of the task."""
        kind = message["kind"]
        if self._send is None:
            printed(dict(message))
        elif kind == "clear_output":
            # The status line is output, too: it comes back, at once or with what the front end waits for.
            self.model, self.cleared = "", time.monotonic()
            wait = bool(message["content"].get("wait"))
            self._send("clear_output", {"wait": wait})
            self._clear_later = wait
            if not wait:
                self._status_again()
        else:
            if self._clear_later:
                self._clear_later = False
                self._status_again()
            if kind == "stream":
                self._send("stream", {"name": message["name"], "text": message["text"]})
            else:
                self._send(kind, _display(message["content"], self._rich))

    def _status_again(self) -> None:
        # Not the widget: a task that shows an animation clears so often that no front end could follow.
        self.model, self.cleared = "", time.monotonic()
        if self._status and self._send is not None:
            self._send("display_data", self._status_content())

    def _status_content(self) -> dict[str, Any]:
        view = _view(self.model) if self.model else {}
        return {
            "data": {**view, "text/plain": self._status, "text/html": self._html},
            "metadata": {},
            "transient": {"display_id": self._display_id},
        }


def _sender(ip: Any, current: CurrentCell) -> Send | None:
    """How to send a message to the cell that runs now; None in a terminal."""
    kernel = getattr(ip, "kernel", None)
    if kernel is None:
        return None
    origin = ip.get_parent()
    has_cell = _cell_id(ip) is not None

    def send_to(parent: Any, kind: str, content: dict[str, Any]) -> None:
        kernel.session.send(kernel.iopub_socket, kind, content, parent=parent, ident=kernel._topic(kind))

    if has_cell:
        return lambda kind, content: send_to(origin, kind, content)
    return lambda kind, content: current.when_running(lambda parent: send_to(parent, kind, content))


def _cell_id(ip: Any) -> Any:
    """By what the front end knows the cell that runs now; None where it doesn't keep cells apart."""
    return (ip.get_parent().get("metadata") or {}).get("cellId")


def _display(content: Mapping[str, Any], rich: bool) -> dict[str, Any]:
    """The content of a display message, in the shape that front ends rely on."""
    parts = {name: content.get(name) for name in ("data", "metadata", "transient")}
    shaped = {name: part if isinstance(part, dict) else {} for name, part in parts.items()}
    if not rich:
        shaped["data"] = {"text/plain": str(shaped["data"].get("text/plain", ""))}
        shaped["metadata"] = {}
    return shaped


def _view(model_id: str) -> dict[str, Any]:
    """What shows a widget, as a part of a display's data."""
    return {"application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": model_id}}


def _small(text: str) -> str:
    return f'<div style="opacity: 0.75; font-size: 90%">{escape(text)}</div>'


def table(head: tuple[str, ...], rows: list[tuple[str, ...]], caption: str) -> dict[str, str]:
    """A table as text and as HTML, for ``publish_display_data``; all cells are escaped."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]

    def html(row: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f'<{tag} style="text-align:left">{escape(cell)}</{tag}>' for cell in row) + "</tr>"

    body = "".join(html(row, "td") for row in rows)
    return {
        "text/plain": "\n".join([caption, *lines]),
        # Not a <caption>: that is as narrow as the table.
        "text/html": f"<div>{escape(caption)}</div>"
        f"<table><thead>{html(head, 'th')}</thead><tbody>{body}</tbody></table>",
    }
