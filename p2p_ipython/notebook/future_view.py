"""What a cell shows whose value is a future: its state, worker, time and error, as the line under its own cell does.

Of a task that isn't over the cell gets such a line, too, which becomes a card with a button to cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2p_ipython.notebook.card import line_html
from p2p_ipython.notebook.status_line import StatusLines, face, text

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.client.future import Future
    from p2p_ipython.client.journal import Entry
    from p2p_ipython.notebook.output import CellOutput


class FutureViews:
    """See the module. ``output`` returns that of the cell that runs; ``cluster`` is the notebook's."""

    def __init__(
        self,
        output: Callable[[], CellOutput],
        lines: StatusLines,
        cluster: Callable[[], Cluster | None],
        stable: Callable[[], bool],
    ) -> None:
        self._output = output
        self._lines = lines
        self._cluster = cluster
        self._stable = stable

    def __call__(self, future: Future[Any]) -> dict[str, Any] | None:
        """Return the future's forms for a front end; None for its text alone."""
        entry = self._entry(future)
        if future.done():
            submitted, ended = (entry.submitted, entry.ended) if entry is not None else (0.0, future._took[0] or 0.0)
            seen = face(future, entry, submitted, ended)
            seconds = max(0.0, ended - submitted)
            line = text(seen.label, seen.words, seconds, over=True, error=seen.error, stable=self._stable())
            return {"text/plain": repr(future), "text/html": line_html(seen.state, line)}
        output = self._output()
        if output.interactive and output.has_status:
            seen = face(future, entry, 0.0, 0.0)
            line = text(seen.label, seen.words, 0.0, over=False)
            output.show(line, html=line_html(seen.state, line))
            submitted = entry.submitted if entry is not None else 0.0
            self._lines.add(future, output, lambda: self._entry(future), submitted=submitted)
        return None

    def _entry(self, future: Future[Any]) -> Entry | None:
        cluster = self._cluster()
        return cluster._core.record.entries.get(future.task_id) if cluster is not None else None
