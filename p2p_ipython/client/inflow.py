"""The frames that workers send: the bytes of results land in buffers here, and frames of output become messages.

::

    link ──header──► WorkerEnd ──read──► result, with the segments that have landed ──► bridge
           ──bytes──► _Incoming              output ──► TaskOutput ──► message ──────► the cell
                                             all else ───────────────────────────────► ClientMachine

A worker is a stranger: a breach of the protocol is a ``RemoteProtocolError``, which ends its link. Frames about an
attempt that it hasn't are dropped, since it may not have heard of that yet.
"""

from __future__ import annotations

import json
from typing import Protocol

import psutil

from p2p_ipython.client.feed import Feed
from p2p_ipython.client.future import OutputMessage
from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.link.base import LinkState
from p2p_ipython.link.end import LinkEnd
from p2p_ipython.memory import fresh
from p2p_ipython.protocol.frames import MAX_BODY, Buffer, Header
from p2p_ipython.protocol.task_frames import (
    MAX_SEGMENTS,
    Lost,
    Nack,
    Output,
    Progress,
    Recall,
    Result,
    ResultChunk,
    Started,
    TaskFailure,
    Want,
    WorkerFrame,
    read_worker,
)

MESSAGES, EACH = 1000, 64
"""Messages of output of one task: so many, and one more for each ``EACH`` bytes of the limit. A runner sends half."""


FULL = "\n[What the task prints from here on is too much to be kept.]\n"


class Receiver(Protocol):
    """Takes what workers have sent: the bridge."""

    def expects(self, sid: bytes, task_id: str, attempt: int) -> bool:
        """Return whether this worker has this attempt now."""
        ...

    def promised(self) -> int:
        """Return the bytes that room was made for, on all links, and that have not come yet."""
        ...

    def most_of(self, sid: bytes) -> int:
        """Return the bytes that a result of this worker may have in large segments."""
        ...

    def result_came(self, end: WorkerEnd, result: Result, body: Buffer) -> None:
        """Note that a result of an attempt that the worker has is whole."""

    def output_came(self, end: WorkerEnd, output: Output, body: Buffer) -> None:
        """Take a frame of output."""

    def progress_came(self, progress: Progress) -> None:
        """Note how far a task is that the worker has."""

    def said(self, end: WorkerEnd, frame: WorkerFrame) -> None:
        """Take any other frame."""

    def link_changed(self, end: WorkerEnd, state: LinkState, detail: str) -> None:
        """Note that the state of the link has changed."""


class WorkerEnd(LinkEnd):
    """The client's end of a link to one worker."""

    def __init__(self, receiver: Receiver, sid: bytes) -> None:
        super().__init__()
        self.sid = sid
        self.feed = Feed(self)
        self._receiver = receiver
        self._incoming: dict[tuple[str, int], dict[str, _Incoming]] = {}  # by task and attempt, by ref

    def promised(self) -> int:
        """Return the bytes that room was made for and that have not come yet."""
        return sum(len(one.data) - one.filled for parts in self._incoming.values() for one in parts.values())

    def forget(self, task_id: str) -> None:
        """Drop the segments that have come for a task."""
        self._incoming = {key: parts for key, parts in self._incoming.items() if key[0] != task_id}

    def take(self, result: Result) -> dict[str, Buffer]:
        """Return the large segments of a result, which is whole."""
        found = self._incoming.pop((result.id, result.attempt), {})
        return {ref: part.data for ref, part in found.items() if part.filled == len(part.data)}

    # -- LinkHandler --

    def buffer_for(self, header: Header, size: int) -> memoryview | None:
        if header["t"] != ResultChunk.kind:
            return None
        incoming = self._part(ResultChunk.read(header), size)
        return incoming.data[incoming.filled : incoming.filled + size] if incoming is not None else None

    def on_frame(self, header: Header, body: Buffer) -> bool:
        idle = False
        match read_worker(header):
            case Result() as result if self._receiver.expects(self.sid, result.id, result.attempt):
                self._receiver.result_came(self, result, body)
            case Output() as output if self._receiver.expects(self.sid, output.id, output.attempt):
                self._receiver.output_came(self, output, body)
            case Progress() as progress:
                idle = True  # few are said
                if self._receiver.expects(self.sid, progress.id, progress.attempt):
                    self._receiver.progress_came(progress)
            case ResultChunk() as chunk:
                incoming = self._part(chunk, len(body))
                idle = incoming is None
                if incoming is not None:
                    incoming.land(body)
            case Result() | Output() | None:
                idle = True  # of an attempt that it hasn't; or a later version's
            case Started() | Nack() | Lost() | Want() as frame:
                idle = not self._receiver.expects(self.sid, frame.id, frame.attempt)
                self._receiver.said(self, frame)
            case frame:
                idle = True  # few are said
                self._receiver.said(self, frame)
        return idle

    def on_link(self, state: LinkState, detail: str) -> None:
        self._receiver.link_changed(self, state, detail)

    def on_drain(self) -> None:
        self.feed.go_on()

    def _part(self, chunk: ResultChunk, size: int) -> _Incoming | None:
        """Return where a chunk's bytes belong; None for an attempt that the worker hasn't, or a part without room.

        Raises ``RemoteProtocolError`` for a chunk that is out of turn, or longer than announced.
        """
        key, receiver = (chunk.id, chunk.attempt), self._receiver
        if not receiver.expects(self.sid, *key):
            return None
        if key not in self._incoming:
            # Whatever came of attempts that were withdrawn meanwhile is dropped here.
            self._incoming = {k: v for k, v in self._incoming.items() if receiver.expects(self.sid, *k)}
        parts = self._incoming.setdefault(key, {})
        incoming = parts.get(chunk.ref)
        if incoming is None and chunk.offset == 0 and len(parts) < MAX_SEGMENTS:
            so_far = sum(len(part.data) for part in parts.values())
            if so_far + chunk.size > (most := receiver.most_of(self.sid)):
                self._refuse(chunk, _over(so_far + chunk.size, most))
                return None
            try:
                incoming = parts[chunk.ref] = _Incoming(chunk.size, receiver.promised())
            except (MemoryError, OSError, OverflowError):
                self._refuse(chunk, _no_room(chunk.size))
                return None
        if incoming is None or not incoming.fits(chunk, size):
            raise RemoteProtocolError("a chunk of a result is out of turn, or longer than announced")
        return incoming

    def _refuse(self, chunk: ResultChunk, failure: TaskFailure) -> None:
        """Let a task fail now whose result is too large. What still comes of it is dropped, and the worker told."""
        del self._incoming[chunk.id, chunk.attempt]
        self.send(Recall(chunk.id, chunk.attempt).header())
        self._receiver.result_came(self, Result(chunk.id, chunk.attempt, False, (), failure=failure), b"")


