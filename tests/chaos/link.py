"""The way to Redis, which can be cut, slowed and refused."""

import asyncio
from contextlib import AsyncExitStack, suppress

from tests.serving import serving


class Link:
    """A TCP proxy. `delay`: seconds each piece waits, either way; `refuses`: new connections are closed.

    `waiting`: pieces that wait now. `fuse`: instead of passing a piece that has it, cut and refuse.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.delay = 0.0
        self.refuses = False
        self.waiting = 0
        self.fuse: bytes | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._stack = AsyncExitStack()
        self.url = ""

    async def open(self) -> None:
        """Listen on a free port."""
        port = await self._stack.enter_async_context(serving(self._serve))
        self.url = f"redis://127.0.0.1:{port}/0"

    def cut(self) -> int:
        """Break all connections, whatever is on its way; gives how many."""
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        # Both ends of each are here.
        return len(writers) // 2

    async def close(self) -> None:
        """End."""
        await self._stack.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ways = {asyncio.create_task(self._pass(reader, forth)), asyncio.create_task(self._pass(back, writer))}
        await self._join(ways, {writer, forth})

    async def _join(self, ways: set[asyncio.Task[None]], ends: set[asyncio.StreamWriter]) -> None:
        self._writers |= ends
        try:
            # It may refuse since this one came.
            if not self.refuses:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in ends:
                end.transport.abort()
            self._writers -= ends

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.delay:
                    self.waiting += 1
                    await asyncio.sleep(self.delay)
                    self.waiting -= 1
                if self.fuse and self.fuse in data:
                    self.refuses = True
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
