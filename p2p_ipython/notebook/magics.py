"""The magics: ``%p2p_connect``, ``%%p2p``, ``%p2p``, ``%p2p_status``, ``%p2p_disconnect``; for friends see friends.py.

Each parses its line, calls the cluster and shows what it says; what is decided is decided elsewhere. Loading
them costs milliseconds: whatever a cluster needs is imported when it is connected.

``%%p2p`` is synchronous and returns at once. Its output lands under its own cell, also when that is long over;
see output.py for the front ends where it can't.
"""

from __future__ import annotations

import ast
import concurrent.futures
import keyword
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from IPython.core.error import UsageError as MagicUsage
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.display import publish_display_data

from p2p_ipython.client import future
from p2p_ipython.client.printing import printed
from p2p_ipython.errors import CaptureError, NotAdmitted, NotConnected, UsageError
from p2p_ipython.notebook import completion
from p2p_ipython.notebook.card import Cards, line_html
from p2p_ipython.notebook.friends import FriendsMagics
from p2p_ipython.notebook.lending import LendingMagics
from p2p_ipython.notebook.lines import Interrupted, options_of, say, unquoted, without_arguments
from p2p_ipython.notebook.output import CellOutput, CurrentCell, table
from p2p_ipython.notebook.panel.registration import Door
from p2p_ipython.notebook.status_line import StatusLines, text
from p2p_ipython.protocol.plain import count, plain

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.client.future import Future
    from p2p_ipython.notebook.panel.panels import Desk
    from p2p_ipython.task.capture import Captured, Row

Connect = Callable[..., "Cluster"]

_GLOBAL = re.compile(r"auto|none|[+-][^\W\d]\w*")
_SHOWN_WITHIN = 2.0
"""Seconds that --wait lets the line under the cell take to say how the task ended."""


def load(ip: InteractiveShell, connect: Connect | None = None) -> P2PMagics:
    """Register the magics. ``connect`` takes the place of ``p2p_ipython.connect`` (for tests)."""
    unload(ip)
    magics = P2PMagics(ip, connect)
    ip.register_magics(magics)
    friends = FriendsMagics(ip, magics)
    ip.register_magics(friends)

    def desk(door: Door) -> Desk:
        from p2p_ipython.notebook.panel.panels import Desk

        return Desk(door, magics, friends)

    magics.door = Door(ip, magics, desk)
    ip.register_magics(LendingMagics(ip, magics))
    completion.load(ip, [P2PMagics, FriendsMagics, LendingMagics])
    return magics


def unload(ip: InteractiveShell) -> None:
    """End this kernel's cluster, what it hosts and lends, and forget the magics' state."""
    completion.unload(ip)
    with ExitStack() as ending:  # the last first, and each whatever becomes of the others
        for name in (P2PMagics.__name__, FriendsMagics.__name__, LendingMagics.__name__):
            magics = ip.magics_manager.registry.pop(name, None)
            if magics is None:
                continue
            for kind in ip.magics_manager.magics.values():
                for word in [word for word, function in kind.items() if getattr(function, "__self__", None) is magics]:
                    del kind[word]
            # IPython never forgets magics that were registered once, nor what they have shown.
            ip.configurables[:] = [one for one in ip.configurables if one is not magics]
            ending.callback(magics.end)


class GlobalsOption(NamedTuple):
    """``--globals``: find names by themselves (``automatic``), and those to add and to leave out."""

    automatic: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]


def split_globals(line: str) -> tuple[str, GlobalsOption]:
    """Take ``--globals auto|none [+NAME] [-NAME] …`` out of a magic's line; argparse would stumble over -NAME.

    Raises IPython's ``UsageError`` when nothing usable follows it.
    """
    kept: list[str] = []
    given: list[str] = []
    inside = False
    for word in line.replace("--globals=", "--globals ").split():
        parts = [part for part in word.strip("\"'").split(",") if part]
        if word == "--globals":
            if inside and not given:
                break
            inside = True
        elif inside and parts and all(_GLOBAL.fullmatch(part) for part in parts):
            given += parts
        else:
            kept.append(word)
    if inside and not given:
        raise MagicUsage("--globals wants auto or none, +NAME to add a name, -NAME to leave one out")
    include = tuple(part[1:] for part in given if part[0] == "+")
    exclude = tuple(part[1:] for part in given if part[0] == "-")
    return " ".join(kept) if inside else line, GlobalsOption("none" not in given, include, exclude)


