"""Frames as strangers may write them: right ones, wrong ones, and those of a later version, as hypothesis draws them.

Nothing here knows a field: ``Field`` and ``Rule`` of the frame classes say what there is, in PROTOCOL.md's words::

    class ──table──► right header ──damage──► missing, of a wrong type, beyond its bound, at odds with another, no JSON
                                  ──extras──► fields that nobody knows

The damage decides what must come of a frame; no reader is asked.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from p2p_ipython.link.base import LANDING
from p2p_ipython.protocol.frames import MAX_DEPTH
from p2p_ipython.protocol.packages import MAX_REQUIREMENT
from p2p_ipython.protocol.rules import REQUIRED, Fields, Rule
from p2p_ipython.protocol.task_frames import (
    FRAMES,
    MAX_REF,
    MAX_SEGMENT,
    Attached,
    Frame,
    Output,
    Result,
    Sender,
    TaskFailure,
)

LONG = os.environ.get("P2P_EXAMPLES")
"""Examples of each test, new ones in every run; without it there are few, and always the same."""


def examples(few: int) -> settings:
    """So many examples of a test, or as many as ``P2P_EXAMPLES`` says."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=int(LONG or few), derandomize=not LONG, suppress_health_check=slow)


Strategy = st.SearchStrategy[Any]


@dataclass(frozen=True, repr=False)
class Said:
    """A frame as its sender writes it; ``wrong`` names what is wrong with it, and is empty if nothing is."""

    header: dict[str, Any]
    body: bytes
    wrong: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<{', '.join(self.wrong) or 'right'}: {json.dumps(self.header)[:400]}, {len(self.body)} bytes>"

    def about(self, **fields: Any) -> Said:
        """The same with these fields, if it has them and they aren't what is wrong with it."""
        known = {name: value for name, value in fields.items() if name in self.header and name not in self.wrong}
        return replace(self, header=self.header | known)

    @property
    def head(self) -> bytes:
        """All bytes before the body: also of what no writer of ours would write."""
        text = json.dumps(self.header).encode()
        return len(text).to_bytes(4, "big") + len(self.body).to_bytes(4, "big") + text


def nested(depth: int) -> list[Any]:
    """A list within lists."""
    return [nested(depth - 1)] if depth > 1 else []


