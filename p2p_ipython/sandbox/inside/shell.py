"""The IPython shell that executes cells: magics, ``!``, top-level ``await``, rich display, a cell's tracebacks.

It keeps nothing: no history on disk or in memory, no ``Out``; each cell gets the namespace that it brings.
What it would print, displays and values, goes to the outlet or to the result instead.

The runner imports it inside the sandbox: standard library and IPython only.
"""

from __future__ import annotations

import asyncio
import linecache
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from IPython.core import page, pylabtools
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from traitlets import Type
from traitlets.config import Config

from p2p_ipython.sandbox.inside.capture_output import AT_END, VALUE, Outlet
from p2p_ipython.sandbox.inside.describe_error import text_of
from p2p_ipython.sandbox.inside.shell_state import ShellState
from p2p_ipython.task.sources import name_for_people
from p2p_ipython.task.tracebacks import has_group, lines_with_groups, tidy

_SHOWN = ("text/plain", "image/png", "image/jpeg", "text/markdown", "text/latex", "text/html")
"""What is sent of a value that may not be readable where it goes."""

_WIDGET = "application/vnd.jupyter.widget-view+json"
_TEXT_ONLY = "A widget that a task makes is shown as text: make it in a cell that runs here, or end the cell with it."


@dataclass
class Outcome:
    """How a cell ended: with a value (``has_value``), without one, or with an error."""

    value: object = None
    has_value: bool = False
    error: BaseException | None = None


class _Publisher(DisplayPublisher):
    """Displays become frames."""

    shell: CellShell

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *_: Any,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **__: Any,
    ) -> None:
        if not isinstance(data, dict):
            raise TypeError(f"data to display must be a dict of representations, not {data!r}")
        transient = dict(transient or {})
        if self.shell.at_end:
            transient[AT_END] = True
        shown = {kind: each for kind, each in data.items() if kind != _WIDGET}  # its model isn't where it is shown
        if len(shown) < len(data) and not self.shell.widget_shown:
            self.shell.widget_shown = True
            print(_TEXT_ONLY, file=sys.stderr)  # noqa: T201 - a word to the reader, once a task
        self.shell.outlet.display(
            "update_display_data" if update else "display_data",
            {"data": shown, "metadata": metadata or {}, "transient": transient},
        )

    def clear_output(self, wait: bool = False) -> None:
        self.shell.outlet.display("clear_output", {"wait": bool(wait)})


class _ValueHook(DisplayHook):
    """The last expression's value goes to the result; ``;`` suppresses it, as in a notebook."""

    outcome: Outcome | None = None
    source = ""

    def __call__(self, result: object = None) -> None:
        if self.outcome is not None and result is not None and not self.quiet():
            if self.outcome.has_value:  # the notebook shows each expression's
                display(self.outcome.value)  # type: ignore[no-untyped-call]
            self.outcome.value = result
            self.outcome.has_value = True

    def quiet(self) -> bool:
        try:
            return bool(self.semicolon_at_end_of_expression(self.source))  # type: ignore[no-untyped-call]
        except Exception:  # tokenize may stumble over what the compiler accepts
            return False


class _Compiler(CachingCompiler):
    """Names the cell in tracebacks by its task's label."""

    label = ""

    def format_code_name(self, name: str) -> tuple[str, str] | None:
        if self.label and name in self._filename_map:
            return ("Cell", self.label)
        return name_for_people(name) or super().format_code_name(name)

    def forget(self) -> None:
        """Drop the sources of cells that have been run."""
        for name in self._filename_map:
            linecache.cache.pop(name, None)
        self._filename_map.clear()
        self.reset_compiler_flags()


