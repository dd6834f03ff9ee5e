"""The doctor's checks, their order, and their results. Pure.

A check is a hop: it needs the ones before it that it names, and is skipped when one of those has failed or was
skipped itself. So the first check that failed is the one to repair.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Outcome(enum.Enum):
    """The outcome of a check. The value is what ``--json`` has."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  # something that it needs has failed, or the time was over
    UNKNOWN = "unknown"  # it can't be told from here; that is nobody's fault


@dataclass(frozen=True)
class Check:
    """One hop. ``needs`` are the names of checks; ``limit`` is how long it may take, s."""

    name: str
    title: str
    needs: tuple[str, ...]
    limit: float


@dataclass(frozen=True)
class Result:
    """The result of a check: ``why`` in words, ``todo`` what the user does next, ``seconds`` a measured time."""

    outcome: Outcome
    why: str
    todo: str = ""
    seconds: float | None = None


CHECKS = (
    Check("key", "SSH key", (), 10),
    Check("name", "name of the board", (), 6),
    Check("tcp", "connection", ("name",), 10),
    Check("host-key", "the board's host key", ("tcp",), 10),
    Check("log-in", "log-in", ("key", "host-key"), 15),
    Check("echo", "a line on the board", ("log-in",), 12),
    Check("clock", "this machine's clock", (), 6),
    Check("mailbox", "wormhole mailbox", (), 8),
    Check("relay", "relay", (), 8),
    Check("link", "a link over the relay", ("mailbox", "relay"), 15),
    Check("sandbox", "sandbox for lending", (), 30),
)
"""All checks, in the order in which they are made."""

WITHIN = 60.0
"""How long all of them may take, s."""


def ok(why: str, *, seconds: float | None = None) -> Result:
    """Report that the hop works."""
    return Result(Outcome.OK, why, seconds=seconds)


def failed(why: str, todo: str = "") -> Result:
    """Report that the hop doesn't work, and what to do."""
    return Result(Outcome.FAILED, why, todo)


def skipped(why: str) -> Result:
    """Report that the hop was not checked."""
    return Result(Outcome.SKIPPED, why)


def unknown(why: str) -> Result:
    """Report that nothing can be known of the hop."""
    return Result(Outcome.UNKNOWN, why)


def obstacle(check: Check, results: Mapping[str, Result]) -> Result | None:
    """Return the result of a check that needn't be made, given ``results``; None if it is to be made."""
    for name in check.needs:
        if results[name].outcome in (Outcome.FAILED, Outcome.SKIPPED):
            return skipped(f"needs: {_title(name)}")
    return None


def _title(name: str) -> str:
    return next(check.title for check in CHECKS if check.name == name)


@dataclass(frozen=True)
class Report:
    """The results of all checks; ``places`` says by name what was looked at (board, mailbox, relay)."""

    places: Mapping[str, str]
    results: Mapping[str, Result]

    @property
    def first_failed(self) -> Check | None:
        """Return the hop to repair first; None if there is none."""
        return next((check for check in CHECKS if self.results[check.name].outcome is Outcome.FAILED), None)

    @property
    def healthy(self) -> bool:
        """Whether every hop works, but for those of which nothing can be known."""
        return all(result.outcome in (Outcome.OK, Outcome.UNKNOWN) for result in self.results.values())

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs: ``ok``, ``first_failed`` (a name or None), the places, and ``checks``."""
        first = self.first_failed
        return {
            "ok": self.healthy,
            "first_failed": first.name if first else None,
            **self.places,
            "checks": [
                {
                    "check": check.name,
                    "result": result.outcome.value,
                    "why": result.why,
                    "todo": result.todo,
                    "ms": None if result.seconds is None else round(result.seconds * 1000, 1),
                }
                for check in CHECKS
                for result in (self.results[check.name],)
            ],
        }
