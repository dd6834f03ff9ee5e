"""A picture of where tasks' time went: one band a worker, one lane a slot, what waited above them.

``arrange`` decides what is where (pure geometry, in seconds and lanes), ``Timeline`` draws it: an SVG without scripts,
that takes its colours from the page, so that it reads on light and on dark. The parts of a task differ in shape and
pattern, too, not in colour alone. Labels and names are strangers' text, and are escaped.

A lane is a slot as seen from here: the tasks in it ran one after the other. A task's way there is drawn from
where the lane's last task ended; its figures are in the text that shows when one points at it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from operator import attrgetter

from p2p_ipython.client.journal import OVER, Attempt, Entry, Spans, spans
from p2p_ipython.protocol.plain import count

# --- geometry ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """A task, or an attempt that was lost, in a lane. Times are seconds since the picture's beginning.

    From ``waited`` (where what is drawn begins) it waited until ``sent``, travelled until ``started``, ran until
    ``ran``, and returned until ``ended``. ``outcome`` is a task's state, or "lost". ``text`` is for people.
    """

    lane: int
    waited: float
    sent: float
    started: float
    ran: float
    ended: float
    outcome: str
    text: str


@dataclass(frozen=True)
class Band:
    """A worker: its bars, in ``lanes`` lanes; ``busy`` is the share of its slots' time in which tasks ran, 0 to 1."""

    name: str
    lanes: int
    tasks: int
    busy: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Plan:
    """The places of all tasks. ``begin`` is Unix time, ``length`` seconds; ``queue`` how many wait, from when on."""

    begin: float
    length: float
    tasks: int
    bands: tuple[Band, ...] = ()
    queue: tuple[tuple[float, int], ...] = ()


@dataclass
class _Piece:
    """The time that one attempt had at a worker; Unix times."""

    entry: Entry
    ready: float  # submitted, or handed back
    sent: float
    started: float
    ended: float
    parts: Spans
    lost: bool


def arrange(entries: Iterable[Entry], now: float, slots: Mapping[bytes, int] | None = None) -> Plan:
    """Find the place of each task. ``now`` ends what still goes on; ``slots`` are the workers', by sid, where known."""
    entries = list(entries)
    if not entries:
        return Plan(now, 0.0, 0)
    begin = min(entry.submitted for entry in entries)
    still = any(entry.state not in OVER for entry in entries)
    end = max(max(begin, entry.ended, *(tried.ended for tried in entry.attempts)) for entry in entries)
    end = max(end, now) if still else end
    by_worker: dict[bytes, list[_Piece]] = {}
    names: dict[bytes, str] = {}
    for entry in entries:
        ready = entry.submitted
        for tried in entry.attempts:
            if tried.started:
                names[tried.sid] = tried.worker
                by_worker.setdefault(tried.sid, []).append(_lost(entry, ready, tried))
            ready = tried.ended
        sid = entry.sid  # once: the loop's thread may take it away
        if entry.started and sid is not None:
            over = entry.ended or end
            names[sid] = entry.worker
            piece = _Piece(entry, ready, entry.sent, entry.started, over, spans(entry, end), lost=False)
            by_worker.setdefault(sid, []).append(piece)
    length = max(end - begin, 1e-3)
    first = min((piece.sent for pieces in by_worker.values() for piece in pieces), default=begin)
    given = slots or {}
    bands = [
        _band(names[sid], pieces, begin, max(end - first, 1e-3), given.get(sid, 0)) for sid, pieces in by_worker.items()
    ]
    bands.sort(key=attrgetter("name"))
    return Plan(begin, length, len(entries), tuple(bands), _queue(entries, begin, end))


def _lost(entry: Entry, ready: float, tried: Attempt) -> _Piece:
    ran = max(0.0, tried.ended - tried.started)
    parts = Spans(max(0.0, tried.sent - ready), max(0.0, tried.started - tried.sent), ran, 0.0)
    return _Piece(entry, ready, tried.sent, tried.started, tried.ended, parts, lost=True)


def _band(name: str, pieces: list[_Piece], begin: float, seconds: float, slots: int) -> Band:
    """Put each piece into the first lane that is free when it starts. ``seconds`` is what one slot could have run."""
    free: list[float] = []  # by lane, since when
    bars: list[Bar] = []
    for piece in sorted(pieces, key=attrgetter("started")):
        lane = next((i for i, since in enumerate(free) if since <= piece.started), len(free))
        if lane == len(free):
            free.append(begin)
        start = max(free[lane], piece.ready)
        sent = min(max(free[lane], piece.sent), piece.started)
        bars.append(
            Bar(
                lane,
                waited=min(start, sent) - begin,
                sent=sent - begin,
                started=piece.started - begin,
                ran=piece.started + piece.parts.ran - begin,
                ended=max(piece.started, piece.ended) - begin,
                outcome="lost" if piece.lost else piece.entry.state.value,
                text=_text(piece),
            )
        )
        free[lane] = max(piece.started, piece.ended)
    lanes = max(len(free), slots)
    ran = sum(bar.ran - bar.started for bar in bars)
    return Band(name, lanes, len(bars), min(1.0, ran / (seconds * (slots or lanes))), tuple(bars))


