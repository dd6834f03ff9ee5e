"""Output of a task, printed or displayed anywhere, goes to the agent in order and while the task runs.

::

    print, sys.stdout.write ──► Stream ──────────────► Outlet ──► Channel
    display(), a figure ──────► shell's publisher ───────┤
    C code, subprocesses ──► fd 1, fd 2 ──► FdCapture ───┘

Text is gathered for up to ``_LATE`` seconds or ``_GATHER`` characters: a frame a line would cost more than the
line. A text that comes after another of its stream is gathered without a lock, in a microsecond. Beyond the limit of a
task, output is counted instead of sent, and one notice at the end says so.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import io
import json
import os
import select
import sys
import threading
import time
from collections import deque
from typing import Any, TextIO

from p2p_ipython.protocol.frames import MAX_BODY
from p2p_ipython.protocol.task_frames import Output, Task
from p2p_ipython.sandbox.inside.channel import Channel
from p2p_ipython.sandbox.inside.interrupts import Interrupts
from p2p_ipython.sandbox.inside.threads import Left

_GATHER = 8 << 10
_AT_ONCE, _OFTEN = 200, 0.01
"""A task that flushes has so many frames sent at once, and one more each ``_OFTEN`` seconds. What it flushes beyond
that waits ``_LATE``, or as long as the task lets no other thread run: a frame a line would cost more than the line."""

_FRAMES, _EACH = 500, 128
"""Frames of output of a task: so many, and one more for each ``_EACH`` bytes of the limit. A client takes twice."""

_LATE = 0.05
_READ = 64 << 10
_DRAIN = 64
"""Reads of ``_READ`` bytes at a task's end: more than a pipe holds, and still an end to it."""


AT_END, VALUE = "p2p_at_end", "p2p_value"
"""Marks in a display's ``transient``; client/display.py says of what."""

_LEFT = (
    "\n[{} thread of this task is still running; what it prints from now on is shown under the task that runs then. "
    "Join it in the task.]\n",
    "\n[{} threads of this task are still running; what they print from now on is shown under the task that runs then. "
    "Join them in the task.]\n",
)
_LATE_THREAD = "\n[A thread of an earlier task prints here.]\n"


