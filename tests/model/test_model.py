"""The protocol with every interleaving and every fault, on the real scripts."""

import os

import pytest
from redis.asyncio import Redis

from tests.model.contents import names
from tests.model.data import Data
from tests.model.explore import Explorer
from tests.model.system import System

pytestmark = pytest.mark.anyio

# Of one session, two workers: turns, faults, cancels, turns handed back; and how many systems that makes at
# least: a model that reaches fewer has lost something.
LIMITS = [(2, 1, 1, 1, 6000), (2, 2, 0, 0, 1500), (1, 2, 1, 1, 5800), (1, 3, 0, 0, 1700)]
# Some minutes; part of `make chaos`.
ALL = [*LIMITS, (1, 3, 1, 1, 30_000), (2, 3, 0, 0, 8000), (2, 2, 1, 1, 100_000)]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_promise_holds_in_every_state(redis_url: str) -> None:
    """All promises hold in every state that can be reached, and from each all turns end."""
    async with Redis.from_url(redis_url) as redis:
        data = Data(redis)
        first = await data.first()
        for turns, faults, cancels, drains, least in ALL if "TURNPOOL_CHAOS" in os.environ else LIMITS:
            explorer = Explorer(data)
            start = System(first, wanted=turns, faults=faults, cancels=cancels, drains=drains)
            await explorer.run(start)
            assert len(explorer.reached) >= least
        await check_keys_are_known(redis)
        await redis.flushall()


async def check_keys_are_known(redis: Redis) -> None:
    """The model copies and reads every key that there is."""
    found = {key.decode().partition("}:")[2] async for key in redis.scan_iter("*", count=10_000)}
    assert found <= set(names())
