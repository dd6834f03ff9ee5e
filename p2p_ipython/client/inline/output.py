"""Notes what a task prints and displays in this process, and shows it at the same time where it is shown anyway.

Streams are replaced for as long as a task runs: what is written goes on to the stream that was there before, so
breakpoints can ask. A task in a task is noted for both.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

Message = dict[str, Any]
"""As ``client.future.OutputMessage``."""

_EACH = 200
"""Bytes that a message takes besides its text."""


class Recorder:
    """Keeps the messages of a task, of ``limit`` bytes about, in ``messages``. ``said`` gets the text of streams.

    ``silent``: nothing is shown meanwhile.
    """

    def __init__(self, messages: list[Message], limit: int, said: Callable[[str], object], silent: bool) -> None:
        self._messages = messages
        self._room = limit
        self._said = said
        self._above = _recorder.get()
        self.silent: bool = silent or (self._above is not None and self._above.silent)

    def take(self, message: Message, size: int) -> None:
        """Keep a message, here and for the task that runs this one."""
        if self._above is not None:
            self._above.take(dict(message), size)
        self._room -= size + _EACH
        if self._room < 0:
            return
        text = message.get("text")
        last = self._messages[-1] if self._messages else {}
        if text is not None:
            self._said(text)
        if text is not None and last.get("name") == message["name"] and len(last["text"]) < io.DEFAULT_BUFFER_SIZE:
            last["text"] += text
        else:
            self._messages.append(message)


_recorder: ContextVar[Recorder | None] = ContextVar("p2p_recorder", default=None)
_running: list[Recorder] = []
"""Those of the tasks that run: threads that a task starts have no context of it."""


class _Tee:
    """A stream that notes what is written to it."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> Any:
        recorder = _recorder.get() or (_running[-1] if _running else None)
        written = len(text) if recorder is not None and recorder.silent else self._stream.write(text)
        if recorder is not None and text:
            recorder.take({"kind": "stream", "name": self._name, "text": str(text)}, len(text))
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def noted(messages: list[Message], limit: int, said: Callable[[str], object], *, silent: bool) -> Iterator[None]:
    """Note the output of the task that runs in the block, as ``Recorder`` does."""
    recorder = Recorder(messages, limit, said, silent)
    token = _recorder.set(recorder)
    _running.append(recorder)
    try:
        with ExitStack() as undo:
            for name in ("stdout", "stderr"):
                if not isinstance(getattr(sys, name), _Tee):
                    undo.enter_context(_replaced(name))
            undo.enter_context(_displays())
            yield
    finally:
        _running.remove(recorder)
        _recorder.reset(token)


@contextmanager
def _replaced(name: str) -> Iterator[None]:
    before = getattr(sys, name)
    tee = _Tee(before, name)
    setattr(sys, name, tee)
    try:
        yield
    finally:
        if getattr(sys, name) is tee:
            setattr(sys, name, before)


@contextmanager
def _displays() -> Iterator[None]:
    """Note what the shell's publisher publishes meanwhile, if there is a shell."""
    module = sys.modules.get("IPython.core.interactiveshell")
    shell = module.InteractiveShell._instance if module is not None else None
    publisher: Any = getattr(shell, "display_pub", None)
    if publisher is None or hasattr(vars(publisher).get("publish"), "_p2p"):
        yield
        return
    publish, clear = publisher.publish, publisher.clear_output

    def take(message: Message, size: int) -> bool:
        """Note a message; return whether it is shown."""
        recorder = _recorder.get() or (_running[-1] if _running else None)
        if recorder is not None:
            recorder.take(message, size)
        return recorder is None or not recorder.silent

    def noting(data: Any, metadata: Any = None, *args: Any, **given: Any) -> Any:
        kind = "update_display_data" if given.get("update") else "display_data"
        content = {"data": data, "metadata": metadata or {}, "transient": dict(given.get("transient") or {})}
        size = sum(len(str(each)) for each in data.values())
        return publish(data, metadata, *args, **given) if take({"kind": kind, "content": content}, size) else None

    def clearing(wait: bool = False) -> Any:
        return clear(wait) if take({"kind": "clear_output", "content": {"wait": bool(wait)}}, 0) else None

    noting._p2p = True  # type: ignore[attr-defined]
    publisher.publish, publisher.clear_output = noting, clearing
    try:
        yield
    finally:
        for name in ("publish", "clear_output"):
            vars(publisher).pop(name, None)
