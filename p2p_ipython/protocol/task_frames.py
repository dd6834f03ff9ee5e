"""The frames about tasks, as values: what a client, a worker and a runner may say to one another.

A frame (protocol/frames.py) has a header, which is JSON from a peer, and a body. Here each kind of header is a frozen
class with its fields, and each field has a rule: its type and its bound. ``read`` is the only way from a header to
such a value, and ``header()`` the way back::

    peer's bytes ──frames.py──► header ──read(sender, header)──► Task, Result, … ──► machines, slots, futures
                                                                     │
                                         header() ◄──────────────────┘

``FRAMES`` is the table: who sends, kind → class. A kind that the sender's row doesn't have is a later version's, and is
ignored, as unknown fields are. A missing field, a wrong type or a value over its bound is a ``RemoteProtocolError``:
whoever reads a link ends it then. So code behind ``read`` needs no second look at a stranger's values.

Pure, and the standard library only: the runner imports this module inside the sandbox.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.protocol.frames import Buffer, Header
from p2p_ipython.protocol.packages import MAX_PACKAGES, is_requirement
from p2p_ipython.protocol.rules import Fields, Rule, Wrong, flag, number, ruled, text, texts, whole, word

MAX_ID = 64
"""Characters of a task's id."""

MAX_REF = 128
"""Characters of a buffer's ref."""

MAX_REFS = 10_000
"""Refs in one frame: as many as fit into a header, and more than a worker's cache gives up at a time."""

MAX_SEGMENTS = 4096
"""Segments of one task or result."""

MAX_ATTACHED = 200
"""Names and files that come with one result."""

MAX_SEGMENT = 1 << 36
"""Bytes of one segment (64 GiB)."""

MAX_WORD = 200
"""Characters of a name, a label or a reason."""

MAX_DETAIL = 16 << 10
"""Characters of what a worker says about a death."""

MAX_NUMBER = 1 << 53
"""Attempts, slots and the like: whole numbers that every JSON parser keeps."""

MAX_SLOTS = 4096
"""Slots of one worker."""

MAX_AMOUNT = 1e18
"""How much a task can say is done, and that there is in all."""

MAX_SECONDS = 1e9
"""Seconds that a task can take (32 years)."""

_HEADER = 1 << 20
"""Characters of a source or a traceback: the bound is that of a header."""

Sender = Literal["client", "worker", "agent", "runner"]
"""Who says it: a client or a worker on their link, an agent or its runner on their pipes."""

Segment = tuple[int, str | None]
"""Size in bytes, and the ref of the buffer that holds them; None: they are inline, in the frame's body."""


# --- rules ----------------------------------------------------------------------------------------------------------


