"""Settings of the notebook that live in modules, and hold in its tasks: those that differ from the defaults.

A *setting* here is all that one library can be told, as a value that pickles: matplotlib's rcParams, pandas' options,
numpy's print options, and so on. It is read at home of libraries that are imported there. On the worker it is written
if the library is there, else right after the task has imported it. The runner puts back what a task finds changed.

``collect`` is called for each task, and takes microseconds as long as nothing has changed: settings are compared with
what they were the last time. A value that can't be pickled stays at home.

Both sides import this module, the runner inside the sandbox: standard library and cloudpickle only.
"""

from __future__ import annotations

import _locale
import contextlib
import copy
import locale
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pickle import PickleBuffer
from typing import Any, NamedTuple

import cloudpickle

from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.task.log_settings import differing_logs, put_back, read_logs, write_logs
from p2p_ipython.task.on_import import forget, on_import
from p2p_ipython.task.shell_settings import SHELL, read_shell, write_shell

PYTHON = sys.version_info[:2]


class Kind(NamedTuple):
    """A library's settings. ``now`` returns something that is equal as long as they are; None for nothing to send.

    ``differing`` makes of that what is sent, empty for nothing; ``write`` takes it on the worker, once the
    module has been imported, or ``after``, which imports it.
    """

    module: str
    now: Callable[[Any], Any]
    differing: Callable[[Any, Any], Any]
    write: Callable[[Any, Any], object]
    after: str = ""


# --- single libraries -------------------------------------------------------------------------------------------------

_OF_ONE_MACHINE = (
    "backend",
    "backend_fallback",
    "interactive",
    "toolbar",
    "savefig.directory",
    "datapath",
)
_PREFIXES_OF_ONE_MACHINE = ("webagg.", "tk.", "keymap.", "animation.ffmpeg", "animation.convert")
_WITHOUT_WINDOWS = frozenset({"agg", "svg", "pdf", "ps", "cairo", "template", "pgf"})


def _plots_now(matplotlib: Any) -> Any:
    return _Plots(matplotlib.rcParams)


class _Plots:
    """rcParams: comparing them as a plain dict takes a tenth of the time. Lists in them may change in place."""

    def __init__(self, settings: Any, lists: dict[str, list[Any]] | None = None) -> None:
        self.settings = settings
        self._lists = lists

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Plots) or not dict.__eq__(self.settings, other.settings):
            return False
        now, kept = (self, other) if other._lists is not None else (other, self)
        return all(dict.get(now.settings, name) == value for name, value in (kept._lists or {}).items())

    __hash__ = None  # type: ignore[assignment]

    def kept(self) -> _Plots:
        settings = dict(dict.items(self.settings))
        return _Plots(settings, {name: list(value) for name, value in settings.items() if type(value) is list})


def _plots_differing(matplotlib: Any, now: Any) -> Any:
    defaults, found = matplotlib.rcParamsDefault, {}
    now = dict(dict.items(now.settings))
    for name, value in now.items():
        if name in _OF_ONE_MACHINE or name.startswith(_PREFIXES_OF_ONE_MACHINE):
            continue
        if value != dict.get(defaults, name, value):
            found[name] = value
    if "inline" in os.environ.get("MPLBACKEND", ""):  # else this is no notebook that shows figures by itself
        backend = now.get("backend")
        if isinstance(backend, str) and backend.lower() in _WITHOUT_WINDOWS:
            found["backend"] = backend
        if "matplotlib.pyplot" in sys.modules and now.get("interactive") is False:
            found["interactive"] = False
    return found


