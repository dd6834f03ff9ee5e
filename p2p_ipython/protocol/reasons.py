"""Why tasks wait, in words that people read.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from p2p_ipython.protocol.messages import why_words
from p2p_ipython.protocol.packages import packages_words
from p2p_ipython.protocol.placement import Refused, TaskSpec, WorkerState, WorkerView, fits, installs, pythons
from p2p_ipython.protocol.plain import size_words


def refused(known: Sequence[WorkerView], spec: TaskSpec, by: Mapping[bytes, Refused]) -> bool:
    """Return whether all workers that fit a task have refused it, under the offers that they have now."""
    workers = [worker for worker in known if fits(worker, spec.python)]
    return bool(workers) and all(
        (no := by.get(worker.sid)) is not None and no.edition == worker.terms.edition for worker in workers
    )


def too_large(known: Sequence[WorkerView], spec: TaskSpec) -> str:
    """Say that a task brings more than any worker here takes; "" if that isn't so."""
    workers = [worker for worker in known if fits(worker, spec.python)]
    if not workers or not all(0 < worker.terms.input < spec.size for worker in workers):
        return ""
    most = size_words(max(worker.terms.input for worker in workers))
    return f"waiting for a worker that takes {size_words(spec.size)}: those that are here take at most {most} a task"


def without_packages(known: Sequence[WorkerView], spec: TaskSpec) -> str:
    """Say that no worker here installs packages for a task that asks for some; "" if that isn't so."""
    workers = [worker for worker in known if fits(worker, spec.python)]
    if not spec.packages or not workers or any(installs(worker, spec.packages) for worker in workers):
        return ""
    return f"waiting for a worker that installs {packages_words(spec.packages)}: those that are here install nothing"


def reason(known: Sequence[WorkerView], python: str) -> str:
    """Say why tasks that need ``python`` ("" for any) wait, all of them for the same reason.

    ``known`` are all workers that the client knows.
    """
    ours = [worker for worker in known if worker.for_us]
    workers = [worker for worker in ours if not worker.too_bare]
    if ours and not workers:
        return "waiting for a worker: no worker here has a sandbox"
    if not workers:
        others = "those that are here are for others" if known else "none is here"
        return f"waiting for a worker: {others}"
    able = [worker for worker in workers if not python or worker.terms.python == python]
    if able and all(worker.terms.paused for worker in able):
        version = f" with python {python}" if len(able) < len(workers) else ""
        whys = {worker.terms.why for worker in able}
        because = f" ({why_words(why)})" if len(whys) == 1 and (why := min(whys)) else ""
        return f"waiting for a worker: those that are here{version} are paused{because}"
    fitting = [w for w in workers if fits(w, python)]
    if not fitting:
        return f"waiting for a worker with python {python} (here: {pythons(workers)})"
    if any(w.state is WorkerState.UP for w in fitting):
        return f"waiting for a free slot of {sum(w.terms.slots for w in fitting)}"
    problem = next((w.detail for w in fitting if w.detail), "")
    return f"waiting for a link to {fitting[0].name}{': ' + problem if problem else ''}"
