"""Text for people: strangers' text made harmless, and numbers of things. Pure; imports next to nothing."""

from __future__ import annotations

import unicodedata


def plain(text: str, limit: int) -> str:
    """Return ``text`` without control, format, surrogate and line-breaking characters, cut to ``limit`` characters.

    Format characters include those that reverse the reading direction, which could make one name look like
    another.
    """
    return "".join(c for c in text[: 4 * limit] if not _controls(unicodedata.category(c)))[:limit]


def _controls(category: str) -> bool:
    """Whether characters of a Unicode category are control, format, surrogate, unassigned, or break lines."""
    return category[0] == "C" or category in ("Zl", "Zp")


def count(number: int, noun: str) -> str:
    """Name a number of things: "1 task", "2 tasks"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def size_words(size: float) -> str:
    """Return a size for people, in units of 1024."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"
