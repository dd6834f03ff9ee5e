"""Completion in the lines of the magics: their options, titles of clusters, names of people, workers, tags, futures."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from IPython import get_ipython
from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_OPTION = re.compile(r"--[\w-]*$")
_WORD = re.compile(r"\S*$")

_classes: list[Any] = []
_TITLED = {"p2p_connect", "p2p_host", "p2p_unhost", "p2p_invite", "p2p_members", "p2p_revoke", "p2p_leave", "p2p_lend"}


def load(ip: InteractiveShell, classes: Sequence[Any]) -> None:
    """Complete lines of the magics in ``classes``."""
    _classes[:] = classes
    if ip.Completer is not None:
        ip.Completer.custom_matchers += [complete_option, complete_name]


def unload(ip: InteractiveShell) -> None:
    """Stop completing lines of the magics."""
    if ip.Completer is not None:
        for matcher in (complete_option, complete_name):
            if matcher in ip.Completer.custom_matchers:
                ip.Completer.custom_matchers.remove(matcher)


@context_matcher()
def complete_option(context: CompletionContext) -> SimpleMatcherResult:
    """Complete the options of our magics."""
    magic, before = _line(context)
    found = _OPTION.search(before)
    function = next((getattr(one, magic) for one in _classes if magic and hasattr(one, magic)), None)
    parser = getattr(function, "parser", None)
    if found is None or parser is None:
        return SimpleMatcherResult(completions=[])
    options = [option for action in parser._actions for option in action.option_strings]
    return _result(options, found.group())


@context_matcher()
def complete_name(context: CompletionContext) -> SimpleMatcherResult:
    """Complete titles of known clusters, and names of guests and members."""
    magic, before = _line(context)
    found = _WORD.search(before)
    place = len(before.split()) - (1 if found is not None and found.group() else 0)
    if found is None or found.group().startswith("-"):
        return SimpleMatcherResult(completions=[])
    if magic in _TITLED and place == 1:
        here = ("inline", "local") if magic == "p2p_connect" else ()
        return _result((*here, *_titles()), found.group())
    if magic in ("p2p", "p2p_futures") and (known := _after(magic, before)) is not None:
        return _result(known, found.group().rpartition(",")[2])
    friends: Any = _friends()
    if friends is not None and magic in ("p2p_approve", "p2p_refuse") and place == 1:
        return _result(friends.names_waiting(), found.group())
    if friends is not None and magic == "p2p_trust" and place == 1:
        return _result(friends.names_of_members(), found.group())
    if friends is not None and magic == "p2p_lend" and _option_before(before) == "--for":
        return _result(friends.names_of_members(), found.group())
    return SimpleMatcherResult(completions=[])


def _after(magic: str, before: str) -> list[str] | None:
    """Return what may come where the cursor is: the values of the option before it, or names; None for nothing."""
    words = before.split() if before[-1:].isspace() else before.split()[:-1]
    registry: Any = getattr(get_ipython(), "magics_manager", None)
    futures = registry.registry.get("FuturesMagics") if registry is not None else None
    if magic == "p2p_futures" and futures is not None and words[-1] != "--timeout":
        return [*futures.names(), *(["all"] if words[-1] == "--cancel" else [])]
    magics = registry.registry.get("P2PMagics") if registry is not None else None
    core = magics.cluster._core if magics is not None and magics.cluster is not None else None
    match words[-1]:
        case "--retry-on":
            return sorted(name for name, value in vars(builtins).items() if _is_error(value))
        case "--on" if core is not None:
            return list(core.places())
        case "--tags" if core is not None:
            return list(core.tags())
    return None


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _option_before(before: str) -> str:
    """Return the last option before the word that is being typed, "" for none."""
    words = before.split() if before[-1:].isspace() else before.split()[:-1]
    return next((word for word in reversed(words) if word.startswith("--")), "")


def _line(context: CompletionContext) -> tuple[str, str]:
    """Return the magic in whose line the cursor is, "" for none; and the line up to the cursor."""
    line = context.line_with_cursor
    words = line.split()
    magic = words[0].lstrip("%") if words and words[0].startswith("%") else ""
    return magic, line[: context.cursor_position]


def _result(known: Iterable[str], fragment: str) -> SimpleMatcherResult:
    return SimpleMatcherResult(
        completions=[SimpleCompletion(word, type="param") for word in known if word.startswith(fragment)],
        matched_fragment=fragment,
        suppress=True,
    )


def _titles() -> list[str]:
    from p2p_ipython.members.profiles import Profiles  # heavy

    return [profile.title for profile in Profiles().all()]


def _friends() -> Any:
    shell: Any = get_ipython()
    return None if shell is None else shell.magics_manager.registry.get("FriendsMagics")
