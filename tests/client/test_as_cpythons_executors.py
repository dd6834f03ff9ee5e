"""A cluster passes CPython's own tests of executors and futures, but for those that are listed here with a reason.

The tests are those of the interpreter that runs this, or Debian's. ``cpython_support`` makes a cluster their executor.
A listed test that passes fails here: the list stays true.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterator

import cpython_support
import pytest

try:
    CASES = cpython_support.adapt(cpython_support.find())
except ImportError:
    CASES = {}

_POOL = "looks into the pool: at its threads, processes or queues, of which a cluster has none"
_LOCK = "shares a lock or a variable with its tasks: those of a cluster run in other processes, maybe on other machines"
_START = "is about the ways to start processes"
_SETUP = "connect() has no initializer"
_STATE = "looks at the private state or the text of a standard future; a cluster's say where their task is"
_PICKLE = "a cluster's task that can't be pickled is refused by submit(): its future can't say so later"
_GOES_ON = "a pool breaks by that; a cluster goes on, and the task's error says what happened"

EXCEPTIONS = {
    "ExecutorDeadlockTest.test_error_at_task_pickle": _PICKLE,
    "ExecutorDeadlockTest.test_error_at_task_unpickle": _GOES_ON,
    "ExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler": _GOES_ON,
    "ExecutorDeadlockTest.test_exit_at_task_unpickle": _GOES_ON,
    "ExecutorDeadlockTest.test_exit_during_result_pickle_on_worker": _GOES_ON,
    "ExecutorDeadlockTest.test_exit_during_result_unpickle_in_result_handler": _GOES_ON,
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": _POOL,
    "ExecutorShutdownTest.test_submit_after_interpreter_shutdown": "wants RuntimeError's name; ours is a kind of it",
    "ExecutorTest.test_max_workers_negative": "wants the words of a pool; a cluster's ValueError has its own",
    "FailingInitializerMixin.test_initializer": _SETUP,
    "FutureTests.test_cancel": "a cluster's future can be cancelled while its task runs",
    "FutureTests.test_multiple_set_exception": _STATE,
    "FutureTests.test_multiple_set_result": _STATE,
    "FutureTests.test_repr": _STATE,
    "FutureTests.test_running": _STATE,
    "InitializerMixin.test_initializer": _SETUP,
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": _POOL,
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": _POOL,
    "ProcessPoolExecutorTest.test_killed_child": _POOL,
    "ProcessPoolExecutorTest.test_max_tasks_early_shutdown": _START,
    "ProcessPoolExecutorTest.test_max_tasks_per_child": _START,
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": _START,
    "ProcessPoolExecutorTest.test_ressources_gced_in_workers": _START,
    "ProcessPoolExecutorTest.test_saturation": _START,
    "ProcessPoolExecutorTest.test_traceback": "wants a private class as the cause; ours has the same traceback",
    "ProcessPoolShutdownTest.test_context_manager_shutdown": _POOL,
    "ProcessPoolShutdownTest.test_del_shutdown": _POOL,
    "ProcessPoolShutdownTest.test_processes_terminate": _START,
    "ProcessPoolShutdownTest.test_shutdown_no_wait": _POOL,
    "ThreadPoolExecutorTest.test_default_workers": _POOL,
    "ThreadPoolExecutorTest.test_executor_map_current_future_cancel": _LOCK,
    "ThreadPoolExecutorTest.test_idle_thread_reuse": _POOL,
    "ThreadPoolExecutorTest.test_map_submits_without_iteration": _LOCK,
    "ThreadPoolExecutorTest.test_saturation": _POOL,
    "ThreadPoolShutdownTest.test_context_manager_shutdown": _POOL,
    "ThreadPoolShutdownTest.test_del_shutdown": _POOL,
    "ThreadPoolShutdownTest.test_shutdown_no_wait": _POOL,
    "ThreadPoolShutdownTest.test_thread_names_assigned": _POOL,
    "ThreadPoolShutdownTest.test_thread_names_default": _POOL,
    "ThreadPoolShutdownTest.test_threads_terminate": _POOL,
    "ThreadPoolWaitTests.test_pending_calls_race": _LOCK,
}
"""Tests that a cluster doesn't pass, and why."""


@pytest.fixture(scope="module", autouse=True)
def _end() -> Iterator[None]:
    yield
    cpython_support.end_shared()


@pytest.mark.skipif(not CASES, reason="neither this Python nor Debian's libpython3.X-testsuite has CPython's tests")
@pytest.mark.parametrize("name", CASES or ["none"])
def test_a_cluster_is_an_executor_as_cpython_tests_them(name: str) -> None:
    result = unittest.TestResult()
    CASES[name].run(result)
    wrong = [trace for _, trace in [*result.errors, *result.failures]]
    if name in EXCEPTIONS:
        assert wrong or result.skipped, f"{name} passes now: take it off the list"
        return
    assert not wrong, "\n".join(wrong)
    if result.skipped:
        pytest.skip(result.skipped[0][1])


@pytest.mark.skipif(len(CASES) < 2, reason="neither this Python nor Debian has CPython's tests")
def test_each_listed_test_exists_or_did() -> None:
    assert {name.partition(".")[0] for name in EXCEPTIONS} <= {name.partition(".")[0] for name in CASES}
