"""Where the output of a task appears: under the cell that submitted it.

A ``CellOutput`` is made in the magic, while the cell runs, and used later from the loop's thread. In a kernel it
sends messages that name that cell as their parent. Front ends differ:

* JupyterLab, Notebook and VS Code put such messages under the cell, also long after it has ended. The ``cellId`` that
  they send with each cell tells them from others.
* nbclient and nbconvert drop messages that come after their cell has ended. For them output goes to the cell that runs
  when it comes. If none runs, it waits for the next one. So it appears where the notebook waits for the result.
* The classic notebook and consoles name no cells either, and are served likewise. But people use them: they let a cell
  ask (``input``).
* In a terminal output is printed.

The future keeps its output in any case: ``future.replay()`` shows it again.

Output comes from workers. One's own workers may show anything; for others ``rich=False`` keeps plain text only.
"""

from __future__ import annotations

import copy
import math
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Protocol

from p2p_ipython.client.display import AT_END
from p2p_ipython.client.printing import printed
from p2p_ipython.notebook.captured import Captured
from p2p_ipython.notebook.streams import Streams

Message = Mapping[str, Any]
"""The same as ``client.future.OutputMessage``."""

Send = Callable[[str, dict[str, Any]], None]


class CurrentCell:
    """The cell that a kernel runs now, by IPython's events; output can wait for the next one."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self._lock = threading.Lock()
        self.streams = Streams()
        self.usual = sys.stdout, sys.stderr
        self._ending: list[Callable[[], None]] = []
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

    def at_end(self, call: Callable[[], None]) -> None:
        """Call ``call`` once, when the cell that runs now is over."""
        self._ending.append(call)

    def _begins(self, _info: object) -> None:
        with self._lock:
            self._runs = True
            self._parent = self._message()
            held, self._held = self._held, []
            for show in held:
                show(self._parent)

    def _message(self) -> Any:
        """Return the message that asked for the cell, None in a terminal.

        The message is kept: a thread or a task that a cell has started would get that cell's, whichever cell runs.
        """
        return self._ip.get_parent() if kernel_of(self._ip) is not None else None

    def _ends(self, _result: object) -> None:
        ending, self._ending = self._ending, []
        for call in ending:
            call()
        with self._lock:
            self._runs = False


class Status(Protocol):
    """The line under a cell that says where the cell's task is."""

    interactive: bool
    """Whether the front end keeps cells apart."""

    watched: bool
    """Whether a person is at the front end."""

    model: str
    """The id of the widget that replaces the line; "" for the line itself."""

    cleared: float
    """When the task last cleared its output, which also restored the line; ``time.monotonic``."""

    def show(self, text: str, *, html: str = "", model: str = "") -> None:
        """Replace the line's text; see ``CellOutput.show``."""


