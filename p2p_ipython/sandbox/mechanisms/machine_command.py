"""How QEMU is started for one runner: a machine with a read-only disk, three ports, and nothing else.

No network card, no display, no other disk; QEMU itself starts no program and gains no right (``-sandbox``). What it
opens it gets as descriptors, so that as root it can be another user from its first moment.

Linux on x86-64.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from p2p_ipython.sandbox.launch import LaunchOptions
from p2p_ipython.sandbox.mechanisms.ids import stranger
from p2p_ipython.sandbox.mechanisms.shown import SHARED_MEMORY
from p2p_ipython.sandbox.scratch import in_memory

PROGRAM = "qemu-system-x86_64"
OLDEST = (7, 2)
"""The version that this was written for; Debian 12 has it."""

KVM = Path("/dev/kvm")

_OWN = 256 << 20
"""Bytes for the machine's own kernel, and for what it reads from its disk."""

_KERNEL = "console=ttyS0 loglevel=3 panic=-1 mitigations=off cryptomgr.notests apparmor=0 audit=0 no_timer_check"
"""What the kernel is told: to end when it fails, and to leave out what protects a machine's users from each other."""

_UNBOUNDED = 4 << 30
"""Bytes for a task that may use all there is: a machine has a size."""

_MOST_CORES = 8


@dataclass(frozen=True)
class Shape:
    """What a machine is like. ``memory``: bytes. ``fast``: the processor itself runs it, by the kernel's KVM."""

    memory: int
    cores: int
    fast: bool

    def words(self) -> list[str]:
        """Return QEMU's arguments that a saved state depends on."""
        accelerator = ["kvm", "-cpu", "host,-arch-capabilities"] if self.fast else ["tcg,thread=multi", "-cpu", "max"]
        return [
            *("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-accel", *accelerator),
            *("-M", "q35,usb=off,sata=off,smbus=off,vmport=off,dump-guest-core=off", "-m", f"{self.memory >> 20}M"),
            *("-smp", str(self.cores), "-net", "none", "-rtc", "base=utc"),
            *("-append", f"{_KERNEL}{'' if self.fast else ' tsc=reliable'}"),
            *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            *("-device", "virtio-blk-pci,drive=disk", "-device", "virtio-serial-pci", "-device", "vmgenid,guid=auto"),
            *(word for name in PORTS for word in ("-device", f"virtserialport,chardev={name},name={name}")),
            *("-serial", "chardev:console"),
        ]

    def key(self, version: str) -> str:
        """Return a name for the states of such machines; another QEMU, kernel or processor has others."""
        processor = ""
        with contextlib.suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
            processor = "\n".join(
                line for line in lines if line.startswith(("model", "flags", "microcode", "stepping"))
            )
        told = "\n".join([version, platform.release(), processor, *self.words()])
        return hashlib.sha256(told.encode()).hexdigest()[:24]


PORTS = ("orders", "accounts", "frames")


def shape(options: LaunchOptions, *, fast: bool) -> Shape:
    """Return what a runner's machine is like: with room for what its task may have, and for the machine's own.

    It has as many cores as its task may run on, so it holds ``cpus``: their numbers in it are others than here.
    """
    task = options.memory or min(psutil.virtual_memory().total // 2, _UNBOUNDED)
    memory = task_memory(task, options) + _OWN
    cores = min(len(options.cores) or len(os.sched_getaffinity(0)), _MOST_CORES)
    return Shape(-(-memory >> 20) << 20, cores, fast)


def task_memory(memory: int, options: LaunchOptions) -> int:
    """Return the most that a task's processes and files may occupy together.

    A quarter more than a task may have: the slot, which looks at ``usage``, ends the task first, and says why.
    """
    return memory * 5 // 4 + options.disk + SHARED_MEMORY


def guard_command(
    disk: Path, shape: Shape, scratch: Path, order: dict[str, Any] | None, *, accounts: int, patience: float
) -> tuple[list[str], int]:
    """Return what starts a machine's guard, and the descriptor that it inherits; machine_guard.py has the words."""
    given = {
        "folder": str(disk),
        "shape": asdict(shape),
        "scratch": str(scratch),
        "user": stranger(),
        "accounts": accounts,
        "order": order,
        "patience": patience,
    }
    told = in_memory("p2p-machine", json.dumps(given).encode())
    return [sys.executable, "-P", "-m", f"{__package__}.machine_guard", str(told)], told


def has_kvm() -> bool:
    """Return whether this user may have the processor itself run machines."""
    return os.access(KVM, os.R_OK | os.W_OK)


def command(shape: Shape, files: dict[str, int], sockets: dict[str, int], incoming: int | None) -> list[str]:
    """Return QEMU's command line. ``files`` and ``sockets`` are descriptors that it inherits.

    ``files``: "kernel", "initrd", "disk". ``sockets``: "orders", "accounts", "console" and, to save it, "control". The
    runner's frames are at descriptors 0 and 1. ``incoming``: a state to restore.
    """
    words = [PROGRAM, *shape.words()]
    words += ["-kernel", f"/proc/self/fd/{files['kernel']}", "-initrd", f"/proc/self/fd/{files['initrd']}"]
    words += ["-add-fd", f"fd={files['disk']},set=1"]
    words += ["-drive", "if=none,id=disk,file=/dev/fdset/1,format=raw,readonly=on"]
    words += ["-chardev", "stdio,id=frames,signal=off"]
    for name, number in sockets.items():
        words += ["-chardev", f"socket,id={name},fd={number}"]
    if "control" in sockets:
        words += ["-mon", "chardev=control,mode=control"]
    return [*words, *(["-incoming", f"fd:{incoming}"] if incoming is not None else [])]
