"""Settings of the notebook's shell that hold in its tasks: how it shows values and errors, its aliases and line magics.

Standard library only, and IPython's shell as it is found: the runner imports it inside the sandbox.
"""

from __future__ import annotations
import __future__

import contextlib
from typing import Any

SHELL = "IPython.core.interactiveshell"

_FUTURE = 0
for _name in __future__.all_feature_names:
    _FUTURE |= getattr(__future__, _name).compiler_flag

_TRAITS = {"ast_node_interactivity": "last_expr"}
_TEXT = {
    "float_precision": "", "max_seq_length": 1000, "max_width": 79, "pprint": True, "verbose": False, "newline": "\n",
}  # fmt: skip
_MODE = "Context"


def read_shell(module: Any) -> dict[str, Any] | None:
    """Return what differs from a shell's defaults; None if there is no shell."""
    ip = module.InteractiveShell._instance
    if ip is None:
        return None
    found: dict[str, Any] = {}
    traits = {name: getattr(ip, name) for name in _TRAITS}  # they may have been set on the class
    _put(found, "traits", {name: value for name, value in traits.items() if value != _TRAITS[name]})
    text = ip.display_formatter.formatters["text/plain"]._trait_values
    _put(found, "text", {name: text[name] for name, usual in _TEXT.items() if text.get(name, usual) != usual})
    mode = getattr(ip.InteractiveTB, "mode", _MODE)
    _put(found, "mode", mode if mode != _MODE else "")
    _put(found, "future", ip.compile.flags & _FUTURE)
    aliases, magics = [], {}
    usual_aliases = {name for name, _ in ip.alias_manager.default_aliases}
    for name, function in ip.magics_manager.magics["line"].items():
        if type(function).__name__ == "Alias":
            if name not in usual_aliases:
                aliases.append((name, function.cmd))
        elif getattr(function, "__module__", "") == "__main__" and not hasattr(function, "__self__"):
            magics[name] = function
    _put(found, "aliases", aliases)
    _put(found, "magics", magics)
    return found


def _put(found: dict[str, Any], name: str, value: Any) -> None:
    if value:
        found[name] = value


def write_shell(module: Any, found: dict[str, Any]) -> None:
    """Give this process's shell these settings. The runner puts its own back after the task."""
    ip = module.InteractiveShell._instance
    if ip is None:
        return
    for name, value in found.get("traits", {}).items():
        if name in _TRAITS:
            setattr(ip, name, value)
    text = ip.display_formatter.formatters["text/plain"]
    for name, value in found.get("text", {}).items():
        if name in _TEXT:
            setattr(text, name, value)
    if mode := found.get("mode"):
        ip.InteractiveTB.set_mode(mode)
    ip.compile.flags |= found.get("future", 0) & _FUTURE
    for name, command in found.get("aliases", ()):
        with contextlib.suppress(Exception):
            ip.alias_manager.define_alias(name, command)
    for name, function in found.get("magics", {}).items():
        ip.register_magic_function(function, "line", name)