@magics_class
class P2PMagics(Magics):
    """Magics to share Python compute; ``%p2p_connect`` first."""

    def __init__(self, shell: InteractiveShell, connect: Connect | None = None) -> None:
        super().__init__(shell, parent=shell)
        self._ip = shell
        self.cluster: Cluster | None = None
        self._connect = connect
        self.door: Door | None = None
        self._joined: dict[str, Any] = {}
        self._joining = threading.Lock()
        self._ended = False
        self.on_cluster: Callable[[], None] = lambda: None
        """Called when ``cluster`` is another one, by the thread that has made it so."""
        self._current = CurrentCell(shell)
        self._cards = Cards()
        self._status_lines = StatusLines(self._cards)
        # What `cluster.submit` runs shows its output under the cell that submits it, too.
        future.default_sink = self.output

    def end(self) -> None:
        """Close the cluster and stop listening to the shell."""
        self._ended = True
        self._current.close()
        future.default_sink = lambda: printed
        with ExitStack() as ending:  # the last first, and each whatever becomes of the others
            ending.callback(self._cards.close)
            ending.callback(self._close_last)
            if self.door is not None:
                ending.callback(self.door.close)

    # -- clusters --

    @magic_arguments()
    @argument("target", nargs="?", help="a cluster of friends, as alice/friends; or HOST[:PORT] of a board that runs")
    @argument("--cluster", help="name of the personal cluster on that board")
    @argument("--workers", type=int, help="worker processes on this machine (default: one a core)")
    @argument("--name", help="what others see of you")
    @argument("--board", help="when knocking: HOST[:PORT] of the board (default: pipe.pico.sh)")
    @argument("--owner", metavar="SHA256:…", help="when knocking: the fingerprint of the owner's key")
    @argument("--identity", help="file of the SSH key to use")
    @argument("--accept-host-key", help="fingerprint of the board's host key, to accept it")
    @argument("--ssh-option", action="append", help="option of ssh for the way to the board, as '-J HOST'; repeatable")
    @argument("--mailbox", help="URL of the wormhole mailbox, for a board that has none of its own")
    @argument("--relay", help="tcp:HOST:PORT of the relay, as with the mailbox")
    @argument("--as", dest="bind", help="bind the cluster to this name, for its submit and map")
    @line_magic
    def p2p_connect(self, line: str) -> None:
        """Join a cluster; %%p2p then runs cells on it.

        ``%p2p_connect`` starts a personal cluster on this machine: no account, no network. It ends with the
        kernel. ``%p2p_connect alice/friends`` connects to a cluster of friends that you have joined (see %p2p_join);
        to one that you have not, it knocks: its owner is asked whether to let you in.
        ``%p2p_connect HOST:PORT --cluster NAME`` joins a personal cluster on a board that runs elsewhere.

        The cluster that is connected already is left when the new one is there, and not while it has tasks that
        aren't over. The same line again changes nothing.
        """
        given = self._way(line)
        bind = _name(given.pop("bind"))
        if self.cluster is not None and not self.cluster.closed and given == self._joined:
            say(f"Still connected: {_where(given)}.")
        else:
            self._join_aloud(given)
        if bind is not None:
            self._ip.push({bind: self.cluster})

    @line_magic
    def p2p_disconnect(self, line: str) -> None:
        """Leave the cluster: unfinished tasks are cancelled, a personal cluster's processes end."""
        without_arguments("%p2p_disconnect", line)
        if self.cluster is None or self.cluster.closed:
            say("Not connected.")
        else:
            say(self.leave(self.cluster))

    @line_magic
    def p2p_status(self, line: str) -> None:
        """Show the cluster: board, members, slots, tasks, links, each with its state."""
        without_arguments("%p2p_status", line)
        status = self._connected().status()
        publish_display_data({"text/plain": status.text(), "text/html": status.html()})

    @line_magic
    def p2p_panel(self, line: str) -> None:
        """Show a live view of the cluster: who is here, tasks, offers, and what can be done.

        It is of the cluster that is connected, whichever that is at the time; ``cluster.panel()`` is of one cluster.
        """
        without_arguments("%p2p_panel", line)
        if self.door is not None:
            self.door.desk.place(self.output())

    # -- tasks --

    @magic_arguments()
    @argument("name", nargs="?", help="bind the future to this name (and to _p2p in any case)")
    @argument("--wait", action="store_true", help="wait for the result, and show it as the cell's own")
    @argument("--dry-run", action="store_true", help="show what would travel, and run nothing")
    @argument("--label", help="what the task is called in lists (default: NAME, or In[3])")
    @argument("--once", action="store_true", help="never start it a second time, should its worker go away")
    @argument("--globals", metavar="auto|none|+NAME|-NAME", help="names that travel, if not just those it uses")
    @no_var_expand
    @line_cell_magic
    def p2p(self, line: str, cell: str | None = None) -> Any:
        """Run a cell on the cluster; returns at once.

        ``%%p2p tile`` on top of a cell binds ``tile`` to a future: ``tile.result()`` or ``await tile`` gives
        the value of the cell's last expression (``;`` suppresses it). The variables, functions and modules
        that the cell uses are found and sent, as they are now. ``%p2p EXPRESSION`` does the same for an
        expression, and gives the future. Names in strings (``eval("x")``) aren't seen: ``--globals +x``.

        In ``%p2p EXPRESSION`` there are no options.
        """
        if cell is None:
            if not line.strip():
                raise MagicUsage("%p2p wants an expression; or write %%p2p on top of a cell")
            if line.strip() == "--help":
                raise MagicUsage("for help, type %p2p? in a cell of its own")
            captured = self._captured(line, GlobalsOption(True, (), ()))
            if not _is_expression(line, self._ip.transform_cell):
                raise MagicUsage("%p2p wants one expression; for statements, write %%p2p on top of a cell")
            return self._submit(captured, line.strip(), self.output(), once=False, line=False)
        rest, chosen = split_globals(line)
        if "--help" in rest.split():
            raise MagicUsage("for help, type %%p2p? in a cell of its own")
        options = parse_argstring(self.p2p, rest)
        name = _name(options.name)
        if options.dry_run:
            self._show_names(self._captured(cell, chosen))
            return None
        cluster = self._connected()
        captured = self._captured(cell, chosen)
        label = unquoted(options.label) or name or f"In[{self._ip.execution_count}]"
        output = self.output()
        future = self._submit(captured, label, output, once=options.once, line=True)
        shown = self._status_lines.add(future, output, lambda: cluster._core.record.entries.get(future.task_id))
        if name is not None:
            self._ip.push({name: future})
        return self._wait(future, shown) if options.wait else None

    def _captured(self, source: str, chosen: GlobalsOption) -> Captured:
        from p2p_ipython.task.capture import capture_cell

        try:
            return capture_cell(
                source,
                self._ip.user_ns,
                transform=self._ip.transform_cell,
                automatic=chosen.automatic,
                include=chosen.include,
                exclude=chosen.exclude,
            )
        except SyntaxError as error:
            raise CellSyntaxError(error, self._ip) from None

    def _submit(self, captured: Captured, label: str, output: CellOutput, *, once: bool, line: bool) -> Future[Any]:
        from p2p_ipython.task.task import task_of

        cluster = self._connected()
        task = task_of(captured, cluster._core.store, label=label, once=once, large=cluster.settings.large)
        if line:  # before it is submitted, so that the line is above what the task shows
            words = text(plain(task.label, 80), "submitted", 0, over=False)
            output.show(words, html=line_html("waiting", words))
        try:
            future = cluster._core.submit_task(task, output)
        except BaseException:
            cluster._core.store.unpin(task.packed.large)
            raise
        self._ip.push({"_p2p": future}, interactive=False)
        return future

    def _wait(self, future: Future[Any], shown: threading.Event) -> Any:
        try:
            while not future.done():  # in steps: on Windows a wait without an end can't be interrupted
                concurrent.futures.wait([future], timeout=0.5)
        except KeyboardInterrupt:
            future.cancel()
            raise Interrupted("the task was cancelled") from None
        finally:  # what comes after the cell is over is lost where no other cell follows
            shown.wait(_SHOWN_WITHIN)
        return future.result()

    def _show_names(self, captured: Captured) -> None:
        from p2p_ipython.task.capture import listing

        rows = listing(captured)
        if not rows:
            say("The cell uses no names of this notebook: only its source would travel.")
            return
        head = ("name", "type", "size", "used by")
        publish_display_data(table(head, [_cells(row) for row in rows], caption([row.size for row in rows])))

    # -- inside --

    def _connected(self) -> Cluster:
        if self.cluster is None or self.cluster.closed:
            raise NotConnected(
                "no cluster is connected",
                hint="Run %p2p_connect for one on this machine, %p2p_connect alice/friends for one of friends, "
                "or %p2p_connect HOST:PORT --cluster NAME.",
            )
        return self.cluster

    def connect_to(self, target: str, progress: Callable[[str], None]) -> str:
        """What ``%p2p_connect TARGET`` does, for any thread; returns what there is to say. "": a personal cluster."""
        given = {**self._way(""), "target": target or None}
        del given["bind"]
        return self._join(given, progress)

    def _way(self, line: str) -> dict[str, Any]:
        """The arguments of ``connect`` in a line, and "bind"."""
        given = options_of(self.p2p_connect, line)
        given["ssh_options"] = tuple(given.pop("ssh_option") or ())
        return given

    def _replaced(self) -> Cluster | None:
        """The cluster that another one may take the place of. Raises ``UsageError`` while it has unfinished tasks."""
        old = self.cluster if self.cluster is not None and not self.cluster.closed else None
        if old is not None and (tasks := _unfinished(old)):
            where, are = _where(self._joined), "is" if tasks == 1 else "are"
            raise UsageError(
                f"still connected: {where}, where {count(tasks, 'task')} {are} not over",
                hint="Wait for them; or leave with %p2p_disconnect first, which cancels them.",
            )
        return old

    def _join(self, given: dict[str, Any], progress: Callable[[str], None]) -> str:
        """Connect to another cluster than now; what to say. That one is left last: a failure must not cost it."""
        if not self._joining.acquire(blocking=False):
            raise UsageError("it is connecting already", hint="Wait until that is over.")
        try:
            old, before = self._replaced(), self._joined
            cluster = (self._connect or _connect())(**given, progress=progress)
            if self._ended:
                cluster.close()
                raise UsageError("the extension was unloaded meanwhile", hint="Connect again.")
            self.cluster, self._joined = cluster, given
        finally:
            self._joining.release()
        self.on_cluster()
        words = f"Connected: {_where(given)}. Put %%p2p on top of a cell to run it there."
        if old is not None:
            tasks = self._close(old)  # another thread may have submitted some meanwhile
            words += f"\nLeft: {_where(before)}.{_cancelled(tasks)}"
        return words

    def leave(self, cluster: Cluster) -> str:
        """Close a cluster; returns what there is to say. Any thread's."""
        return f"Disconnected.{_cancelled(self._close(cluster))}"

    def _join_aloud(self, given: dict[str, Any]) -> None:
        """Connect, and say under the cell how that goes."""
        before = _where(self._joined) if self._replaced() is not None else ""
        output = self.output()
        try:
            words, *left = self._join(given, output.progress).split("\n")
        except NotAdmitted as error:  # perhaps it goes on knocking; then the line will say what becomes of that
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

    def _close(self, cluster: Cluster) -> int:
        """Close ``cluster``; how many tasks that cancels."""
        tasks = _unfinished(cluster)
        if self.cluster is cluster:
            self.cluster = None
        cluster.close()
        self.on_cluster()
        return tasks

    def _close_last(self) -> None:
        cluster, self.cluster = self.cluster, None
        if cluster is not None:
            cluster.close()

    def output(self) -> CellOutput:
        """The output area of the cell that runs now."""
        return CellOutput(self._ip, self._current)

    @property
    def computes(self) -> bool:
        """Whether a cell runs."""
        return self._current.runs


