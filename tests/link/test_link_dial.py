"""Connections that a search for a peer begins, and gives up."""

from __future__ import annotations

import asyncio
import gc
import warnings

from p2p_ipython.link import dial
from p2p_ipython.link.transport import Connection


async def test_a_connection_that_is_given_up_as_it_is_made_is_closed() -> None:
    came: asyncio.Queue[None] = asyncio.Queue()

    def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.put_nowait(None)
        writer.close()

    async def greeting(_connection: Connection) -> None:
        await asyncio.Event().wait()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for turns in range(40):
            connecting = asyncio.create_task(dial._connect("127.0.0.1", port, greeting))
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            connecting.cancel()
            await asyncio.wait([connecting])
            del connecting
        gc.collect()  # what nobody has closed would be complained of
    server.close()
    await server.wait_closed()
