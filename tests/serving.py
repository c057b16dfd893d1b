"""A server of a test's own, of which nothing is left behind."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

# Connections that wait to be accepted: some tests make a thousand at once.
BACKLOG = 4096
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on a free port, and give it. In the end its connections are closed, their handlers over."""
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(handler(reader, writer))
        # Not in the task: one that is cancelled before its first step closes nothing.
        task.add_done_callback(lambda _: writer.close())
        connections[task] = writer

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, backlog=BACKLOG)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        # Whatever was accepted by then has its handler three turns of the loop later, at most.
        for _ in range(3):
            await asyncio.sleep(0)
        while connections:
            task, writer = connections.popitem()
            task.cancel()
            await asyncio.wait({task})
            with suppress(OSError):
                await writer.wait_closed()