class CellSyntaxError(CaptureError):
    """The cell has a syntax error, so nothing was sent. IPython shows it as it shows the notebook's own."""

    def __init__(self, error: SyntaxError, ip: InteractiveShell) -> None:
        super().__init__(f"{type(error).__name__}: {error}", hint="Nothing was sent.")
        shown: Any = ip.SyntaxTB  # its types say otherwise
        self._lines: list[str] = shown.structured_traceback(type(error), error, [])

    def _render_traceback_(self) -> list[str]:
        return self._lines


def caption(sizes: Sequence[int | None]) -> str:
    """What a dry run says above its table, of the sizes of the names: bytes, or None for what can't travel."""
    sent = [size for size in sizes if size is not None]
    stuck = len(sizes) - len(sent)
    words = f"{count(len(sent), 'name')} would travel, about {_bytes(sum(sent))}." if sent else ""
    if stuck:
        words += f" {count(stuck, 'name')} can't be sent, so the cell would be refused."
    return f"{words} Nothing was sent.".strip()


def _connect() -> Connect:
    from p2p_ipython.client.connect import connect

    return connect


def _name(word: str | None) -> str | None:
    if word is not None and (not word.isidentifier() or keyword.iskeyword(word)):
        raise MagicUsage(f"{word!r} is not a name that a future could have")
    return word


def _is_expression(source: str, transform: Callable[[str], str]) -> bool:
    from p2p_ipython.task.reads import parsed

    body = parsed(source, transform).body
    return len(body) == 1 and isinstance(body[0], ast.Expr)


def _unfinished(cluster: Cluster) -> int:
    status = cluster.status()
    return status.pending + status.running


def _cancelled(tasks: int) -> str:
    if tasks == 1:
        return " 1 task that was not over is cancelled."
    return f" {tasks} tasks that were not over are cancelled." if tasks else ""


def _where(given: dict[str, Any]) -> str:
    if given["target"] is None:
        return "a personal cluster on this machine"
    if "/" in given["target"]:
        return str(given["target"])
    return f"the board at {given['target']}" + (f", cluster {given['cluster']}" if given["cluster"] else "")


def _cells(row: Row) -> tuple[str, ...]:
    return row.name, row.type, _bytes(row.size) if row.size is not None else f"can't travel: {row.trouble}", row.used_by


def _bytes(size: int) -> str:
    if size < 1000:
        return count(size, "byte")
    if size < 1_000_000:
        return f"{size / 1000:.1f} kB"
    return f"{size / 1_000_000:.1f} MB"
