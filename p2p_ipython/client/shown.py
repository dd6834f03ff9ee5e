"""When a task's output is shown: as it comes, in one piece at its end, or not at all.

In any case the future keeps it, within the limit of output: ``future.stdout``, ``future.outputs``, ``future.replay()``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from p2p_ipython.client.printing import printed

if TYPE_CHECKING:
    from p2p_ipython.client.future import Future, OutputMessage, OutputSink


def sink_of(way: str, sink: OutputSink, future: Future[Any]) -> OutputSink:
    """Return what takes the output of a task whose output ``sink`` shows."""
    if way == "live":
        return sink
    if way == "off":
        return Silent()
    at_end = AtEnd(sink, future)
    future._promise.when_done(at_end.over)
    return at_end


class Silent:
    """Shows nothing."""

    def __call__(self, _message: OutputMessage) -> None:
        """Do nothing: the future keeps it."""


class AtEnd(Silent):
    """Shows the output of a task that is over. It keeps none: the future has it."""

    def __init__(self, sink: OutputSink, future: Future[Any]) -> None:
        self._sink = sink
        self._outputs = future.outputs
        self._done = future.done
        self._shown = False
        self._lock = threading.Lock()

    def over(self, _future: object) -> None:
        """Show it, once. From any thread."""
        with self._lock:
            first, self._shown = not self._shown, True
        if first:
            for message in joined(list(self._outputs)):
                self._sink(message)

    def deliver(self) -> None:
        """Show it before the value, to the thread that has waited for the task."""
        if self._done():
            self.over(None)
            printed.drain()
            deliver = getattr(self._sink, "deliver", None)
            if deliver is not None:
                deliver()


def joined(messages: Iterable[OutputMessage]) -> Iterator[OutputMessage]:
    """Yield messages with the text of a stream in one piece, up to where another message comes."""
    texts: list[str] = []
    name = ""
    for message in messages:
        if texts and message.get("name") != name:
            yield {"kind": "stream", "name": name, "text": "".join(texts)}
            texts = []
        if message["kind"] == "stream":
            name = message["name"]
            texts.append(message["text"])
        else:
            yield message
    if texts:
        yield {"kind": "stream", "name": name, "text": "".join(texts)}
