"""HTTP on a bare socket: the chunks of an answer as they were written."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


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


class Answer(NamedTuple):
    """Of one request; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """Of a problem document."""
        return str(json.loads(self.body)["code"])


class Connection:
    """An open connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send it now."""
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        """Send no more, but read on."""
        self._writer.write_eof()

    async def answer(self, seconds: float = 10) -> Answer:
        """The next answer whose length is told."""
        async with asyncio.timeout(seconds):
            status = int((await self._reader.readline()).split()[1])
            headers = {}
            while line := (await self._reader.readline()).strip():
                name, _, value = line.decode("latin-1").partition(": ")
                headers[name.lower()] = value
            return Answer(
                status, headers, await self._reader.readexactly(int(headers.get("content-length", "0")))
            )

    async def is_closed(self, seconds: float = 10) -> bool:
        """Whether the server ends it within the time, without another byte."""
        try:
            async with asyncio.timeout(seconds):
                return await self._reader.read(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    """A connection, on which nothing has been sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
