"""Errors as `application/problem+json` (RFC 9457), made in one place."""

from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException

from api.errors import InputTooLargeError, UnauthorizedError
from turnpool.errors import TurnpoolError
from turnpool.logs import get_logger
from turnpool.redis import is_away

log = get_logger(__name__)

STATUS = {
    "unauthorized": 401,
    "forbidden": 403,
    "session_not_found": 404,
    "turn_not_found": 404,
    "session_busy": 409,
    "session_exists": 409,
    "log_expired": 410,
    "input_too_large": 413,
    "bad_cursor": 400,
    "unknown_agent": 422,
    "idempotency_mismatch": 422,
    "idempotency_key_too_long": 422,
    "queue_full": 429,
    "session_full": 429,
    "turn_cancelled": 409,
    "turn_failed": 502,
    "turn_unfinished": 503,
    "draining": 503,
    "redis_away": 503,
    "redis_refuses": 503,
    "not_durable": 503,
}
# Seconds after which another try makes sense.
RETRY_AFTER = {429: "1", 503: "1"}


def problem(request: Request, status: int, code: str, detail: str, **more: Any) -> Response:
    """A problem document; `code` is for programs, `detail` says what to do."""
    body = {
        "type": "about:blank",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request.scope.get("request_id"),
        **more,
    }
    headers = {"Retry-After": RETRY_AFTER[status]} if status in RETRY_AFTER else {}
    if code == UnauthorizedError.code:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(body), status, headers, media_type="application/problem+json")


def add_handlers(app: FastAPI) -> None:
    """Every exception of a route becomes a problem document."""
    app.add_exception_handler(TurnpoolError, _turnpool)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for away in (RedisError, OSError):
        app.add_exception_handler(away, _redis)
    app.add_exception_handler(Exception, _unexpected)


async def answer_to(request: Request, error: Exception) -> Response:
    """What the application answers to a route's error. Raises it if it is not expected."""
    handlers = request.app.exception_handlers
    for kind in type(error).__mro__:
        if kind is not Exception and kind in handlers:
            answer: Response = await handlers[kind](request, error)
            return answer
    raise error


async def _turnpool(request: Request, error: Exception) -> Response:
    assert isinstance(error, TurnpoolError)  # noqa: S101 - registered for this class only
    more = {"turn_id": error.turn_id} if hasattr(error, "turn_id") else {}
    return problem(request, STATUS.get(error.code, 500), error.code, error.message, **more)


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
    errors = [{"at": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()[:20]]
    detail = f"{errors[0]['at']}: {errors[0]['message']}"
    return problem(request, 422, "invalid_request", detail, errors=errors)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
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


async def _redis(request: Request, error: Exception) -> Response:
    if not is_away(error):
        raise error
    log.warning("redis_away", error=str(error))
    return problem(request, 503, "redis_away", "The store does not answer; try again soon.")


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("request_failed", path=request.url.path, request_id=request.scope["request_id"], exc_info=error)
    return problem(request, 500, "internal_error", "Something went wrong here; the log has the request_id.")
