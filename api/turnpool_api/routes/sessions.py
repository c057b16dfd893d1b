"""Routes of sessions."""

import uuid
from enum import StrEnum
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Body, Query, Response, status

from turnpool_api.context import CurrentContext, Tenant
from turnpool_api.routes.schemas import (
    ListedSession,
    SessionDetail,
    SessionId,
    SessionList,
    SessionRequest,
    SessionSummary,
    SessionView,
    stored_json,
)

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

INCLUDE = "What else each session has; repeat it for several. A page has about 1 MB at most."


class Order(StrEnum):
    """Which of a session's messages come first."""

    ASC = "asc"
    DESC = "desc"


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_session(
    context: CurrentContext,
    tenant: Tenant,
    response: Response,
    body: Annotated[SessionRequest, Body(default_factory=SessionRequest)],
) -> SessionView:
    """Create a session. Optional: the first turn creates its session."""
    session_id = body.id or uuid.uuid4().hex
    await context.store.create_session(session_id, tenant, body.metadata)
    response.headers["Location"] = f"/v1/sessions/{session_id}"
    return SessionView.of(await context.store.session(session_id, tenant))


@router.get("", response_model_exclude_unset=True)
async def list_sessions(
    context: CurrentContext,
    tenant: Tenant,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: str | None = None,
    include: Annotated[list[Literal["metadata"]], Query(description=INCLUDE)] = [],  # noqa: B006 - FastAPI copies it
) -> SessionList:
    """List the tenant's sessions, the one last used first."""
    with_metadata = "metadata" in include
    sessions, following = await context.store.sessions(tenant, limit, cursor, with_metadata=with_metadata)
    view = SessionView if with_metadata else SessionSummary
    listed = [ListedSession(**view.of(session).model_dump()) for session in sessions]
    return SessionList(sessions=listed, next_cursor=following)


@router.get("/{session_id}", response_model=SessionDetail)
async def get_session(
    context: CurrentContext,
    tenant: Tenant,
    session_id: SessionId,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most messages of the answer.")] = 100,
    cursor: Annotated[int | None, Query(ge=0, lt=2**31, description="From next_cursor.")] = None,
    order: Annotated[
        Order, Query(description="asc: the oldest message first; desc: the newest.")
    ] = Order.ASC,
) -> Response:
    """Get a session with its messages, page by page; a page has about 1 MB at most."""
    session = await context.store.session(session_id, tenant)
    page = await context.store.message_page(
        session_id, tenant, limit, cursor, newest_first=order is Order.DESC
    )
    return stored_json(
        SessionView.of(session).model_dump()
        | {
            "messages": [orjson.Fragment(message) for message in page.messages],
            "next_cursor": None if page.following is None else str(page.following),
        }
    )


@router.delete("/{session_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_session(context: CurrentContext, tenant: Tenant, session_id: SessionId) -> None:
    """Delete a session; its turns that wait or run are cancelled."""
    await context.store.delete_session(session_id, tenant)
