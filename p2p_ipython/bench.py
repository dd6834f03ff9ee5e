"""Measures a cluster: ``p2p bench``.

The figures, so that they can be compared with another system's:

* ``first_result_s``: from the call of ``connect`` to the result of a first task that does nothing. On a
  personal cluster everything is started anew for it, in each repeat.
* ``roundtrip_ms``, ``roundtrip_p99_ms``: ``submit(int).result()``, one after the other.
* ``tasks_per_s``: as many such tasks in flight together, from the first ``submit`` to the last result.
* ``in_MB_per_s``: 100 MB of fresh random bytes as a task's argument, from ``submit`` to the result, which is
  their number. Copying and hashing them here is part of it.
* ``out_MB_per_s``: a task that makes an array of 100 MB of zeros and returns it. Nothing on the way compresses.
* ``again_ms``: the task of ``in_MB_per_s`` once more, with the same array, when it ran on a worker that has
  had it.

MB are 10⁶ bytes. Tasks that do nothing and transfers are warmed up before they are timed. The whole is
repeated; a figure is the median of all its samples, ``roundtrip_p99_ms`` their 99th percentile.
"""

from __future__ import annotations

# Functions import what is heavy or optional; importing connect is a part of what is measured.
import platform
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from p2p_ipython.errors import P2PError

if TYPE_CHECKING:
    from rich.table import Table

    from p2p_ipython.client.cluster import Cluster

MB = 1_000_000


@dataclass(frozen=True)
class Effort:
    """How much each repeat does. The default is what figures are published with; tests do less.

    ``roundtrips`` and ``tasks`` are tasks that do nothing, ``transfers`` how often ``size`` bytes go each way;
    ``deadline`` is for any one step, seconds.
    """

    warm_up: int = 200
    roundtrips: int = 500
    tasks: int = 5000
    transfers: int = 3
    size: int = 100 * MB
    deadline: float = 120.0


@dataclass(frozen=True)
class Figures:
    """The figures of one measurement. Units are in the names; memory is None where it was not asked for."""

    first_result_s: float
    roundtrip_ms: float
    roundtrip_p99_ms: float
    tasks_per_s: float
    in_MB_per_s: float
    out_MB_per_s: float
    again_ms: float
    repeats: int
    workers: int
    python: str
    client_adds_MB: float | None = None
    idle_worker_MB: float | None = None

    def as_json(self) -> dict[str, float | int | str]:
        """Return the figures by name, rounded to what such a measurement can tell, without those that are None."""
        return {name: _rounded(value) for name, value in asdict(self).items() if value is not None}


def measure(
    target: str | None = None,
    *,
    cluster: str | None = None,
    workers: int | None = None,
    repeats: int = 3,
    memory: bool = False,
    identity: Path | None = None,
    accept_host_key: str | None = None,
    ssh_options: Sequence[str] = (),
    mailbox: str | None = None,
    relay: str | None = None,
    progress: Callable[[str], None] = lambda _text: None,
    effort: Effort | None = None,
) -> Figures:
    """Measure a cluster, by default a personal one that is started here; blocks, for tens of seconds.

    ``target`` and ``cluster`` name another one instead, as for ``connect``; it needs a worker. ``workers`` is for a
    personal one.
    ``memory`` (of this process, and of the personal cluster's workers) is read in the first repeat, before
    large data. Raises a ``P2PError`` when there is no cluster, or no worker answers in time.
    """
    effort = effort or Effort()
    samples = _Samples()
    client_adds = idle_worker = None
    present = 0
    for repeat in range(repeats):
        say = _numbered(progress, repeat, repeats)
        say("starting" if target is None else "connecting")
        before = _own_rss() if memory and repeat == 0 else 0.0
        began = time.perf_counter()
        from p2p_ipython.client.connect import connect

        given: dict[str, Any] = {}
        if target:
            given = {"identity": identity, "accept_host_key": accept_host_key, "ssh_options": ssh_options}
            given |= {"mailbox": mailbox, "relay": relay}
        with connect(target, cluster=cluster, workers=workers, **given) as running:
            _result(running.submit(int), effort)
            samples.first_result.append(time.perf_counter() - began)
            if memory and repeat == 0:
                client_adds = _own_rss() - before
                idle_worker = _worker_rss()
            _measure_tasks(running, effort, samples, say)
            _measure_transfers(running, effort, samples, say, arrays=target is None)
            present = len(running.status().members)
    return Figures(
        first_result_s=median(samples.first_result),
        roundtrip_ms=median(samples.roundtrip) * 1e3,
        roundtrip_p99_ms=_percentile_99(samples.roundtrip) * 1e3,
        tasks_per_s=median(samples.rate),
        in_MB_per_s=effort.size / MB / median(samples.inward),
        out_MB_per_s=effort.size / MB / median(samples.outward),
        again_ms=median(samples.again) * 1e3,
        repeats=repeats,
        workers=present,
        python=platform.python_version(),
        client_adds_MB=client_adds,
        idle_worker_MB=idle_worker,
    )


_ROWS = (
    ("first_result_s", "start to first result", "s"),
    ("roundtrip_ms", "round trip of a task that does nothing", "ms"),
    ("roundtrip_p99_ms", "… of the slowest in a hundred", "ms"),
    ("tasks_per_s", "such tasks, in flight together", "per s"),
    ("in_MB_per_s", "100 MB in", "MB/s"),
    ("out_MB_per_s", "100 MB out", "MB/s"),
    ("again_ms", "the same 100 MB in again", "ms"),
    ("client_adds_MB", "memory that the client adds", "MB"),
    ("idle_worker_MB", "memory of an idle worker", "MB"),
)


