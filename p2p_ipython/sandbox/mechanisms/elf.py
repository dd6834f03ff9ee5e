"""Which shared libraries programs of this system need, and theirs in turn: by what ELF files say, see elf(5).

For 64-bit Linux, little-endian.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS = 1, 5
_LOADED = {"libc.so.6": ("libgcc_s.so.1",)}
"""What a library loads later, and doesn't say: the C library aborts a program when it can't, as a thread ends."""

_LARGEST = 1 << 24
"""Bytes of a table of names, or of sections, that are looked at."""


def libraries(files: Iterable[Path]) -> set[Path]:
    """Return the system's libraries that ``files`` need, and those that they need; of files that are ELF files."""
    known = _known()
    found: set[Path] = set()
    seen: set[str] = set()
    todo = list(files)
    while todo:
        file = todo.pop()
        for name in (*needed(file), *_LOADED.get(file.name, ())):
            if name not in seen:
                seen.add(name)
                place = Path(name) if name.startswith("/") else known.get(name)
                if place is not None and place.exists():
                    found.add(place)
                    todo.append(place)
    return found


def needed(path: Path) -> list[str]:
    """Return the names of what an ELF file says it needs, its interpreter's path among them; [] for other files."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if head[:6] != b"\x7fELF\x02\x01":
                return []
            start, size, count = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
            file.seek(start)
            table = file.read(size * count)
            parts = [struct.unpack_from("<II6Q", table, size * number) for number in range(count)]

            def section(kind: int) -> bytes:
                for part in parts:
                    if part[0] == kind:
                        file.seek(part[2])
                        return file.read(min(part[5], _LARGEST))
                return b""

            names = [section(_INTERPRETER).rstrip(b"\0").decode()]
            entries = list(struct.iter_unpack("<QQ", section(_DYNAMIC)[: len(section(_DYNAMIC)) // 16 * 16]))
            address = next((value for tag, value in entries if tag == _STRINGS), 0)
            for kind, _, offset, virtual, _, in_file, _, _ in parts:
                if kind == _LOAD and virtual <= address < virtual + in_file:
                    file.seek(offset + address - virtual)
                    strings = file.read(min(in_file - (address - virtual), _LARGEST))
                    ends = ((value, strings.find(b"\0", value)) for tag, value in entries if tag == _NEEDED)
                    names += [strings[begin:end].decode() for begin, end in ends]
            return [name for name in names if name]
    except (OSError, ValueError, struct.error):
        return []


def _known() -> dict[str, Path]:
    """Return where the system's linker finds a library, by name."""
    command = ["/sbin/ldconfig", "-p"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    found: dict[str, Path] = {}
    for name, kinds, place in re.findall(r"^\s+(\S+) \(([^)]*)\) => (\S+)$", said, re.MULTILINE):
        if "64" in kinds:
            found.setdefault(name, Path(place))
    return found
