"""PROTOCOL.md's tables of frames and states as data, so that tests compare them with code and with traffic.

A row of a table of frames is ``| kind | field | type | meaning |``; an empty kind is that of the row above. Types::

    text · text ≤ N              whole number N to M · number N to M       refs ≤ N (texts of at most 128)
    "a", "b" or "c"              true · true or false                      segments N to M (pairs [size, ref])
    object · objects N to M      … , optional: the field may be missing
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "PROTOCOL.md").read_text(encoding="utf-8")
MAX_REF, MAX_SEGMENT = 128, 1 << 36


@dataclass(frozen=True)
class Field:
    """A field of a frame: its name, its type in the page's words, and whether it may be missing."""

    name: str
    type: str
    optional: bool

    def takes(self, value: Any) -> bool:
        """Whether a value is of the type."""
        match kind := self.type.split()[0]:
            case "text":
                return isinstance(value, str) and len(value) <= _last(self.type, default=1 << 20)
            case "whole" | "number":
                right = type(value) is int or (kind == "number" and type(value) is float)
                least, most = _numbers(self.type)
                return right and least <= value <= most
            case "refs":
                refs = isinstance(value, list) and all(isinstance(ref, str) and len(ref) <= MAX_REF for ref in value)
                return refs and len(value) <= _last(self.type)
            case "segments":
                least, most = _numbers(self.type)
                return isinstance(value, list) and least <= len(value) <= most and all(map(_is_segment, value))
            case "true":
                return value is True or (value is False and self.type == "true or false")
            case "object":
                return isinstance(value, dict)
            case "objects":
                least, most = _numbers(self.type)
                objects = isinstance(value, list) and all(isinstance(each, dict) for each in value)
                return objects and least <= len(value) <= most
        return value in re.findall(r'"(\w+)"', self.type)


def rows(after: str) -> Iterator[list[str]]:
    """The rows of the first table after some words."""
    table = re.search(r"(?:^\|.*\n)+", PAGE[PAGE.index(after) :], re.M)
    assert table is not None
    for line in table[0].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def fields_of(sender: str) -> dict[str, dict[str, Field]]:
    """The frames that the "client", the "worker" or "either end" may send: their fields, by kind and name."""
    found: dict[str, dict[str, Field]] = {}
    kinds: list[str] = []
    for kind, names, type_, *_ in rows(f"\nFrom {'' if sender == 'either end' else 'the '}{sender}:\n"):
        kinds = re.findall(r"`([\w.]+)`", kind) or kinds
        for one in kinds:
            fields = found.setdefault(one, {})
            for name in re.findall(r"`(\w+)`", names):
                fields[name] = Field(name, type_.removesuffix(", optional"), type_.endswith(", optional"))
    return found


def wrong_with(sender: str, header: dict[str, Any]) -> str:
    """What the tables don't allow about a frame of that sender; "" if nothing."""
    known = fields_of("either end" if header["t"].startswith("link.") else sender).get(header["t"])
    if known is None:
        return f"the kind {header['t']}"
    extra = header.keys() - known.keys() - {"t"}
    missing = {name for name, field in known.items() if not field.optional} - header.keys()
    bad = {name for name, field in known.items() if name in header and not field.takes(header[name])}
    return f"{header['t']}: {extra=} {missing=} {bad=}" if extra or missing or bad else ""


def _is_segment(value: Any) -> bool:
    match value:
        case [int(size), None]:
            return 0 <= size <= MAX_SEGMENT
        case [int(size), str(ref)]:
            return 0 <= size <= MAX_SEGMENT and len(ref) <= MAX_REF
    return False


def _numbers(text: str) -> list[int]:
    """Whole numbers in a type: ``10,000``, ``2^36``."""
    found = re.findall(r"(\d[\d,]*)(?:\^(\d+))?", text)
    return [int(base.replace(",", "")) ** int(power or 1) for base, power in found]


def _last(text: str, default: int = 0) -> int:
    return (_numbers(text) or [default])[-1]
