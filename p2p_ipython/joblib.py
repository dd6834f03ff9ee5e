"""Import this to have joblib know the backend "p2p"; ``connect()`` and ``%load_ext p2p_ipython`` do that themselves.

::

    import p2p_ipython.joblib

    with p2p_ipython.connect(), joblib.parallel_config("p2p"):
        search.fit(X, y)
"""

from __future__ import annotations

from p2p_ipython.client.joblib_backend import P2PBackend

__all__ = ["P2PBackend"]
