"""The magic to lend this machine: ``%p2p_lend``.

The worker is a process of this kernel's (client/lending.py). A notice under the cell that started it shows its state
until it ends. Modules of the client are imported in functions: loading the extension must take milliseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError as MagicUsage
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments

from p2p_ipython.client.printing import DRAIN, printed
from p2p_ipython.config import parse_amount, parse_count, parse_duration, parse_size
from p2p_ipython.errors import NotConnected, UsageError, in_notebook
from p2p_ipython.loop import background
from p2p_ipython.notebook.connection import Notebook
from p2p_ipython.notebook.lines import Interrupted, options_of, say, unquoted

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.client.lending import Lender
    from p2p_ipython.client.lending_state import LendingState
    from p2p_ipython.notebook.notice import Notice


_LIMITS: dict[str, tuple[str, Callable[[str], float]]] = {
    "memory": ("task_memory", parse_size),
    "cpus": ("task_cpus", parse_amount),
    "disk": ("task_disk", parse_size),
    "processes": ("task_processes", parse_count),
    "task_time": ("task_time", parse_duration),
}
"""Options that set a limit: the setting, and what reads it."""


_ALWAYS = {"member": "member", "task": "same"}
"""What a yes may be for beside the one task: the answer's word (protocol/questions.py)."""


