"""The way to Redis, which can be cut, slowed and refused."""

import asyncio
from contextlib import suppress


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
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def cut(self) -> int:
        """Break all connections, whatever is on its way; gives how many."""
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        # Both ends of each are here.
        return len(writers) // 2

    async def close(self) -> None:
        """End."""
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._join(reader, writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        if self.refuses:
            writer.transport.abort()
            forth.transport.abort()
            return
        ends = {writer, forth}
        self._writers |= ends
        ways = {asyncio.create_task(self._pass(reader, forth)), asyncio.create_task(self._pass(back, writer))}
        try:
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
