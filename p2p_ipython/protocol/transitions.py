"""Check a task's change of state against a machine's table, and tell what came before one that can't be.

The tables are beside their machines. Each machine keeps a list of events per task, its *story*, for as long as it has
the task. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar

from p2p_ipython.errors import LocalProtocolError

S = TypeVar("S", bound=enum.Enum)

STORY = 16
"""Events of a task that are remembered, for the error of one that can't be."""


def check(
    table: Mapping[S, Mapping[str, frozenset[S]]], task: str, story: list[str], event: str, *, before: S, after: S
) -> None:
    """Add an event to a task's story. Raises ``LocalProtocolError`` if it can't lead to ``after``: a bug of ours."""
    story.append(event)
    if len(story) > STORY:
        del story[0]
    if after not in table[before].get(event, ()):
        raise LocalProtocolError(
            f"task {task}: {event} leads from {before.value} to no {after.value} (after {' → '.join(story)})"
        )
