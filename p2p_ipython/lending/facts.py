"""The facts about this machine that a policy asks for: is somebody at it, is it on mains power, what keeps it busy.

Each look takes some milliseconds, and may start a program that asks the system: look from a thread. What can't be told
is None, and the policy then takes it for the worst.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from p2p_ipython.lending.cards import Cards
from p2p_ipython.lending.policy import MachineFacts, Policy

_PATIENCE = 3.0
"""Seconds that a program which is asked may take."""

_SMOOTH = 15.0
"""Seconds over which other programs' work is averaged."""


class Machine:
    """This machine, looked at again and again. Belongs to one thread at a time."""

    def __init__(self) -> None:
        self._interrupts = -1
        self._touched: float | None = None  # when interrupts of keyboard or mouse were seen last
        self._began = time.monotonic()
        self._spent: tuple[float, float, float] | None = None
        self._load: float | None = None
        self._cards = Cards()
        self._cards_load: tuple[float, float] | None = None  # when, and the average

    def look(self, policy: Policy) -> MachineFacts:
        """Return what the policy asks for; the rest is None."""
        return MachineFacts(
            idle=self._idle() if policy.idle else None,
            mains=on_mains() if policy.mains else None,
            load=self._others() if policy.load else None,
            gpu_load=self._others_cards() if policy.gpu_load else None,
        )

    # -- the keyboard --

    def _idle(self) -> float | None:
        now = time.time()
        if sys.platform == "darwin":
            return _idle_of_macos()
        ages = [idle_of_terminals(_terminals(), now)]
        with contextlib.suppress(OSError):
            ages.append(self._since_interrupt(Path("/proc/interrupts").read_text(encoding="utf-8", errors="replace")))
        seat = _idle_of_seat(now)
        if seat is not None:
            ages.append(seat)
        elif os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            return None  # a desktop is here, and nobody can say when it was used
        return max(0.0, min(ages))

    def _since_interrupt(self, text: str) -> float:
        """Return the seconds since a count of keyboard and mouse has changed; infinite before the first change."""
        count = interrupts(text)
        if count != self._interrupts:
            if self._interrupts >= 0:
                self._touched = time.monotonic()
            self._interrupts = count
        return math.inf if self._touched is None else time.monotonic() - self._touched

    # -- the processor --

    def _others(self) -> float | None:
        """Return the processors that others than this process, and what it has started, keep busy on average."""
        try:
            times = psutil.cpu_times()
            whole = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
            ours = sum(_spent_by(process) for process in _family())
        except (psutil.Error, OSError):
            return None
        now, before = time.monotonic(), self._spent
        self._spent = now, whole, ours
        if before is None or now - before[0] < 0.1:
            return self._load if before is not None else 0.0
        seconds = now - before[0]
        load = max(0.0, (whole - before[1]) - max(0.0, ours - before[2])) / seconds
        self._load = _smoothed(self._load, load, seconds)
        return self._load

    # -- the graphics cards --

    def _others_cards(self) -> float | None:
        """Return the cards that others than this process, and what it has started, keep busy on average."""
        load = self._cards.others({process.pid for process in _family()})
        if load is None:
            return None
        now, before = time.monotonic(), self._cards_load
        if before is not None:
            load = _smoothed(before[1], load, now - before[0])
        self._cards_load = now, load
        return load


def _smoothed(average: float | None, value: float, seconds: float) -> float:
    """Return the average of a value over ``_SMOOTH`` seconds, of which ``seconds`` have passed since the last one."""
    return value if average is None else average + (1.0 - math.exp(-seconds / _SMOOTH)) * (value - average)


def on_mains() -> bool | None:
    """Return whether this machine is on mains power; one without a battery is. None if it can't be told."""
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, psutil.Error):
        return None
    return True if battery is None else battery.power_plugged


def idle_of_terminals(paths: Iterable[str], now: float) -> float:
    """Return the seconds since somebody has typed at one of these terminals; infinite if nobody has."""
    ages = [math.inf]
    for path in paths:
        with contextlib.suppress(OSError):
            ages.append(now - os.stat(path).st_atime)
    return max(0.0, min(ages))


def interrupts(text: str) -> int:
    """Count the interrupts of keyboard and mouse in the text of /proc/interrupts."""
    count = 0
    for line in text.splitlines():
        if re.search(r"\b(?:i8042|keyboard|touchpad|hid)\b", line, re.IGNORECASE):
            _, _, numbers = line.partition(":")
            for word in numbers.split():
                if not word.isdigit():
                    break
                count += int(word)
    return count


def _terminals() -> list[str]:
    try:
        return [f"/dev/{user.terminal}" for user in psutil.users() if user.terminal and ":" not in user.terminal]
    except (psutil.Error, OSError):
        return []


def _idle_of_seat(now: float) -> float | None:
    """Return for how long the desktop on this machine has been idle, by systemd's word; None without one."""
    if shutil.which("loginctl") is None:
        return None
    said = _ask("loginctl", "show-seat", "seat0", "--property=IdleHint", "--property=IdleSinceHint",
                "--property=ActiveSession")  # fmt: skip
    fields = dict(line.partition("=")[::2] for line in said.splitlines())
    if "IdleHint" not in fields:
        return None
    if not fields.get("ActiveSession"):
        return math.inf  # nobody has logged in at the machine itself
    if fields["IdleHint"] != "yes":
        return 0.0
    since = fields.get("IdleSinceHint", "")
    return max(0.0, now - int(since) / 1e6) if since.isdigit() and since != "0" else 0.0


def _idle_of_macos() -> float | None:
    found = re.search(r'"HIDIdleTime"\s*=\s*(\d+)', _ask("ioreg", "-c", "IOHIDSystem", "-d", "4"))
    return int(found[1]) / 1e9 if found else None


def _ask(*command: str) -> str:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def _spent_by(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system + getattr(times, "children_user", 0) + getattr(times, "children_system", 0))
