"""A board's host key: made once and kept as a private file, or in memory only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import asyncssh

from p2p_ipython import private_files
from p2p_ipython.config import make_private
from p2p_ipython.errors import ConfigError

NAME = "board_host_key"
MAX_KEY = 1 << 16
"""Largest file of a key that is read, bytes; RSA keys of 16,384 bits have a fifth of it."""


def host_key(data: Path | None) -> asyncssh.SSHKey:
    """Load the host key in the folder ``data``, or make it there; None: make one that is kept nowhere.

    Raises ``ConfigError`` when the file isn't a private key, is a link, can be read by others, or can't be made.
    """
    if data is None:
        return _new()
    path = data / NAME
    try:
        make_private(data)
        text = private_files.read(path, MAX_KEY)
        if text is None:
            try:
                private_files.create(path, _new().export_private_key("openssh"))
            except FileExistsError:  # another board was quicker: its key is the one that counts
                pass
            text = private_files.read(path, MAX_KEY) or b""
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & 0o077:
            raise ConfigError(f"the host key {path} can be read by others", hint=f"Type: chmod 600 {path}")
        return asyncssh.import_private_key(text)
    except (OSError, asyncssh.KeyImportError) as error:
        raise ConfigError(
            f"the host key {path} is not usable: {error}",
            hint="Give another --data folder; or remove the file for a new key, which every member must accept anew.",
        ) from None


def _new() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")
