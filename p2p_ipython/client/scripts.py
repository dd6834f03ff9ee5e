"""Scripts, submitted to a cluster: ``p2p run``."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_ipython.errors import UsageError

if TYPE_CHECKING:
    from p2p_ipython.client.core import ClusterCore
    from p2p_ipython.client.future import Future


def read_script(path: Path) -> str:
    """Return a script's text. Raises ``UsageError`` for one that can't be read, or isn't Python's."""
    try:
        with tokenize.open(path) as file:
            source = file.read()
        ast.parse(source, str(path))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}", hint="Give a script of Python.") from None
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path} is no Python that this version understands: {error}") from None
    return source


def submit_script(
    core: ClusterCore, path: Path, arguments: Sequence[str], files: Mapping[str, bytes] | None = None
) -> Future[int]:
    """Submit a script with the modules beside it that it imports; its future has the exit status.

    Raises as ``read_script`` and ``submit_task`` do.
    """
    from p2p_ipython.task.local_modules import imports_of  # heavy, as the others: they load cloudpickle
    from p2p_ipython.task.script import run_script
    from p2p_ipython.task.task import make_call

    source = read_script(path)
    call = source, path.name, list(arguments)
    task = make_call(run_script, call, {}, core.store, label=path.name, large=core.settings.large)
    imported = {name for name in imports_of(ast.parse(source)) if not name.startswith(".")}
    return core.submit_task(replace(task, modules=task.modules | imported), files=files)
