"""The tests of this folder run in the thread that Playwright lives in, on one browser and one Jupyter server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from playwright.sync_api import Browser

from tests.browser.lab import CONNECT, Book, Jupyter, Tab, browsing, chromium, open_in_lab
from tests.browser.server import Server, serving
from tests.wheel_support import wheel_venv

T = TypeVar("T")

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"


FIRST = 400
"""Seconds that a test may take: the first one builds and installs the wheel, where no other has."""


class Stage:
    """Playwright's thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="browser")

    def run(self, work: Callable[[], T]) -> T:
        future: Future[T] = self._pool.submit(work)
        return future.result()

    @contextmanager
    def holding(self, manager: AbstractContextManager[T]) -> Iterator[T]:
        """Enter and leave a context there."""
        value = self.run(manager.__enter__)
        try:
            yield value
        finally:
            self.run(lambda: manager.__exit__(None, None, None))

    def close(self) -> None:
        self._pool.shutdown()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(FIRST))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test on the stage, when it has one; take a picture of what it fails on."""
    stage = pyfuncitem.funcargs.get("stage")
    if not isinstance(stage, Stage):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    try:
        stage.run(lambda: pyfuncitem.obj(**arguments))
    except BaseException:
        if isinstance(window := pyfuncitem.funcargs.get("jupyter"), Jupyter):
            stage.run(lambda: window.photograph(SCREENSHOTS / f"failed-{pyfuncitem.name}"))
        raise
    return True


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    if chromium() is None:
        pytest.skip("needs Chromium")
    made = Stage()
    yield made
    made.close()


@pytest.fixture(scope="session")
def browser(stage: Stage) -> Iterator[Browser]:
    with stage.holding(browsing()) as made:
        yield made


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab and Notebook 7 in an environment that has the wheel, as people install it.

    While the front end is worked on, P2P_TEST_JUPYTER=.venv/bin/python takes what `make front` has built instead.
    """
    given = os.environ.get("P2P_TEST_JUPYTER")
    python = Path(given).absolute() if given else wheel_venv().python
    with serving(python, tmp_path_factory.mktemp("jupyter")) as made:
        yield made


@pytest.fixture(scope="session")
def window(stage: Stage, browser: Browser, server: Server) -> Iterator[Jupyter]:
    """A window of the browser, for all tests."""
    made = stage.run(lambda: Jupyter(browser, server))
    yield made
    stage.run(made.close)


@pytest.fixture
def jupyter(stage: Stage, window: Jupyter) -> Iterator[Jupyter]:
    """The window; all that the test asked for came from the server, and nothing went wrong in its pages."""
    yield window
    stage.run(window.clear)
    foreign, errors = window.watch.take()
    assert foreign == []
    assert errors == []


@pytest.fixture(scope="session")
def _lab(stage: Stage, window: Jupyter) -> Tab:
    return stage.run(window.lab)


@pytest.fixture
def lab(jupyter: Jupyter, _lab: Tab) -> Tab:
    """JupyterLab; the notebooks of the test before are closed and their kernels ended."""
    return _lab


@pytest.fixture(scope="module")
def connected(stage: Stage, window: Jupyter) -> Iterator[Book]:
    """A notebook with a personal cluster of two workers, for all tests of a module that do it no harm."""
    path = "connected.ipynb"
    window.keep.add(path)
    yield stage.run(lambda: open_in_lab(window.lab(), path, [CONNECT]).run_all())
    window.keep.discard(path)
    stage.run(window.clear)


@pytest.fixture
def book(stage: Stage, lab: Tab, connected: Book) -> Iterator[Book]:
    """The connected notebook, in front and without cells. What the test leaves undone is cancelled."""
    yield stage.run(lambda: connected.front().emptied())
    stage.run(lambda: connected.do("for task in list(cluster._core.record.entries):\n    cluster.cancel_task(task)"))
