"""The values of many futures: ``p2p_ipython.gather``."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, overload

from p2p_ipython.errors import UsageError

T = TypeVar("T")

Future = concurrent.futures.Future


@overload
def gather(
    futures: Iterable[Future[T]],
    *,
    errors: Literal["raise", "skip"] = "raise",
    timeout: float | None = None,
    cancel: bool = False,
) -> list[T]: ...


@overload
def gather(
    futures: Iterable[Future[T]], *, errors: Literal["return"], timeout: float | None = None, cancel: bool = False
) -> list[T | BaseException]: ...


def gather(
    futures: Iterable[Future[Any]], *, errors: str = "raise", timeout: float | None = None, cancel: bool = False
) -> list[Any]:
    """Wait for futures, of clusters or of other executors; return their values in order.

    ``errors``: "raise" the first that one ends with, at once; "return" errors in the place of values; "skip" futures
    that end with one. ``cancel``: when an error, the ``timeout`` (seconds, for all of them together) or an interrupt
    ends the wait, cancel those that aren't over. Raises ``TimeoutError``, and ``UsageError``.

    >>> gather([cluster.submit(abs, -3), cluster.submit(pow, 2, 10)])
    [3, 1024]
    >>> gather([cluster.submit(int, text) for text in ("1", "x", "3")], errors="skip")
    [1, 3]
    """
    if errors not in ("raise", "return", "skip"):
        raise UsageError(f"gather(errors={errors!r:.40}) is not known", hint='errors is "raise", "return" or "skip".')
    each = list(futures)
    try:
        when = concurrent.futures.FIRST_EXCEPTION if errors == "raise" else concurrent.futures.ALL_COMPLETED
        over, rest = concurrent.futures.wait(each, timeout, return_when=when)
        found = [(future, _error(future)) for future in each if future in over]
        failed = next((error for _, error in found if error is not None), None)
        if errors == "raise" and failed is not None:
            raise failed
        if rest:
            raise TimeoutError(f"{len(rest)} of {len(each)} futures are not over after {timeout:g} s")
        if errors == "return":
            return [future.result() if error is None else error for future, error in found]
        return [future.result() for future, error in found if error is None]
    except BaseException:
        if cancel:
            for future in each:
                future.cancel()
        raise


def _error(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except concurrent.futures.CancelledError as error:
        return error