def _read_segments(value: Any) -> tuple[Segment, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_SEGMENTS:
        raise Wrong
    for segment in value:
        if not isinstance(segment, list | tuple) or len(segment) != 2:
            raise Wrong
        size, ref = segment
        if type(size) is not int or not 0 <= size <= MAX_SEGMENT:
            raise Wrong
        if ref is not None and (type(ref) is not str or len(ref) > MAX_REF):
            raise Wrong
    return tuple(map(tuple, value))


def _read_some_segments(value: Any) -> tuple[Segment, ...]:
    if not value:
        raise Wrong
    return _read_segments(value)


def _read_requirements(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_PACKAGES:
        raise Wrong
    if not all(type(each) is str and is_requirement(each) for each in value):
        raise Wrong
    return tuple(value)


def _read_failure(value: Any) -> TaskFailure:
    if not isinstance(value, dict):
        raise Wrong
    return TaskFailure.read(value)


def _read_attached(value: Any) -> tuple[Attached, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_ATTACHED:
        raise Wrong
    if not all(isinstance(each, dict) for each in value):
        raise Wrong
    return tuple(map(Attached.read, value))


ID = text(MAX_ID, 1)
ATTEMPT = whole(1, MAX_NUMBER)
REF = text(MAX_REF)
SIZE = whole(1, MAX_SEGMENT)
OFFSET = whole(0, MAX_SEGMENT)
WORD = text(MAX_WORD)
WHY = text(16)
DETAIL = text(MAX_DETAIL)
TEXT = text(_HEADER)
REFS = texts(MAX_REFS, MAX_REF)
FLAG = flag()
SECONDS = number(MAX_SECONDS)
AMOUNT = number(MAX_AMOUNT)
SEGMENTS = Rule(f"segments 0 to {MAX_SEGMENTS}", _read_segments)
SOME_SEGMENTS = Rule(f"segments 1 to {MAX_SEGMENTS}", _read_some_segments)
ATTACHED = Rule(f"objects 0 to {MAX_ATTACHED}", _read_attached, lambda attached: [each.fields() for each in attached])
NAMES = texts(MAX_ATTACHED, MAX_REF)
REQUIREMENTS = Rule(f"requirements 0 to {MAX_PACKAGES}", _read_requirements)
FAILURE = Rule("object", _read_failure, lambda failure: failure.fields())


def _inline(segments: tuple[Segment, ...]) -> int:
    return sum(size for size, ref in segments if ref is None)


# --- frames ---------------------------------------------------------------------------------------------------------


class Frame(Fields):
    """Base of the frames; ``kind`` is what their header has under ``t``."""

    __slots__ = ()

    def header(self) -> Header:
        """Return the header of this frame."""
        header = self.fields()
        header["t"] = self.kind
        return header


FAILURES = (
    *("exception", "interrupted", "unpicklable", "missing", "unloadable", "died", "stopped", "packages"),
    *("timeout", "task_time"),  # it ran for longer than its client, or its lender, lets it
)


@dataclass(frozen=True, slots=True)
class TaskFailure(Fields):
    """What went wrong in a task, in words: ``class_name`` is its exception's, ``bases`` the names of that one's bases.

    ``what`` is one of ``FAILURES``, or a later version's word; ``missing`` names what is not there.
    """

    kind: ClassVar[str] = "error"
    what: str = ruled(WORD, name="kind")
    class_name: str = ruled(text(_HEADER), name="class", default="")
    bases: tuple[str, ...] = ruled(texts(MAX_SEGMENTS, _HEADER), default=())
    message: str = ruled(TEXT, default="")
    traceback: str = ruled(TEXT, default="")
    missing: str = ruled(TEXT, name="name", default="")


@dataclass(frozen=True, slots=True)
class Task(Frame):
    """Run this. ``run`` is "cell" (``source``, in the namespace that the payload holds) or "call" (the payload).

    ``segments`` are the payload's pieces. ``coming`` are the refs whose bytes follow; the worker has the others.
    ``reply``: "safe" asks for a result that can be read without trust. ``names`` are names that the cell binds; their
    values are to come with the result if they are small and plain data, those of ``bind`` in any case. ``around`` are
    the pieces of a payload that is read before the other: modules, files and settings. ``data`` are the pieces of plain
    values, which the payload refers to. In the body are the inline segments of the payload, ``data`` and ``around``.
    ``timeout``: seconds from its start after which the worker ends it; 0: never.
    ``packages``: requirements of what is to be installed for it (packages.py).
    ``once``: no second run is to begin, also where the worker's engine begins lost ones again by itself.
    """

    kind: ClassVar[str] = "task"
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)
    run: str = ruled(word("cell", "call"), name="kind")
    segments: tuple[Segment, ...] = ruled(SOME_SEGMENTS)
    label: str = ruled(WORD, default="")
    coming: tuple[str, ...] = ruled(texts(MAX_SEGMENTS, MAX_REF), default=())
    source: str = ruled(TEXT, default="")
    reply: str = ruled(word("", "safe"), default="")
    names: tuple[str, ...] = ruled(NAMES, default=())
    bind: tuple[str, ...] = ruled(NAMES, default=())
    around: tuple[Segment, ...] = ruled(SEGMENTS, default=())
    data: tuple[Segment, ...] = ruled(SEGMENTS, default=())
    timeout: float = ruled(SECONDS, default=0.0)
    packages: tuple[str, ...] = ruled(REQUIREMENTS, default=())
    once: bool = ruled(FLAG, default=False)

    @property
    def all_segments(self) -> tuple[Segment, ...]:
        """The segments of all that it brings, in the order of the body."""
        return (*self.segments, *self.data, *self.around) if self.around or self.data else self.segments

    def pieces(self, body: Buffer) -> tuple[memoryview, memoryview, memoryview]:
        """Return the parts of the frame's body that the payload, ``data`` and ``around`` have."""
        whole, sizes = memoryview(body), (_inline(self.segments), _inline(self.data))
        return whole[: sizes[0]], whole[sizes[0] : sum(sizes)], whole[sum(sizes) :]


@dataclass(frozen=True, slots=True)
class BufferChunk(Frame):
    """The next bytes of a task's buffer, which has ``size`` bytes: those from ``offset`` on."""

    kind: ClassVar[str] = "chunk"
    ref: str = ruled(REF)
    size: int = ruled(SIZE)
    offset: int = ruled(OFFSET, name="off")


@dataclass(frozen=True, slots=True)
class Recall(Frame):
    """Drop the task; if it runs, stop it.

    It is answered when the attempt has ended: by a ``Result`` or by ``Nack``, as always. An answer that has crossed it
    will do.
    """

    kind: ClassVar[str] = "recall"
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)


@dataclass(frozen=True, slots=True)
class Pass(Frame):
    """Nothing waits for the slots that the worker keeps for this link."""

    kind: ClassVar[str] = "pass"


@dataclass(frozen=True, slots=True)
class Started(Frame):
    """The task runs, or is about to: ``detail`` says for people what comes before. It may be said again."""

    kind: ClassVar[str] = "started"
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)
    detail: str = ruled(WORD, default="")


