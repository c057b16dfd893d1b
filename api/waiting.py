"""Waiting for the end of a turn."""

import asyncio
import contextlib

from api.context import Context
from api.streams import turn_stream
from turnpool.models import TurnRecord


async def wait_for_end(context: Context, turn_id: str, tenant: str, seconds: float) -> TurnRecord:
    """The turn once it has ended, or as it is after so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            turn = await context.store.turn(turn_id, tenant)
            stream = turn_stream(context.store, context.relay, turn_id, tenant, turn.seq)
            async with contextlib.aclosing(stream):
                async for _ in stream:
                    pass
    return await context.store.turn(turn_id, tenant)
