"""The notebook's views of clusters, and the functions that hear of new ones.

Imports nothing of this package, so that it is there before any cluster. A ``cluster`` here is a
``client.cluster.Cluster``: that module imports this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Views(Protocol):
    """A view: something that shows a cluster in a notebook."""

    def panel(self, cluster: Any) -> object:
        """Return a live view, for a cell to display."""

    def mimebundle(self, cluster: Any) -> dict[str, Any] | None:
        """Return what a cell shows whose value is the cluster; None for its status as it is now."""


views: Views | None = None
"""Set by the notebook's extension when it is loaded."""

future: Callable[[Any], dict[str, Any] | None] | None = None
"""Set by the notebook's extension: returns what a cell shows whose value is a future; None for its text."""

opened: list[Callable[[Any], None]] = []
"""Called with each cluster when it begins to connect, and again when it has been joined, by the thread that does it."""
