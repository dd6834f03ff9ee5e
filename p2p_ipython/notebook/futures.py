"""``%p2p_futures`` and ``%p2p_pull``: the futures of this notebook, and the names that their cells have bound.

They wait only if they are asked to, and the kernel's interrupt ends that.
"""

from __future__ import annotations

import concurrent.futures
import difflib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError as MagicUsage
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments
from IPython.display import publish_display_data

from p2p_ipython.client import future as _future
from p2p_ipython.client.lazy import WORDS
from p2p_ipython.config import parse_duration
from p2p_ipython.notebook.interrupts import goes_on
from p2p_ipython.notebook.lines import Interrupted, parsed_line, say, separated, unquoted
from p2p_ipython.notebook.output import table
from p2p_ipython.protocol.plain import count, plain

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from p2p_ipython.client.future import Future
    from p2p_ipython.client.sweep import Sweep
    from p2p_ipython.notebook.connection import Notebook

MOST = 50
"""Futures that the table lists, at most."""

STEP = 0.5
"""Seconds of one wait: on Windows an endless one can't be interrupted."""


def until_over(futures: Sequence[Future[Any]], end: float | None = None) -> bool:
    """Wait until all are over; return False if they aren't at ``end``, of ``time.monotonic``."""
    left = set(futures)
    while left := {future for future in left if not future.done()}:
        step = STEP if end is None else min(STEP, end - time.monotonic())
        if step <= 0:
            return False
        concurrent.futures.wait(left, timeout=step)
    return True


def named_futures(namespace: dict[str, Any]) -> dict[str, Future[Any]]:
    """Return the futures that have a name in a notebook, also those in lists: ``tiles[3]``; but none with "_" first."""
    from p2p_ipython.client.sweep import Sweep  # heavy

    found: dict[str, Future[Any]] = {}
    for name, value in list(namespace.items()):
        if name.startswith("_"):
            continue
        if isinstance(value, _future.Future):
            found[name] = value
        elif isinstance(value, list | tuple | Sweep):
            each = enumerate(value)
            found |= {f"{name}[{number}]": one for number, one in each if isinstance(one, _future.Future)}
    return found


