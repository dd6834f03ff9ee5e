"""Prints the output of tasks, for programs and terminals, from a thread of its own.

Printing may block for as long as nobody reads (``python job.py | less``). Somebody who asks for a result should see
the task's output first: ``drain`` waits for it.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from p2p_ipython.client.aside import Aside

DRAIN = 5.0
"""Seconds that the end of a cluster waits for output that nobody reads."""


class Printer(Aside):
    """A sink for tasks' messages: streams as streams, of a display its text. One a process."""

    def __call__(self, message: dict[str, Any]) -> None:
        """Print ``message`` soon; returns at once."""
        self.call(partial(_print, message))


def _print(message: dict[str, Any]) -> None:
    try:
        if message["kind"] == "stream":
            stream = sys.stderr if message["name"] == "stderr" else sys.stdout
            stream.write(message["text"])
            stream.flush()
        elif message["kind"] == "display_data":
            data = message["content"].get("data")
            text = data.get("text/plain") if isinstance(data, dict) else None
            sys.stdout.write(f"{text}\n")
    except (OSError, ValueError):
        pass  # the reader has gone, or the stream is closed: there is nowhere to print to


printed = Printer("p2p-printer")
