"""How busy others keep the graphics cards, by a stand-in for nvidia-ml-py: no test machine has a card."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from p2p_ipython.lending import facts
from p2p_ipython.lending.cards import Cards
from p2p_ipython.lending.policy import Policy

OURS, THEIRS, OTHERS = 11, 22, 33


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


class Driver:
    """A driver with one card; samples are (process, time, percent), None for a driver that takes none."""

    NVMLError = NVMLError
    NVML_ERROR_NOT_FOUND = 6

    def __init__(self) -> None:
        self.samples: list[tuple[int, int, int]] | None = []
        self.open: list[int] = []
        self.percent = 0
        self.broken = False

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        if self.broken:
            raise NVMLError(15)  # the card has fallen off the bus
        return 1

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetProcessUtilization(self, _card: int, since: int) -> list[Any]:
        if self.samples is None:
            raise NVMLError(3)
        found = [SimpleNamespace(pid=pid, timeStamp=at, smUtil=use) for pid, at, use in self.samples if at > since]
        if not found:
            raise NVMLError(self.NVML_ERROR_NOT_FOUND)
        return found

    def nvmlDeviceGetComputeRunningProcesses(self, _card: int) -> list[Any]:
        return [SimpleNamespace(pid=pid) for pid in self.open]

    def nvmlDeviceGetGraphicsRunningProcesses(self, _card: int) -> list[Any]:
        return []

    def nvmlDeviceGetUtilizationRates(self, _card: int) -> Any:
        return SimpleNamespace(gpu=self.percent)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    return made


@pytest.fixture
def cards(tmp_path: Path) -> Cards:
    (tmp_path / "proc/driver/nvidia/gpus").mkdir(parents=True)
    return Cards(tmp_path)


def test_the_work_of_others_counts_and_that_of_our_tasks_does_not(cards: Cards, driver: Driver) -> None:
    driver.samples = [(OURS, 1, 90), (THEIRS, 1, 50), (THEIRS, 2, 20), (OTHERS, 2, 5)]
    assert cards.others({OURS}) == 0.25  # of each process the latest
    assert cards.others({OURS}) == 0.0  # nothing since
    driver.samples = [(THEIRS, 3, 80), (OTHERS, 3, 80)]
    assert cards.others({OURS}) == 1.0


def test_where_the_driver_tells_of_no_processes_a_card_that_others_have_open_counts(
    cards: Cards, driver: Driver
) -> None:
    driver.samples, driver.open, driver.percent = None, [OURS], 70
    assert cards.others({OURS}) == 0.0
    driver.open = [OURS, THEIRS]
    assert cards.others({OURS}) == 0.7


def test_what_can_not_be_told_is_not_told(
    cards: Cards, driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.broken = True
    assert cards.others(()) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Cards(tmp_path).others(()) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    assert cards.others(()) is None
    assert Cards(tmp_path / "without").others(()) == 0.0


def test_a_look_averages_what_others_do_on_the_cards(
    cards: Cards, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, now = facts.Machine(), time.monotonic()
    machine._cards = cards
    monkeypatch.setattr(facts.time, "monotonic", lambda: now)
    assert machine.look(Policy()).gpu_load is None  # nobody asks
    assert machine.look(Policy(gpu_load=0.1)).gpu_load == 0.0
    driver.samples, now = [(THEIRS, 1, 100)], now + 2
    first = machine.look(Policy(gpu_load=0.1)).gpu_load
    assert first is not None
    assert 0.05 < first < 0.2
    driver.samples, now = [(THEIRS, 2, 100)], now + 60
    later = machine.look(Policy(gpu_load=0.1)).gpu_load
    assert later is not None
    assert later > 0.9
