"""Waiting for the end of a turn."""

import asyncio

from fastapi import Request

from api.context import Context
from api.streams import turn_stream
from turnpool.ids import session_of
from turnpool.models import TurnRecord


async def wait_for_end(
    context: Context, request: Request, turn_id: str, tenant: str, seconds: float
) -> TurnRecord:
    """The turn once it has ended, or as it is after so many seconds, or when the client has gone."""
    turn = await context.store.turn(turn_id, tenant)
    waits = {
        asyncio.create_task(_end(context, turn_id, tenant, turn.seq)),
        asyncio.create_task(_disconnect(request)),
    }
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
    return await context.store.turn(turn_id, tenant)


async def _end(context: Context, turn_id: str, tenant: str, after: int) -> None:
    subscription = context.relay.subscribe(session_of(turn_id), tenant)
    async for _ in turn_stream(context.store, subscription, turn_id, tenant, after):
        pass


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
