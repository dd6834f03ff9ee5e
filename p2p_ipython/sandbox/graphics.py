"""The graphics cards of this machine, and what a task needs to compute on one: device nodes, libraries, parts of /sys.

NVIDIA's cards are named in /proc/driver/nvidia, AMD's in /sys/class/drm. A driver's libraries are below /usr, which all
sandboxes show, or in the places that ``_OUTSIDE`` and LD_LIBRARY_PATH name. Nothing here opens a device.

Tested with stand-in nodes below another ``root``; nobody has seen it on a real card yet.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol.messages import CardKind

NVIDIA, AMD = "nvidia", "amd"

CUDA, ROCR = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
"""Tell the runtimes of NVIDIA and of AMD which cards to use. An empty one hides all."""

_SHARED = {
    NVIDIA: ("dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-uvm-tools", "dev/nvidia-modeset"),
    AMD: ("dev/kfd",),
}
"""The nodes that all cards of a maker share."""

_SYSTEM = ("sys/devices/system/cpu", "sys/devices/system/node")
_SYSTEM_OF = {NVIDIA: _SYSTEM, AMD: (*_SYSTEM, "sys/devices/virtual/kfd", "sys/module/amdgpu")}
"""What runtimes read of /sys besides a card's own folder: processors, and the cards' topology."""

_LINKS_OF = {NVIDIA: (), AMD: ("sys/class/kfd/kfd",)}

_OUTSIDE = {NVIDIA: ("etc/OpenCL/vendors",), AMD: ("etc/OpenCL/vendors", "opt/rocm*", "opt/amdgpu*")}
"""Where parts of a driver are that are not below /usr."""

_LIBRARY = re.compile(r"lib(cuda|cudadebugger|nvidia-.+|nvcuvid|nvoptix|amdhip64|hsa-runtime64)\.so(\.[\d.]+)?")

_AMD_VENDOR = "0x1002"


@dataclass(frozen=True)
class Card:
    """A graphics card. ``which``: its UUID, or its number among those of its maker.

    ``memory``: bytes, 0 if unknown. ``nodes``: its own device nodes. ``folder``: its folder in /sys, if there is one.
    ``links``: the names that lead there.
    """

    maker: str
    name: str
    memory: int
    which: str
    nodes: tuple[Path, ...]
    folder: Path | None = None
    links: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Graphics:
    """The cards that a task may use, on a system whose files are below ``root``: "/", but for tests.

    ``searched``: the folders of LD_LIBRARY_PATH.
    """

    cards: tuple[Card, ...]
    root: Path = Path("/")
    searched: tuple[str, ...] = ()

    def divided(self, slots: int) -> list[Graphics]:
        """Return the cards of each slot. A card is one slot's alone, so all get some. Raises ``ConfigError``."""
        if slots > len(self.cards):
            many = "there is one graphics card" if len(self.cards) == 1 else f"there are {len(self.cards)} cards"
            raise ConfigError(
                f"{slots} slots can't have a graphics card each: {many}",
                hint=f"Lend {len(self.cards)} at most (--slots), or run a second worker without --gpu for other tasks.",
            )
        return [replace(self, cards=self.cards[number::slots]) for number in range(slots)]

    def variables(self) -> dict[str, str]:
        """Return the variables that name a task's cards to the runtimes; those of a maker without one hide the rest."""
        chosen = {maker: ",".join(card.which for card in self.cards if card.maker == maker) for maker in (NVIDIA, AMD)}
        # HIP, AMD's own runtime, heeds CUDA's variable, too: with AMD's cards alone it is better not set.
        cuda = {CUDA: chosen[NVIDIA]} if chosen[NVIDIA] or not chosen[AMD] else {}
        return {**cuda, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", ROCR: chosen[AMD]}  # as NVIDIA's cards are numbered here

    def nodes(self) -> Iterator[tuple[Path, Path]]:
        """Yield the device nodes, each with the place where tasks see it."""
        for maker in self._makers():
            yield from self._there(_SHARED[maker])
        for card in self.cards:
            for node in card.nodes:
                yield node, self._seen(node)

    def files(self) -> Iterator[tuple[Path, Path]]:
        """Yield the folders and files to show read-only, each with the place where tasks see it."""
        found: dict[Path, None] = {}
        for maker in self._makers():
            found |= dict.fromkeys(place for place, _ in self._there((*_OUTSIDE[maker], *_SYSTEM_OF[maker])))
        found |= dict.fromkeys(card.folder for card in self.cards if card.folder is not None)
        for folder in map(Path, self.searched):
            if folder.is_absolute() and not folder.is_relative_to("/usr"):
                place = self.root / folder.relative_to("/")
                found |= dict.fromkeys(file for file in _in(place) if _LIBRARY.fullmatch(file.name))
        for file in found:
            yield file, self._seen(file)

    def links(self) -> Iterator[tuple[Path, str]]:
        """Yield the symbolic links to make in /sys, each with what it leads to."""
        names = [*(self.root / name for maker in self._makers() for name in _LINKS_OF[maker])]
        names += [link for card in self.cards for link in card.links]
        for name in dict.fromkeys(names):
            if name.is_symlink():
                yield self._seen(name), os.readlink(name)

    def groups(self) -> tuple[int, ...]:
        """Return the groups that one of has to be a member to open the nodes, as "render"."""
        found: dict[int, None] = {}
        for node, _ in self.nodes():
            about = node.stat()
            if about.st_mode & 0o006 != 0o006 and about.st_mode & 0o060 and about.st_gid:
                found[about.st_gid] = None
        return tuple(found)

    def _makers(self) -> list[str]:
        return list(dict.fromkeys(card.maker for card in self.cards))

    def _there(self, names: tuple[str, ...]) -> Iterator[tuple[Path, Path]]:
        for name in names:
            for place in sorted(self.root.glob(name)) if "*" in name else [self.root / name]:
                if place.exists():
                    yield place, self._seen(place)

    def _seen(self, place: Path) -> Path:
        return Path("/") / place.relative_to(self.root)


def kinds(cards: Iterable[Card]) -> tuple[CardKind, ...]:
    """Return what an offer says of cards: equal ones together, the most memory first."""
    counts = Counter((card.name, card.memory) for card in cards)
    found = (CardKind(number, name, memory) for (name, memory), number in counts.items())
    return tuple(sorted(found, key=lambda kind: -kind.memory))


def find(
    root: Path = Path("/"),
    environ: Mapping[str, str] = os.environ,
    memories: Callable[[], Mapping[str, int]] | None = None,
) -> Graphics:
    """Return the cards of this machine that its user may lend: those that their own variables name, if these are set.

    ``memories`` returns the bytes of NVIDIA's cards by UUID. Raises ``ConfigError`` if there is no card.
    """
    root, cards = root.resolve(), list[Card]()
    for variable, found in ((CUDA, _nvidia(root, memories or _nvidia_memories)), (ROCR, _amd(root))):
        wanted = [word.strip() for word in environ[variable].split(",")] if variable in environ else None
        cards += [card for number, card in enumerate(found) if wanted is None or _is_named(card, number, wanted)]
    if not cards:
        hidden = [name for name in (CUDA, ROCR) if name in environ]
        raise ConfigError(
            f"there is no graphics card to lend{', of those in ' + ' and '.join(hidden) if hidden else ''}",
            hint="--gpu lends NVIDIA's and AMD's cards whose driver is loaded: nvidia-smi or rocminfo lists them.",
        )
    if any(card.maker == NVIDIA for card in cards) and not (root / "dev/nvidia-uvm").exists():
        raise ConfigError(
            "NVIDIA's driver is loaded, but /dev/nvidia-uvm is not there, which CUDA needs",
            hint="Make it: nvidia-modprobe -u -c 0",
        )
    searched = tuple(filter(None, environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)))
    return Graphics(tuple(cards), root, searched)


