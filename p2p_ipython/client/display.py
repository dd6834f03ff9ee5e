"""The output that a worker which isn't trusted may show: text, colours, still pictures.

HTML and JavaScript in a notebook act for its user: they can run code in the kernel. So of such workers no page gets
through in any form: of a rich display its plain text and its PNG or JPEG are shown, else its source, as text. The rest
of what a message could do is bounded, too: control sequences that would move a terminal's cursor or write its
clipboard, identifiers by which a display of another task or of the user's own could be overwritten.

Pure: a message in, a message (or None) out.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

from p2p_ipython.protocol.plain import plain
from p2p_ipython.task.images import MAX_SIZE, BadImage, check_jpeg, check_png
from p2p_ipython.task.relayed import FIELDS

Message = dict[str, Any]
"""As ``client.future.OutputMessage``."""

MAX_SOURCE = 10_000
"""Characters of HTML or the like that are shown in place of what it would show."""

AT_END = "p2p_at_end"
"""Marks, in a display's ``transient``, what a task shows at its end without being asked: its figures."""

VALUE = "p2p_value"
"""Marks the text and picture of a value that may not be readable here: it is no display of the task's."""

_MAX_NAME = 100
_MAX_LENGTH = 20_000
"""Width and height, in points, that a picture may be shown with."""

_IMAGES: dict[str, Callable[[bytes], tuple[int, int]]] = {"image/png": check_png, "image/jpeg": check_jpeg}

_SOURCES = ("text/markdown", "text/latex", "text/html", "application/json", "image/svg+xml", "application/javascript")
"""Whose source may stand for what isn't shown, the most readable first."""

_KINDS = {
    "text/html": "HTML",
    "text/markdown": "Markdown",
    "text/latex": "LaTeX",
    "image/svg+xml": "SVG",
    "application/javascript": "JavaScript",
    "text/javascript": "JavaScript",
    "application/json": "JSON",
    "image/png": "a PNG image",
    "image/jpeg": "a JPEG image",
}

_FIELDS = {"warning": ("category", "message", "filename", "line", "module", "text"), "log": FIELDS}
"""The parts of messages that are no displays."""

_BARE = re.compile(r"<IPython\.(core|lib)\.display\.\w+ object>")
"""The text of what has no text: its source says more."""

_CONTROL = re.compile(
    r"(?P<colour>\x1b\[[0-9;:]{0,60}m)"
    r"|\x1b\[[0-?]{0,60}[ -/]{0,10}[@-~]"  # CSI: moves, erases
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]{0,4000}(?:\x07|\x1b\\|\x9c)"  # OSC and its like: titles, links, the clipboard
    r"|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)
"""The sequences that are removed from text, except colours. Each ESC is in a match: none is left to begin anything."""


def harmless(message: Mapping[str, Any], worker: str) -> Message | None:
    """Return the message as it may be shown and kept; None for one that may not. ``worker`` is its sender's name."""
    name = plain(worker, _MAX_NAME) or "the worker"
    kind = message.get("kind")
    if kind == "stream":
        stream = "stderr" if message.get("name") == "stderr" else "stdout"
        return {"kind": "stream", "name": stream, "text": clean(message.get("text"))}
    content = message.get("content")
    if not isinstance(content, Mapping):
        return None
    if kind == "clear_output":
        return {"kind": kind, "content": {"wait": content.get("wait") is True}}
    if kind in _FIELDS:
        return {"kind": kind, "content": {name: _part(content.get(name)) for name in _FIELDS[kind] if name in content}}
    if kind not in ("display_data", "update_display_data"):
        return None
    transient = _transient(content.get("transient"), name)
    if kind == "update_display_data" and not transient:
        return None
    given = content.get("transient")
    marks = {mark: True for mark in (AT_END, VALUE) if isinstance(given, Mapping) and given.get(mark) is True}
    data, metadata = _data(content.get("data"), content.get("metadata"), name)
    return {"kind": kind, "content": {"data": data, "metadata": metadata, "transient": {**transient, **marks}}}


def is_value(message: Mapping[str, Any]) -> bool:
    """Whether a display message is the text of a task's value."""
    transient = message["content"].get("transient")
    return isinstance(transient, Mapping) and transient.get(VALUE) is True


def clean(text: object) -> str:
    """``text`` without control characters and sequences, other than colours, line ends, tabs and backspaces."""
    if not isinstance(text, str):
        return ""
    return _CONTROL.sub(lambda found: found["colour"] or "", text)


def _part(value: object) -> object:
    """Return a part of a warning or a record; numbers are checked where it is read."""
    return clean(value) if isinstance(value, str) else value if type(value) in (int, float) else None


def _data(data: object, metadata: object, name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return a display's parts that are shown, and what is said about the others."""
    parts = data if isinstance(data, Mapping) else {}
    about = metadata if isinstance(metadata, Mapping) else {}
    shown: dict[str, str] = {}
    sizes: dict[str, Any] = {}
    notes: list[str] = []
    for kind, check in _IMAGES.items():
        if kind not in parts:
            continue
        try:
            shown[kind] = _image(parts[kind], check)
        except BadImage as error:
            notes.append(f"({_KINDS[kind]} from {name} is not shown: {error})")
        else:
            if size := _size(about.get(kind)):
                sizes[kind] = size
    dropped = [kind for kind in parts if kind != "text/plain" and kind not in _IMAGES]
    text = parts.get("text/plain")
    source = next((parts[kind] for kind in _SOURCES if isinstance(parts.get(kind), str)), "")
    if isinstance(text, str) and source and _BARE.fullmatch(text):
        text = None
    if not isinstance(text, str) and not shown:
        text = source if len(source) <= MAX_SOURCE else f"{source[:MAX_SOURCE]}…"
    if dropped:
        words = list(dict.fromkeys(_KINDS.get(kind) or plain(str(kind), 60) for kind in dropped[:5]))
        notes.append(f"({', '.join(words)} from {name} is shown as text: %p2p_trust {name})")
    lines = [clean(text)] if isinstance(text, str) else []
    return {"text/plain": "\n".join([*lines, *notes])} | shown, sizes


def _image(value: object, check: Callable[[bytes], tuple[int, int]]) -> str:
    """Return the picture as base64 of exactly the bytes that have been checked. Raises ``BadImage``."""
    if not isinstance(value, str) or len(value) > 2 * MAX_SIZE:
        raise BadImage("it is too large" if isinstance(value, str) else "it is not base64")
    try:
        data = binascii.a2b_base64("".join(value.split()), strict_mode=True)
    except ValueError:
        raise BadImage("it is not base64") from None
    check(data)
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _size(about: object) -> dict[str, int]:
    if not isinstance(about, Mapping):
        return {}
    found = {name: about.get(name) for name in ("width", "height")}
    return {name: value for name, value in found.items() if type(value) is int and 0 < value <= _MAX_LENGTH}


def _transient(transient: object, name: str) -> dict[str, str]:
    """Return the identifier under which a display can be updated: with the worker's name, so that only it can."""
    display_id = transient.get("display_id") if isinstance(transient, Mapping) else None
    if not isinstance(display_id, str) or not display_id:
        return {}
    return {"display_id": f"{name}: {plain(display_id, _MAX_NAME)}"}
