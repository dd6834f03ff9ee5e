"""The watch over a cluster: keeps a hub's members, tasks, offers and facts up to date.

``ClusterWatch`` belongs to the event loop's thread. ``fill`` reads all records of the cluster; ``look`` then reads only
those that the cluster names as changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from p2p_ipython.notebook.panel import rows
from p2p_ipython.notebook.panel.contract import ClusterFacts
from p2p_ipython.notebook.panel.hub import Hub, Row
from p2p_ipython.notebook.panel.people import People

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.protocol.messages import Terms

MOST_TASKS = 20_000
"""Rows of tasks beyond which waiting tasks get none; a panel only knows how many they are."""

ROOM = 1000
"""Rows that must be free before waiting tasks get rows again."""

ABSENT = "key:"
"""The beginning of an absent member's id; the fingerprint of their first key follows."""

# Values of ``TaskState``. Its module loads cryptography, which has to wait until there is a cluster.
WAITING = "waiting"
OVER = frozenset({"done", "failed", "cancelled"})

Usage = Mapping[str, tuple[int, float]]
"""Tasks and seconds, by the fingerprint of a member's key."""

NO_CLUSTER = ClusterFacts(state="none", words="not connected", kind="none")
"""The facts while there is no cluster."""


def forget(hub: Hub) -> None:
    """Empty a hub of all that is a cluster's."""
    hub.set("cluster", NO_CLUSTER)
    for table in ("members", "tasks", "groups", "offers"):
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
        """Stop watching. The rows stay."""
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
        hub.fill("groups", [(group.id, rows.group(group)) for group in self.cluster._core.groups.all()])
        self._facts()
        self._sessions()

    def look(self) -> None:
        """Read what has changed."""
        changes = self._follower.take()
        if changes.tasks:
            self._tasks(changes.tasks)
        self._groups(changes.groups)
        if changes.facts or self._unlisted() != self._hub.part("cluster").get("unlisted", 0):
            self._facts()
        if self._people_of() != self._people:
            self._sessions()
        elif changes.sessions:
            self._some_sessions(changes.sessions)

    def refresh(self) -> None:
        """Read what changes without notice: round trips, and how much each member has lent and used."""
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
        """Make rows of waiting tasks, as far as there is room again."""
        known = self._hub.rows("tasks")
        for id, entry in self.cluster._core.record.entries.items():
            if len(known) >= MOST_TASKS:
                break
            if id not in known:
                self._hub.put("tasks", id, rows.task(entry))

    def _unlisted(self) -> int:
        """Return how many tasks have no row."""
        return len(self.cluster._core.record.entries) - len(self._hub.rows("tasks"))

    # -- groups --

    def _groups(self, ids: Iterable[str]) -> None:
        for id in ids:
            group = self.cluster._core.groups.get(id)
            if group is None:
                self._hub.drop("groups", id)
            else:
                self._hub.put("groups", id, rows.group(group))

    # -- the whole --

    def _facts(self) -> None:
        facts = self.cluster._core.facts()
        told = ClusterFacts(
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
        )
        self._hub.set("cluster", rows.row(told))

    # -- who is here --

    def _people_of(self) -> tuple[object, ...]:
        """Return what the rows of all members depend on."""
        bridge = self.cluster._core.bridge
        if bridge is None or self.cluster.closed:
            return ()
        return bridge.membership.machine.epoch, bridge.membership.trusted

    def _sessions(self) -> None:
        people = People(self.cluster)
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
            self._gone(bytes.fromhex(id))  # or of another cluster, which the hub had before
        used = self._used()
        for sid in sids:
            self._session(people, sid, used)
        self._absent(people, used)

    def _some_sessions(self, sids: Iterable[bytes]) -> None:
        people = People(self.cluster)
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

    def _session(self, people: People, sid: bytes, used: Usage) -> bool:
        """Put or drop the rows of one session. Returns whether it came or went."""
        if sid == people.sid:
            self._hub.put("members", sid.hex(), people.me(used))
            return self._came(sid, people.key)
        seen = self.cluster._core.presence.sessions.get(sid)
        worker = people.workers.get(sid)
        terms: Terms | None
        if worker is not None:
            certificate, name, terms = worker.certificate, worker.name, worker.terms
        elif seen is not None and people.admits(seen.certificate):  # unless its member has just been removed
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
                    state=worker.terms.pause if worker.terms.paused else state,
                    only=rows.names_of(worker.terms.only, people.names),
                    mine=worker.for_us and not worker.too_bare,
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

    def _absent(self, people: People, used: Usage) -> None:
        """Put rows of the members none of whose sessions is here."""
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


def _sum(usage: Usage, keys: Iterable[str]) -> tuple[int, float]:
    found = [usage[key] for key in keys if key in usage]
    return sum(tasks for tasks, _ in found), sum(seconds for _, seconds in found)
