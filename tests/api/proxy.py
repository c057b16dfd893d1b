"""A way to Redis on which subscriptions can be held up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Proxy:
    """Passes all on; while `open` is not set, subscriptions to a session wait, and `held` says so."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._tasks: set[asyncio.Task[None]] = set()
        self.open = asyncio.Event()
        self.open.set()
        self.held = asyncio.Event()
        self.url = ""

    def hold(self) -> None:
        """Let no subscription pass from now on."""
        self.open.clear()
        self.held.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, both ways, until either end closes."""
        assert self._target.port is not None
        upstream = await asyncio.open_connection(self._target.hostname, self._target.port)
        ways = (self._pass(reader, upstream[1]), self._pass(upstream[0], writer))
        tasks = {asyncio.create_task(way) for way in ways}
        self._tasks |= tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        upstream[1].close()
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if b"\nSSUBSCRIBE" in data and b"events:s" in data and not self.open.is_set():
                    self.held.set()
                    await self.open.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the other end was lost, which is what some tests are about

    async def close(self) -> None:
        """End what still passes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxying(url: str) -> AsyncIterator[Proxy]:
    """A proxy to the server at this URL."""
    proxy = Proxy(url)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
