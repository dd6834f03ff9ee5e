"""The comm by which a sidebar finds the kernel, and the target at which it opens a panel.

The kernel keeps a comm ``HERE`` open while the extension is loaded, and never sends anything on it. A front end that
asks the kernel for its comms sees it. A front end that is connected already notices its opening, and its closing when
the extension is unloaded.

A front end that doesn't know ``HERE`` closes the comm at once, as Jupyter's protocol demands. That says nothing about
front ends that connect later, so the kernel keeps its end open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2p_ipython.notebook.comms import answering_nobody, take_messages

HERE = "p2p_ipython:here"
PANEL = "p2p_ipython:panel"


class Targets:
    """See the module. ``opened(comm, message)`` is called on a thread of the kernel's for each panel."""

    def __init__(self, kernel: Any, opened: Callable[[Any, Any], None]) -> None:
        import comm  # heavy, and only in kernels

        self._manager = kernel.comm_manager
        self._opened = opened
        self._manager.register_target(PANEL, opened)
        self._manager.register_target(HERE, _ignored)
        here: Any = answering_nobody(comm.create_comm, target_name=HERE)
        take_messages(here, lambda _message: None)
        here.handle_close = self._stay
        self._here = here

    def close(self) -> None:
        """Withdraw the comm and the targets."""
        for name, target in ((PANEL, self._opened), (HERE, _ignored)):
            if self._manager.targets.get(name) == target:
                self._manager.unregister_target(name, target)
        answering_nobody(self._here.close)

    def _stay(self, _message: Any) -> None:
        self._here._closed = False
        self._manager.register_comm(self._here)


def _ignored(comm: Any, _message: Any) -> None:
    """Close a comm that a browser has opened and only kernels may open."""
    comm.close()
