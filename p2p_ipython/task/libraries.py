"""Objects of libraries whose own pickle fails, and what their class makes them of.

A handler of ``logging`` has a lock. It gets another one where it arrives.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import copyreg
import logging
from collections.abc import Callable
from operator import attrgetter
from typing import Any

MADE_OF: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    # Its __getstate__ changes a dict while it goes through it (sympy 1.13 and 1.14).
    "sympy.polys.rings.PolyRing": attrgetter("symbols", "domain", "order"),
}
"""By a class's module and name: returns the arguments with which the class makes an equal object."""


def handler_taken_apart(handler: logging.Handler) -> Any:
    """Reduce a handler of ``logging`` to its attributes but the lock."""
    made_by: Any = copyreg.__newobj__  # type: ignore[attr-defined]
    attributes = {name: value for name, value in vars(handler).items() if name != "lock"}
    return made_by, (type(handler),), attributes, None, None, complete_handler


def complete_handler(handler: logging.Handler, attributes: dict[str, Any]) -> None:
    """Give a blank handler its attributes and a lock."""
    vars(handler).update(attributes)
    handler.createLock()
