"""Routes of events."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Response, status
from pydantic import BaseModel, Field

from turnpool.events import is_terminal, json_of, seq_of
from turnpool.ids import session_of
from turnpool.store.pages import PAGE_BYTES
from turnpool_api.context import Context, CurrentContext, Tenant
from turnpool_api.routes.schemas import EventList, SessionId, TurnId, stored_json
from turnpool_api.streams.cursor import BadEventIdError, Cursor
from turnpool_api.streams.follow import session_stream, turn_stream
from turnpool_api.streams.response import FrameResponse

# More events than a turn can have, and a number that fits Redis' stream ids.
MAX_DIGITS = 15

router = APIRouter(prefix="/v1", tags=["events"])

LastEventId = Annotated[str | None, Header(description="Sent by browsers when they connect again.")]
SSE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
EVENTS: dict[int | str, dict[str, Any]] = {200: {"model": EventList, "content": {"text/event-stream": {}}}}


class LogQuery(BaseModel):
    """Which events of a turn, and how."""

    after: Annotated[int, Field(ge=0, lt=10**MAX_DIGITS)] | None = None
    follow: bool = True
    limit: Annotated[int, Field(ge=1, le=10_000, description="Most events with follow=false.")] = 1000


@router.get("/turns/{turn_id}/events", responses=EVENTS)
async def turn_events(
    context: CurrentContext,
    tenant: Tenant,
    turn_id: TurnId,
    query: Annotated[LogQuery, Query()],
    last_event_id: LastEventId = None,
) -> Response:
    """Stream a turn's events after Last-Event-ID or `after`.

    With `follow=false` the answer is a page of the log so far as JSON, of about 1 MB at most.
    """
    start = _start(last_event_id, query.after)
    await context.store.check_log(turn_id, tenant)
    if query.follow and start and await _nothing_left(context, turn_id, tenant, start):
        # The one answer that keeps a browser's EventSource from connecting again.
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    if query.follow:
        subscription = context.relay.subscribe(session_of(turn_id), tenant)
        stream = turn_stream(context.store, subscription, turn_id, tenant, start)
        return FrameResponse(stream, resumed=start > 0)
    async with context.store.page_slot():
        frames = await context.store.frames(turn_id, tenant, start, PAGE_BYTES, query.limit)
    more = bool(frames) and not is_terminal(frames[-1])
    return stored_json(
        {
            "events": [orjson.Fragment(json_of(frame)) for frame in frames],
            "next_cursor": str(seq_of(frames[-1])) if more else None,
        }
    )


@router.get("/sessions/{session_id}/events", responses=SSE)
async def session_events(
    context: CurrentContext,
    tenant: Tenant,
    session_id: SessionId,
    last_event_id: LastEventId = None,
    after: str | None = None,
) -> Response:
    """Stream the events of all turns of a session: those that have not ended, and all to come."""
    await context.store.check_session(session_id, tenant)
    place = last_event_id or after
    cursor = Cursor.decode(place) if place else await _now(context, session_id, tenant)
    subscription = context.relay.subscribe(session_id, tenant)
    stream = session_stream(context.store, subscription, session_id, tenant, cursor)
    return FrameResponse(stream, resumed=bool(place))


async def _now(context: Context, session_id: str, tenant: str) -> Cursor:
    # The newest first: a turn that comes between the two is then after the cursor, not lost.
    newest = await context.store.newest(session_id, tenant)
    unfinished = await context.store.unfinished(session_id, tenant)
    return Cursor.at(newest, [n for n in unfinished if n <= newest])


async def _nothing_left(context: Context, turn_id: str, tenant: str, after: int) -> bool:
    turn = await context.store.progress(turn_id, tenant)
    return turn.status.terminal and turn.seq == after


def _start(last_event_id: str | None, after: int | None) -> int:
    if last_event_id is None:
        return after or 0
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= MAX_DIGITS):
        raise BadEventIdError
    return int(last_event_id)
