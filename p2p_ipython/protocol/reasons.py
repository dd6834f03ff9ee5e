"""Why tasks wait, in words that people read.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from p2p_ipython.protocol.messages import why_words
from p2p_ipython.protocol.needs import ANY, Needs
from p2p_ipython.protocol.packages import packages_words
from p2p_ipython.protocol.placement import (
    Refused,
    TaskSpec,
    WorkerState,
    WorkerView,
    fits,
    installs,
    is_chosen,
    pythons,
)
from p2p_ipython.protocol.plain import count, size_words


def refused(known: Sequence[WorkerView], spec: TaskSpec, by: Mapping[bytes, Refused]) -> bool:
    """Return whether all workers that fit a task have refused it, under the offers that they have now."""
    workers = [worker for worker in known if fits(worker, spec.needs)]
    return bool(workers) and all(
        (no := by.get(worker.sid)) is not None and no.edition == worker.terms.edition for worker in workers
    )


def too_large(known: Sequence[WorkerView], spec: TaskSpec) -> str:
    """Say that a task brings more than any worker here takes; "" if that isn't so."""
    workers = [worker for worker in known if fits(worker, spec.needs)]
    if not workers or not all(0 < worker.terms.input < spec.size for worker in workers):
        return ""
    most = size_words(max(worker.terms.input for worker in workers))
    return f"waiting for a worker that takes {size_words(spec.size)}: those that are here take at most {most} a task"


def without_packages(known: Sequence[WorkerView], needs: Needs) -> str:
    """Say that no worker here installs packages for tasks that ask for some; "" if that isn't so."""
    if not needs.packages:
        return ""
    workers = [worker for worker in known if fits(worker, needs._replace(packages=()))]
    if not workers or any(installs(worker, needs.packages) for worker in workers):
        return ""
    return f"waiting for a worker that installs {packages_words(needs.packages)}: those that are here install nothing"


def reason(known: Sequence[WorkerView], needs: Needs, *, by_member: bool = False) -> str:
    """Say why tasks with these needs wait, all of them for the same reason.

    ``known`` are all workers that the client knows. ``by_member``: workers are asked for by their members' names.
    """
    if (pinned := next((worker for worker in known if worker.sid == needs.pin), None)) is not None:
        return f"waiting for {pinned.name}"
    if lacking := without_packages(known, needs):
        return lacking
    ours = [worker for worker in known if worker.for_us]
    workers = [worker for worker in ours if not worker.too_bare]
    wanted = _whose(needs, by_member)
    if ours and not workers:
        return f"waiting for {wanted}: no worker here has a sandbox"
    if not workers:
        others = "those that are here are for others" if known else "none is here"
        return f"waiting for {wanted}: {others}"
    chosen = [worker for worker in workers if is_chosen(worker, needs)]
    able = [worker for worker in chosen if needs.met(worker.terms)]
    if not able and chosen == workers and needs == Needs(needs.python):
        return f"waiting for a worker with python {needs.python} (here: {pythons(workers)})"
    if not able:
        here = _listed(chosen, needs) if chosen else _listed(workers, ANY)
        return f"waiting for {wanted}{_lacking(chosen, needs)}; here: {here}"
    if all(worker.terms.paused for worker in able):
        whys = {worker.terms.why for worker in able}
        because = f" ({why_words(why)})" if len(whys) == 1 and (why := min(whys)) else ""
        which = "" if len(able) == len(workers) else _lacking(workers, needs) or " and that are asked for"
        return f"waiting for a worker: those that are here{which} are paused{because}"
    fitting = [w for w in able if fits(w, needs)]
    if any(w.state is WorkerState.UP for w in fitting):
        return f"waiting for a free slot of {sum(w.terms.slots for w in fitting)}"
    if not fitting:
        return f"waiting for {wanted}: those that are here are leaving"
    problem = next((w.detail for w in fitting if w.detail), "")
    return f"waiting for a link to {fitting[0].name}{': ' + problem if problem else ''}"


MAX_NAMED = 4
"""Workers that a reason names."""


def _whose(needs: Needs, by_member: bool) -> str:
    """Name the workers that are asked for: "a worker", "bob's worker", "worker-1 or worker-2"."""
    if not needs.on:
        return "a worker"
    each = [f"{name}'s worker" if by_member and not name.endswith(")") else name for name in needs.on[:MAX_NAMED]]
    more = len(needs.on) - len(each)
    return " or ".join([*each, *([f"{more} others"] if more else [])])


def _lacking(workers: Sequence[WorkerView], needs: Needs) -> str:
    """Say what a worker would need that not all of these have; "" for nothing."""
    offers = [worker.terms for worker in workers]
    tags = [tag for tag in needs.tags if not all(tag in terms.tags for terms in offers)]
    parts = []
    if not all(terms.python == needs.python or not needs.python for terms in offers):
        parts.append(f"python {needs.python}")
    if tags:
        parts.append(f"tag{'s' if len(tags) > 1 else ''} {', '.join(tags)}")
    if any(0 < terms.task_memory < needs.memory for terms in offers):
        parts.append(f"{size_words(needs.memory)} of memory for a task")
    if any(terms.cards_each < needs.gpus for terms in offers):
        parts.append(f"{count(needs.gpus, 'graphics card')} for a task")
    return f" with {' and '.join(parts)}" if parts else ""


def _listed(workers: Sequence[WorkerView], needs: Needs) -> str:
    """Name some workers, each with what it has of the kinds of things that are needed."""
    named = []
    for worker in workers[:MAX_NAMED]:
        terms, has = worker.terms, []
        if needs.python:
            has.append(f"python {terms.python}")
        if needs.tags:
            has.append(f"tags: {', '.join(terms.tags)}" if terms.tags else "no tags")
        if needs.memory and terms.task_memory:
            has.append(f"{size_words(terms.task_memory)} of memory")
        if needs.gpus:
            has.append(count(terms.cards_each, "graphics card") if terms.cards_each else "no graphics card")
        named.append(f"{worker.name} ({'; '.join(has)})" if has else worker.name)
    more = len(workers) - len(named)
    return ", ".join(named) + (f", and {more} more" if more else "")
