"""Check how long a task may run, as a user has said it."""

from __future__ import annotations

import math

from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol.task_frames import MAX_SECONDS


def seconds_of(timeout: float | None) -> float:
    """Return the seconds of a task's timeout, 0.0 for none. Raises ``ConfigError``, a ``ValueError``."""
    if timeout is None:
        return 0.0
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise ConfigError(
            f"a timeout of {str(timeout)[:40]!r} is no number of seconds above 0",
            hint="Give seconds, as in timeout=300. None is for as long as it takes.",
        )
    return min(float(timeout), MAX_SECONDS)
