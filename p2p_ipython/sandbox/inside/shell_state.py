"""The state of the shell, and of matplotlib in it, that a cell can change and that the next cell would find: put back.

Formatters, traits (``%autoawait``, ``%xmode``, ``ast_node_interactivity``), magics, aliases, extensions, input
transformers. What is compared after each task takes microseconds.

matplotlib registers itself with the shell when it is imported, for good. So when it is first seen, its settings become
its defaults and figures are shown inline. To that state later tasks' changes are undone.

The runner imports it inside the sandbox: standard library and IPython only.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from importlib import import_module
from typing import Any

_VOLATILE = ("execution_count", "last_execution_result", "last_execution_succeeded", "exit_now")
"""Traits that each cell changes."""

_TRACEBACKS = ("mode", "call_pdb", "include_vars", "long_header", "tb_offset", "skip_hidden", "_theme_name")


class ShellState:
    """The shell as it is now; ``restore`` puts it back. In the main thread, between tasks."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        for name in ip.trait_names():
            with contextlib.suppress(Exception):  # reading makes the default: from here on it is there to be compared
                getattr(ip, name)
        self._traits = dict(ip._trait_values)
        self._formatters = ip.display_formatter
        self._lists = [
            (found, list(found))
            for found in (
                ip.input_transformers_post,
                ip.ast_transformers,
                ip.input_transformer_manager.cleanup_transforms,
                ip.input_transformer_manager.line_transforms,
                ip.input_transformer_manager.token_transformers,
                ip.configurables,
            )
        ]
        self._hooks = dict(ip.hooks)
        self._magics = [(found, dict(found)) for found in ip.magics_manager.magics.values()]
        self._own = {name: getattr(ip, name) for name in ("CustomTB", "custom_exceptions", "system", "getoutput")}
        self._tracebacks = self._traceback_modes()
        self._loaded = set(ip.extension_manager.loaded)
        self._plots = _Plots(ip)
        self._take_formatters()

    def restore(self) -> None:
        """Put back what differs. Raises whatever that raises."""
        ip = self._ip
        if ip.extension_manager.loaded != self._loaded:
            self._unload_extensions()
        traits, before = ip._trait_values, self._traits
        for name in _VOLATILE:
            traits[name] = before[name]
        if traits != before:
            self._traits_back()
        for entries, usual in self._lists:
            if entries != usual:
                entries[:] = usual
        for magics, known in self._magics:
            if magics != known:
                _magics_back(magics, known)
        if ip.hooks != self._hooks:
            ip.hooks.clear()
            ip.hooks.update(self._hooks)
        if any(vars(ip).get(name, self._own[name]) != self._own[name] for name in self._own):
            self._attributes_back()
        if self._traceback_modes() != self._tracebacks:
            for name, value in zip(_TRACEBACKS, self._tracebacks, strict=True):
                setattr(ip.InteractiveTB, name, value)
        changed = self._plots.changed()
        if changed or self._formatters_differ():
            self._formatters_back()
            if self._plots.settle():
                self._take_formatters()

    def _unload_extensions(self) -> None:
        manager = self._ip.extension_manager
        for name in manager.loaded - self._loaded:
            with contextlib.suppress(Exception):
                manager.unload_extension(name)
        manager.loaded.clear()
        manager.loaded.update(self._loaded)

    def _traits_back(self) -> None:
        ip = self._ip
        for name, value in list(ip._trait_values.items()):
            if name not in self._traits:
                del ip._trait_values[name]
            elif value is not self._traits[name]:
                setattr(ip, name, self._traits[name])
        ip._trait_values.update(self._traits)  # also those that observers of the others have set
        self._traits = dict(ip._trait_values)

    def _attributes_back(self) -> None:
        for name, value in self._own.items():
            if getattr(self._ip, name) != value:
                setattr(self._ip, name, value)

    def _traceback_modes(self) -> tuple[Any, ...]:
        return tuple(getattr(self._ip.InteractiveTB, name, None) for name in _TRACEBACKS)

    # -- formatters: each has traits, and in them the tables of what it has been told to do for types --

    def _all_formatters(self) -> list[Any]:
        found = self._formatters
        return [found, *found.formatters.values(), found.ipython_display_formatter, found.mimebundle_formatter]

    def _take_formatters(self) -> None:
        self._known = dict(self._formatters.formatters)
        self._before = []
        for one in self._all_formatters():
            for name in one.trait_names():
                with contextlib.suppress(Exception):
                    getattr(one, name)
            values = one._trait_values
            tables = {name: dict(value) for name, value in values.items() if type(value) is dict}
            self._before.append((values, dict(values) | tables, tables.keys()))

    def _formatters_differ(self) -> bool:
        return self._formatters.formatters != self._known or any(now != before for now, before, _ in self._before)

    def _formatters_back(self) -> None:
        self._formatters.formatters = dict(self._known)
        for values, before, tables in self._before:
            values.clear()
            values.update(before)
            for name in tables:
                values[name] = dict(before[name])


def _magics_back(magics: dict[str, Any], before: dict[str, Any]) -> None:
    """Remove the magics that a task has added; IPython itself loads some of its own when they are first used."""
    for name, function in list(magics.items()):
        if function is not before.get(name) and str(getattr(function, "__module__", "")).startswith(
            "IPython.core.magics"
        ):
            before[name] = function
    magics.clear()
    magics.update(before)


class _Plots:
    """matplotlib, once a task has imported it: its settings, its backend, and how figures are shown."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self._settings: Any = None
        self._before: dict[str, Any] = {}
        self._inline: Any = None
        self._inline_before: dict[str, Any] = {}

    def changed(self) -> bool:
        """Whether it has been loaded, or changed, since ``settle``."""
        if self._settings is None:
            return "matplotlib" in sys.modules
        inline = self._inline
        if (inline is None and "matplotlib.pyplot" in sys.modules) or dict.__ne__(self._settings, self._before):
            return True
        return inline is not None and inline.InlineBackend.instance()._trait_values != self._inline_before

    def settle(self) -> bool:
        """Make it as it is by default, with figures inline. Return whether it is loaded."""
        matplotlib: Any = sys.modules.get("matplotlib")
        if matplotlib is None:
            return False
        self._settings = settings = matplotlib.rcParams
        pyplot: Any = sys.modules.get("matplotlib.pyplot")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if pyplot is not None:
                pyplot.close("all")
            settings.update({name: value for name, value in matplotlib.rcParamsOrig.items() if name != "backend"})
            if pyplot is None:
                settings["backend"] = os.environ["MPLBACKEND"]
        if pyplot is not None:
            self._show_inline()
        self._before = dict(settings)
        return True

    def _show_inline(self) -> None:
        self._inline = import_module("matplotlib_inline.backend_inline")
        config = self._inline.InlineBackend.instance()
        if config.shell is None:
            config.shell = self._ip
        for name, trait in config.traits(config=True).items():
            default = trait.default(config)
            if getattr(config, name) != default:
                setattr(config, name, default)
        self._inline.configure_inline_support.current_backend = "unset"  # its formats are chosen anew
        self._ip.enable_matplotlib("inline")
        sys.modules["matplotlib"].rcParams["backend"] = os.environ["MPLBACKEND"]  # the same one, by its longer name
        self._inline_before = dict(config._trait_values)