@magics_class
class LendingMagics(Magics):
    """Magics to lend this machine to clusters."""

    def __init__(self, shell: InteractiveShell, notebook: Notebook) -> None:
        super().__init__(shell, parent=shell)
        self._notebook = notebook

    def end(self) -> None:
        """Stop lending."""
        loaded: Any = sys.modules.get("p2p_ipython.client.lending")
        if loaded is not None:
            loaded.end()

    @magic_arguments()
    @argument("cluster", nargs="?", metavar="TITLE", help="as alice/friends (default: the cluster that is connected)")
    @argument(
        "--slots", type=int, metavar="N", help="tasks that may run at a time (default: 1, or as your policy says)"
    )
    @argument(
        "--for",
        dest="only",
        action="append",
        nargs="+",
        metavar="NAME",
        help="lend to these members only, by name or fingerprint (default: to all)",
    )
    @argument("--duration", metavar="TIME", help="stop after this long: 90s, 30m, 2h (default: with this kernel)")
    @argument("--tag", action="append", metavar="WORD", help="what the machine is good for, as gpu; repeatable")
    @argument("--memory", metavar="SIZE", help="memory that a task may use, as 2G (default: a share of the machine's)")
    @argument("--cpus", metavar="N", help="cores that a task may keep busy, also 0.5 (default: all)")
    @argument("--disk", metavar="SIZE", help="what a task may write, as 1G (default: 512M)")
    @argument("--processes", metavar="N", help="processes and threads that a task may have (default: 256)")
    @argument("--task-time", metavar="TIME", help="end a task after this long: 90s, 30m (default: never)")
    @argument(
        "--sandbox",
        default="",
        metavar="NAME",
        help="the sandbox that tasks run in (p2p sandbox lists them); process is no protection"
        " (default for friends: auto, the first that works here)",
    )
    @argument(
        "--mount",
        action="append",
        metavar="PATH[:ro|:rw]",
        help="share a folder or file with tasks, to read (ro, the default) or to write, too (rw: shared by all who are"
        " lent to); repeatable",
    )
    @argument("--network", action="store_true", help="give tasks the internet, but nothing of your own network")
    @argument("--gpu", action="store_true", help="give tasks this machine's graphics cards: each slot has its own")
    @argument(
        "--ask",
        action="store_true",
        help="ask me before each task of another member (by default, only those whom you know may have some)",
    )
    @argument("--name", help="the name that others see (default: this machine's name)")
    @argument("--pause", action="store_true", help="take no new tasks for now; running tasks continue")
    @argument("--resume", action="store_true", help="take tasks again")
    @argument("--stop", action="store_true", help="stop lending: running tasks get a minute to end; again: at once")
    @argument(
        "--welcome",
        nargs="*",
        metavar="NAME",
        help="know new members from now on, by name or fingerprint (default: all who are there)",
    )
    @argument("--yes", type=int, metavar="NUMBER", help="let the task of this question run")
    @argument("--no", type=int, metavar="NUMBER", help="refuse the task of this question")
    @argument(
        "--always",
        choices=sorted(_ALWAYS),
        help="with --yes: also all later tasks of this member, or this very task whenever it comes again",
    )
    @line_magic
    def p2p_lend(self, line: str) -> None:
        """Lend this machine to a cluster: a worker in the background runs tasks of its members.

        Your policy (`p2p lending policy` in a terminal) holds here, too: who, hours, only while idle, and more.
        Tasks of friends run in a sandbox, out of reach of your files, keys and network. The worker's state is shown
        under the cell. It ends with --stop, after --duration, or with this notebook's kernel. With --ask, questions
        appear there and in the panel, with a number: answer with --yes or --no; no answer in two minutes is no.
        --pause, --resume and --stop are for TITLE, or for everything that this notebook lends. While it lends, the
        magic without options shows the state.
        """
        given = options_of(self.p2p_lend, line)
        chosen = [command for command in ("pause", "resume", "stop") if given[command]]
        chosen += [answer for answer in ("yes", "no") if given[answer] is not None]
        if given["welcome"] is not None:
            chosen.append("welcome")
        if len(chosen) > 1:
            raise MagicUsage(f"--{chosen[0]} and --{chosen[1]} don't go together")
        if given["always"] and chosen != ["yes"]:
            raise MagicUsage("--always goes with --yes")
        if chosen and chosen[0] in ("yes", "no"):
            self._answer(given[chosen[0]], _ALWAYS.get(given["always"], "once") if chosen[0] == "yes" else "no")
        elif chosen == ["welcome"]:
            title, names = welcome(self._title_of(given["cluster"]), [unquoted(name) for name in given["welcome"]])
            say(f"You know {', '.join(names)} in {title}.")
        elif chosen:
            self._command(chosen[0], given["cluster"])
        else:
            self._lend(given)

    # -- inside --

    def _lend(self, given: dict[str, Any]) -> None:
        from p2p_ipython.client.lending import lender
        from p2p_ipython.notebook.notice import Notice

        # Without options the magic asks for the state.
        bare = given["slots"] in (None, 1) and not any(given[name] for name in _CONDITIONS)
        if bare and given["cluster"] is None and self._connected() is None and self._show():
            return
        where = self._where(given["cluster"])
        title = where if isinstance(where, str) else where.target
        if bare and self._show(title):
            return
        notice = Notice(self._notebook.output())
        notice.progress("starting a worker")
        try:
            state = lender().lend(
                where,
                slots=given["slots"],
                seconds=parse_duration(given["duration"]) if given["duration"] else None,
                name=given["name"],
                only=[unquoted(name) for names in given["only"] or () for name in names],
                tags=given["tag"] or (),
                sandbox=given["sandbox"],
                limits={
                    setting: read(given[name]) for name, (setting, read) in _LIMITS.items() if given[name] is not None
                },
                mounts=[unquoted(path) for path in given["mount"] or ()],
                network=given["network"],
                gpu=given["gpu"],
                ask=given["ask"],
            )
        except BaseException as error:
            notice.show("Not lent.", "")
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("this machine is not lent") from None
            raise
        _Line(lender(), state, notice).begin()

    def _show(self, title: str | None = None) -> bool:
        """Show what is lent to a cluster, None for any, and what the lender is asked. Returns whether anything is."""
        from p2p_ipython.client.lending import lender
        from p2p_ipython.client.lending_state import lending_text, question_text

        lent = [one for one in lender().states() if not one.is_over and _is_for(one, title)]
        for one in lent:
            say(in_notebook(lending_text(replace(one, question=None))))
            if one.question is not None:
                say(question_text(one))
        return bool(lent)

    def _answer(self, number: int, answer: str) -> None:
        from p2p_ipython.client.lending import lender

        question = lender().answer(number, answer)
        who = question.name or "a member"
        match answer:
            case "no":
                say(f"{question.label!r} of {who} does not run here.")
            case "once":
                say(f"{question.label!r} of {who} may run, once.")
            case "same":
                say(f"{question.label!r} of {who} may run, now and whenever it comes again.")
            case _:
                say(f"All tasks of {who} may run, as long as this machine is lent.")

    def _title_of(self, title: str | None) -> str:
        """Return the cluster that is meant: the one lent to, if it is one; else the one that is connected."""
        from p2p_ipython.client.lending import lender

        lent = [one.title for one in lender().states() if not one.is_over]
        if title is None and len(lent) == 1:
            return lent[0]
        where = self._where(title)
        return where if isinstance(where, str) else where.target or ""

    def _connected(self) -> Cluster | None:
        cluster = self._notebook.cluster
        return None if cluster is None or cluster.closed else cluster

    def _where(self, title: str | None) -> Cluster | str:
        """Return the cluster that is meant: the connected one, which knows its way, or another one's title."""
        cluster = self._connected()
        if title is not None and (cluster is None or title != cluster.target):
            return title
        if cluster is None:
            raise NotConnected("no cluster is connected", hint="Name the cluster to lend to: %p2p_lend alice/friends")
        return cluster

    def _command(self, command: str, title: str | None) -> None:
        from p2p_ipython.client.lending import lender
        from p2p_ipython.client.lending_state import HEEDS, lending_text

        lent = lender().states()
        meant = [one for one in lent if _is_for(one, title)]
        if not meant:
            what = "Nothing is lent by this notebook" if not lent else f"{title} is not lent to by this notebook"
            hint = f"Lent to: {', '.join(one.title for one in lent)}." if lent else "%p2p_lend TITLE lends."
            raise UsageError(what, hint=hint)
        if command != "stop":  # a worker that has ended doesn't keep the others from being paused
            meant = [one for one in meant if one.state in HEEDS] or meant
        for one in meant:
            state = getattr(lender(), command)(one.id)
            say(in_notebook(lending_text(replace(state, question=None)).partition("\n")[0]))


