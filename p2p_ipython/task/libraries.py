"""Objects of libraries whose own pickle fails, and what their class makes them of.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

MADE_OF: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    # Its __getstate__ changes a dict while it goes through it (sympy 1.13 and 1.14).
    "sympy.polys.rings.PolyRing": attrgetter("symbols", "domain", "order"),
}
"""By a class's module and name: returns the arguments with which the class makes an equal object."""
