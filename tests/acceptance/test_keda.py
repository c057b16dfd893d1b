"""What KEDA counts on the keys that the chart renders is what the pool says of itself."""

import asyncio
from typing import Any

import pytest

from tests.acceptance.processes import Pool
from tests.acceptance.sse import post_turn, request
from tests.conftest import wait_until
from tests.helm.cases import KEDA, URL, over
from tests.helm.tools import pick, render

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

# The rule of KEDA's redis scaler: the length of a key by its type, 0 if there is none.
# Source: https://keda.sh/docs/latest/scalers/redis-lists/
COUNT = {"list": "LLEN", "zset": "ZCARD", "set": "SCARD", "hash": "HLEN", "stream": "XLEN"}


async def keda_counts(redis: Any, name: str) -> int:
    """What the redis scaler reads from a `listName`."""
    kind = (await redis.type(name)).decode()
    return 0 if kind == "none" else int(await redis.execute_command(COUNT[kind], name))


async def test_keda_counts_what_the_pool_says(pool: Pool) -> None:
    """Ten turns on three slots: seven queued, three running; none of either when they have ended."""
    scaled = pick(render(over(URL, KEDA)), "ScaledObject")["spec"]
    names = [trigger["metadata"]["listName"] for trigger in scaled["triggers"]]
    api = await pool.api()
    await pool.worker(CONCURRENCY="3")
    turn = {"input": "hi", "agent": "simulated", "params": {"tokens": 1, "ttft_ms": 3000}}
    answers = await asyncio.gather(*(post_turn(api.port, f"s{i}", turn) for i in range(10)))

    async def both() -> tuple[list[int], list[int]]:
        figures = await (await request(api.port, "GET", "/v1/pool")).body()
        counted = [await keda_counts(pool.store.redis, name) for name in names]
        return counted, [figures["queued"], figures["running"]]

    async def are(queued: int, running: int) -> bool:
        return await both() == ([queued, running], [queued, running])

    await wait_until(lambda: are(7, 3))
    for answer in answers:
        answer.writer.close()
    await wait_until(lambda: are(0, 0), 30)
