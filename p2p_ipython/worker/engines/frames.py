"""The frames between an agent and the host of its engine, and between the host and ``entry.run``.

They are read by the rules of task_frames.py: the host runs code of a factory's or talks to a scheduler elsewhere, so
what it says is checked as a runner's is. A *job* is one run of a task in an engine. Its bytes are a whole in both
directions::

    in    Asked, then what an agent would write to a runner: buffers and the task
    out   Ran, then what the runner has written about the task: outputs, chunks and the result

The standard library only: the engine's workers import this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from p2p_ipython.protocol.frames import Header
from p2p_ipython.protocol.rules import flag, number, ruled, text, whole, word
from p2p_ipython.protocol.task_frames import ATTEMPT, DETAIL, ID, MAX_SECONDS, MAX_SLOTS, REFS, WORD, Frame

MOST = 256 << 20
"""Bytes of a task, or of its outputs and result, that an engine gets or gives as a whole."""

JOB = whole(1, 1 << 53)
KEY = text(128)
PATH = text(4096)
BYTES = whole(0, 1 << 53)
SECONDS = number(MAX_SECONDS)
DEATHS = (
    *("exit", "signal", "memory", "disk", "processes", "time", "timeout"),
    *("cancelled", "protocol", "start", "engine"),
)
"""Those of ``launch.Death``."""


# --- agent and host -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open(Frame):
    """Open the engine that ``engine`` names. ``slots``: how many tasks it may have at a time; 0: as many as it can."""

    kind: ClassVar[str] = "open"
    engine: str = ruled(PATH)
    slots: int = ruled(whole(0, MAX_SLOTS), default=0)


@dataclass(frozen=True, slots=True)
class Part(Frame):
    """The next bytes of a job, in the body; in either direction."""

    kind: ClassVar[str] = "part"
    job: int = ruled(JOB)


@dataclass(frozen=True, slots=True)
class Go(Frame):
    """The job's bytes are complete: have them run. ``key`` names the job in the engine."""

    kind: ClassVar[str] = "go"
    job: int = ruled(JOB)
    key: str = ruled(KEY)


@dataclass(frozen=True, slots=True)
class Halt(Frame):
    """Stop the job. ``Over`` comes when it has ended; that may take as long as its task does."""

    kind: ClassVar[str] = "halt"
    job: int = ruled(JOB)


@dataclass(frozen=True, slots=True)
class Close(Frame):
    """End in order: nothing is to be said any more."""

    kind: ClassVar[str] = "close"


@dataclass(frozen=True, slots=True)
class Up(Frame):
    """The engine is there: the minor version of its workers' Python, and their platform."""

    kind: ClassVar[str] = "up"
    python: str = ruled(text(16))
    platform: str = ruled(text(64))


@dataclass(frozen=True, slots=True)
class Space(Frame):
    """How many tasks the engine runs at a time now, and the bytes of memory that its workers have; 0 if unknown."""

    kind: ClassVar[str] = "space"
    slots: int = ruled(whole(0, 1 << 53))
    memory: int = ruled(BYTES, default=0)


@dataclass(frozen=True, slots=True)
class Over(Frame):
    """The job is over: ``lost`` says why there is nothing of it, "" after its last part.

    ``never``: it has not begun, and won't.
    """

    kind: ClassVar[str] = "over"
    job: int = ruled(JOB)
    lost: str = ruled(DETAIL, default="")
    never: bool = ruled(flag(), default=False)


@dataclass(frozen=True, slots=True)
class Stays(Frame):
    """The job was to stop, and can't be reached: the engine's worker runs it to its end."""

    kind: ClassVar[str] = "stays"
    job: int = ruled(JOB)


@dataclass(frozen=True, slots=True)
class Failed(Frame):
    """The engine can't be had, or is lost; the host ends."""

    kind: ClassVar[str] = "failed"
    words: str = ruled(DETAIL)
    hint: str = ruled(DETAIL, default="")


FROM_AGENT: Mapping[str, type[Frame]] = {each.kind: each for each in (Open, Part, Go, Halt, Close)}
FROM_HOST: Mapping[str, type[Frame]] = {each.kind: each for each in (Up, Space, Part, Over, Stays, Failed)}


def read(kinds: Mapping[str, type[Frame]], header: Header) -> Frame | None:
    """Read a frame of one of these kinds; None for another kind. Raises ``RemoteProtocolError``."""
    frame_class = kinds.get(header["t"])
    return frame_class.read(header) if frame_class is not None else None


# --- host and entry -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked(Frame):
    """A job, and how it is to be run; what a runner is told follows.

    ``key`` names it in the engine. ``owner``: whose it is; runners aren't shared by owners. ``seconds``: the most that
    its task may take, by its lender, ``timeout`` by its client; 0 for any. ``grace``: what it may take to end when it
    is interrupted. ``output_limit``: bytes. ``refs``: its large buffers. ``once``: it must not begin a second time, as
    when the engine has lost the worker that had it. ``folder``: it is to stop when that is gone, or has a file by the
    name of ``key``; a folder that isn't seen says nothing.
    """

    kind: ClassVar[str] = "asked"
    key: str = ruled(KEY)
    id: str = ruled(ID)
    attempt: int = ruled(ATTEMPT)
    owner: str = ruled(WORD)
    grace: float = ruled(SECONDS)
    output_limit: int = ruled(BYTES)
    seconds: float = ruled(SECONDS, default=0.0)
    timeout: float = ruled(SECONDS, default=0.0)
    once: bool = ruled(flag(), default=False)
    refs: tuple[str, ...] = ruled(REFS, default=())
    folder: str = ruled(PATH, default="")


@dataclass(frozen=True, slots=True)
class Ran(Frame):
    """How a job has ended. ``death``: in the words of ``launch.Death``, "" if its runner has given a result.

    ``cpu``: seconds of processors that it took; -1: unknown.
    """

    kind: ClassVar[str] = "ran"
    death: str = ruled(word("", *DEATHS), default="")
    code: int = ruled(whole(0, 255), default=0)
    detail: str = ruled(DETAIL, default="")
    cpu: float | None = ruled(SECONDS, default=None)
