"""One connection without a network: bytes in exactly these pieces, and what the application saw of them."""

import asyncio
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from turnpool.settings import Settings
from turnpool_api.http.connections import Connections
from turnpool_api.http.protocol import Protocol


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 80)})
        self.written = b""
        self.is_ended = self.is_closed = self.is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        assert not self.is_ended
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""

    def write_eof(self) -> None:
        """No more is written."""
        self.is_ended = True

    def close(self) -> None:
        """Nor read."""
        self.is_closed = True

    def abort(self) -> None:
        """As close."""
        self.is_closed = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.is_closed

    def pause_reading(self) -> None:
        """Until `resume_reading` nothing may come."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Bytes may come again."""
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        """Everything has been sent."""
        return 0


class Wire:
    """The server's end of a connection; `seen` are method, path and body of the requests it served."""

    def __init__(self, **changes: Any) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.answer_now = asyncio.Event()
        self.answer_now.set()
        self.begun = 0
        self.state = ServerState()
        settings = Settings(**changes)
        self.connections = Connections(settings)
        slot = self.connections.admit("192.0.2.1")
        assert slot
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self.protocol = Protocol(config, self.state, {}, self.connections, slot)
        self.transport = Transport()
        self.protocol.connection_made(self.transport)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        self.begun += 1
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        await self.answer_now.wait()
        self.seen.append((scope["method"], scope["path"], body))
        self.headers.append(dict(scope["headers"]))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def send(self, *pieces: bytes) -> None:
        """Send the pieces, each in a read of its own, as long as the connection is open."""
        for piece in pieces:
            while self.transport.is_paused and not self.transport.is_closed:
                await settle()
            if self.transport.is_closed:
                return
            self.protocol.data_received(piece)
            await settle()
        await settle()

    @property
    def is_open(self) -> bool:
        """Whether another request would be served."""
        return not (self.transport.is_closed or self.transport.is_ended)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(12):
        await asyncio.sleep(0)
