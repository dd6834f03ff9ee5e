"""What the notebook has told ``logging``: levels, silent loggers, and handlers that write to the cell.

Other handlers stay at home: they write to files or programs of that machine, or are of a class of the notebook's. A
handler that is a value has a lock, which can't travel: it gets another one where it arrives.

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import copyreg
import logging
import sys
from typing import Any

_OF_THIS_PROCESS = ("p2p_ipython", "IPKernelApp")
_USUAL: Any = logging.WARNING, logging.NOTSET, (), {}
_STREAMS = {"stdout", "stderr"}
_MAX_LOGGERS = 1000
_MAX_HANDLERS = 10

_changed: list[tuple[logging.Logger, int, bool, bool, list[logging.Handler]]] = []
"""Loggers that ``write_logs`` has changed, as they were."""


def read_logs(_logging: Any) -> Any:
    """Return the root's level, that of all, the root's handlers, and other loggers that were told something."""
    root = logging.root
    told: dict[str, tuple[int, bool, bool, tuple[_Facts, ...]]] = {}
    for logger in list(root.manager.loggerDict.values()):
        own = logger.__dict__  # of hundreds of loggers few were told something; a placeholder has none of it
        handlers = _all_facts(own["handlers"]) if own.get("handlers") else ()
        if handlers or own.get("level") or own.get("disabled") or not own.get("propagate", True):
            told[own["name"]] = own["level"], own["disabled"], own["propagate"], handlers
    told = {name: told[name] for name in list(told)[:_MAX_LOGGERS] if not name.startswith(_OF_THIS_PROCESS)}
    return root.level, root.manager.disable, _all_facts(root.handlers), told


def differing_logs(_logging: Any, now: Any) -> Any:
    """Return ``now`` without the levels that are the usual ones; None if it is nothing new."""
    level, disabled, handlers, told = now
    return (level if level != logging.WARNING else None, disabled or None, handlers, told) if now != _USUAL else None


_Facts = tuple[str, int, str | None, str | None, str]


def _all_facts(handlers: list[logging.Handler]) -> tuple[_Facts, ...]:
    return tuple(filter(None, map(_facts, handlers)))[:_MAX_HANDLERS]


def _facts(handler: logging.Handler) -> _Facts | None:
    """Return a handler's stream, level, format, format of dates, and style; None for one that stays here."""
    if type(handler) is not logging.StreamHandler or handler.filters:  # most say nothing, and there are dozens
        return None
    shape = handler.formatter or logging.Formatter()
    if type(shape) is not logging.Formatter:
        return None
    stream = str(getattr(handler.stream, "name", "")).strip("<>")  # a kernel's has no angles around it
    styles: Any = logging._STYLES
    style = next((name for name, (kind, _) in styles.items() if type(shape._style) is kind), "")
    return (stream, handler.level, shape._fmt, shape.datefmt, style) if stream in _STREAMS and style else None


def write_logs(_logging: Any, found: Any) -> None:
    """Tell this process's loggers the same. The runner puts the root back, ``put_back`` the others.

    A handler that a setup's cell has given to a stream stays the only one there.
    """
    level, disabled, handlers, told = found
    if level is not None:
        logging.root.setLevel(level)
    if disabled is not None:
        logging.disable(disabled)
    _add_handlers(logging.root, handlers)
    for name, (own, silent, upwards, handlers) in told.items():
        logger = logging.getLogger(name)
        _changed.append((logger, logger.level, logger.disabled, logger.propagate, list(logger.handlers)))
        logger.setLevel(own)
        logger.disabled, logger.propagate = silent, upwards
        _add_handlers(logger, handlers)


def _add_handlers(logger: logging.Logger, handlers: Any) -> None:
    served = {facts[0] for facts in map(_facts, logger.handlers) if facts is not None}
    for stream, least, text, dates, style in handlers:
        if stream not in served:
            handler = logging.StreamHandler(getattr(sys, stream) if stream in _STREAMS else None)
            handler.setLevel(least)
            handler.setFormatter(logging.Formatter(text, dates, style))
            logger.addHandler(handler)


def put_back() -> None:
    """Undo what ``write_logs`` has changed of loggers other than the root."""
    while _changed:
        logger, level, silent, upwards, handlers = _changed.pop()
        logger.setLevel(level)
        logger.disabled, logger.propagate = silent, upwards
        logger.handlers[:] = handlers


def handler_taken_apart(handler: logging.Handler) -> Any:
    """Reduce a handler to its attributes but the lock."""
    made_by: Any = copyreg.__newobj__  # type: ignore[attr-defined]
    attributes = {name: value for name, value in vars(handler).items() if name != "lock"}
    return made_by, (type(handler),), attributes, None, None, complete_handler


def complete_handler(handler: logging.Handler, attributes: dict[str, Any]) -> None:
    """Give a blank handler its attributes and a lock."""
    vars(handler).update(attributes)
    handler.createLock()
