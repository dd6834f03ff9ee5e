"""One panel's comm: carries messages to it from the loop's thread, and checked messages from it to that thread.

A channel works with raw comms and with those of widgets, of ipykernel 6.29 and later. Messages go straight to the
kernel's session, whole and in JSON already. They have no parent: see notebook/comms.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from p2p_ipython.loop import background
from p2p_ipython.notebook.comms import answering_nobody, take_messages
from p2p_ipython.notebook.panel.asked import Code, Do, Hello, read

log = logging.getLogger(__name__)

Received = Callable[["Channel", Hello | Do], None]


class Channel:
    """See the module. ``received`` and ``rested`` are called on the loop's thread, ``closed`` too.

    ``otherwise`` is for the comm of a widget, which has messages of its own: it gets all but the custom ones. ``code``
    is the message with a widget's second module.
    """

    def __init__(
        self,
        comm: Any,
        kernel: Any,
        *,
        received: Received,
        closed: Callable[[Channel], None],
        rested: Callable[[], None] = lambda: None,
        otherwise: Callable[[Any], None] | None = None,
        code: bytes = b"",
    ) -> None:
        self._comm = comm
        self._kernel = kernel
        self._received = received
        self._closed = closed
        self._otherwise = otherwise
        self._code = code
        self._open = True
        self.rested = rested
        head = f'{{"comm_id":"{comm.comm_id}","data":'
        self._before, self._after = (head + '{"method":"custom","content":', "}}") if otherwise else (head, "}")
        self._handle_close = comm.handle_close
        take_messages(comm, self._on_msg)
        comm.handle_close = self._on_close

    @property
    def is_open(self) -> bool:
        """Whether there is a panel at the other end, as far as is known."""
        return self._open

    def send(self, message: bytes) -> None:
        """Send the panel a message, which is JSON already. Does nothing once the channel is closed."""
        if not self._open:
            return
        try:
            self._kernel.session.send(
                self._kernel.iopub_socket,
                "comm_msg",
                self._before.encode() + message + self._after.encode(),
                metadata={},
                parent={},
                ident=self._comm.topic,
            )
        except Exception:
            log.exception("could not send to a panel")

    def close(self) -> None:
        """Close the comm, from any thread."""
        if self._open:
            self._open = False
            answering_nobody(self._comm.close)

    def forget(self) -> None:
        """Stop sending and receiving; the comm's owner closes it."""
        self._open = False

    # -- messages that arrive, on a thread of the kernel's --

    def _on_msg(self, message: Any) -> None:
        data = message["content"].get("data")
        if self._otherwise is not None:
            if not isinstance(data, dict) or data.get("method") != "custom":
                answering_nobody(self._otherwise, message)
                return
            data = data.get("content")
        asked = read(data)
        if asked is None:
            log.debug("a panel has sent an unreadable message")
        elif isinstance(asked, Code):
            if self._code:
                background().loop.call_soon_threadsafe(self.send, self._code)
        elif self._open:
            background().loop.call_soon_threadsafe(self._received, self, asked)

    def _on_close(self, message: Any) -> None:
        if self._open:
            self._open = False
            background().loop.call_soon_threadsafe(self._closed, self)
        self._handle_close(message)
