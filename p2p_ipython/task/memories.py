"""joblib's memory: functions that keep their values in a folder, where the folder may be another machine's.

On a machine that has the folder they keep and find values as at home. Elsewhere, and where a sandbox lets nobody write
there, they are the functions alone: they compute each time.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import copyreg
import os
import sys
from typing import Any

_NEW: Any = copyreg.__newobj__  # type: ignore[attr-defined]


def taken_apart(value: Any) -> Any:
    """Reduce a ``Memory`` or a function of one to its state."""
    return _NEW, (type(value),), value.__getstate__(), None, None, complete


def complete(made: Any, state: dict[str, Any]) -> None:
    """Give one its state, and no folder where there is none to write to."""
    vars(made).update(state)
    place = getattr(state.get("store_backend"), "location", None)
    if isinstance(place, str | os.PathLike) and os.path.isdir(place) and os.access(place, os.W_OK):
        return
    if "func" in state:
        made.__class__ = sys.modules["joblib.memory"].NotMemorizedFunc
    else:
        made.store_backend = None