TEXT = st.text(st.characters(), min_size=1, max_size=20)  # lone surrogates, too
FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | FINITE
JSON = st.recursive(
    PLAIN | st.text(max_size=20) | TEXT | st.just(nested(MAX_DEPTH - 2)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
).filter(lambda value: _depth(value) < MAX_DEPTH)
NO_JSON = st.sampled_from(
    [float("nan"), float("inf"), -float("inf"), 10**400, 1 << 64, -(1 << 63) - 1, nested(MAX_DEPTH), {"a": nested(99)}]
)
BODIES = st.sampled_from([b"", b"abc", bytes(LANDING)])


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _not(*types: type) -> Strategy:
    return JSON.filter(lambda value: type(value) not in types)


def _with_one(right: Strategy, wrong: Strategy) -> Strategy:
    """Lists with one wrong element among right ones."""
    few = st.lists(right, max_size=2)
    return st.builds(lambda before, bad, after: [*before, bad, *after], few, wrong, few)


def _text(most: int | None) -> tuple[Strategy, list[Strategy]]:
    if most is None:  # its bound is that of the header, which has room for it alone
        return TEXT, [_not(str)]
    return TEXT | st.just("x" * most), [_not(str), st.just("x" * (most + 1))]


def _whole(least: int, most: int) -> tuple[Strategy, list[Strategy]]:
    below, above = st.integers(-(1 << 63), least - 1), st.integers(most + 1, (1 << 64) - 1)
    return st.sampled_from([least, most]) | st.integers(least, most), [_not(int), below, above]


def values(rule: Rule) -> tuple[Strategy, list[Strategy]]:
    """Values that keep a rule, and in several ways values that break it. ``says`` is all that the rule is asked."""
    numbers = re.findall(r"(\d[\d,]*)(?:\^(\d+))?", rule.says)
    bounds = [int(base.replace(",", "")) ** int(power or 1) for base, power in numbers]
    match rule.says.split()[0]:
        case "text":
            return _text(bounds[0] if bounds else None)
        case "whole":
            return _whole(*bounds)
        case "number":
            least, most = bounds
            below, above = st.floats(max_value=least - 1e-9, allow_infinity=False), st.integers(most + 1, (1 << 64) - 1)
            return st.integers(least, most) | st.floats(least, most), [_not(int, float), below, above]
        case "true":
            return st.booleans(), [_not(bool)]
        case "refs" | "texts" as kind:
            right, wrong = _text(MAX_REF if kind == "refs" else None)
            inside = [_with_one(right, each) for each in wrong]
            return st.lists(right, max_size=3), [_not(list), st.just(["r"] * (bounds[0] + 1)), *inside]
        case "segments":
            (size, no_size), (ref, no_ref) = _whole(0, MAX_SEGMENT), _text(MAX_REF)
            right = st.tuples(size, st.none() | ref).map(list)
            wrong = [st.tuples(bad, ref) for bad in no_size]
            wrong += [st.tuples(size, bad.filter(lambda value: value is not None)) for bad in no_ref]
            wrong += [st.tuples(size), st.tuples(size, ref, size)]
            inside = [_with_one(right, each.map(list)) for each in wrong] + [_with_one(right, _not(list))]
            beyond = [st.just([[1, None]] * (bounds[1] + 1)), *([st.just([])] if bounds[0] else [])]
            return st.lists(right, min_size=bounds[0], max_size=3), [_not(list), *beyond, *inside]
        case "requirements":
            right = st.sampled_from(["numpy", "numpy<3,>=2", "a-b[c,d]~=1.0rc1", "x==1.*"])
            bad = st.sampled_from(
                ["-e.", "a b", "a/b", "../a", "a@b", "A", "a\n", "a;b", "", "a" * (MAX_REQUIREMENT + 1)]
            )
            inside = [_with_one(right, each) for each in (bad, _not(str))]
            return st.lists(right, max_size=3), [_not(list), st.just(["a"] * (bounds[1] + 1)), *inside]
        case "object":  # the only one there is
            inside = [damaged(TaskFailure, st.just([way])).map(lambda drawn: drawn[0]) for way in ways(TaskFailure)]
            return right_fields(TaskFailure), [_not(dict), *inside]
        case "objects":  # likewise
            right, least = right_fields(Attached), {"what": "name", "name": "n", "codec": "left", "segments": []}
            inside = [damaged(Attached, st.just([way])).map(lambda drawn: drawn[0]) for way in ways(Attached)]
            spoilt = [_with_one(right, each) for each in [*inside, _not(dict)]]
            return st.lists(right, max_size=3), [_not(list), st.just([least] * (bounds[1] + 1)), *spoilt]
    words = re.findall(r'"(\w+)"', rule.says)
    return st.sampled_from(words), [_not(str), TEXT.filter(lambda value: value not in words)]


@st.composite
def right_fields(draw: st.DrawFn, frame_class: type[Fields]) -> dict[str, Any]:
    """The fields of a class, those that may be missing or not."""
    rows = [row for row in frame_class.table() if row.default is REQUIRED or draw(st.booleans())]
    header = {row.name: draw(values(row.rule)[0]) for row in rows}
    if issubclass(frame_class, Frame):
        header["t"] = frame_class.kind
    if frame_class is Output:
        return _agreeing(header, "name", "stdout" if header["kind"] == "stream" else None)
    if frame_class is Attached and header["codec"] in ("bytes", "left"):
        return _agreeing(header, "segments", [[3, None]] if header["codec"] == "bytes" else [])
    if frame_class is Result:
        return _agreeing(header, "error", None if header["ok"] else {"kind": "exception"})
    return header


def _agreeing(header: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The same with another field, which must be there (a value) or must not (None)."""
    rest = {field: each for field, each in header.items() if field != name}
    return rest if value is None else {**rest, name: value}


Way = tuple[str, Strategy | None]
"""One way to spoil a frame: the field, and its values; None: it is missing."""


def ways(frame_class: type[Fields]) -> list[Way]:
    """Each way to spoil each field of a class: the type, each bound, each part of it, its absence."""
    rows = frame_class.table()
    found: list[Way] = [(row.name, None) for row in rows if row.default is REQUIRED]
    found += [(row.name, wrong) for row in rows for wrong in values(row.rule)[1]]
    return found + ([("t", None), ("t", _not(str))] if issubclass(frame_class, Frame) else [])


@st.composite
def damaged(draw: st.DrawFn, frame_class: type[Fields], chosen: st.SearchStrategy[list[Way]]) -> Any:
    """The fields of a class, spoilt in the chosen ways, and the names of those that are wrong."""
    header, hits = draw(right_fields(frame_class)), draw(chosen)
    for name, wrong in hits:
        if wrong is None:
            del header[name]
        else:
            header[name] = draw(wrong)
    return header, tuple(name for name, _ in hits)


def _at_odds(header: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A right frame of the two classes whose fields have to agree, of which two don't."""
    if "ok" in header:
        return {**header, "ok": not header["ok"]}, ("ok",)
    return _agreeing(header, "name", None if "name" in header else "stderr"), ("kind", "name")


def kinds_of_frames(sender: Sender, kind: str) -> tuple[list[st.SearchStrategy[Said]], list[st.SearchStrategy[Said]]]:
    """Strategies for frames of a kind: for each way in which one is wrong, and for those that aren't."""
    frame_class = FRAMES[sender][kind]
    known = {row.name for row in frame_class.table()} | {"t"}
    extras = st.dictionaries(TEXT.filter(lambda name: name not in known), JSON, max_size=3)
    right = right_fields(frame_class)
    others = sorted({each for row in FRAMES.values() for each in row} - FRAMES[sender].keys())
    later = st.sampled_from(["have", "link.applause", *others]) | TEXT.filter(lambda kind: kind not in FRAMES[sender])

    each = ways(frame_class)
    several = st.lists(st.sampled_from(each), min_size=2, max_size=3, unique_by=lambda way: way[0])
    chosen = [st.just([way]) for way in each] + ([several] if len(known) > 1 else [])
    wrong = [damaged(frame_class, one) for one in chosen]
    if frame_class in (Output, Result):
        wrong.append(right.map(_at_odds))
    no_json = st.builds(lambda fields, name, value: ({**fields, name: value}, ("no JSON",)), right, TEXT, NO_JSON)
    return (
        [
            st.builds(lambda more, drawn, body: Said(more | drawn[0], body, drawn[1]), extras, one, BODIES)
            for one in (*wrong, no_json)
        ],
        [
            st.builds(lambda more, fields, body: Said(more | fields, body), extras, right, BODIES),
            st.builds(lambda more, fields, t, body: Said(more | fields | {"t": t}, body), extras, right, later, BODIES),
        ],
    )


def said(sender: Sender, kind: str) -> st.SearchStrategy[Said]:
    """Any frame of a kind, more often a wrong one."""
    wrong, right = kinds_of_frames(sender, kind)
    return st.sampled_from([wrong, wrong, right]).flatmap(st.one_of)


def each_way(sender: Sender, kind: str, few: int, test: Callable[[Said], None]) -> None:
    """Try a test on frames of a kind: ``few`` a way in which one is wrong, ten times as many that are right."""
    wrong, right = kinds_of_frames(sender, kind)
    for strategy in wrong:
        examples(few)(given(strategy)(test))()
    for strategy in right:
        examples(10 * few)(given(strategy)(test))()


def drawn(strategy: st.SearchStrategy[Said], count: int, number: int) -> list[Said]:
    """So many of a strategy's frames, always the same ones for the same seed ``number``."""
    found: list[Said] = []

    @seed(number)
    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def one(frame: Said) -> None:
        found.append(frame)

    one()
    return found


def crowd(sender: Sender, kind: str, count: int, number: int) -> tuple[list[Said], list[Said]]:
    """So many wrong and right frames of a kind, for a flood."""
    wrong, right = kinds_of_frames(sender, kind)
    return drawn(st.one_of(wrong), count, number), drawn(right[0], count, number)
