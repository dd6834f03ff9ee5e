"""The registration of panels: what the kernel holds of them before anybody looks at one.

``load`` makes it, in a millisecond; ``unload`` ends it. The notebook's ``Panels`` are made when they are first asked
for. Their modules take a few hundred milliseconds to import. Where a person is at the front end, a thread imports it
ahead, once a cluster is joined and nothing runs: the first panel is then there at once, and no task waits for it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from p2p_ipython.client import views
from p2p_ipython.errors import UsageError
from p2p_ipython.loop import background
from p2p_ipython.notebook.output import kernel_of
from p2p_ipython.notebook.panel.comm import Targets

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.notebook.output import CellOutput
    from p2p_ipython.notebook.panel.panels import Panels

log = logging.getLogger(__name__)

QUIET = 1.0
"""Seconds between two looks at whether nothing runs."""


class Notebook(Protocol):
    """The part of the magics that the registration uses; ``Panels`` use more."""

    @property
    def computes(self) -> bool:
        """Whether a cell runs."""

    def follow_cluster(self, changed: Callable[[], None]) -> None:
        """Have ``changed`` called, by any thread, when the notebook has another cluster or none any more."""

    def output(self) -> CellOutput:
        """Return the output area of the cell that runs now."""


Opened = list["weakref.ref[Cluster]"]
"""Clusters that have been opened, the latest last."""


class Registration:
    """See the module. ``make`` makes the panels, of the kernel and its clusters; ``close`` when unloading."""

    def __init__(self, ip: InteractiveShell, notebook: Notebook, make: Callable[[Any, Opened], Panels]) -> None:
        self._kernel: Any = kernel_of(ip)
        self._opened: Opened = []
        self._notebook = notebook
        self._make = make
        self._panels: Panels | None = None
        self._making = threading.Lock()
        self._closed = False
        self._preparing = False
        views.opened.append(self._has_opened)
        views.views = self
        notebook.follow_cluster(self._another)
        self._targets = Targets(self._kernel, self._opened_by_browser) if self._kernel is not None else None

    @property
    def panels(self) -> Panels:
        """The notebook's panels, made on first use. Raises ``UsageError`` when the extension is unloaded."""
        with self._making:
            if self._closed:
                raise UsageError("the panel needs the extension", hint="Run first: %load_ext p2p_ipython")
            if self._panels is None:
                self._panels = self._make(self._kernel, self._opened)
            return self._panels

    def close(self) -> None:
        """Close the panels, and withdraw what lets front ends find this kernel. Idempotent."""
        with self._making:
            self._closed = True
        self._notebook.follow_cluster(lambda: None)
        if self._has_opened in views.opened:
            views.opened.remove(self._has_opened)
        if self._targets is not None:
            self._targets.close()
            self._targets = None
        if views.views is self:
            views.views = None
        if self._panels is not None:
            self._panels.close()

    # -- as client.views.Views --

    def panel(self, cluster: Cluster) -> object:
        """Return the view that ``Cluster.panel()`` gives."""
        return self.panels.panel(cluster)

    def mimebundle(self, cluster: Cluster) -> dict[str, Any] | None:
        """Return what a cell shows whose value is the cluster."""
        return self.panels.mimebundle(cluster)

    # -- what happens --

    def _opened_by_browser(self, comm: Any, message: Any) -> None:
        self.panels.opened_by_browser(comm, message)

    def _another(self) -> None:
        if self._panels is not None:
            self._panels.another()

    def _has_opened(self, cluster: Cluster) -> None:
        """Note a cluster that begins to connect, or has been joined."""
        if not any(ref() is cluster for ref in list(self._opened)):
            self._opened.append(weakref.ref(cluster, self._opened.remove))
        if cluster._core.joined and not self._preparing and self._notebook.output().interactive:
            self._preparing = True
            loop = background().loop
            loop.call_soon_threadsafe(loop.call_later, QUIET, self._prepare, weakref.ref(cluster))
        self._another()

    # -- what takes long --

    def _prepare(self, which: weakref.ref[Cluster]) -> None:
        """Have what a panel needs imported as soon as nothing runs. On the loop's thread."""
        cluster = which()
        if self._closed or cluster is None or cluster.closed:
            self._preparing = False
        elif self._notebook.computes or not cluster._core.idle:
            background().loop.call_later(QUIET, self._prepare, which)
        else:
            threading.Thread(target=_import, name="p2p-panel-import", daemon=True).start()


def _import() -> None:
    """Import what a panel needs. Heavy: hence here, and not on top."""
    try:
        from p2p_ipython.client import reception  # noqa: F401
        from p2p_ipython.notebook.panel import panels, widget  # noqa: F401
    except Exception:
        log.debug("there can be no live panel", exc_info=True)
