"""A board's host key: made once, kept with mode 0600, or in memory only."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import asyncssh

from p2p_ipython.config import make_private
from p2p_ipython.errors import ConfigError

NAME = "board_host_key"


def host_key(data: Path | None) -> asyncssh.SSHKey:
    """Load the host key in the folder ``data``, or make it there; None: make one that is kept nowhere.

    Raises ``ConfigError`` when the file isn't a private key, can be read by others, or can't be made.
    """
    if data is None:
        return asyncssh.generate_private_key("ssh-ed25519")
    path = data / NAME
    try:
        make_private(data)
        if not path.exists():
            _create(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & 0o077:
            raise ConfigError(f"the host key {path} can be read by others", hint=f"Type: chmod 600 {path}")
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise ConfigError(
            f"the host key {path} is not usable: {error}",
            hint="Give another --data folder; or remove the file for a new key, which every member must accept anew.",
        ) from None


def _create(path: Path) -> None:
    """Make the key such that the file is never there in part, and the first of two boards at once wins."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    handle, name = tempfile.mkstemp(prefix=f".{NAME}-", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(key.export_private_key("openssh"))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            pass
    finally:
        os.unlink(name)
