"""The ``__main__`` of the code of a task: its namespace, as a module.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from types import ModuleType
from typing import Any


class _Main(ModuleType):
    """What stands for ``__main__`` while a task runs; its ``__dict__`` is the task's namespace.

    A module can't be given a dict, and functions need this very one as their globals. So its own stays empty.
    """

    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__("__main__")
        object.__setattr__(self, "_namespace", namespace)

    def __getattribute__(self, name: str) -> Any:
        namespace = object.__getattribute__(self, "_namespace")
        if name == "__dict__":
            return namespace
        if name in namespace:
            return namespace[name]
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise AttributeError(f"module '__main__' has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        object.__getattribute__(self, "_namespace")[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del object.__getattribute__(self, "_namespace")[name]
        except KeyError:
            raise AttributeError(name) from None

    def __reduce__(self) -> Any:
        return importlib.import_module, ("__main__",)


def enter_main(namespace: dict[str, Any]) -> None:
    """Make ``namespace`` the ``__main__`` of this process."""
    namespace.setdefault("__name__", "__main__")
    namespace.setdefault("__doc__", None)
    namespace.setdefault("__spec__", None)
    namespace.setdefault("__builtins__", builtins)
    sys.modules["__main__"] = _Main(namespace)
