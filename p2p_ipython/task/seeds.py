"""Random numbers of a task: of a seed that the notebook gives, or of nobody's.

With a seed, task n of a view begins with child n of ``numpy.random.SeedSequence(seed)``: numpy's global generator is
seeded by it, ``random`` by the first 128 bits of its state, torch by the next 63. These bits need no numpy
(seed_sequence.py). So the results are the same on any number of workers, also if some of them lack it. Without a seed,
each task has a stream of its own that nobody can foretell.

The hidden generators of ``random``, ``numpy.random`` and sympy never travel, though ``random.random`` is a method of
one: otherwise tasks would draw the same numbers by accident.

A cell that the notebook waits for, on machines of one's own, draws on from where the notebook's seeded generators are,
and brings back how far it came.

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from p2p_ipython.task.on_import import forget, on_import
from p2p_ipython.task.seed_sequence import child_words

_NUMPY = "numpy.random.mtrand"
_HIDDEN = (
    ("random", "_inst"),
    (_NUMPY, "_rand"),
    ("sympy.core.random", "rng"),
    ("sympy.core.random", "_assumptions_rng"),
)
"""Generators behind functions: each with its module, and its name there."""


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


STATES = {"random": "random.getstate()", "numpy.random": "numpy.random.get_state()"}
"""By module: under which name the state of its global generator comes back. No cell binds a name like that."""


@dataclass(frozen=True, eq=False)
class States:
    """The global generators of a notebook as they are, by the names in ``STATES``; see ``around.Part``.

    Only for a task that the notebook waits for: it draws on from there, and the states come back. So no two draw the
    same.
    """

    states: Mapping[str, Any]

    def enter(self) -> Callable[[], None]:
        """Set those that are there, and numpy's once it is imported."""
        for name, state in self.states.items():
            if name == STATES["random"]:
                random.setstate(state)
            else:
                on_import(_NUMPY, partial(set_state, name, state))
        return forget


def state_of(name: str) -> Any:
    """Return the state of a global generator as plain data; None if there is none like numpy's first one.

    >>> state_of("random.getstate()") == random.getstate()
    True
    """
    if name == STATES["random"]:
        return random.getstate()
    module: Any = sys.modules.get(_NUMPY)
    state = module.get_state(legacy=False) if module is not None else {}
    return state if state.get("bit_generator") == "MT19937" else None


def set_state(name: str, state: Any) -> None:
    """Set a global generator. Raises what the generator raises."""
    if name == STATES["random"]:
        random.setstate(state)
    else:
        sys.modules[_NUMPY].set_state(state)


def _number(words: list[int]) -> int:
    return sum(word << 32 * place for place, word in enumerate(words))


def is_hidden(value: object) -> bool:
    """Whether ``value`` is the generator behind the functions of ``random``, or of a library."""
    return _place_of(value) is not None


def may_be_hidden(kind: type) -> bool:
    """Whether ``is_hidden`` may hold for one of ``kind``."""
    return kind is random.Random or kind.__module__ == _NUMPY


def hidden_taken_apart(value: object) -> tuple[Callable[..., Any], Any]:
    """Reduce a hidden generator: to the worker's own one."""
    return hidden, _place_of(value)


def hidden(module: str, name: str) -> Any:
    """Return the hidden generator of this process; what ``hidden_taken_apart`` makes calls it."""
    if (module, name) not in _HIDDEN:
        raise ValueError(f"{module}.{name} is no generator")
    return getattr(import_module(module), name)


def _place_of(value: object) -> tuple[str, str] | None:
    """Return the module of a hidden generator, and its name there; None for another value."""
    loaded = ((place, sys.modules.get(place[0])) for place in _HIDDEN)
    return next((place for place, module in loaded if module and getattr(module, place[1], None) is value), None)
