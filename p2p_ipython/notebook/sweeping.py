"""``%%p2p --each`` and ``--all``: many tasks of one cell, one line under it, and a list of futures."""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError as MagicUsage

from p2p_ipython.client.printing import printed
from p2p_ipython.notebook.card import line_html
from p2p_ipython.notebook.each import axis, grid, label
from p2p_ipython.notebook.group_line import add_group
from p2p_ipython.notebook.lines import Interrupted, say, unquoted
from p2p_ipython.notebook.output import CellOutput
from p2p_ipython.notebook.seed_advice import seed_advice, seeded_draws
from p2p_ipython.notebook.status_line import StatusLines
from p2p_ipython.protocol.plain import plain

if TYPE_CHECKING:
    from p2p_ipython.client.asking import Asked
    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.client.sweep import Sweep
    from p2p_ipython.client.task_options import TaskOptions
    from p2p_ipython.task.capture import Captured

_SHOWN_WITHIN = 2.0
"""Seconds that ``--wait`` gives the line under the cell to say how the tasks ended."""

_WORKERS_WITHIN = 10.0
"""Seconds that ``--all`` waits for the workers that this notebook has started itself."""


class Many:
    """The tasks that ``--each`` or ``--all`` asks for; ``settings`` is None for one on each worker."""

    def __init__(self, settings: list[dict[str, Any]] | None, *, waits: bool) -> None:
        self._settings = settings
        self._waits = waits

    @property
    def given(self) -> Mapping[str, Any]:
        """The names that the settings set, each with all its values: what these refer to travels, too."""
        settings = self._settings or []
        return {name: [setting[name] for setting in settings] for name in (settings[0] if settings else ())}

    def submit(
        self,
        cluster: Cluster,
        captured: Captured,
        options: TaskOptions,
        asked: Asked,
        *,
        called: str,
        cell: str,
        names: Sequence[str],
        files: Mapping[str, bytes],
        modules: bool,
        env: Iterable[str],
    ) -> Sweep:
        """Freeze and submit them."""
        from p2p_ipython.client.sweep import sweep_of, sweep_of_workers  # heavy

        more: dict[str, Any] = {"options": options, "asked": asked, "names": names, "files": files}
        more |= {"modules": modules, "env": tuple(env), "cell": cell}
        core = cluster._core
        core.check_places(options.on)
        if self._settings is not None:
            return sweep_of(core, captured, self._settings, label=called, word=label, **more)
        if core.local is not None:
            with suppress(TimeoutError):  # one that has died is none that is here
                cluster.wait_for_workers(core.workers, timeout=_WORKERS_WITHIN)
        return sweep_of_workers(core, captured, label=called, **more)

    def shown(self, sweep: Sweep, output: CellOutput, ip: Any, name: str | None, lines: StatusLines) -> Any:
        """Do what ``_shown`` does; an interrupt of a cell that waits cancels the tasks, whenever it comes."""
        try:
            return self._shown(sweep, output, ip, name, lines)
        except KeyboardInterrupt:
            if not self._waits:
                raise
            sweep.cancel()
            raise Interrupted("the tasks were cancelled") from None

    def _shown(self, sweep: Sweep, output: CellOutput, ip: Any, name: str | None, lines: StatusLines) -> Any:
        """Show how far they are under the cell, bind the list, and wait for the values if that is asked for."""
        ip.push({"_p2p": sweep}, interactive=False)
        if name is not None:
            ip.push({name: sweep})
        said = threading.Event()
        bar = None
        if output.has_status:
            words = f"{plain(sweep.label, 80)}: {sweep.group.standing.words}"
            output.show(words, html=line_html("waiting", words))  # now: it stands above what the cell prints
            said = add_group(lines, sweep.group, output, _errors_of(sweep), waits=self._waits)
            sweep.shown_by(said)
        elif self._waits:
            from p2p_ipython.client.bars import Bar  # heavy, for terminals

            bar = Bar(sweep.group)
        else:
            said.set()
            sweep.when_done(lambda: _print_end(sweep))
        if not self._waits:
            return None
        try:
            while not sweep.done():  # in steps: on Windows an endless wait can't be interrupted
                concurrent.futures.wait([sweep.over], timeout=0.5)
        except KeyboardInterrupt:
            sweep.cancel()  # before the line is waited for
            raise
        finally:
            if bar is not None:
                bar.close()
            else:
                said.wait(_SHOWN_WITHIN)
        return sweep.result()


def _errors_of(sweep: Sweep) -> Callable[[], Sequence[str]]:
    """Return what gives the errors of a sweep as long as somebody has it: a line keeps no values."""
    there = weakref.WeakMethod(sweep.errors)

    def errors() -> Sequence[str]:
        return look() if (look := there()) is not None else ()

    return errors


def _print_end(sweep: Sweep) -> None:
    lines = [f"{sweep.label}: {sweep.group.standing.words}", *(f"  {error}" for error in sweep.errors())]
    printed({"kind": "stream", "name": "stdout", "text": "\n".join([*lines, ""])})


def many_of(options: Any, namespace: dict[str, Any]) -> Many | None:
    """Read ``--each`` and ``--all``, and take the values; None for neither. Raises IPython's ``UsageError``."""
    if not options.each and not options.all:
        return None
    if options.each and options.all:
        raise MagicUsage("--each and --all don't go together: run the cell for each value, or on each worker")
    if options.lazy:
        raise MagicUsage("--lazy doesn't go with --each or --all: their tasks begin by and by, as workers are free")
    if options.bind:
        raise MagicUsage("--bind doesn't go with --each or --all: NAME[0]['score'] is what the first task has bound")
    if options.setup:
        raise MagicUsage("%%p2p --setup takes no other option but --globals: it is no task, and has no future")
    axes = [axis(unquoted(each), namespace) for each in options.each or ()]
    return Many(grid(axes) if axes else None, waits=bool(options.wait))


def advise_on_seeds(captured: Captured, ip: Any, *, seeded: bool) -> None:
    """Say that the seed of the notebook's generators stays here, if the cell draws from one and gets no seed."""
    if not seeded and (words := seed_advice(seeded_draws(captured, ip))):
        say(words)