class Outlet:
    """Where all output of the task that runs comes together. Used from any thread.

    What is written while no task runs is dropped. What a thread writes amid the work of an earlier task belongs to the
    task that runs, with a note. In a forked child, text goes to the inherited descriptors 1 and 2, where ``FdCapture``
    finds it.
    """

    def __init__(self, channel: Channel, interrupts: Interrupts, limit: int) -> None:
        self._channel = channel
        self._limit = limit
        self._most_frames = _FRAMES + limit // _EACH
        self._lock = interrupts.guard(threading.RLock())
        self._task: Task | None = None
        self._gathered = {name: Gathered() for name in ("stdout", "stderr")}
        self._name = "stdout"
        self._sent = self._unsent = self._frames = 0
        self._at_once, self._asked_at = 0.0, 0.0
        self._noted = False
        self._left: dict[int, Left] = {}
        self._forked = False
        self._written = threading.Event()
        self.capture = FdCapture(self, self._lock)
        threading.Thread(target=self._flush_late, name="p2p-flush", daemon=True).start()

    def begin(self, task: Task) -> None:
        """Take what is written from now on for the output of ``task``."""
        with self._lock:
            for gathered in self._gathered.values():
                gathered.taken()
            self._task = task
            self._sent = self._unsent = self._frames = 0
            self._noted = False

    def end(self, left: dict[int, Left]) -> None:
        """Send what the task has written and end its output; ``left`` threads are amid its work.

        Those of them that count, and are new, are named to the user.
        """
        with self._lock:
            self.capture.pull(_DRAIN)
            self.flush()
            if self._unsent:
                self._send_text("stderr", self._notice())
            if left and (new := sum(one.counts for thread, one in left.items() if one != self._left.get(thread))):
                self._send_text("stderr", _LEFT[new > 1].format(new))
            self._task = None
            self._left = left

    def write(self, name: str, text: str) -> None:
        """Append ``text`` to the stream called ``name``."""
        if self._forked:
            os.write(1 if name == "stdout" else 2, text.encode("utf-8", "replace"))
            return
        with self._lock:
            if not self._unsent:
                self.capture.pull(1)  # what was written there came before
            self.append(name, text)

    def append(self, name: str, text: str) -> None:
        """Append text whose turn it is; for ``write`` and for ``FdCapture``, under the lock."""
        if self._task is None:
            return
        if self._left and not self._noted and self._is_late():
            self._note_late()
        if self._unsent:
            self._unsent += len(text)
            return
        if name != self._name:
            self.flush()
        self._name = name
        gathered = self._gathered[name]
        gathered.texts.append(text)
        gathered.left = (gathered.room or gathered.left) - len(text)
        if gathered.left <= 0:
            self.flush()
            return
        gathered.room = 0 if self._left else gathered.left
        if not self._written.is_set():
            self._written.set()

    def texts(self, name: str) -> Gathered:
        """Return where the texts of a stream are gathered."""
        return self._gathered[name]

    def display(self, kind: str, content: dict[str, Any]) -> None:
        """Send a display message: ``kind`` as in Jupyter's protocol, ``content`` what can be made JSON."""
        text = json.dumps(content, default=_jsonable, skipkeys=True, ensure_ascii=False)
        body = text.encode("utf-8", "replace")
        if self._forked:
            return
        with self._lock:
            self.capture.pull(1)
            self.flush()
            if self._task is None:
                return
            if self._left and not self._noted and self._is_late():
                self._note_late()
            self._frames += 1
            if self._unsent or self._sent + len(body) > self._limit or self._frames > self._most_frames:
                self._unsent += len(body)
                return
            self._sent += len(body)
            for start in range(0, len(body), MAX_BODY):
                frame = Output(self._task.id, self._task.attempt, kind, more=start + MAX_BODY < len(body))
                self._channel.send(frame, body[start : start + MAX_BODY])

    def tell(self, kind: str, content: dict[str, Any]) -> bool:
        """Send a warning, or a record of a logger; return whether that can be."""
        if self._forked or self._task is None:
            return False
        self.display(kind, content)
        return True

    def flush_soon(self) -> None:
        """Send what has been gathered, unless much was sent a moment ago: then it is sent in a moment."""
        with self._lock:
            now = time.monotonic()
            self._at_once = min(self._at_once + (now - self._asked_at) / _OFTEN, _AT_ONCE)
            self._asked_at = now
            if self._at_once >= 1 and self._gathered[self._name].texts:
                self._at_once -= 1
                self.flush()

    def flush(self) -> None:
        """Send what has been gathered."""
        with self._lock:
            for name in (self._name, *self._gathered):  # a thread may have been late
                if text := self._gathered[name].taken():
                    self._send_gathered(name, text)

    def _send_gathered(self, name: str, text: str) -> None:
        if self._task is None:
            return
        body = text.encode("utf-8", "replace")
        self._frames += 1
        room = self._limit - self._sent if self._frames <= self._most_frames else 0
        if len(body) > room:
            self._unsent += len(body) - room
            body = body[:room].decode("utf-8", "ignore").encode()
        self._sent += len(body)
        self._send_body(name, body)

    def after_fork_in_child(self) -> None:
        """Whatever another thread held here at the fork, it is of no account in the child."""
        self._forked = True
        self._lock.lock = threading.RLock()
        for gathered in self._gathered.values():
            gathered.taken()

    def _note_late(self) -> None:
        """Say, once a task, that another one's thread prints."""
        self._noted = True
        self.flush()
        self._send_text("stderr", _LATE_THREAD)

    def _is_late(self) -> bool:
        """Whether the calling thread is amid the work of an earlier task."""
        thread = threading.get_ident()
        left = self._left.get(thread)
        if left is None:
            return False
        if left.still_calls(sys._getframe()):
            return True
        del self._left[thread]
        return False

    def _send_text(self, name: str, text: str) -> None:
        self._send_body(name, text.encode("utf-8", "replace"))

    def _send_body(self, name: str, body: bytes) -> None:
        if self._task is None:
            return
        frame = Output(self._task.id, self._task.attempt, "stream", name)
        while body:
            end = len(body)
            if end > MAX_BODY:  # each frame is text of its own: don't cut within a character
                end = MAX_BODY
                while body[end] & 0xC0 == 0x80:
                    end -= 1
            self._channel.send(frame, body[:end])
            body = body[end:]

    def _notice(self) -> str:
        return (
            f"\n[{self._unsent:,} more bytes of output were not sent: this worker sends {self._limit:,} bytes a task, "
            f"in {self._most_frames:,} pieces. "
            "Print less, write to a value that the cell returns, or start the worker with a larger P2P_OUTPUT_LIMIT.]\n"
        )

    def _flush_late(self) -> None:
        while True:
            self._written.wait()
            time.sleep(_LATE)
            self._written.clear()
            self.flush()


