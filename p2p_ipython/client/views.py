"""Who shows clusters to people, and who is told of them. Imports nothing, so that it is there before any cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster


class Views(Protocol):
    """What shows a cluster in a notebook."""

    def panel(self, cluster: Cluster) -> object:
        """Return a live view, for a cell to display."""

    def mimebundle(self, cluster: Cluster) -> dict[str, Any] | None:
        """Return what a cell shows whose value is the cluster; None for its status as it is now."""


views: Views | None = None
"""Set by the notebook's extension when it is loaded."""

opened: list[Callable[[Cluster], None]] = []
"""Called with each cluster when it begins to connect, and again when it has been joined, by the thread that does it."""
