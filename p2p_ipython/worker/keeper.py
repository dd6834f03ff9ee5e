"""Has a worker obey its lender: the policy, the lender's hand, and the log.

::

    policy's file, machine ── look, every LOOK seconds ──► Keeper ── pause, resume, amend ──► agent
    p2p lending ── control socket ──► hand ──► Keeper
    agent ── begun, sent, over ──► Keeper ──► lending log, the day's bytes

The agent takes nothing while the hand or the policy says so. What runs continues, unless the hand stops it. All methods
belong to the agent's loop; looks at files and at the machine are taken in a thread, one at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from p2p_ipython import private_files
from p2p_ipython.errors import ConfigError, P2PError
from p2p_ipython.jobs import Complaints
from p2p_ipython.lending.facts import Machine
from p2p_ipython.lending.known import Known, KnownMembers
from p2p_ipython.lending.policy import (
    MachineFacts,
    Member,
    Moment,
    Policy,
    Refusal,
    TaskFacts,
    admits,
    allows,
    offered_packages,
    standing,
)
from p2p_ipython.lending.policy_file import PolicyError, amended, load
from p2p_ipython.lending.record import Entry, LendingLog, midnight
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import MAX_ONLY
from p2p_ipython.protocol.packages import name_of
from p2p_ipython.protocol.plain import size_words
from p2p_ipython.protocol.questions import Answer
from p2p_ipython.protocol.roster import Roster
from p2p_ipython.protocol.task_frames import Task
from p2p_ipython.worker.consent import Ask, Consent, Question
from p2p_ipython.worker.slot_base import UNKNOWN, Used

log = logging.getLogger(__name__)

LOOK = 2.0
"""Seconds between two looks at the policy's file and at the machine."""

WITHOUT_UV = "it has no uv to install packages with"

_AT_START = ("slots", "network", "gpu", "mounts", "limits")
"""Parts of a policy that count from a worker's next start."""


@dataclass(frozen=True)
class Given:
    """A policy, its file (None: there is none), and the options that win over it.

    ``most``: bytes that one task may bring at most, whatever the two say; 0 for any number.
    """

    policy: Policy = field(default_factory=Policy)
    file: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    most: int = 0

    @classmethod
    def read(cls, file: Path | None, options: Mapping[str, Any], most: int = 0) -> Given:
        """Read the file, if one is given, and apply the options. Raises ``PolicyError``."""
        base = load(file) if file is not None else Policy()
        if options.get("ask") and base.who == "all":
            base = replace(base, who="known")  # unless the file names members, or an option says more
        policy = amended(base, options)
        if most:
            policy = replace(policy, input=min(policy.input or most, most))
        return cls(policy, file, options, most)


class Lent(Protocol):
    """The part of an agent that the keeper acts on."""

    def pause(self, why: str = "") -> None: ...

    def resume(self) -> None: ...

    def amend(self, **conditions: Any) -> None: ...


@dataclass
class _Running:
    task: Task
    client: Certificate
    began: float
    size: int
    sent: int = 0
    outcome: str = ""


@dataclass(frozen=True)
class _Unwritten:
    """Keys that the file of the known has yet to get."""

    yes: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()


@dataclass
class _Seen:
    """What a look has seen: a policy that was read anew, a file of the known, the machine, words for the lender.

    ``written``: the keys that the file of the known has got.
    """

    stamps: tuple[object, object]
    written: _Unwritten = _Unwritten()
    facts: MachineFacts = field(default_factory=MachineFacts)
    policy: Policy | None = None
    known: Known | None = None
    words: list[str] = field(default_factory=list)


