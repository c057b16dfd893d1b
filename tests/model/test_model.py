"""The protocol with every interleaving and every fault, on the real scripts."""

import pytest
from redis.asyncio import Redis

from tests.model.data import Data
from tests.model.explore import Explorer

pytestmark = pytest.mark.anyio


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_every_promise_holds_in_every_state(redis_url: str) -> None:
    """One session with two turns, two workers, any two faults: all promises hold, and all turns end."""
    async with Redis.from_url(redis_url) as redis:
        data = Data(redis)
        explorer = Explorer(data)
        await explorer.run(faults=2)
        print(len(explorer.reached), explorer.steps, data.count)
        await check_keys_are_known(redis, data)
        await redis.flushall()


async def check_keys_are_known(redis: Redis, data: Data) -> None:
    """The model copies and reads every key that there is."""
    async for key in redis.scan_iter("*"):
        name = key.decode().partition("}:")[2]
        assert name in data.names, f"the model does not know {name}"
