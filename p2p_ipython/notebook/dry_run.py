"""The dry run of a cell: ``%%p2p --dry-run`` shows what would travel, and sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from IPython.display import publish_display_data

from p2p_ipython.notebook.lines import say
from p2p_ipython.notebook.output import table
from p2p_ipython.protocol.plain import count

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.task.capture import Captured, Row
    from p2p_ipython.task.modules import Modules


def show_names(captured: Captured, *modules: Modules | None, env: Iterable[str] = ()) -> None:
    """Show under the cell what of a cell's names would travel, which ``modules`` of the notebook's, and which entries.

    Of entries of the environment (``env``) no value is shown.
    """
    from p2p_ipython.task.capture import Row, listing  # heavy, like all that only tasks need

    rows = listing(captured)
    for some in modules:
        for entry in some.entries if some is not None else ():
            rows.append(Row(entry.name, f"module: {entry.file}", entry.size, "imports"))
    rows += (Row(name, "environment entry", 0, "--env, or set here") for name in env)
    if not rows:
        say("The cell uses no names of this notebook: only its source would travel.")
        return
    head = ("name", "type", "size", "used by")
    publish_display_data(table(head, [_cells(row) for row in rows], caption([row.size for row in rows])))


def dry_environment(cluster: Cluster | None, asked: Iterable[str]) -> list[str]:
    """Return the names of environment entries that would travel to ``cluster``. Raises ``CaptureError``."""
    from p2p_ipython.task.environment import Environment, named

    surroundings = cluster._core.surroundings if cluster is not None else None
    parts = surroundings.parts(env=asked) if surroundings is not None else (named(asked),)
    return [name for part in parts if isinstance(part, Environment) for name, _ in part.entries]


def caption(sizes: Sequence[int | None]) -> str:
    """Return the caption of the table. ``sizes``: of each name, in bytes; None for what can't travel."""
    sent = [size for size in sizes if size is not None]
    stuck = len(sizes) - len(sent)
    words = f"{count(len(sent), 'name')} would travel, about {_bytes(sum(sent))}." if sent else ""
    if stuck:
        words += f" {count(stuck, 'name')} can't be sent, so the cell would be refused."
    return f"{words} Nothing was sent.".strip()


def _cells(row: Row) -> tuple[str, ...]:
    return row.name, row.type, _bytes(row.size) if row.size is not None else f"can't travel: {row.trouble}", row.used_by


def _bytes(size: int) -> str:
    if size < 1000:
        return count(size, "byte")
    if size < 1_000_000:
        return f"{size / 1000:.1f} kB"
    return f"{size / 1_000_000:.1f} MB"
