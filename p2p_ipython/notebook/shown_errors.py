"""Errors that IPython shows by itself, without asking them as it asks others: syntax errors and groups.

Syntax errors look as they do at home: those of a cell, and those that a task raises. IPython's formatter is wrapped: it
asks first. A group that a task has raised shows its remote traceback; so does an error of a task in a group, or among
the causes, of the notebook's own. Of our frames none is shown.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from p2p_ipython.task.tracebacks import has_group, lines_with_groups, own_frames, set_traceback, tidy, tree_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def as_at_home(source: str, ip: InteractiveShell) -> SyntaxError:
    """Return the syntax error of a cell, with the cell's name and as IPython would show it."""
    shell: Any = ip
    try:
        transformed = shell.transform_cell(source)
        number = len(shell.history_manager.input_hist_raw) - 1  # execution_count may be the next cell's by now
        name = shell.compile.cache(transformed, number, raw_code=source)
        shell.compile.ast_parse(transformed, filename=name)
    except SyntaxError as error:
        error.__traceback__ = None
        lines = shell.SyntaxTB.structured_traceback(type(error), error, [])
        error._render_traceback_ = partial(list, lines)  # type: ignore[attr-defined]
        return error
    return SyntaxError("the cell can't be read")


def show_as_at_home(ip: InteractiveShell) -> None:
    """Have these errors asked how they want to be shown."""
    for owner, name, way in _ways(ip):
        setattr(owner, name, partial(way, ip, getattr(owner, name)))


def show_as_ever(ip: InteractiveShell) -> None:
    """Undo ``show_as_at_home``."""
    for owner, name, way in _ways(ip):
        ours = vars(owner).get(name)
        if isinstance(ours, partial) and ours.func is way:
            delattr(owner, name)
            if getattr(owner, name) != (before := ours.args[1]):
                setattr(owner, name, before)


def _ways(ip: Any) -> tuple[tuple[Any, str, Any], ...]:
    return (ip.SyntaxTB, "structured_traceback", _asked), (ip, "showtraceback", _show)


def _asked(_ip: Any, otherwise: Any, kind: type, error: BaseException, *args: Any, **keywords: Any) -> Any:
    lines = _lines_of(error)
    return lines if lines is not None else otherwise(kind, error, *args, **keywords)


def _lines_of(error: BaseException) -> Any:
    render = getattr(error, "_render_traceback_", None)
    return render() if render is not None else None


def _show(ip: Any, otherwise: Any, exc_tuple: Any = None, *args: Any, **keywords: Any) -> None:
    """Show an error as ``InteractiveShell.showtraceback`` does."""
    lines = None
    try:
        kind, error, _ = ip._get_exc_info(exc_tuple)
        if not (isinstance(error, SyntaxError) or keywords.get("exception_only")):
            lines = _without_ours(ip, error)
    except Exception:  # there is no error to show, or one that can't be looked at
        lines = None
    if lines is None:
        otherwise(exc_tuple, *args, **keywords)
    else:
        ip._showtraceback(kind, error, lines)
        if ip.call_pdb:
            ip.debugger(force=True)


def _without_ours(ip: Any, error: BaseException) -> list[str] | None:
    """Take our frames out of errors that come with an error; return the lines of one that IPython can't show then."""
    remote = [each for each in tree_of(error) if hasattr(each, "_render_traceback_")]
    if remote and has_group(error):
        tidy(error)
        return lines_with_groups(error, ip.compile.format_code_name, _lines_of)
    for each in remote:
        if each is not error:
            set_traceback(each, own_frames(each.__traceback__))
    return None