OUTPUTS = ("stream", "display_data", "update_display_data", "clear_output", "warning", "log")


@dataclass(frozen=True, slots=True)
class Output(Frame):
    """Something that the task prints or displays. ``stream``: "stdout" or "stderr", of text only.

    ``more``: the next frame continues it.
    """

    kind: ClassVar[str] = "output"
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)
    what: str = ruled(word(*OUTPUTS), name="kind")
    stream: str = ruled(word("", "stdout", "stderr"), name="name", default="")
    more: bool = ruled(FLAG, default=False)

    def __post_init__(self) -> None:
        if (self.what == "stream") is not bool(self.stream):
            raise RemoteProtocolError("a frame of kind output is of a stream without its name, or the other way round")


@dataclass(frozen=True, slots=True)
class Progress(Frame):
    """So much of the task is ``done``, of a ``total`` (0: not known), after so many ``seconds``: it says so itself."""

    kind: ClassVar[str] = "progress"
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)
    done: float = ruled(AMOUNT)
    total: float = ruled(AMOUNT, default=0.0)
    seconds: float = ruled(SECONDS, default=0.0)
    label: str = ruled(WORD, default="")


@dataclass(frozen=True, slots=True)
class ResultChunk(Frame):
    """The next bytes of a large segment of a task's result, which has ``size`` bytes: those from ``offset`` on."""

    kind: ClassVar[str] = "chunk"
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)
    ref: str = ruled(REF)
    size: int = ruled(SIZE)
    offset: int = ruled(OFFSET, name="off")


@dataclass(frozen=True, slots=True)
class Attached(Fields):
    """Something that comes with a task's value: ``what`` is "name" (a value that the cell has bound) or "file".

    ``codec`` is "safe", "pickle" or "bytes", which are one segment; or "left" for a value that stays, with none.
    ``type_name`` and ``at`` are as in ``Result``.
    """

    kind: ClassVar[str] = "attached"
    what: str = ruled(word("name", "file"))
    name: str = ruled(REF)
    codec: str = ruled(word("safe", "pickle", "bytes", "left"))
    segments: tuple[Segment, ...] = ruled(SEGMENTS)
    type_name: str = ruled(WORD, name="type", default="")
    at: str = ruled(WORD, default="")

    def __post_init__(self) -> None:
        # A segment that counts twice would make a few bytes as many as one likes.
        if self.codec in ("bytes", "left") and len(self.segments) != (self.codec == "bytes"):
            raise RemoteProtocolError(f"what is attached as {self.codec} has {len(self.segments)} segments")