def _is_named(card: Card, number: int, wanted: list[str]) -> bool:
    return any(word == str(number) or (len(word) > len("GPU-") and card.which.startswith(word)) for word in wanted)


def _nvidia(root: Path, memories: Callable[[], Mapping[str, int]]) -> list[Card]:
    """Return NVIDIA's cards, in the order of their places on the bus."""
    cards, known = [], None
    for number, folder in enumerate(_in(root / "proc/driver/nvidia/gpus")):
        lines = (line.partition(":") for line in _text(folder / "information").splitlines())
        told = {name.strip(): value.strip() for name, _, value in lines}
        node = root / f"dev/nvidia{told.get('Device Minor', '?')}"
        if not _is_device(node):
            continue
        known = memories() if known is None else known
        uuid = told.get("GPU UUID", "")
        which = uuid if uuid.startswith("GPU-") and "?" not in uuid else str(number)
        link = root / "sys/bus/pci/devices" / told.get("Bus Location", folder.name).lower()
        memory = known.get(uuid, 0)
        folders = (link.resolve(), (link,)) if link.is_symlink() and link.exists() else (None, ())
        cards.append(Card(NVIDIA, told.get("Model") or "NVIDIA card", memory, which, (node,), *folders))
    return cards


def _nvidia_memories() -> dict[str, int]:
    """Return the memory of NVIDIA's cards by UUID, if the package nvidia-ml-py is installed."""
    try:
        import pynvml  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return {}
    found = {}
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            for number in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(number)
                uuid = pynvml.nvmlDeviceGetUUID(handle)
                memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
                found[uuid if isinstance(uuid, str) else uuid.decode()] = memory
        finally:
            pynvml.nvmlShutdown()
    return found


