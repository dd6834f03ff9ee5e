"""Keeps a hub's rows true to a cluster: its members, tasks, offers and facts.

``ClusterWatch`` reads the cluster's records on the event loop's thread, to which it belongs. After ``fill`` only what
the cluster names as changed is read again (``look``).
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from p2p_ipython.notebook.panel import rows
from p2p_ipython.notebook.panel.hub import Hub
from p2p_ipython.notebook.panel.rows import Row

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.protocol.identity import Certificate
    from p2p_ipython.protocol.messages import Terms
    from p2p_ipython.protocol.roster import Member

MOST_TASKS = 20_000
"""Rows of tasks beyond which those that have not been sent yet aren't told, but for how many they are."""

ROOM = 1000
"""Rows that must be free until the next of those that weren't told are."""

ABSENT = "key:"
"""How the id of a member begins who isn't here; the fingerprint of his first key follows."""

# Values of ``TaskState``, which loads cryptography: not before there is a cluster.
WAITING = "waiting"
OVER = frozenset({"done", "failed", "cancelled"})

Usage = Mapping[str, tuple[int, float]]
"""Tasks and seconds, by the fingerprint of a member's key."""

NO_CLUSTER = {"state": "none", "words": "not connected", "kind": "none"}
"""The facts while there is no cluster."""


def forget(hub: Hub) -> None:
    """There is no cluster."""
    hub.set("cluster", NO_CLUSTER)
    for table in ("members", "tasks", "offers"):
        hub.fill(table, ())


