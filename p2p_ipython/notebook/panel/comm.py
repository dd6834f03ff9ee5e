"""Where a sidebar finds the kernel: the comm that says that the extension is loaded, and the target for panels.

A front end that asks a kernel which comms it has sees ``HERE`` where the extension is loaded; nothing is ever sent on
it. A front end that is there already is told by its opening, and by its closing when the extension is unloaded.

One that doesn't know ``HERE`` answers the opening by closing it, as Jupyter's protocol has it. That says nothing of
those that come later: what is closed there stays open here.
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
        import comm

        self._manager = kernel.comm_manager
        self._opened = opened
        self._manager.register_target(PANEL, opened)
        self._manager.register_target(HERE, _ignored)
        here: Any = answering_nobody(comm.create_comm, target_name=HERE)
        take_messages(here, lambda _message: None)
        here.handle_close = self._stay
        self._here = here

    def close(self) -> None:
        """Be found no more."""
        for name, target in ((PANEL, self._opened), (HERE, _ignored)):
            if self._manager.targets.get(name) == target:
                self._manager.unregister_target(name, target)
        answering_nobody(self._here.close)

    def _stay(self, _message: Any) -> None:
        self._here._closed = False
        self._manager.register_comm(self._here)


def _ignored(comm: Any, _message: Any) -> None:
    """Somebody in the browser opens what only kernels open."""
    comm.close()
