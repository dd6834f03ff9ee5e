"""Attacks on the agent, on another member's runner, and on the lender's other programs: memory, descriptors, sockets.

A runner's own warden is no victim: where a mechanism has it run behind the wall, a task may kill it. The harm that
comes of that is survivors (``attacks_that_last.py``).
"""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

import psutil
from arena import Arena, Ended
from attack import Drive, attack, driven, plain

# -- secrets --

plain(
    "own-environment",
    "find secrets in the runner's own environment",
    """
environ = Path("/proc/self/environ").read_bytes() + repr(dict(os.environ)).encode()
[*sorted(found(environ)), os.environ.get("SSH_AUTH_SOCK")]
""",
    secrets=("agentenvironment",),
)
plain(
    "other-environments",
    "find secrets in /proc/*/environ",
    """
got = set()
for pid in os.listdir("/proc"):
    if pid.isdigit():
        with contextlib.suppress(OSError):
            got |= found(Path("/proc", pid, "environ").read_bytes())
sorted(got)
""",
    secrets=("agentenvironment", "environment"),
)

_READ_MEMORY = """
got = set()
for pid in G["pids"][WHOM]:
    areas = [(G["addresses"][WHOM] & ~0xFFF, 4096)]
    with contextlib.suppress(OSError):
        for line in open(f"/proc/{pid}/maps"):
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if "rw" in line.split()[1] and end - start <= 64 << 20:
                areas.append((start, end - start))
    for start, size in areas:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/mem", "rb", 0) as memory:
            got |= found(os.pread(memory.fileno(), size, start))
            continue
        room = ctypes.create_string_buffer(size)
        if libc.process_vm_readv(pid, span(ctypes.addressof(room), size), 1, span(start, size), 1, 0) > 0:
            got |= found(room.raw)
sorted(got)
"""
_WRITE_MEMORY = """
said = []
for pid in G["pids"][WHOM]:
    where, what = G["addresses"][WHOM], b"mallory's\\0"
    try:
        with open(f"/proc/{pid}/mem", "r+b", 0) as memory:
            said.append(tried(os.pwrite, memory.fileno(), what, where))
    except OSError as error:
        said.append(error)
    room = ctypes.create_string_buffer(what)
    said.append(libc.process_vm_writev(pid, span(ctypes.addressof(room), len(what)), 1, span(where, len(what)), 1, 0))
str(said)
"""
_TRACE = """
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
said = []
for pid in G["pids"][WHOM]:
    for how in (0x4206, 16):
        ctypes.set_errno(0)
        if libc.ptrace(how, pid, None, None) == 0:
            time.sleep(0.2)
            if how == 0x4206:
                libc.ptrace(0x4207, pid, None, None)
            os.waitpid(pid, 0x40000000)
            libc.ptrace(17, pid, None, None)
        else:
            said.append(os.strerror(ctypes.get_errno()))
str(said)
"""
_KILL = """
said = []
for pid in G["pids"][WHOM]:
    if pid != os.getpid():  # behind a wall, the same number may be our own
        said.append(tried(os.kill, pid, signal.SIGKILL))
        said.append(tried(lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL)))
str(said)
"""
_GET_FD = """
got, said = set(), []
for pid in G["pids"][WHOM]:
    holder = tried(lambda: os.pidfd_open(pid))
    for fd in range(40) if isinstance(holder, int) else ():
        copy = tried(system, 438, holder, fd, 0)
        if isinstance(copy, int):
            said.append(f"descriptor {fd} of process {pid}, {os.readlink(f'/proc/self/fd/{copy}')}")
            if stat.S_ISREG(os.fstat(copy).st_mode):
                got |= found(tried(os.pread, copy, 1000, 0))
            os.close(copy)
print(*sorted(got))
said
"""
_LIMIT = """
said = []
for pid in G["pids"][WHOM]:
    said.append(tried(lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (3000, 3000))))
    said.append(tried(lambda: os.setpriority(os.PRIO_PROCESS, pid, 15)))
    said.append(tried(lambda: os.sched_setaffinity(pid, {0})))
str(said)
"""