def _queue(entries: Sequence[Entry], begin: float, end: float) -> tuple[tuple[float, int], ...]:
    """How many tasks wait, from when on, in seconds since ``begin``."""
    steps: dict[float, int] = {}
    for entry in entries:
        ready = entry.submitted
        sent = [tried.sent for tried in entry.attempts] + ([entry.sent] if entry.sent else [])
        back = [tried.ended for tried in entry.attempts]
        for number in range(len(entry.attempts) + 1):
            until = max(ready, sent[number] if number < len(sent) else entry.ended or end)
            steps[ready] = steps.get(ready, 0) + 1
            steps[until] = steps.get(until, 0) - 1
            ready = back[number] if number < len(back) else end
    found: list[tuple[float, int]] = []
    waiting = 0
    for when in sorted(steps):
        waiting += steps[when]
        if not found or found[-1][1] != waiting:
            found.append((when - begin, waiting))
    return tuple(found)


def ticks(length: float, about: int = 8) -> list[float]:
    """Round numbers of seconds from 0 to ``length``, ``about`` so many."""
    rough = length / about
    if rough > 10:  # parts of a minute, minutes, quarters of hours, hours
        steps = (15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
        step = float(next((s for s in steps if s >= rough), math.ceil(rough / 86400) * 86400))
    else:
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m for m in (1, 2, 5, 10) if m * power >= rough * 0.999) * power
    return [number * step for number in range(int(length / step + 1e-9) + 1)]


