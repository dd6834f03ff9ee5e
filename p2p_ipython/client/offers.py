"""What other libraries hear of this one, as soon as they are imported; it costs nothing before that.

joblib has no entry points. It knows a backend by the name that was registered, so "p2p" is registered here.
"""

from __future__ import annotations

from typing import Any

from p2p_ipython.task.on_import import Imports

_imports = Imports()


def offer() -> None:
    """Have joblib know the backend "p2p", now or once it is imported."""
    _imports.forget()
    _imports.call("joblib", _to_joblib)


def _to_joblib() -> None:
    import joblib  # it is there

    joblib.parallel.BACKENDS.setdefault("p2p", _backend)


def _backend(**options: Any) -> Any:
    from p2p_ipython.client.joblib_backend import P2PBackend  # heavy; it registers itself in this one's place

    return P2PBackend(**options)
