"""Routes of turns."""

import hashlib
from collections.abc import Collection
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request, status
from fastapi.responses import Response

from turnpool import tracing
from turnpool.errors import NotDurableError, TurnpoolError
from turnpool.ids import scoped, session_of
from turnpool.keys import wakeups
from turnpool.metrics import labelled
from turnpool.models import NewTurn, Submitted
from turnpool.store.pages import ListedTurn
from turnpool.store.wakeups import message
from turnpool_api import metrics
from turnpool_api.context import Context, CurrentContext, Tenant
from turnpool_api.http.accept import prefers_stream
from turnpool_api.http.errors import DrainingError, IdempotencyKeyTooLongError
from turnpool_api.http.state import state_of
from turnpool_api.routes.schemas import (
    SessionId,
    TurnId,
    TurnList,
    TurnRequest,
    TurnSummary,
    TurnView,
    as_json,
    stored_json,
)
from turnpool_api.streams.follow import turn_stream
from turnpool_api.streams.response import FrameResponse
from turnpool_api.streams.waiting import wait_for_end, waiting

router = APIRouter(prefix="/v1", tags=["turns"])

MAX_KEY = 255
# Seconds a GET may wait for a turn's end; proxies give up after about a minute.
MAX_WAIT = 60
IdempotencyKey = Annotated[str | None, Header(description="Same key, same turn; kept 24 h.")]


async def submit(
    context: Context, tenant: str, session_id: str, body: TurnRequest, key: str | None
) -> Submitted:
    """Accept a turn and wake a worker. Raises DrainingError and those of Store.submit."""
    if context.draining:
        raise DrainingError
    try:
        return await _submit(context, tenant, session_id, body, key)
    except TurnpoolError as error:
        metrics.REFUSED.labels(error.code).inc()
        raise


async def _submit(
    context: Context, tenant: str, session_id: str, body: TurnRequest, key: str | None
) -> Submitted:
    if key is not None and len(key) > MAX_KEY:
        raise IdempotencyKeyTooLongError
    agent = context.settings.agent_spec(body.agent)
    wake_up = message(wakeups(context.settings.namespace, agent.queue))
    submitted = await context.store.submit(
        NewTurn(
            session_id=session_id,
            tenant=tenant,
            queue=agent.queue,
            agent=agent.name,
            input=body.messages(),
            deadline_seconds=body.deadline_seconds or context.settings.deadline_seconds,
            params=body.params,
            metadata=body.metadata,
            priority=body.priority,
            on_busy=body.on_busy,
            idempotency_key=_digest(key.encode()) if key else "",
            body_digest=_digest(_canonical(body)) if key else "",
            traceparent=tracing.headers().get("traceparent", ""),
            wake_up=wake_up if context.settings.is_one_server else b"",
        )
    )
    if not submitted.replayed:
        labelled(metrics.SUBMITTED, agent.queue).inc()
    context.wakeups.publish(submitted.woken)
    made = {} if submitted.accepted_at is None else {"created_at": submitted.accepted_at}
    if not await context.store.confirm(scoped(tenant, submitted.turn_id), **made):
        raise NotDurableError("a server that took over does not have it")
    return submitted


def _canonical(body: TurnRequest) -> bytes:
    return orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@router.post(
    "/sessions/{session_id}/turns",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=TurnView,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The stream, if asked for by Accept."}
    },
)
async def post_turn(
    context: CurrentContext,
    tenant: Tenant,
    request: Request,
    session_id: SessionId,
    body: TurnRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Post a turn. With `Accept: text/event-stream` the answer is its stream."""
    if prefers_stream(state_of(request.scope).headers.get("accept", "")):
        return await _stream(context, tenant, session_id, body, idempotency_key)
    submitted = await submit(context, tenant, session_id, body, idempotency_key)
    turn = TurnView.of(await context.store.turn(submitted.turn_id, tenant))
    headers = {"Location": f"/v1/turns/{turn.id}"} | _replayed(submitted)
    return as_json(turn, status.HTTP_202_ACCEPTED, headers)


async def _stream(
    context: Context, tenant: str, session_id: str, body: TurnRequest, key: str | None
) -> FrameResponse:
    """Post a turn and answer with its stream."""
    store = context.store
    # Who listens before the turn is accepted hears all of it, and reads no log.
    subscription = context.relay.subscribe(session_id, tenant)
    try:
        heard = await subscription.soon()
        subscription.catch_up()
        submitted = await submit(context, tenant, session_id, body, key)
        if submitted.replayed:
            heard = False
            # The turn is kept longer than its events: then there is no stream to give.
            await store.check_log(submitted.turn_id, tenant)
    except BaseException:
        subscription.leave()
        raise
    headers = {"Location": f"/v1/turns/{submitted.turn_id}/events"} | _replayed(submitted)
    frames = turn_stream(store, subscription, submitted.turn_id, tenant, 0, heard=heard)
    return FrameResponse(frames, headers)


def _replayed(submitted: Submitted) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if submitted.replayed else {}


@router.get("/sessions/{session_id}/turns", response_model=TurnList)
async def list_turns(
    context: CurrentContext,
    tenant: Tenant,
    session_id: SessionId,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[int | None, Query(ge=1, lt=10**15)] = None,
    include: Annotated[
        list[Literal["input", "output", "params", "metadata"]],
        Query(description="What else each turn has; repeat it for several. A page has about 1 MB at most."),
    ] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """List a session's turns, newest first."""
    turns, following = await context.store.turns(session_id, tenant, limit, cursor, include)
    return stored_json(
        {
            "turns": [TurnSummary.of(turn.record).model_dump() | bodies_of(turn, include) for turn in turns],
            "next_cursor": following and str(following),
        }
    )


def bodies_of(turn: ListedTurn, include: Collection[str]) -> dict[str, Any]:
    """The bodies of a turn that were asked for, as they are stored."""
    bodies: dict[str, Any] = {}
    for name in include:
        stored = turn.bodies.get(name)
        if name == "output":
            bodies[name] = None if stored is None else stored.decode(errors="replace")
        elif name == "input":
            # A message a line.
            messages = filter(None, (stored or b"").split(b"\n"))
            bodies[name] = orjson.Fragment(b"[" + b",".join(messages) + b"]")
        else:
            bodies[name] = orjson.Fragment(stored or b"{}")
    return bodies


@router.get("/turns/{turn_id}")
async def get_turn(
    context: CurrentContext,
    tenant: Tenant,
    request: Request,
    turn_id: TurnId,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for its end.")] = 0,
) -> TurnView:
    """Get a turn, at once or when it has ended."""
    turn = await context.store.turn(turn_id, tenant)
    if wait and not turn.status.terminal:
        with waiting(context, session_of(turn_id), tenant) as subscription:
            turn = await wait_for_end(context, request, subscription, turn_id, tenant, wait)
    return TurnView.of(turn)


@router.post(
    "/turns/{turn_id}/cancel",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=TurnView,
    responses={200: {"model": TurnView, "description": "It had ended before."}},
)
async def cancel_turn(context: CurrentContext, tenant: Tenant, turn_id: TurnId) -> Response:
    """Cancel a turn: one that waits at once, one that runs within a second."""
    cancelled = await context.store.cancel(turn_id, tenant)
    context.wakeups.publish(cancelled.woken)
    turn = TurnView.of(await context.store.turn(turn_id, tenant))
    code = status.HTTP_200_OK if cancelled.state == "ended" else status.HTTP_202_ACCEPTED
    return as_json(turn, code)
