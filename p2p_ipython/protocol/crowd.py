"""Which session makes room for another one, so that a member with many sessions pushes out their own and nobody else's.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def crowded_out(sessions: Iterable[tuple[bytes, str]], by_member: Counter[str]) -> bytes:
    """Return the session that was heard longest ago, of the member who has most of them.

    ``sessions`` are sids with their members, the one heard longest ago first; ``by_member`` counts them.
    """
    most = max(by_member.values())
    return next(sid for sid, member in sessions if by_member[member] == most)