class Gathered:
    """Texts of one stream that are still to be sent. Each step is one that no other thread can divide."""

    __slots__ = ("left", "room", "texts")

    def __init__(self) -> None:
        self.texts: deque[str] = deque()
        self.room = 0
        """Characters that may be added without a lock, 0 for none: as long as the other stream is quiet."""

        self.left = _GATHER
        """Characters until the texts are sent, if there is no such room."""

    def taken(self) -> str:
        """Return the texts so far, and keep them no longer."""
        texts = self.texts
        self.room, self.left = 0, _GATHER
        return "".join([texts.popleft() for _ in range(len(texts))])


class Stream(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr`` of tasks."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, outlet: Outlet, name: str, fd: int) -> None:
        self._outlet = outlet
        self._fd = fd
        self.name = f"<{name}>"
        self.mode = "w"
        self._kind = name
        self._gathered = outlet.texts(name)
        self._add = self._gathered.texts.append
        self._arrived = outlet.capture.arrived
        self.buffer = _Bytes(self)

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not text:
            return 0
        size, gathered = len(text), self._gathered
        if gathered.room > size and not self._arrived(0):  # what was written there came before
            self._add(text)
            gathered.room -= size
        else:
            self._outlet.write(self._kind, text)
        return size

    def flush(self) -> None:
        self._outlet.flush_soon()

    def fileno(self) -> int:
        """Return a descriptor that ends up in the same place, for subprocesses."""
        return self._fd

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """Only flushes: the stream belongs to the runner, the next task needs it."""
        self.flush()


class _Bytes(io.RawIOBase):
    """``sys.stdout.buffer``: bytes that are taken for UTF-8."""

    def __init__(self, text: Stream) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: Any) -> int:
        data = bytes(data)
        self._text.write(self._decoder.decode(data))
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._text.fileno()

    def close(self) -> None:
        pass


class FdCapture:
    """Reads what is written to descriptors 1 and 2, past Python.

    ``pull`` and the thread take turns under the outlet's lock, so that what ``pull`` doesn't find has been
    handed over.
    """

    def __init__(self, outlet: Outlet, lock: Any) -> None:
        self._outlet = outlet
        self._lock = lock
        self._poll = select.poll()  # for pull; a poll object serves one thread at a time
        looking = select.epoll() if hasattr(select, "epoll") else _LockedPoll()
        self.arrived = looking.poll
        """Returns what has come. From any thread."""

        self._ends: dict[int, tuple[int, int, str, codecs.IncrementalDecoder]] = {}
        for fd, name in ((1, "stdout"), (2, "stderr")):
            read, write = os.pipe()
            os.set_blocking(read, False)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            self._ends[read] = (write, fd, name, decoder)
            self._poll.register(read, select.POLLIN)
            looking.register(read, select.POLLIN)
        self.restore()
        threading.Thread(target=self._read_on, name="p2p-capture", daemon=True).start()

    def restore(self) -> None:
        """Point descriptors 1 and 2 here (again); a task may have closed or moved them."""
        for write, fd, _, _ in self._ends.values():
            os.dup2(write, fd)

    def pull(self, reads: int) -> None:
        """Hand over what is there now, at most ``reads`` times ``_READ`` bytes. Under the outlet's lock."""
        while reads and (ready := self._poll.poll(0)):
            reads -= 1
            for fd, _ in ready:
                self._hand_over(fd)

    def _hand_over(self, fd: int) -> None:
        _, _, name, decoder = self._ends[fd]
        with contextlib.suppress(BlockingIOError):
            text = decoder.decode(os.read(fd, _READ))
            if text:
                self._outlet.append(name, text)

    def _read_on(self) -> None:
        poll = select.poll()
        for fd in self._ends:
            poll.register(fd, select.POLLIN)
        while True:
            ready = poll.poll()
            with self._lock:
                for fd, _ in ready:
                    self._hand_over(fd)


class _LockedPoll:
    """A poll object that serves several threads."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._lock = threading.Lock()

    def register(self, fd: int, events: int) -> None:
        self._poll.register(fd, events)

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        with self._lock:
            return self._poll.poll(timeout)


def streams(outlet: Outlet) -> tuple[TextIO, TextIO]:
    """Make what ``sys.stdout`` and ``sys.stderr`` are to be."""
    return Stream(outlet, "stdout", 1), Stream(outlet, "stderr", 2)  # type: ignore[return-value]


def _jsonable(value: object) -> object:
    """Replace a value that JSON lacks: bytes are images, as in Jupyter's protocol; the rest becomes its ``repr``."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return repr(value)