def _write_plots(matplotlib: Any, values: dict[str, Any]) -> None:
    backend, interactive = values.pop("backend", ""), values.pop("interactive", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in values.items():
            with contextlib.suppress(KeyError, ValueError):  # another version
                matplotlib.rcParams[name] = value
    if backend:
        matplotlib.use(backend)
    if interactive is not None:
        on_import("matplotlib.pyplot", lambda: matplotlib.interactive(interactive))


def _figures_now(backend: Any) -> Any:
    config = backend.InlineBackend._instance
    return dict(config._trait_values) if config is not None else None


_FIGURES = {"figure_formats": {"png"}, "print_figure_kwargs": {"bbox_inches": "tight"}, "close_figures": True}


def _figures_differing(_backend: Any, now: Any) -> Any:
    return {name: now[name] for name, usual in _FIGURES.items() if name in now and now[name] != usual}


def _write_figures(backend: Any, values: dict[str, Any]) -> None:
    shell = _shell()
    config = backend.InlineBackend.instance(parent=shell)
    config.shell = config.shell or shell
    for name, value in values.items():
        setattr(config, name, value)


def _tables_now(config: Any) -> Any:
    return _Tables(config._global_config)


class _Tables:
    """pandas' options: a dict of dicts, copied only when they are kept."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Tables) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]

    def kept(self) -> _Tables:
        return _Tables(copy.deepcopy(self.values))


def _tables_differing(config: Any, _now: Any) -> Any:
    found = {}
    for key, option in config._registered_options.items():
        value = _below(config._global_config, key)
        if value is not option.defval and value != option.defval and not key.startswith("io."):
            found[key] = value
    return found


def _below(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values


def _write_tables(config: Any, values: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in values.items():
            with contextlib.suppress(KeyError, ValueError, AttributeError):
                config.set_option(name, value)


_PRINT = {
    "edgeitems": 3, "threshold": 1000, "floatmode": "maxprec", "precision": 8, "suppress": False, "linewidth": 75,
    "nanstr": "nan", "infstr": "inf", "sign": "-", "formatter": None, "legacy": False,
}  # fmt: skip
_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


def _arrays_now(numpy: Any) -> Any:
    return numpy.get_printoptions(), numpy.geterr()


def _arrays_differing(_numpy: Any, now: Any) -> Any:
    shown, errors = now
    found = (
        {name: shown[name] for name, usual in _PRINT.items() if name in shown and shown[name] != usual},
        {name: errors[name] for name, usual in _ERRORS.items() if errors.get(name, usual) != usual},
    )
    return found if any(found) else None


def _write_arrays(numpy: Any, values: Any) -> None:
    shown, errors = values
    with contextlib.suppress(TypeError, ValueError):
        numpy.set_printoptions(**shown)
    numpy.seterr(**errors)


def _decimals_now(decimal: Any) -> Any:
    *plain, _flags, traps = decimal.getcontext().__reduce__()[1]
    return tuple(plain), traps


_DECIMALS = 28, "ROUND_HALF_EVEN", -999999, 999999, 1, 0
_TRAPS = {"InvalidOperation", "DivisionByZero", "Overflow"}


def _decimals_differing(_decimal: Any, now: Any) -> Any:
    plain, traps = now
    names = {signal.__name__ for signal in traps}
    return (plain, names) if plain != _DECIMALS or names != _TRAPS else None


def _write_decimals(decimal: Any, values: Any) -> None:
    plain, traps = values
    decimal.setcontext(decimal.Context(*plain, traps=[getattr(decimal, name) for name in traps], flags=[]))


def _learning_now(module: Any) -> Any:
    return dict(module._get_threadlocal_config())


def _learning_differing(module: Any, now: Any) -> Any:
    usual = module._global_config
    return {name: value for name, value in now.items() if value != usual.get(name)}


def _write_learning(module: Any, values: dict[str, Any]) -> None:
    module._get_threadlocal_config().update(values)


def _filters_now(_warnings: Any) -> Any:
    return list(warnings.filters)


_USUAL = (
    ("default", None, DeprecationWarning, "__main__", 0),
    ("ignore", None, DeprecationWarning, None, 0),
    ("ignore", None, PendingDeprecationWarning, None, 0),
    ("ignore", None, ImportWarning, None, 0),
    ("ignore", None, ResourceWarning, None, 0),
)

_NUMPYS_OWN = frozenset(f"numpy.{kind} size changed" for kind in ("ndarray", "ufunc", "dtype")) | {
    "the matrix subclass is not the recommended way"
}


def _is_of_library(entry: Any) -> bool:
    """Whether a library has added this filter when it was imported, as it does on the worker."""
    action, message, category, module, _ = entry
    if action == "always":
        return category.__module__ != "builtins" or getattr(module, "pattern", "").startswith("^")
    return getattr(message, "pattern", "") in _NUMPYS_OWN


def _filters_differing(_warnings: Any, now: Any) -> Any:
    """Return the filters by the module of their category: that module may not be there yet on the worker."""
    found = []
    for entry in now:
        action, message, category, module, line = entry
        if entry not in _USUAL and not _is_of_library(entry):
            found.append((action, message, category.__module__, category.__qualname__, module, line))
    return found


def _write_filters(_warnings: Any, entries: list[Any]) -> None:
    made = []
    for action, message, home, name, module, line in entries:
        if home in sys.modules and isinstance(category := getattr(sys.modules[home], name, None), type):
            made.append((action, message, category, module, line))
    kept = [entry for entry in warnings.filters if entry not in made]
    warnings.filters[:] = made + kept  # type: ignore[index]
    warnings.simplefilter("default", _Never)  # has the module notice, in all versions
    warnings.filters[:] = made + kept  # type: ignore[index]


class _Never(Warning):
    """No warning is of this class."""


def _locale_now(_locale_module: Any) -> Any:
    return _locale.setlocale(locale.LC_ALL, None)


_CATEGORIES = ("LC_NUMERIC", "LC_TIME", "LC_MONETARY", "LC_COLLATE")


def _locale_differing(_module: Any, _now: Any) -> Any:
    current = {name: _locale.setlocale(getattr(locale, name), None) for name in _CATEGORIES}
    return {name: value for name, value in current.items() if value != "C"}


def _write_locale(_module: Any, values: dict[str, str]) -> None:
    for name, value in values.items():
        if name in _CATEGORIES:
            with contextlib.suppress(locale.Error):  # this machine doesn't have it
                locale.setlocale(getattr(locale, name), value)


def _depth_now(_sys: Any) -> Any:
    return sys.getrecursionlimit()


def _write_depth(_sys: Any, depth: int) -> None:
    with contextlib.suppress(RecursionError, ValueError):  # it is deeper here already
        sys.setrecursionlimit(depth)


def _shell() -> Any:
    module = sys.modules.get("IPython.core.interactiveshell")
    return module.InteractiveShell._instance if module is not None else None


KINDS: dict[str, Kind] = {
    "recursion": Kind("sys", _depth_now, lambda _, now: now if now != 1000 else None, _write_depth),
    "locale": Kind("locale", _locale_now, _locale_differing, _write_locale),
    "shell": Kind(SHELL, read_shell, lambda _, now: now, write_shell),
    "decimal": Kind("decimal", _decimals_now, _decimals_differing, _write_decimals),
    "numpy": Kind("numpy", _arrays_now, _arrays_differing, _write_arrays),
    "pandas": Kind("pandas._config.config", _tables_now, _tables_differing, _write_tables, after="pandas"),
    "sklearn": Kind("sklearn._config", _learning_now, _learning_differing, _write_learning),
    "matplotlib": Kind("matplotlib", _plots_now, _plots_differing, _write_plots),
    "figures": Kind("matplotlib_inline.backend_inline", _figures_now, _figures_differing, _write_figures),
    "logging": Kind("logging", read_logs, differing_logs, write_logs),
    "warnings": Kind("warnings", _filters_now, _filters_differing, _write_filters),
}
"""In the order in which they are written. The last ones are filters: what an import adds goes below them."""


# --- what travels -----------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One library's settings: the name of its ``Kind``, the Python that can read them (None: any), and their pickle."""

    kind: str
    python: tuple[int, int] | None
    data: bytes


@dataclass(frozen=True)
class Settings:
    """The settings of the notebook; see ``around.Part``. ``packed``: a pickle of a tuple of ``Entry``."""

    packed: Buffer = field(repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings, (PickleBuffer(self.packed),)

    def enter(self) -> Callable[[], None]:
        """Write them, each once its library is there; one that can't be read here isn't written."""
        for entry in pickle.loads(self.packed):
            kind = KINDS.get(entry[0])
            if kind is not None and entry[1] in (None, PYTHON):
                on_import(kind.after or kind.module, _Writing(kind, entry[2]))
        return _leave


def _leave() -> None:
    forget()
    put_back()


class _Writing:
    """Writes settings that have travelled. It is called when their library is there."""

    def __init__(self, kind: Kind, data: bytes) -> None:
        self._kind = kind
        self._data = data

    def __call__(self) -> None:
        with contextlib.suppress(Exception):  # another version of the library, which has no such setting
            self._kind.write(sys.modules[self._kind.module], pickle.loads(self._data))


class Collector:
    """Reads the settings of this process, again and again, in little time. In one thread at a time."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Any, Entry | None]] = {}
        self._last: Settings | None = None

    def collect(self) -> Settings | None:
        """Return the settings that differ from the defaults, the same object as long as they don't change."""
        changed = False
        for name, kind in KINDS.items():
            module = sys.modules.get(kind.module)
            if module is None:
                continue
            # A version of the library may keep them elsewhere, and another thread may change them now.
            with contextlib.suppress(Exception):
                changed = self._look(name, kind, module) or changed
        if changed:
            entries = tuple(tuple(entry) for _, entry in self._seen.values() if entry is not None)
            self._last = Settings(pickle.dumps(entries, 5)) if entries else None
        return self._last

    def _look(self, name: str, kind: Kind, module: Any) -> bool:
        """Read one library's settings; return whether they have changed."""
        now = kind.now(module)
        before = self._seen.get(name)
        if before is not None and before[0] == now:
            return False
        entry = _packed(name, kind.differing(module, now))
        kept = now.kept() if isinstance(now, _Tables | _Plots) else now
        if entry is not None and entry.python:  # functions may use names that change: these are read each time
            kept = _UNEQUAL
        self._seen[name] = kept, entry
        return entry != (before[1] if before is not None else None)


_UNEQUAL = float("nan")


def _packed(name: str, differing: Any) -> Entry | None:
    """Pack what differs, without the values that can't travel."""
    if not differing:
        return None
    try:
        return _packed_whole(name, differing)
    except Exception:
        if not isinstance(differing, dict):
            return None
    travelling = {}
    for key, value in differing.items():
        with contextlib.suppress(Exception):
            cloudpickle.dumps(value)
            travelling[key] = value
    return _packed_whole(name, travelling) if travelling else None


def _packed_whole(name: str, value: Any) -> Entry:
    try:
        return Entry(name, None, pickle.dumps(value, 5)) if not _of_notebook(value) else _by_value(name, value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return _by_value(name, value)


def _by_value(name: str, value: Any) -> Entry:
    return Entry(name, PYTHON, cloudpickle.dumps(value, 5))


def _of_notebook(value: Any) -> bool:
    """Whether a function of the notebook is in a setting: pickle would send its name only."""
    if isinstance(value, dict):
        return any(map(_of_notebook, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_of_notebook, value))
    return getattr(value, "__module__", "") == "__main__"
