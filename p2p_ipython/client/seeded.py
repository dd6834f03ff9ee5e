"""A view of a cluster whose tasks draw the same random numbers each time: ``cluster.seeded(7)``."""

from __future__ import annotations

import concurrent.futures
import itertools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from p2p_ipython.client.future import Future
from p2p_ipython.errors import CaptureError

if TYPE_CHECKING:
    from p2p_ipython.client.core import ClusterCore
    from p2p_ipython.task.seeds import Seed

T = TypeVar("T")


class Seeded(concurrent.futures.Executor):
    """See ``Cluster.seeded``. Its tasks are counted from 0, in the order in which they are submitted."""

    def __init__(self, core: ClusterCore, seed: int) -> None:
        """Make it for ``Cluster.seeded``."""
        self._core = core
        self._seed = checked(seed)
        self._numbers = itertools.count()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Do what ``Cluster.submit`` does, with the next child of the seed."""
        return self._core.submit_call(fn, args, kwargs, seed=seed_of(self._seed, next(self._numbers)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the cluster belongs to somebody else."""

    def __repr__(self) -> str:
        return f"<Seeded {self._seed}>"


def seed_of(seed: int, index: int) -> Seed:
    """Return the seed of one task."""
    from p2p_ipython.task.seeds import Seed

    return Seed(seed, index)


def checked(seed: Any) -> int:
    """Return a seed as a whole number. Raises ``CaptureError`` for one that is none."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 128:
        raise CaptureError(
            f"{seed!r:.80} is no seed", hint="Give a whole number, from 0 to 2**128 - 1: cluster.seeded(42)."
        )
    return number
