"""Settled futures: a future that is over, as it travels inside a task.

A cell that says ``tile.result()`` must mean on the worker what it means at home. So a finished future travels
as a finished future: same value or exception, awaitable, no way back to the cluster that made it.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from typing import Any


class SettledFuture(Future[Any]):
    """A finished future on a worker: ``result()`` and ``await`` give its value, or raise its exception."""

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()  # a generator is what __await__ has to return
        return self.result()

    def __repr__(self) -> str:
        return "<SettledFuture>"


def settled(value: Any, error: BaseException | None = None) -> SettledFuture:
    """Return a future that holds ``value``, or that raises ``error``."""
    future = SettledFuture()
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
    return future