def _limited(pids: list[int]) -> list[int]:
    """Return those of the processes that have the limit or the priority which the attack sets."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            limits = Path(f"/proc/{pid}/limits").read_text()
            nice = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16]
            if re.search(r"Max cpu time +3000 ", limits) or nice == "15":
                found.append(pid)
    return found


def _trace_drive(whom: str) -> Drive:
    def drive(arena: Arena, code: str) -> str:
        with arena.traced() as traced:
            arena.attack(code)
        return f"traced {', '.join(traced)}" if traced else ""

    return drive


def _limit_drive(whom: str) -> Drive:
    def drive(arena: Arena, code: str) -> str:
        pids = arena.facts()["pids"][whom]
        before = _limited(pids)
        arena.attack(code)
        changed = set(_limited(pids)) - set(before)
        if changed and whom != "bystander":
            arena.restart_worker()
        return f"limited {len(changed)} processes" if changed else ""

    return drive


def _got_fd(arena: Arena, ended: Ended) -> str:
    got = ended.value if isinstance(ended.value, list) else []
    return f"duplicated {len(got)} descriptors, {got[0]}" if got else ""


for _whom, _title in (("agent", "the agent"), ("runner", "another member's runner"), ("bystander", "another program")):
    _is_alice = _whom == "runner"
    _secret = "alice" if _is_alice else _whom

    def _for(code: str, whom: str = _whom) -> str:
        return code.replace("WHOM", repr(whom))

    plain(f"read-memory-of-{_whom}", f"read the memory of {_title}", _for(_READ_MEMORY), secrets=(_secret,))
    plain(f"write-memory-of-{_whom}", f"write the memory of {_title}", _for(_WRITE_MEMORY), alice=_is_alice)
    attack(f"trace-{_whom}", f"trace {_title}", _for(_TRACE), drive=_trace_drive(_whom))(lambda _a, _e: "")
    plain(f"kill-{_whom}", f"kill {_title}", _for(_KILL), alice=_is_alice)
    attack(f"pidfd-getfd-{_whom}", f"duplicate descriptors of {_title}", _for(_GET_FD))(_got_fd)
    attack(f"limit-{_whom}", f"set limits and priority of {_title}", _for(_LIMIT), drive=_limit_drive(_whom))(
        lambda _a, _e: ""
    )


@driven(
    "renice-user",
    "let all of the user's programs go last",
    """
str([tried(os.setpriority, os.PRIO_USER, 0, 15), tried(system, 30 if ARM else 251, 3, 0, 3 << 13)])
""",
)
def _renice(arena: Arena, code: str) -> str:
    pids = [pid for name, some in arena.facts()["pids"].items() if name != "runner" for pid in some]
    before = [(psutil.Process(pid).nice(), psutil.Process(pid).ionice()) for pid in pids]
    arena.attack(code)
    after = [(psutil.Process(pid).nice(), psutil.Process(pid).ionice()) for pid in pids]
    if before != after:
        arena.restart_worker()
    return "changed priorities" if before != after else ""


plain(
    "read-shared-memory",
    "read System V memory of another program",
    """
libc.shmat.restype = ctypes.c_void_p
place = libc.shmat(G["segment"], None, 0o10000)
sorted(found(ctypes.string_at(place, 100))) if place != ctypes.c_void_p(-1).value else ctypes.get_errno()
""",
    secrets=("segment",),
)


# -- sockets --

_SEND = """
kind, family, address = G["sockets"], FAMILY, ADDRESS
with socket.socket(family, TYPE) as one:
    one.settimeout(1)
    one.connect(tuple(address) if isinstance(address, list) else address)
    one.send(b"mallory was here")
"""
for _name, _words, _family, _type, _listener in (
    ("tcp", "connect to a TCP port of the loopback", "INET", "STREAM", "tcp"),
    ("tcp6", "connect to a TCP port of IPv6's loopback", "INET6", "STREAM", "tcp6"),
    ("tcp-to-host", "connect to a TCP port of the machine's own address", "INET", "STREAM", "host-tcp"),
    ("udp", "send by UDP to the loopback", "INET", "DGRAM", "udp"),
    ("udp6", "send by UDP to IPv6's loopback", "INET6", "DGRAM", "udp6"),
    ("udp-to-host", "send by UDP to the machine's own address", "INET", "DGRAM", "host-udp"),
    ("abstract-socket", "connect to an abstract socket", "UNIX", "STREAM", "abstract"),
    ("abstract-datagram", "send to an abstract socket", "UNIX", "DGRAM", "abstract-datagram"),
    ("agent-socket", "connect to the SSH agent's socket in /tmp", "UNIX", "STREAM", "agent"),
    ("pathname-datagram", "send to a socket in /tmp", "UNIX", "DGRAM", "pathname-datagram"),
    ("home-socket", "connect to an agent's socket in the home", "UNIX", "STREAM", "home-agent"),
):
    plain(
        _name,
        _words,
        _SEND.replace("FAMILY", f"socket.AF_{_family}")
        .replace("TYPE", f"socket.SOCK_{_type}")
        .replace("ADDRESS", f'G["sockets"][{_listener!r}]'),
    )


@driven(
    "listen",
    "listen on a TCP port that others reach",
    """
with socket.create_server(("0.0.0.0", G["port"])) as one:
    one.settimeout(1)
    print("listening", flush=True)
    one.accept()[0].send(b"mallory is here")
""",
)
def _listen(arena: Arena, code: str) -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    task, got = arena.begin(code, port=port), b""
    if "listening" in arena.says("listening"):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as one:
            got = one.recv(100)
    arena.end(task)
    return "took a connection" if got else ""
