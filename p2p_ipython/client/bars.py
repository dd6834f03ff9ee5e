"""A group's bar for programs and terminals: rich's in a terminal; elsewhere tqdm's where that is installed, else text.

A thread of its own draws it: printing may block, and the loop that serves the links must not. It ends with its group.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Generator
from typing import Any

from p2p_ipython.client.groups import Group, Standing

EVERY = 0.2
"""Seconds between two looks."""

SELDOM = 10.0
"""Seconds between two lines, where a line can't be drawn over."""

Drawing = Generator[None, Standing, None]


class Bar:
    """The bar of a group, on standard error. It begins at once; ``close`` waits until the end of it is drawn."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._over = threading.Event()
        group.follow(self._changed)
        self._thread = threading.Thread(target=self._draw, name="p2p-bar", daemon=True)
        self._thread.start()

    def close(self, timeout: float | None = 5.0) -> None:
        """Draw no more, once it has been drawn as it is now; wait ``timeout`` seconds for that."""
        self._over.set()
        self._thread.join(timeout)

    def _changed(self) -> None:
        if self._group.ended:
            self._over.set()

    def _draw(self) -> None:
        if self._group.ended:
            self._over.set()
        drawing = drawn(sys.stderr)
        try:
            next(drawing)
            while True:
                last = self._over.wait(EVERY)
                drawing.send(self._group.standing)
                if last:
                    return
        except (OSError, ValueError):
            pass  # nobody reads it
        finally:
            drawing.close()


def drawn(stream: Any) -> Drawing:
    """Return what draws each ``Standing`` that it gets."""
    if stream.isatty():
        return _rich(stream)
    try:
        import tqdm  # optional  # noqa: F401
    except ImportError:
        return _text(stream)
    return _tqdm(stream)


def _rich(stream: Any) -> Drawing:
    from rich.console import Console  # heavy, as the next one
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=Console(file=stream), auto_refresh=False) as progress:
        task = progress.add_task("", total=None, words="")
        while True:
            now = yield
            progress.update(task, description=now.label, total=now.total, completed=now.over, words=now.words)
            progress.refresh()


def _tqdm(stream: Any) -> Drawing:
    from tqdm import tqdm

    now = yield
    with tqdm(total=now.total, desc=now.label, file=_Gone(stream)) as bar:
        while True:
            if now.failed or now.cancelled:
                bar.set_postfix(failed=now.failed, cancelled=now.cancelled, refresh=False)
            bar.update(now.over - bar.n)
            now = yield


class _Gone:
    """A stream for tqdm, which keeps its lock, and with it all its bars, if writing raises something."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None)

    def write(self, text: str) -> None:
        """Write, if somebody reads it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, if somebody reads it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _text(stream: Any) -> Drawing:
    said = time.monotonic()
    now = None
    try:
        while True:
            now = yield
            if time.monotonic() >= said + SELDOM:
                said = time.monotonic()
                stream.write(f"{now.label}: {now.words}\n")
                stream.flush()
    finally:
        if now is not None:
            stream.write(f"{now.label}: {now.words}\n")
            stream.flush()
