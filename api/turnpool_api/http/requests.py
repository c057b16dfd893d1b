"""The outermost middleware: request ids, figures, errors of the layers within, and streams."""

import secrets
import time

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnpool.errors import TurnpoolError
from turnpool.logs import get_logger
from turnpool.metrics import labelled
from turnpool_api import metrics
from turnpool_api.http.problems import answer_to_error
from turnpool_api.http.state import RequestState, combine, has_body

log = get_logger(__name__)

# Characters of a request id that a client may choose.
MAX_REQUEST_ID = 128
# Methods with a label of their own in the metrics: strangers choose the others.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Requests:
    """Gives each request its state, counts it, and sends its stream.

    A stream is sent here, once FastAPI is done with the request: what FastAPI and Starlette hold of one would
    otherwise be held as long as the stream, and each piece would pass through all of it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = combine(scope["headers"])
        method = scope["method"]
        if method == "HEAD":
            # A copy: the server reads the method from its own, and sends no body.
            scope = {**scope, "method": "GET"}
        state = RequestState(_request_id(headers), headers, has_body(headers))
        state.attach(scope)
        started = time.monotonic()

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", state.id.encode())]
                if state.is_body_pending:
                    # Bytes of a body that was refused must not be taken for the next request.
                    message["headers"].append((b"connection", b"close"))
                _count(scope, method, message["status"], time.monotonic() - started)
            await send(message)

        try:
            await self.app(scope, receive, counted_send)
        except TurnpoolError as error:
            # Of the layers within; those of routes are answered by FastAPI.
            await answer_to_error(Request(scope), error)(scope, receive, counted_send)
            return
        for stream in state.streams:
            try:
                if method == "HEAD":
                    await stream.send_head(counted_send)
                else:
                    await stream.send_all(receive, counted_send)
            except Exception:
                log.exception("request_failed", path=scope["path"], request_id=state.id)
                raise


def _request_id(headers: dict[str, str]) -> str:
    given = headers.get("x-request-id", "")
    if given.isprintable() and given.isascii() and 0 < len(given) <= MAX_REQUEST_ID:
        return given
    return secrets.token_hex(16)


def _count(scope: Scope, method: str, status: int, seconds: float) -> None:
    # The route's pattern, not the path: ids would make a label each.
    route = getattr(scope.get("route"), "path", "none")
    label = method if method in METHODS else "other"
    labelled(metrics.REQUESTS, label, route, str(status)).inc()
    labelled(metrics.LATENCY, label, route).observe(seconds)
