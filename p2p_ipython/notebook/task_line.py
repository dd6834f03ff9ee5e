"""The options of a task in the line of ``%%p2p``, and their defaults: ``%config P2PMagics.retries = 2``.

They mean what those of ``cluster.options`` do (client/task_options.py). Each takes one value; those that take names may
be repeated, or have several with commas between them. So none takes the future's name away.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from IPython.core.magic_arguments import argument
from traitlets import Bool, Int, TraitError, Unicode, validate
from traitlets.config import Configurable

from p2p_ipython.client.task_options import USUAL, TaskOptions
from p2p_ipython.errors import ConfigError, UsageError
from p2p_ipython.notebook.lines import separated, unquoted

Magic = TypeVar("Magic", bound=Callable[..., Any])

_ARGUMENTS = (
    argument("--label", help="what the task is called in lists (default: NAME, or In[3])"),
    argument("--retries", type=int, metavar="N", help="run it again up to N times if it raises an error"),
    argument("--retry-on", action="append", metavar="NAMES", help="with --retries: only after errors of these classes"),
    argument("--once", action="store_true", help="never start it a second time, even if its worker is lost"),
    argument("--timeout", metavar="TIME", help="end it when it has run for this long: 90s, 5m, 2h (default: never)"),
    argument("--priority", type=int, metavar="N", help="of your tasks that wait, the highest go first (default: 0)"),
    argument("--on", action="append", metavar="NAMES", help="run it on a worker of this member, or on this worker"),
    argument("--tags", action="append", metavar="WORDS", help="run it where the worker has these tags, as gpu"),
    argument("--memory", metavar="SIZE", help="run it where a task may use so much memory, as 2G"),
    argument("--gpus", type=int, metavar="N", help="run it where a task has so many graphics cards"),
    argument("--seed", type=int, metavar="N", help="begin its random numbers with this seed (default: nobody's)"),
    argument("--stdout", metavar="live|end|off", help="show output as it comes, at the end, or not"),
    argument("--lazy", action="store_true", help="freeze it now, and run it only when its value is asked for"),
)

_NAMES = ("retry_on", "on", "tags")
_WORDS = (*_NAMES, "label", "memory", "timeout", "stdout")
_DEFAULTS = ("retries", "retry_on", "once", "priority", "on", "tags", "memory", "gpus")


def task_arguments(magic: Magic) -> Magic:
    """Give a magic the options of tasks, after those below this decorator."""
    for each in reversed(_ARGUMENTS):
        magic = each(magic)
    return magic


class TaskDefaults(Configurable):
    """The options that cells have unless their lines say something else."""

    retries = Int(None, allow_none=True, help="As %%p2p --retries; None: as the setting P2P_RETRIES.").tag(config=True)
    retry_on = Unicode("", help="As %%p2p --retry-on: names of classes, with commas.").tag(config=True)
    once = Bool(False, help="As %%p2p --once.").tag(config=True)
    priority = Int(0, help="As %%p2p --priority.").tag(config=True)
    on = Unicode("", help="As %%p2p --on: names, with commas.").tag(config=True)
    tags = Unicode("", help="As %%p2p --tags: words, with commas.").tag(config=True)
    memory = Unicode("", help="As %%p2p --memory.").tag(config=True)
    gpus = Int(0, help="As %%p2p --gpus.").tag(config=True)

    @validate("retries", "priority", "on", "tags", "memory", "gpus")
    def _can_be(self, proposal: Any) -> Any:
        try:
            USUAL.changed({proposal["trait"].name: proposal["value"] or None})
        except ConfigError as error:
            raise TraitError(str(error)) from None
        return proposal["value"]

    def default_options(self, namespace: Mapping[str, Any]) -> TaskOptions:
        """Return the options of a task whose line says nothing. Raises ``ConfigError``."""
        values = {name: getattr(self, name) for name in _DEFAULTS}
        given = {name: value for name, value in values.items() if value not in ("", None)}
        if "retry_on" in given:
            given["retry_on"] = _classes(separated([given["retry_on"]]), namespace)
        if given["once"] and given.get("retries"):
            del given["retries"]  # it never runs again, whatever the others do
        return USUAL.changed(given)


def given_in(line: Any) -> dict[str, Any]:
    """Return the options of a task that a parsed line gives, by name."""
    given = {name: getattr(line, name) for name in (*_DEFAULTS, "label", "timeout", "seed", "stdout", "lazy")}
    return {name: value for name, value in given.items() if value is not None and value is not False}


def options_in(line: Any, defaults: TaskOptions, namespace: Mapping[str, Any]) -> TaskOptions:
    """Return the options of the task of a parsed line; names of classes are those of the ``namespace``.

    Raises ``ConfigError``.
    """
    given = given_in(line)
    if given.get("lazy") and line.wait:
        raise UsageError("--lazy and --wait contradict one another", hint="Leave one of them out.")
    for name in _WORDS:
        if name in given:
            given[name] = separated(given[name]) if name in _NAMES else unquoted(given[name])
            if not given[name]:
                raise ConfigError(f"--{name.replace('_', '-')} names nothing", hint="Give a name after it.")
    if "retry_on" in given:
        given["retry_on"] = _classes(given["retry_on"], namespace)
    if "once" in given and "retries" not in given:
        given["retries"] = 0  # a default of them doesn't contradict
    elif given.get("retries") and "once" not in given:
        given["once"] = False
    return defaults.changed(given)


def files_named(names: list[str]) -> dict[str, bytes]:
    """Read the files that ``--file`` names, beside the notebook. Raises ``CaptureError``."""
    from p2p_ipython.client.surroundings import read_files  # heavy, like all that only tasks need

    return read_files(names, os.getcwd()) if names else {}


def _classes(names: list[str], namespace: Mapping[str, Any]) -> list[Any]:
    """Return the classes that names mean in a notebook, and names of no class as they are."""
    found = []
    for name in names:
        first, *rest = name.split(".")
        value = namespace.get(first, vars(builtins).get(first))
        for attribute in rest:
            value = getattr(value, attribute, None)
        found.append(value if isinstance(value, type) and issubclass(value, BaseException) else name)
    return found
