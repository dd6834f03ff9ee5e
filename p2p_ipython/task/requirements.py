"""Packages that a task asks for, as people write them: ``--with`` and the metadata of a script (PEP 723).

Names, extras and versions only. A URL, a path, an option or a marker is refused, here and by the worker: what is
installed comes from the lender's own index.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from p2p_ipython.errors import UsageError
from p2p_ipython.protocol.packages import MAX_PACKAGES, is_requirement, sorted_requirements

_BLOCK = re.compile(r"(?m)^# /// (?P<kind>[a-zA-Z0-9-]+)[ \t]*\n(?P<content>(?:^#(?:| .*)\n)+)^# ///[ \t]*$")
_COMMA = re.compile(r",(?=\s*[^\s<>=!~,\]])(?![^\[]*\])")
"""Between two requirements: a comma within one is followed by a comparison, or is in brackets."""

OLDEST, NEWEST = 11, 14
"""Minor versions of Python 3 that workers may have."""

_HINT = "Give names and versions, as: --with 'numpy>=2' --with pandas"


@dataclass(frozen=True)
class Metadata:
    """What a script's metadata asks for: packages, and versions of Python as it writes them ("" for any)."""

    packages: tuple[str, ...] = ()
    python: str = ""


def requirement(text: str) -> str:
    """Return a requirement in its canonical form. Raises ``UsageError`` for all that is more than name and version."""
    from packaging.requirements import InvalidRequirement, Requirement  # heavy: few tasks ask for packages
    from packaging.utils import canonicalize_name

    shown = f"{text.strip()[:60]!r}"
    if text.strip().startswith("-"):
        raise UsageError(f"{shown} is an option, and no package", hint=_HINT)
    try:
        read = Requirement(text.strip())
    except (InvalidRequirement, RecursionError):
        raise UsageError(f"{shown} is no package that can be asked for", hint=_HINT) from None
    if read.url is not None:
        raise UsageError(f"{shown} names a place, and packages come from the lender's own index", hint=_HINT)
    if read.marker is not None:
        raise UsageError(f"{shown} has a marker: what a worker is like is not known here", hint=_HINT)
    extras = ",".join(sorted({canonicalize_name(each) for each in read.extras}))
    versions = ",".join(sorted(str(each).replace(" ", "").lower() for each in read.specifier))
    found = f"{canonicalize_name(read.name)}{f'[{extras}]' if extras else ''}{versions}"
    if not is_requirement(found):
        raise UsageError(f"{shown} is no package that can be asked for", hint=_HINT)
    return found


def requirements(texts: Iterable[str]) -> tuple[str, ...]:
    """Return requirements in their canonical form, each once. Raises ``UsageError``, also for too many."""
    found = sorted_requirements(requirement(text) for text in texts)
    if len(found) > MAX_PACKAGES:
        raise UsageError(f"{len(found)} packages are asked for, and a task may ask for {MAX_PACKAGES}")
    return found


def split(text: str) -> list[str]:
    """Return the requirements that commas separate; those within one, as in ``numpy>=2,<3``, separate none."""
    return [part for each in _COMMA.split(text) if (part := each.strip(" \t,"))]


def metadata(source: str) -> Metadata:
    """Read the metadata of a script or cell (PEP 723): a block of comments from ``# /// script`` to ``# ///``.

    Raises ``UsageError`` for one that can't be read, and for ``[tool.uv]``, which would say where packages are from.
    """
    blocks = [found for found in _BLOCK.finditer(source) if found["kind"] == "script"]
    if not blocks:
        return Metadata()
    if len(blocks) > 1:
        raise UsageError("there are two blocks of metadata (# /// script)", hint="Write one.")
    text = "".join(line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines(True))
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"the metadata (# /// script) is no TOML: {error}") from None
    tool = table.get("tool", {})
    if isinstance(tool, dict) and "uv" in tool:
        raise UsageError(
            "the metadata has [tool.uv], and packages come from the lender's own index",
            hint="Leave that part out; dependencies and requires-python are heeded.",
        )
    return Metadata(_dependencies(table), _python(table))


def _dependencies(table: dict[str, Any]) -> tuple[str, ...]:
    listed = table.get("dependencies", [])
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise UsageError("the metadata's dependencies are no list of texts", hint='As: dependencies = ["numpy>=2"]')
    return requirements(listed)


def _python(table: dict[str, Any]) -> str:
    wanted = table.get("requires-python", "")
    if not isinstance(wanted, str):
        raise UsageError("the metadata's requires-python is no text", hint='As: requires-python = ">=3.12"')
    return wanted


def python_for(wanted: str, here: str) -> str:
    """Return the minor version of Python that a task is to have: the one ``here`` if that will do.

    ``wanted`` is one version, as ``3.12``, or a specifier, as ``>=3.12``. Raises ``UsageError`` if none fits.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # heavy, as above

    if re.fullmatch(r"3\.\d{1,2}", wanted.strip()):
        return wanted.strip()
    hint = "As: --python 3.12, or in metadata requires-python = '>=3.12'"
    try:
        specifier = SpecifierSet(wanted)
    except InvalidSpecifier:
        raise UsageError(f"{wanted[:40]!r} is no version of Python", hint=hint) from None
    every = [f"3.{minor}" for minor in range(OLDEST, NEWEST + 1)]
    for each in (here, *every):
        # Which patch release a worker has isn't said: one that may fit will do.
        if any(specifier.contains(f"{each}.{patch}") for patch in range(40)):
            return each
    raise UsageError(f"no Python that workers have is {wanted[:40]!r}: they have {every[0]} to {every[-1]}", hint=hint)
