"""joblib's own tests of backends, run with ours: those of the wheel that is installed. It has four workers.

Each of joblib's tests that takes a backend runs with "p2p", or is in ``EXCLUDED`` with the reason.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from joblib.parallel import BACKENDS

import p2p_ipython

_before = BACKENDS.pop("p2p", None)  # they make one of each backend when they are imported, and there is no cluster yet
theirs = import_module("joblib.test.test_parallel")
if _before is not None:
    BACKENDS["p2p"] = _before

NAMES = ("backend", "parent_backend", "child_backend", "outer_backend", "inner_backend")
"""What joblib's tests call a backend."""

_POOL = "it looks at the pool of processes that joblib's own backends keep"
_MEMMAP = "it wants arrays as files that both sides map; ours travel by their hash"
_MANAGER = "its arguments are proxies of multiprocessing, which only children of this process may use"
_SCRIPT = "it starts a script that has no cluster; tests/client/test_joblib.py has one that connects"
_INITIALIZER = "it is about an option of joblib's own pools: our runners are not new for each call"
_ANOTHER = "it does not use the backend that it is given, or one of the others"

EXCLUDED = {
    "test_error_capture": _POOL,
    "test_auto_memmap_on_arrays_from_generator": _MEMMAP,
    "test_memmapping_leaks": _MEMMAP,
    "test_dispatch_multiprocessing": _MANAGER,
    "test_parallel_with_interactively_defined_functions": _SCRIPT,
    "test_parallel_with_unpicklable_functions_in_args": _SCRIPT,
    "test_initializer_context": _INITIALIZER,
    "test_initializer_parallel": _INITIALIZER,
    "test_background_thread_parallelism": _ANOTHER,
    "test_nested_parallel_warnings": _ANOTHER,
    "test_parallel_thread_limit": "it needs a helper in C that the wheel doesn't have",
}


def cases() -> Iterator[Any]:
    """Yield each test with each set of its arguments, ours in the place of a backend."""
    for name, test in vars(theirs).items():
        if not name.startswith("test_") or name in EXCLUDED:
            continue
        marks = getattr(test, "pytestmark", [])
        given = [mark.args[:2] for mark in marks if mark.name == "parametrize"]
        if not any(backend in names_of(names) for names, _ in given for backend in NAMES):
            continue
        choices = []
        for names, values in given:
            rows = [dict(zip(names_of(names), row_of(names, value), strict=True)) for value in values]
            ours = [{key: "p2p" if key in NAMES else value for key, value in row.items()} for row in rows]
            choices.append([row for index, row in enumerate(ours) if row not in ours[:index]])
        for rows in itertools.product(*choices):
            arguments = {key: value for row in rows for key, value in row.items()}
            if arguments.get("error"):  # what loky says to a call beside an abandoned one; ours makes it
                continue
            words = "-".join(str(getattr(v, "__name__", v)) for k, v in arguments.items() if k not in NAMES)
            yield pytest.param(name, arguments, id=f"{name}-{words}"[:100])


def names_of(names: Any) -> list[str]:
    return [each.strip() for each in names.split(",")] if isinstance(names, str) else list(names)


def row_of(names: Any, value: Any) -> Any:
    return value if len(names_of(names)) > 1 else (value,)


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with p2p_ipython.connect(workers=4):
        yield


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # joblib warns of results that nobody takes
@pytest.mark.parametrize(("name", "arguments"), list(cases()))
def test_as_joblib_tests_its_own_backends(name: str, arguments: dict[str, Any], request: pytest.FixtureRequest) -> None:
    test = getattr(theirs, name)
    test = inspect.unwrap(test)
    fixtures = [each for each in inspect.signature(test).parameters if each not in arguments]
    test(**arguments, **{each: request.getfixturevalue(each) for each in fixtures})
