"""A kernel for virtual machines, and the first programs that it starts: without root, from the system or its packages.

A kernel that is installed is taken if this user may read it, with its modules. Else Debian's own for virtual machines
is fetched by apt-get, as is busybox, and unpacked, not installed.

Linux only.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.mechanisms.elf import libraries
from p2p_ipython.sandbox.mechanisms.install import install_with

PACKAGE = "linux-image-cloud-amd64"
"""The package that depends on Debian's kernel for virtual machines."""

_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "squashfs")
_APPLETS = ("sh", "mount", "insmod", "switch_root", "mkdir")
_BUSYBOX = "/bin/busybox"
_DEADLINE = 600

_INIT = f"""#!{_BUSYBOX} sh
b={_BUSYBOX}
$b mount -t devtmpfs dev /dev
for module in {{modules}}; do $b insmod /modules/$module.ko; done
$b mount -t squashfs -o ro /dev/vda /root && $b mount -t devtmpfs dev /root/dev && exec $b switch_root /root {{start}}
"""
"""Load what a disk needs, and start what is on the disk. When it fails, the kernel ends, and the machine with it."""


@dataclass(frozen=True)
class Kernel:
    """``image``: what the machine starts; ``modules``: the folder of its modules."""

    image: Path
    modules: Path


def prepare(folder: Path, start: str, say: Callable[[str], None]) -> None:
    """Put ``kernel`` and ``initrd`` into a folder. Raises ``ConfigError`` when there is no kernel to be had."""
    with tempfile.TemporaryDirectory(prefix="p2p-kernel-") as unpacked:
        kernel = installed() or _fetched(Path(unpacked), say)
        shutil.copyfile(kernel.image, folder / "kernel")
        busybox = _busybox(Path(unpacked), say)
        (folder / "initrd").write_bytes(gzip.compress(_initrd(kernel.modules, busybox, start), 6))


def installed(root: Path = Path("/")) -> Kernel | None:
    """Return the newest kernel below ``root`` that this user may read, with modules; one for machines first."""
    found = []
    for image in (root / "boot").glob("vmlinuz-*"):
        release = image.name.removeprefix("vmlinuz-")
        modules = next(
            (each for each in (root / "lib/modules", root / "usr/lib/modules") if (each / release).is_dir()), None
        )
        if modules is not None and os.access(image, os.R_OK):
            kernel = Kernel(image, modules / release)
            if all(_is_built_in(kernel.modules, name) or _file_of(kernel.modules, name) for name in _MODULES):
                numbers = [int(number) for number in re.findall(r"\d+", release)]
                found.append(("cloud" in release, numbers, kernel))
    return max(found, key=lambda each: each[:2])[2] if found else None


def _fetched(folder: Path, say: Callable[[str], None]) -> Kernel:
    """Fetch a kernel by apt-get, without installing it. Raises ``ConfigError``."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ConfigError(
            "there is no kernel for virtual machines that you may read",
            hint="Let your user read /boot/vmlinuz-*, or use a system that has Debian's packages.",
        )
    said = _run("apt-cache", "depends", "--important", PACKAGE)
    name = next(iter(re.findall(r"Depends: (linux-image-\S+)", said)), "")
    if not name:
        raise ConfigError(f"the package {PACKAGE} is not known here", hint="Run: sudo apt-get update")
    say(f"fetching the kernel {name} from Debian's packages")
    _unpack(name, folder)
    kernel = installed(folder)
    if kernel is None:
        raise ConfigError(f"the package {name} has no kernel that a virtual machine can use")
    return kernel


def _busybox(folder: Path, say: Callable[[str], None]) -> Path:
    """Return a busybox that can do what is needed. Raises ``ConfigError``."""
    here = shutil.which("busybox")
    if here is not None and set(_APPLETS) <= set(_run(here, "--list").split()):
        return Path(here)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ConfigError("busybox is not installed", hint=install_with("busybox"))
    say("fetching busybox from Debian's packages")
    _unpack("busybox-static", folder)
    return next(place for place in (folder / "bin/busybox", folder / "usr/bin/busybox") if place.exists())


def _unpack(package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        _run("apt-get", "download", "-qq", package, cwd=place)
        _run("dpkg-deb", "-x", *(str(each) for each in Path(place).glob("*.deb")), str(folder))


def _run(*command: str, cwd: str | None = None) -> str:
    """Run a program; return what it says. Raises ``ConfigError`` with its last words."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_DEADLINE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{command[0]} can't be run: {error}") from None
    if done.returncode:
        raise ConfigError(f"{' '.join(command[:3])} fails: {' '.join(done.stderr.split())[-500:]}")
    return done.stdout


# --- the first file system -----------------------------------------------------------------------------------------


def _initrd(modules: Path, busybox: Path, start: str) -> bytes:
    """Return the archive that the kernel unpacks and starts: busybox, modules, and a script."""
    packed = bytearray()
    made: set[str] = set()

    def folders(name: str) -> None:
        for parent in reversed(Path(name).parents):
            if str(parent) != "." and str(parent) not in made:
                made.add(str(parent))
                packed.extend(_entry(str(parent), 0o40755, b""))

    def add(name: str, data: bytes, mode: int = 0o100755) -> None:
        folders(name)
        packed.extend(_entry(name, mode, data))

    for name in ("dev", "root"):
        folders(f"{name}/x")
    add(_BUSYBOX[1:], busybox.read_bytes())
    for library in libraries([busybox]):
        add(str(library)[1:], library.read_bytes())
    order: list[str] = []
    for name in _MODULES:
        for each in _with_needed(modules, name):
            if each not in order:
                order.append(each)
                place = _file_of(modules, each)
                assert place is not None
                add(f"modules/{each}.ko", _unpacked(place), 0o100644)
    add("init", _INIT.format(modules=" ".join(order), start=start).encode())
    packed.extend(_entry("TRAILER!!!", 0, b""))
    return bytes(packed)


def _entry(name: str, mode: int, data: bytes) -> bytes:
    """Return a file as cpio's newc format has it."""
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % each for each in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def _file_of(modules: Path, name: str) -> Path | None:
    pattern = re.sub("[-_]", "[-_]", name)
    return next(iter((modules / "kernel").rglob(f"{pattern}.ko*")), None)


def _is_built_in(modules: Path, name: str) -> bool:
    try:
        text = (modules / "modules.builtin").read_text()
    except OSError:
        return False
    return re.search(rf"/{re.sub('[-_]', '[-_]', name)}\.ko$", text, re.MULTILINE) is not None


def _with_needed(modules: Path, name: str) -> list[str]:
    """Return a module and those that it needs, in the order of loading; none that is built in."""
    if _is_built_in(modules, name) or (place := _file_of(modules, name)) is None:
        return []
    found = re.search(rb"\0depends=([^\0]*)\0", b"\0" + _unpacked(place))
    needs = found[1].decode().split(",") if found and found[1] else []
    return [*(each for need in needs for each in _with_needed(modules, need)), name]


def _unpacked(place: Path) -> bytes:
    data = place.read_bytes()
    if place.suffix == ".xz":
        return lzma.decompress(data)
    if place.suffix == ".gz":
        return gzip.decompress(data)
    if place.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, timeout=60, check=True).stdout
    return data
