"""Counting lost wake-ups (`lua/top_up.lua`)."""

import asyncio

import pytest

from tests.turnpool.scripts.kit import MakeTurn, take
from turnpool import keys
from turnpool.settings import Settings
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def look(store: Store, listed: int, *, queue: str = "turns") -> int:
    """Look as if the last look was long ago."""
    missing = keys.missing(store.prefix, queue)
    if await store.redis.exists(missing):
        await store.redis.hset(missing, "at", 0)
    return await store.top_up(queue, listed, 1000)


async def fill(store: Store, new_turn: MakeTurn, count: int) -> None:
    """So many ready turns, of several tenants."""
    for n in range(count):
        await store.submit(new_turn(f"s{n}", tenant=f"t{n % 3}"))


async def test_what_misses_at_two_looks_is_published_once(store: Store, new_turn: MakeTurn) -> None:
    """A wake-up may be on its way at the first look; what misses at the second is lost."""
    await fill(store, new_turn, 5)
    assert await look(store, 2) == 0
    assert await look(store, 2) == 3
    assert await look(store, 5) == 0
    assert await look(store, 5) == 0


async def test_the_lesser_of_two_looks_counts(store: Store, new_turn: MakeTurn) -> None:
    """What came in since the last look is given its time, and what has arrived is not missed."""
    await fill(store, new_turn, 5)
    assert [await look(store, listed) for listed in (5, 1, 3, 3, 5)] == [0, 0, 2, 0, 0]


async def test_more_wake_ups_than_turns_are_no_debt(store: Store, new_turn: MakeTurn) -> None:
    """Superfluous wake-ups are taken away, at the second look, and not set against later losses."""
    await fill(store, new_turn, 2)
    assert [await look(store, listed) for listed in (9, 7, 2, 0, 0)] == [0, -5, 0, 0, 2]


async def test_only_ready_turns_count(store: Store, new_turn: MakeTurn) -> None:
    """Turns that run or wait behind their session's head, or in another queue, need no wake-up."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    await store.submit(new_turn("other", queue="other"))
    await take(store)
    assert [await look(store, 0) for _ in range(2)] == [0, 0]
    assert [await look(store, 0, queue="other") for _ in range(2)] == [0, 1]


async def test_many_workers_do_not_double(settings: Settings, store: Store, new_turn: MakeTurn) -> None:
    """However many workers look at once, a loss is made up for once an interval."""
    await fill(store, new_turn, 4)
    stores = [Store.connect(settings) for _ in range(6)]
    await look(store, 0)
    await store.redis.hset(keys.missing(store.prefix, "turns"), "at", 0)
    looks = [worker.top_up("turns", 0, 60_000) for worker in stores for _ in range(5)]
    assert sorted(await asyncio.gather(*looks))[-2:] == [0, 4]
    for worker in stores:
        await worker.close()
