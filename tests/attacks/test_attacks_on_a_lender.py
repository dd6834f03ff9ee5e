"""A friend's task harms nothing of the lender's, whatever it tries, under the mechanisms that most lenders have.

That the attacks work shows under ``process``, where they succeed. ``make attacks`` runs them under all mechanisms.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from arena import MECHANISMS, USERS, Arena, NotOffered
from attacks import CATALOGUE, MAY_DIFFER, perform
from docker_engine import docker_engine

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
            stack.enter_context(docker_engine() if "docker" in request.param else contextlib.nullcontext())
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


STAY = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        open("/proc/self/comm", "w").write(G["mark"])
        time.sleep(60)
time.sleep(0.2)
print("left", flush=True)
time.sleep(60)
"""


@_arenas("bubblewrap", "podman", "apptainer", "docker", "firejail")
@pytest.mark.parametrize("killed", ["guard", "guard and agent"])
def test_nothing_outlives_a_guard_that_is_killed(arena: Arena, killed: str) -> None:
    """Kill the command that a slot has started, which is outside the wall. Namespaces or an engine end the rest."""
    task = arena.begin(STAY)
    assert "left" in arena.says("left")
    assert arena.survivors(0.0) == 3
    command = arena.processes_of(0)[0]
    if "agent" in killed:
        arena.agent.process.send_signal(signal.SIGSTOP)  # it does nothing between the two
    os.kill(command, signal.SIGKILL)
    if "agent" in killed:
        arena.kill_agent()
    assert arena.survivors(5.0) == 0
    if "agent" in killed:
        arena.restart_worker()
    else:
        assert "signal 9" in arena.end(task).failure
        assert arena.serves() == ""


@_arenas("process")
@pytest.mark.parametrize("name", SUCCEED_WITHOUT_WALLS)
def test_without_walls_the_attack_succeeds(arena: Arena, name: str) -> None:
    assert perform(arena, CATALOGUE[name]).verdict == "succeeded"
