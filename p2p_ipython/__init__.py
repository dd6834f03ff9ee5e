"""Share spare Python compute among friends, from a notebook.

In a notebook::

    %load_ext p2p_ipython
    %p2p_connect

and then ``%%p2p tile`` on top of a cell and ``tile.result()`` or ``await tile`` in another. From Python::

    import p2p_ipython

    with p2p_ipython.connect() as cluster:
        future = cluster.submit(pow, 2, 10)
        print(future.result())

Public names are resolved on first use, so that importing this package costs milliseconds: SSH, Magic
Wormhole and cryptography load when a cluster is connected, not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.client.completing import as_completed
    from p2p_ipython.client.connect import connect
    from p2p_ipython.client.future import Future
    from p2p_ipython.client.gathering import gather
    from p2p_ipython.errors import P2PError, TaskError, WorkerLost
    from p2p_ipython.task.progress import progress

_HOMES = {
    "Cluster": "p2p_ipython.client.cluster",
    "as_completed": "p2p_ipython.client.completing",
    "connect": "p2p_ipython.client.connect",
    "gather": "p2p_ipython.client.gathering",
    "Future": "p2p_ipython.client.future",
    "progress": "p2p_ipython.task.progress",
    "P2PError": "p2p_ipython.errors",
    "TaskError": "p2p_ipython.errors",
    "WorkerLost": "p2p_ipython.errors",
}

__all__ = [
    "Cluster",
    "Future",
    "P2PError",
    "TaskError",
    "WorkerLost",
    "__version__",
    "as_completed",
    "connect",
    "gather",
    "load_ipython_extension",
    "progress",
    "unload_ipython_extension",
]


def __getattr__(name: str) -> Any:
    """Resolve a public name on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(ip: InteractiveShell) -> None:
    """``%load_ext p2p_ipython``: register the magics."""
    from p2p_ipython.notebook.magics import load  # heavy: it loads IPython, as the next one does

    load(ip)


def unload_ipython_extension(ip: InteractiveShell) -> None:
    """``%unload_ext p2p_ipython``: end this kernel's cluster and remove the magics' state."""
    from p2p_ipython.notebook.magics import unload

    unload(ip)
