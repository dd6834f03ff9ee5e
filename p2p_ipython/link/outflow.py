"""How an outbox's frames are written: small ones in batches and first, bulk as far as it leaves soon."""

from __future__ import annotations

from p2p_ipython.link.base import LANDING
from p2p_ipython.link.session import Outbox
from p2p_ipython.link.transport import Connection
from p2p_ipython.protocol.frames import Buffer

_BATCH = 256 << 10  # bytes of small frames in one write
_SMALL_HIGH = 4 << 20  # unsent bytes above which small frames wait, too
_TURN = 4 << 20  # bytes of bulk written before the loop gets its turn


def write_frames(outbox: Outbox, connection: Connection) -> bool:
    """Write the frames that may be written now; return whether more may be in the loop's next turn."""
    while outbox.small and outbox.is_open and connection.unsent < _SMALL_HIGH:
        connection.write(_batch(outbox))
    budget = _TURN
    if outbox.bulk:
        connection.look()
    while outbox.bulk and outbox.is_open and connection.has_room():
        if budget <= 0:
            return True
        frame = outbox.take(bulk=True, most=connection.limit)
        assert frame is not None
        connection.write([frame.head, frame.body])
        connection.look()
        budget -= frame.size
    return False


def _batch(outbox: Outbox) -> list[Buffer]:
    """Take small frames; return their bytes in as few pieces as makes sense."""
    pieces: list[Buffer] = []
    run: list[Buffer] = []
    size = 0
    while size < _BATCH and (frame := outbox.take(bulk=False)) is not None:
        run.append(frame.head)
        if len(frame.body) >= LANDING:
            pieces += b"".join(run), frame.body
            run.clear()
        elif frame.body:
            run.append(frame.body)
        size += frame.size
    if run:
        pieces.append(run[0] if len(run) == 1 else b"".join(run))
    return pieces
