"""The words that a child of ``numpy.random.SeedSequence`` gives, without numpy.

``random`` is seeded before a task imports anything, also by workers that have no numpy. If it were numpy that makes the
words, their numbers would be others. The algorithm is O'Neill's; numpy promises not to change it, and a test compares
them.
"""

from __future__ import annotations

_WORD = 0xFFFFFFFF
_POOL = 4


def child_words(seed: int, index: int, count: int) -> list[int]:
    """Return ``SeedSequence(seed, spawn_key=(index,)).generate_state(count)``."""
    own = _words(seed)
    entropy = [*own, *[0] * (_POOL - len(own)), *_words(index)]
    pool = _mixed(entropy)
    hashed = _Hash(0x8B51F9DD, 0x58F38DED)
    return [hashed(pool[number % _POOL]) for number in range(count)]


def _words(number: int) -> list[int]:
    """Return a whole number as words of 32 bits, the lowest first; 0 is one word."""
    return [number >> shift & _WORD for shift in range(0, max(number.bit_length(), 1), 32)]


def _mixed(entropy: list[int]) -> list[int]:
    """Return the pool in which each word of ``entropy`` has changed each word. There are four of them, or more."""
    hashed = _Hash(0x43B0D7E5, 0x931E8875)
    pool = [hashed(word) for word in entropy[:_POOL]]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = _mix(pool[target], hashed(pool[source]))
    for word in entropy[_POOL:]:
        for target in range(_POOL):
            pool[target] = _mix(pool[target], hashed(word))
    return pool


class _Hash:
    """A hash of words, each by another constant than the last."""

    def __init__(self, constant: int, factor: int) -> None:
        self._constant = constant
        self._factor = factor

    def __call__(self, word: int) -> int:
        word ^= self._constant
        self._constant = self._constant * self._factor & _WORD
        word = word * self._constant & _WORD
        return word ^ word >> 16


def _mix(one: int, other: int) -> int:
    mixed = 0xCA01F9DD * one - 0x4973F715 * other & _WORD
    return mixed ^ mixed >> 16
