"""Packages that a task asks for: what a requirement looks like on the wire, and which offers take such tasks.

A requirement is a name, extras and versions, in one canonical form: ``pandas[excel]>=2,<3``. Nothing else fits the
form: no URL, no path, no option of a program, no space and no line's end. So a reader can hand it on.

Pure, and the standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MAX_PACKAGES = 32
"""Requirements of one task."""

MAX_REQUIREMENT = 160
"""Characters of one."""

_NAME = r"[a-z0-9](?:[a-z0-9-]{0,98}[a-z0-9])?"
_VERSION = r"(?:~=|==|!=|<=|>=|<|>)[a-z0-9][a-z0-9.!+*]{0,63}"
REQUIREMENT = re.compile(rf"({_NAME})(?:\[{_NAME}(?:,{_NAME})*\])?(?:{_VERSION}(?:,{_VERSION})*)?")
"""A requirement in its canonical form; the group is the package's name."""

OFFERS = ("own", "ask", "some", "any")
"""Words of an offer: packages for the lender's own tasks, after the lender's yes, those of a list, and all."""


def is_requirement(text: str) -> bool:
    """Return whether a text is a requirement in its canonical form."""
    return len(text) <= MAX_REQUIREMENT and REQUIREMENT.fullmatch(text) is not None


def name_of(requirement: str) -> str:
    """Return the name of the package that a requirement is for."""
    found = REQUIREMENT.fullmatch(requirement)
    return found[1] if found else ""


def canonical_name(name: str) -> str:
    """Return a package's name as its requirement has it: ``Foo_Bar`` and ``foo.bar`` are ``foo-bar``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def offers_packages(offered: str, *, own: bool) -> bool:
    """Return whether an offer takes tasks that ask for packages; ``own``: it is of the task's own member."""
    return own if offered == "own" else offered in OFFERS


def packages_words(packages: Sequence[str], most: int = 150) -> str:
    """Return requirements for people, in at most ``most`` characters: "numpy>=2, pandas and 3 more"."""
    shown: list[str] = []
    for each in packages:
        if shown and sum(map(len, shown)) + 2 * len(shown) + len(each) > most - 15:
            return f"{', '.join(shown)} and {len(packages) - len(shown)} more"
        shown.append(each[:most])
    return ", ".join(shown)


def sorted_requirements(requirements: Iterable[str]) -> tuple[str, ...]:
    """Return requirements in their order on the wire, each once."""
    return tuple(sorted(set(requirements)))
