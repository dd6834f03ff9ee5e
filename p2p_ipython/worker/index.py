"""The lender's own index of packages: the variables of a worker's environment that say where it is.

uv's variables win over pip's. No task gets any of them: an address, or that of a proxy, may have a password in it. So a
worker takes them out of its environment in its first moment (hardening.py), and only uv gets them.

Standard library only.
"""

from __future__ import annotations

import os
import re

_UV = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX_STRATEGY"),
    *("UV_EXCLUDE_NEWER", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_INSECURE_HOST"),
)
_WAY = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
_OF_PIP = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_EXTRA_INDEX_URL", "UV_INDEX"),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS",),
}
"""pip's variables, each with that of uv which says the same, and others that win."""

_ALONE = "PIP_NO_INDEX"
_PLACES = ("UV_FIND_LINKS", "PIP_FIND_LINKS", "SSL_CERT_FILE", "SSL_CERT_DIR")

_remembered: dict[str, str] = {}


def remember() -> None:
    """Keep the variables that the environment is about to lose."""
    for name in (*_UV, *_WAY, *_OF_PIP, _ALONE):
        if (value := os.environ.get(name)) is not None:
            _remembered[name] = value


def _value(name: str) -> str | None:
    return os.environ.get(name, _remembered.get(name))


def index_variables() -> dict[str, str]:
    """Return the variables for uv."""
    env = {name: value for name in (*_UV, *_WAY) if (value := _value(name)) is not None}
    for theirs, ours in _OF_PIP.items():
        if (value := _value(theirs)) and not set(ours) & env.keys():
            env[ours[0]] = value
    return env


def without_index() -> bool:
    """Return whether packages come from the places that are named, and from no index; uv has no variable for it."""
    return (_value(_ALONE) or "").lower() not in ("", "0", "false", "no", "off")


def index_places() -> list[str]:
    """Return the places on this machine that the variables name."""
    words = [word for name in _PLACES for word in re.split(r"[\s:,]+", _value(name) or "")]
    return [os.path.realpath(word) for word in words if word.startswith("/") and not word.startswith("//")]
