"""How far a task is, as it says itself, or how far a sweep is: ``future.progress``, ``sweep.progress``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """So much is ``done`` of a ``total`` (None: not known), called ``label``.

    ``rate`` is how much is done in a second, ``left`` the seconds that the rest takes, about; None: not known.
    """

    done: float
    total: float | None
    label: str = ""
    rate: float | None = None
    left: float | None = None

    @property
    def part(self) -> float | None:
        """The part that is done, from 0 to 1; None if that isn't known."""
        return min(1.0, self.done / self.total) if self.total else None
