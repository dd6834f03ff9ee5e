"""``p2p bench``: what it reports, on a cluster that really runs; never how quick that is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rich.console import Console

from p2p_ipython.bench import Effort, Figures, is_worker_agent, measure, table

KEYS = {
    "first_result_s",
    "roundtrip_ms",
    "roundtrip_p99_ms",
    "tasks_per_s",
    "in_MB_per_s",
    "out_MB_per_s",
    "again_ms",
    "repeats",
}
LIGHT = Effort(warm_up=5, roundtrips=10, tasks=20, transfers=1, size=2_000_000)

FIGURES = Figures(
    first_result_s=1.23456,
    roundtrip_ms=0.81234,
    roundtrip_p99_ms=2.2,
    tasks_per_s=3216.4,
    in_MB_per_s=542.44,
    out_MB_per_s=254.4,
    again_ms=25.66,
    repeats=3,
    workers=2,
    python="3.11.2",
)


def test_a_personal_cluster_is_measured_as_often_as_asked() -> None:
    said: list[str] = []
    figures = measure(workers=1, repeats=2, memory=True, effort=LIGHT, progress=said.append)
    values = figures.as_json()
    assert set(values) >= KEYS
    assert (figures.repeats, figures.workers) == (2, 1)
    assert all(value > 0 for value in values.values() if not isinstance(value, str))
    assert figures.roundtrip_p99_ms >= figures.roundtrip_ms
    assert figures.idle_worker_MB is not None
    assert said[0] == "starting (1 of 2)"
    assert said[-1].endswith("(2 of 2)")


def test_figures_are_rounded_and_what_was_not_measured_is_left_out() -> None:
    assert FIGURES.as_json() == {
        "first_result_s": 1.235,
        "roundtrip_ms": 0.812,
        "roundtrip_p99_ms": 2.2,
        "tasks_per_s": 3216,
        "in_MB_per_s": 542.4,
        "out_MB_per_s": 254.4,
        "again_ms": 25.7,
        "repeats": 3,
        "workers": 2,
        "python": "3.11.2",
    }


def test_the_table_says_how_often_and_on_how_many_workers() -> None:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(table(FIGURES))
    text = captured.get()
    assert "3,216" in text
    assert "2 workers" in text
    assert "measured 3 times" in text


@pytest.mark.parametrize(
    ("command", "is_agent"),
    [
        (["/usr/bin/python", "-m", "p2p_ipython.worker"], True),
        (["/usr/bin/python", "/usr/local/bin/p2p", "worker", "--board", "h"], True),
        (["/usr/bin/python", "-m", "p2p_ipython.board.server"], False),
        (["/usr/bin/python", "-m", "p2p_ipython.sandbox.inside.runner", "{}"], False),
        ([], False),
    ],
)
def test_a_workers_agent_is_known_by_its_command(command: list[str], is_agent: bool) -> None:
    assert is_worker_agent(command) is is_agent


@pytest.mark.slow
def test_json_is_one_line_on_standard_output() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "p2p_ipython.cli", "bench", "--workers", "1", "--repeats", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert set(json.loads(line)) >= KEYS
