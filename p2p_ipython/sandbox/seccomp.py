"""Filters of system calls, as the kernel takes them.

``behind_walls`` holds what namespaces leave open, ``without_modes`` what changes files and processes of the same user,
``without_namespaces`` all that Landlock leaves open.

A filter is a classic BPF program over ``struct seccomp_data`` (number, architecture, arguments); see seccomp(2) and
the kernel's ``include/uapi/linux/seccomp.h``. A call that it refuses fails with an error, so that programs that probe
for it use another way. Linux on x86-64 and 64-bit ARM. Standard library only: the runner imports it inside.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Sequence

# linux/bpf_common.h
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

# linux/seccomp.h
_ALLOW = 0x7FFF0000
_ERROR = 0x00050000
_KILL = 0x80000000

# struct seccomp_data
_NUMBER, _ARCH, _FIRST = 0, 4, 16

_X32 = 0x40000000
"""Numbers from here on are calls of the x32 architecture, under x86-64's name."""

_NEW_NAMESPACES = 0x7E020000
"""The flags of clone(2) for new namespaces: mount, cgroup, uts, ipc, user, pid and net."""

_FAMILIES = (1, 2, 10, 16)
"""Families of sockets that are left: AF_UNIX, AF_INET, AF_INET6, and AF_NETLINK, which lists network interfaces."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_CALLS = {  # name: number on x86-64, on 64-bit ARM
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
}
"""Calls that are refused (the kernel's unistd.h of each architecture)."""

_UNCOUNTED = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
}
"""Calls that make memory which belongs to no process, so that no limit counts it. They are not there in a sandbox."""

_OF_OTHERS = {
    "prlimit64": (302, 261, 0),
    "sched_setparam": (142, 118, 0),
    "sched_setscheduler": (144, 119, 0),
    "sched_setaffinity": (203, 122, 0),
    "sched_setattr": (314, 274, 0),
    "migrate_pages": (256, 238, 0),
    "move_pages": (279, 239, 0),
}
"""Calls that can change other processes of the same user, unless the argument at the third place is 0, "myself"."""

_OF_GROUPS = {
    "setpriority": (141, 140, 0),
    "ioprio_set": (251, 30, 1),
}
"""The same for the second argument; the first has to be the third number here: else 0 is all processes of the user."""

_FALLOCATE = (285, 47)
"""It fills a disk in no time. Without it the C library writes block by block."""

_PRETENDED = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
"""Calls that seem to succeed behind Landlock, and change nothing: it can't tell whose files they change."""

_OF_ALL_USERS = {
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "chroot": (161, 51),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
}
"""Calls by which one meets the lender's processes and files where there is no namespace: by memory and messages that
processes share, by the names of files that change, by the list of mounts, by sockets."""

_ATTRIBUTES = {
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "fgetxattr": (193, 10),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "flistxattr": (196, 13),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "getxattrat": (464, 464),
    "listxattrat": (465, 465),
    "removexattrat": (466, 466),
    "file_getattr": (468, 468),
    "file_setattr": (469, 469),
}
"""Calls on attributes of any file, access lists among them, as if the file system had none."""

_IOCTL = (16, 29)
_HARMLESS = (0x541B, 0x5421, 0x5450, 0x5451)
"""Of ioctl(2): FIONREAD, FIONBIO, FIONCLEX and FIOCLEX. Others change flags of files that can only be read."""

_CLONE = (56, 220)
_CLONE3 = (435, 435)
_SOCKET = (41, 198)
_SOCKETPAIR = (53, 199)
_KIND_OF_SOCKET, _CONNECTED = 0xF, (1, 5)
"""SOCK_STREAM and SOCK_SEQPACKET: others, even of a pair, can send to any address."""


def supported() -> bool:
    """Return whether there is a filter for this machine."""
    return platform.machine() in _ARCHITECTURES


def without_modes() -> None:
    """Hold, in this process and its children, calls on other processes, and on any file's mode.

    Modes, owners and times of files stay as they are, as if by success: copying a file sets them, which need not fail.
    Raises ``OSError`` if the kernel refuses the filter, ``ValueError`` unless ``supported()``.
    """
    steps, which = _beginning()
    _install(b"".join([*steps, *_modes(which), _step(_RETURN, _ALLOW)]))


def _modes(which: int) -> list[bytes]:
    steps = []
    for numbers in _PRETENDED.values():
        steps += _refuse(numbers[which], 0)
    for numbers in _UNCOUNTED.values():
        steps += _refuse(numbers[which], errno.ENOSYS)
    steps += _refuse(_FALLOCATE[which], errno.EOPNOTSUPP)
    for *both, place in _OF_OTHERS.values():
        steps += _only_if(both[which], {place: 0})
    for *both, kind in _OF_GROUPS.values():
        steps += _only_if(both[which], {0: kind, 1: 0})
    return steps


