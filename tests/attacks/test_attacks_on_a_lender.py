"""A friend's task harms nothing of the lender's, whatever it tries, under the mechanisms that most lenders have.

That the attacks work shows under ``process``, where they succeed. ``make attacks`` runs them under all mechanisms.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest
from arena import MECHANISMS, USERS, Arena, NotOffered
from attacks import CATALOGUE, MAY_DIFFER, perform

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the attacks need Linux")

SUCCEED_WITHOUT_WALLS = (
    "read-ssh-key",
    "erase-home",
    "write-pth",
    "write-tmp",
    "read-memory-of-runner",
    "trace-runner",
    "kill-bystander",
    "tcp",
    "agent-socket",
    "fork-bomb",
    "disk-bomb",
    "outlive-warden",
    "forge-next-result",
)


@pytest.fixture(scope="module")
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    """Make one arena for all attacks on a mechanism by a user."""
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(Arena(*request.param))
        except NotOffered as why:
            pytest.skip(f"{' as '.join(request.param)}: {why}")
        yield made


def _arenas(*mechanisms: str) -> pytest.MarkDecorator:
    pairs = [(mechanism, user) for mechanism in mechanisms for user in USERS]
    return pytest.mark.parametrize("arena", pairs, indirect=True, ids=["-as-".join(pair) for pair in pairs])


@_arenas("bubblewrap", "landlock")
@pytest.mark.parametrize("name", [name for name in CATALOGUE if name not in MAY_DIFFER])
def test_the_attack_is_stopped(arena: Arena, name: str) -> None:
    outcome = perform(arena, CATALOGUE[name])
    if outcome.verdict == "not tried":
        pytest.skip(outcome.why)
    assert outcome.verdict == "stopped", f"{CATALOGUE[name].words}: {outcome.why}"


@_arenas(*(name for name in MECHANISMS if name != "qemu"))  # see test_machines_of_a_lender.py
def test_how_a_task_has_ended_its_runner_is_told(arena: Arena) -> None:
    assert "exit code 7" in arena.attack("import os\nos._exit(7)").failure
    assert "signal 11" in arena.attack("import os\nos.kill(os.getpid(), 11)").failure
    assert arena.serves() == ""


@_arenas("process")
@pytest.mark.parametrize("name", SUCCEED_WITHOUT_WALLS)
def test_without_walls_the_attack_succeeds(arena: Arena, name: str) -> None:
    assert perform(arena, CATALOGUE[name]).verdict == "succeeded"
