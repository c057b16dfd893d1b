"""The SSE response."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from sse_starlette import EventSourceResponse
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from turnpool.metrics import labelled
from turnpool_api import metrics
from turnpool_api.http.state import state_of

# Bytes of a piece that its client has to take before there is another. Tokens are smaller: for them the
# wait would be one more call each.
LARGE = 4096
# Seconds until a stream whose client has gone is cancelled again.
CANCEL_PAUSE = 0.1
# Those of every stream.
HEADERS: Final = tuple(EventSourceResponse(iter(())).raw_headers)


class FrameResponse(Response):
    """A stream of ready frames, with sse-starlette's headers.

    Its sending is our own: sse-starlette's takes a quarter of the process's time in a burst of streams.
    Frames need no encoding, pings are the stream's own, since it knows when it is silent, and
    `Relay.close` ends the streams on SIGTERM. What is left to watch for is the client's end.

    It is sent by `turnpool_api.http.requests`, once FastAPI is done with the request.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        headers: dict[str, str] | None = None,
        *,
        resumed: bool = False,
    ) -> None:
        labelled(metrics.OPENS, "resumed" if resumed else "first").inc()
        self.status_code = 200
        self.background = None
        self.raw_headers = [
            *HEADERS,
            *((name.lower().encode(), value.encode()) for name, value in (headers or {}).items()),
        ]
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave the stream to the middleware."""
        del receive, send
        state_of(scope).streams.append(self)

    async def send_all(self, receive: Receive, send: Send) -> None:
        """Send the answer, its start with the first frames, until they end or the client goes."""
        client = _Client()
        watch = asyncio.create_task(client.watch(receive))
        try:
            await self._send_frames(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            if not client.has_gone:
                raise
            client.uncancel()
        finally:
            watch.cancel()

    async def _send_frames(self, send: Send) -> None:
        started = False
        async with aclosing(self._frames):
            async for frames in self._frames:
                if not started:
                    started = True
                    await send(self._start())
                large = len(frames) > LARGE
                await send({"type": "http.response.body", "body": frames, "more_body": True})
                if large:
                    # Let go of it, and read no more before the client has taken it, or most of it.
                    del frames
                    await send({"type": "http.response.body", "body": b"", "more_body": True})

    async def send_head(self, send: Send) -> None:
        """Send the answer to HEAD: its start alone."""
        async with aclosing(self._frames):
            # Only a generator that has begun gives its subscription back.
            await anext(self._frames, None)
        await send(self._start())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _start(self) -> Message:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}


class _Client:
    """Cancels the task that has made it when the client has gone.

    What anyio's CancelScope does, at a fraction of its cost: a stream has one of these.
    """

    def __init__(self) -> None:
        stream = asyncio.current_task()
        assert stream  # noqa: S101 - a coroutine runs in one
        self.has_gone = False
        self._stream = stream
        self._cancels = 0

    async def watch(self, receive: Receive) -> None:
        """Wait for the connection's end, then cancel until that has an effect: redis-py can swallow one."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.has_gone = True
        while True:
            self._cancels += 1
            self._stream.cancel()
            await asyncio.sleep(CANCEL_PAUSE)

    def uncancel(self) -> None:
        """The cancellation has had its effect."""
        for _ in range(self._cancels):
            self._stream.uncancel()
