"""ASGI middleware: request ids, the limit on bodies, and the figures of each request."""

import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import metrics
from api.errors import InputTooLargeError
from api.problems import STATUS, problem

# Characters of a request id that a client may choose.
LONGEST_REQUEST_ID = 128


class RequestMiddleware:
    """Gives each request an id, refuses large bodies, counts."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
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

        if int(headers.get(b"content-length", b"0")) > self._max_body:
            await _too_large(scope, self._max_body)(scope, receive, counted_send)
            return
        await self._app(scope, self._limited(receive), counted_send)

    def _limited(self, receive: Receive) -> Receive:
        """For bodies that do not say their length."""
        size = 0

        async def limited() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body:
                # FastAPI passes only this kind of exception on from a body.
                raise HTTPException(413, InputTooLargeError(self._max_body).message)
            return message

        return limited


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    if given.isprintable() and given.isascii() and 0 < len(given) <= LONGEST_REQUEST_ID:
        return given
    return uuid.uuid4().hex


def _too_large(scope: Scope, limit: int) -> ASGIApp:
    error = InputTooLargeError(limit)
    return problem(Request(scope), STATUS[error.code], error.code, error.message)


def _count(scope: Scope, status: int, seconds: float) -> None:
    # The route's pattern, not the path: ids would make a label each.
    route = getattr(scope.get("route"), "path", "none")
    metrics.REQUESTS.labels(scope["method"], route, status).inc()
    metrics.LATENCY.labels(scope["method"], route).observe(seconds)
