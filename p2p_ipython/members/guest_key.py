"""The SSH key by which a guest joins: the one that is there, or a new one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from p2p_ipython import private_files
from p2p_ipython.board.client.address import SSHFiles
from p2p_ipython.board.client.keys import KeyChoice, choose_among
from p2p_ipython.board.client.new_key import new_ed25519
from p2p_ipython.board.client.passphrase import user_prompt
from p2p_ipython.errors import ConfigError
from p2p_ipython.members.operations import my_name


def key_of_guest(identity: Path | None, stop: threading.Event | None = None) -> KeyChoice:
    """Choose the key by which to join, and ask for its passphrase if it has one. Blocks. Raises ``NoKey``.

    ``stop`` ends the question.
    """
    return choose_among(SSHFiles.default(), identity=identity, passphrase=user_prompt(stop or threading.Event()))


def place_for_key(identity: Path | None) -> Path | None:
    """Return the file for a new key: ``identity``, or the usual one; None if something is there already."""
    path = identity or SSHFiles.default().folder / "id_ed25519"
    return None if any(os.path.lexists(file) for file in (path, _public(path))) else path


def make_key(path: Path) -> KeyChoice:
    """Make an ed25519 key without a passphrase, mode 0600, with its ``.pub``. Raises ``ConfigError``."""
    private, public = new_ed25519()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_files.create(path, private.encode())
        private_files.create(_public(path), f"{public} {my_name()}\n".encode(), mode=0o644)
    except OSError as error:
        raise ConfigError(
            f"{path} can't be made: {error.strerror}", hint="Make a key by hand: ssh-keygen -t ed25519"
        ) from None
    return choose_among(SSHFiles.default(), identity=path)


def _public(path: Path) -> Path:
    return path.with_name(path.name + ".pub")
