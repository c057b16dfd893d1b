"""What workers do for waiting turns, done by the API as well, for the time without any worker.

Deadlines that pass are told, and lost wake-ups are made up for: a pool at zero grows by them.
"""

import asyncio
from collections.abc import Awaitable, Callable

from turnpool.errors import StoreAwayError
from turnpool.logs import get_logger
from turnpool.metrics import TOPPED_UP, count_failures
from turnpool_api.context import Context

log = get_logger(__name__)

# Seconds between two looks. The workers look more often.
LOOK_SECONDS = 2.0


async def expire_turns(context: Context) -> None:
    """Fail turns whose deadline passes; until cancelled."""

    async def expire(queue: str) -> None:
        ended, woken = await context.store.expire(queue)
        context.wakeups.publish(woken)
        await count_failures(context.store, queue, ended)

    await _look(context, expire)


async def top_up(context: Context) -> None:
    """Publish wake-ups that were lost; until cancelled. Apart from expiry, which needs no broker."""

    async def add(queue: str) -> None:
        TOPPED_UP.labels(queue).inc(await context.wakeups.top_up(context.store, queue))

    await _look(context, add)


async def measure_queues(context: Context) -> None:
    """See how fast turns leave the queues, for Retry-After; until cancelled."""

    async def measure(queue: str) -> None:
        context.retry_after.observe(queue, await context.store.queue_flow(queue))

    await _look(context, measure)


async def _look(context: Context, look: Callable[[str], Awaitable[None]]) -> None:
    while True:
        try:
            for queue in context.settings.all_queues:
                await look(queue)
        except StoreAwayError:
            pass  # the relay tells it
        except Exception:
            log.exception("upkeep_failed")
        await asyncio.sleep(LOOK_SECONDS)
