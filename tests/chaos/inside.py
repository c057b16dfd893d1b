"""After the load: what is left in Redis."""

import asyncio
from typing import Any

from redis.asyncio import Redis

from tests.chaos.book import Book
from turnpool import keys
from turnpool.settings import DEFAULT_QUEUE

# Seconds the pool gets to tidy up: a few leases, and some looks for superfluous wake-ups.
TIDY = 30
PREFIX = keys.prefix("turnpool", "0")
WAKEUPS = keys.wakeups("turnpool", DEFAULT_QUEUE)
OF_SESSIONS = ("session:", "messages:", "pending:", "turn:", "log:", "steps:", "sessions:")
EMPTY = ("ready:", "tenants:", "queued:", "deadlines:", "leases:")


async def check(url: str, workers: set[int], book: Book) -> None:
    """Nothing waits or runs, no wake-up lies about, no worker is listed that is gone, every key ends."""
    redis: Any = Redis.from_url(url)
    async with redis:
        left = await _left(redis, workers)
        try:
            async with asyncio.timeout(TIDY):
                while left:
                    await asyncio.sleep(0.2)
                    left = await _left(redis, workers)
        except TimeoutError:
            for what in left:
                book.violation("left in Redis", what)
        async for key in redis.scan_iter(f"{PREFIX}*"):
            index = key.decode().removeprefix(PREFIX).startswith(keys.INDEXES)
            book.expect(index or await redis.ttl(key) > 0, "key without a time to live", key.decode())
            book.seen["keys in the end"] += 1


async def check_deleted(url: str, book: Book) -> None:
    """With all sessions deleted, nothing is left of what they and their turns had."""
    redis: Any = Redis.from_url(url)
    async with redis:
        for key in [key for name in OF_SESSIONS for key in await _keys(redis, name)]:
            book.violation("key of a deleted session", key)


async def _left(redis: Any, workers: set[int]) -> list[str]:
    """What should be gone, in words."""
    left = [f"index {key}" for name in EMPTY for key in await _keys(redis, name)]
    if wakeups := await redis.llen(WAKEUPS):
        left.append(f"{wakeups} wake-ups")
    listed = {int(name.rpartition(b"-")[2]) for name in await redis.zrange(keys.workers(PREFIX), 0, -1)}
    if listed != workers:
        left.append(f"workers listed {sorted(listed)}, alive {sorted(workers)}")
    heads = {key: await redis.hget(key, "head") for key in await _keys(redis, "line:")}
    return left + [f"{key} with head {head.decode()}" for key, head in heads.items() if head]


async def _keys(redis: Any, name: str) -> list[str]:
    return [key.decode() async for key in redis.scan_iter(f"{PREFIX}{name}*")]
