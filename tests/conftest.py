"""Test functions that are coroutines run on the process's one event loop; see p2p_ipython/loop.py."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings

from p2p_ipython import loop as loops

# The machine may be busy: how long an example takes says nothing. Here, so that it holds whichever folders are run.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run ``async def test_…`` on the background loop, and fail it if it leaves a task running."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    loops.background().run(_without_leaks(pyfuncitem.obj(**arguments)))
    return True


async def _without_leaks(test) -> None:  # type: ignore[no-untyped-def]
    before = asyncio.all_tasks()
    loops.adopt()
    await test
    for _ in range(3):  # let callbacks of what was just closed run
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before
    for task in left:
        task.cancel()
    assert not left, f"the test left tasks running: {left}"


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Each test ends the threads that it started (the background loop and pools that stay are known by name)."""
    before = set(threading.enumerate())
    yield
    late = [t for t in threading.enumerate() if t not in before and not t.daemon and t.is_alive()]
    for thread in late:
        thread.join(5)
    assert not [t for t in late if t.is_alive()], f"the test left threads running: {late}"


@pytest.fixture(autouse=True, scope="module")
def _garbage_shows_itself() -> Iterator[None]:
    """What a module's tests forgot to close warns while that module runs, not later. (A collection takes 80 ms.)"""
    yield
    gc.collect()
