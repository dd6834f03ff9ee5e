"""Source: the text of the cells and scripts in which code that travels is defined.

Python keeps a cell's text in ``linecache``, under a name that its code carries. The text travels with the code, once a
pickle, and is put there on the other side: tracebacks and warnings show lines, and ``inspect`` finds sources. Only the
texts of what is sent travel. Larger ones are buffers, which go to a worker once.

On a worker the text is forgotten when the task ends. A name that is there already keeps its text: a result doesn't
change it.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import linecache
import os
import pickle
import sys
from types import CodeType
from typing import Any

_MAX_TEXT = 1 << 20
"""Longest text that travels, bytes. The code of a longer one arrives without."""

_MAX_ARRIVED = 32 << 20
"""Longest texts that are kept in all, bytes. A client's stay until others take their place."""

_UNNAMED = "<dynamic-code>"
_FILE_NAME = 10
"""The place of the file's name among the arguments of ``CodeType``; cloudpickle 3.0 has the path there."""

_STDLIB = os.path.dirname(os.__file__) + os.sep
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_INLINE = 4 << 10
"""From this size on a text is a buffer of its own, bytes."""


class SourceBytes(bytes):
    """The bytes of a text that travels as a buffer. A task has it under its hash, however small it is."""


class Source:
    """A text under the name that code carries; ``kind`` and ``label`` are its name for people, if it has one."""

    def __init__(self, name: str, kind: str, label: str, text: bytes) -> None:
        self.name = name
        self.kind = kind
        self.label = label
        self.text = text

    def __reduce__(self) -> Any:
        text = pickle.PickleBuffer(self.text) if len(self.text) >= _INLINE else bytes(self.text)
        return arrive, (self.name, self.kind, self.label, text)


_sent: dict[str, tuple[object, Source | None]] = {}
"""By the name that code has here: the entry of ``linecache``, and what was made of it."""

_arrived: dict[str, Source] = {}


def source_of(name: str) -> Source | None:
    """Return the text that code of the file ``name`` was compiled from, if it is known here."""
    entry = linecache.cache.get(name)
    known = _sent.get(name)
    if known is not None and known[0] is entry:
        return known[1]
    if (there := _arrived.get(name)) is not None:
        return there
    text = b"" if _is_library(name) else "".join(linecache.getlines(name)).encode("utf-8", "surrogatepass")
    entry = linecache.cache.get(name)
    found = None
    if 0 < len(text) <= _MAX_TEXT:
        kind, label = _for_people(name)
        # A cell has no file: its entry has no time. A file's folder is nobody's business.
        is_cell = bool(label) or (entry is not None and len(entry) > 1 and entry[1] is None)
        found = Source(name if is_cell else os.path.basename(name), kind, label, SourceBytes(text))
    _sent[name] = entry, found
    return found


def code_taken_apart(code: CodeType, reduced: Any) -> Any:
    """Change ``reduced``, as cloudpickle takes ``code`` apart, to what brings its text along and keeps its name."""
    source = source_of(code.co_filename)
    if source is not None:
        name = source.name
    else:
        name = sys.intern(code.co_filename) if code.co_filename.startswith("<") else _UNNAMED
    make, arguments = reduced
    arguments = (*arguments[:_FILE_NAME], name, *arguments[_FILE_NAME + 1 :])
    return (make, arguments) if source is None else (code_with_source, (source, *arguments))


def code_with_source(_source: Source, *arguments: Any) -> CodeType:
    """Return the code that ``arguments`` make; its text has arrived before."""
    return CodeType(*arguments)


def arrive(name: str, kind: str, label: str, text: Any) -> Source:
    """Put a text where Python looks for the lines of the file ``name``."""
    source = Source(name, kind, label, SourceBytes(text))
    if name not in linecache.cache:
        lines = source.text.decode("utf-8", "surrogatepass").splitlines(keepends=True)
        linecache.cache[name] = (len(source.text), None, lines, name)
        _arrived[name] = source
        while sum(len(each.text) for each in _arrived.values()) > _MAX_ARRIVED:
            oldest = next(iter(_arrived))
            linecache.cache.pop(oldest, None)
            del _arrived[oldest]
    return source


def forget_sources() -> None:
    """Drop the texts that have arrived."""
    for name in _arrived:
        linecache.cache.pop(name, None)
    _arrived.clear()
    _sent.clear()


def name_for_people(name: str) -> tuple[str, str] | None:
    """Return how a traceback calls the file ``name``, as ``("Cell", "In[3]")``, if it has arrived with such a name."""
    source = _arrived.get(name)
    return (source.kind, source.label) if source is not None and source.label else None


def _is_library(name: str) -> bool:
    """Whether the worker has the file itself, if it has the library; a function of one may travel with the task."""
    return name.startswith(_STDLIB) or not _INSTALLED.isdisjoint(name.replace("\\", "/").split("/"))


def _for_people(name: str) -> tuple[str, str]:
    """Ask the notebook's shell, if there is one, how its tracebacks call the file ``name``."""
    try:
        found: tuple[str, str] | None = sys.modules["IPython"].get_ipython().compile.format_code_name(name)
    except Exception:
        return "", ""
    return found or ("", "")
