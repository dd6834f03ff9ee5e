"""Names that a cell on the cluster has bound: ``--bind`` puts them into the notebook, a line says which stay there."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError as MagicUsage

from p2p_ipython.errors import CaptureError, P2PError
from p2p_ipython.protocol.plain import plain
from p2p_ipython.task.seeds import set_state

if TYPE_CHECKING:
    from p2p_ipython.client.future import Future
    from p2p_ipython.task.bindings import Bindings, Import

_SCRIPT = 1 << 20
"""Characters of a script that are looked at."""

_SHOWN = 6
"""Names that a line shows."""


@dataclass(frozen=True)
class Binding:
    """What is to become of the names that a cell binds.

    ``asked``: names to put into the notebook, all or none; if they are ``every`` name of the cell, those that can be.
    ``imports``: those of them that the cell imports, which the notebook imports, too. ``kept``: names of which the
    line says that they stay with the task; ``changed``: values of the notebook of which the task changes its copy.
    ``states``: names of random generators, as ``seeds.STATES`` has them, that go on from where the task has ended.
    """

    asked: tuple[str, ...] = ()
    every: bool = False
    imports: tuple[Import, ...] = ()
    kept: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    states: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names whose values may come unasked."""
        return (*self.kept, *self.changed)

    def values(self, future: Future[Any]) -> dict[str, Any]:
        """Return the values to bind. Raises a ``P2PError`` if one of them can't be had.

        A cell that has failed has bound some names by then, as at home, and it may be that all that are asked for.
        """
        found: dict[str, Any] = {}
        came = [name for name in self.asked if name in future.names or not future._promise.failure]
        for name in came if self.every or len(came) == len(self.asked) else ():
            try:
                found[name] = future[name]
            except P2PError:
                if not self.every:
                    raise
        return found

    def words(self, future: Future[Any]) -> str:
        """Say in a few words what has become of the names, for the line under the cell; "" for nothing to say."""
        if not future.done() or future.cancelled() or future._promise.failure:
            return ""
        words = []
        if self.asked:
            words.append(f"binds {_few(self.asked)}")
        came = [name for name in self.kept if name in future.names]
        if came:
            words.append(f"has bound {_few(came)}, over there (%p2p_pull {came[0]})")
        if changed := [name for name in self.changed if name in future.names]:
            words.append(f"has changed its copy of {_few(changed)} (%p2p_pull {changed[0]})")
        return "; ".join(words)


def chosen(option: str | None, binds: Bindings, sent: Container[str], modules: Container[str]) -> Binding:
    """Decide what ``--bind NAME[,NAME]`` or ``--bind all`` asks for; ``sent`` are the names that travel with the cell.

    Raises ``CaptureError`` for a name that the cell doesn't bind, and IPython's ``UsageError``.
    """
    changed = tuple(name for name in binds.changed if name in sent and name not in modules)
    names = tuple(name for name in binds.bound if not name.startswith("_"))
    told = tuple(name for name in names if name not in binds.imported)
    if option is None:
        return Binding(kept=told, changed=changed)
    asked = tuple(part.strip() for part in option.split(",") if part.strip())
    if not asked:
        raise MagicUsage("--bind wants names, as --bind score,model, or all")
    if asked == ("all",):
        return Binding(told + changed, True, tuple(each for each in binds.imports if each.name in (*names, "*")))
    for name in asked:
        if name not in binds.bound and name not in changed:
            there = _few((*names, *changed))
            raise CaptureError(
                f"the cell doesn't bind {name[:80]!r}, so it can't be bound here",
                hint=f"It binds {there}." if there else "It binds nothing: assign to a name in it.",
            )
    rest = tuple(name for name in told if name not in asked)
    return Binding(
        tuple(name for name in asked if name not in binds.imported),
        False,
        tuple(each for each in binds.imports if each.name in asked),
        rest,
        tuple(name for name in changed if name not in asked),
    )


def bind(binding: Binding, future: Future[Any], push: Callable[[dict[str, Any]], object]) -> str:
    """Bind what was asked for; return what there is to say against it, "" for nothing."""
    if future.cancelled():
        return ""
    for name in binding.states:
        with suppress(P2PError, KeyError):  # it has failed before it began
            set_state(name, future[name])
    if not (binding.asked or binding.imports):
        return ""
    try:
        values = binding.values(future)
    except P2PError as error:
        return f"Nothing was bound. {error}"
    imported = dict(_imported(binding.imports))
    push(imported | values)  # what the cell has set is set, whatever it imports
    if future._promise.failure:
        return ""
    words = []
    missing = [name for name in binding.asked if name not in values]
    if binding.every and missing:
        words.append(f"Not bound, because they can't be read here: {_few(missing)}. future[{missing[0]!r}] says why.")
    if gone := [each for each in binding.imports if each.name not in ("*", *imported, *values)]:
        modules = _few(dict.fromkeys(each.module for each in gone))
        words.append(
            f"Not bound, because {modules} can't be imported here as over there: {_few(each.name for each in gone)}. "
            "Install it here, or put its folder on this notebook's sys.path."
        )
    return " ".join(words)


def script_of(line: str) -> str:
    """Return the text of the file beside the notebook that ``%run`` with this line runs; "" for none."""
    words = [word for word in line.split() if not word.startswith("-")]
    path = Path(words[0]) if words else Path()
    if path.suffix != ".py" or path.is_absolute() or ".." in path.parts:
        return ""
    with suppress(OSError, ValueError), path.open(encoding="utf-8") as file:
        return file.read(_SCRIPT)
    return ""


def left_words(future: Future[Any]) -> str:
    """Say which files a task has left; "" for none."""
    words = future.files.words() if future.done() and not future.cancelled() else ""
    return f"left {words} (future.files)" if words else ""


def _imported(imports: Iterable[Import]) -> Iterator[tuple[str, Any]]:
    """Import what the cell imports, as far as it is there."""
    for name, module, attribute in imports:
        try:
            found = __import__(module, fromlist=[attribute] if attribute else [])
            if name == "*":
                public = getattr(found, "__all__", None) or [each for each in vars(found) if not each.startswith("_")]
                yield from ((each, getattr(found, each)) for each in public)
            else:
                yield name, getattr(found, attribute) if attribute else found
        except (ImportError, AttributeError):
            pass


def _few(names: Iterable[str]) -> str:
    shown = [plain(name, 40) for name in names]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
