"""The quick way of a post that is right in every part.

FastAPI finds out anew for each request what a function wants and where that comes from, and has half of
this process's time for it in a burst. Here the parts are read as they are. A post of which any part is not
as it should be goes FastAPI's way, which says what is wrong.
"""

import re
from typing import NamedTuple

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from turnpool_api.context import Context, tenant_of
from turnpool_api.http.problems import answer_to
from turnpool_api.http.state import state_of
from turnpool_api.routes import turns
from turnpool_api.routes.schemas import SESSION_ID, TurnRequest

_SESSION_ID = re.compile(SESSION_ID)
_ROUTE = next(
    route for route in turns.router.routes
    if isinstance(route, APIRoute) and route.endpoint is turns.post_turn
)  # fmt: skip


class Post(NamedTuple):
    """What is read of a post."""

    session_id: str
    body: TurnRequest


class QuickPosts:
    """ASGI middleware: calls `turns.post_turn` for the posts it can read, and `app` for all else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        post = _read(scope)
        if post is None:
            await self.app(scope, receive, send)
            return
        # For the figures of the request.
        scope["route"] = _ROUTE
        request = Request(scope, receive)
        context: Context = request.app.state.context
        try:
            answer = await turns.post_turn(
                context=context,
                tenant=await tenant_of(request, None),
                request=request,
                session_id=post.session_id,
                body=post.body,
                idempotency_key=request.headers.get("idempotency-key"),
            )
        except Exception as error:  # noqa: BLE001 - its handler logs what is not for the client
            answer = await answer_to(request, error)
        await answer(scope, receive, send)


def _read(scope: Scope) -> Post | None:
    """The post, or None if a part of it is not as it should be, or FastAPI is to trace it."""
    if scope["type"] != "http" or scope["method"] != "POST" or "fastapi.telemetry" in scope:
        return None
    path = _ROUTE.path_regex.match(scope["path"])
    if not path or not _SESSION_ID.fullmatch(path["session_id"]) or scope.get("root_path"):
        return None
    state = state_of(scope)
    if state.headers.get("content-type") != "application/json":
        return None
    try:
        body = TurnRequest.model_validate_json(state.body)
    except ValidationError:
        return None
    return Post(path["session_id"], body)
