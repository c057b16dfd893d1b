"""Fails turns whose deadline passes while no worker is there to do it."""

import asyncio

from redis.exceptions import RedisError

from api.context import Context
from turnpool.logs import get_logger
from turnpool.metrics import count_failures
from turnpool.redis import is_away

log = get_logger(__name__)

# Seconds between two looks. The workers look more often; this is for the time without any.
LOOK_SECONDS = 2.0


async def expire_turns(context: Context) -> None:
    """Look until cancelled."""
    while True:
        try:
            for queue in context.settings.all_queues:
                ended, woken = await context.store.expire(queue)
                context.wakeups.publish(woken)
                await count_failures(context.store, queue, ended)
        except Exception as error:
            # The relay tells that Redis is away.
            if not (isinstance(error, (RedisError, OSError)) and is_away(error)):
                log.exception("expiry_failed")
        await asyncio.sleep(LOOK_SECONDS)
