"""How much a key may write to a board, purely."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Bucket:
    """A token bucket that can be overdrawn: ``take`` always succeeds and says how long to be silent then.

    ``rate`` is in bytes a second, ``burst`` in bytes, ``at`` is when it was full, seconds.
    """

    rate: float
    burst: float
    at: float
    level: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.burst

    def take(self, size: int, now: float) -> float:
        """Spend ``size`` bytes; return the seconds until the next may be spent (0: at once)."""
        self._fill(now)
        self.level -= size
        return max(0.0, -self.level / self.rate)

    def full(self, now: float) -> bool:
        """Whether nothing would be forgotten by forgetting this bucket."""
        self._fill(now)
        return self.level >= self.burst

    def _fill(self, now: float) -> None:
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