def span(seconds: float) -> str:
    """Say a length of time for people: "0.4 ms", "12 ms", "1.24 s", "3 min 5 s", "2 h 10 min"."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _text(piece: _Piece) -> str:
    entry, parts = piece.entry, piece.parts
    words = f"attempt {entry.attempt}" if entry.attempt > 1 and not piece.lost else ""
    where = "was lost" if piece.lost else entry.words
    lines = [
        entry.label,
        ", ".join(word for word in (where, words) if word),
        f"waited {span(parts.waited)}, travelled {span(parts.travelled)}",
        f"ran {span(parts.ran)}, returned {span(parts.returned)}",
    ]
    if entry.error and not piece.lost:
        lines.append(entry.error)
    return "\n".join(lines)


# --- the picture ------------------------------------------------------------------------------------

WIDTH = 960.0
LEFT = 168.0
RIGHT = 16.0
LANE = 13.0
GAP = 4.0
QUEUE = 30.0

MARKED = ("running", "failed", "cancelled", "lost")
"""Outcomes that look otherwise than a task that is done."""

COLOURS = {
    "waited": "#7a7f87",
    "travelled": "#9a6fb0",
    "ran": "#2f81c7",
    "returned": "#2e8b72",
    "failed": "#cf4f43",
}
"""Each has a contrast of 3:1 or more against white and against near-black."""


@dataclass(frozen=True)
class Timeline:
    """Display it in a notebook, or take ``svg``; its text says how well each worker was used."""

    plan: Plan
    svg: str = field(repr=False)

    def __str__(self) -> str:
        return describe(self.plan)

    def __repr__(self) -> str:
        return describe(self.plan)

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self.svg}</div>'


def timeline(entries: Iterable[Entry], now: float, slots: Mapping[bytes, int] | None = None) -> Timeline:
    """Return the picture of some tasks; see ``arrange``."""
    plan = arrange(entries, now, slots)
    return Timeline(plan, draw(plan))


def describe(plan: Plan) -> str:
    """Say the picture in words."""
    if not plan.tasks:
        return "No tasks yet."
    lines = [f"{count(plan.tasks, 'task')} in {span(plan.length)}, on {count(len(plan.bands), 'worker')}"]
    width = max((len(band.name) for band in plan.bands), default=0)
    lines += [
        f"  {band.name:<{width}}  {band.busy:4.0%} busy, {count(band.tasks, 'task')}, {count(band.lanes, 'slot')}"
        for band in plan.bands
    ]
    return "\n".join(lines)


def draw(plan: Plan) -> str:
    """Draw the picture as SVG."""
    return _Drawing(plan).svg()


class _Drawing:
    """Makes the SVG of one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._scale = (WIDTH - LEFT - RIGHT) / (plan.length or 1.0)
        # Patterns are named within the whole page: two pictures must not share a name.
        self._name = "p2p" + hashlib.sha256(repr(plan).encode()).hexdigest()[:12]
        self._out: list[str] = []

    def svg(self) -> str:
        top = y = self._legend(18.0) if self._plan.tasks else 4.0
        peak = max((waiting for _, waiting in self._plan.queue), default=0)
        if peak:
            y = self._draw_queue(y, peak)
        for band in self._plan.bands:
            y = self._draw_band(y, band)
        if not self._plan.tasks:
            self._label(LEFT, y + 14, "No tasks yet.")
            y += 24
        else:
            self._axis(top, y)
            y += 34
        label = escape("Timeline: " + describe(self._plan).replace("\n  ", "; "))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}"'
            f' viewBox="0 0 {WIDTH:.0f} {y:.0f}" width="{WIDTH:.0f}" height="{y:.0f}"'
            ' font-family="var(--jp-ui-font-family, system-ui), sans-serif" font-size="12" fill="currentColor"'
            ' style="max-width:100%;min-width:640px;height:auto;color:var(--jp-content-font-color1,inherit)">'
            f"{self._patterns()}{''.join(self._out)}</svg>"
        )

    # -- parts --

    def _patterns(self) -> str:
        def pattern(name: str, size: int, inside: str) -> str:
            return (
                f'<pattern id="{self._name}-{name}" width="{size}" height="{size}"'
                f' patternUnits="userSpaceOnUse">{inside}</pattern>'
            )

        travelled, returned, failed = COLOURS["travelled"], COLOURS["returned"], COLOURS["failed"]
        return (
            "<defs>"
            + pattern("travelled", 4, f'<path d="M-1 1l2-2M0 4l4-4M3 5l2-2" stroke="{travelled}" stroke-width="1.6"/>')
            + pattern("returned", 4, f'<circle cx="2" cy="2" r="1.3" fill="{returned}"/>')
            + pattern("lost", 5, f'<path d="M0 0l5 5M5 0l-5 5" stroke="{failed}" stroke-width="1.1"/>')
            + "</defs>"
        )

    def _legend(self, y: float) -> float:
        x = LEFT
        for kind, words in (
            ("waited", "waited"),
            ("travelled", "way there"),
            ("ran", "ran"),
            ("running", "runs"),
            ("returned", "way back"),
            ("failed", "failed"),
            ("cancelled", "cancelled"),
            ("lost", "worker lost"),
        ):
            if kind in MARKED and not self._has(kind):
                continue
            self._out.append("<g>" + self._shape(kind, x, x + 24, y - LANE + 3) + "</g>")
            self._label(x + 30, y, words)
            x += 30 + 6.6 * len(words) + 18
        return y + 14

    def _has(self, outcome: str) -> bool:
        drawn = (outcome, "stopping") if outcome == "running" else (outcome,)
        return any(bar.outcome in drawn for band in self._plan.bands for bar in band.bars)

    def _draw_queue(self, y: float, peak: int) -> float:
        """Draw the number of tasks that wait, as an area."""
        base = y + QUEUE
        height = (QUEUE - 6) / peak
        path = [f"M{LEFT:.1f} {base:.1f}"]
        for when, waiting in self._plan.queue:
            path.append(f"H{self._x(when):.1f}V{base - waiting * height:.1f}")
        path.append(f"H{WIDTH - RIGHT:.1f}V{base:.1f}Z")
        colour = COLOURS["waited"]
        words = f"at most {count(peak, 'task')} waited at a time"
        self._out.append(
            f'<path d="{"".join(path)}" fill="{colour}" fill-opacity=".35" stroke="{colour}" stroke-width="1">'
            f"<title>{words}</title></path>"
        )
        self._label(LEFT - 12, base - QUEUE / 2 + 5, f"waiting, up to {peak}", anchor="end", weight=600)
        return base + 10

    def _draw_band(self, y: float, band: Band) -> float:
        inner = max(band.lanes * (LANE + GAP) - GAP, 30.0)
        self._out.append(
            f'<rect x="{LEFT:.0f}" y="{y:.1f}" width="{WIDTH - LEFT - RIGHT:.0f}" height="{inner + 8:.1f}" rx="4"'
            ' fill-opacity=".05"/>'
        )
        name = band.name if len(band.name) <= 18 else band.name[:17] + "…"
        middle = y + 4 + inner / 2
        self._label(LEFT - 12, middle - 2, name, anchor="end", weight=600, title=band.name)
        self._label(LEFT - 12, middle + 13, f"{band.busy:.0%} busy, {count(band.tasks, 'task')}", anchor="end", size=11)
        top = y + 4 + (inner - (band.lanes * (LANE + GAP) - GAP)) / 2
        for bar in band.bars:
            self._draw_bar(bar, top + bar.lane * (LANE + GAP))
        return y + inner + 8 + 6

    def _draw_bar(self, bar: Bar, y: float) -> None:
        shapes = [
            self._shape(kind, self._x(begin), self._x(end), y)
            for kind, begin, end in (
                ("waited", bar.waited, bar.sent),
                ("travelled", bar.sent, bar.started),
                ("returned", bar.ran, bar.ended),
            )
            if (end - begin) * self._scale >= 0.5
        ]
        kind = "running" if bar.outcome == "stopping" else bar.outcome if bar.outcome in MARKED else "ran"
        left = self._x(bar.started)
        shapes.append(self._shape(kind, left, max(left + 1.2, self._x(bar.ran)), y))
        self._out.append(f"<g><title>{escape(bar.text)}</title>{''.join(shapes)}</g>")

    def _shape(self, kind: str, left: float, right: float, y: float) -> str:
        """Draw a part of a task, told by its height and pattern as well as by its colour."""
        width = right - left
        middle = y + LANE / 2
        if kind == "waited":
            return (
                f'<path d="M{left:.1f} {middle:.1f}H{right:.1f}" stroke="{COLOURS[kind]}" stroke-width="2"'
                ' stroke-dasharray="2 2.5"/>'
            )
        if kind in ("travelled", "returned"):
            return (
                f'<rect x="{left:.1f}" y="{middle - 3.5:.1f}" width="{width:.1f}" height="7"'
                f' fill="url(#{self._name}-{kind})" stroke="{COLOURS[kind]}" stroke-width=".6"/>'
            )
        box = f'<rect x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="{LANE:.0f}" rx="{min(2.0, width / 3):.1f}"'
        if kind == "ran":
            return f'{box} fill="{COLOURS[kind]}"/>'
        if kind == "running":
            return f'{box} fill="{COLOURS["ran"]}" fill-opacity=".3" stroke="{COLOURS["ran"]}" stroke-width="1.4"/>'
        if kind == "cancelled":
            return f'{box} fill="none" stroke="{COLOURS["waited"]}" stroke-width="1.4"/>'
        colour = COLOURS["failed"]
        if kind == "lost":
            return f'{box} fill="url(#{self._name}-lost)" stroke="{colour}"/>'
        cross = min(4.0, width / 2 - 1)
        mark = ""
        if cross > 1.5:
            centre = left + width / 2
            mark = (
                f'<path d="M{centre - cross:.1f} {middle - cross:.1f}l{2 * cross:.1f} {2 * cross:.1f}'
                f'm0 {-2 * cross:.1f}l{-2 * cross:.1f} {2 * cross:.1f}" stroke="#fff" stroke-width="1.6"/>'
            )
        return f'{box} fill="{colour}"/>{mark}'

    def _axis(self, top: float, bottom: float) -> None:
        lines = []
        for when in ticks(self._plan.length):
            x = self._x(when)
            lines.append(f"M{x:.1f} {top:.1f}V{bottom:.1f}")
            self._label(x, bottom + 14, _tick(when, self._plan.length), anchor=_anchor(x), size=11)
        grid = f'<path d="{"".join(lines)}" stroke="currentColor" stroke-opacity=".16" stroke-width="1"/>'
        self._out.insert(0, grid)
        begun = datetime.fromtimestamp(self._plan.begin).strftime("%H:%M:%S")
        self._label(LEFT - 12, bottom + 14, f"from {begun}", anchor="end", size=11)

    def _label(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        size: int = 12,
        weight: int = 400,
        title: str = "",
    ) -> None:
        style = f' text-anchor="{anchor}"' if anchor != "start" else ""
        style += f' font-size="{size}"' if size != 12 else ""
        style += f' font-weight="{weight}"' if weight != 400 else ""
        hint = f"<title>{escape(title)}</title>" if title and title != text else ""
        self._out.append(f'<text x="{x:.1f}" y="{y:.1f}"{style}>{escape(text)}{hint}</text>')

    def _x(self, seconds: float) -> float:
        return LEFT + min(max(seconds, 0.0), self._plan.length) * self._scale


def _anchor(x: float) -> str:
    """How a label of the axis lies at ``x``: within the picture."""
    if x < LEFT + 1:
        return "start"
    return "middle" if x < WIDTH - 36 else "end"


def _tick(seconds: float, length: float) -> str:
    """Say a time on the axis, in the unit that the whole axis has."""
    if seconds == 0:
        return "0"
    if length < 1:
        return f"{seconds * 1000:g} ms"
    if length < 180:
        return f"{seconds:g} s"
    whole = round(seconds)
    if length < 3 * 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
