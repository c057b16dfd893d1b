"""HTTP on a bare socket: the chunks of an answer as they were written."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Raw:
    """An open GET of a chunked answer."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def chunk(self) -> bytes:
        """The next chunk, empty at the end."""
        size = int(await self._reader.readline(), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def chunks(self) -> AsyncIterator[bytes]:
        """All chunks to the end."""
        while chunk := await self.chunk():
            yield chunk


@asynccontextmanager
async def get(port: int, path: str, buffer: int = 0) -> AsyncIterator[Raw]:
    """Send a GET; the answer's head is read. `buffer`: bytes the kernel and we may keep unread."""
    plain = socket.socket()
    if buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    plain.settimeout(0)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=buffer or 2**16)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    try:
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        while (await reader.readline()).strip():
            pass
        yield Raw(reader)
    finally:
        writer.close()
