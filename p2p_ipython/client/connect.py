"""``connect()``: what the user says of a cluster, checked; a ``Cluster`` that has been joined comes out."""

from __future__ import annotations

import getpass
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

from p2p_ipython.client import views as views_module
from p2p_ipython.client.aside import Aside
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.core import ClusterCore
from p2p_ipython.client.offers import offer
from p2p_ipython.client.printing import DRAIN
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError, UsageError
from p2p_ipython.members.way import Way
from p2p_ipython.sandbox.launch import CHOICES
from p2p_ipython.task.running import in_task

log = logging.getLogger(__name__)

LOCAL, INLINE = "local", "inline"
"""Targets on this machine: a personal cluster, and this process. A board of such a name has its port behind it."""

PERSONAL = "personal"
"""Name of the cluster where none is given."""


def connect(
    target: str | None = None,
    *,
    cluster: str | None = None,
    workers: int | None = None,
    name: str | None = None,
    identity: str | os.PathLike[str] | None = None,
    accept_host_key: str | None = None,
    mailbox: str | None = None,
    relay: str | None = None,
    ssh_options: Sequence[str] = (),
    board: str | None = None,
    owner: str | None = None,
    sandboxed: bool = False,
    sandbox: str = "",
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> Cluster:
    """Join a cluster; returns once its board is joined (workers come by themselves, in moments).

    Without ``target`` a personal cluster is started on this machine: a board and ``workers`` worker processes
    (default: one a core), on loopback, no account and no key needed. They end with the cluster or with this
    process, whatever comes first.

    ``target`` is the title of a cluster of friends, ``"alice/friends"``, that this user has joined (``p2p join CODE``).
    Without having joined it knocks: the owner is asked, on the ``board`` (default: pico's), and must have the key
    ``owner``, a fingerprint.

    Or ``target`` is the ``HOST[:PORT]`` of a board that runs elsewhere; ``cluster`` names the personal cluster on it
    (default "personal"): everyone who holds the same SSH key is in it. ``identity`` is that key's file (default: as ssh
    would choose, one only); ``accept_host_key`` the fingerprint of the board's host key, once. ``mailbox`` (a
    websocket URL) and ``relay`` (``tcp:HOST:PORT``) are for boards that carry none of their own, as pico's, where one
    doesn't want the public ones. ``ssh_options`` are as ssh has them: ``["-J HOST"]``.

    ``sandbox``: what tasks of a personal cluster on this machine run in: "auto" for the first sandbox that works here,
    or one's name (p2p sandbox lists them); "" for none. They see this folder, but for dot files and environments.
    ``sandboxed``: tasks go to no worker that would run them without a sandbox, as a worker of your own key usually
    does. ``name`` is what others see; ``progress`` is called with a few words at each step; the other keywords are
    settings, see config.py.

    ``target`` "inline": tasks run in this process, each at once in the thread that submits it, so that a debugger sees
    them. "local" is what no ``target`` is. In a task any target gives the task's own process, one slot, inline.

    Raises a ``BoardError`` that says what to do, ``ConfigError``, ``NotAdmitted``, or ``UsageError``.
    """
    target = None if target == LOCAL else target
    if in_task() or target == INLINE:
        return _inline(
            target, name=name or _user(), progress=progress, given=workers or sandbox or sandboxed, **settings
        )
    if target is None and any(given is not None for given in (identity, accept_host_key, mailbox, relay)):
        raise UsageError(
            "identity, accept_host_key, mailbox and relay are for a board that runs elsewhere",
            hint="Say which: HOST[:PORT].",
        )
    if sandbox and sandbox not in CHOICES:
        raise ConfigError(f"there is no sandbox called {sandbox!r}", hint=f"Choose one of: {', '.join(CHOICES)}.")
    if target is not None and sandbox:
        raise UsageError(
            "--sandbox is for a personal cluster on this machine; workers elsewhere have their own",
            hint="--sandboxed sends tasks to no worker that has no sandbox.",
        )
    if target is None and sandboxed:
        raise UsageError(
            "the workers of a personal cluster on this machine run your own tasks, and have no sandbox",
            hint="--sandbox auto gives them one. --sandboxed is for friends (alice/friends), or for a board elsewhere.",
        )
    if target is None and cluster is not None:
        raise UsageError(
            f"the cluster {cluster!r} is on a board, and no board was named",
            hint="Give its address, HOST[:PORT], or leave the cluster's name out for a personal one on this machine.",
        )
    shared = target is not None and "/" in target
    if shared and cluster is not None:
        raise UsageError(
            f"{target} is the title of a shared cluster, and --cluster names another",
            hint="Leave --cluster out; or give a board's address, HOST[:PORT].",
        )
    if not shared and (board is not None or owner is not None):
        raise UsageError(
            "board and owner are for knocking at a shared cluster",
            hint="Give its title: connect('alice/friends', board='HOST'). For a personal one, the board comes first.",
        )
    if target is None and sys.platform == "win32":
        raise UsageError(
            "workers don't run on Windows itself, so there can be no personal cluster on this machine",
            hint="Use WSL, or join a board that runs elsewhere: connect('HOST[:PORT]').",
        )
    if target is not None and workers is not None:
        raise UsageError(
            "--workers is for a personal cluster on this machine",
            hint=f"On a board that runs elsewhere, start workers with: p2p worker --board {target}",
        )
    if workers is not None and not 1 <= workers <= 256:
        raise ConfigError(f"--workers is {workers}", hint="Give a number from 1 to 256.")
    words = Aside("p2p-progress")
    core = ClusterCore(
        target,
        cluster=cluster or PERSONAL,
        workers=workers or cores(),
        name=name or _user(),
        way=Way(
            board=board or "",
            identity=Path(identity).expanduser() if identity is not None else None,
            pin=accept_host_key,
            mailbox=mailbox or "",
            relay=relay or "",
            ssh_options=tuple(ssh_options),
            owner=owner or "",
        ),
        progress=_aside(progress, words) if progress is not None else lambda _text: None,
        settings=Settings.load(**settings),
        sandboxed=sandboxed,
        sandbox=sandbox,
    )
    made = Cluster(core)
    _tell(made)
    offer()
    try:
        made._open()
    finally:
        words.drain(DRAIN)
    _tell(made)
    return made


def _inline(
    target: str | None, *, name: str, progress: Callable[[str], None] | None, given: object, **settings: Any
) -> Cluster:
    """Return a cluster of this process; say so if it is one of a task. ``given``: options that it can't have."""
    from p2p_ipython.client.inline.cluster import NESTED, inline

    progress = progress or (lambda _text: None)
    if in_task():
        task = sys.modules["__main__"]  # each has its own
        if _told.get(NESTED) is not task:
            _told[NESTED] = task
            sys.stderr.write(f"[{NESTED}]\n")
    elif given:
        raise UsageError(
            "inline has no workers and no sandbox: tasks run in this process",
            hint="Leave --workers and --sandbox out; or leave inline out, for a personal cluster on this machine.",
        )
    made = inline(name=name, settings=Settings.load(**settings), progress=progress)
    _tell(made)
    return made


_told: WeakValueDictionary[str, ModuleType] = WeakValueDictionary()
"""What the task that runs was told."""


def _aside(progress: Callable[[str], None], words: Aside) -> Callable[[str], None]:
    """``progress`` is the user's and may block: call it aside from the loop."""

    def call(text: str) -> None:
        try:
            progress(text)
        except Exception:
            log.exception("progress could not be shown")

    return lambda text: words.call(partial(call, text))


def _tell(made: Cluster) -> None:
    for tell in list(views_module.opened):
        try:
            tell(made)
        except Exception:  # a view must not keep users from their cluster
            log.exception("could not tell of a new cluster")


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _user() -> str:
    """Return this user's name, as a board would have it (letters and digits)."""

    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = ""
    return "".join(c for c in name if c.isascii() and c.isalnum())[:50].lower() or "me"