class CellShell(InteractiveShell):
    """IPython's shell, less what it prints and keeps. Used through ``Cells``."""

    compiler_class = _Compiler
    display_pub_class = Type(_Publisher)
    displayhook_class = Type(_ValueHook)

    widget_shown = False
    """Whether the task has shown a widget."""

    at_end = False
    """Whether the task is over, and shows its figures."""

    def __init__(self, outlet: Outlet, **given: Any) -> None:
        self.outlet = outlet
        super().__init__(**given)  # type: ignore[no-untyped-call]

    @property
    def user_global_ns(self) -> dict[str, Any]:
        return self.user_ns  # type: ignore[no-any-return]

    def showtraceback(
        self,
        exc_tuple: Any = None,
        filename: str | None = None,
        tb_offset: int | None = None,
        exception_only: bool = False,
        running_compiled_code: bool = False,
    ) -> None:
        """Show an error that doesn't end the cell (``%run``, ``%%time``); the one that does is in the result."""
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        if error is not None and not (exception_only or running_compiled_code or isinstance(error, SyntaxError)):
            print(render(self, error), file=sys.stderr)  # noqa: T201 - the task's own stderr

    def showsyntaxerror(self, filename: str | None = None, running_compiled_code: bool = False) -> None:
        """Nothing: it is in the result."""

    showindentationerror = showsyntaxerror

    def system(self, cmd: str) -> None:
        """``!cmd``, without a terminal: its output is the task's, and an interrupt ends it and the cell."""
        ip: Any = self
        shell = os.environ.get("SHELL", "/bin/sh")
        self.user_ns["_exit_code"] = subprocess.call([shell, "-c", ip.var_expand(cmd, depth=1)])

    def enable_gui(self, gui: str | None = None) -> None:
        """Do nothing: no cell on a worker has a window whose events it could handle."""

    def enable_matplotlib(self, gui: str | None = None) -> tuple[Any, Any]:
        """Set up matplotlib. Nobody would see a window, so figures that would open one are shown inline."""
        ip: Any = super()
        opens_windows = gui in (None, "auto") or pylabtools.find_gui_and_backend(gui)[0] is not None  # type: ignore[no-untyped-call]
        return ip.enable_matplotlib("inline" if opens_windows else gui)  # type: ignore[no-any-return]

    def ask_exit(self) -> None:
        """``exit`` ends the task, not the runner."""
        raise SystemExit


