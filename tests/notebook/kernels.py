"""A real kernel, and what it publishes for each cell: the front end of the notebook's tests."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
    def traceback(self) -> str:
        """Its error's traceback, without colours."""
        assert self.error is not None, self.shown
        return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(self.error["traceback"]))

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


@dataclass
class Comm:
    """A comm that the kernel has opened, with what it has said since."""

    id: str
    target: str
    data: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False

    @property
    def widget(self) -> dict[str, Any]:
        """A widget's state after all updates; {} of other comms."""
        state = dict(self.data.get("state", {}))
        for message in self.messages:
            if (data := message["content"]["data"]).get("method") == "update":
                state |= data["state"]
        return state


class Notebook:
    """Runs cells as JupyterLab does: each has a ``cellId``."""

    def __init__(self, manager: KernelManager, client: Any) -> None:
        self.manager = manager
        self.client = client
        self.cells: dict[str, Cell] = {}
        self.comms: dict[str, Comm] = {}

    def start(
        self, code: str, *, cell_id: str | None = "some-cell", subshell: str | None = None, asks: bool = False
    ) -> Cell:
        """Send a cell and don't wait for it.

        ``subshell``: the one that runs it, beside the shell itself. ``asks``: whether it may ask for input.
        """
        client = self.client
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": asks}
        message = client.session.msg("execute_request", {**content, "stop_on_error": False})
        message["metadata"] = {} if cell_id is None else {"cellId": cell_id}
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        client.shell_channel.send(message)
        cell = self.cells[message["header"]["msg_id"]] = Cell(message["header"]["msg_id"])
        return cell

    def run(self, code: str, **options: Any) -> Cell:
        """Run a cell to its end."""
        cell = self.start(code, **options)
        self.until(lambda: cell.idle)
        return cell

    def done(self, code: str, **options: Any) -> Cell:
        """Run a cell that raises nothing."""
        cell = self.run(code, **options)
        assert cell.error is None, cell.error
        return cell

    def forget(self) -> None:
        """Forget all names that cells have bound but ``cluster``."""
        self.done("%reset_selective -f ^(?!cluster$|_).*")

    def say(self, comm: str, data: dict[str, Any], *, subshell: str | None = None) -> None:
        """Send a comm's message, as JupyterLab does: by a subshell, so that it needn't wait for cells."""
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)

    def subshell(self) -> str | None:
        """A new subshell; None where the kernel has no such thing."""
        if "kernel subshells" not in self._ask("kernel_info_request").get("supported_features", ()):
            return None
        return str(self._ask("create_subshell_request")["subshell_id"])

    def _ask(self, request: str) -> dict[str, Any]:
        message = self.client.session.msg(request, {})
        self.client.control_channel.send(message)
        while True:
            answer = self.client.control_channel.get_msg(timeout=DEADLINE)
            if answer["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return dict(answer["content"])

    def until(self, holds: Callable[[], object]) -> None:
        """Take in messages until something holds."""
        deadline = time.monotonic() + DEADLINE
        while not holds():
            assert time.monotonic() < deadline, self._seen()
            with contextlib.suppress(queue.Empty):
                message = self.client.get_iopub_msg(timeout=0.5)
                if (cell := self.cells.get(message["parent_header"].get("msg_id", ""))) is not None:
                    cell.messages.append(message)
                self._take(message)

    def _seen(self) -> object:
        """The messages of all cells, for the error of a wait that took too long."""
        return {cell.id[-4:]: cell.messages for cell in self.cells.values()}

    def _take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "comm_open":
            self.comms[content["comm_id"]] = Comm(content["comm_id"], content["target_name"], content["data"])
        elif kind == "comm_msg" and content["comm_id"] in self.comms:
            self.comms[content["comm_id"]].messages.append(message)
        elif kind == "comm_close" and content["comm_id"] in self.comms:
            self.comms[content["comm_id"]].closed = True


@contextlib.contextmanager
def notebook(
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    kind: type[Notebook] = Notebook,
) -> Iterator[Any]:
    """A kernel and its client; ended at the end.

    ``environment``, ``cwd``: others than the tests'. ``kind``: the class of the front end.
    """
    # Asked to end it does so in order, however busy the machine is: after 5 s it would be killed.
    manager = KernelManager(kernel_name="python3", shutdown_wait_time=DEADLINE)
    manager.start_kernel(env=dict(os.environ if environment is None else environment), cwd=str(cwd or Path.cwd()))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=DEADLINE)
        yield kind(manager, client)
    finally:
        client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel()
        manager.cleanup_resources()


@contextlib.contextmanager
def connected(workers: int = 1, *, first: str = "", name: str = "cluster", **kernel: Any) -> Iterator[Any]:
    """A notebook with a personal cluster, called ``name`` there. ``first``: a cell before the extension is loaded."""
    with notebook(**kernel) as one:
        if first:
            one.done(first)
        one.done("%load_ext p2p_ipython")
        one.done(f"%p2p_connect --workers {workers}" + (f" --as {name}" if name else ""))
        yield one


def executed(folder: Path, *cells: str) -> list[list[Any]]:
    """Execute a notebook as nbconvert and papermill do; return the outputs of its cells."""
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    options: dict[str, Any] = {"timeout": DEADLINE, "iopub_timeout": DEADLINE, "kernel_name": "python3"}
    NotebookClient(book, **options, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell.outputs for cell in book.cells]
