"""A client of an engine, as its host uses it, and what can go wrong with one."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol


class EngineFailed(Exception):
    """The engine can't be had, or is lost."""

    def __init__(self, words: str, hint: str = "") -> None:
        super().__init__(words)
        self.hint = hint


class Size(NamedTuple):
    """How many tasks an engine runs at a time, and the bytes of memory that its workers have; 0 if unknown."""

    slots: int
    memory: int = 0


class JobLost(Exception):
    """The engine has nothing of a job; the text says why. ``never``: it has not begun."""

    def __init__(self, words: str, *, never: bool = False) -> None:
        super().__init__(words)
        self.never = never


class Client(Protocol):
    """A client of an engine, for the host's loop."""

    def result(self, job: bytes, key: str) -> Awaitable[bytes]:
        """Have ``entry.run`` run a job. Raises ``JobLost``, or ``EngineFailed`` when the engine is lost with it."""
        ...

    async def stop(self, key: str) -> bool:
        """Stop a job; return whether it is going to end. ``result`` says when it has."""
        ...

    async def look(self) -> Size:
        """Return how large the engine is now. Raises ``EngineFailed`` when it is lost."""
        ...

    def about(self) -> Mapping[str, Any]:
        """Return what ``entry.about`` has said."""
        ...

    async def close(self) -> None:
        """Leave the engine."""


def fitting(about: Mapping[str, Any]) -> str:
    """Return what keeps tasks from running where ``entry.about`` has said this; "" for nothing."""
    theirs, ours = about["version"], version("p2p-ipython")
    return f"p2p_ipython {theirs} is installed there, and {ours} here" if theirs != ours else ""
