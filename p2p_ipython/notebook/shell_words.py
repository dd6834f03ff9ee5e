"""A few words, for the line under a cell, on magics that mean the worker's shell and not the notebook's."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from p2p_ipython.task.reads import magic_of, parsed

if TYPE_CHECKING:
    from p2p_ipython.task.capture import Captured
    from p2p_ipython.task.reads import Transform

_SETS = frozenset({"alias", "autoawait", "colors", "config", "load_ext", "pprint", "precision", "unalias", "xmode"})
_LISTS = frozenset({"hist", "history", "lsmagic", "recall", "who", "who_ls", "whos"})


def shell_words(captured: Captured, transform: Transform) -> str:
    """Say which magics of a cell hold there only, and which list what is there; "" for none."""
    if "%" not in captured.source and "magic" not in captured.source:
        return ""
    try:
        found = [each[0] for each in map(magic_of, ast.walk(parsed(captured.source, transform))) if each]
    except SyntaxError:
        return ""
    sets, lists = ([f"%{name}" for name in dict.fromkeys(found) if name in some] for some in (_SETS, _LISTS))
    words = []
    if sets:
        words.append(f"{' and '.join(sets)} held for this task: without %%p2p it holds for the notebook")
    if lists:
        words.append(f"{' and '.join(lists)} means the worker, which has what the cell uses")
    return "; ".join(words)
