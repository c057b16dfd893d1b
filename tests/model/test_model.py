"""The protocol with every interleaving and every fault, on the real scripts."""

import os
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.model.contents import names
from tests.model.data import Data
from tests.model.explore import Explorer
from tests.model.system import System
from turnpool import keys

pytestmark = pytest.mark.anyio

# Of one session, two workers: how much of what may happen, and how many systems that makes at least: a model
# that reaches fewer has lost something.
LIMITS: list[tuple[dict[str, Any], int]] = [
    ({"wanted": 2, "faults": 1, "cancels": 1, "drains": 1}, 6700),
    ({"wanted": 2, "faults": 2}, 1600),
    ({"wanted": 1, "faults": 2, "cancels": 1, "drains": 1}, 6900),
    ({"wanted": 1, "faults": 3}, 1950),
    ({"wanted": 2, "faults": 1, "drains": 1, "interrupts": True}, 3700),
    ({"wanted": 3, "faults": 1, "interrupts": True}, 1620),
    ({"wanted": 2, "faults": 1, "drains": 1, "deadlines": 1}, 5300),
    ({"wanted": 1, "faults": 2, "cancels": 1, "deadlines": 1}, 4300),
    ({"wanted": 2, "faults": 1, "drains": 1, "deletes": 1}, 3300),
    ({"wanted": 2, "faults": 1, "deadlines": 1, "deletes": 1}, 3800),
    ({"wanted": 1, "faults": 2, "drains": 1, "records": True}, 5500),
    ({"wanted": 1, "faults": 1, "deletes": 1, "records": True}, 330),
]
# Some minutes; part of `make chaos`.
ALL = [
    *LIMITS,
    ({"wanted": 1, "faults": 3, "cancels": 1, "drains": 1}, 39_000),
    ({"wanted": 2, "faults": 3}, 8400),
    ({"wanted": 2, "faults": 2, "cancels": 1, "drains": 1}, 81_000),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_promise_holds_in_every_state(redis_url: str) -> None:
    """All promises hold in every state that can be reached, and from each all turns end."""
    async with Redis.from_url(redis_url) as redis:
        data = Data(redis)
        first = await data.first()
        for limits, least in ALL if "TURNPOOL_CHAOS" in os.environ else LIMITS:
            explorer = Explorer(data)
            await explorer.run(System(first, **limits))
            assert len(explorer.reached) >= least, limits
        await check_keys_are_known(redis)
        await redis.flushall()


async def check_keys_are_known(redis: Redis) -> None:
    """The model copies and reads every key that there is."""
    found = {key.decode().partition("}:")[2] async for key in redis.scan_iter("*", count=10_000)}
    # An API of other tests enters the pool.
    assert found - {keys.pool("")} <= set(names())
