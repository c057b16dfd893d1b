"""ASGI middleware: request ids, the limit on bodies, and the figures of each request."""

import asyncio
import contextlib
import secrets
import time

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import metrics
from api.errors import InputTooLargeError
from api.problems import STATUS, problem
from api.sse import STREAMS, FrameResponse
from turnpool.logs import get_logger

log = get_logger(__name__)

# Where in an ASGI scope the request's body is, whole.
BODY = "turnpool.body"
# Characters of a request id that a client may choose.
LONGEST_REQUEST_ID = 128
# Posts of turns under way at once, up to the start of their streams: enough to fill a pipeline to Redis.
SUBMITS_AT_ONCE = 64


class RequestMiddleware:
    """Gives each request an id, refuses large bodies, counts."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self.app = app
        self._max_body = max_body
        # On one event loop all of a burst would go in step, so that each gets its answer when all do.
        # So the first turns run while the last are still being read.
        self._gate = asyncio.Semaphore(SUBMITS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        scope["request_id"] = request_id
        started = time.monotonic()

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                _count(scope, message["status"], time.monotonic() - started)
            await send(message)

        scope[BODY] = await self._read(headers, receive)
        if scope[BODY] is None:
            await _too_large(scope, self._max_body)(scope, receive, counted_send)
            return
        for stream in await self._answer(scope, receive, counted_send):
            try:
                await stream.send_all(receive, counted_send)
            except Exception:
                log.exception("request_failed", path=scope["path"], request_id=request_id)
                raise

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> list[FrameResponse]:
        """Let FastAPI answer; gives the streams that are left to send, which need the body no more."""
        streams: list[FrameResponse] = []
        scope[STREAMS] = streams
        posts_turn = scope["method"] == "POST" and scope["path"].endswith("/turns")
        async with contextlib.AsyncExitStack() as place:
            if posts_turn:
                await place.enter_async_context(self._gate)

            async def send_outside(message: Message) -> None:
                # No client that reads slowly may hold a place, nor one that has no key.
                await place.aclose()
                await send(message)

            await self.app(scope, _again(scope[BODY], receive), send_outside)
        del scope[BODY]
        return streams

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """The whole body, or None if it is too large. No slow client may hold a place at the gate."""
        if int(headers.get(b"content-length", b"0")) > self._max_body:
            return None
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body:
                return None
        return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Receive the body as one message, then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    if given.isprintable() and given.isascii() and 0 < len(given) <= LONGEST_REQUEST_ID:
        return given
    return secrets.token_hex(16)


def _too_large(scope: Scope, limit: int) -> ASGIApp:
    error = InputTooLargeError(limit)
    return problem(Request(scope), STATUS[error.code], error.code, error.message)


def _count(scope: Scope, status: int, seconds: float) -> None:
    # The route's pattern, not the path: ids would make a label each.
    route = getattr(scope.get("route"), "path", "none")
    metrics.REQUESTS.labels(scope["method"], route, status).inc()
    metrics.LATENCY.labels(scope["method"], route).observe(seconds)