class Cells:
    """Runs cells in this process's one shell. In the main thread."""

    def __init__(self, outlet: Outlet) -> None:
        config = Config()
        config.HistoryManager.enabled = False
        config.HistoryManager.hist_file = ":memory:"
        config.InteractiveShell.cache_size = 0
        # IPython's own methods have no types.
        self._ip: Any = CellShell.instance(outlet=outlet, config=config, user_ns={})
        self._ip.loop_runner = run_to_its_end
        self._ip.set_hook("show_in_pager", page.as_hook(_print_page), 99)  # type: ignore[no-untyped-call]
        self._callbacks = {name: list(functions) for name, functions in self._ip.events.callbacks.items()}
        self._state = ShellState(self._ip)

    def run(
        self,
        source: str,
        namespace: dict[str, Any],
        label: str,
        *,
        silent: bool = False,
        take: Callable[[object], object] | None = None,
    ) -> Outcome:
        """Execute ``source`` in ``namespace``, which is ``__main__`` already; ``label`` names it in tracebacks.

        ``silent`` leaves the last expression's value alone. ``take`` gets it before figures are drawn, which changes
        some values. Raises nothing that the cell raises, and what ``take`` raises.
        """
        ip, outcome = self._ip, Outcome()
        own = self._own_names()
        for name, value in own.items():
            namespace.setdefault(name, value)
        ip.user_ns_hidden = own
        ip.user_ns = namespace
        ip.user_module = sys.modules["__main__"]
        ip.execution_count = 1
        ip.widget_shown = False
        ip.compile.label = label
        ip.displayhook.source = source
        ip.displayhook.outcome = None if silent else outcome
        try:
            result = self._drive(source)
            outcome.error = result.error_before_exec or result.error_in_exec
            if take is not None and outcome.has_value and outcome.error is None:
                take(outcome.value)
        finally:
            ip.displayhook.outcome = None
            ip.at_end = True
            try:
                ip.events.trigger("post_execute")
                flush_figures()
            finally:
                ip.at_end = False
        ip.events.trigger("post_run_cell", result)
        return outcome

    def forget(self) -> None:
        """Let go of what the last cell left in the shell."""
        ip = self._ip
        ip.user_ns = {}
        ip._main_mod_cache.clear()
        ip.last_execution_result = None
        ip.history_manager.reset(new_session=False)
        ip.compile.forget()
        for name, functions in self._callbacks.items():
            ip.events.callbacks[name] = list(functions)
        for path in ip.tempfiles:
            path.unlink(missing_ok=True)
        ip.tempfiles.clear()

    def show_value(self, value: object) -> None:
        """Send the text and the picture of a value that may not be readable where it goes."""
        try:
            data, metadata = self._ip.display_formatter.format(value, include=_SHOWN)
        except Exception:  # its own __repr__
            return
        if data:
            self._ip.outlet.display("display_data", {"data": data, "metadata": metadata, "transient": {VALUE: True}})

    def restore(self) -> None:
        """Put back what a task has changed of the shell, and of matplotlib in it."""
        self._state.restore()

    def render(self, error: BaseException) -> str:
        """Return an error as a cell would show it, with ANSI colours and without our frames."""
        return render(self._ip, error)

    def _own_names(self) -> dict[str, Any]:
        ip = self._ip
        return {
            "get_ipython": ip.get_ipython,
            "exit": ip.exiter,
            "quit": ip.exiter,
            "In": ip.history_manager.input_hist_parsed,
            "Out": ip.history_manager.output_hist,
            "_ih": ip.history_manager.input_hist_parsed,
            "_oh": ip.history_manager.output_hist,
            "_dh": ip.history_manager.dir_hist,
        }

    def _drive(self, source: str) -> Any:
        """``run_cell`` without its record of everything that is printed."""
        ip, failed = self._ip, None
        try:
            transformed = ip.transform_cell(source)
        except Exception:
            transformed, failed = source, sys.exc_info()
        cell = ip.run_cell_async(
            source, store_history=False, transformed_cell=transformed, preprocessing_exc_tuple=failed
        )
        if ip.should_run_async(source, transformed_cell=transformed, preprocessing_exc_tuple=failed):
            return ip.loop_runner(cell)
        try:
            cell.send(None)
        except StopIteration as end:
            return end.value
        cell.close()
        raise RuntimeError("a cell without await did wait")


def render(ip: Any, error: BaseException) -> str:
    """See ``Cells.render``."""
    if isinstance(error, UsageError):
        return f"UsageError: {text_of(error)}"
    tidy(error)
    trace = error.__traceback__
    if isinstance(error, SyntaxError):
        lines = ip.SyntaxTB.structured_traceback(type(error), error, traceback.extract_tb(trace))
    elif has_group(error):
        lines = lines_with_groups(error, ip.compile.format_code_name)
    elif trace is None:
        lines = ip.InteractiveTB.get_exception_only(type(error), error)
    else:
        lines = ip.InteractiveTB.structured_traceback(type(error), error, trace, tb_offset=0)
    return str(ip.InteractiveTB.stb2text(lines))


def flush_figures() -> None:
    """Show and close what matplotlib has drawn, if it was imported at all."""
    inline = sys.modules.get("matplotlib_inline.backend_inline")
    if inline is not None:
        inline.flush_figures()


def run_to_its_end(cell: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine (or a cell that awaits) on a loop of its own, whose leftover tasks are cancelled at its end."""
    with asyncio.Runner() as runner:
        return runner.run(cell)


def _print_page(text: Any, *_: Any, **__: Any) -> None:
    print(text.get("text/plain", "") if isinstance(text, dict) else text)  # noqa: T201 - the task's own stdout
