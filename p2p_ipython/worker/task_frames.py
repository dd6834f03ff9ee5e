"""What a runner says of its task, checked: the runner's process is full of a stranger's code.

A task can write to the runner's channel, and so can whatever it has broken in there. What has been checked here
can be passed on, looked into and sent on a link without another look.

Pure.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from p2p_ipython.protocol.frames import FrameError, Header, encode

MAX_SEGMENTS = 4096
"""Segments of one result; the runner's own are at most a quarter of it."""

MAX_SEGMENT = 1 << 36
"""Largest segment, bytes (64 GiB); a client takes no larger one."""

_MAX_REF = 128
_MAX_WORD = 200
_MAX_SECONDS = 1e9
_ROOM = 1024
"""Bytes of a header that are left to the agent, which adds the attempt."""

_FEW = 256
"""A result with so few segments and no error is far below the bound of a header."""

_NAMES = {
    "output": {"t", "id", "kind", "name", "more"},
    "chunk": {"t", "id", "ref", "size", "off"},
    "result": {"t", "id", "ok", "segments", "seconds", "value", "error", "codec", "type", "at"},
}
_DISPLAYS = ("display_data", "update_display_data", "clear_output")
_WORDS = {"class", "message", "traceback", "kind", "name"}


class TaskFrames:
    """The frames of one task, in the order in which they come."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._parts: dict[str, tuple[int, int]] = {}  # size and what has come of it, by ref

    def check(self, header: Header, body_size: int) -> None:
        """Take note of a frame. Raises ``FrameError``, which says what is wrong with it."""
        kind = header["t"]
        names = _NAMES.get(kind)
        if names is None:
            raise FrameError("a frame of an unknown kind")
        if header.get("id") != self._task_id:
            raise FrameError(f"a frame of kind {kind} of another task")
        if not header.keys() <= names:
            raise FrameError(f"a frame of kind {kind} with names that it doesn't have")
        if kind == "output":
            _check_output(header)
        elif kind == "chunk":
            self._check_chunk(header, body_size)
        else:
            self._check_result(header, body_size)

    def _check_chunk(self, header: Header, body_size: int) -> None:
        ref, size, offset = header.get("ref"), header.get("size"), header.get("off")
        if not _is_ref(ref) or not _is_size(size) or not _is_size(offset):
            raise FrameError("a chunk without its ref, size or offset")
        known, filled = self._parts.get(ref, (size, 0))
        if size != known or offset != filled or not 0 < body_size <= size - offset:
            raise FrameError("a chunk that is out of turn, or longer than announced")
        if len(self._parts) >= MAX_SEGMENTS and ref not in self._parts:
            raise FrameError("chunks of too many segments")
        self._parts[ref] = (size, offset + body_size)

    def _check_result(self, header: Header, body_size: int) -> None:
        ok, segments, error = header.get("ok"), header.get("segments"), header.get("error")
        if type(ok) is not bool or type(header.get("value", True)) is not bool:
            raise FrameError("a result that is neither good nor bad")
        seconds = header.get("seconds", 0)
        if type(seconds) not in (int, float) or not 0 <= seconds <= _MAX_SECONDS:  # not a number isn't, either
            raise FrameError("a result whose time is none")
        if not isinstance(segments, list) or len(segments) > MAX_SEGMENTS:
            raise FrameError("a result without its segments, or with too many")
        words = [header.get(name, "") for name in ("codec", "type", "at")]
        if not all(isinstance(word, str) and len(word) <= _MAX_WORD for word in words):
            raise FrameError("a result that doesn't say how to read it")
        inline = 0
        for segment in segments:
            if not (isinstance(segment, list) and len(segment) == 2 and _is_size(segment[0])):
                raise FrameError("a result with a segment that is not (size, ref)")
            size, ref = segment
            if ref is None:
                inline += size
            elif not _is_ref(ref) or self._parts.get(ref) != (size, size):
                raise FrameError("a result with a segment that hasn't come")
        if inline != body_size:
            raise FrameError("a result whose segments are longer or shorter than its body")
        if not ok:
            _check_error(error)
        elif error is not None:
            raise FrameError("a good result with an error")
        if not ok or len(segments) > _FEW:
            encode({**header, "room": "-" * _ROOM})


def _check_output(header: Header) -> None:
    kind = header.get("kind")
    if kind == "stream":
        if header.get("name") not in ("stdout", "stderr"):
            raise FrameError("output of an unknown stream")
    elif kind not in _DISPLAYS or "name" in header:
        raise FrameError("output of an unknown kind")
    if header.get("more", True) is not True:
        raise FrameError("output that does not say whether there is more")


def _check_error(error: object) -> None:
    if not isinstance(error, dict) or not error.keys() <= _WORDS | {"bases"}:
        raise FrameError("a bad result without its error")
    words = [error.get(name, "") for name in _WORDS]
    bases = error.get("bases", [])
    if not isinstance(bases, list) or not all(isinstance(each, str) for each in words + bases):
        raise FrameError("an error that is not in words")


def _is_size(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MAX_SEGMENT


def _is_ref(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= _MAX_REF
