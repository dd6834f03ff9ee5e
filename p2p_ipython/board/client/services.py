"""Where a board's own mailbox and relay are, as this end reaches them. Pure.

A board knows the address of its machine. Behind a router or in a container nobody else reaches that one. So members use
the host that they have dialled, and where the board serves all on one port, the port that they have dialled as well.
A board that was started with ``--advertise`` names what is to be used, and says so.
"""

from __future__ import annotations

import json
import re

from p2p_ipython.board.client.address import Route

_MAILBOX = re.compile(r"wss?://[^\s]{1,250}")
_RELAY = re.compile(r"tcp:[^\s]{1,250}:\d{1,5}")
_PLACE = re.compile(r"(?P<scheme>wss?://|tcp:)(\[[^\]]*\]|[^:/]*)(:(?P<port>\d+))?(?P<path>/.*)?")


def parse_services(answer: str, way: Route | None) -> dict[str, str] | None:
    """Read the answer to ``p2p``: the ``mailbox`` and the ``relay``, None if the board has none of its own.

    ``way`` is where the board was dialled; None, or one through jump hosts: nothing of it helps.
    """
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    mailbox, relay = found.get("mailbox"), found.get("relay")
    if not isinstance(mailbox, str) or not _MAILBOX.fullmatch(mailbox):
        return None
    if not isinstance(relay, str) or not _RELAY.fullmatch(relay):
        return None
    if way is not None and not way.jumps and found.get("advertised") is not True:
        mailbox, relay = (_as_dialled(each, found.get("port"), way) for each in (mailbox, relay))
    return {"mailbox": mailbox, "relay": relay}


def _as_dialled(url: str, port: object, way: Route) -> str:
    """Return a URL with the host that was dialled. ``port`` is where the board has its SSH, as the board sees it."""
    parts = _PLACE.fullmatch(url)
    if parts is None:
        return url
    at = parts["port"]
    if at is not None and at == str(port):
        at = str(way.port)
    host = f"[{way.host}]" if ":" in way.host else way.host
    return f"{parts['scheme']}{host}{f':{at}' if at else ''}{parts['path'] or ''}"
