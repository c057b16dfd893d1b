"""KEDA's count of the keys that the chart renders, against what GET /v1/pool says."""

import httpx
import pytest
from redis.asyncio import Redis

from tests.api.clients import client_of
from tests.api.server import serving
from tests.helm.cases import KEDA, URL, over
from tests.helm.tools import pick, render
from turnpool.settings import Settings
from turnpool.store.store import Store

LENGTHS = {"list": "LLEN", "hash": "HLEN", "set": "SCARD", "zset": "ZCARD"}
"""The command by which KEDA's redis scaler counts a key of this type; a key that is not there counts 0."""


async def count(redis: Redis, key: str) -> int:
    """What KEDA's redis scaler reads: the key's type, then its length."""
    kind = await redis.type(key)
    name = kind.decode() if isinstance(kind, bytes) else kind
    # redis-py has no types here.
    return int(await redis.execute_command(LENGTHS[name], key)) if name != "none" else 0  # type: ignore[no-untyped-call]


async def pool(client: httpx.AsyncClient) -> dict[str, int]:
    """The two figures of GET /v1/pool that pools are scaled by."""
    state = (await client.get("/v1/pool")).json()
    (queue,) = [each for each in state["queues"] if each["name"] == "turns"]
    return {"ready": queue["ready"], "running": queue["running"]}


@pytest.mark.slow
async def test_keda_counts_what_the_pool_says(settings: Settings, store: Store) -> None:
    """As turns are posted and claimed, the triggers' keys count ready and running turns.

    Turns behind one of their own session are no work for another worker, so neither counts them.
    """
    triggers = pick(render(over(URL, KEDA, {"namespace": settings.namespace})), "ScaledObject")["spec"][
        "triggers"
    ]
    lists = {each["name"].removesuffix("_turns"): each["metadata"]["listName"] for each in triggers}

    async def keda() -> dict[str, int]:
        return {name: await count(redis, key) for name, key in lists.items()}

    with serving(settings) as server:
        async with client_of(server) as client, Redis.from_url(settings.redis_url) as redis:
            assert await keda() == await pool(client) == {"ready": 0, "running": 0}
            for number in range(5):
                answer = await client.post(f"/v1/sessions/s{number}/turns", json={"input": "hi"})
                assert answer.status_code == 202
            assert await keda() == await pool(client) == {"ready": 5, "running": 0}
            for _ in range(4):
                assert (await client.post("/v1/sessions/s0/turns", json={"input": "hi"})).status_code == 202
            assert (await client.get("/v1/pool")).json()["queued"] == 9
            assert await keda() == await pool(client) == {"ready": 5, "running": 0}
            for _ in range(2):
                await redis.lpop("turnpool:turns")  # a worker takes a wake-up, and with it a turn
                await store.claim("turns", "worker")
            assert await keda() == await pool(client) == {"ready": 3, "running": 2}
