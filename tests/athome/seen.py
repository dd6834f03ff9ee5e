"""What a reader sees of a cell, and how two runs of it differ. Pure.

Few rules make two runs comparable: what is different by nature, as an address in memory, is replaced at both sides.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from p2p_ipython.notebook.card import line_html
from p2p_ipython.notebook.output import _small as small

RULES = [
    (r"\x1b\[[0-9;]*m", ""),  # colours
    (r"\b0x[0-9a-fA-F]{5,}", "0x…"),  # addresses
    (r"/tmp/ipykernel_\d+/\d+\.py|(?:~/)?<ipython-input-[^>]*>|\bCell In ?\[\d+\](?=:\d+: )", "CELL"),  # a cell's file
    (r"(?<=\()(?:\d+\.py|<cell>|Cell In ?\[\d+\]|CELL)(?=, line \d+\))", "CELL"),  # of a syntax error
    (r"(?<=CELL:)\d+", "…"),  # a cell's line: below %%p2p it may count from there
    (r"((?:CPU times|Wall time): ).*", r"\1…"),
    (r"\d[\d.]* (?:ns|[µμ]s|us|ms|s|min)(?: [\d.]+ (?:ms|s|min))* ± .*", "… ± …"),  # %timeit
    (r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b", "ID"),
    (r"\b(sk-(?:container|estimator)-id-|T_)\w+", r"\1…"),  # counted or drawn for each picture
]
"""Patterns and what takes their place."""

OUR_LINES = (line_html("", "").partition("<svg")[0], small("").partition(">")[0])
"""How the lines under a cell begin that say where its task is, and what else there is to say."""


def normal(text: str) -> str:
    """Return a text without what differs from run to run."""
    for pattern, instead in RULES:
        text = re.sub(pattern, instead, text)
    return text


@dataclass
class Shown:
    """One thing under a cell: what was printed until the next other thing, a display, a value, or an error."""

    kind: str
    parts: dict[str, str]


@dataclass
class Seen:
    """All that is seen of one run of a cell."""

    shown: list[Shown] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    value: Any = None
    bound: dict[str, Any] | None = None
    """Names that the cell has bound, each with its value's fingerprint; None where they can't be asked for."""
    gone: list[str] = field(default_factory=list)
    changed: dict[str, Any] = field(default_factory=dict)
    """Names whose value the cell has changed in place, with its fingerprint. A task changes a copy, by design."""
    notes: str = ""
    """What p2p_ipython itself said under the cell."""
    ended: bool = True

    @property
    def text(self) -> str:
        """All of it, as a reader of a report sees it."""
        return "\n".join(f"[{one.kind}] " + "\n".join(f"{k}: {v}" for k, v in one.parts.items()) for one in self.shown)


def seen_in(messages: Iterable[Mapping[str, Any]], pages: str = "") -> Seen:
    """Read a cell's messages, and the pages that it opened. Lines of p2p_ipython's own are no part of what it shows.

    A page, of help, is text that a reader sees: it counts as printed.
    """
    seen, displays, wipe = Seen(), {}, False
    ours: set[str] = set()
    streams: dict[str, str] = {}

    def flush() -> None:
        if streams:
            seen.shown.append(Shown("text", {k: carriage(normal(v)) for k, v in sorted(streams.items())}))
            streams.clear()

    for message in messages:
        kind, content = message["msg_type"], message["content"]
        if kind not in {"stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"}:
            continue
        display = (content.get("transient") or {}).get("display_id")
        bundle = content.get("data") or {}
        if display and (display in ours or bundle.get("text/html", "").startswith(OUR_LINES)):
            ours.add(display)
            seen.notes = bundle.get("text/plain", "")
            continue
        if kind == "clear_output":
            wipe = True
            if content["wait"]:
                continue
        if wipe:  # at once, or with what comes next
            wipe = False
            seen.shown.clear()
            streams.clear()
            if kind == "clear_output":
                continue
        if kind == "stream":
            streams[content["name"]] = streams.get(content["name"], "") + content["text"]
        elif kind == "error":
            flush()
            seen.shown.append(Shown("error", error(content)))
        elif kind == "update_display_data":
            if display in displays:
                displays[display].parts = data(content["data"])
        else:
            flush()
            shown = Shown("value" if kind == "execute_result" else "display", data(content["data"]))
            if display:
                displays[display] = shown
            seen.shown.append(shown)
    streams["stdout"] = streams.get("stdout", "") + pages
    flush()
    return seen


def carriage(text: str) -> str:
    """Return what is left of lines that were written over, as a progress bar's."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def data(bundle: Mapping[str, Any]) -> dict[str, str]:
    """Return each representation as text; pictures by their hash."""
    found = {}
    for mime, value in sorted(bundle.items()):
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        found[mime] = hashlib.sha256(text.encode()).hexdigest()[:16] if mime == "image/png" else normal(text)
    return found


def error(content: Mapping[str, Any]) -> dict[str, str]:
    """Return an error's type and message, and the lines of the notebook's own cells in its traceback."""
    return {
        "type": content["ename"],
        "message": normal(content["evalue"]),
        "lines": "\n".join(cell_lines(normal("\n".join(content["traceback"])))),
    }


def cell_lines(traceback: str) -> list[str]:
    """Return, for each frame in a cell, where it is and the line that the arrow points at, without numbers.

    Frames that are repeated, of a recursion, count once.
    """
    found: list[str] = []
    inside = False
    for line in traceback.splitlines():
        if head := re.match(r"\s*(Cell In ?\[\d+\])(?:, |:)(?:line )?\d+(.*)", line):
            inside = True
            found.append(f"{head[1]}{head[2]}")
        elif re.match(r"\s*File ", line):
            inside = False
        elif inside and (arrow := re.match(r"\s*-+> ?\d+ ?(.*)", line)):
            found.append(f"> {arrow[1].strip()}")
            if found[-2:] == found[-4:-2]:
                del found[-2:]
    return found


def differences(home: Seen, away: Seen) -> dict[str, tuple[str, str]]:
    """Return what differs: aspect → how it was at home and on the worker."""
    found: dict[str, tuple[str, str]] = {}

    def compare(aspect: str, one: object, other: object) -> None:
        if one != other:
            found[aspect] = (str(one), str(other))

    if not away.ended:
        return {"hangs": ("", away.text)}
    for kind in ("text", "display", "value", "error"):
        mine, theirs = ([one for one in seen.shown if one.kind == kind] for seen in (home, away))
        if kind == "text":
            for name in ("stdout", "stderr"):
                compare(name, *("".join(one.parts.get(name, "") for one in each) for each in (mine, theirs)))
        elif kind == "error":
            for part in ("type", "message", "lines"):
                compare(f"error's {part}", *([one.parts[part] for one in each] for each in (mine, theirs)))
        else:
            compare(f"{kind}'s types", *([sorted(one.parts) for one in each] for each in (mine, theirs)))
            if f"{kind}'s types" not in found:
                compare(kind, *([one.parts for one in each] for each in (mine, theirs)))
    if not found:
        compare("order", *([one.kind for one in seen.shown] for seen in (home, away)))
        compare("object", home.value, away.value)
    compare("files", home.files, away.files)
    if home.bound is not None and away.bound is not None:
        # A copy that is bound is in the end what a change in place makes of the value.
        compare("names", home.bound | {n: v for n, v in home.changed.items() if n in away.bound}, away.bound)
    return found