class NoLender:
    """In place of a keeper: a worker that takes whatever comes, and writes nothing down."""

    def begin(self, agent: Lent) -> None:
        """Have an agent obey, before it says hello."""

    async def keep(self) -> None:
        """Look again and again, until cancelled."""

    def members_changed(self, roster: Roster | None) -> None:
        """Note that the members have changed."""

    def welcomes(self, signer: str) -> bool:
        """Return whether tasks of a member are taken, whenever."""
        return True

    def check(self, client: Certificate, task: Task, body: Buffer) -> Refusal | None:
        """Return why this very task isn't taken; None if it is, or if nothing is: the machine is paused then."""
        return None

    def begun(self, slot: int, task: Task, client: Certificate) -> None:
        """Note that a task begins in a slot."""

    def stopping(self, slot: int, outcome: str) -> None:
        """Note that a task is ended before it is over: "recalled" or "stopped"."""

    def sent(self, slot: int, size: int) -> None:
        """Count bytes that go to a task's client."""

    def over(self, slot: int, outcome: str, used: Callable[[], Used] = lambda: UNKNOWN) -> None:
        """Note that a slot's task is over; ``used`` tells what it has used."""

    def refused(self, task: Task, client: Certificate, refusal: Refusal) -> None:
        """Note that a task was refused."""

    def end(self) -> None:
        """Note that the worker has ended, and with it whatever still ran."""


