"""How far a task is, as it says itself, or how far a sweep is: ``future.progress``, ``sweep.progress``."""

from __future__ import annotations

from dataclasses import dataclass

from p2p_ipython.client.groups import rough
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.task_frames import MAX_SECONDS
from p2p_ipython.protocol.task_frames import Progress as Frame

LABEL = 80
"""Characters of a label, at most."""


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

    @property
    def words(self) -> str:
        """Return it for people, as "adding: 30 of 100, about 5 s"."""
        of = f" of {_amount(self.total)}" if self.total else ""
        label = f"{self.label}: " if self.label else ""
        about = f", about {rough(self.left)}" if self.left else ""
        return f"{label}{_amount(self.done)}{of}{about}"


def reported(frame: Frame) -> Progress:
    """Return what a worker's frame says, as people may read it."""
    total = frame.total or None
    rate = frame.done / frame.seconds if frame.seconds and frame.done else None
    left = None if total is None or rate is None else max(0.0, total - frame.done) / rate
    if left is not None and left > MAX_SECONDS:  # tiny rates of strangers
        left = None
    return Progress(frame.done, total, plain(frame.label, LABEL).rstrip(": "), rate, left)


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:,.4g}"
