"""User ids for the runners of a worker that runs as root: each has one that nobody else has."""

from __future__ import annotations

import os
import secrets
import shutil

from p2p_ipython.sandbox.launch import LaunchOptions, Missing
from p2p_ipython.sandbox.mechanisms.install import install_with
from p2p_ipython.sandbox.scratch import STRANGERS


def stranger() -> int | None:
    """Return the user id, and group id, for one runner; None if we aren't root, who alone can give it one."""
    return any_stranger() if os.geteuid() == 0 else None


def any_stranger() -> int:
    """Return a user id, and group id, that nobody has."""
    return secrets.choice(STRANGERS)


def as_stranger(user: int | None, options: LaunchOptions | None = None) -> list[str]:
    """Return the words before a command that give up root for ``user``, and every capability; none for None.

    ``options``: what else its groups must open, which are graphics cards.
    """
    if user is None:
        return []
    groups = options.graphics.groups() if options is not None and options.graphics is not None else ()
    ids = [f"--reuid={user}", f"--regid={user}"]
    ids += [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
    none = ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    return [shutil.which("setpriv") or "setpriv", *ids, *none, "--"]


def root_lacks() -> Missing | None:
    """Return what keeps root from giving its runners other ids; None if nothing does, or we aren't root."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return Missing("setpriv is not installed, which root needs", install_with("util-linux"))
    return None
