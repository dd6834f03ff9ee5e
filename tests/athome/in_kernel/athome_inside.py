"""What the suite asks of a kernel from inside: the state before and after a cell. It leaves no name in the notebook.

Imported in the kernel, on whose path this folder is.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import sys
import types
from typing import Any

from IPython import get_ipython

DEEP = 4
"""Levels of containers and attributes that a fingerprint describes."""

MANY = 200
"""Items of a container that it describes."""

LONG = 4000
"""Characters of a text that it quotes; longer ones are hashed."""

HIDDEN = {"In", "Out", "exit", "quit", "get_ipython", "open"}
"""Names of the shell's own, besides those that begin with ``_``."""

_before: dict[str, Any] = {}
_last: dict[str, Any] = {}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def fingerprint(value: Any, depth: int = 0, seen: tuple[int, ...] = ()) -> Any:
    """Describe a value so that two of one description are the same for a reader. Raises nothing."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if value is None or isinstance(value, bool | int | float | complex):
        return f"{kind}: {value!r}"
    if isinstance(value, str | bytes | bytearray):
        text = repr(value)
        return f"{kind}: {text if len(text) <= LONG else _digest(text.encode())}"
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, type):
        return f"class {value.__module__}.{value.__qualname__}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"function {getattr(value, '__module__', '')}.{value.__qualname__}"
    if id(value) in seen or depth > DEEP:
        return kind
    inner = (*seen, id(value))

    def deeper(one: Any) -> Any:
        return fingerprint(one, depth + 1, inner)

    try:
        if isinstance(value, list | tuple):
            return [kind, len(value), *(deeper(one) for one in value[:MANY])]
        if isinstance(value, set | frozenset):
            return [kind, len(value), sorted(json.dumps(deeper(one)) for one in list(value)[:MANY])]
        if isinstance(value, dict):
            return [kind, len(value), *([deeper(k), deeper(v)] for k, v in list(value.items())[:MANY])]
        library = type(value).__module__.partition(".")[0]
        if library == "numpy" and hasattr(value, "dtype"):
            if value.dtype.hasobject:
                return [kind, str(value.dtype), str(value.shape), [deeper(one) for one in value.ravel()[:MANY]]]
            return [kind, str(value.dtype), str(value.shape), _digest(value.tobytes())]
        if library == "pandas" and hasattr(value, "to_json"):
            return [kind, str(getattr(value, "dtypes", "")), _digest(value.to_csv().encode())]
        if type(value).__repr__ is object.__repr__ and type(value).__module__ != "__main__":
            return kind
        if type(value).__repr__ is object.__repr__ or hasattr(value, "get_params"):
            return [kind, *([name, deeper(one)] for name, one in sorted(getattr(value, "__dict__", {}).items())[:MANY])]
        text = repr(value)
        return f"{kind}: {text if len(text) <= LONG else _digest(text.encode())}"
    except Exception as error:
        return f"{kind}: {type(error).__name__}"


def _names() -> dict[str, Any]:
    ip = get_ipython()
    return {n: v for n, v in ip.user_ns.items() if not n.startswith("_") and n not in HIDDEN}


def _warned() -> dict[str, dict[Any, Any]]:
    """Return which warnings each module has shown, which it shows once."""
    spaces = (
        (name, vars(module)) for name, module in list(sys.modules.items()) if isinstance(module, types.ModuleType)
    )
    return {name: dict(space["__warningregistry__"]) for name, space in spaces if "__warningregistry__" in space}


def _drawn() -> tuple[Any, Any]:
    """Return how far the global random generators are; None for numpy's if there is none."""
    there = sys.modules.get("numpy.random.mtrand")
    return random.getstate(), there.get_state() if there is not None else None


def _note(result: Any) -> None:
    _last["result"] = result.result