@dataclass(frozen=True, slots=True)
class Result(Frame):
    """The task is over: ``ok`` with the value that the segments hold, else with ``failure``.

    ``seconds``: how long it ran; None if its runner has ended. ``value``: there is one to show. ``codec`` is "safe" or
    "pickle" if the client asked for a safe reply; then ``type_name`` and ``at`` say what is no plain data, and where.
    The segments of a failure are the pickled exception or, if ``codec`` is "safe", what it consists of. ``attached`` is
    what comes with it: its inline segments follow those of the value, in order.
    """

    kind: ClassVar[str] = "result"
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)
    ok: bool = ruled(FLAG)
    segments: tuple[Segment, ...] = ruled(SEGMENTS)
    seconds: float | None = ruled(SECONDS, default=None)
    value: bool = ruled(FLAG, default=False)
    codec: str = ruled(WORD, default="")
    type_name: str = ruled(WORD, name="type", default="")
    at: str = ruled(WORD, default="")
    failure: TaskFailure | None = ruled(FAILURE, name="error", default=None)  # noqa: RUF009 - _is makes a field
    attached: tuple[Attached, ...] = ruled(ATTACHED, default=())

    def __post_init__(self) -> None:
        if self.ok is not (self.failure is None):
            raise RemoteProtocolError("a frame of kind result is ok and has an error, or is neither")

    @property
    def all_segments(self) -> tuple[Segment, ...]:
        """The segments of the value or exception, and those of what is attached, in the order of the body."""
        if not self.attached:
            return self.segments
        return (*self.segments, *(segment for each in self.attached for segment in each.segments))

    def inline(self, body: Buffer) -> Buffer:
        """Return the part of the frame's body that the value or exception has."""
        size = sum(size for size, ref in self.segments if ref is None)
        return memoryview(body)[:size] if self.attached else body

    @property
    def size(self) -> int:
        """Bytes of the value or exception, and of what is attached."""
        return sum(size for size, _ in self.all_segments)

    @property
    def has_chunks(self) -> bool:
        """Whether some of its bytes came in frames of their own."""
        return any(ref is not None for _, ref in self.all_segments)


RECALLED = "recalled"
"""The reason of a nack of a task that its client has recalled. An earlier version takes it for "busy"."""


@dataclass(frozen=True, slots=True)
class Nack(Frame):
    """The task was never started here, and won't be: "busy", "paused", "closing", "refused" or ``RECALLED``.

    ``why`` is the lender's reason for a pause or a refusal, in a word (messages.py); ``detail`` is for people.
    ``edition`` is that of the offer under which it is refused.
    """

    kind: ClassVar[str] = "nack"
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)
    reason: str = ruled(WORD)
    why: str = ruled(WHY, default="")
    detail: str = ruled(WORD, default="")
    edition: int = ruled(whole(0, MAX_NUMBER), default=0)


@dataclass(frozen=True, slots=True)
class Lost(Frame):
    """The task was started, and its process was killed from outside."""

    kind: ClassVar[str] = "lost"
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)
    detail: str = ruled(DETAIL, default="")


@dataclass(frozen=True, slots=True)
class Want(Frame):
    """These buffers of the task are not here: send them."""

    kind: ClassVar[str] = "want"
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)
    refs: tuple[str, ...] = ruled(REFS)


@dataclass(frozen=True, slots=True)
class Evicted(Frame):
    """These buffers are no longer here."""

    kind: ClassVar[str] = "evicted"
    refs: tuple[str, ...] = ruled(REFS)


@dataclass(frozen=True, slots=True)
class Room(Frame):
    """So many slots are kept for this client, for a moment."""

    kind: ClassVar[str] = "room"
    free: int = ruled(whole(1, MAX_SLOTS))


@dataclass(frozen=True, slots=True)
class Ready(Frame):
    """The runner can take a task; ``pid`` is its process's id."""

    kind: ClassVar[str] = "ready"
    python: str = ruled(WORD)
    platform: str = ruled(WORD)
    pid: int = ruled(whole(1, MAX_NUMBER))


@dataclass(frozen=True, slots=True)
class Warm(Frame):
    """The runner has loaded all that tasks need: it begins one at once. Said once, after ``Ready``."""

    kind: ClassVar[str] = "warm"


@dataclass(frozen=True, slots=True)
class Cleared(Frame):
    """The runner has cleared up after the task whose result it has sent.

    ``why`` is "", or says what could not be put back: then it must not get another task.
    """

    kind: ClassVar[str] = "cleared"
    why: str = ruled(DETAIL)


@dataclass(frozen=True, slots=True)
class NewBuffer(Frame):
    """Make room for a buffer; its bytes follow."""

    kind: ClassVar[str] = "buffer"
    ref: str = ruled(REF)
    size: int = ruled(SIZE)


