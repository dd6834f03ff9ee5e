"""How a process of ours ends with the one that started it, however that one ends.

The starter keeps the other end of our standard input open, and seldom writes to it after the options. When the starter
ends, by SIGKILL too, the system closes that end and we read the end of the file. A fork of the starter may hold a copy
of that end, so we also look whether we have become somebody else's child. Each message of the starter is a line.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any

LOOK = 2.0
"""Seconds between two looks at our parent's process id."""

MAX_LINE = 65536
"""Bytes of a line that is still listened to."""


def hold(lost: Callable[[], None], *, fd: int = 0, told: Callable[[bytes], None] = lambda _line: None) -> None:
    """Call ``lost`` once, from a thread of its own, when the process that started us has ended.

    ``told`` gets each line that the starter writes until then, without its end, from that thread, too.
    """
    parent = os.getppid()

    def watch() -> None:
        unfinished = b""
        while os.getppid() == parent:
            if sys.platform != "win32":  # select knows sockets only there
                ready, _, _ = select.select([fd], [], [], LOOK)
                if not ready:
                    continue
            try:
                data = os.read(fd, 65536)
                if not data:
                    break
            except OSError:
                break
            *lines, unfinished = (unfinished + data).split(b"\n")
            unfinished = unfinished[:MAX_LINE]
            for line in lines:
                told(line)
        lost()

    threading.Thread(target=watch, name="p2p-lifeline", daemon=True).start()


def read_line(*, fd: int = 0, limit: int = 1 << 20) -> bytes:
    """Read a line from ``fd``, byte by byte so as to leave what follows it; b"" at the end of the file.

    Unbuffered on purpose: options are short, and they may hold a key, which no buffer should keep.
    """
    line = bytearray()
    while len(line) < limit:
        byte = os.read(fd, 1)
        if not byte or byte == b"\n":
            break
        line += byte
    return bytes(line)


def first_line() -> dict[str, Any] | None:
    """Read the starter's options, a line of JSON, and log to standard error as they say. None: the starter has gone."""
    options: dict[str, Any] | None = json.loads(read_line() or b"null")
    if options is not None:
        logging.basicConfig(
            level=options["log_level"], stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True
        )
    return options
