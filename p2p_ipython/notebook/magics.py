"""The magics: ``%p2p_connect``, ``%%p2p``, ``%p2p``, ``%p2p_status``, ``%p2p_disconnect``; for friends see friends.py.

Each parses its line, calls the cluster and shows the outcome; other modules decide. Loading the magics must take
milliseconds, so functions import what a cluster needs, once it is needed.

``%%p2p`` is synchronous and returns at once. Its output appears under its own cell, also long after that has ended;
output.py says in which front ends it can't.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError as MagicUsage
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments
from IPython.display import publish_display_data
from traitlets import Bool, Float, List, Unicode

from p2p_ipython.client import ending, task_options, views
from p2p_ipython.client import future as _future
from p2p_ipython.client import groups as _groups
from p2p_ipython.client.asking import NOTHING, Asked, asked_for, asking, takes_packages
from p2p_ipython.client.offers import offer
from p2p_ipython.client.options import seed_of
from p2p_ipython.client.printing import printed
from p2p_ipython.errors import NotConnected, NotTrusted, ResultNotPicklable
from p2p_ipython.notebook import completion
from p2p_ipython.notebook.advice import advice
from p2p_ipython.notebook.binding import Binding, bind, chosen, left_words, script_of
from p2p_ipython.notebook.card import Cards, line_html
from p2p_ipython.notebook.connection import Connect, Connection, join_aloud, where
from p2p_ipython.notebook.dry_run import dry_environment, show_names
from p2p_ipython.notebook.failures import Failures
from p2p_ipython.notebook.friends import FriendsMagics
from p2p_ipython.notebook.future_view import FutureViews
from p2p_ipython.notebook.futures import FuturesMagics, until_over
from p2p_ipython.notebook.group_line import add_group
from p2p_ipython.notebook.interrupts import goes_on, stopped
from p2p_ipython.notebook.lending import LendingMagics
from p2p_ipython.notebook.lines import (
    GlobalsOption,
    Interrupted,
    is_expression,
    name_in,
    options_of,
    parsed_line,
    say,
    separated,
    split_globals,
    unquoted,
    without_arguments,
)
from p2p_ipython.notebook.output import CellOutput, CurrentCell
from p2p_ipython.notebook.panel.registration import Opened, Registration
from p2p_ipython.notebook.seed_advice import seed_advice, seeded_draws, states_of
from p2p_ipython.notebook.shell_words import shell_words
from p2p_ipython.notebook.shown_errors import as_at_home, show_as_at_home, show_as_ever
from p2p_ipython.notebook.status_line import StatusLines, first_text
from p2p_ipython.notebook.sweeping import advise_on_seeds, many_of
from p2p_ipython.notebook.task_line import TaskDefaults, files_named, given_in, options_in, task_arguments
from p2p_ipython.protocol.packages import packages_words
from p2p_ipython.protocol.plain import plain

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.client.future import Future
    from p2p_ipython.client.task_options import TaskOptions
    from p2p_ipython.notebook.panel.panels import Panels
    from p2p_ipython.task.around import Part
    from p2p_ipython.task.capture import Captured
    from p2p_ipython.task.modules import Modules

_NO_BINDING = Binding()

_SHOWN_WITHIN = 2.0
"""Seconds that ``--wait`` gives the line under the cell to say how the task ended."""


def load(ip: InteractiveShell, connect: Connect | None = None) -> P2PMagics:
    """Register the magics. ``connect`` takes the place of ``p2p_ipython.connect`` (for tests)."""
    unload(ip)
    magics = P2PMagics(ip, connect)
    ip.register_magics(magics)
    show_as_at_home(ip)
    friends = FriendsMagics(ip, magics)
    ip.register_magics(friends)

    def panels(kernel: Any, opened: Opened) -> Panels:
        from p2p_ipython.notebook.panel.panels import Panels

        return Panels(kernel, opened, magics, friends)

    magics.registration = Registration(ip, magics, panels)
    ip.register_magics(LendingMagics(ip, magics))
    ip.register_magics(FuturesMagics(ip, magics))
    completion.load(ip, [P2PMagics, FriendsMagics, LendingMagics, FuturesMagics])
    offer()
    return magics


def unload(ip: InteractiveShell) -> None:
    """End this kernel's cluster, hosting and lending, and forget the magics' state."""
    completion.unload(ip)
    show_as_ever(ip)
    with ExitStack() as ending:  # the last first, and each whatever becomes of the others
        for kind in (P2PMagics, FriendsMagics, LendingMagics, FuturesMagics):
            name = kind.__name__
            magics = ip.magics_manager.registry.pop(name, None)
            if magics is None:
                continue
            for known in ip.magics_manager.magics.values():
                for word in [word for word, function in known.items() if getattr(function, "__self__", None) is magics]:
                    del known[word]
            # IPython itself never forgets registered magics, nor what they have shown.
            ip.configurables[:] = [one for one in ip.configurables if one is not magics]
            ending.callback(magics.end)


@magics_class
class P2PMagics(TaskDefaults, Magics):
    """Magics to share Python compute; ``%p2p_connect`` first."""

    stable = Bool(False, help="Keep times out of the lines under cells: each run gives the same.").tag(config=True)
    wait_at_end = Float(
        2.0,
        help="Seconds that a kernel's end waits for unfinished tasks, if a program executes the notebook. "
        "Jupyter ends a kernel by force after 2.5 s, unless shutdown_wait_time says otherwise.",
    ).tag(config=True)

    relay_loggers = List(
        Unicode(), help="Loggers whose records in tasks are handled here, by their handlers here; '' is the root."
    ).tag(config=True)

    def __init__(self, shell: InteractiveShell, connect: Connect | None = None) -> None:
        super().__init__(shell, parent=shell)
        self._ip = shell
        self._connection = Connection(connect)
        self.registration: Registration | None = None
        self._current = CurrentCell(shell)
        self._cards = Cards()
        self._status_lines = StatusLines(self._cards, stable=lambda: bool(self.stable))
        self._failures = Failures(shell)
        views.future = FutureViews(self.output, self._status_lines, lambda: self.cluster, lambda: bool(self.stable))
        # Tasks of `cluster.submit` show their output under the cell that submits them, too.
        _future.default_sink = self.output
        _groups.default_line = self._line_of_map
        _future.interrupted = goes_on
        task_options.usual_loggers = lambda: tuple(self.relay_loggers)

    def end(self) -> None:
        """Close the cluster and stop listening to the shell."""
        self._current.close()
        self._failures.close()
        _future.default_sink = lambda: printed
        _groups.default_line = lambda: lambda _group: None
        _future.interrupted = lambda _future: None
        views.future = None
        task_options.usual_loggers = lambda: ()
        with ExitStack() as ending:  # the last first, and each whatever becomes of the others
            ending.callback(self._cards.close)
            ending.callback(self._connection.end)
            if self.registration is not None:
                ending.callback(self.registration.close)

    # -- clusters --

    @magic_arguments()
    @argument(
        "target", nargs="?", help="a cluster of friends, as alice/friends; HOST[:PORT] of a board; inline; or local"
    )
    @argument("--cluster", help="name of the personal cluster on that board")
    @argument("--workers", type=int, help="worker processes on this machine (default: one a core)")
    @argument("--name", help="the name that others see")
    @argument("--board", help="when knocking: HOST[:PORT] of the board (default: pipe.pico.sh)")
    @argument("--owner", metavar="SHA256:…", help="when knocking: the fingerprint of the owner's key")
    @argument("--identity", help="file of the SSH key to use")
    @argument("--accept-host-key", help="fingerprint of the board's host key, to accept it")
    @argument("--ssh-option", action="append", help="option of ssh for the way to the board, as '-J HOST'; repeatable")
    @argument("--mailbox", help="URL of the wormhole mailbox, for a board that has none of its own")
    @argument("--relay", help="tcp:HOST:PORT of the relay, as with the mailbox")
    @argument(
        "--sandbox",
        default="",
        metavar="NAME",
        help="the sandbox for a personal cluster's tasks on this machine: auto, or one that p2p sandbox lists",
    )
    @argument("--sandboxed", action="store_true", help="send tasks to no worker that has no sandbox")
    @argument("--as", dest="bind", help="bind the cluster to this name, for its submit and map")
    @line_magic
    def p2p_connect(self, line: str) -> None:
        """Join a cluster; %%p2p then runs cells on it.

        ``%p2p_connect`` starts a personal cluster on this machine: no account, no network. It ends with the
        kernel. ``%p2p_connect alice/friends`` connects to a cluster of friends that you have joined (see %p2p_join);
        to one that you have not joined, it knocks: its owner is asked whether to admit you.
        ``%p2p_connect HOST:PORT --cluster NAME`` joins a personal cluster on a board that runs elsewhere.
        ``%p2p_connect inline`` runs cells in this kernel, at once, where breakpoints and %debug see them;
        ``%p2p_connect local`` is ``%p2p_connect``.

        A cluster that is connected already is left once the new one is connected; while it has unfinished tasks, the
        magic refuses. The same line again changes nothing. ``%p2p_connect --as NAME`` without more gives what is
        connected that name.
        """
        given, usual = self._way(line), self._way("")
        bind = name_in(given.pop("bind"), "a cluster")
        del usual["bind"]
        if bind is not None and given == usual and self._is_connected():
            given = self._connection.given
        if self._is_connected() and given == self._connection.given:
            say(f"Still connected: {where(given)}.")
        else:
            join_aloud(self._connection, given, self.output())
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
        """Show a live view of the cluster: members, tasks, offers, and buttons for what can be done.

        It follows the notebook from one cluster to the next; ``cluster.panel()`` shows one cluster only.
        """
        without_arguments("%p2p_panel", line)
        if self.registration is not None:
            self.registration.panels.place(self.output())

    # -- tasks --

    @magic_arguments()
    @argument("name", nargs="?", help="bind the future to this name (and to _p2p in any case)")
    @argument("--wait", action="store_true", help="wait for the result, and show it as the cell's own")
    @argument("--dry-run", action="store_true", help="show what would travel, and run nothing")
    @argument(
        "--bind", metavar="NAMES", help="names that the cell binds, or all: put them into the notebook when it is over"
    )
    @argument("--file", action="append", metavar="FILES", help="files beside the notebook that the cell reads")
    @argument("--env", action="append", metavar="NAMES", help="environment entries to send, to others' machines, too")
    @argument(
        "--with", dest="packages", action="append", metavar="PACKAGES", help="have packages installed: 'numpy>=2'"
    )
    @argument("--python", metavar="VERSION", help="run it by this version of Python, as 3.12")
    @argument("--setup", action="store_true", help="run this cell in each new runner before your first task there")
    @argument("--no-modules", action="store_true", help="leave the modules beside the notebook at home")
    @argument(
        "--each",
        action="append",
        metavar="LOOP",
        help="run it once for each value: --each 'alpha in alphas'; several are a grid; NAME is the list of futures",
    )
    @argument("--all", action="store_true", help="run it once on each worker that is here; NAME is the list of futures")
    @argument("--globals", metavar="auto|none|+NAME|-NAME", help="names that travel, if not just those it uses")
    @task_arguments
    @no_var_expand
    @line_cell_magic
    def p2p(self, line: str, cell: str | None = None) -> Any:
        """Run a cell on the cluster; returns at once.

        ``%%p2p tile`` on top of a cell binds ``tile`` to a future: ``tile.result()`` or ``await tile`` gives
        the value of the cell's last expression (``;`` suppresses it). The variables, functions and modules
        that the cell uses are found and sent, as they are now. ``%p2p EXPRESSION`` does the same for an
        expression, and gives the future. Names in strings (``df.query("a > @x")``) are found if
        they are functions or modules, or small values on machines of your own: else ``--globals +x``.

        ``%%p2p --setup``: the cell is no task. Each new runner runs it before your first task there, also on workers
        that come later, and tasks are undone to the state after it. ``%p2p --setup`` ends that.

        ``%%p2p --with 'numpy>=2' --with pandas``: the worker installs these first, from wheels of its lender's index,
        for this cell; and the dependencies in a comment ``# /// script`` (PEP 723). They win over its own packages.

        ``%%p2p scores --each "alpha in alphas" --each "kind in kinds"`` runs the cell for each pair, with these names
        set: ``scores.result()`` gives a list, ``scores.frame()`` a table, ``scores[3]`` the fourth one's future.

        In ``%p2p EXPRESSION`` there are no options.
        """
        if cell is None:
            if not line.strip():
                raise MagicUsage("%p2p wants an expression; or write %%p2p on top of a cell")
            if line.strip() == "--help":
                raise MagicUsage("for help, type %p2p? in a cell of its own")
            if line.strip() == "--setup":  # IPython has no cell magic with an empty cell
                self._set_up(self._connected(), None, GlobalsOption(True, (), ()))
                return None
            captured = self._captured(line, GlobalsOption(True, (), ()))
            if not is_expression(line, self._ip.transform_cell):
                raise MagicUsage("%p2p wants one expression; for statements, write %%p2p on top of a cell")
            chosen_options = self.default_options(self._ip.user_ns)
            return self._submit(captured, line.strip(), self.output(), options=chosen_options, line=False)
        rest, travelling = split_globals(line)
        if "--help" in rest.split():
            raise MagicUsage("for help, type %%p2p? in a cell of its own")
        options = parsed_line(self.p2p, rest)
        name = name_in(options.name)
        many = many_of(options, self._ip.user_ns)
        asked = asked_for(cell, unquoted(options.packages or []), unquoted(options.python))
        if options.dry_run:
            if asked.packages:
                say(f"Installed first: {packages_words(asked.packages)}")
            captured = self._captured(cell, travelling, many.given if many is not None else {})
            env = dry_environment(self.cluster, separated(options.env))
            show_names(captured, *([] if options.no_modules else [self._modules(captured)]), env=env)
            return None
        cluster = self._connected()
        if options.setup:
            if options.packages or options.python:
                raise MagicUsage("%%p2p --setup takes no packages: give them to the cells")
            if options.name or options.wait or options.bind or options.file or options.env or given_in(options):
                raise MagicUsage("%%p2p --setup takes no other option but --globals: it is no task, and has no future")
            self._set_up(cluster, cell, travelling)
            return None
        files = files_named(separated(options.file))
        env = separated(options.env)
        chosen_options = options_in(options, self.default_options(self._ip.user_ns), self._ip.user_ns)
        seed = None if chosen_options.seed is None else seed_of(chosen_options.seed, 0)
        captured = self._captured(cell, travelling, many.given if many is not None else {})
        binding = self._binding(captured, unquoted(options.bind))
        # IPython's own counter is one ahead while a cell runs, in recent versions. The hook knows.
        label = chosen_options.label or name or f"In[{self._ip.displayhook.prompt_count}]"
        output = self.output()
        if many is not None:
            advise_on_seeds(captured, self._ip, seeded=seed is not None)
            cell_id, names = output.cell, binding.names
            sweep = many.submit(
                cluster,
                captured,
                chosen_options,
                asked,
                called=label,
                cell=cell_id,
                names=names,
                files=files,
                modules=not options.no_modules,
                env=env,
            )
            return many.shown(sweep, output, self._ip, name, self._status_lines)
        draws_on = options.wait and not cluster.shared
        seeded = seeded_draws(captured, self._ip, whole=draws_on) if seed is None else []
        states = states_of(seeded) if draws_on else None
        if states is not None:
            binding = replace(binding, states=tuple(states.states))
        if options.wait:
            output.end_last()
        future = self._submit(
            captured,
            label,
            output,
            options=chosen_options,
            line=True,
            waits=options.wait,
            binding=binding,
            files=files,
            modules=not options.no_modules,
            seed=seed or states,
            env=env,
            asked=asked,
        )
        if states is None and (words := seed_advice(seeded)):
            say(words)
        about_shell = shell_words(captured, self._ip.transform_cell)
        shown = self._status_lines.add(
            future,
            output,
            lambda: cluster._core.record.entries.get(future.task_id),
            lambda future: "; ".join(filter(None, (binding.words(future), left_words(future), about_shell))),
            waits=options.wait,
        )
        if name is not None:
            self._ip.push({name: future})

        def bound(_future: object) -> None:
            if trouble := bind(binding, future, self._ip.push):
                output({"kind": "stream", "name": "stderr", "text": f"{trouble}\n"})

        if options.wait:
            try:
                return self._wait(future, shown)
            finally:
                if future.done():  # it may have been interrupted
                    bound(future)
        if binding.asked or binding.imports:
            future.add_done_callback(bound)
        return None

    def _set_up(self, cluster: Cluster, cell: str | None, travelling: GlobalsOption) -> None:
        """Have a cell run before the first task in each runner, or none any more if it is empty."""
        captured = self._captured(cell, travelling) if cell and cell.strip() else None
        cluster._core.surroundings.set_up(captured, cluster._core.store)
        if captured is None:
            say("No cell runs before your tasks any more.")
        else:
            say("This cell will run in each runner before your first task there. %p2p --setup alone ends that.")

    def _captured(self, source: str, chosen: GlobalsOption, given: Mapping[str, Any] | None = None) -> Captured:
        from p2p_ipython.task.capture import capture_cell

        try:
            return capture_cell(
                source,
                self._ip.user_ns,
                transform=self._ip.transform_cell,
                automatic=chosen.automatic,
                include=chosen.include,
                exclude=chosen.exclude,
                values_in_strings=self.cluster is not None and not self.cluster.shared,
                script=script_of,
                given=given or {},
            )
        except SyntaxError:
            pass
        raise as_at_home(source, self._ip)

    def _modules(self, captured: Captured) -> Modules | None:
        from p2p_ipython.task.local_modules import LocalModules

        return LocalModules(shows_paths=False).needed(captured.modules)

    def _binding(self, captured: Captured, option: str | None) -> Binding:
        modules = {name for name in captured.names if isinstance(captured.home.get(name), ModuleType)}
        return chosen(option, captured.binds, captured.names, modules)

    def _submit(
        self,
        captured: Captured,
        label: str,
        output: CellOutput,
        *,
        options: TaskOptions,
        line: bool,
        waits: bool = False,
        binding: Binding = _NO_BINDING,
        files: Mapping[str, bytes] | None = None,
        modules: bool = True,
        seed: Part | None = None,
        env: Iterable[str] = (),
        asked: Asked = NOTHING,
    ) -> Future[Any]:
        from p2p_ipython.task.task import task_of

        cluster = self._connected()
        cluster._core.check_places(options.on)
        task = task_of(
            captured,
            cluster._core.store,
            label=label,
            once=options.once,
            large=cluster.settings.large,
            names=binding.names,
            bind=(*binding.asked, *binding.states),
            apart=cluster.shared,
        )
        task = asking(task, asked)
        if line:  # before it is submitted, so that the line stands above the task's output
            words = first_text(plain(task.label, 80), watched=output.watched, waits=waits, lazy=options.lazy)
            output.show(words, html=line_html("waiting", words))
        try:
            future = cluster._core.submit_task(
                task, output, files=files, modules=modules, seed=seed, env=env, options=options
            )
        except KeyboardInterrupt:  # inline it runs now
            words = f"{plain(task.label, 80)}: cancelled"
            output.show(words, html=line_html("cancelled", words))
            raise Interrupted("the task was cancelled") from None
        installs = partial(takes_packages, cluster._core)
        given = partial(advice, home=captured.home, sent=captured.names, folder=os.getcwd())
        future._promise.advise(partial(given, modules=task.modules, installs=installs))
        self._ip.push({"_p2p": future}, interactive=False)
        if not output.has_status or (output.watched and not output.interactive):
            self._failures.follow(future)
        return future

    def _wait(self, future: Future[Any], shown: threading.Event) -> Any:
        try:
            until_over([future])
        except KeyboardInterrupt:
            grace = self.cluster.settings.cancel_grace if self.cluster is not None else 0.0
            raise stopped(future, grace) from None
        finally:  # what comes after the cell has ended is lost if no other cell follows
            if future.done():
                shown.wait(_SHOWN_WITHIN)
        try:
            return future.result()
        except (NotTrusted, ResultNotPicklable) as error:
            value = future._shown_value
            if value is None:
                raise
            publish_display_data(value["content"]["data"], value["content"].get("metadata") or {})
            say(f"({error.message}. {error.hint})")
            return None

    # -- for the panel, and for the other magics --

    @property
    def cluster(self) -> Cluster | None:
        """The notebook's cluster, if there is one; it may be closed."""
        return self._connection.cluster

    def follow_cluster(self, changed: Callable[[], None]) -> None:
        """Have ``changed`` called, by any thread, when the notebook has another cluster or none any more."""
        self._connection.changed = changed

    def leave(self, cluster: Cluster) -> str:
        """Close a cluster; return what there is to say. Any thread."""
        return self._connection.leave(cluster)

    # -- inside --

    def _is_connected(self) -> bool:
        return self.cluster is not None and not self.cluster.closed

    def _connected(self) -> Cluster:
        if self.cluster is None or self.cluster.closed:
            raise NotConnected(
                "no cluster is connected",
                hint="Run %p2p_connect for one on this machine, %p2p_connect alice/friends for one of friends, "
                "or %p2p_connect HOST:PORT --cluster NAME.",
            )
        return self.cluster

    def connect_to(self, target: str, progress: Callable[[str], None]) -> str:
        """Connect as ``%p2p_connect TARGET`` does ("": a personal cluster); return what there is to say. Any thread."""
        given = {**self._way(""), "target": target or None}
        del given["bind"]
        return self._connection.join(given, progress)

    def _way(self, line: str) -> dict[str, Any]:
        """Return the arguments of ``connect`` that a line gives, and "bind"."""
        given = options_of(self.p2p_connect, line)
        given["target"] = None if given["target"] == "local" else given["target"]
        given["ssh_options"] = tuple(given.pop("ssh_option") or ())
        return given

    def _line_of_map(self) -> _groups.Line:
        """Return what shows the group of a map under the cell that runs now."""
        output = self.output()

        def show(group: _groups.Group) -> None:
            if output.has_status:
                add_group(self._status_lines, group, output)

        return show

    def output(self) -> CellOutput:
        """Return the output area of the cell that runs now."""
        made = CellOutput(self._ip, self._current)
        ending.kernel_waits = 0.0 if made.watched else float(self.wait_at_end)
        return made

    @property
    def computes(self) -> bool:
        """Whether a cell runs."""
        return self._current.runs