@dataclass(frozen=True, slots=True)
class Piece(Frame):
    """The next bytes of a buffer."""

    kind: ClassVar[str] = "chunk"
    ref: str = ruled(REF)


@dataclass(frozen=True, slots=True)
class Drop(Frame):
    """Forget these buffers, whole or not."""

    kind: ClassVar[str] = "drop"
    refs: tuple[str, ...] = ruled(REFS)


@dataclass(frozen=True, slots=True)
class Cancel(Frame):
    """Interrupt the task."""

    kind: ClassVar[str] = "cancel"
    id: str = ruled(ID)


ClientFrame = Task | BufferChunk | Recall | Pass
WorkerFrame = Started | Output | Progress | ResultChunk | Result | Nack | Lost | Want | Evicted | Room
AgentFrame = Task | NewBuffer | Piece | Drop | Cancel
RunnerFrame = Ready | Warm | Output | Progress | ResultChunk | Result | Cleared

_CLIENT: tuple[type[Frame], ...] = (Task, BufferChunk, Recall, Pass)
_WORKER: tuple[type[Frame], ...] = (Started, Output, Progress, ResultChunk, Result, Nack, Lost, Want, Evicted, Room)
_AGENT: tuple[type[Frame], ...] = (Task, NewBuffer, Piece, Drop, Cancel)
_RUNNER: tuple[type[Frame], ...] = (Ready, Warm, Output, Progress, ResultChunk, Result, Cleared)

FRAMES: Mapping[Sender, Mapping[str, type[Frame]]] = {
    "client": {each.kind: each for each in _CLIENT},
    "worker": {each.kind: each for each in _WORKER},
    "agent": {each.kind: each for each in _AGENT},
    "runner": {each.kind: each for each in _RUNNER},
}
"""Who may say what: kind → class, by sender."""


def read_client(header: Header) -> ClientFrame | None:
    """Read what a client says; None for a kind of a later version. Raises ``RemoteProtocolError``."""
    return cast("ClientFrame | None", _read("client", header))


def read_worker(header: Header) -> WorkerFrame | None:
    """Read what a worker says; None for a kind of a later version. Raises ``RemoteProtocolError``."""
    return cast("WorkerFrame | None", _read("worker", header))


def read_agent(header: Header) -> AgentFrame | None:
    """Read what a runner's agent says; None for a kind of a later version. Raises ``RemoteProtocolError``."""
    return cast("AgentFrame | None", _read("agent", header))


def read_runner(header: Header) -> RunnerFrame | None:
    """Read what a runner says; None for an unknown kind. Raises ``RemoteProtocolError``."""
    return cast("RunnerFrame | None", _read("runner", header))


def _read(sender: Sender, header: Header) -> Frame | None:
    frame_class = FRAMES[sender].get(header["t"])
    return frame_class.read(header) if frame_class is not None else None


def batches(refs: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Split refs into as many as one frame may have."""
    for start in range(0, len(refs), MAX_REFS):
        yield refs[start : start + MAX_REFS]


# --- a result's large segments --------------------------------------------------------------------------------------


class ResultParts:
    """Which large segments of one task's result have come: each in order, and none longer than it was said to be.

    Raises ``RemoteProtocolError`` for what breaks that.
    """

    def __init__(self) -> None:
        self._parts: dict[str, tuple[int, int]] = {}  # size and what has come of it, by ref

    def chunk(self, chunk: ResultChunk, body_size: int) -> None:
        """Count the bytes of a chunk."""
        size, filled = self._parts.get(chunk.ref, (chunk.size, 0))
        if chunk.size != size or chunk.offset != filled or not 0 < body_size <= size - filled:
            raise RemoteProtocolError("a chunk of a result is out of turn, or longer than announced")
        if len(self._parts) >= MAX_SEGMENTS and chunk.ref not in self._parts:
            raise RemoteProtocolError("a result has chunks of too many segments")
        self._parts[chunk.ref] = (size, filled + body_size)

    def result(self, result: Result, body_size: int) -> None:
        """Check that all segments of the result are here: in chunks that have come whole, or in its body."""
        inline = 0
        for size, ref in result.all_segments:
            if ref is None:
                inline += size
            elif self._parts.get(ref) != (size, size):
                raise RemoteProtocolError("a result has a segment that hasn't come")
        if inline != body_size:
            raise RemoteProtocolError("a result's segments are longer or shorter than its body")
