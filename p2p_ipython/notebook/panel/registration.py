"""What there is of panels before anybody looks at one: where to ask for it. The desk behind it is made then.

Made when the extension is loaded, which costs a millisecond. What a panel needs takes a few hundred to import. That is
done ahead, once a cluster is joined and nothing is going on, where a person is at the front end: so the first panel is
there at once, and no task waits for it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from p2p_ipython.client import views
from p2p_ipython.errors import UsageError
from p2p_ipython.loop import background
from p2p_ipython.notebook.panel.comm import Targets

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.notebook.output import CellOutput
    from p2p_ipython.notebook.panel.panels import Desk

log = logging.getLogger(__name__)

QUIET = 1.0
"""Seconds between two looks at whether nothing is going on."""

NEEDED = ("client.hosting", "client.lending", "notebook.panel.desk", "notebook.panel.widget")
"""Modules that a panel needs."""


class Notebook(Protocol):
    """The magics; the desk wants more of them."""

    on_cluster: Callable[[], None]
    """Called by any thread when ``cluster`` is another one."""

    @property
    def computes(self) -> bool:
        """Whether a cell runs."""

    def output(self) -> CellOutput:
        """The output area of the cell that runs now."""


class Door:
    """See the module. ``desk`` makes the desk; ``close`` when the extension is unloaded."""

    def __init__(self, ip: InteractiveShell, notebook: Notebook, desk: Callable[[Door], Desk]) -> None:
        self.kernel: Any = getattr(ip, "kernel", None)
        self.opened: list[weakref.ref[Cluster]] = []
        """Clusters that have been opened, the latest last."""
        self._notebook = notebook
        self._make = desk
        self._desk: Desk | None = None
        self._making = threading.Lock()
        self._closed = False
        self._preparing = False
        views.opened.append(self._has_opened)
        views.views = self
        notebook.on_cluster = self._another
        self._targets = Targets(self.kernel, self._opened_by_browser) if self.kernel is not None else None

    @property
    def desk(self) -> Desk:
        """The desk, made on first use. Raises ``UsageError`` when the extension is unloaded."""
        with self._making:
            if self._closed:
                raise UsageError("the panel needs the extension", hint="Run first: %load_ext p2p_ipython")
            if self._desk is None:
                self._desk = self._make(self)
            return self._desk

    def close(self) -> None:
        """Close the panels, and be found no more. Idempotent."""
        with self._making:
            self._closed = True
        self._notebook.on_cluster = lambda: None
        if self._has_opened in views.opened:
            views.opened.remove(self._has_opened)
        if self._targets is not None:
            self._targets.close()
            self._targets = None
        if views.views is self:
            views.views = None
        if self._desk is not None:
            self._desk.close()

    # -- as client.views.Views --

    def panel(self, cluster: Cluster) -> object:
        """For ``Cluster.panel()``."""
        return self.desk.panel(cluster)

    def mimebundle(self, cluster: Cluster) -> dict[str, Any] | None:
        """For the value of a cell that is a cluster."""
        return self.desk.mimebundle(cluster)

    # -- what happens --

    def _opened_by_browser(self, comm: Any, message: Any) -> None:
        self.desk.opened_by_browser(comm, message)

    def _another(self) -> None:
        if self._desk is not None:
            self._desk.another()

    def _has_opened(self, cluster: Cluster) -> None:
        """A cluster begins to connect, or has been joined."""
        if not any(ref() is cluster for ref in list(self.opened)):
            self.opened.append(weakref.ref(cluster, self.opened.remove))
        if cluster._core.joined and not self._preparing and self._notebook.output().interactive:
            self._preparing = True
            loop = background().loop
            loop.call_soon_threadsafe(loop.call_later, QUIET, self._prepare, weakref.ref(cluster))
        self._another()

    # -- what takes long --

    def _prepare(self, which: weakref.ref[Cluster]) -> None:
        """Import what a panel needs, as soon as nothing goes on. On the loop's thread."""
        cluster = which()
        if self._closed or cluster is None or cluster.closed:
            self._preparing = False
        elif self._notebook.computes or not cluster._core.idle:
            background().loop.call_later(QUIET, self._prepare, which)
        else:
            threading.Thread(target=_load, name="p2p-panel-import", daemon=True).start()


def _load() -> None:
    try:
        for name in NEEDED:
            import_module(f"p2p_ipython.{name}")
    except Exception:
        log.debug("there can be no live panel", exc_info=True)