@magics_class
class FuturesMagics(Magics):
    """Magics for the futures of a notebook."""

    def __init__(self, shell: InteractiveShell, notebook: Notebook) -> None:
        super().__init__(shell)
        self._ip = shell
        self._notebook = notebook

    def end(self) -> None:
        """Do nothing: the futures are the cluster's."""

    @magic_arguments()
    @argument("names", nargs="*", help="futures, by their names here: tile model, or tile,model (default: all)")
    @argument("--cancel", action="store_true", help="cancel these; all of them only as --cancel all")
    @argument("--wait", action="store_true", help="wait until these are over")
    @argument("--timeout", metavar="TIME", help="with --wait: for so long at most, as 90s or 5m")
    @line_magic
    def p2p_futures(self, line: str) -> None:
        """List this notebook's futures: their names, labels, states, workers and times.

        A sweep has one line; ``%p2p_futures scores`` lists those in it.
        ``%p2p_futures --cancel tile`` withdraws that task, ``%p2p_futures --cancel all`` each that isn't over.
        ``%p2p_futures --wait --timeout 5m`` waits for all but the lazy ones, ``%p2p_futures --wait tile`` for one; an
        interrupt ends the wait, and the tasks go on.
        """
        options = parsed_line(self.p2p_futures, line)
        names = separated(options.names)
        if options.timeout and not options.wait:
            raise MagicUsage("--timeout goes with --wait")
        end = time.monotonic() + parse_duration(unquoted(options.timeout)) if options.timeout else None
        if options.cancel:
            if options.wait or not names:
                raise MagicUsage("%p2p_futures --cancel wants names of futures, or all")
            self._cancel(self._unfinished(lazy=True) if names == ["all"] else list(self._chosen(names).values()))
            return
        if options.wait:
            asked = list(self._chosen(names).values()) if names else self._unfinished(lazy=False)
            try:
                over = until_over(asked, end)
            except KeyboardInterrupt:
                raise Interrupted("the tasks go on") from None
            if not over:
                left = sum(not future.done() for future in asked)
                say(f"{left} of {count(len(asked), 'task')} are not over yet.")
        if names:
            self._show(self._chosen(names))
        else:
            self._show(self._all(), self._sweeps())

    @magic_arguments()
    @argument("names", nargs="*", help="names that a cell on the cluster has bound: score model, or score,model")
    @line_magic
    def p2p_pull(self, line: str) -> None:
        """Bind names here that a cell on the cluster has bound: ``%p2p_pull score,model``, of the last cell.

        ``%p2p_pull score from tile`` names the future of another cell. It waits until that is over.
        """
        words = [part for word in line.split() for part in word.split(",") if part]
        future = self._ip.user_ns.get("_p2p")
        if len(words) > 2 and words[-2] == "from":
            future = self._ip.user_ns.get(words[-1])
            words = words[:-2]
        if not words or not all(map(str.isidentifier, words)):
            raise MagicUsage("%p2p_pull wants names: %p2p_pull score,model or %p2p_pull score from FUTURE")
        if not isinstance(future, _future.Future):
            raise MagicUsage("%p2p_pull wants the future of a cell: run one with %%p2p, or say from FUTURE")
        try:
            until_over([future])
        except KeyboardInterrupt:
            raise goes_on(future) or Interrupted("the task was over already") from None
        self._ip.push({name: future[name] for name in words})

    def names(self) -> list[str]:
        """Return the names of the notebook's futures."""
        return list(named_futures(self._ip.user_ns))

    # -- inside --

    def _all(self) -> dict[str, Future[Any]]:
        """Return the notebook's futures by name, and under names that nobody shows those that have none."""
        found = named_futures(self._ip.user_ns)
        known = set(map(id, found.values()))
        return found | {f"\0{one.task_id}": one for one in self._clusters() if id(one) not in known and not one.done()}

    def _clusters(self) -> Iterator[Future[Any]]:
        cluster = self._notebook.cluster
        return iter(cluster._core.submitted.futures() if cluster is not None else ())

    def _unfinished(self, *, lazy: bool) -> list[Future[Any]]:
        return [one for one in self._all().values() if not one.done() and (lazy or one.state_text != WORDS)]

    def _chosen(self, names: Iterable[str]) -> dict[str, Future[Any]]:
        """Return futures by name; a list's name means all that are in it. Raises IPython's ``UsageError``."""
        known = named_futures(self._ip.user_ns)
        chosen: dict[str, Future[Any]] = {}
        for name in names:
            found = {each: one for each, one in known.items() if each == name or each.startswith(f"{name}[")}
            if not found and isinstance(one := self._ip.user_ns.get(name), _future.Future):  # as _p2p
                found = {name: one}
            if not found:
                like = difflib.get_close_matches(name, known, 1)
                raise MagicUsage(f"{name!r} is no future here{f' (did you mean {like[0]}?)' if like else ''}")
            chosen |= found
        return chosen

    def _cancel(self, futures: Sequence[Future[Any]]) -> None:
        each = {id(one): one for one in futures if not (one.done() or one._promise.cancelled())}
        cancelled = sum(future.cancel() for future in each.values())
        nothing = "Nothing to cancel: they are over, or being stopped."
        say(f"{count(cancelled, 'task')} cancelled." if cancelled else nothing)

    def _sweeps(self) -> dict[str, Sweep]:
        from p2p_ipython.client.sweep import Sweep

        named = list(self._ip.user_ns.items())
        return {name: value for name, value in named if isinstance(value, Sweep) and not name.startswith("_")}

    def _show(self, futures: dict[str, Future[Any]], sweeps: Mapping[str, Sweep] = MappingProxyType({})) -> None:
        if not futures:
            say("There are no futures here. %%p2p NAME on top of a cell makes one.")
            return
        lines = [(name, plain(each.label, 80), each.group.standing.words, "", "") for name, each in sweeps.items()]
        single = [(name, one) for name, one in futures.items() if name.partition("[")[0] not in sweeps]
        rows = [*lines, *(self._row(name, future) for name, future in single[: max(0, MOST - len(lines))])]
        over = sum(future.done() for future in futures.values())
        failed = sum(future._promise.failure for future in futures.values())
        caption = f"{over} of {count(len(futures), 'future')} over" + (
            f", {failed} failed or cancelled" if failed else ""
        )
        if len(rows) < len(lines) + len(single):
            caption += f"; the first {len(rows)} are shown"
        publish_display_data(table(("name", "label", "state", "worker", "time"), rows, f"{caption}."))

    def _row(self, name: str, future: Future[Any]) -> tuple[str, ...]:
        cluster = self._notebook.cluster
        entry = cluster._core.record.entries.get(future.task_id) if cluster is not None else None
        seconds = (entry.ended or time.time()) - entry.submitted if entry is not None else None
        worker = future.worker or (entry.worker if entry is not None else "")
        shown = "" if name.startswith("\0") else name
        took = "" if seconds is None else f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
        return shown, plain(future.label, 80), plain(future.state_text, 200), plain(worker, 80), took