class CellOutput:
    """The output area of a cell, made while that cell runs: a sink for a task's messages, and its status line.

    Until the task is submitted the output belongs to the thread that made it; from then on to the loop's thread.
    """

    def __init__(self, ip: Any, current: CurrentCell, *, rich: bool = True) -> None:
        self._streams = current.streams
        self._send = _sender(ip, current)
        self._captured = Captured(ip, current.usual) if self._send is not None else None
        if self._captured is not None and self._captured.active:
            current.at_end(self._release)
        self._late: list[Message] | None = None
        self._current = current
        self._rich = rich
        self._display_id = uuid.uuid4().hex
        self._status = self._html = self.model = ""
        self._viewed = False
        self._clear_later = False
        self.cleared = -math.inf
        cell = _cell_id(ip) if self._send is not None else None
        self.interactive = cell is not None
        """Whether the front end keeps cells apart: then it can update what an ended cell shows."""
        self.watched = self.interactive or (self._send is not None and _can_be_asked(ip))
        """Whether a person is at the front end, and no program that executes the notebook."""
        self.cell = cell if isinstance(cell, str) else ""
        """The front end's id of the cell; "" if the front end doesn't keep cells apart."""

    def another(self) -> CellOutput:
        """Return another status line, or a place for a widget, under the same cell."""
        made = copy.copy(self)
        made._display_id = uuid.uuid4().hex
        made._status = made._html = made.model = ""
        made._viewed = False
        return made

    @property
    def has_status(self) -> bool:
        """Whether there is a status line. A terminal has none: a line there can't be replaced."""
        return self._send is not None and not self._is_quiet

    @property
    def _is_quiet(self) -> bool:
        """Whether displays of this cell are captured: then there is no status line."""
        return self._captured is not None and self._captured.displays

    def show(self, text: str, *, html: str = "", model: str = "") -> None:
        """Replace the status line's text; the first one makes the line. Does nothing in a terminal.

        ``html`` is the line for front ends that show HTML; by default, a small line. ``model`` is the id of a widget
        that replaces the line in front ends with widgets; all others show the text.
        """
        html = html or _small(text)
        if self._send is None or self._is_quiet or (text, html, model) == (self._status, self._html, self.model):
            return
        first, self._status, self._html, self.model = not self._status, text, html, model
        self._send("display_data" if first else "update_display_data", self._status_content())

    def progress(self, words: str) -> None:
        """Say in the status line what is being done. Whole sentences are outcomes; a terminal prints these, too."""
        if not words.endswith("."):
            self.show(f"{words} …")
        elif self._send is not None:
            self.show(words)
        else:
            printed({"kind": "stream", "name": "stdout", "text": f"{words}\n"})

    def view(self, model_id: str) -> None:
        """Show a widget in place of the one before, if there is a front end; "" removes it."""
        if self._send is None or not (model_id or self._viewed):
            return
        data: dict[str, Any] = {}
        if model_id:
            data = {**_view(model_id), "text/plain": ""}
        content = {"data": data, "metadata": {}, "transient": {"display_id": self._display_id}}
        self._send("update_display_data" if self._viewed else "display_data", content)
        self._viewed = True

    def end_last(self) -> None:
        """Show what comes at the task's own end, its figures, after the value that the cell is about to show."""
        if self._send is not None and self._captured is not None and not self._captured.active:
            self._late = []
            self._current.at_end(self._show_late)

    def _show_late(self) -> None:
        late, self._late = self._late or [], None
        for message in late:
            self(message)

    def deliver(self) -> None:
        """Have all output so far where it belongs. Called by a thread that has waited for the task."""
        self._streams.flush()
        if self._captured is not None:
            self._captured.deliver()

    def _release(self) -> None:
        if self._captured is not None:
            self._captured.release(self)

    def __call__(self, message: Message) -> None:
        """Show a message of the task."""
        kind = message["kind"]
        if self._captured is not None and self._captured.keep(message):
            return
        if self._late is not None and kind != "stream" and message["content"].get("transient", {}).get(AT_END):
            self._late.append(message)
            return
        if self._send is None:
            printed(dict(message))
        elif kind == "clear_output":
            # This clears the status line, too. It comes back at once, or with the output that the front end waits for.
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
                self._streams.write(self._send, message["name"], message["text"])
            else:
                self._send(kind, _display(message["content"], self._rich))

    def _status_again(self) -> None:
        # Without the widget: a task that shows an animation clears so often that no front end could follow.
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


def kernel_of(ip: Any) -> Any:
    """Return the kernel of a shell, if cells can be told apart there; else None, as in a terminal.

    A shell of xeus-python has a kernel, but doesn't know the message that asked for its cell.
    """
    kernel = getattr(ip, "kernel", None)
    return kernel if hasattr(ip, "get_parent") and hasattr(kernel, "session") else None


def _sender(ip: Any, current: CurrentCell) -> Send | None:
    """Return a function that sends messages to the cell that runs now; None in a terminal."""
    kernel = kernel_of(ip)
    if kernel is None:
        return None
    origin = ip.get_parent()
    has_cell = _cell_id(ip) is not None

    def send_to(parent: Any, kind: str, content: dict[str, Any]) -> None:
        kernel.session.send(kernel.iopub_socket, kind, content, parent=parent, ident=kernel._topic(kind))

    def send(kind: str, content: dict[str, Any]) -> None:
        if kind != "stream":
            current.streams.flush()  # it comes after what was printed before
        if has_cell:
            send_to(origin, kind, content)
        else:
            current.when_running(lambda parent: send_to(parent, kind, content))

    return send


def _cell_id(ip: Any) -> Any:
    """Return the front end's id of the cell that runs now; None if it doesn't keep cells apart."""
    return (ip.get_parent().get("metadata") or {}).get("cellId")


def _can_be_asked(ip: Any) -> bool:
    """Return whether the cell that runs now may ask for input. Programs that execute notebooks have nobody to ask."""
    return bool((ip.get_parent().get("content") or {}).get("allow_stdin"))


def _display(content: Mapping[str, Any], rich: bool) -> dict[str, Any]:
    """Return the content of a display message in the shape that front ends rely on."""
    parts = {name: content.get(name) for name in ("data", "metadata", "transient")}
    shaped = {name: part if isinstance(part, dict) else {} for name, part in parts.items()}
    if not rich:
        shaped["data"] = {"text/plain": str(shaped["data"].get("text/plain", ""))}
        shaped["metadata"] = {}
    return shaped


def _view(model_id: str) -> dict[str, Any]:
    """Return the part of a display's data that shows a widget."""
    return {"application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": model_id}}


def _small(text: str) -> str:
    return f'<div style="opacity: 0.75; font-size: 90%">{escape(text)}</div>'


def table(head: tuple[str, ...], rows: list[tuple[str, ...]], caption: str) -> dict[str, str]:
    """Return a table as text and as HTML, for ``publish_display_data``; all cells are escaped."""
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
