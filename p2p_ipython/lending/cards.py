"""How busy others keep this machine's graphics cards: NVIDIA's, by the package nvidia-ml-py.

Its driver says which processes a card has worked for. Where it doesn't say, a card that any process of somebody else's
has open counts with all that it does. Tasks in containers are no children of ours, and count as others'.

Tested with a stand-in for the package; nobody has seen it on a real card yet.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any


class Cards:
    """This machine's cards. Belongs to one thread at a time. ``root`` is "/", but for tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._nvml: Any = None
        self._seen: dict[int, int] = {}  # when the driver took the last sample of a card, by its number

    def others(self, ours: Collection[int]) -> float | None:
        """Return how many cards others than these processes keep busy now; None if it can't be told."""
        if (self._root / "dev/kfd").exists():  # AMD's: its driver tells of no processes
            return None
        if not (self._root / "proc/driver/nvidia/gpus").is_dir():
            return 0.0
        try:
            if self._nvml is None:
                import pynvml  # type: ignore[import-not-found,unused-ignore]

                pynvml.nvmlInit()  # until this process ends: it may wake the cards
                self._nvml = pynvml
        except Exception:  # it isn't there, or another version than its driver
            return None
        nvml = self._nvml
        try:
            return sum(self._busy(nvml, number, ours) for number in range(nvml.nvmlDeviceGetCount()))
        except nvml.NVMLError:
            return None

    def _busy(self, nvml: Any, number: int, ours: Collection[int]) -> float:
        """Return the part of a card, 0 to 1, that others keep busy. Raises ``NVMLError``."""
        card = nvml.nvmlDeviceGetHandleByIndex(number)
        try:
            samples = list(nvml.nvmlDeviceGetProcessUtilization(card, self._seen.get(number, 0)))
        except nvml.NVMLError as error:
            if getattr(error, "value", None) == nvml.NVML_ERROR_NOT_FOUND:
                return 0.0  # nothing has run there since the last sample
            processes = [*nvml.nvmlDeviceGetComputeRunningProcesses(card)]
            processes += nvml.nvmlDeviceGetGraphicsRunningProcesses(card)
            if all(process.pid in ours for process in processes):
                return 0.0
            return min(100, int(nvml.nvmlDeviceGetUtilizationRates(card).gpu)) / 100
        if samples:
            self._seen[number] = max(sample.timeStamp for sample in samples)
        latest = {sample.pid: sample for sample in sorted(samples, key=lambda sample: sample.timeStamp)}
        return min(100, sum(int(sample.smUtil) for pid, sample in latest.items() if pid not in ours)) / 100
