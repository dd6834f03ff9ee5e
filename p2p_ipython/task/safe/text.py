"""Bounds on a JSON text, from its bytes, before anything is made of it.

A parser makes of two bytes an object of 200, follows nesting until the stack ends, and takes quadratic time for a long
number. Its cost can be told by counting: all that is done here is done by ``bytes``' own methods, at
about the cost of a copy of the text.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

from p2p_ipython.task.safe.parts import Incoming, Unreadable

MAX_DEPTH = 128
"""Deepest nesting of lists and objects. The parser's own limit is the caller's recursion limit, whatever that is."""

MAX_DIGITS = 32
"""Longest run of digits in a number: 64 bits have 20, a float's ``repr`` 17 and some zeros. More is tagged."""

_OBJECT, _LIST, _PAIR, _ITEM, _STRING = 300, 80, 180, 48, 64
"""Bytes that one of them takes at most besides its parts, while it is parsed: measured on CPython 3.11, rounded up."""

_STEP = 1 << 20
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_PARENTHESES = bytes.maketrans(b"[]{}", b"()()")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def check(text: bytes, incoming: Incoming) -> None:
    """Charge ``incoming`` with what parsing ``text`` takes. Raises ``Unreadable`` where a bound is passed.

    For text that is not JSON the figures hold up to where it breaks.
    """
    size = len(text)
    characters = size if text.isascii() and b"\\" not in text else 4 * size
    incoming.charge(2 * size + 2 * characters)  # this text, what is cut out of it; decoded, and its strings
    outside, strings = _outside_strings(text)
    objects, lists = outside.count(b"{"), outside.count(b"[")
    items = outside.count(b",") + objects + lists + 1
    incoming.charge(_OBJECT * objects + _LIST * lists + _PAIR * outside.count(b":") + _ITEM * items + _STRING * strings)
    if b"0" * (MAX_DIGITS + 1) in outside.translate(_ZEROS):
        raise Unreadable("a number in it is too long")
    if objects + lists > MAX_DEPTH:
        _check_depth(outside.translate(_PARENTHESES, _NO_BRACKETS))


def _outside_strings(text: bytes) -> tuple[bytes, int]:
    """Return the part of ``text`` outside its strings, and the number of its strings."""
    if b'"' not in text:
        return text, 0
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # in this order: pairs count from the left
    found: list[bytes] = []
    inside = quotes = 0
    for start in range(0, len(text), _STEP):  # in steps: a list of all strings' bytes would take 15 times the text
        parts = text[start : start + _STEP].split(b'"')
        found.append(b"".join(parts[inside::2]))
        quotes += len(parts) - 1
        inside ^= (len(parts) - 1) & 1
    return b"".join(found), quotes // 2


def _check_depth(brackets: bytes) -> None:
    """Take the innermost pairs out, again and again: as often as the deepest nesting."""
    for _ in range(MAX_DEPTH):
        before = len(brackets)
        brackets = brackets.replace(b"()", b"")
        if not brackets:
            return
        if len(brackets) == before:
            break
    raise Unreadable(f"it is nested more than {MAX_DEPTH} deep, or its brackets don't match")
