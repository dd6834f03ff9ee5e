"""Another program of the lender's: secrets in its environment and memory, and sockets that only friends should reach.

Started by ``arena.py`` as the user who lends. It hears what comes to its sockets, and answers questions, each a line.
Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import selectors
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any


def listeners(told: dict[str, Any]) -> dict[str, socket.socket]:
    """Return sockets that anybody on this machine, who may, can speak to."""
    made: dict[str, socket.socket] = {}

    def add(name: str, family: int, kind: int, address: Any) -> None:
        try:
            made[name] = one = socket.socket(family, kind)
            one.bind(address)
        except OSError:  # a machine without IPv6, say
            made.pop(name).close()
            return
        if isinstance(address, str) and not address.startswith("\0"):
            os.chmod(address, 0o600)
        if kind == socket.SOCK_STREAM:
            one.listen()

    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    add("tcp", socket.AF_INET, stream, ("127.0.0.1", 0))
    add("udp", socket.AF_INET, datagram, ("127.0.0.1", 0))
    add("tcp6", socket.AF_INET6, stream, ("::1", 0))
    add("udp6", socket.AF_INET6, datagram, ("::1", 0))
    if told["host"]:
        add("host-tcp", socket.AF_INET, stream, (told["host"], 0))
        add("host-udp", socket.AF_INET, datagram, (told["host"], 0))
    add("abstract", socket.AF_UNIX, stream, "\0" + told["abstract"])
    add("abstract-datagram", socket.AF_UNIX, datagram, "\0" + told["abstract"] + "-datagram")
    for name in ("agent", "home-agent"):
        add(name, socket.AF_UNIX, stream, told[name])
    add("pathname-datagram", socket.AF_UNIX, datagram, told["agent"] + "-datagram")
    return made


def share(data: bytes) -> int:
    """Return the number of a piece of System V memory with ``data``; it goes with this process."""
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    number = int(libc.shmget(0, 4096, 0o1600))
    ctypes.memmove(libc.shmat(number, None, 0), data, len(data))
    libc.shmctl(number, 0, None)
    return number


def address_of(one: socket.socket) -> Any:
    """Return an address as JSON can hold it."""
    where = one.getsockname()
    return where.decode() if isinstance(where, bytes) else where


def hear(one: socket.socket) -> str:
    """Return what somebody says, and answer."""
    one.settimeout(1)
    try:
        if one.type == socket.SOCK_DGRAM:
            return one.recv(100).decode("latin-1")
        talk, _ = one.accept()
        with talk:
            talk.settimeout(1)
            return talk.recv(100).decode("latin-1")
    except OSError as error:
        return type(error).__name__


def main() -> None:
    """Serve until the input ends."""
    told = json.loads(sys.stdin.readline())
    secret = bytearray(told["secret"].encode())
    buffer = ctypes.create_string_buffer(b"the bystander's own", 64)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
    file.write(told["file_secret"].encode())
    file.flush()
    segment = share(told["segment_secret"].encode())
    Path(told["home-agent"]).parent.mkdir(exist_ok=True)
    sockets = listeners(told)
    heard: list[str] = []
    limits = resource.getrlimit(resource.RLIMIT_CPU), os.getpriority(os.PRIO_PROCESS, 0)

    def say(**what: Any) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    say(
        pid=os.getpid(),
        address=ctypes.addressof(buffer),
        file=file.fileno(),
        segment=segment,
        sockets={name: address_of(one) for name, one in sockets.items()},
    )
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        for name, one in sockets.items():
            selector.register(one, selectors.EVENT_READ, name)
        while True:
            ready = selector.select()
            for key, _ in ready:
                if key.data is not None:
                    heard.append(f"{key.data}: {hear(sockets[key.data])}")
            if any(key.data is None for key, _ in ready):
                if not os.read(sys.stdin.fileno(), 1024):
                    break
                changed = limits != (resource.getrlimit(resource.RLIMIT_CPU), os.getpriority(os.PRIO_PROCESS, 0))
                say(heard=heard, buffer=buffer.value.decode("latin-1"), limits=changed, secret=len(secret))
                heard = []


if __name__ == "__main__":
    main()
