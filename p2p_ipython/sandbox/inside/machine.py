"""The first process of a virtual machine: it makes the machine ready, and starts one runner when it is told to.

Started by the machine's kernel, from its read-only disk, as root there. Three ports lead out. On ``orders`` it says
that it is up, gets one order, and says at last how the runner has ended. On ``accounts`` it answers how much memory the
task's processes occupy. ``frames`` is the runner's own.

A machine may be saved once it is up, and be restored many times. So nothing of a member's is in it by then. The order
brings the time and fresh randomness, and the runner's Python starts after it: no two runners share a hash seed.

Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

SCRATCH = "/scratch"
_GROUP = Path("/sys/fs/cgroup/task")
_SHARED = Path("/dev/shm")  # noqa: S108 - in the machine
_LAST_WORDS = 4096
_PORTS = Path("/sys/class/virtio-ports")
_PATIENCE = 60.0

_BIND, _REMOUNT, _READ_ONLY, _NOSUID, _NODEV = 4096, 32, 1, 2, 4
_ADD_ENTROPY, _RESEED = 0x40085203, 0x5207  # ioctls of random(4)
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # netdevice(7)


def main() -> NoReturn:
    """Make the machine ready, run what the order says, and switch the machine off."""
    start = json.loads(sys.argv[1])
    try:
        _mount_all()
        orders, accounts = _open_port("orders"), _open_port("accounts")
        _prime(start)
        _say(orders, {"up": True})
        order = json.loads(_line(orders))
        _renew(order["time"], bytes.fromhex(order["entropy"]))
        frames = _open_port("frames")
        _say(orders, {"begun": True})
        _line(orders)  # see machine_process.py
        _say(orders, _run(order, start["user"], (orders, accounts, frames)))
        with contextlib.suppress(OSError):
            os.read(orders, 1)  # what we have said is lost if we are gone before it has been read
    finally:
        ctypes.CDLL(None).reboot(0x4321FEDC)
    os._exit(1)


def _mount(source: str, place: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    words = [os.fsencode(each) if each else None for each in (source, place, kind)]
    if ctypes.CDLL(None, use_errno=True).mount(*words, ctypes.c_ulong(flags), os.fsencode(data) or None):
        raise OSError(ctypes.get_errno(), f"mounting {place}")


def _mount_all() -> None:
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV)
    _mount("sysfs", "/sys", "sysfs", _NOSUID | _NODEV)
    _mount("run", "/run", "tmpfs", _NOSUID | _NODEV, "mode=755,size=1m")
    Path("/dev/pts").mkdir(exist_ok=True)
    _mount("devpts", "/dev/pts", "devpts", _NOSUID, "ptmxmode=0666")
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        with contextlib.suppress(FileExistsError):
            os.symlink(target, f"/dev/{name}")
    _mount("cgroup", "/sys/fs/cgroup", "cgroup2", _NOSUID | _NODEV)
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory +pids")
    _GROUP.mkdir()
    Path("/dev/kmsg").chmod(0o600)
    socket.sethostname("sandbox")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        flags = struct.unpack("16sh", fcntl.ioctl(asking, _GET_FLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(asking, _SET_FLAGS, struct.pack("16sh", b"lo", flags | _UP))


def _open_port(name: str) -> int:
    """Open a port by the name that it has outside. Raises ``TimeoutError``."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        for port in _PORTS.glob("*"):
            with contextlib.suppress(OSError):
                if (port / "name").read_text().strip() == name:
                    return os.open(f"/dev/{port.name}", os.O_RDWR | os.O_CLOEXEC)
        time.sleep(0.01)
    raise TimeoutError(f"there is no port {name}")


def _say(port: int, what: dict[str, Any]) -> None:
    os.write(port, json.dumps(what).encode() + b"\n")


def _line(port: int) -> bytes:
    """Return what comes in up to the end of a line. Raises ``EOFError``."""
    found = b""
    while not found.endswith(b"\n"):
        try:
            piece = os.read(port, 1 << 16)
        except InterruptedError:
            continue
        if not piece:
            raise EOFError
        found += piece
    return found


