"""The details of one task for a panel: its source, its output, its error. Pure.

All of it is text or a picture, and bounded; the future has the whole.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any, cast

from p2p_ipython.notebook.panel.contract import Output, Shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from p2p_ipython.client.future import Future

MOST_TEXT = 200_000
"""Characters of output, at most; of longer output, the last ones."""

MOST_IMAGES = 4 << 20
"""Characters of pictures, as base64, at most."""

MOST_OUTPUTS = 1000
"""Outputs, at most; of more, the last ones. Adjoining text of a stream counts as one."""

SOURCE = 100_000
ERROR = 50_000

CUT = "… (the future has the rest: .replay())\n"

IMAGES = ("image/png", "image/jpeg")

_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,60}[A-Za-z]")


def shown(source: str, future: Future[Any] | None) -> Shown:
    """Return what there is to see of a task. ``future``: None if nobody holds it any more."""
    outputs = _outputs(list(future.outputs)) if future is not None else []
    return Shown(source=source[:SOURCE], outputs=cast("list[Output]", outputs), error=_error(future)[:ERROR])


def _outputs(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    made: list[dict[str, str]] = []
    pieces: list[str] = []  # of the last output, a stream; joined once, so that its text isn't copied for each piece
    named: dict[str, dict[str, str]] = {}  # displays that may be updated
    pictures = 0

    def join() -> None:
        if pieces:
            made[-1]["text"] = "".join(pieces)
            pieces.clear()

    for message in messages:
        kind = message["kind"]
        if kind == "stream":
            last = made[-1] if made else {}
            if last.get("kind") != "stream" or last["name"] != message["name"]:
                join()
                made.append({"kind": "stream", "name": message["name"], "text": ""})
            pieces.append(message["text"])
        elif kind == "clear_output":
            made, pictures = [], 0
            pieces.clear()
            named.clear()
        elif kind in ("display_data", "update_display_data"):
            told = _display(message["content"].get("data"))
            name = _display_id(message["content"])
            before = named.get(name) if kind == "update_display_data" else None
            if told is None or (kind == "update_display_data" and before is None):
                continue
            pictures += len(told.get("data", "")) - len((before or {}).get("data", ""))
            if pictures > MOST_IMAGES and told["kind"] == "image":
                pictures -= len(told["data"])
                told = {"kind": "text", "text": "(a picture)"}
            if before is not None:
                before.clear()
                before.update(told)
                continue
            join()
            made.append(told)
            if name:
                named[name] = told
    join()
    return _last(made)


def _last(made: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return as many of the last outputs as a panel shows; a remark, once, stands for the others."""
    kept: list[dict[str, str]] = []
    left, cut = MOST_TEXT, False
    for told in reversed(made):
        if len(kept) == MOST_OUTPUTS:
            if not cut:
                kept.append({"kind": "text", "text": CUT})
            break
        text = told.get("text", "")
        if len(text) > left:
            if not cut:
                kept.append({**told, "text": CUT + text[len(text) - left :]})
            left, cut = 0, True
        else:
            left -= len(text)
            kept.append(told)
    return kept[::-1]


def _display(data: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Return the best that a panel can show of a display."""
    if not isinstance(data, dict):
        return None
    for mime in IMAGES:
        picture = data.get(mime)
        if isinstance(picture, str) and _is_base64(picture):
            return {"kind": "image", "mime": mime, "data": "".join(picture.split())}
    text = data.get("text/plain")
    return {"kind": "text", "text": text} if isinstance(text, str) else None


def _display_id(content: Mapping[str, Any]) -> str:
    """Return the id by which a display is updated; "" if it has none."""
    transient = content.get("transient")
    name = transient.get("display_id") if isinstance(transient, dict) else None
    return name if isinstance(name, str) else ""


def _is_base64(text: str) -> bool:
    try:
        return len(text) <= MOST_IMAGES and bool(base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError):
        return False


def _error(future: Future[Any] | None) -> str:
    """Return the whole error of a failed task, as it came: nothing is unpickled for it."""
    return _COLOUR.sub("", future.error_text) if future is not None else ""
