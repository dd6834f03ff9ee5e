"""Random numbers of a task: of a seed that the notebook gives, or of nobody's.

With a seed, task n of a view begins with child n of ``numpy.random.SeedSequence(seed)``: numpy's global generator is
seeded by it, ``random`` by the first 128 bits of its state, torch by the next 63. These bits need no numpy
(seed_sequence.py). So the results are the same on any number of workers, also if some of them lack it. Without a seed,
each task has a stream of its own that nobody can foretell.

The hidden generators of ``random`` and ``numpy.random`` never travel, though ``random.random`` is a method of one:
otherwise tasks would draw the same numbers by accident.

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from p2p_ipython.task.on_import import forget, on_import
from p2p_ipython.task.seed_sequence import child_words

_NUMPY = "numpy.random.mtrand"


@dataclass(frozen=True)
class Seed:
    """The seed of a view, and which of its tasks this is; see ``around.Part``."""

    seed: int
    index: int

    def enter(self) -> Callable[[], None]:
        """Seed the generators that are there, and the others once they are imported."""
        random.seed(_number(self._words()[:4]))
        on_import(_NUMPY, self._numpy)
        on_import("torch", self._torch)
        return forget

    def _numpy(self) -> None:
        child = sys.modules["numpy.random.bit_generator"].SeedSequence(self.seed, spawn_key=(self.index,))
        module = sys.modules[_NUMPY]
        module.set_state(module._MT19937(child).state)

    def _torch(self) -> None:
        sys.modules["torch"].manual_seed(_number(self._words()[4:]) >> 1)

    def _words(self) -> list[int]:
        return child_words(self.seed, self.index, 6)


def _number(words: list[int]) -> int:
    return sum(word << 32 * place for place, word in enumerate(words))


def is_hidden(value: object) -> bool:
    """Whether ``value`` is the generator behind the functions of ``random``, or of ``numpy.random``."""
    if value is random._inst:
        return True
    module = sys.modules.get(_NUMPY)
    return module is not None and value is module._rand


def may_be_hidden(kind: type) -> bool:
    """Whether ``is_hidden`` may hold for one of ``kind``."""
    return kind is random.Random or kind.__module__ == _NUMPY


def hidden_taken_apart(value: object) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Reduce a hidden generator: to the worker's own one."""
    name = ("random", "_inst") if value is random._inst else (_NUMPY, "_rand")
    return hidden, name


def hidden(module: str, name: str) -> Any:
    """Return the hidden generator of this process; what ``hidden_taken_apart`` makes calls it."""
    if (module, name) not in (("random", "_inst"), (_NUMPY, "_rand")):
        raise ValueError(f"{module}.{name} is no generator")
    return getattr(import_module(module), name)
