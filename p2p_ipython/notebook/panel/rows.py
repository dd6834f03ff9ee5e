"""The rows of the contract, made from records: of a task, a member, an offer, a guest, a lending. Pure.

A row leaves out what has its default (0, "", false, []). Text is cut to what a line of a panel can show. It may be a
stranger's; the panel shows it as text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from p2p_ipython.notebook.panel.contract import (
    GroupRow,
    LendingRow,
    LogEntry,
    MemberRow,
    OfferRow,
    QuestionRow,
    TaskRow,
    VisitorRow,
)
from p2p_ipython.protocol.messages import cards_words
from p2p_ipython.protocol.plain import plain

if TYPE_CHECKING:
    from p2p_ipython.client.errands import Visitor
    from p2p_ipython.client.groups import Group
    from p2p_ipython.client.journal import Entry
    from p2p_ipython.client.lending_state import LendingState
    from p2p_ipython.lending.record import Entry as LogRecord
    from p2p_ipython.protocol.messages import Terms
    from p2p_ipython.protocol.questions import Asked

NAME = 100
"""Characters of a name or a label, at most."""

WORDS = 300
"""Characters of a sentence, at most."""

POLICY = 8100
"""Characters of a policy, at most (lending/policy_file.py)."""

NEWS = 400
"""Characters of a sentence that is for the lender, at most."""

MOST_REASONS = 50
"""Reasons why tasks wait, at most; there is one for each version of Python that tasks need."""

YOURS, ANYTHING, PLAIN = "yours", "any type", "plain data"
"""The kinds of results that a member's workers may send."""

R = TypeVar("R", bound=Mapping[str, object])


def row(fields: R) -> R:
    """Return a row without the fields that have their default."""
    return cast(R, {name: value for name, value in fields.items() if value})


def task(entry: Entry) -> TaskRow:
    """Return a task's row. (By hand: a thousand a second come by here.)"""
    made: TaskRow = {"label": entry.label[:NAME], "kind": entry.kind, "state": entry.state.value}
    if entry.words:
        made["words"] = entry.words[:WORDS]
    if entry.needs:
        made["needs"] = entry.needs
    if entry.worker:
        made["worker"] = entry.worker[:NAME]
    if entry.attempt:
        made["attempt"] = entry.attempt
    if tried := [each for each in entry.attempts if each.started]:
        made["tried"] = [
            (each.worker[:NAME], round(each.sent, 3), round(each.started, 3), round(each.ended, 3)) for each in tried
        ]
    made["submitted"] = round(entry.submitted, 6)  # panels keep the order of a loop that submits many in a millisecond
    if entry.sent:
        made["sent"] = round(entry.sent, 3)
        if entry.started:
            made["started"] = round(entry.started, 3)
    if entry.ended:
        made["ended"] = round(entry.ended, 3)
        if 0 < entry.seconds < math.inf:  # as its worker says
            made["ran"] = round(entry.seconds, 3) or 0.001
    if entry.size_in:
        made["sizeIn"] = entry.size_in
    if entry.size_out:
        made["sizeOut"] = entry.size_out
    if entry.said:
        made["said"] = entry.said[:WORDS]
    if entry.error:
        made["error"] = entry.error[:WORDS]
    if entry.cell:
        made["cell"] = entry.cell[:NAME]
    if (progress := entry.progress) is not None and not entry.ended:
        if progress.part:
            made["part"] = round(progress.part, 3)
        made["at"] = progress.words[:NAME]
    return made


def group(group: Group) -> GroupRow:
    """Return the row of tasks that belong together."""
    now = group.standing
    made = GroupRow(
        label=now.label[:NAME],
        state=now.state,
        words=now.words[:WORDS],
        total=now.total or 0,
        over=now.over,
        failed=now.failed,
        began=round(now.began, 3),
        ended=round(now.ended, 3),
        again=now.failed + now.cancelled if group.may_again else 0,
    )
    return row(made)


def member(
    *,
    name: str,
    roles: Sequence[str],
    key: str,
    trust: str,
    own: bool = False,
    me: bool = False,
    here: bool = True,
    state: str = "",
    since: float = 0.0,
    terms: Terms | None = None,
    machine: str = "",
    python: str = "",
    busy: int = 0,
    link: str = "",
    rtt: float | None = None,
    lent: tuple[int, float] = (0, 0.0),
    used: tuple[int, float] = (0, 0.0),
) -> MemberRow:
    """Return the row of a process that is here, or of a member who isn't. ``terms``: what it offers."""
    made = MemberRow(
        name=name[:NAME],
        roles=list(roles),
        own=own,
        me=me,
        here=here,
        state=state[:WORDS],
        machine=terms.machine if terms is not None else machine,
        python=terms.python if terms is not None else python,
        since=round(since),
        slots=terms.slots if terms is not None else 0,
        busy=busy,
        trust=trust,
        key=key,
        link=link,
        rtt=_rounded(rtt or 0.0),
        lentTasks=lent[0],
        lentSeconds=_rounded(lent[1]),
        usedTasks=used[0],
        usedSeconds=_rounded(used[1]),
    )
    return row(made)


