"""A process that stands for a worker: it unpacks what it is sent, evaluates, and packs what comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from IPython.core.inputtransformer2 import TransformerManager

from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import Captured, capture_cell, freeze
from p2p_ipython.task.payload import Packed, unpack

_LOOP = """
import json, sys
from p2p_ipython.task.classes import forget_classes
from p2p_ipython.task.payload import pack_result, unpack

while line := sys.stdin.buffer.readline():
    asked = json.loads(line)
    body = sys.stdin.buffer.read(asked["size"])
    try:
        value = unpack(asked["segments"], body, {})
        names = value if isinstance(value, dict) else {"value": value}
        names.setdefault("__name__", "__main__")
        exec(asked["source"], names)
        found = eval(asked["expression"], names)
        packed = pack_result(found)
        answer, body = {"repr": repr(found), "segments": packed.segments}, packed.inline
    except BaseException as error:
        answer, body = {"repr": f"raised {error!r}", "segments": []}, b""
    forget_classes()
    value = names = found = None
    sys.stdout.buffer.write(json.dumps({**answer, "size": len(body)}).encode() + b"\\n" + body)
    sys.stdout.buffer.flush()
"""


class Answer(NamedTuple):
    """What the process found: as text, and as the bytes that it packed."""

    text: str
    segments: list[list[Any]]
    body: bytes

    def value(self) -> Any:
        """Unpack it here."""
        return unpack(self.segments, self.body, {})


class Elsewhere:
    """The process, started when it is first asked; ``close`` ends it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder
        )

    def ask(self, packed: Packed, expression: str, source: str = "") -> Answer:
        """Execute ``source`` among the names of ``packed`` (or with it as ``value``), then evaluate."""
        into, out = self._process.stdin, self._process.stdout
        assert into is not None
        assert out is not None
        asked = {
            "segments": packed.segments,
            "size": len(packed.inline),
            "expression": expression,
            "source": source,
        }
        into.write(json.dumps(asked).encode() + b"\n" + packed.inline)
        into.flush()
        answer = json.loads(out.readline())
        return Answer(answer["repr"], answer["segments"], out.read(answer["size"]))

    def close(self) -> None:
        self._process.communicate(timeout=30)


def notebook(source: str) -> dict[str, Any]:
    """A notebook's namespace, after a cell of ``source``."""
    namespace: dict[str, Any] = {"__name__": "__main__", "_ih": []}
    exec(source, namespace)
    return namespace


def capture(source: str, home: dict[str, Any]) -> Captured:
    return capture_cell(source, home, transform=TransformerManager().transform_cell)


def frozen(expression: str, home: dict[str, Any]) -> Packed:
    return freeze(capture(expression, home), BufferStore(0))


def at_home(expression: str, home: Mapping[str, Any]) -> str:
    """The ``repr`` of ``expression``, or the error."""
    try:
        return repr(eval(expression, dict(home)))
    except Exception as error:
        return f"raised {error!r}"


Ask = Callable[..., Answer]
