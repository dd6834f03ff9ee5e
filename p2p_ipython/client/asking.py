"""What a task asks for of its worker: packages to be installed, and a version of Python.

It comes from options (``--with``, ``--python``) and from the metadata of a script or cell (PEP 723).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from p2p_ipython.errors import NameMissing, UsageError
from p2p_ipython.protocol.packages import offers_packages, sorted_requirements

if TYPE_CHECKING:
    from p2p_ipython.client.core import ClusterCore
    from p2p_ipython.task.task import Task


class Asked(NamedTuple):
    """Requirements of packages in their canonical form, and a minor version of Python ("" for any)."""

    packages: tuple[str, ...] = ()
    python: str = ""


NOTHING = Asked()


def asked_for(source: str, packages: Iterable[str] = (), python: str | None = None) -> Asked:
    """Return what options and the metadata in a source ask for.

    An option's package takes the place of the metadata's. Raises ``UsageError``.
    """
    texts = list(packages)
    if not texts and not python and "# /// script" not in source:
        return NOTHING
    from p2p_ipython.protocol.packages import name_of
    from p2p_ipython.task.requirements import metadata, python_for, requirements, split  # few tasks need it
    from p2p_ipython.task.task import PYTHON

    given = requirements(part for text in texts for part in split(text))
    told = metadata(source)
    names = {name_of(each) for each in given}
    found = sorted_requirements([*given, *(each for each in told.packages if name_of(each) not in names)])
    wanted = python or told.python
    return Asked(requirements(found), python_for(wanted, PYTHON) if wanted else "")


def asking(task: Task, asked: Asked) -> Task:
    """Return the task with what it asks for. Raises ``UsageError`` for a Python that its functions don't go with."""
    if asked.python and task.needs_python not in (None, asked.python):
        raise UsageError(
            f"python {asked.python} is asked for, and functions of this task need {task.needs_python}",
            hint="Write the work as a %%p2p cell without functions of the notebook: a cell travels as source.",
        )
    if asked == NOTHING:
        return task
    return replace(task, packages=asked.packages, needs_python=asked.python or task.needs_python)


def takes_packages(core: ClusterCore) -> bool:
    """Return whether a worker that is here installs packages for our tasks, after its lender's yes perhaps."""
    workers = list(core.bridge.machine.workers.values()) if core.bridge is not None else []
    return any(offers_packages(worker.terms.packages, own=worker.own) for worker in workers)


def module_advice(error: BaseException, modules: Container[str], way: str) -> str:
    """Say how a module is had that a task lacked: by ``way``, with the package's name after it; "" for other errors.

    The words are of a worker that may not be trusted. So it has to be a module that the task's own code is known to
    import: no other name is repeated.
    """
    from p2p_ipython.task.distributions import distribution_of

    if isinstance(error, ModuleNotFoundError):
        name = error.name or next(iter(_NO_MODULE.findall(str(error))), "")
    elif isinstance(error, NameMissing):
        name = next(iter(_NEEDS.findall(str(error))), "")
    else:
        return ""
    top = name.partition(".")[0]
    package = distribution_of(top)
    return (
        f"{top} is not installed there: {way} {package} has it installed first." if package and top in modules else ""
    )


_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_NEEDS = re.compile(r"the task needs '([\w.]+)', which is not there")
