"""Where traces are written: one file, a line each, for this user's eyes.

``P2P_TRACE=FILE`` names it, for this process and those that it starts, but never for runners. The file is mode 0600,
has no other name, and is not reached through a link. It holds at most ``MOST`` bytes; then it says so once, and no more
is written. Several processes may append to one file, since a line is one ``write``. A disk that fails ends the trace,
and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from typing import Any

from p2p_ipython.errors import ConfigError

log = logging.getLogger(__name__)

VARIABLE = "P2P_TRACE"

MOST = 100 << 20
"""Bytes that a trace may have."""


class TraceFile:
    """An open trace. ``write`` may be called by any thread, and never raises."""

    def __init__(self, path: str) -> None:
        """Open or make the file. Raises ``ConfigError`` for one that is linked, not this user's, or can't be made."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"):  # the last: a FIFO must not hang us
            flags |= getattr(os, name, 0)
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise ConfigError(
                f"the trace {path} can't be written: {error.strerror}", hint=f"Give another file as {VARIABLE}."
            ) from None
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode) or (os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o077):
            os.close(self._fd)
            raise ConfigError(
                f"the trace {path} is no file, or others may read it", hint=f"Remove it, or give another as {VARIABLE}."
            )
        if found.st_nlink > 1:
            os.close(self._fd)
            raise ConfigError(
                f"the trace {path} is a hard link: its file has {found.st_nlink} names",
                hint=f"Remove this name (the others keep the file), or give another file as {VARIABLE}.",
            )
        self._lock = threading.Lock()
        self._ended = False

    def write(self, line: dict[str, Any]) -> None:
        """Append a line, with the time; nothing happens once the trace has ended."""
        if self._ended:
            return
        data = _encoded(line)
        with self._lock:
            try:
                if not self._ended and os.fstat(self._fd).st_size + len(data) > MOST:
                    self._ended = True
                    data = _encoded({"end": f"the trace has {MOST} bytes"})
                if os.write(self._fd, data) < len(data):
                    raise OSError("the disk is full")
            except OSError as error:
                self._ended = True
                log.warning("the trace ends here: %s", error)


def _encoded(line: dict[str, Any]) -> bytes:
    return json.dumps({"at": round(time.time(), 6), **line}, separators=(",", ":")).encode() + b"\n"


_open: dict[str, TraceFile] = {}


def trace_file() -> TraceFile | None:
    """Return this process's trace, if there is to be one. Raises ``ConfigError`` for one that can't be written."""
    path = os.environ.get(VARIABLE, "")
    if not path:
        return None
    if path not in _open:
        _open[path] = TraceFile(path)
    return _open[path]
