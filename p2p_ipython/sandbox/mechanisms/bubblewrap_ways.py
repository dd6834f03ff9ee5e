"""Two ways to a runner behind bwrap: without a network, and with the internet.

With the internet bwrap runs in a namespace of pasta's (see internet.py). pasta closes the descriptors that it inherits,
so the words for bwrap lie in files. Without a network they lie in memory, and bwrap tells which process is the first
one of the sandbox.

Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from p2p_ipython.sandbox.mechanisms import internet
from p2p_ipython.sandbox.mechanisms.shown import write_files
from p2p_ipython.sandbox.scratch import in_memory


class Unplugged:
    """No network. ``words`` are arguments of bwrap's, ``descriptors`` what it inherits; ``close`` closes them here."""

    def __init__(self) -> None:
        self._info, info = os.pipe()
        os.set_blocking(self._info, False)
        self._first = 0
        self.words = ["--unshare-net", "--info-fd", str(info)]
        self.descriptors: tuple[int, ...] = (info,)

    def etc(self) -> dict[str, Path]:
        """Return files to show in /etc besides the usual ones."""
        return {}

    def keep(self, name: str, data: bytes) -> int:
        """Return the descriptor, as bwrap sees it, at the beginning of a file without a place, which holds ``data``."""
        descriptor = in_memory(f"p2p-{name}", data)
        self.descriptors += (descriptor,)
        return descriptor

    def command(self, command: list[str]) -> list[str]:
        """Return what starts a command of bwrap's."""
        return command

    def first_process(self) -> int:
        """Return the id of the sandbox's first process, as this system sees it; 0 if there was none yet."""
        if not self._first:
            with contextlib.suppress(OSError, ValueError, KeyError):
                self._first = int(json.loads(os.read(self._info, 4096))["child-pid"])
        return self._first

    def close(self) -> None:
        """Close the descriptors. Idempotent."""
        descriptors, self.descriptors, self._info = (*self.descriptors, self._info), (), -1
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)


class Plugged:
    """The internet, by files in the runner's scratch folder. Its methods are those of ``Unplugged``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.words: list[str] = []  # the network's namespace is pasta's
        self.descriptors: tuple[int, ...] = ()

    def etc(self) -> dict[str, Path]:
        """Return the files by which names are resolved."""
        return write_files(
            self._folder,
            {
                "resolv.conf": f"nameserver {internet.resolver()}\n",
                "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
            },
        )

    def keep(self, name: str, data: bytes) -> int:
        """Write a file that ``internet.behind`` opens; return its descriptor there."""
        (self._folder / name).write_bytes(data)
        return internet.DESCRIPTORS[name]

    def command(self, command: list[str]) -> list[str]:
        """Return the command that starts one with the internet."""
        return internet.behind(self._folder, command)

    def first_process(self) -> int:
        """Return 0: in pasta's namespace the process has another number."""
        return 0

    def close(self) -> None:
        """Leave the files to the scratch folder's end."""
