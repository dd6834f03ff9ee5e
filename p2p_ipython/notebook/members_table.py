"""The table of ``%p2p_members``: who is in a cluster, with which keys, roles and trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2p_ipython.notebook.output import table

if TYPE_CHECKING:
    from p2p_ipython.members.profile import Profile


def members_table(profile: Profile, workers: dict[str, int] | None) -> dict[str, str]:
    """Return the members as text and HTML. ``workers``: how many of each are here; None if that isn't known."""
    from p2p_ipython.protocol.roster import Roster  # heavy

    roster = Roster.parse(profile.roster, profile.cluster)
    head = ("name", "key", "roles", "results") + (("workers here",) if workers is not None else ())
    rows = []
    for number, member in enumerate(roster.members):
        mine = profile.signer in member.keys
        roles = ", ".join([*(["owner"] if number == 0 else []), *member.roles])
        anything = mine or any(key in profile.trusted for key in member.keys)
        trust = "yours" if mine else "of any type (trusted)" if anything else "plain data"
        for at, key in enumerate(member.keys):
            row = (member.name + (" (you)" if mine else ""), key, roles, trust) if not at else ("", key, "", "")
            here = (str(workers.get(member.name, 0)) if not at else "",) if workers is not None else ()
            rows.append(row + here)
    return table(head, rows, f"{profile.title}, list number {roster.epoch}")