def _prime(start: dict[str, Any]) -> None:
    """Have a Python import what a runner will, so that these files are in the machine's memory."""
    if (child := os.fork()) == 0:
        try:
            _give_up_root(start["user"])
            _become([sys.executable, "-P", "-c", start["imports"]], start["env"])
        finally:
            os._exit(1)
    os.waitpid(child, 0)


def _become(command: list[str], env: dict[str, str]) -> None:
    os.execve(command[0], command, env)  # noqa: S606 - no shell is wanted


def _give_up_root(user: int) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def _renew(now: float, entropy: bytes) -> None:
    """Set the clock, and let nothing that the machine draws from now on be what another one draws."""
    time.clock_settime(time.CLOCK_REALTIME, now)
    with open("/dev/urandom", "wb", buffering=0) as device:
        fcntl.ioctl(device, _ADD_ENTROPY, struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy)
        fcntl.ioctl(device, _RESEED)


# --- the runner ----------------------------------------------------------------------------------------------------


def _run(order: dict[str, Any], user: int, ports: tuple[int, int, int]) -> dict[str, Any]:
    """Run the runner to its end; return what is to be said of it."""
    orders, accounts, frames = ports
    _mount("scratch", SCRATCH, "tmpfs", _NOSUID | _NODEV, f"mode=1777,size={order['disk']}")
    _mount("shm", _make(_SHARED, 0o1777), "tmpfs", _NOSUID | _NODEV, f"mode=1777,size={order['shared']}")
    for name in ("home", "tmp"):
        _make(Path(SCRATCH, name), 0o1777)
    (_GROUP / "memory.oom.group").write_text("1")
    (_GROUP / "memory.max").write_text(str(order["memory"] or "max"))
    (_GROUP / "pids.max").write_text(str(order["processes"]))
    heard, errors = os.pipe()
    for end in (heard, errors):
        os.set_blocking(end, False)
    alarm, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    if (runner := os.fork()) == 0:
        try:
            (_GROUP / "cgroup.procs").write_text("0")
            for number, descriptor in enumerate((frames, frames, errors)):
                os.dup2(descriptor, number)
            _give_up_root(user)
            os.chdir(f"{SCRATCH}/home")
            signal.set_wakeup_fd(-1)
            _become(order["command"], order["env"])
        except BaseException as error:
            os.write(2, f"p2p: the runner can't be started: {error}\n".encode())
        finally:
            os._exit(1)
    os.close(frames)
    os.close(errors)
    poll = select.poll()
    poll.register(alarm, select.POLLIN)
    poll.register(accounts, select.POLLIN)
    poll.register(orders, 0)
    while True:
        ready = dict(poll.poll())
        if orders in ready:
            raise EOFError  # nobody is there any more
        if accounts in ready and os.read(accounts, 64):
            os.write(accounts, f"{_memory()}\n".encode())
        if alarm in ready:
            os.read(alarm, 64)
            if (status := _reap(runner)) is not None:
                break
    words = b""
    with contextlib.suppress(BlockingIOError):
        words = os.read(heard, 1 << 16)[-_LAST_WORDS:]
    return {
        "code": os.waitstatus_to_exitcode(status),
        "memory": _numbers("memory.events").get("oom_kill", 0) > 0,
        "words": words.decode("utf-8", "replace").strip(),
    }


def _make(folder: Path, mode: int) -> Path:
    folder.mkdir(exist_ok=True)
    folder.chmod(mode)
    return folder


def _reap(runner: int) -> int | None:
    """Reap all that has ended; return the runner's status if it is among it."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found = ended[1] if ended[0] == runner else found
    return found


def _numbers(name: str) -> dict[str, int]:
    """Return a table that the kernel keeps of the task's group."""
    lines = (line.split() for line in (_GROUP / name).read_text().splitlines())
    return {line[0]: int(line[1]) for line in lines}


def _memory() -> int:
    """Return the bytes that the task's processes occupy; what is in the scratch folder isn't theirs."""
    found, scratch = _numbers("memory.stat"), os.statvfs(SCRATCH)
    return found["anon"] + max(0, found["shmem"] - (scratch.f_blocks - scratch.f_bfree) * scratch.f_frsize)


if __name__ == "__main__":
    main()
