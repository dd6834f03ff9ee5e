"""Attacks that stay or get further: survivors, calls of the kernel, and the pipes between agent and runners."""

from __future__ import annotations

import time

from arena import Arena, Ended
from attack import attack, driven, plain

# -- survivors --

_SURVIVE = """
daemon(lambda: time.sleep(60))
if os.fork() == 0:
    os.setsid()
    named()
    signal.alarm(60)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
print("left", flush=True)
"""


@driven("outlive-task", "leave daemons that outlive the task", _SURVIVE)
def _outlive_task(arena: Arena, code: str) -> str:
    arena.attack(code)
    left = arena.survivors()
    return f"left {left} processes" if left else ""


@driven("outlive-runner", "leave daemons that outlive the runner", _SURVIVE + "os._exit(3)")
def _outlive_runner(arena: Arena, code: str) -> str:
    arena.attack(code)
    arena.next_member()
    left = arena.survivors()
    return f"left {left} processes" if left else ""


_KILL_WARDEN = """
if os.getppid() != 1:
    tried(os.kill, os.getppid(), signal.SIGKILL)
time.sleep(0.5)
"""
_HIDDEN = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        script = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'%s', 0, 0, 0); time.sleep(60)" % G["mark"]
        os.execve(sys.executable, ["python", "-c", script], {})
    os._exit(0)
time.sleep(0.5)
"""


@driven("outlive-warden", "kill the warden, and leave daemons without a mark", _SURVIVE + _HIDDEN + _KILL_WARDEN)
def _outlive_warden(arena: Arena, code: str) -> str:
    arena.attack(code)
    arena.next_member()
    left = arena.survivors()
    return f"left {left} processes" if left else ""


@driven("outlive-agent", "leave daemons that outlive the agent", _SURVIVE + _HIDDEN + 'print("all")\ntime.sleep(60)')
def _outlive_agent(arena: Arena, code: str) -> str:
    arena.begin(code)
    arena.says("all")
    arena.kill_agent()
    left = arena.survivors(8.0)
    arena.restart_worker()
    return f"left {left} processes" if left else ""


_FORGE = """
import contextlib, ctypes, json, os, stat, struct, sys, time
G = json.loads(sys.argv[1])
ctypes.CDLL(None).prctl(15, G["mark"].encode(), 0, 0, 0)
head = {"t": "result", "id": G["next"], "attempt": 1, "ok": True, "segments": [[1, None]], "codec": "pickle"}
head = json.dumps(head)
result = struct.pack(">II", len(head), 1) + head.encode() + b"N"
def runners():
    # Those of this arena's Python alone: others on this machine are no victims, but tests that run beside this one.
    found, python = set(), G["python"].encode() + bytes(1)
    for pid in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            words = open(f"/proc/{pid}/cmdline", "rb").read() if pid.isdigit() else b""
            if words.startswith(python) and b"p2p_ipython.sandbox.inside." b"runner" in words:
                found.add(pid)
    return found
before, end = runners(), time.monotonic() + 20
while time.monotonic() < end:
    for pid in runners() - before:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                way = f"/proc/{pid}/fd/{fd}"
                with contextlib.suppress(OSError):
                    if int(fd) > 2 and stat.S_ISFIFO(os.stat(way).st_mode):
                        pipe = os.open(way, os.O_WRONLY | os.O_NONBLOCK)
                        os.write(pipe, result)
                        os.close(pipe)
    time.sleep(0.01)
"""


@driven(
    "forge-next-result",
    "stay, and forge the result of the next member's task in the same slot",
    f"FORGE = {_FORGE!r}"
    """
import json
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, ["python", "-c", FORGE, json.dumps({**G, "python": sys.executable})], {})
    os._exit(0)
time.sleep(0.5)
""" + _KILL_WARDEN,
)
def _forge_next(arena: Arena, code: str) -> str:
    task = f"task-next-{arena.mark}-{time.monotonic_ns()}"
    arena.attack(code, next=task)
    ended = arena.next_member("import time; time.sleep(1); 'carol\\'s own'", task)
    return "" if ended.value == "carol's own" else f"the next member got {ended.failure or ended.value!r:.99}"


plain(
    "shared-memory",
    "leave shared memory of System V",
    """system(194 if ARM else 29, int.from_bytes(G["mark"][-4:].encode(), "little") & 0x7FFFFFFF, 4096, 0o1666)""",
)


# -- the kernel --


def _unless_refused(arena: Arena, ended: Ended) -> str:
    return f"the kernel agreed ({ended.value})" if ended.value == "agreed" else ""


attack(
    "user-namespace",
    "make a user namespace, where one is root",
    """
child = os.fork()
if child == 0:
    os._exit(0 if libc.unshare(0x10000000) == 0 else ctypes.get_errno())
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"agreed" if code == 0 else os.strerror(code)
""",
)(_unless_refused)
attack("vsock", "make a socket of AF_VSOCK", """socket.socket(40, socket.SOCK_STREAM).close()\n"agreed" """)(
    _unless_refused
)
attack(
    "io-uring",
    "make a ring of io_uring, past filters of system calls",
    """os.close(system(425, 4, ctypes.create_string_buffer(200)))\n"agreed" """,
)(_unless_refused)
attack(
    "keyctl",
    "leave a key in the kernel's keyring",
    """
ring = -4
key = system(217 if ARM else 248, b"user", G["mark"].encode(), b"here", ctypes.c_size_t(4), ring)
system(219 if ARM else 250, 9, key, ring)
"agreed"
""",
)(_unless_refused)


# -- the pipes --

_PIPES = """
def pipes(pid):
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if int(fd) > 2 and stat.S_ISFIFO(os.stat(f"/proc/{pid}/fd/{fd}").st_mode):
                found.append(os.open(f"/proc/{pid}/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK))
    return found
def write(pid, data):
    for fd in pipes(pid):
        tried(os.write, fd, data)
"""
plain("close-own-pipe", "close the runner's own pipes", "os.closerange(0, 1024)", alice=True)
plain(
    "garbage-in-own-pipe",
    "write garbage to the runner's own pipe",
    """
os.write(channel()._fd, os.urandom(4096))
time.sleep(0.3)
""",
    alice=True,
)
plain(
    "huge-frame-in-own-pipe",
    "announce a frame of 4 GiB on the runner's own pipe",
    """
os.write(channel()._fd, frame(announced=0xFFFFFFFF, t="output", id=G["task"], attempt=1, kind="stream"))
time.sleep(0.3)
""",
    alice=True,
)
plain(
    "forge-on-own-pipe",
    "forge the result of another member's task on the runner's own pipe",
    """
forged = frame(b"N.", t="result", id=G["alice"], attempt=1, ok=True, segments=[[2, None]], codec="pickle")
os.write(channel()._fd, forged)
time.sleep(0.3)
""",
    alice=True,
)
plain(
    "garbage-in-other-pipe",
    "write garbage to another runner's pipe",
    _PIPES
    + """
for pid in G["pids"]["runner"]:
    tried(write, pid, b"\\xff" * 4096)
time.sleep(0.3)
""",
    alice=True,
)
plain(
    "forge-on-other-pipe",
    "forge a result on another runner's pipe",
    _PIPES
    + """
forged = frame(b"N.", t="result", id=G["alice"], attempt=1, ok=True, segments=[[2, None]], codec="pickle")
for pid in G["pids"]["runner"]:
    tried(write, pid, forged)
time.sleep(0.3)
""",
    alice=True,
)