def offer(name: str, terms: Terms, *, busy: int, own: bool, state: str, only: str, mine: bool) -> OfferRow:
    """Return the row of a worker's standing offer. ``busy`` slots run tasks of ours; ``only``: for whom, in words.

    Workers report only now and then how many slots are free. For one's own workers, which hardly anybody else uses,
    this kernel knows better.
    """
    free = terms.slots - busy if own else min(terms.free, terms.slots - busy)
    made = OfferRow(
        name=name[:NAME],
        own=own,
        state=state[:WORDS],
        slots=terms.slots,
        free=0 if terms.paused else free,
        cores=terms.cores,
        memory=terms.memory,
        tags=list(terms.tags),
        until=terms.until,
        python=terms.python,
        platform=terms.machine,
        only=only[:WORDS],
        paused=terms.paused,
        mine=mine,
        sandbox=terms.sandbox if terms.walled else "",
        cards=cards_words(terms.cards)[:WORDS],
    )
    return row(made)


def visitor(waits: Visitor) -> tuple[str, VisitorRow]:
    """Return the id and the row of a guest, who waits for a yes or no."""
    made = VisitorRow(
        title=waits.title[:NAME],
        name=waits.name[:NAME],
        called=waits.called[:NAME],
        key=waits.fingerprint,
        invited=waits.invited,
        about=waits.about[:WORDS],
        note=_to_know(waits)[:WORDS],
    )
    return f"{waits.title} {waits.fingerprint}", row(made)


def _to_know(waits: Visitor) -> str:
    """Return what else the owner should know of a guest before saying yes."""
    notes = []
    if waits.own:
        notes.append("It would be a machine of your own, and count as you.")
    if waits.name != waits.called:
        notes.append(f"They call themselves {waits.name[:NAME]}.")
    if waits.also:
        notes.append(waits.also)
    return " ".join(notes)


def lending(state: LendingState, names: Mapping[str, str]) -> tuple[str, LendingRow]:
    """Return the id and the row of a worker that was started here. ``names``: its cluster's members, by their keys."""
    made = LendingRow(
        title=state.title[:NAME],
        name=state.name[:NAME],
        state=state.state,
        words=state.words[:WORDS],
        slots=state.slots,
        busy=state.busy,
        until=round(state.until),
        only=names_of(state.only, names)[:WORDS],
        tasks=sum(tasks for tasks, _ in state.usage.values()),
        seconds=_rounded(sum(seconds for _, seconds in state.usage.values())),
        policy=state.policy[:POLICY],
        conditions=state.conditions[:POLICY],
        news=[words[:NEWS] for words in state.news],
        logged=state.logged,
        unknown={key[:NAME]: name[:NAME] for key, name in state.unknown.items()},
    )
    return state.id, row(made)


def question(state: LendingState, asked: Asked) -> tuple[str, QuestionRow]:
    """Return the id and the row of what a worker's lender is asked; it is bounded already."""
    made = QuestionRow(
        number=asked.number,
        title=state.title[:NAME],
        worker=state.name[:NAME],
        name=asked.name,
        key=asked.key,
        label=asked.label,
        kind=asked.run,
        source=asked.source,
        cut=asked.cut,
        size=asked.size,
        options=asked.options,
        until=round(asked.until, 3),
        same=asked.same,
        walled=state.walled,
    )
    return str(asked.number), row(made)


def log_entry(entry: LogRecord) -> LogEntry:
    """Return an entry of the lending log. Its texts are from a file, which had them from strangers."""
    return LogEntry(
        time=entry.time,
        member=plain(entry.member or entry.key, NAME),
        label=plain(entry.label, NAME),
        outcome=plain(entry.outcome, NAME),
        why=plain(entry.why, WORDS),
        seconds=_rounded(entry.seconds),
        cpu=_rounded(entry.cpu) if entry.cpu >= 0 else -1,
        memory=entry.memory,
        bytesIn=entry.bytes_in,
        bytesOut=entry.bytes_out,
    )


def reasons(of: Mapping[str, str]) -> dict[str, str]:
    """Return why tasks wait, by what they need; at most ``MOST_REASONS``."""
    return {needs: words[:WORDS] for needs, words in list(of.items())[:MOST_REASONS]}


def names_of(fingerprints: Iterable[str], names: Mapping[str, str]) -> str:
    """Return in words whose keys these are; a name stays as it is."""
    return ", ".join(
        dict.fromkeys(names.get(key, key[:15] if key.startswith("SHA256:") else key) for key in fingerprints)
    )


def _rounded(seconds: float) -> float:
    """Round to a precision that people see, so that noise is no news; return 0 for what is no number."""
    if not math.isfinite(seconds) or seconds <= 0:
        return 0.0
    return float(f"{seconds:.3g}")
