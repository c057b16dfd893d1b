"""What can be refused before the body is read: methods, missing keys, encodings."""

from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from turnpool_api.http.credentials import bearer_key, tenant_with
from turnpool_api.http.errors import MethodNotImplementedError, UnsupportedEncodingError
from turnpool_api.http.requests import METHODS
from turnpool_api.http.state import state_of

# They need no tenant's key, and no body of theirs is read.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/drain", "/docs", "/openapi.json"})
ALLOWED = ", ".join(sorted(METHODS))


class Admission:
    """Checks a request's head; the tenant whose key it has is in its state then."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises TurnpoolError."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] not in METHODS:
            raise MethodNotImplementedError(scope["method"])
        if scope["path"] == "*":
            await Response(status_code=204, headers={"Allow": ALLOWED})(scope, receive, send)
            return
        if scope["path"] not in OPEN_PATHS:
            _check(scope)
        await self.app(scope, receive, send)


def _check(scope: Scope) -> None:
    state = state_of(scope)
    state.tenant = tenant_with(bearer_key(state.headers), scope["app"].state.settings)
    encodings = state.headers.get("content-encoding")
    if state.is_body_pending and encodings and not _is_identity(encodings):
        raise UnsupportedEncodingError
    if scope["path"].endswith("/"):
        path = scope["path"].removesuffix("/")
        # Open paths only as they are: a proxy that forbids `/metrics` to strangers knows no other spelling.
        if path and path not in OPEN_PATHS:
            # A redirect would have to know the scheme and host that the client used.
            scope["path"] = path
            scope["raw_path"] = scope.get("raw_path", b"").removesuffix(b"/")


def _is_identity(encodings: str) -> bool:
    return all(coding.strip() in {"identity", ""} for coding in encodings.lower().split(","))
