"""A doctor's findings on a terminal: a line each, with a sign, and what to do below what failed. Pure."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from p2p_ipython.doctor.checks import CHECKS, Check, Outcome, Report, Result

_SIGNS = {Outcome.OK: "✓", Outcome.FAILED: "✗", Outcome.SKIPPED: "–", Outcome.UNKNOWN: "?"}
_PLAIN = {Outcome.OK: "ok", Outcome.FAILED: "NO", Outcome.SKIPPED: "--", Outcome.UNKNOWN: "? "}
_COLOURS = {Outcome.OK: "32", Outcome.FAILED: "31", Outcome.SKIPPED: "2", Outcome.UNKNOWN: "33"}
_TITLES = max(len(check.title) for check in CHECKS)


@dataclass(frozen=True)
class Style:
    """The terminal's abilities: its ``width`` in columns, colours, signs beyond ASCII."""

    width: int = 100
    colour: bool = False
    signs: bool = True


def finding(check: Check, result: Result, style: Style) -> str:
    """Write one check's line (or lines)."""
    sign = (_SIGNS if style.signs else _PLAIN)[result.outcome]
    if style.colour:
        sign = f"\x1b[{_COLOURS[result.outcome]}m{sign}\x1b[0m"
    time = "" if result.seconds is None else f" ({_milliseconds(result.seconds)})"
    indent = " " * (_TITLES + (5 if style.signs else 6))
    width = max(40, style.width - len(indent))
    # Words longer than a line, as fingerprints and addresses, stay whole: they are to be copied.
    lines = textwrap.wrap(result.why + time, width, break_long_words=False, break_on_hyphens=False)
    if result.todo:
        arrow = "→ " if style.signs else "> "
        for paragraph in result.todo.splitlines():
            lines += textwrap.wrap(
                paragraph,
                width,
                initial_indent=arrow,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return f"{sign}  {check.title:<{_TITLES}}  " + f"\n{indent}".join(lines)


def verdict(report: Report) -> str:
    """Write the last line."""
    first = report.first_failed
    if first is None:
        return "Everything works." if report.healthy else "It took too long: run it again."
    return f"The first thing that fails is: {first.title}. Repair that, and run it again."


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
