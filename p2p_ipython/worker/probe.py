"""What a sandbox's self-test runs inside: it tries to reach what sandboxes.py has set out around the wall.

It runs as a cell, from its source: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Any

SIGNALLED = "a task can send signals to other processes"


def reach(given: dict[str, Any]) -> list[str]:
    """Try to read, erase, write, call and end what ``given`` names; return what can be told from inside only."""
    reached = []
    for file in given["files"]:
        with contextlib.suppress(OSError):
            with open(file, "rb") as opened:
                opened.read()
            reached.append("a task can read files of the home folder")
        with contextlib.suppress(OSError):
            os.remove(file)
    for file in given["places"]:
        with contextlib.suppress(OSError), open(file, "wb"):
            pass
    interfaces = [b""]
    with contextlib.suppress(OSError, AttributeError):
        interfaces += [name.encode() for _, name in socket.if_nameindex() if name != "lo"]
    for family, address in given["listeners"]:
        for interface in interfaces if family == "AF_INET" else [b""]:
            with contextlib.suppress(OSError, AttributeError), socket.socket(getattr(socket, family)) as caller:
                caller.settimeout(2)
                if interface:  # which passes by routes that lead nowhere
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface)
                caller.connect(tuple(address) if isinstance(address, list) else address)
    for pid in given["processes"]:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environ:
            if given["secret"].encode() in environ.read():
                reached.append("a task can read the environment of other processes")
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
            reached.append(SIGNALLED)
    return reached
