"""The journal's rows as a table: a DataFrame where pandas is there, else a list that prints itself as one."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from p2p_ipython.client.journal import COLUMNS

log = logging.getLogger(__name__)

TIMES = ("submitted", "sent", "started", "ended")

SHOWN = ("label", "state", "worker", "waited", "travelled", "ran", "returned", "error")
"""Columns of the text; there are more."""

WIDTH = 32
"""Characters of a column of the text, at most."""


class Rows(list[dict[str, Any]]):
    """A list of dicts; its text is a table of the most telling columns."""

    def __repr__(self) -> str:
        lines = [SHOWN, *(tuple(_text(row[name]) for name in SHOWN) for row in self)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(SHOWN))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def table(rows: list[dict[str, Any]]) -> Any:
    """``rows`` of the journal as a ``pandas.DataFrame``, with times of this time zone; without pandas, ``Rows``."""
    try:
        # Late: pandas is heavy, and optional.
        import pandas  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return Rows(rows)
    except Exception as error:  # one that is broken is no reason to keep the rows from people
        log.warning("pandas can't be used: %s", error)
        return Rows(rows)
    frame = pandas.DataFrame(rows, columns=list(COLUMNS))
    here = datetime.now().astimezone().tzinfo
    for name in TIMES:
        frame[name] = pandas.to_datetime(frame[name], unit="s", utc=True).dt.tz_convert(here)
    return frame


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = "" if value is None else str(value)
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
