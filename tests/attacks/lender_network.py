"""A network for a lender, made in a namespace of its own, with an internet at the other end; then the lender itself.

::

    far: 9.9.9.9, 2620:fe::9 (the internet); 10.1.2.3 (private, behind the router)
      far0 203.0.113.1, 2001:db8:1::1 ── up0 203.0.113.2, 2001:db8:1::2
    lender: 10.9.8.7, 9.1.1.1, fd00:9::7 (a second interface); 169.254.169.254; a resolver at 127.0.0.53

Run by ``arena.py`` as root, in new namespaces for network and mounts: ``lender_network.py HEARD USER GROUP COMMAND…``.
Each packet for port 7777, TCP or UDP, that comes to one of them is answered, and noted in the file HEARD.
Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

PORT = 7777
GROUP = "224.0.0.251"
ADDRESS_OF_NAME = "9.9.9.9"

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*words: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *words], check=True)


def main(heard: str, user: str, group: str, *command: str) -> None:
    """Make the network, and become the command."""
    # Addresses that are in use at once, with no search for a double.
    ip("link", "set", "lo", "up")
    ip("link", "add", "up0", "type", "veth", "peer", "name", "far0")
    ip("address", "add", "203.0.113.2/24", "dev", "up0")
    ip("address", "add", "2001:db8:1::2/64", "dev", "up0", "nodad")
    ip("link", "set", "up0", "up")
    ip("link", "add", "second0", "type", "bridge")
    ip("address", "add", "10.9.8.7/24", "dev", "second0")
    ip("address", "add", "9.1.1.1/32", "dev", "second0")
    ip("address", "add", "fd00:9::7/64", "dev", "second0", "nodad")
    ip("link", "set", "second0", "up")
    ip("address", "add", "169.254.169.254/32", "dev", "lo")
    far = _child(_far, heard)
    ip("link", "set", "far0", "netns", str(far.pid))
    far.go_on()
    ip("route", "add", "default", "via", "203.0.113.1")
    ip("-6", "route", "add", "default", "via", "2001:db8:1::1")
    _child(_lender, heard)
    _child(_resolver, heard)
    # As it is on a desktop: any user may open it.
    place = Path(heard).parent
    tun, names = place / "tun", place / "resolv.conf"
    if not tun.exists():
        os.mknod(tun, 0o020666, os.makedev(10, 200))
        tun.chmod(0o666)
    names.write_text("nameserver 127.0.0.53\n")
    subprocess.run(["mount", "--bind", str(tun), "/dev/net/tun"], check=True)
    subprocess.run(["mount", "--bind", str(names), os.path.realpath("/etc/resolv.conf")], check=True)
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(user))
    os.execv(command[0], command)


class _Child:
    """A process that ends with this one."""

    def __init__(self, pid: int, ready: int, proceed: int) -> None:
        self.pid, self._ready, self._proceed = pid, ready, proceed
        self.wait()

    def wait(self) -> None:
        assert os.read(self._ready, 1), "a child has ended"

    def go_on(self) -> None:
        os.write(self._proceed, b"x")
        self.wait()


def _child(run: Callable[[str, Callable[[], object], Callable[[], object]], None], heard: str) -> _Child:
    """Run ``run(heard, ready, proceed)`` in a child until it is ready for the first time."""
    parent = os.getpid()
    ready, proceed = os.pipe(), os.pipe()
    pid = os.fork()
    if pid:
        return _Child(pid, ready[0], proceed[1])
    try:
        _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == parent:
            with open(os.devnull, "r+b") as null:
                for number in (0, 1):
                    os.dup2(null.fileno(), number)
            run(heard, partial(os.write, ready[1], b"x"), partial(os.read, proceed[0], 1))
            signal.pause()
    finally:
        os._exit(1)


def _far(heard: str, ready: Callable[[], object], proceed: Callable[[], object]) -> None:
    assert _libc.unshare(_CLONE_NEWNET) == 0
    ready()
    proceed()
    ip("link", "set", "lo", "up")
    ip("address", "add", "203.0.113.1/24", "dev", "far0")
    ip("address", "add", "2001:db8:1::1/64", "dev", "far0", "nodad")
    ip("link", "set", "far0", "up")
    for address in ("9.9.9.9/32", "10.1.2.3/32", "2620:fe::9/128"):
        ip("address", "add", address, "dev", "lo")
    _listen("far", heard)
    ready()


def _lender(heard: str, ready: Callable[[], object], proceed: Callable[[], object]) -> None:
    _listen("lender", heard)
    ready()


def _resolver(heard: str, ready: Callable[[], object], proceed: Callable[[], object]) -> None:
    """Answer each question for an IPv4 address with the same one, and others with none."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.53", 53))
    ready()
    while True:
        question, whom = server.recvfrom(512)
        end = question.index(b"\0", 12) + 5
        is_address = question[end - 4 : end - 2] == b"\0\1"
        answer = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(ADDRESS_OF_NAME)
        head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, int(is_address), 0, 0)
        server.sendto(head + question[12:end] + (answer if is_address else b""), whom)


def _listen(name: str, heard: str) -> None:
    def note(what: str) -> None:
        with open(heard, "a") as file:
            file.write(f"{name} {what}\n")

    def serve_tcp(server: socket.socket) -> None:
        while True:
            with server.accept()[0] as connection:
                note(f"tcp {connection.getsockname()[0]}")
                connection.sendall(b"here")

    def serve_udp(server: socket.socket) -> None:
        while True:
            words, whom = server.recvfrom(100)
            note(f"udp {words.decode()}")
            server.sendto(b"here", whom)

    for family in (socket.AF_INET, socket.AF_INET6):
        for kind, serve in ((socket.SOCK_STREAM, serve_tcp), (socket.SOCK_DGRAM, serve_udp)):
            server = socket.socket(family, kind)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind(("", PORT))
            if kind == socket.SOCK_STREAM:
                server.listen()
            elif family == socket.AF_INET and name == "lender":
                group = socket.inet_aton(GROUP) + socket.inet_aton("203.0.113.2")
                server.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            threading.Thread(target=serve, args=(server,), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