def table(figures: Figures) -> Table:
    """Return the figures as people read them."""
    from rich.table import Table

    values = figures.as_json()
    times = "once" if figures.repeats == 1 else f"{figures.repeats} times"
    workers = "1 worker" if figures.workers == 1 else f"{figures.workers} workers"
    made = Table(caption=f"{workers}, Python {figures.python}; medians, measured {times}")
    made.add_column("")
    made.add_column("measured", justify="right")
    made.add_column("unit")
    for name, label, unit in _ROWS:
        if name in values:
            made.add_row(label, f"{values[name]:,}", unit)
    return made


# -- one repeat --------------------------------------------------------------------------------------------------------


@dataclass
class _Samples:
    """All samples of all repeats: seconds, and tasks a second in ``rate``."""

    first_result: list[float] = field(default_factory=list)
    roundtrip: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    inward: list[float] = field(default_factory=list)
    outward: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)


def _measure_tasks(cluster: Cluster, effort: Effort, samples: _Samples, say: Callable[[str], None]) -> None:
    say("warming up")
    # Together, then in turn: every worker has then started its runner, and every path has been taken once.
    for future in [cluster.submit(int) for _ in range(effort.warm_up)]:
        _result(future, effort)
    for _ in range(effort.warm_up):
        _result(cluster.submit(int), effort)
    say("round trips")
    for _ in range(effort.roundtrips):
        began = time.perf_counter()
        _result(cluster.submit(int), effort)
        samples.roundtrip.append(time.perf_counter() - began)
    say("tasks in flight together")
    began = time.perf_counter()
    futures = [cluster.submit(int) for _ in range(effort.tasks)]
    if wait(futures, effort.deadline).not_done:
        raise _too_slow(f"{effort.tasks} tasks", effort)
    for future in futures:
        future.result()
    samples.rate.append(effort.tasks / (time.perf_counter() - began))


def _measure_transfers(
    cluster: Cluster, effort: Effort, samples: _Samples, say: Callable[[str], None], *, arrays: bool
) -> None:
    make, zeros = _kinds(arrays=arrays)
    for transfer in range(effort.transfers + 1):
        warm_up = transfer == 0
        say("data in")
        data = make(effort.size)
        had_it = set()
        began = time.perf_counter()
        future = cluster.submit(len, data)
        _result(future, effort)
        inward = time.perf_counter() - began
        had_it.add(future.worker)

        say("the same data again")
        # A task goes to whichever worker is free; sooner or later that is one which has the data.
        while True:
            began = time.perf_counter()
            future = cluster.submit(len, data)
            _result(future, effort)
            again = time.perf_counter() - began
            if future.worker in had_it:
                break
            had_it.add(future.worker)

        say("data out")
        began = time.perf_counter()
        returned = _result(cluster.submit(zeros, effort.size), effort)
        outward = time.perf_counter() - began
        if len(returned) != effort.size:
            raise P2PError("the data that came back is not what was sent for")
        del data, returned
        if not warm_up:
            samples.inward.append(inward)
            samples.outward.append(outward)
            samples.again.append(again)


def _kinds(*, arrays: bool) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
    """Return the maker of random data here and of zeros there: NumPy's if both sides are known to have it."""
    if arrays:
        try:
            import numpy as np
        except ImportError:
            pass
        else:
            generator = np.random.default_rng()
            return (lambda size: generator.integers(0, 256, size, dtype=np.uint8)), _numpy_zeros()
    return (lambda size: bytearray(random.randbytes(size))), bytearray  # noqa: S311 - not for secrets


def _numpy_zeros() -> Callable[[int], Any]:
    import numpy as np

    return partial(np.zeros, dtype=np.uint8)


def _result(future: Any, effort: Effort) -> Any:
    try:
        return future.result(effort.deadline)
    except TimeoutError:
        raise _too_slow("a task", effort) from None


def _too_slow(what: str, effort: Effort) -> P2PError:
    return P2PError(
        f"{what} took more than {effort.deadline:.0f} s",
        hint="Is a worker there? Start one: p2p worker --board … --cluster …",
    )


# -- numbers -----------------------------------------------------------------------------------------------------------


def _percentile_99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]


def _rounded(value: float | int | str) -> float | int | str:
    if not isinstance(value, float):
        return value
    digits = 3 if value < 10 else 1 if value < 1000 else 0
    return round(value, digits) if digits else round(value)


def _numbered(progress: Callable[[str], None], repeat: int, repeats: int) -> Callable[[str], None]:
    return lambda text: progress(f"{text} ({repeat + 1} of {repeats})")


def _own_rss() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / MB


def _worker_rss() -> float | None:
    """Resident memory of the largest worker agent that this process has started, MB; None where there is none."""
    import psutil

    sizes = []
    for child in psutil.Process().children(recursive=True):
        try:
            if is_worker_agent(child.cmdline()):
                sizes.append(child.memory_info().rss / MB)
        except psutil.Error:
            continue  # it has just ended
    return max(sizes, default=None)


def is_worker_agent(command: list[str]) -> bool:
    """Whether a process's command line is that of a worker's agent: a personal cluster's, or ``p2p worker``."""
    words = [Path(word).name for word in command]
    return "p2p_ipython.worker" in words or ("p2p" in words and "worker" in words)
