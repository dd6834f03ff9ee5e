"""Comms that a front end can reach while a cell computes.

JupyterLab sends a comm's messages to a subshell of the kernel, a thread of its own, so that a click counts while the
main thread computes. But ipykernel (since 7.4) redirects a comm's incoming messages: to the shell whose message was
*answered* by the last one that the comm has sent. A message sent while a cell runs, or by a thread that a cell has
started, answers that cell; from then on all clicks wait for the main thread. For a widget that the kernel makes it is
so from the beginning: its opening answers a cell. Keeping to the shell that a click came by doesn't help: that subshell
is gone once the page is closed.

A message without a parent redirects nothing: each reply then goes to the shell that the front end has named in it. So
all that a comm or a widget sends here, when it is made and closed too, is sent by ``answering_nobody``. Front ends need
no parent in messages of comms. (Displays do need one: see output.py.)

``comm.on_msg`` is avoided: it has IPython fire ``post_execute`` with each message, which shows and closes the figures
that the user's running cell has just begun.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def answering_nobody(send: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``send`` so that what it sends by comms has no parent. Any thread; costs microseconds."""
    context = contextvars.copy_context()
    parent = _parent()
    if parent is not None:
        context.run(parent.set, {})
    return context.run(send, *args, **kwargs)


def take_messages(comm: Any, handle: Callable[[Mapping[str, Any]], None]) -> None:
    """Have ``handle`` called with each message of ``comm``'s, and nothing else happen; it must only hand it on.

    It is called on the kernel's main thread, or a subshell's. For a widget, pass its ``comm``: the widget itself then
    hears nothing any more, state from the browser included.
    """
    comm.handle_msg = handle


def _parent() -> contextvars.ContextVar[Any] | None:
    """Return where ipykernel keeps the message that is being answered; None without a kernel, or before ipykernel 7."""
    kernelbase = sys.modules.get("ipykernel.kernelbase")
    if kernelbase is None or not kernelbase.Kernel.initialized():
        return None
    parent = getattr(kernelbase.Kernel.instance(), "_shell_parent", None)
    return parent if isinstance(parent, contextvars.ContextVar) else None