class _Incoming:
    """A large segment of a result while it arrives."""

    __slots__ = ("data", "filled")

    def __init__(self, size: int, promised: int) -> None:
        """Make room, besides what is ``promised`` and not filled yet, in bytes. Raises ``MemoryError`` without any.

        Asking the system would succeed, for any number of buffers, and filling them would not.
        """
        if size + promised > psutil.virtual_memory().available:
            raise MemoryError
        self.data = fresh(size)
        self.filled = 0

    def fits(self, chunk: ResultChunk, size: int) -> bool:
        """Return whether a chunk of ``size`` bytes comes next."""
        return chunk.size == len(self.data) and chunk.offset == self.filled and 0 < size <= chunk.size - self.filled

    def land(self, body: Buffer) -> None:
        """Take the next bytes, unless they have been read to where they belong."""
        if not (isinstance(body, memoryview) and body.obj is self.data.obj):
            self.data[self.filled : self.filled + len(body)] = body
        self.filled += len(body)


def _no_room(size: int) -> TaskFailure:
    """Return the failure of a task whose result doesn't fit into this machine, as a worker would say it."""
    message = f"the result has a part of {size:,} bytes, and this machine has no room for it; return less at a time"
    return TaskFailure("exception", "builtins.MemoryError", message=message)


def _over(size: int, most: int) -> TaskFailure:
    """Return the failure of a task whose result is larger than one of somebody who isn't trusted may be."""
    message = (
        f"the result has {size:,} bytes or more, and at most {most:,} are taken from a member whom you have not told"
        " p2p_ipython to trust; return less at a time, or see %p2p_trust"
    )
    return TaskFailure("exception", "builtins.MemoryError", message=message)


class TaskOutput:
    """The output of one task while it comes: frames become messages, as long as they are within ``limit`` bytes.

    The runner stops at the limit and says so. Only a worker that misbehaves sends much more of one attempt. What comes
    of all attempts together beyond twice the limit is dropped, and a line says so.
    """

    def __init__(self, limit: int) -> None:
        self._most = 2 * limit + MAX_BODY
        self._most_messages = MESSAGES + limit // EACH
        self._size = self._count = 0
        self._full = False
        self._partial = bytearray()
        self.line = ""
        """The last line of it, if that is unfinished."""

    def restart(self) -> None:
        """Forget what has come of an attempt that came to nothing."""
        self._partial, self.line = bytearray(), ""

    def take(self, output: Output, body: Buffer) -> OutputMessage | None:
        """Return the message that a frame completes, if it does."""
        self._size += len(body)
        self._count += 1
        if self._size > self._most or self._count > self._most_messages:
            first, self._full = not self._full, True
            return {"kind": "stream", "name": "stderr", "text": FULL} if first else None
        if output.more:
            self._partial += body
            return None
        whole, self._partial = bytes(self._partial) + bytes(body), bytearray()
        if output.what == "stream":
            return {"kind": "stream", "name": output.stream, "text": whole.decode("utf-8", "replace")}
        try:
            content = json.loads(whole or b"{}")
        except (ValueError, RecursionError):
            return None
        return {"kind": output.what, "content": content} if isinstance(content, dict) else None
