"""How many processor cores a task may keep busy."""

from __future__ import annotations

import contextlib
import os
import sys

import pytest
from docker_engine import docker_engine
from slot_support import needs, worker

from p2p_ipython.config import parse_amount, parse_count
from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.sandbox.launch import MECHANISMS
from p2p_ipython.worker.main import available_cores, shared_out

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says on which cores a process runs")

BY_CORES = [name for name in MECHANISMS if name not in ("docker", "podman")]


def test_slots_share_no_core_while_there_are_enough() -> None:
    assert shared_out([7, 6, 5, 4], 1.5, 2) == [(7, 6), (5, 4)]
    assert shared_out([7, 6, 5, 4], 0.5, 3) == [(7,), (6,), (5,)]
    assert shared_out([2, 1, 0], 2, 3) == [(2, 1), (0, 2), (1, 0)]


def test_all_cores_need_no_choice() -> None:
    assert shared_out([1, 0], 0, 2) == shared_out([1, 0], 1.5, 2) == shared_out([], 1, 2) == [(), ()]


@pytest.mark.parametrize("text", ["0", "-1", "0.001", "nan", "inf", "1e3", "two", ""])
def test_what_is_no_amount_of_cores_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not an amount"):
        parse_amount(text)
    assert (parse_amount("1.5"), parse_count("12")) == (1.5, 12)


TRY = """
import os
before = sorted(os.sched_getaffinity(0))
try: os.sched_setaffinity(0, range(os.cpu_count()))
except PermissionError: pass
before, sorted(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"], os.environ["PYTHON_CPU_COUNT"], os.nice(0)
"""


@pytest.mark.parametrize("wall", BY_CORES)
async def test_a_task_runs_on_the_cores_of_its_slot_and_behind_a_wall_on_no_other(wall: str) -> None:
    needs(wall)
    every = available_cores()
    own = tuple(every[:1])
    async with worker(mechanism=wall, cpus=0.5, cores=own, polite=True) as it:
        before, after, threads, count, nice = (await it.cell(TRY)).value
    there = [*own] if wall != "qemu" else [0]  # a machine has cores of its own, and no more of them
    assert before == there
    assert after == (there if wall != NO_WALL else sorted(every))
    assert (threads, count, nice >= 10) == ("1", "1", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's engines have cgroups for certain")
@pytest.mark.parametrize("name", ["podman", "docker"])
async def test_an_engine_with_a_cgroup_holds_fractions_of_a_core(name: str) -> None:
    with docker_engine() if name == "docker" else contextlib.nullcontext():
        needs(name)
        async with worker(mechanism=name, cpus=0.3, cores=(0,)) as it:
            source = "import time\nbegun, used = time.monotonic(), time.process_time()\n"
            source += "while time.monotonic() < begun + 2: pass\n(time.process_time() - used) / 2"
            assert (await it.cell(source)).value < 0.45
