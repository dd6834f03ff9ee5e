"""CPython's own tests of executors and futures, found in a ``test`` package and made to test a cluster.

Nothing of them is copied: their modules are imported as they are, and the names that they look up (``futures``,
``Future``, ``assert_python_ok``) are replaced there. One mixin, ``ClusterMixin``, makes a cluster the executor.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import inspect
import logging
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

import p2p_ipython
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.future import Future

PACKAGE = "test.test_concurrent_futures"

PARTS = ("as_completed", "deadlock", "future", "init", "process_pool", "shutdown", "thread_pool", "wait")
"""The tests are a package since Python 3.12; before, they are one module."""

DEBIANS = Path(f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}/test")
"""Where Debian's ``libpython3.X-testsuite`` puts them; some builds of Python come without."""

WORKERS = 2

OPTIONS = {"mp_context", "thread_name_prefix"}
"""Arguments of the standard executors that mean nothing to a cluster; the others are refused."""

PROLOGUE = f"""\
import sys, test
test.__path__.append({str(DEBIANS)!r})
import cloudpickle, concurrent.futures, p2p_ipython
import {PACKAGE}
cloudpickle.register_pickle_by_value(sys.modules[{PACKAGE!r}])
concurrent.futures.PersonalCluster = lambda *_, **__: p2p_ipython.connect(workers=1)
"""
"""What a script of the tests needs above it, to find a cluster among the executors.

It has one worker: that has run a task when the script ends, and isn't still on its way into the cluster.
"""

STANDARD = ("ThreadPoolExecutor", "ProcessPoolExecutor")


class PersonalCluster(concurrent.futures.Executor):
    """A view of the cluster that tests share, for those that make executors of their own; its shutdown ends nothing.

    The tests of shutdown have clusters of their own.
    """

    def __init__(self, max_workers: int = WORKERS, **options: Any) -> None:
        if unknown := options.keys() - OPTIONS:
            raise TypeError(f"connect() knows no {', '.join(sorted(unknown))}")
        if max_workers < 1:
            p2p_ipython.connect(workers=max_workers)
        self._futures: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = shared().submit(fn, *args, **kwargs)
        self._futures.append(future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if wait:
            concurrent.futures.wait(self._futures)

    def __reduce__(self) -> Any:
        return shared().__reduce__()


class ProcessPool(PersonalCluster):
    """Stands for ``ProcessPoolExecutor``: some tests ask which of the two they have."""


_shared: list[Cluster] = []


def shared() -> Cluster:
    """Return the cluster that tests share; another one when a test has shut it down."""
    if not _shared or _shared[0].closed or _shared[0]._core.shut:
        end_shared()
        _shared.append(p2p_ipython.connect(workers=WORKERS))
    return _shared[0]


def end_shared() -> None:
    while _shared:
        _shared.pop().close()


class ClusterMixin(unittest.TestCase):
    """Goes before a class of CPython's tests: its executor is a cluster."""

    executor_type = PersonalCluster
    executor_kwargs: dict[str, Any] = {}
    worker_count = WORKERS
    of = "shared"
    """The executor of a test: the "shared" cluster, a "view" of it, or one of its "own"."""

    _executor: Any = None

    @property
    def executor(self) -> Any:
        if self._executor is None:
            match self.of:
                case "own":
                    self._executor = p2p_ipython.connect(workers=self.worker_count)
                case "shared" if not self.executor_kwargs:
                    self._executor = shared()
                case _:
                    self._executor = self.executor_type(**self.executor_kwargs)
        return self._executor

    @executor.setter
    def executor(self, executor: Any) -> None:
        self._executor = executor

    def setUp(self) -> None:
        # Without handlers an error goes to stderr, where the tests look for it; pytest has set some.
        root = logging.getLogger()
        self._handlers, root.handlers = root.handlers, []

    def tearDown(self) -> None:
        logging.getLogger().handlers = self._handlers
        for cluster in _shared:
            for future in cluster._core.open_futures():
                future.cancel()
        if self._executor is not None and self._executor not in _shared:
            self._executor.shutdown()
        self._executor = None

    def get_context(self) -> None:
        """Return nothing: how processes are started is no matter of the executor."""


def a_future(*_: Any) -> Future[Any]:
    """Make a future as a cluster has them, of no task."""
    return Future("t1", "label", Nobody(), lambda arrived: None)


class Nobody:
    """Owns the futures of no task."""

    def withdraw(self, task_id: str) -> None:
        pass

    def why(self, task_id: str) -> str:
        return ""


class _Executors:
    """Stands for the module ``concurrent.futures``: its executors make clusters."""

    ThreadPoolExecutor = PersonalCluster
    ProcessPoolExecutor = ProcessPool

    def __getattr__(self, name: str) -> Any:
        return getattr(concurrent.futures, name)


def find() -> list[ModuleType]:
    """Import CPython's tests, of this interpreter or Debian's; return their modules. Raises ``ImportError``."""
    package = importlib.import_module("test")
    if str(DEBIANS) not in package.__path__:
        package.__path__.append(str(DEBIANS))
    whole = importlib.import_module(PACKAGE)
    if not hasattr(whole, "__path__"):
        return [whole]
    names = [*(f"test_{part}" for part in PARTS), "util", "executor"]
    return [importlib.import_module(f"{PACKAGE}.{name}") for name in names]


def adapt(modules: list[ModuleType]) -> dict[str, unittest.TestCase]:
    """Make a cluster the executor of the tests in ``modules``; return the tests by class and name, each once."""
    cloudpickle.register_pickle_by_value(sys.modules[PACKAGE])  # the workers may not have them
    cases: dict[str, unittest.TestCase] = {}
    for module in modules:
        there: Any = module
        if hasattr(there, "Future"):
            there.Future = a_future
        for name, value in list(vars(module).items()):
            if isinstance(value, concurrent.futures.Future):
                setattr(module, name, _remade(value))
        if hasattr(there, "futures"):
            there.futures = _Executors()
        if hasattr(there, "assert_python_ok"):
            there.assert_python_ok = _with_prologue(there.assert_python_ok)
    for module in modules:
        for name, value in list(vars(module).items()):
            own = [test for test in vars(value) if test.startswith("test_")] if inspect.isclass(value) else []
            if own and value.__module__ == module.__name__:
                adapted = _adapted(name, value)
                cases.update({f"{name}.{test}": adapted(test) for test in own})
    return cases


def _adapted(name: str, tests: type) -> type[unittest.TestCase]:
    bases = (ClusterMixin, tests) if issubclass(tests, unittest.TestCase) else (tests, ClusterMixin)
    of = "own" if name == "ExecutorShutdownTest" else "view" if "Deadlock" in name else "shared"
    return type(name, bases, {"of": of, "__module__": tests.__module__})


_remakes: dict[int, Future[Any]] = {}


def _remade(future: concurrent.futures.Future[Any]) -> Future[Any]:
    """Return a future of ours in the state of one of theirs; the same one wherever that is known."""
    made = _remakes.setdefault(id(future), a_future())
    made._state, made._exception, made._result = future._state, future._exception, future._result
    return made


def _with_prologue(run: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(option: str, script: str, *more: str, **given: Any) -> Any:
        for standard in STANDARD:
            script = script.replace(standard, PersonalCluster.__name__)
        return run(option, PROLOGUE + script, *more, **given)

    return adapted