def without_namespaces() -> None:
    """Hold, in this process and its children, all that Landlock leaves open: see the tables. There are no sockets.

    A pair of connected sockets is left. Does what ``without_modes`` does, too. Raises as it does.
    """
    steps, which = _beginning()
    steps += _modes(which)
    for numbers in (*_CALLS.values(), *_OF_ALL_USERS.values()):
        steps += _refuse(numbers[which], errno.EPERM)
    for numbers in _ATTRIBUTES.values():
        steps += _refuse(numbers[which], errno.EOPNOTSUPP)
    steps += _refuse(_CLONE3[which], errno.ENOSYS)
    steps += _no_namespaces(which)
    # To programs it is as if there were no network, which they know how to say.
    family = [_load(0), *(_step(_EQUAL, each, left, 0) for left, each in zip((2, 1), _FAMILIES[1:3], strict=True))]
    family += [_step(_RETURN, _ERROR | errno.EPERM), _step(_RETURN, _ERROR | errno.ENETUNREACH)]
    steps += [_step(_EQUAL, _SOCKET[which], 0, len(family)), *family]
    pair = [_load(0), _step(_EQUAL, _FAMILIES[0], 0, 4), _load(1), _step(_AND, _KIND_OF_SOCKET)]
    pair += _only_these(_CONNECTED, errno.EPERM)
    steps += [_step(_EQUAL, _SOCKETPAIR[which], 0, len(pair)), *pair]
    asked = [_load(1), *_only_these(_HARMLESS, errno.ENOTTY)]
    steps += [_step(_EQUAL, _IOCTL[which], 0, len(asked)), *asked]
    _install(b"".join([*steps, _step(_RETURN, _ALLOW)]))


def behind_walls() -> None:
    """Hold, in this process and its children, what namespaces leave open; filters that are there already stay.

    Raises as ``without_modes`` does.
    """
    _install(walls())


def on_these_cores() -> None:
    """Keep this process and its children on the cores where they may run now. Raises as ``behind_landlock`` does.

    A program that asks for others gets an error, which libraries that bind their threads ignore.
    """
    steps, which = _beginning()
    steps += _refuse(_OF_OTHERS["sched_setaffinity"][which], errno.EPERM)
    _install(b"".join([*steps, _step(_RETURN, _ALLOW)]))


def _install(program: bytes) -> None:
    import ctypes

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    library = ctypes.CDLL(None, use_errno=True)
    wanted = Program(len(program) // 8, program)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or library.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(wanted), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2


def walls() -> bytes:
    """Return a filter as an array of ``struct sock_filter``. Raises ``ValueError`` unless ``supported()``."""
    steps, which = _beginning()
    for pair in _CALLS.values():
        steps += _refuse(pair[which], errno.EPERM)
    # Flags of clone3 are in memory, where a filter can't look. The C library then uses clone: they are an argument.
    for pair in (*_UNCOUNTED.values(), _CLONE3):
        steps += _refuse(pair[which], errno.ENOSYS)
    steps += _no_namespaces(which)
    families = [_load(0), *_only_these(_FAMILIES, errno.EAFNOSUPPORT)]
    steps += [
        _step(_EQUAL, _SOCKET[which], 1, 0),
        _step(_EQUAL, _SOCKETPAIR[which], 0, len(families)),
        *families,
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(steps)


def _beginning() -> tuple[list[bytes], int]:
    """Return the first steps, after which the call's number is loaded, and the column of this machine's numbers."""
    machine = platform.machine()
    which = list(_ARCHITECTURES).index(machine)
    steps = [
        _step(_LOAD, _ARCH),
        _step(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        steps += [_step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _ERROR | errno.ENOSYS)]
    return steps, which


def _refuse(number: int | None, error: int) -> list[bytes]:
    """Return the steps by which a call does nothing and returns ``error``; 0 is success. None: no such call exists."""
    return [] if number is None else [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERROR | error)]


def _only_if(number: int, arguments: dict[int, int]) -> list[bytes]:
    """Return the steps that refuse a call unless its arguments, by place, are these."""
    steps = []
    for left, (place, value) in zip(range(len(arguments), 0, -1), arguments.items(), strict=True):
        steps += [_load(place), _step(_EQUAL, value, 0, 2 * left - 1)]
    steps += [_step(_RETURN, _ALLOW), _step(_RETURN, _ERROR | errno.EPERM)]
    return [_step(_EQUAL, number, 0, len(steps)), *steps]


def _only_these(values: Sequence[int], error: int) -> list[bytes]:
    """Return the steps that end with ``error`` unless what is loaded is one of ``values``."""
    steps = [_step(_EQUAL, value, left, 0) for left, value in zip(range(len(values), 0, -1), values, strict=True)]
    return [*steps, _step(_RETURN, _ERROR | error), _step(_RETURN, _ALLOW)]


def _no_namespaces(which: int) -> list[bytes]:
    """Return the steps that refuse to make a process in new namespaces."""
    steps = [_load(0), _step(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _step(_RETURN, _ERROR | errno.EPERM)]
    return [_step(_EQUAL, _CLONE[which], 0, len(steps) + 1), *steps, _step(_RETURN, _ALLOW)]


def _load(place: int) -> bytes:
    """Return the step that loads an argument's lower half, on these little-endian machines."""
    return _step(_LOAD, _FIRST + 8 * place)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
