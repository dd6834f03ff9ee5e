"""What there is to see of one task: its source, what it has shown, its error. Pure.

All of it is text or a picture, and bounded: a panel looks at it, and the future has the whole.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from p2p_ipython.client.future import Future

MOST_TEXT = 200_000
"""Characters of output that are shown, the last ones of a stream that has more."""

MOST_IMAGES = 4 << 20
"""Characters of pictures, as base64, that are shown."""

MOST_OUTPUTS = 1000
"""Outputs that are shown, the last ones where there are more; a stream's text in one piece is one."""

SOURCE = 100_000
ERROR = 50_000

CUT = "… (the future has the rest: .replay())\n"

IMAGES = ("image/png", "image/jpeg")

_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,60}[A-Za-z]")


def shown(source: str, future: Future[Any] | None) -> dict[str, Any]:
    """The contract's ``Shown``. ``future``: what is still held of the task, if anything is."""
    outputs = _outputs(list(future.outputs)) if future is not None else []
    return {"source": source[:SOURCE], "outputs": outputs, "error": _error(future)[:ERROR]}


def _outputs(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    made: list[dict[str, str]] = []
    pieces: list[str] = []  # of the stream that is the last one made
    pictures = 0
    for message in messages:
        kind = message["kind"]
        if kind == "stream":
            last = made[-1] if made else {}
            if last.get("kind") != "stream" or last["name"] != message["name"]:
                _join(made, pieces)
                made.append({"kind": "stream", "name": message["name"], "text": ""})
            pieces.append(message["text"])
            continue
        _join(made, pieces)
        if kind == "clear_output":
            made.clear()
        elif kind == "display_data":
            told = _display(message["content"].get("data"))
            if told is not None and told["kind"] == "image":
                pictures += len(told["data"])
                if pictures > MOST_IMAGES:
                    told = {"kind": "text", "text": "(a picture)"}
            if told is not None:
                made.append(told)
    _join(made, pieces)
    return _last(made)


def _join(made: list[dict[str, str]], pieces: list[str]) -> None:
    """Give the last stream its text: at once, since a text that grows piece by piece is copied each time."""
    if pieces:
        made[-1]["text"] = "".join(pieces)
        pieces.clear()


def _last(made: list[dict[str, str]]) -> list[dict[str, str]]:
    """As many of the last outputs as are shown; in the place of what is left out it says so, once."""
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
    """The best that a panel can show of a display."""
    if not isinstance(data, dict):
        return None
    for mime in IMAGES:
        picture = data.get(mime)
        if isinstance(picture, str) and _is_base64(picture):
            return {"kind": "image", "mime": mime, "data": "".join(picture.split())}
    text = data.get("text/plain")
    return {"kind": "text", "text": text} if isinstance(text, str) else None


def _is_base64(text: str) -> bool:
    try:
        return len(text) <= MOST_IMAGES and bool(base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError):
        return False


def _error(future: Future[Any] | None) -> str:
    """The whole error of a task that failed, as it came: nothing is unpickled for it."""
    return _COLOUR.sub("", future.error_text) if future is not None else ""
