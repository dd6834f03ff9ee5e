"""What a built-in error consists of besides its words, as plain data: its arguments and its attributes.

A worker that isn't trusted describes an error in words (``TaskFailure``), and sends these facts beside them by the safe
codec. ``facts`` makes them of an error; ``with_facts`` makes an error of a built-in class of them. Nothing that they
say is looked up or called, and nothing is taken that would make showing the error dangerous: positions of a syntax
error become as many spaces, and its file would be read.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from p2p_ipython.task import safe

_MAX_ARGS = 100
_MAX_ATTRIBUTES = 50
_MAX_NAME = 100
_MAX_NOTES = 100
_MAX_TEXT = 64 << 10
_MAX_DEPTH = 10
_MAX_ERRORS = 1000
"""Errors of a group, with those of the groups in it."""

_SLOTS: tuple[tuple[type[BaseException], tuple[str, ...]], ...] = (
    (OSError, ("errno", "strerror", "filename", "filename2")),
    (ImportError, ("name", "path")),
    (NameError, ("name",)),
    (AttributeError, ("name",)),
    (StopIteration, ("value",)),
    (SystemExit, ("code",)),
    (SyntaxError, ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset")),
)
"""Attributes that are no part of an error's dict."""


def facts(error: BaseException) -> Any:
    """Return an error's facts, for ``safe.encode``. What isn't plain data becomes its text. Raises nothing usual.

    Its class and its words are in the description that they go with. Those of a group's errors are among the facts.
    """
    return _facts(error, 0, [_MAX_ERRORS])


def _facts(error: BaseException, depth: int, left: list[int]) -> dict[str, Any]:
    left[0] -= 1
    found: dict[str, Any] = {}
    notes = list(getattr(error, "__notes__", None) or ())
    if isinstance(error, BaseExceptionGroup):
        found["args"] = (str(error.message)[:_MAX_TEXT],)
        found["group"] = inside = []
        for each in error.exceptions if depth < _MAX_DEPTH else ():
            if left[0] <= 0:
                break
            inside.append(_words(each) | _facts(each, depth + 1, left))
        if more := len(error.exceptions) - len(inside):
            notes.insert(0, f"{more} of its {len(error.exceptions)} errors stayed on the worker")
    else:
        found["args"] = tuple(_plain(each) for each in error.args[:_MAX_ARGS])
    names = dict.fromkeys(name for cls, names in _SLOTS if isinstance(error, cls) for name in names)
    values = {name: getattr(error, name, None) for name in names}
    values |= {name: value for name, value in list(vars(error).items()) if _is_own(type(error), name)}
    found["attributes"] = {name: _plain(value) for name, value in list(values.items())[:_MAX_ATTRIBUTES]}
    if notes:
        found["notes"] = [str(note)[:_MAX_TEXT] for note in notes[:_MAX_NOTES]]
    return found


def _words(error: BaseException) -> dict[str, Any]:
    """Return of an error in a group what a description says of others."""
    return {
        "class": f"{type(error).__module__}.{type(error).__qualname__}"[: 5 * _MAX_NAME],
        "bases": [cls.__name__ for cls in type(error).__mro__ if cls.__module__ == "builtins"],
        "text": str(error)[:_MAX_TEXT],
    }


def _plain(value: object) -> object:
    try:
        safe.encode(value)
    except safe.Unsupported:
        return repr(value)[:_MAX_TEXT]
    return value


def with_facts(cls: type[BaseException], found: object) -> BaseException | None:
    """Return an error of the built-in class ``cls`` with these facts; None if they make no sense."""
    if not isinstance(found, dict):
        return None
    try:
        error = _made(cls, found)
        if error is not None:
            set_attributes(error, found)
            return error if isinstance(str(error), str) and repr(error) else None
    except Exception:  # facts of a stranger in a constructor
        return None
    return None


def facts_in(cls: type[BaseException], message: str) -> dict[str, Any]:
    """Return the facts of a built-in error that are in its words, for one that came without; {} if none are."""
    if issubclass(cls, KeyError):
        try:
            return {"args": (ast.literal_eval(message[:_MAX_TEXT]),)}
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return {}
    if issubclass(cls, OSError) and (said := _OF_FILES.fullmatch(message)) is not None:
        number, words, *names = said.groups()
        files = [ast.literal_eval(name) for name in names if name is not None]
        attributes = zip(("errno", "strerror", "filename", "filename2"), (int(number), words, *files), strict=False)
        return {"args": (int(number), words), "attributes": dict(attributes)}
    if issubclass(cls, UnicodeDecodeError) and (said := _OF_BYTES.fullmatch(message)) is not None:
        codec, byte, at, why = said.groups()
        before = int(at)
        if before < _MAX_TEXT:  # of the bytes before it no more is known than how many they are
            return {"args": (codec, b"?" * before + bytes([int(byte, 16)]), before, before + 1, why)}
    return {}


