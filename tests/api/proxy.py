"""A way to Redis on which subscriptions can be held up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.serving import serving


class Proxy:
    """Passes all on; while `open` is not set, subscriptions to a session wait, and `held` says so."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
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
        back, forth = await asyncio.open_connection(self._target.hostname, self._target.port)
        ways = {asyncio.create_task(self._pass(reader, forth)), asyncio.create_task(self._pass(back, writer))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            forth.close()
            await forth.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if b"\nSSUBSCRIBE" in data and b"events:0:default:s" in data and not self.open.is_set():
                    self.held.set()
                    await self.open.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the other end was lost, which is what some tests are about


@asynccontextmanager
async def proxying(url: str) -> AsyncIterator[Proxy]:
    """A proxy to the server at this URL."""
    proxy = Proxy(url)
    async with serving(proxy.serve) as port:
        proxy.url = f"redis://127.0.0.1:{port}/0"
        yield proxy