def _amd(root: Path) -> list[Card]:
    """Return AMD's cards that compute: in the order of their render nodes, as the topology has them."""
    cards: list[Card] = []
    if not _is_device(root / "dev/kfd"):
        return cards
    drm = root / "sys/class/drm"
    renders = [place for place in _in(drm) if re.fullmatch(r"renderD\d+", place.name)]
    for place in sorted(renders, key=lambda each: int(each.name.removeprefix("renderD"))):
        device, node = place / "device", root / "dev/dri" / place.name
        if _text(device / "vendor") != _AMD_VENDOR or not _is_device(node):
            continue
        number, folder = len(cards), device.resolve()
        unique, numbers = _text(device / "unique_id"), _text(place / "dev")
        which = f"GPU-{unique}" if re.fullmatch(r"(?!0+$)[0-9a-f]{16}", unique) else str(number)
        links = [place, root / "sys/dev/char" / numbers, root / "sys/bus/pci/devices" / folder.name]
        memory = _text(device / "mem_info_vram_total")
        bytes_ = int(memory) if memory.isdecimal() else 0
        cards.append(Card(AMD, _amd_name(root, device), bytes_, which, (node,), folder, tuple(links)))
    return cards


def _amd_name(root: Path, device: Path) -> str:
    """Return a card's name: its own, or that of libdrm's list, which names chip and revision."""
    if name := _text(device / "product_name"):
        return name
    chip, revision = (_text(device / name).removeprefix("0x").upper() for name in ("device", "revision"))
    for line in _text(root / "usr/share/libdrm/amdgpu.ids", 1 << 20).splitlines():
        words = [word.strip() for word in line.split(",", 2)]
        if words[:2] == [chip, revision]:
            return words[2]
    return f"AMD card {chip}".strip()


def _in(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _text(file: Path, most: int = 4096) -> str:
    with contextlib.suppress(OSError), file.open("rb") as opened:
        return opened.read(most).decode("utf-8", "replace").strip()
    return ""


def _is_device(node: Path) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISCHR(node.stat().st_mode)
    return False
