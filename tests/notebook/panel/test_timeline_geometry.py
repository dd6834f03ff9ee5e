"""``Cluster.timeline()`` has the geometry of the panel's timeline: labextension/tests/panel/timeline.json has both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2p_ipython.client.journal import Attempt, Entry
from p2p_ipython.client.timeline import arrange, ticks
from p2p_ipython.protocol.client_machine import TaskState

FIXTURE = json.loads((Path(__file__).parents[3] / "labextension/tests/panel/timeline.json").read_text(encoding="utf-8"))


def entry_of(task: dict[str, Any]) -> Entry:
    """The record of one of the fixture's tasks."""
    made = Entry(task["id"], task["id"], "call", "", "", task["submitted"], 0)
    made.worker, made.sid = task.get("worker", ""), task.get("worker", "").encode()
    made.sent, made.started, made.ended = (task.get(name, 0.0) for name in ("sent", "started", "ended"))
    made.seconds = task.get("ran", 0.0)
    made.state = TaskState(task.get("state", "done" if made.ended else "running"))
    made.attempts = tuple(Attempt(*tried, sid=tried[0].encode()) for tried in task.get("tried", ()))
    return made


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["name"])
def test_the_picture_has_the_panels_geometry(case: dict[str, Any]) -> None:
    slots = {worker.encode(): count for worker, count in case["slots"].items()}
    plan = arrange([entry_of(task) for task in case["tasks"]], case["now"], slots)
    bars = [
        [
            *(band.name, bar.lane, bar.text.partition("\n")[0], bar.outcome == "lost"),
            *(plan.begin + time for time in (bar.waited, bar.sent, bar.started, bar.ran, bar.ended)),
        ]
        for band in plan.bands
        for bar in band.bars
    ]
    assert bars == case["bars"]
    used = {band.name: band.busy for band in plan.bands if band.name in case["used"]}
    assert used == pytest.approx(case["used"])


@pytest.mark.parametrize(("length", "step"), FIXTURE["steps"]["of"])
def test_its_axis_has_the_same_steps(length: float, step: float) -> None:
    assert ticks(length, FIXTURE["steps"]["about"])[1] == pytest.approx(step)
