"""Open files stay where they are open."""

from __future__ import annotations

import io
import sys

FILES = (io.TextIOWrapper, io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom)


def refuse_open_file(value: object) -> None:
    """Raise ``TypeError`` for an open file. cloudpickle would send a copy of what the file holds."""
    standard = value is sys.stdout or value is sys.stderr  # on the worker they are its own
    if isinstance(value, FILES) and not standard:
        raise TypeError("it is an open file" if not value.closed else "it is a file that was closed")
