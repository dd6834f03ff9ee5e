"""Filters of system calls: what they leave to a process, and what they don't. Each is tried in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_ipython.sandbox import seccomp

pytestmark = pytest.mark.skipif(not seccomp.supported(), reason="there is no filter for this machine's processor")

SAYING = """
import ctypes, errno, os, sys
from p2p_ipython.sandbox import seccomp
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
def error_of(step):
    try:
        step()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
"""


def filtered(script: str, *arguments: str) -> list[str]:
    """Return what a script prints, in a process of its own: filters stay."""
    command = [sys.executable, "-c", SAYING + script, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()


FILTERED = """
getattr(seccomp, sys.argv[2])()
os.chmod(sys.argv[1], 0o600)
os.utime(sys.argv[1], (1, 1))
libc = ctypes.CDLL(None, use_errno=True)
ioprio_set = {"x86_64": 251, "aarch64": 30}[os.uname().machine]
said = (
    lambda: os.memfd_create("x"),
    lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),
    lambda: os.setpriority(os.PRIO_USER, 0, os.getpriority(os.PRIO_USER, 0)),
    lambda: checked(libc.syscall(ioprio_set, 3, 0, 4 << 13)),
)
for each in said:
    print(error_of(each))
os.sched_setaffinity(0, os.sched_getaffinity(0))
os.nice(1)
assert libc.syscall(ioprio_set, 1, 0, 3 << 13) == 0
"""

NO_NAMESPACES = """
import array, fcntl, socket, termios
path = sys.argv[1]
seccomp.without_namespaces()
left, right = socket.socketpair()
left.send(b"x")
room = array.array("i", [0])
fcntl.ioctl(right, termios.FIONREAD, room)
assert room[0] == 1
left.setblocking(False)
for each in (
    lambda: socket.socket(),
    lambda: socket.socket(socket.AF_UNIX),
    lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW),
    lambda: left.connect("/dev/log"),
    lambda: left.bind(path + "-socket"),
    lambda: os.setxattr(path, "user.here", b"x"),
    lambda: os.listxattr(path),
    lambda: fcntl.ioctl(os.open(path, os.O_RDONLY), 0x40086602, b"\\0" * 8),  # FS_IOC_SETFLAGS
    lambda: checked(libc.inotify_init()),
    lambda: checked(libc.shmget(0, 1, 0)),
    lambda: checked(libc.shmat(0, None, 0)),
    lambda: checked(libc.unshare(0x10000000)),
):
    print(error_of(each))
"""


@pytest.mark.parametrize("which", ["without_modes", "without_namespaces"])
def test_filters_leave_modes_as_they_are_and_others_alone(which: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o644)
    before = file.stat()
    said = filtered(FILTERED, str(file), which)
    assert said == ["ENOSYS", "EPERM", "EPERM", "EPERM"]
    after = file.stat()
    assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)


def test_without_namespaces_there_are_no_sockets_no_attributes_and_nothing_that_is_shared(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    said = filtered(NO_NAMESPACES, str(file))
    refused = ["ENETUNREACH"] + ["EPERM"] * 5 + ["ENOTSUP"] * 2 + ["ENOTTY", "EPERM", "ENOSYS", "EPERM", "EPERM"]
    assert said == refused
    assert os.listxattr(file) == []
