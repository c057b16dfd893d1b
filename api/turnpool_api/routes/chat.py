"""The simplest way in: one call, one answer."""

from fastapi import APIRouter, Request

from turnpool.errors import StoreAwayError
from turnpool.states import Status
from turnpool_api.context import CurrentContext, Tenant
from turnpool_api.http.errors import TurnCancelledError, TurnFailedError, TurnUnfinishedError
from turnpool_api.routes.schemas import ChatRequest, ChatResponse, SessionId, TurnRequest
from turnpool_api.routes.turns import IdempotencyKey, submit
from turnpool_api.streams.waiting import wait_for_end, waiting

router = APIRouter(tags=["chat"])

# Seconds beyond the deadline, in which the turn is failed by then.
BEYOND = 10.0


@router.post("/chat/{session_id}")
async def chat(
    context: CurrentContext,
    tenant: Tenant,
    request: Request,
    session_id: SessionId,
    body: ChatRequest,
    idempotency_key: IdempotencyKey = None,
) -> ChatResponse:
    """Post a message and wait for the answer. A turn that fails is a 502, one that is cancelled a 409."""
    longest = context.settings.deadline_seconds + BEYOND
    # Before the post, so that a SIGTERM between the two does not leave the caller without its wait.
    with waiting(context, session_id, tenant) as subscription:
        submitted = await submit(
            context, tenant, session_id, TurnRequest(input=body.message), idempotency_key
        )
        try:
            turn = await wait_for_end(context, request, subscription, submitted.turn_id, tenant, longest)
        except StoreAwayError as error:
            # The turn is accepted: a caller that is not told its id could only post it again.
            raise TurnUnfinishedError(submitted.turn_id) from error
    if turn.status is Status.CANCELLED:
        raise TurnCancelledError(turn.id)
    if not turn.status.terminal:
        raise TurnUnfinishedError(turn.id)
    if turn.status is not Status.COMPLETED:
        raise TurnFailedError(turn.id, turn.error)
    return ChatResponse(response=turn.output or "")