_CONDITIONS = ("only", "duration", "tag", "name", "sandbox", "mount", "network", "gpu", "ask", *_LIMITS)


def _is_for(state: LendingState, title: str | None) -> bool:
    return title is None or title in (state.title, state.title.partition("/")[2])


def welcome(title: str, who: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Say yes to members of a cluster, () for all who are there; return its title and their names.

    Raises ``UsageError`` for one that isn't there, ``ConfigError``.
    """
    from p2p_ipython.lending.known import KnownMembers
    from p2p_ipython.members.operations import find_title
    from p2p_ipython.members.profiles import Profiles
    from p2p_ipython.protocol.roster import Roster

    profiles = Profiles()
    profile = profiles.load(find_title(profiles, title))
    if not profile.roster:
        raise UsageError(f"the list of members of {profile.title} has not come yet", hint="Connect to it once.")
    return profile.title, KnownMembers().welcome(Roster.parse(profile.roster, profile.cluster), who)


class _Line:
    """The notice of a worker under the cell that started it. Belongs to the loop, but for ``begin``."""

    def __init__(self, lender: Lender, state: LendingState, notice: Notice) -> None:
        self._lender = lender
        self._state = state
        self._notice = notice
        self._unfollow = lambda: None

    def begin(self) -> None:
        """Show the worker's state, and keep it up to date."""

        background().run(self._begin(), timeout=10)
        printed.drain(DRAIN)  # in a terminal: before the next prompt

    async def _begin(self) -> None:
        self._show(news=True)
        self._unfollow = self._lender.follow(self._changed)
        self._changed()  # it may have changed before it was followed

    def _changed(self) -> None:
        before = self._state
        found = next((state for state in self._lender.states() if state.id == before.id), None)
        self._state = found or replace(before, state="ended", busy=0)
        if self._state.is_over:
            self._unfollow()
        if self._state != before:
            self._show(news=self._state.is_over, before=before)

    def _show(self, *, news: bool, before: LendingState | None = None) -> None:
        """Show the state. In a terminal, only its beginning, its end, and questions are worth an interruption."""
        from p2p_ipython.client.lending_state import lending_text, question_text

        text, question = in_notebook(lending_text(self._state)), self._state.question
        said = text if news else ""
        if question is not None and (before is None or question != before.question):
            said = question_text(self._state)
        self._notice.show(text, said)
