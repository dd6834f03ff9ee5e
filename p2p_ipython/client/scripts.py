"""Scripts, submitted to a cluster: ``p2p run``."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from p2p_ipython.client.asking import NOTHING, Asked, asking
from p2p_ipython.errors import UsageError

if TYPE_CHECKING:
    from p2p_ipython.client.core import ClusterCore
    from p2p_ipython.client.future import Future


class Script(NamedTuple):
    """A script: the name of its file, its text, and the modules that it imports."""

    name: str
    source: str
    imports: frozenset[str]


def read_script(path: Path) -> Script:
    """Read a script. Raises ``UsageError`` for one that can't be read, or isn't Python's."""
    from p2p_ipython.task.local_modules import imports_of  # heavy: it loads cloudpickle

    try:
        with tokenize.open(path) as file:
            source = file.read()
        imports = imports_of(ast.parse(source, str(path)))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}", hint="Give a script of Python.") from None
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path} is no Python that this version understands: {error}") from None
    return Script(path.name, source, frozenset(name for name in imports if not name.startswith(".")))


def submit_script(
    core: ClusterCore,
    script: Script,
    arguments: Sequence[str],
    files: Mapping[str, bytes] | None = None,
    asked: Asked = NOTHING,
) -> Future[int]:
    """Submit a script with the modules beside it that it imports, and what it asks for; its future has the status.

    Raises as ``submit_task`` does.
    """
    from p2p_ipython.task.script import run_script  # heavy, as the next one
    from p2p_ipython.task.task import make_call

    call = script.source, script.name, list(arguments)
    task = make_call(run_script, call, {}, core.store, label=script.name, large=core.settings.large)
    task = asking(task, asked)
    future: Future[int] = core.submit_task(replace(task, modules=task.modules | script.imports), files=files)
    return future
