"""Records of loggers: sent home from a task, where the same loggers handle them.

In the task a chosen logger gets one handler, which sends, in place of those that it has: a record is shown by the
notebook's handlers only. Its level is the notebook's, as always (log_settings.py).

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_LOGGERS = 50
_MAX_NAME = 200
_MAX_TEXT = 10_000
_MAX_LINE = 10_000_000
_DAY = 24 * 3600

Send = Callable[[dict[str, Any]], bool]
"""Sends a record; returns whether it has."""

_TEXTS = {"logger": _MAX_NAME, "message": _MAX_TEXT, "filename": _MAX_NAME, "function": _MAX_NAME, "error": _MAX_TEXT}
FIELDS = (*_TEXTS, "level", "line", "created")
"""The parts of a record that travel."""


@dataclass
class _Runner:
    send: Send | None = None


runner = _Runner()
"""What the process that runs tasks does for them."""


@dataclass(frozen=True)
class Relay:
    """The loggers whose records are sent home, "" for the root; see ``around.Part``."""

    loggers: tuple[str, ...]

    def enter(self) -> Callable[[], None] | None:
        """Have them send; return what undoes it."""
        if runner.send is None:
            return None
        handler = _Sender(runner.send)
        before = []
        for name in self.loggers:
            logger = logging.getLogger(name or None)
            before.append((logger, list(logger.handlers), logger.propagate))
            logger.handlers[:], logger.propagate = [handler], False

        def undo() -> None:
            for logger, handlers, upwards in reversed(before):
                logger.handlers[:], logger.propagate = handlers, upwards

        return undo


class _Sender(logging.Handler):
    """Sends records; those that can't be sent are printed."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            if not self._send(facts_of(record, self)):
                sys.stderr.write(f"{self.format(record)}\n")
        except Exception:
            self.handleError(record)


def facts_of(record: logging.LogRecord, handler: logging.Handler) -> dict[str, Any]:
    """Return what travels of a record."""
    if record.exc_info and not record.exc_text:
        record.exc_text = (handler.formatter or logging.Formatter()).formatException(record.exc_info)
    return {
        "logger": record.name[:_MAX_NAME],
        "level": int(record.levelno),
        "message": record.getMessage()[:_MAX_TEXT],
        "filename": record.pathname[:_MAX_NAME],
        "line": int(record.lineno),
        "function": str(record.funcName or "")[:_MAX_NAME],
        "created": record.created,
        "error": str(record.exc_text or "")[:_MAX_TEXT],
    }


def read(content: Mapping[str, Any], chosen: tuple[str, ...], worker: str) -> tuple[logging.Logger, Any] | None:
    """Return a record that has come, and the logger that is to handle it; None for nonsense, and what nobody wants.

    ``worker`` is its attribute ``p2p_worker``. A record of a logger that isn't here is for the chosen one above it:
    loggers stay for good.
    """
    texts = {name: content.get(name) for name in _TEXTS}
    if not all(isinstance(text, str) and len(text) <= _TEXTS[name] for name, text in texts.items()):
        return None
    level, line, created = (content.get(name) for name in ("level", "line", "created"))
    if type(level) is not int or type(line) is not int or not isinstance(created, int | float):
        return None
    name = str(texts["logger"])
    above = max((each for each in chosen if not each or f"{name}.".startswith(f"{each}.")), key=len, default=None)
    if above is None or not (0 <= level <= 1000 and 0 <= line <= _MAX_LINE):
        return None
    known = isinstance(logging.root.manager.loggerDict.get(name), logging.Logger)
    record: Any = logging.LogRecord(
        name, level, str(texts["filename"]), line, texts["message"], None, None, str(texts["function"]) or None
    )
    record.exc_text = texts["error"] or None
    record.p2p_worker = worker
    if abs(created - time.time()) < _DAY:
        record.created, record.msecs = created, created % 1 * 1000
    return logging.getLogger((name if known else above) or None), record
