"""The notebook's connection: which cluster it has, and how it goes from one to another.

``%p2p_connect`` and the panel both use it, each on a thread of its own; one of them connects at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from p2p_ipython.errors import NotAdmitted, UsageError
from p2p_ipython.notebook.lines import say
from p2p_ipython.protocol.plain import count

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.notebook.output import CellOutput

Connect = Callable[..., "Cluster"]


class Notebook(Protocol):
    """The part of ``P2PMagics`` that the magics for friends and for lending use."""

    @property
    def cluster(self) -> Cluster | None:
        """The notebook's cluster, if there is one; it may be closed."""

    def output(self) -> CellOutput:
        """Return the output area of the cell that runs now."""


class Connection:
    """See the module. ``connect`` takes the place of ``p2p_ipython.connect`` (for tests)."""

    def __init__(self, connect: Connect | None = None) -> None:
        self.cluster: Cluster | None = None
        self.given: dict[str, Any] = {}
        """The arguments that ``cluster`` was connected with."""
        self.changed: Callable[[], None] = lambda: None
        """Called when ``cluster`` is another one, by the thread that has made it so."""
        self._connect = connect
        self._joining = threading.Lock()
        self._ended = False

    def replaced(self) -> Cluster | None:
        """Return the cluster that another one would replace. Raises ``UsageError`` while it has unfinished tasks."""
        old = self.cluster if self.cluster is not None and not self.cluster.closed else None
        if old is not None and (tasks := _unfinished(old)):
            are = "is" if tasks == 1 else "are"
            raise UsageError(
                f"still connected: {where(self.given)}, where {count(tasks, 'task')} {are} unfinished",
                hint="Wait for them; or leave with %p2p_disconnect first, which cancels them.",
            )
        return old

    def join(self, given: dict[str, Any], progress: Callable[[str], None]) -> str:
        """Connect to another cluster; return what there is to say.

        The present one is left last: a failure must not cost it.
        """
        if not self._joining.acquire(blocking=False):
            raise UsageError("the notebook is connecting already", hint="Wait until it is connected.")
        try:
            old, before = self.replaced(), self.given
            cluster = (self._connect or _connect())(**given, progress=progress)
            if self._ended:
                cluster.close()
                raise UsageError("the extension was unloaded meanwhile", hint="Connect again.")
            self.cluster, self.given = cluster, given
        finally:
            self._joining.release()
        self.changed()
        words = f"Connected: {where(given)}. Put %%p2p on top of a cell to run it there."
        if old is not None:
            tasks = self._close(old)  # another thread may have submitted some meanwhile
            words += f"\nLeft: {where(before)}.{_cancelled(tasks)}"
        return words

    def leave(self, cluster: Cluster) -> str:
        """Close a cluster; return what there is to say."""
        return f"Disconnected.{_cancelled(self._close(cluster))}"

    def _close(self, cluster: Cluster) -> int:
        """Close ``cluster``; return how many tasks that cancels."""
        tasks = _unfinished(cluster)
        if self.cluster is cluster:
            self.cluster = None
        cluster.close()
        self.changed()
        return tasks

    def end(self) -> None:
        """Close the cluster, and connect to none any more."""
        self._ended = True
        cluster, self.cluster = self.cluster, None
        if cluster is not None:
            cluster.close()


def join_aloud(connection: Connection, given: dict[str, Any], output: CellOutput) -> None:
    """Connect, and show the progress under the cell."""
    before = where(connection.given) if connection.replaced() is not None else ""
    try:
        words, *left = connection.join(given, output.progress).split("\n")
    except NotAdmitted as error:  # it may still be knocking; then the line says how that ends
        output.show(f"Not connected: {error.message}.")
        raise
    except BaseException:
        output.show(f"Still connected: {before}." if before else "Not connected.")
        raise
    if output.has_status:
        output.show(words)
    else:
        say(words)
    for line in left:
        say(line)


def _connect() -> Connect:
    from p2p_ipython.client.connect import connect  # heavy

    return connect


def _unfinished(cluster: Cluster) -> int:
    status = cluster.status()
    return status.pending + status.running


def _cancelled(tasks: int) -> str:
    if tasks == 1:
        return " 1 unfinished task is cancelled."
    return f" {tasks} unfinished tasks are cancelled." if tasks else ""


def where(given: dict[str, Any]) -> str:
    """Say in words what the arguments of ``connect`` lead to."""
    if given["target"] == "inline":
        return "inline, in this kernel: %%p2p runs its cell at once, where breakpoints and %debug see it"
    if given["target"] is None:
        from p2p_ipython.protocol.messages import NO_WALL  # the extension loads without it

        sandbox = given.get("sandbox") or NO_WALL
        seen = "a sandbox that shows this folder, to read and write, but for dot files and environments"
        return "a personal cluster on this machine" + ("" if sandbox == NO_WALL else f", whose tasks run in {seen}")
    if "/" in given["target"]:
        return str(given["target"])
    return f"the board at {given['target']}" + (f", cluster {given['cluster']}" if given["cluster"] else "")