class Keeper(NoLender):
    """See the module. ``told`` is called with each sentence that the lender is to read."""

    def __init__(
        self,
        given: Given,
        *,
        cluster: str,
        title: str,
        is_own: Callable[[str], bool],
        told: Callable[[str], None] = lambda _words: None,
        record: LendingLog | None = None,
        known: KnownMembers | None = None,
        ask: Ask | None = None,
        installs: Literal["none", "own", "all"] = "none",
    ) -> None:
        """Keep to a policy. ``installs``: for whose tasks the worker could install packages."""
        self._installs = installs
        self.policy = given.policy
        self.hand = False  # whether the lender has paused it
        self.refusal: Refusal | None = None  # the policy's, of all tasks
        self._given = given
        self._cluster, self._title = cluster, title
        self._is_own = is_own
        self._told = told
        self.logged = 0  # entries that this worker has written
        self._record = record
        self._known_file = known
        self._known = Known()
        self._consent = Consent(ask or _nobody, self._on_answer)
        self._edition = 0
        self._said: dict[str, Any] = {}  # conditions of this edition
        self._unwritten = _Unwritten()
        self._troubles = Complaints(log)  # a look is taken every 2 s
        self._stamps: tuple[object, object] = (None, None)
        self._machine = Machine()
        self._facts = MachineFacts()
        self._bytes = [0, 0]
        self._day = 0.0
        self._running: dict[int, _Running] = {}
        self._roster: Roster | None = None
        self._agent: Lent | None = None

    # -- the beginning --

    def prepare(self, roster: Roster | None) -> None:
        """Read what is known and what was run today, and look at the machine. Call it in a thread, before ``begin``.

        Raises ``ConfigError``.
        """
        self._roster = roster
        if self._known_file is not None:
            self._known = self._known_file.of(self._cluster)
        self._stamps = self._look_at_files()
        self._day = midnight(time.time())
        if self._record is not None and (self.policy.bytes_in or self.policy.bytes_out):
            self._bytes = list(self._record.today())
        self._facts = self._machine.look(self.policy)

    def begin(self, agent: Lent) -> None:
        """Have an agent obey, before it says hello."""
        self._agent = agent
        self._meet_members()
        self._name_unknown()
        self._apply()

    async def keep(self) -> None:
        """Look again and again, and ask what is to be asked, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._consent.run(), name="p2p-ask")
            group.create_task(self._keep_looking(), name="p2p-policy")

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                seen = await asyncio.to_thread(self._look, self.policy, self._stamps, self._unwritten)
            except Exception:
                log.exception("the lender's policy can't be looked at; what it said last holds")
            else:
                self._heed(seen)
            self._apply()

    def _look(self, policy: Policy, stamps: tuple[object, object], unwritten: _Unwritten) -> _Seen:
        """Look at the files, if they have changed, and at the machine. In a thread: it changes nothing here."""
        seen = _Seen(stamps)
        if self._known_file is not None:
            seen.written = self._write_known(self._known_file, unwritten)
        seen.stamps = self._look_at_files()
        if seen.stamps[0] != stamps[0]:
            try:
                seen.policy = Given.read(self._given.file, self._given.options, self._given.most).policy
            except PolicyError as error:
                seen.words.append(f"the policy is not read anew: {error.message} (the last good one stays)")
        if seen.stamps[1] != stamps[1] and self._known_file is not None:
            try:
                seen.known = self._known_file.of(self._cluster)
            except ConfigError as error:
                seen.words.append(f"{error.message}; the members known before are known still")
        seen.facts = self._machine.look(seen.policy or policy)
        return seen

    def _write_known(self, file: KnownMembers, unwritten: _Unwritten) -> _Unwritten:
        """Write keys to the file of the known; return those that it has got. The next look tries the others again."""
        done: dict[str, frozenset[str]] = {}
        for what, write in (("yes", file.say_yes), ("named", file.have_named)):
            keys: frozenset[str] = getattr(unwritten, what)
            try:
                if keys:
                    write(self._cluster, keys)
            except P2PError as error:
                self._troubles.about(what, "%s; it is tried again", error.message)
            else:
                done[what] = keys
        return _Unwritten(**done)

    def _look_at_files(self) -> tuple[object, object]:
        policy = private_files.stamp(self._given.file) if self._given.file is not None else None
        return policy, self._known_file.stamp() if self._known_file is not None else None

    def _heed(self, seen: _Seen) -> None:
        """Take over what was seen."""
        self._stamps, self._facts = seen.stamps, seen.facts
        left = self._unwritten
        left = self._unwritten = _Unwritten(left.yes - seen.written.yes, left.named - seen.written.named)
        if seen.known is not None:
            known = seen.known.known | left.yes if seen.known.known is not None else self._known.known
            self._known = Known(known, seen.known.named | self._known.named)
        for words in seen.words:
            self._told(words)
        if seen.policy is not None:
            before, self.policy = self.policy, seen.policy
            later = [name for name in _AT_START if getattr(before, name) != getattr(self.policy, name)]
            words = f"; {', '.join(later)} from the next start on" if later else ""
            self._told(f"the policy was read anew{words}")
            self._name_unknown()

    # -- the hand --

    def pause(self) -> None:
        """Take nothing, by the lender's hand."""
        self.hand = True
        self._apply()

    def resume(self) -> None:
        """Take what the policy takes."""
        self.hand = False
        self._apply()

    @property
    def words(self) -> str:
        """Why nothing is taken now, in words; "" if something is."""
        if self.hand:
            return "by hand"
        return self.refusal.words if self.refusal is not None else ""

    # -- decisions --

    def members_changed(self, roster: Roster | None) -> None:
        """Note that the members have changed: name the new ones to the lender, before anything of theirs runs."""
        self._roster = roster
        self._meet_members()
        self._apply()

    def check(self, client: Certificate, task: Task, body: Buffer) -> Refusal | None:
        """Return why this very task isn't taken; None if it is, or if nothing is: the machine is paused then."""
        now, facts = _now(), self._all_facts()
        task_facts = TaskFacts(_size_of(task), tuple(name_of(each) for each in task.packages))
        refusal = allows(self.policy, self._member(client.signer), task_facts, now, facts)
        if refusal is not None and refusal == standing(self.policy, now, facts):
            self._apply()  # it has come true since the last look: the machine hands the task back, as it does all
            return None
        is_own = self._is_own(client.signer)
        if refusal is None and task.packages and self._installs != "all" and not (is_own and self._installs == "own"):
            return Refusal("packages", "it installs no packages for others" if self._installs == "own" else WITHOUT_UV)
        asks = self.policy.ask or (task.packages and self.policy.packages == "ask")
        if refusal is None and asks and not self.hand and not is_own:
            return self._consent.check(client, self._member(client.signer).name, task, body)
        return refusal

    def _on_answer(self) -> None:
        self._said = {}  # another edition: what was refused may come again
        self._apply()

    def _member(self, signer: str) -> Member:
        found = self._roster.member(signer) if self._roster is not None else None
        keys = found.keys if found is not None else (signer,)
        known = self._known.known is not None and any(key in self._known.known for key in keys)
        return Member(found.name if found is not None else "", keys, self._is_own(signer), known)

    def _all_facts(self) -> MachineFacts:
        if (day := midnight(time.time())) != self._day:
            self._day, self._bytes = day, [0, 0]
        return replace(self._facts, bytes_in=self._bytes[0], bytes_out=self._bytes[1])

    def _apply(self) -> None:
        if self._agent is None:
            return
        before, self.refusal = self.refusal, standing(self.policy, _now(), self._all_facts())
        if self.refusal != before and self.refusal is not None:
            log.info("no task is taken now: %s", self.refusal.words)
        if (conditions := self._conditions()) != self._said:
            self._said, self._edition = conditions, self._edition + 1
        self._agent.amend(**conditions, edition=self._edition)
        if self.hand:
            self._agent.pause()
        elif self.refusal is not None:
            self._agent.pause(self.refusal.why)
        else:
            self._agent.resume()

    def _conditions(self) -> dict[str, Any]:
        """Return what the offer is to say: for whom, and the largest input."""
        only, not_for = self._for_whom()
        largest = self.policy.input
        if self.policy.bytes_in:
            # A power of two: what the day has left sinks with each task, and not each task is worth a hello.
            left = max(1, self.policy.bytes_in - self._bytes[0])
            left = left if not self._bytes[0] else 1 << (left.bit_length() - 1)
            largest = min(largest, left) if largest else left
        offered = offered_packages(self.policy.packages, self._installs)
        return {"only": only, "not_for": not_for, "input": largest, "tags": self.policy.tags, "packages": offered}

    def _for_whom(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the keys that the offer is for, () for all, and those that it is not for.

        An offer names few keys. Where it can't name all, the agent refuses (``welcomes``), and the offer says less.
        """
        if self.policy.who == "all" or self._roster is None:
            return (), ()
        mine: dict[bool, list[str]] = {False: [], True: []}
        for member in self._roster.members:
            if not self._is_own(member.keys[0]):
                mine[self.welcomes(member.keys[0])] += member.keys
        if len(mine[True]) <= MAX_ONLY and self.policy.who != "known":
            own = [key for member in self._roster.members for key in member.keys if self._is_own(key)]
            return tuple(mine[True] or own[:1]), ()
        return (), tuple(mine[False][:MAX_ONLY])

    def welcomes(self, signer: str) -> bool:
        """Return whether the policy takes tasks of a member, whenever."""
        return admits(self.policy, self._member(signer)) is None

    def unknown(self) -> dict[str, str]:
        """Return the names of members whose tasks wait until the lender knows them, each by a key of theirs."""
        if self.policy.who != "known" or self._roster is None:
            return {}
        members = self._roster.members
        return {member.keys[0]: member.name for member in members if not self.welcomes(member.keys[0])}

    def _name_unknown(self) -> None:
        """Tell the lender of names in the policy that no member has: one may be mistyped."""
        if isinstance(self.policy.who, tuple) and (roster := self._roster) is not None:
            for who in self.policy.who:
                if roster.member(who) is None and roster.named(who) is None:
                    self._told(f"nobody in {self._title} is called {who[:80]!r}: the policy's who")

    def _meet_members(self) -> None:
        """Name new members to the lender. At the very first time, the lender has said yes to all who are there."""
        if self._roster is None or self._known_file is None:
            return
        if self._known.known is None:
            everybody = frozenset(key for member in self._roster.members for key in member.keys)
            self._known = Known(everybody, everybody)
            self._unwritten = replace(self._unwritten, yes=everybody)
        new = [
            member
            for member in self._roster.members
            if not any(key in self._known.named for key in member.keys) and not self._is_own(member.keys[0])
        ]
        keys = frozenset(key for member in new for key in member.keys)
        self._known = replace(self._known, named=self._known.named | keys)
        self._unwritten = replace(self._unwritten, named=self._unwritten.named | keys)
        for member in new:
            takes = self.welcomes(member.keys[0])
            what = "their tasks may run here" if takes else f"until p2p lending welcome {member.name}, theirs don't run"
            self._told(f"{member.name} ({member.keys[0]}) is new in {self._title}; {what}")

    # -- what the agent does --

    def begun(self, slot: int, task: Task, client: Certificate) -> None:
        """Note that a task begins in a slot."""
        size = _size_of(task)
        self._bytes[0] += size
        self._running[slot] = _Running(task, client, time.monotonic(), size)

    def stopping(self, slot: int, outcome: str) -> None:
        """Note that a task is ended before it is over: "recalled" or "stopped"."""
        running = self._running.get(slot)
        if running is not None and not running.outcome:
            running.outcome = outcome

    def sent(self, slot: int, size: int) -> None:
        """Count bytes that go to a task's client."""
        self._bytes[1] += size
        if (running := self._running.get(slot)) is not None:
            running.sent += size

    def over(self, slot: int, outcome: str, used: Callable[[], Used] = lambda: UNKNOWN) -> None:
        """Note that a slot's task is over; ``used`` tells what it has used."""
        running = self._running.pop(slot, None)
        if running is None or self._record is None:
            return
        has_used = used()
        self._write(
            running.task,
            running.client,
            running.outcome or outcome,
            seconds=time.monotonic() - running.began,
            cpu=has_used.cpu,
            memory=has_used.memory,
            bytes_in=running.size,
            bytes_out=running.sent,
        )

    def refused(self, task: Task, client: Certificate, refusal: Refusal) -> None:
        """Note that a task was refused. One that waits for a yes is not over."""
        if refusal.why == "asking":
            return
        self._write(task, client, "refused", why=refusal.words)

    def end(self) -> None:
        """Note that the worker has ended, and with it whatever still ran."""
        for slot in list(self._running):
            self.over(slot, "lost")

    def _write(self, task: Task, client: Certificate, outcome: str, **more: Any) -> None:
        if self._record is None:
            return
        source = hashlib.sha256(task.source.encode("utf-8", "surrogatepass")).hexdigest()[:16] if task.source else ""
        name = self._member(client.signer).name
        self.logged += 1
        self._record.write(Entry(time.time(), self._title, name, client.signer, task.label, source, outcome, **more))


async def _nobody(_question: Question) -> Answer:
    return "no"


def _size_of(task: Task) -> int:
    return sum(size for size, _ref in task.all_segments) + len(task.source)


def _now() -> Moment:
    now = time.localtime()
    return Moment(now.tm_wday, now.tm_hour * 60 + now.tm_min)


def _packages_words(policy: Policy) -> str:
    match policy.packages:
        case "never":
            return ""
        case "ask":
            return "packages after your yes"
        case "any":
            return "any packages"
    return f"no packages but {', '.join(policy.packages)}" if policy.packages else ""


def policy_words(policy: Policy) -> str:
    """Say in a line what a policy allows; "" for one without conditions."""
    who = {"all": "", "known": "to members you know"}.get(policy.who if isinstance(policy.who, str) else "", "")
    if isinstance(policy.who, tuple):
        who = f"to {', '.join(policy.who)} only"
    parts = [
        who,
        " or ".join(map(str, policy.hours)),
        f"after {policy.idle:g} s without keyboard and mouse" if policy.idle else "",
        "after your yes" if policy.ask else "",
        "on mains power" if policy.mains else "",
        f"while other programs use at most {policy.load:g} processors" if policy.load else "",
        f"while they use at most {policy.gpu_load:g} graphics cards" if policy.gpu_load else "",
        f"tasks of at most {size_words(policy.input)}" if policy.input else "",
        f"{size_words(policy.bytes_in)} a day in" if policy.bytes_in else "",
        f"{size_words(policy.bytes_out)} a day out" if policy.bytes_out else "",
        _packages_words(policy),
    ]
    return "; ".join(part for part in parts if part)
