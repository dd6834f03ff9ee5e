"""A real kernel, and what it publishes for each cell: the front end of the notebook's tests."""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.manager import KernelManager

DEADLINE = 60.0


@dataclass
class Cell:
    """A cell that was run, with the messages that named it as their parent, in order."""

    id: str
    messages: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [m["content"] for m in self.messages if m["msg_type"] == kind]

    @property
    def text(self) -> str:
        """What it printed."""
        return "".join(c["text"] for c in self.of("stream"))

    @property
    def value(self) -> str | None:
        """Its Out."""
        return next((c["data"]["text/plain"] for c in self.of("execute_result")), None)

    @property
    def error(self) -> dict[str, Any] | None:
        return next(iter(self.of("error")), None)

    @property
    def idle(self) -> bool:
        return any(c["execution_state"] == "idle" for c in self.of("status"))

    @property
    def status_line(self) -> str | None:
        """The line under it, after all updates."""
        shown: dict[str, str] = {}
        for kind in ("display_data", "update_display_data"):
            for content in self.of(kind):
                if (display := content["transient"].get("display_id")) is not None:
                    shown[display] = content["data"]["text/plain"]
        return next(iter(shown.values()), None)

    @property
    def shown(self) -> str:
        """All that a reader sees: what it printed, and its displays after all updates."""
        shown: dict[str, str] = {}
        for kind in ("display_data", "update_display_data"):
            for number, content in enumerate(self.of(kind)):
                shown[content["transient"].get("display_id") or str(number)] = content["data"].get("text/plain", "")
        return "\n".join([self.text, *shown.values()])


class Notebook:
    """Runs cells as JupyterLab does: each has a ``cellId``."""

    def __init__(self, manager: KernelManager, client: Any) -> None:
        self.manager = manager
        self.client = client
        self.cells: dict[str, Cell] = {}

    def start(self, code: str, *, cell_id: str | None = "some-cell") -> Cell:
        """Send a cell and don't wait for it."""
        client = self.client
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = client.session.msg("execute_request", {**content, "stop_on_error": False})
        message["metadata"] = {} if cell_id is None else {"cellId": cell_id}
        client.shell_channel.send(message)
        cell = self.cells[message["header"]["msg_id"]] = Cell(message["header"]["msg_id"])
        return cell

    def run(self, code: str, **options: Any) -> Cell:
        """Run a cell to its end."""
        cell = self.start(code, **options)
        self.until(lambda: cell.idle)
        return cell

    def until(self, holds: Callable[[], object]) -> None:
        """Take in messages until something holds."""
        deadline = time.monotonic() + DEADLINE
        while not holds():
            assert time.monotonic() < deadline, {cell.id[-4:]: cell.messages for cell in self.cells.values()}
            with contextlib.suppress(queue.Empty):
                message = self.client.get_iopub_msg(timeout=0.5)
                if (cell := self.cells.get(message["parent_header"].get("msg_id", ""))) is not None:
                    cell.messages.append(message)


@contextlib.contextmanager
def notebook(environment: Mapping[str, str] | None = None) -> Iterator[Notebook]:
    """A kernel and its client; ended at the end. ``environment``: another one than the tests'."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=dict(os.environ if environment is None else environment))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=DEADLINE)
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel()
        manager.cleanup_resources()