class ClusterWatch:
    """See the module. ``used`` gives what this machine has run for each member."""

    def __init__(self, hub: Hub, cluster: Cluster, wake: Callable[[], None], used: Callable[[], Usage]) -> None:
        self.cluster = cluster
        self._hub = hub
        self._used = used
        self._follower = cluster._core.follow(wake)
        self._here: Counter[str] = Counter()  # sessions, by the fingerprint of their member's key
        self._signers: dict[bytes, str] = {}
        self._people: tuple[object, ...] = ()  # what the rows of members were made with

    def close(self) -> None:
        """Watch no more. The rows stay."""
        self._follower.close()

    # -- looking --

    def fill(self) -> None:
        """Read everything."""
        self._follower.take()
        hub = self._hub
        entries = self.cluster._core.record.entries
        known: list[tuple[str, Row]] = []
        for id, entry in entries.items():
            if len(known) < MOST_TASKS or entry.state.value != WAITING:
                known.append((id, rows.task(entry)))
        hub.fill("tasks", known)
        self._facts()
        self._sessions()

    def look(self) -> None:
        """Read what has changed."""
        changes = self._follower.take()
        if changes.tasks:
            self._tasks(changes.tasks)
        if changes.facts or self._unlisted() != self._hub.part("cluster").get("unlisted", 0):
            self._facts()
        if self._people_of() != self._people:
            self._sessions()
        elif changes.sessions:
            self._some_sessions(changes.sessions)

    def refresh(self) -> None:
        """Read what changes without being named: round trips, and what each has lent and used."""
        self._sessions()

    # -- tasks --

    def _tasks(self, ids: Iterable[str]) -> None:
        hub = self._hub
        entries = self.cluster._core.record.entries
        known = hub.rows("tasks")
        for id in ids:
            entry = entries.get(id)
            if entry is None:
                hub.drop("tasks", id)
                continue
            if id not in known and len(known) >= MOST_TASKS and entry.state.value == WAITING:
                continue
            hub.put("tasks", id, rows.task(entry))
        if len(known) <= MOST_TASKS - ROOM and len(known) < len(entries):
            self._more_tasks()

    def _more_tasks(self) -> None:
        """There is room again for tasks that were not told."""
        known = self._hub.rows("tasks")
        for id, entry in self.cluster._core.record.entries.items():
            if len(known) >= MOST_TASKS:
                break
            if id not in known:
                self._hub.put("tasks", id, rows.task(entry))

    def _unlisted(self) -> int:
        """Tasks that aren't told."""
        return len(self.cluster._core.record.entries) - len(self._hub.rows("tasks"))

    # -- the whole --

    def _facts(self) -> None:
        facts = self.cluster._core.facts()
        self._hub.set(
            "cluster",
            rows.row(
                state=facts.state,
                words=facts.words[: rows.WORDS],
                kind=facts.kind,
                title=facts.title,
                board=facts.board,
                me=facts.me,
                key=facts.key,
                note=facts.note[: 2 * rows.WORDS],
                since=round(facts.since),
                reasons=rows.reasons(self.cluster._core.reasons()),
                done=facts.done,
                failed=facts.failed,
                cancelled=facts.cancelled,
                unlisted=self._unlisted(),
            ),
        )

    # -- who is here --

    def _people_of(self) -> tuple[object, ...]:
        """What the rows of all members depend on."""
        bridge = self.cluster._core.bridge
        if bridge is None or self.cluster.closed:
            return ()
        return bridge.membership.machine.epoch, bridge.membership.trusted

    def _sessions(self) -> None:
        people = _People(self.cluster)
        self._people = self._people_of()
        if not people.open:
            for table in ("members", "offers"):
                self._hub.fill(table, ())
            self._signers.clear()
            self._here.clear()
            return
        sids = {*self.cluster._core.presence.sessions, *people.workers, people.sid}
        ids = {sid.hex() for sid in sids}
        for id in [id for id in self._hub.rows("members") if id not in ids and not id.startswith(ABSENT)]:
            self._gone(bytes.fromhex(id))  # or of another cluster, of which the hub has told before
        used = self._used()
        for sid in sids:
            self._session(people, sid, used)
        self._absent(people, used)

    def _some_sessions(self, sids: Iterable[bytes]) -> None:
        people = _People(self.cluster)
        if not people.open:
            self._sessions()
            return
        before = len(self._here)
        used = self._used()
        came = False
        for sid in sids:
            came |= self._session(people, sid, used)
        if came or len(self._here) != before:
            self._absent(people, used)

    def _gone(self, sid: bytes) -> bool:
        self._hub.drop("members", sid.hex())
        self._hub.drop("offers", sid.hex())
        signer = self._signers.pop(sid, None)
        if signer is None:
            return False
        self._here[signer] -= 1
        if not self._here[signer]:
            del self._here[signer]
        return True

    def _session(self, people: _People, sid: bytes, used: Usage) -> bool:
        """Tell of one session; whether it came or went."""
        if sid == people.sid:
            self._hub.put("members", sid.hex(), people.me(used))
            return self._came(sid, people.key)
        seen = self.cluster._core.presence.sessions.get(sid)
        worker = people.workers.get(sid)
        terms: Terms | None
        if worker is not None:
            certificate, name, terms = worker.certificate, worker.name, worker.terms
        elif seen is not None and people.admits(seen.certificate):  # not who has just been taken out
            certificate, name, terms = seen.certificate, seen.name, seen.offer
        else:
            return self._gone(sid)
        id, own = sid.hex(), people.own(certificate)
        state, busy, link, rtt = "here", 0, "", None
        if worker is not None:
            busy = min(len(worker.tasks), worker.terms.slots)
            state = worker.word + (f" ({worker.detail})" if worker.detail else "")
            link, rtt = people.link(sid)
            self._hub.put(
                "offers",
                id,
                rows.offer(
                    name,
                    worker.terms,
                    busy=busy,
                    own=own,
                    state="paused" if worker.terms.paused else state,
                    only=rows.names_of(worker.terms.only, people.names),
                    mine=own or not worker.terms.only or people.key in worker.terms.only,
                ),
            )
        else:
            self._hub.drop("offers", id)
        signer = certificate.signer
        self._hub.put(
            "members",
            id,
            rows.member(
                name=name,
                roles=people.roles(certificate),
                key=signer,
                trust=people.trust(signer),
                own=own,
                state=state,
                since=seen.since if seen is not None else 0.0,
                terms=terms,
                busy=busy,
                link=link,
                rtt=rtt,
                lent=self.cluster._core.record.served.get(sid, (0, 0.0)),
                used=used.get(signer, (0, 0.0)),
            ),
        )
        return self._came(sid, signer)

    def _came(self, sid: bytes, signer: str) -> bool:
        if sid in self._signers:
            return False
        self._signers[sid] = signer
        self._here[signer] += 1
        return True

    def _absent(self, people: _People, used: Usage) -> None:
        """Tell of the members none of whose sessions is here."""
        absent: dict[str, Row] = {}
        usage = self.cluster._core.record.usage
        for number, member in enumerate(people.members):
            if any(key in self._here for key in member.keys):
                continue
            key = member.keys[0]
            absent[ABSENT + key] = rows.member(
                name=member.name,
                roles=[*(["owner"] if number == 0 else []), *member.roles],
                key=key,
                trust=people.trust(key),
                here=False,
                state="away",
                lent=_sum(usage, member.keys),
                used=_sum(used, member.keys),
            )
        known = self._hub.rows("members")
        for id in [id for id in known if id.startswith(ABSENT) and id not in absent]:
            self._hub.drop("members", id)
        for id, told in absent.items():
            self._hub.put("members", id, told)


def names_in(cluster: Cluster) -> dict[str, str]:
    """What a cluster's members are called, by the fingerprints of their keys; {} unless it is connected."""
    people = _People(cluster)
    return people.names if people.open else {}


class _People:
    """Whose sessions are whose, for one look at a cluster."""

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
        """What members are called, by the fingerprints of their keys."""
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
        """Kind and round trip of the link to a worker."""
        end = self._bridge.links.get(sid)
        link = end.link if end is not None else None
        return (link.kind, link.rtt) if link is not None else ("", None)

    def me(self, used: Usage) -> Row:
        """This kernel's own row."""
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


def _sum(usage: Usage, keys: Iterable[str]) -> tuple[int, float]:
    found = [usage[key] for key in keys if key in usage]
    return sum(tasks for tasks, _ in found), sum(seconds for _, seconds in found)
