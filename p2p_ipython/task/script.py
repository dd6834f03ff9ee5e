"""A script, as a task: ``p2p run``. It runs as the program that it is at home, with arguments and an exit status.

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import sys

from p2p_ipython.task import sources


def run_script(source: str, name: str, arguments: list[str]) -> int:
    """Run a script in this task's ``__main__``; return its exit status. Raises what it raises."""
    sources.arrive(name, "", "", source.encode("utf-8", "surrogatepass"))
    sys.argv = [name, *arguments]
    namespace = vars(sys.modules["__main__"])
    namespace["__file__"] = name
    try:
        exec(compile(source, name, "exec", dont_inherit=True), namespace)  # noqa: S102 - what the task is for
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return int(end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)  # noqa: T201 - as Python does
        return 1
    return 0
