"""Several values of a task as plain data: those of which the codec brings exactly the same back, and that cost little.

Nothing of them is a pickle, so reading them runs nothing. A value that is left out travels as it did before: one that
is no plain data, that would come back as something else (named tuples, read-only arrays, views of a dict), that has a
part twice, or that has many parts, which take the codec longer than pickle. Arrays and frames of any size have few.

The runner imports this inside the sandbox: standard library only.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Any

from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.task.safe import arrays, containers, frames
from p2p_ipython.task.safe.codec import BUDGET, Encoder, Unsupported, decoded, dumps
from p2p_ipython.task.safe.parts import Unreadable

MAX_ITEMS = 10_000
MAX_TEXT = 1 << 20
"""Parts, and characters of text, of all values of a task together: a millisecond's work."""

_CHANGEABLE = {list, dict, set, bytearray, collections.deque, collections.OrderedDict, collections.defaultdict}
_CHANGEABLE |= {collections.Counter}
_VIEWS = frozenset(map(type, ({}.keys(), {}.values(), {}.items())))


class Values:
    """Values that are taken one after the other. They must not change between ``take`` and the use of ``buffers``."""

    def __init__(self) -> None:
        self.changeable: dict[int, Any] = {}
        """Parts of them that can be changed, by their id: what else refers to one of these has another copy of it."""
        self._texts: list[str] = []
        self._numbers: dict[int, int] = {}  # of those that can be changed, by their id
        self._encoder = _Careful()

    def __len__(self) -> int:
        return len(self._texts)

    def take(self, value: object) -> int | None:
        """Take a value, and return its number among them; None if it is left out."""
        if (known := self._numbers.get(id(value))) is not None:
            return known
        encoder = self._encoder
        encoder.parts = {}
        before = len(encoder.data.buffers), encoder._items, encoder._text
        try:
            text = dumps(encoder.value(value, 1))
        except Exception:  # of arrays and frames of kinds that nobody has seen here, too
            encoder._open.clear()
            del encoder.data.buffers[before[0] :]
            encoder._items, encoder._text = before[1:]
            return None
        if not self.changeable.keys().isdisjoint(encoder.parts):
            del encoder.data.buffers[before[0] :]
            return None
        if id(value) in encoder.parts:
            self._numbers[id(value)] = len(self._texts)
        self.changeable |= encoder.parts
        self._texts.append(text)
        return len(self._texts) - 1

    def more(self, values: Iterable[object]) -> tuple[bytes, list[memoryview], dict[int, Any]] | None:
        """Return the segments of all that it has and of ``values``, and the changeable parts of these.

        It keeps none of them. Return None if one of ``values`` is left out, or is one that it has.
        """
        encoder = self._encoder
        buffers, items, text = len(encoder.data.buffers), encoder._items, encoder._text
        kept = self.changeable, self._numbers, len(self._texts)
        self.changeable, self._numbers = dict(self.changeable), dict(self._numbers)
        try:
            for value in values:
                if self.take(value) != len(self._texts) - 1:
                    return None
            own = {key: part for key, part in self.changeable.items() if key not in kept[0]}
            return self.text, list(self.buffers), own
        finally:
            self.changeable, self._numbers = kept[:2]
            del self._texts[kept[2] :]
            del encoder.data.buffers[buffers:]
            encoder._items, encoder._text = items, text

    @property
    def text(self) -> bytes:
        """The first segment."""
        return f"[{','.join(self._texts)}]".encode("utf-8", "surrogatepass")

    @property
    def buffers(self) -> list[memoryview]:
        """The other segments: views of the values."""
        return self._encoder.data.buffers


def read(pieces: Sequence[Buffer]) -> list[Any]:
    """Return the values, by their segments' bytes. Raises ``Unreadable``, and ``ImportError`` without numpy or pandas.

    Raises what numpy and pandas raise, too: the bytes are a stranger's.
    """
    from p2p_ipython.errors import NameMissing

    try:
        values = decoded(pieces, lambda: BUDGET)
    except NameMissing as error:
        raise (error.__cause__ or error) from None
    if type(values) is not list:
        raise Unreadable("the values are no list")
    return values


class _Careful(Encoder):
    """Takes no part twice, and nothing that comes back as something else."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[int, Any] = {}

    def value(self, value: Any, depth: int) -> Any:
        cls = type(value)
        if cls in _CHANGEABLE:
            self._once(value)
        elif cls in _VIEWS or containers.is_named_tuple(cls):
            raise Unsupported(value)
        elif arrays.numpy_type(cls) == "array":
            self._once(value)
            if not value.flags.writeable:
                raise Unsupported(value)
        elif frames.pandas_type(cls) in ("frame", "series"):
            self._once(value)
        return super().value(value, depth)

    def _once(self, value: Any) -> None:
        if id(value) in self.parts:
            raise Unsupported(value, "it is there twice")
        self.parts[id(value)] = value

    def _spend(self, value: object, items: int, text: int) -> None:
        super()._spend(value, items, text)
        if self._items > MAX_ITEMS or self._text > MAX_TEXT:
            raise Unsupported(value, "it has many parts")
