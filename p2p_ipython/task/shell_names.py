"""The names that IPython itself puts into a notebook's namespace; each shell has its own, so they never travel.

``_``, ``__``, ``___`` and ``_12`` do travel when a cell uses them: they are the user's values. ``In``, ``Out``
and ``_i3`` don't: they are the history of a shell, and large.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMES = frozenset(
    """
    In Out _ih _oh _dh exit quit get_ipython
    __builtin__ __builtins__ __name__ __doc__ __loader__ __package__ __spec__ __file__ __session__
    __annotations__ __annotate__ __conditional_annotations__
    """.split()  # noqa: SIM905 - a list of words reads better
)
_INPUT = re.compile(r"_i(i|ii|\d+)?")


def belongs_to_shell(name: str, namespace: Mapping[str, object]) -> bool:
    """Whether ``name`` in ``namespace`` is the shell's, not the user's."""
    if "_ih" not in namespace:  # not a notebook's namespace: only a module's own names stay
        return name in ("__builtins__", "__loader__", "__spec__")
    if name == "open":  # IPython's refuses to open the shell's own streams
        return hasattr(namespace.get(name), "__wrapped__")
    return name in _NAMES or _INPUT.fullmatch(name) is not None
