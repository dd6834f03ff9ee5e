"""Which workers a client knows, and which of them it meets next, so that no member keeps it from the workers of others.

A member may be there to keep us busy: with many workers, with workers that come to no meeting, or with ones that
aren't who they say they are. So what their workers may take is bounded by member, except for our own member's.

Pure: ``now`` is any clock that doesn't go back, seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.needs import Needs
from p2p_ipython.protocol.placement import WorkerState, WorkerView, fits
from p2p_ipython.protocol.turns import one_less

EAGER_LINKS = 8
"""Workers that are met as soon as they are heard, so that the first task finds a link; further ones when
there is more work than these can take. So many are in a meeting at a time."""

EAGER_LINKS_OF_ONE = EAGER_LINKS // 2
"""Of these, the workers of one member who isn't ours."""

MAX_WORKERS_OF_ONE = 512
"""Workers of one member that are known at a time, some 4 kB each; further ones are not heard."""

MAX_BANNED = 5_000
"""Workers that are remembered because they aren't the ones that they said they are."""

MEET_BACKOFF = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a worker that could not be met is tried again."""


class Meetings:
    """The workers that are known, by member, and the meetings with them. ``own``: whether a key is our own member's."""

    def __init__(self, own: Callable[[str], bool]) -> None:
        self._own = own
        self._known: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()  # meetings since the last one that came about, by member
        self._banned: dict[bytes, None] = {}

    def hears(self, worker: Certificate) -> bool:
        """Return whether a worker that isn't known yet may become so."""
        return self._known[worker.signer] < MAX_WORKERS_OF_ONE

    def is_banned(self, sid: bytes) -> bool:
        """Return whether a worker has failed to prove who it is."""
        return sid in self._banned

    def came(self, worker: WorkerView) -> None:
        """Count a worker that is known from now on."""
        self._known[worker.certificate.signer] += 1

    def went(self, worker: WorkerView) -> None:
        """Count a worker that isn't known any more."""
        signer = worker.certificate.signer
        one_less(self._known, signer)
        if signer not in self._known:
            self._failed.pop(signer, None)

    def met(self, worker: WorkerView) -> None:
        """Note that a meeting came about."""
        worker.failures = 0
        self._failed.pop(worker.certificate.signer, None)

    def failed(self, worker: WorkerView, now: float) -> None:
        """Note that a meeting did not come about: when may the worker be tried again?"""
        worker.meet_after = now + MEET_BACKOFF[min(worker.failures, len(MEET_BACKOFF) - 1)]
        worker.failures += 1
        self._failed[worker.certificate.signer] += 1

    def ban(self, sid: bytes) -> None:
        """Never hear this worker again: it isn't the one that it said it was."""
        self._banned[sid] = None
        if len(self._banned) > MAX_BANNED:
            del self._banned[next(iter(self._banned))]

    def is_eager(self, worker: WorkerView, workers: Iterable[WorkerView]) -> bool:
        """Return whether a worker that has just come is met at once, although there is perhaps no work for it."""
        linked = [w.certificate.signer for w in workers if w.state is not WorkerState.KNOWN]
        return len(linked) < EAGER_LINKS and linked.count(worker.certificate.signer) < self._share(worker)

    def next(self, workers: Collection[WorkerView], wanted: Collection[Needs], now: float) -> WorkerView | None:
        """Return the worker to meet because tasks with these needs wait; None for none.

        First comes a member of whom few are being met, and of those one whose workers come when they are asked.
        """
        ready = [w for w in workers if w.state is WorkerState.KNOWN and now >= w.meet_after]
        if not ready:
            return None
        meeting = Counter(w.certificate.signer for w in workers if w.state is WorkerState.MEETING)
        if meeting.total() >= EAGER_LINKS:
            return None

        def rank(worker: WorkerView) -> tuple[int, int]:
            signer = worker.certificate.signer
            return meeting[signer], self._failed[signer]

        able = [w for w in ready if rank(w)[0] < self._share(w) and any(fits(w, needs) for needs in wanted)]
        return min(able, key=rank, default=None)

    def _share(self, worker: WorkerView) -> int:
        """Return how many links and meetings the workers of a worker's member may have before others get theirs."""
        return EAGER_LINKS if self._own(worker.certificate.signer) else EAGER_LINKS_OF_ONE