_NAME = r"""('[^'\\\\]*'|"[^"\\\\]*")"""
_OF_FILES = re.compile(rf"\[Errno (\d{{1,9}})\] (.*?)(?:: {_NAME}(?: -> {_NAME})?)?", re.DOTALL)
_OF_BYTES = re.compile(
    r"'([\w.-]{1,100})' codec can't decode byte 0x([0-9a-f]{2}) in position (\d{1,9}): (.*)", re.DOTALL
)


def _made(cls: type[BaseException], found: dict[str, Any]) -> BaseException | None:
    args = found.get("args")
    if type(args) is not tuple or len(args) > _MAX_ARGS:
        return None
    if issubclass(cls, BaseExceptionGroup):
        return group_of(str(args[0]), found) if args else None
    if issubclass(cls, UnicodeDecodeError | UnicodeEncodeError | UnicodeTranslateError):
        return cls(*args) if _fits(cls, args) else None
    if issubclass(cls, OSError | SyntaxError):
        made = cls.__new__(cls)  # their __init__ takes their arguments apart; their attributes come by themselves
        made.args = args
        return made
    return cls(*args)


def _fits(cls: type, args: tuple[Any, ...]) -> bool:
    """Whether the text and the place in it belong together: some Pythons crash over others."""
    *_, text, start, end, reason = (None,) * 4 + args
    kind = bytes if issubclass(cls, UnicodeDecodeError) else str
    return (
        len(args) == (4 if issubclass(cls, UnicodeTranslateError) else 5)
        and type(args[0]) is str
        and type(text) is kind
        and type(start) is type(end) is int
        and 0 <= start < end <= len(text)
        and type(reason) is str
    )


def group_of(words: str, found: object) -> BaseException | None:
    """Return a group with the errors that a group's facts have; None if there are none."""
    errors = found.get("group") if isinstance(found, dict) else None
    inside = [_member(each) for each in errors[:_MAX_ERRORS] if isinstance(each, dict)] if errors else []
    return ExceptionGroup(words, inside) if inside else None


def _member(found: dict[str, Any]) -> Exception:
    """Return an error of a group: of the first built-in class that it has and that can be made."""
    own = str(found.get("class"))[: 5 * _MAX_NAME]
    words = f"{own.removeprefix('builtins.')}: {str(found.get('text'))[:_MAX_TEXT]}"
    for name in list(found.get("bases") or ())[:50]:
        cls = built_in(name)
        if cls is None or issubclass(cls, StopIteration | StopAsyncIteration):
            continue
        error = with_facts(cls, found) if own == f"builtins.{name}" else with_words(cls, words, found)
        if isinstance(error, Exception):
            return error
    return Exception(words)


def with_words(cls: type[BaseException], words: str, found: object) -> BaseException | None:
    """Return an error of the built-in class ``cls`` for one of a subclass; None if it can't be made of words."""
    try:
        error = group_of(words, found) if issubclass(cls, BaseExceptionGroup) else cls.__new__(cls)
        if error is None:
            return None
        if not isinstance(error, BaseExceptionGroup):
            error.args = (words,)
        set_attributes(error, found)
        if isinstance(error, SyntaxError):
            error.msg = words
        return error if str(error) and repr(error) else None
    except Exception:
        return None


def built_in(name: object) -> type[BaseException] | None:
    """Return the built-in exception of that name."""
    return _BUILT_IN.get(name) if type(name) is str else None


def _built_in() -> dict[str, type[BaseException]]:
    import builtins

    found = vars(builtins).items()
    return {name: cls for name, cls in found if isinstance(cls, type) and issubclass(cls, BaseException)}


_BUILT_IN = _built_in()


def set_attributes(error: BaseException, found: object) -> None:
    """Give an error its attributes and notes, as far as nothing but them is meant by these names."""
    if not isinstance(found, dict):
        return
    attributes, notes = found.get("attributes"), found.get("notes")
    cls = type(error)
    slots = {name for base, names in _SLOTS if isinstance(error, base) for name in names}
    for name, value in list(attributes.items())[:_MAX_ATTRIBUTES] if isinstance(attributes, dict) else ():
        if type(name) is str and (name in slots or _is_own(cls, name)):
            if isinstance(error, SyntaxError) and name in slots:
                value = _shown(name, value)  # noqa: PLW2901 - the same attribute
            try:
                if getattr(error, name, _missing) != value:
                    setattr(error, name, value)
            except Exception:  # noqa: S112 - of another type than the class takes
                continue
    for note in notes[:_MAX_NOTES] if isinstance(notes, list) else ():
        error.add_note(str(note)[:_MAX_TEXT])


def _shown(name: str, value: object) -> object:
    """Return a syntax error's attribute as it may be shown."""
    if name in ("lineno", "offset", "end_lineno", "end_offset"):
        return value if type(value) is int and -1 <= value <= _MAX_TEXT else None
    text = value[:_MAX_TEXT] if type(value) is str else None
    return text.replace("\\", "/").rpartition("/")[2] if text and name == "filename" else text


_missing = object()


def _is_own(cls: type, name: object) -> bool:
    """Whether ``name`` may be an attribute that a task has given to an error, and means nothing to anybody else."""
    if type(name) is not str or len(name) > _MAX_NAME or not name.isidentifier() or name.startswith("_"):
        return False
    return not hasattr(cls, name)
