"""Waiting for the end of a turn."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request

from turnpool.models import TurnRecord
from turnpool_api.context import Context
from turnpool_api.streams.follow import turn_stream
from turnpool_api.streams.subscription import Subscription


@contextmanager
def waiting(context: Context, session_id: str, tenant: str) -> Iterator[Subscription]:
    """Subscribe to a session for a call that waits, which a SIGTERM does not end at once.

    A call that comes after the SIGTERM is not to wait: its subscription is closed from the beginning.
    """
    with context.relay.subscribe(session_id, tenant) as subscription:
        context.waits.add(subscription)
        try:
            yield subscription
        finally:
            context.waits.remove(subscription)


async def wait_for_end(
    context: Context, request: Request, subscription: Subscription, turn_id: str, tenant: str, seconds: float
) -> TurnRecord:
    """The turn once it has ended, or as it is after so many seconds, or when the client has gone."""
    turn = await context.store.turn(turn_id, tenant)
    waits = {
        asyncio.create_task(_end(context, subscription, turn_id, tenant, turn.seq)),
        asyncio.create_task(_disconnect(request)),
    }
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
    return await context.store.turn(turn_id, tenant)


async def _end(context: Context, subscription: Subscription, turn_id: str, tenant: str, after: int) -> None:
    async for _ in turn_stream(context.store, subscription, turn_id, tenant, after):
        pass


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
