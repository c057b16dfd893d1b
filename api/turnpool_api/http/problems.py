"""Errors as `application/problem+json` (RFC 9457), made in one place."""

from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from turnpool.errors import StoreAwayError, TurnpoolError
from turnpool.logs import get_logger
from turnpool_api.http.errors import InputTooLargeError, UnauthorizedError, UnsupportedEncodingError
from turnpool_api.http.retry_after import shortly

log = get_logger(__name__)

STATUS = {
    "unauthorized": 401,
    "forbidden": 403,
    "host_not_allowed": 403,
    "cross_site": 403,
    "session_not_found": 404,
    "turn_not_found": 404,
    "session_busy": 409,
    "session_exists": 409,
    "log_expired": 410,
    "input_too_large": 413,
    "bad_cursor": 400,
    "request_timeout": 408,
    "unsupported_encoding": 415,
    "unknown_agent": 422,
    "idempotency_mismatch": 422,
    "idempotency_key_too_long": 422,
    "queue_full": 429,
    "session_full": 429,
    "turn_cancelled": 409,
    "turn_failed": 502,
    "turn_unfinished": 503,
    "draining": 503,
    "overloaded": 503,
    "method_not_implemented": 501,
    "redis_away": 503,
    "redis_refuses": 503,
    "not_durable": 503,
}
# Answers that another try may change.
TRY_AGAIN = {429, 503}
# Headers that go with a code.
HEADERS = {
    UnauthorizedError.code: {"WWW-Authenticate": "Bearer"},
    UnsupportedEncodingError.code: {"Accept-Encoding": "identity"},
}
# Characters of a name that the client chose, in an error.
MAX_NAME = 200


def problem(
    request: Request, status: int, code: str, detail: str, *, retry_after: int | None = None, **more: Any
) -> Response:
    """A problem document; `code` is for programs, `detail` says what to do.

    `retry_after`: seconds until another try makes sense, if that is known.
    """
    body = {
        "type": "about:blank",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request.scope.get("request_id"),
        **more,
    }
    headers = {"Retry-After": str(retry_after or shortly())} if status in TRY_AGAIN else {}
    headers |= HEADERS.get(code, {})
    return Response(orjson.dumps(body), status, headers, media_type="application/problem+json")


def add_handlers(app: FastAPI) -> None:
    """Every exception of a route becomes a problem document."""
    app.add_exception_handler(TurnpoolError, _turnpool)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def answer_to(request: Request, error: Exception) -> Response:
    """What the application answers to a route's error."""
    handlers = request.app.exception_handlers
    handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    answer: Response = await handler(request, error)
    return answer


async def _turnpool(request: Request, error: Exception) -> Response:
    assert isinstance(error, TurnpoolError)  # noqa: S101 - registered for this class only
    return answer_to_error(request, error)


def answer_to_error(request: Request, error: TurnpoolError) -> Response:
    """The problem document of an error of ours."""
    more = {"turn_id": error.turn_id} if hasattr(error, "turn_id") else {}
    if isinstance(error, StoreAwayError):
        log.warning("redis_away", error=error.reason)
    status = STATUS.get(error.code, 500)
    if status in TRY_AGAIN:
        more["retry_after"] = request.app.state.context.retry_after.seconds(error)
    answer = problem(request, status, error.code, error.public, **more)
    if location := getattr(error, "location", None):
        answer.headers["Location"] = location
    return answer


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    first = error.errors()[0]
    if first["loc"] == ("body",) and not _is_json(request):
        return problem(
            request, 415, "unsupported_media_type", "Send JSON with Content-Type: application/json."
        )
    if first["type"] == "json_invalid":
        reason = (first.get("ctx") or {}).get("error", "")
        return problem(request, 400, "bad_json", f"The body is not JSON: {reason}.")
    errors = [
        {"at": ".".join(map(str, e["loc"]))[:MAX_NAME], "message": e["msg"]} for e in error.errors()[:20]
    ]
    detail = f"{errors[0]['at']}: {errors[0]['message']}"
    return problem(request, 422, "invalid_request", detail, errors=errors)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    # 400 is FastAPI's for a body that is no UTF-8, or nested too deep.
    code = {400: "bad_json", 404: "not_found", 405: "method_not_allowed", 413: "input_too_large"}.get(
        error.status_code, "http_error"
    )
    detail = (
        error.detail
        if code == InputTooLargeError.code
        else f"{request.method} {request.url.path}: {error.detail}."
    )
    answer = problem(request, error.status_code, code, detail)
    answer.headers.update(error.headers or {})
    return answer


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("request_failed", path=request.url.path, request_id=request.scope["request_id"], exc_info=error)
    return problem(request, 500, "internal_error", "Something went wrong here; the log has the request_id.")
