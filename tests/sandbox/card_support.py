"""A system with graphics cards, as far as files can stand in for it: nodes with null's numbers, text, links."""

from __future__ import annotations

import os
from pathlib import Path

GIB = 1 << 30

NVIDIA = """Model: \t\t {model}
IRQ:   \t\t 35
GPU UUID: \t {uuid}
Bus Type: \t PCIe
Bus Location: \t {place}
Device Minor: \t {minor}
GPU Excluded:\t No
"""


def uuid(number: int) -> str:
    return f"GPU-{number}a2b3c4d-0000-1111-2222-333344445555"


def node(place: Path) -> None:
    """Make a harmless device: null's numbers as root, else a link to /dev/null."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.mknod(place, 0o20666, os.makedev(1, 3))
        place.chmod(0o666)
    else:
        place.symlink_to(os.devnull)


def text(place: Path, words: str = "") -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(words)
    return place


def link(place: Path, to: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(os.path.relpath(to, place.parent))


def nvidia(root: Path, *models: str) -> None:
    """Add NVIDIA's cards, and one part of the driver that is not below /usr."""
    for name in ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"):
        node(root / "dev" / name)
    for number, model in enumerate(models):
        node(root / f"dev/nvidia{number}")
        place = f"0000:0{number + 1}:00.0"
        words = NVIDIA.format(model=model, uuid=uuid(number), place=place.upper(), minor=number)
        text(root / "proc/driver/nvidia/gpus" / place / "information", words)
        folder = root / "sys/devices/pci0000:00" / place
        text(folder / "vendor", "0x10de\n")
        link(root / "sys/bus/pci/devices" / place, folder)
    text(root / "sys/devices/system/node/online", "0\n")
    text(root / "sys/devices/system/cpu/online", "0-3\n")


def amd(root: Path, *memories: int) -> None:
    """Add AMD's cards, each with so many bytes."""
    node(root / "dev/kfd")
    text(root / "usr/share/libdrm/amdgpu.ids", "# a list\n1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n")
    for number, memory in enumerate(memories):
        name = f"renderD{128 + number}"
        node(root / "dev/dri" / name)
        folder = root / f"sys/devices/pci0000:40/0000:4{number + 1}:00.0"
        render = folder / "drm" / name
        about = {"vendor": "0x1002", "device": "0x744c", "revision": "0xc8", "mem_info_vram_total": str(memory)}
        for file, words in (about | {"unique_id": f"{number + 1:016x}"}).items():
            text(folder / file, f"{words}\n")
        text(render / "dev", f"226:{128 + number}\n")
        link(render / "device", folder)
        link(root / "sys/class/drm" / name, render)
        link(root / f"sys/dev/char/226:{128 + number}", render)
        link(root / "sys/bus/pci/devices" / folder.name, folder)
    text(root / "sys/devices/virtual/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 4\n")
    link(root / "sys/class/kfd/kfd", root / "sys/devices/virtual/kfd/kfd")
    text(root / "opt/rocm-6.2/lib/libamdhip64.so.6")
