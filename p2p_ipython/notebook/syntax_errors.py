"""Syntax errors look as they do at home: those of a cell, and those that a task raises.

IPython shows a syntax error by itself and doesn't ask the error how it wants to be shown, as it asks others. So its
formatter is wrapped: it asks first.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

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
    """Have syntax errors asked how they want to be shown."""
    formatter: Any = ip.SyntaxTB
    formatter.structured_traceback = partial(_asked, formatter.structured_traceback)


def show_as_ever(ip: InteractiveShell) -> None:
    """Undo ``show_as_at_home``."""
    vars(ip.SyntaxTB).pop("structured_traceback", None)


def _asked(otherwise: Any, kind: type, error: BaseException, *args: Any, **keywords: Any) -> Any:
    render = getattr(error, "_render_traceback_", None)
    return render() if render is not None else otherwise(kind, error, *args, **keywords)
