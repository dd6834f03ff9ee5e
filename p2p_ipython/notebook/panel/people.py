"""The members behind a cluster's sessions: names, roles, trust and links, for one look at it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from p2p_ipython.notebook.panel import rows
from p2p_ipython.notebook.panel.contract import MemberRow

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.protocol.identity import Certificate
    from p2p_ipython.protocol.roster import Member


class People:
    """See the module. Made anew for each look."""

    def __init__(self, cluster: Cluster) -> None:
        bridge = cluster._core.bridge
        self.open = bridge is not None and not cluster.closed
        if bridge is None:
            return
        membership = bridge.membership
        self._bridge = bridge
        self._name = cluster.name
        self._membership = membership
        self.workers = bridge.machine.workers
        self.sid = membership.session.sid
        self.key = membership.standing.me
        roster = membership.machine.roster
        self.members: tuple[Member, ...] = roster.members if roster is not None else ()
        self._my_keys = {self.key}
        self._owners = set(self.members[0].keys) if self.members else set()
        if roster is not None and (mine := roster.member(self.key)) is not None:
            self._my_keys |= set(mine.keys)

    @cached_property
    def names(self) -> dict[str, str]:
        """The members' names, by the fingerprints of their keys."""
        return {key: member.name for member in self.members for key in member.keys}

    def admits(self, certificate: Certificate) -> bool:
        return self._membership.admits(certificate)

    def own(self, certificate: Certificate) -> bool:
        return certificate.signer in self._my_keys

    def trust(self, signer: str) -> str:
        if signer == self.key:
            return rows.YOURS
        return rows.ANYTHING if self._membership.trusts(signer) else rows.PLAIN

    def roles(self, certificate: Certificate) -> list[str]:
        return [*(["owner"] if certificate.signer in self._owners else []), certificate.role]

    def link(self, sid: bytes) -> tuple[str, float | None]:
        """Return kind and round trip of the link to a worker."""
        end = self._bridge.links.get(sid)
        link = end.link if end is not None else None
        return (link.kind, link.rtt) if link is not None else ("", None)

    def me(self, used: Mapping[str, tuple[int, float]]) -> MemberRow:
        """Return this kernel's own row."""
        return rows.member(
            name=self._membership.called(self._membership.session.certificate, self._name),
            roles=self.roles(self._membership.session.certificate),
            key=self.key,
            trust=rows.YOURS,
            own=True,
            me=True,
            state="this kernel",
            machine=f"{platform.system()} {platform.machine()}",
            python=".".join(platform.python_version_tuple()[:2]),
            used=used.get(self.key, (0, 0.0)),
        )


def names_in(cluster: Cluster) -> dict[str, str]:
    """Return the names of a cluster's members, by the fingerprints of their keys; {} unless it is connected."""
    people = People(cluster)
    return people.names if people.open else {}
