"""Routes of sessions."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response, status

from api.context import CurrentContext, Tenant
from api.schemas import SessionDetail, SessionId, SessionList, SessionRequest, SessionView

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


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


@router.get("")
async def list_sessions(
    context: CurrentContext,
    tenant: Tenant,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: str | None = None,
) -> SessionList:
    """List the tenant's sessions, the one last used first."""
    sessions, following = await context.store.sessions(tenant, limit, cursor)
    return SessionList(sessions=[SessionView.of(session) for session in sessions], next_cursor=following)


@router.get("/{session_id}")
async def get_session(context: CurrentContext, tenant: Tenant, session_id: SessionId) -> SessionDetail:
    """Get a session with its messages."""
    session = await context.store.session(session_id, tenant)
    messages = await context.store.messages(session_id, tenant)
    return SessionDetail(**SessionView.of(session).model_dump(), messages=messages)


@router.delete("/{session_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_session(context: CurrentContext, tenant: Tenant, session_id: SessionId) -> None:
    """Delete a session; its turns that wait or run are cancelled."""
    await context.store.delete_session(session_id, tenant)