def start() -> str:
    """Listen to the shell; return the options that this version's ``%%p2p`` has for the names that a cell binds."""
    ip = get_ipython()
    ip.events.register("post_run_cell", _note)
    magic = ip.find_cell_magic("p2p")
    options = magic.parser._option_string_actions if magic is not None else {}
    return " --bind all" if "--bind" in options else ""


def begin() -> str:
    """Note the state before a cell."""
    ip = get_ipython()
    hook = ip.displayhook
    names = _names()
    _before.update(
        names=names,
        prints={name: fingerprint(value) for name, value in names.items()},
        namespace=dict(ip.user_ns),
        count=ip.execution_count,
        inputs=list(ip.history_manager.input_hist_parsed),
        raw=list(ip.history_manager.input_hist_raw),
        outputs=dict(ip.history_manager.output_hist),
        under=(hook._, hook.__, hook.___),
        warned=_warned(),
        drawn=_drawn(),
    )
    _last.clear()
    return ""


def end(restore: bool) -> str:
    """Return what a cell has changed, as JSON; with ``restore``, have the state as it was before it.

    The state is the names, the counts, the random generators, and which warnings have been shown.
    """
    ip = get_ipython()
    names, before = _names(), _before["names"]
    prints, was = {name: fingerprint(value) for name, value in names.items()}, _before["prints"]
    differ = sorted(name for name, one in prints.items() if was.get(name) != one)
    found = {
        "value": fingerprint(_last.get("result")),
        "bound": {name: prints[name] for name in differ if name not in before or before[name] is not names[name]},
        "gone": sorted(before.keys() - names.keys()),
        "changed": {name: prints[name] for name in differ if name in before and before[name] is names[name]},
    }
    if restore:
        hook, history = ip.displayhook, ip.history_manager
        ip.user_ns.clear()
        ip.user_ns.update(_before["namespace"])
        ip.execution_count = _before["count"]
        hook._, hook.__, hook.___ = _before["under"]
        history.input_hist_parsed[:] = _before["inputs"]
        history.input_hist_raw[:] = _before["raw"]
        history.output_hist.clear()
        history.output_hist.update(_before["outputs"])
        random.setstate(_before["drawn"][0])
        if _before["drawn"][1]:
            sys.modules["numpy"].random.set_state(_before["drawn"][1])
        for name in _warned():
            registry = vars(sys.modules[name])["__warningregistry__"]
            registry.clear()
            registry.update(_before["warned"].get(name, {}))
    _before.clear()
    _last.clear()
    return json.dumps(found)


def quietly(sources: list[str]) -> str:
    """Run cells that only make the state for others."""
    ip = get_ipython()
    for source in sources:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            ip.run_cell(source, store_history=False)
    return ""


_settings: dict[str, Any] = {}


def fresh(module: str) -> str:
    """Have the names of a module in the notebook, as doctest has, and no others; settings as at the start."""
    import importlib
    import warnings

    import matplotlib.pyplot as plt
    import numpy as np
    import pandas as pd

    if not _settings:
        plt.close(plt.figure())  # chooses the backend, which is a setting, too
        _settings.update(rc=dict(plt.rcParams), print=np.get_printoptions(), filters=list(warnings.filters))
        _settings["path"] = list(sys.path)
    plt.close("all")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dict.update(plt.rcParams, _settings["rc"])
        np.set_printoptions(**_settings["print"])
        pd.reset_option("all")
    warnings.filters[:] = _settings["filters"]
    sys.path[:] = _settings["path"]
    ip = get_ipython()
    for name in _names():
        del ip.user_ns[name]
    names = {"np": np, "pd": pd, "plt": plt, **vars(importlib.import_module(module))}
    ip.user_ns.update({n: v for n, v in names.items() if not (n.startswith("__") and n.endswith("__")) and n != "_"})
    # The shell keeps the last values only as long as its own and the notebook's are the same.
    for under in ("_", "__", "___"):
        ip.user_ns[under] = ""
        setattr(ip.displayhook, under, "")
    return ""
